//! An operator who changes how copying flows, at random, and what a checker sees of it.

use std::collections::VecDeque;

use farseal_core::flow::{Flow, Limits, Pacing, Rate, Transfer, Way};
use farseal_core::limits::{RATE_BURST, RATE_MIN};
use farseal_core::primary::{Command, Input, Primary};
use farseal_core::units::{Millis, Path};

use crate::check::{Checker, Failure};
use crate::dice::Dice;
use crate::mutation::Mutation;
use crate::stats::Sometimes;
use crate::world::{Outcome, World};

/// The stream of chance that this file draws from.
pub const STREAM: u64 = 8;

/// What a run begins with.
pub fn draw(seed: u64, paths: u16) -> Flow {
    let mut dice = Dice::new(seed, STREAM + 1);
    let transfer = if dice.chance(300) { Transfer::Ordered } else { Transfer::Scheduled };
    let pacing = Pacing {
        high_water_percent: u8::try_from(dice.between(30, 100)).unwrap_or(80),
        pace_max: Millis(dice.below(3) * 20),
    };
    Flow { way: Way { transfer, paths }, limits: limits(&mut dice), pacing }
}

/// Mostly none; those there are, are felt.
fn limits(dice: &mut Dice) -> Limits {
    let mut rate = || dice.chance(250).then(|| Rate::new(RATE_MIN.0 + dice.below(1 << 20)).ok()).flatten();
    Limits { link: rate(), resync: rate(), initial_copy: rate() }
}

/// What went over the link since its throttle was set, as a checker sees it.
#[derive(Clone, Debug, Default)]
pub struct Throttled {
    rate: Option<Rate>,
    /// When, in milliseconds, and how many bytes; a bounded number of them.
    sent: VecDeque<(u64, u64)>,
}

/// Sends that are looked back on.
const LOOK_BACK: usize = 256;

impl Throttled {
    pub fn set(&mut self, rate: Option<Rate>) {
        if self.rate != rate {
            *self = Self { rate, sent: VecDeque::new() };
        }
    }

    /// In no span did more go than the throttle lets through.
    fn sends(&mut self, now: u64, bytes: u64) -> Result<(), Failure> {
        let Some(rate) = self.rate else { return Ok(()) };
        self.sent.push_back((now, bytes));
        if self.sent.len() > LOOK_BACK {
            self.sent.pop_front();
        }
        let (mut sum, mut largest) = (0, 0);
        for (at, bytes) in self.sent.iter().rev() {
            sum += bytes;
            largest = largest.max(*bytes);
            let most = rate.get() * (now - at + RATE_BURST.0) / 1_000 + largest + 1;
            if sum > most {
                let what = format!("{sum} bytes went over the link since {at} ms; its throttle allows {most}");
                return Err(Failure::new(Checker::Bounds, what));
            }
        }
        Ok(())
    }
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

    /// Records go over the link.
    pub fn throttled(&mut self, bytes: u64) -> Outcome {
        let now = self.clock().instant.0;
        self.primary.throttled.sends(now, bytes)
    }

    /// By how much the next thing that an initiator does is late, in microseconds.
    pub fn paced(&mut self) -> u64 {
        let pace = self.primary.machine.as_ref().map_or(0, Primary::pace_us);
        if pace > 0 {
            self.stats.see(Sometimes::Paced);
        }
        pace
    }

    /// Nobody throttles any more.
    pub fn let_flow(&mut self) -> Outcome {
        self.primary.chosen.limits = Some(Limits::default());
        self.set_limits(Limits::default())
    }

    fn set_limits(&mut self, limits: Limits) -> Outcome {
        self.primary.throttled.set(limits.link);
        if self.settings.mutation == Some(Mutation::ThrottleIgnored) {
            return Ok(());
        }
        self.tell_primary(Input::Operator(Command::SetLimits(limits)))
    }

    /// How many paths the operator wants, from the first on; the others are closed when they come.
    pub fn wanted_paths(&self) -> usize {
        let wanted = self.primary.machine.as_ref().map(|machine| machine.flow(self.clock()).way.paths);
        wanted.map_or(1, usize::from)
    }

    /// Sends in another order, or over fewer paths or more; one is always left.
    pub fn flow_command(&mut self) -> Outcome {
        if self.dice_flow.chance(500) {
            let limits = limits(&mut self.dice_flow);
            return self.set_limits(limits);
        }
        let most = u64::try_from(self.link.lines.len()).unwrap_or(1);
        let dice = &mut self.dice_flow;
        let transfer = if dice.chance(500) { Transfer::Ordered } else { Transfer::Scheduled };
        let paths = if dice.chance(300) { dice.between(1, most + 1) } else { most };
        let way = Way { transfer, paths: u16::try_from(paths).unwrap_or(1) };
        self.tell_primary(Input::Operator(Command::SetWay(way)))
    }
}
