//! An operator who changes how copying flows, at random.

use farseal_core::flow::{Flow, Transfer, Way};
use farseal_core::primary::{Command, Input};
use farseal_core::units::Path;

use crate::check::{Checker, Failure};
use crate::dice::Dice;
use crate::mutation::Mutation;
use crate::world::{Outcome, World};

/// The stream of chance that this file draws from.
pub const STREAM: u64 = 8;

/// What a run begins with.
pub fn draw(seed: u64, paths: u16) -> Flow {
    let mut dice = Dice::new(seed, STREAM + 1);
    let transfer = if dice.chance(300) { Transfer::Ordered } else { Transfer::Scheduled };
    Flow { way: Way { transfer, paths }, ..Flow::default() }
}

impl World {
    /// The path that records go over. In order it is the one before, for as long as that is up.
    pub fn carrier(&mut self, path: Path) -> Result<Path, Failure> {
        let spare = self.link.paths().find(|other| *other != path && self.link.lines[usize::from(other.0)].primary_up);
        let path = match spare {
            Some(spare) if self.settings.mutation == Some(Mutation::SpareUsed) && self.dice_flow.chance(100) => spare,
            Some(_) | None => path,
        };
        let way = self.primary.machine.as_ref().map(|machine| machine.flow(self.clock()).way);
        if let (Some(Way { transfer: Transfer::Ordered, .. }), Some(before)) = (way, self.primary.carrier)
            && before != path
        {
            let what = format!("records go over path {} while path {} carries them in order", path.0, before.0);
            return Err(Failure::new(Checker::WriteOrder, what));
        }
        self.primary.carrier = Some(path);
        Ok(path)
    }

    /// Sends in another order, or over fewer paths or more; one is always left.
    pub fn flow_command(&mut self) -> Outcome {
        let most = u64::try_from(self.link.lines.len()).unwrap_or(1);
        let dice = &mut self.dice_flow;
        let transfer = if dice.chance(500) { Transfer::Ordered } else { Transfer::Scheduled };
        let paths = if dice.chance(300) { dice.between(1, most + 1) } else { most };
        let way = Way { transfer, paths: u16::try_from(paths).unwrap_or(1) };
        self.tell_primary(Input::Operator(Command::SetWay(way)))
    }
}
