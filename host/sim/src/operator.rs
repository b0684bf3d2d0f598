//! An operator who wants anything at any time, and presets that pause and resume by a wall clock that may jump.

use farseal_core::limits::PRESET_SPAN_MIN;
use farseal_core::owed::OwedMap;
use farseal_core::preset::{Act, By, Preset, Presets};
use farseal_core::primary::{Command, Input, Mode, PauseState};
use farseal_core::rotation::How;
use farseal_core::units::{BlockCount, Epoch, Extent, Lba, Millis, WallTime};

use crate::check::preset;
use crate::dice::Dice;
use crate::faults::{Fault, Faults};
use crate::mutation::Mutation;
use crate::stats::Sometimes;
use crate::world::{Outcome, Settings, World};

/// The operator's own word, beside the presets.
#[derive(Debug)]
pub struct Operator {
    dice: Dice,
    pub presets: Presets,
    /// No turn of a preset, and no pause with an end, is longer.
    pub longest: Millis,
    /// The operator has paused, until further notice.
    pub paused: bool,
}

impl Operator {
    /// Some seeds have presets; in these the clock jumps.
    pub fn draw(seed: u64, settings: &Settings, faults: &mut Faults) -> Self {
        let mut dice = Dice::new(seed, 13);
        let mut operator = Self { presets: Presets::default(), longest: Millis(0), paused: false, dice: dice.clone() };
        let often = settings.mutation == Some(Mutation::OperatorsPauseNotTold);
        if !often && !dice.chance(250) {
            return operator;
        }
        for name in ["first", "second"].into_iter().take(if dice.chance(300) { 2 } else { 1 }) {
            let (preset, longest) = any_preset(&mut dice);
            operator.presets.add(name, preset).unwrap_or_default();
            operator.longest = operator.longest.max(longest);
        }
        if !settings.without.contains(&Fault::ClockJump) {
            faults.insist(Fault::ClockJump, 40);
        }
        operator.dice = dice;
        operator
    }
}

/// A preset, and the longest that it stays as it is.
fn any_preset(dice: &mut Dice) -> (Preset, Millis) {
    let (every, span) = (dice.between(3_000, 12_000), dice.between(PRESET_SPAN_MIN.0, 3_000));
    match dice.below(3) {
        0 => {
            let pause = u16::try_from(dice.below(1_440)).unwrap_or(0);
            let resume = (pause + u16::try_from(dice.between(1, 1_440)).unwrap_or(1)) % 1_440;
            let days = [true, dice.chance(500), true, dice.chance(500), true, true, dice.chance(500)];
            let week = Millis(7 * 24 * 3_600_000);
            (Preset::TimeOfDay { pause, resume, days, offset: 60 }, week)
        }
        1 => {
            let from = WallTime(1_700_000_000_000);
            (Preset::Interval { every: Millis(every), span: Millis(span), from }, Millis(every))
        }
        _ => {
            let twice = |span| (Millis(span), Millis(2 * span));
            (Preset::Irregular { every: twice(every), span: twice(span) }, Millis(2 * every))
        }
    }
}

impl World {
    /// Any command there is, in whatever state the pair is.
    pub fn command(&mut self) -> Outcome {
        if self.dice_flow.chance(150) {
            return self.flow_command();
        }
        let dice = &mut self.operator.dice;
        let command = match dice.below(23) {
            0..3 => return self.pause(),
            3..7 => return self.resume(),
            7..9 => Command::RequestRotation,
            9..13 => Command::Rotate(How::InBand),
            13..16 => Command::Rotate(How::Pause),
            16..18 => Command::Rotate(How::AtOnce),
            18 => Command::Suspect(Epoch(dice.below(5))),
            19 => Command::CopyAll,
            20 => return self.owe_again(),
            // A pair that keeps no order of writes has one mode.
            _ if self.primary.settings.unordered.is_some() => Command::SetMode(Mode::Async),
            _ => match dice.below(3) {
                0 => Command::SetMode(Mode::Sync),
                1 => Command::SetMode(Mode::SyncFlush),
                _ => Command::SetMode(Mode::Async),
            },
        };
        if command == Command::CopyAll {
            self.stats.see(Sometimes::CopyAll);
        }
        self.tell_primary(Input::Operator(command))
    }

    /// For some time, or until further notice.
    fn pause(&mut self) -> Outcome {
        let dice = &mut self.operator.dice;
        let span = dice.chance(300).then(|| Millis(dice.between(1_000, 5_000)));
        let now = self.clock().wall;
        let operator = &mut self.operator;
        if operator.presets.hold().is_some_and(|hold| matches!(hold.by, By::Preset(_))) {
            self.stats.see(Sometimes::OperatorTookPauseOver);
        }
        operator.paused = span.is_none();
        operator.longest = operator.longest.max(span.unwrap_or_default());
        if self.settings.mutation != Some(Mutation::OperatorsPauseNotTold) {
            operator.presets.pause(now, None, span);
        }
        self.tell_primary(Input::Operator(Command::Pause))
    }

    fn resume(&mut self) -> Outcome {
        self.operator.presets.resume();
        self.operator.paused = false;
        self.tell_primary(Input::Operator(Command::Resume))
    }

    /// A verification found granules that differ: they are owed again.
    fn owe_again(&mut self) -> Outcome {
        let settings = &self.primary.settings;
        let mut map = OwedMap::empty(settings.blocks, settings.block_bytes);
        for _ in 0..self.operator.dice.between(1, 4) {
            let lba = Lba(self.operator.dice.below(settings.blocks.0));
            Extent::new(lba, BlockCount(1)).into_iter().for_each(|extent| map.mark(extent));
        }
        self.stats.see(Sometimes::OwedAgain);
        self.tell_primary(Input::OweAgain { map })
    }

    /// The presets look at the clock, as they do every so often.
    pub fn follow_presets(&mut self) -> Outcome {
        let Some(status) = self.primary.machine.as_ref().map(farseal_core::primary::Primary::status) else {
            return Ok(());
        };
        let (now, paused) = (self.clock().wall, status.pause != PauseState::Running);
        let entropy = self.operator.dice.draw();
        let act = self.operator.presets.look(now, paused, entropy);
        preset::looked(self, now, act)?;
        match act {
            Some(Act::Pause) => {
                self.stats.see(Sometimes::PausedByPreset);
                self.tell_primary(Input::Operator(Command::Pause))
            }
            Some(Act::Resume) => {
                self.stats.see(Sometimes::ResumedByPreset);
                self.tell_primary(Input::Operator(Command::Resume))
            }
            None => Ok(()),
        }
    }

    /// The operator removes them all.
    pub fn no_presets(&mut self) {
        self.operator.presets = Presets::default();
        self.operator.paused = false;
    }
}
