//! A policy that asks for new keys: as one does, never, without end, or in words that mean nothing.
//!
//! It speaks where a component would, and the settings around it may be nonsense as well: what the host's limits are
//! worth is judged by [`crate::check::ceiling`].

use farseal_core::limits::{KEY_AGE_MAX, KEY_BYTES_MAX};
use farseal_core::primary::{Action, Decision};
use farseal_core::rotation::{How, KeyLimits};
use farseal_core::units::{ByteLen, Millis, WallTime};

use crate::dice::Dice;
use crate::mutation::Mutation;
use crate::stats::Sometimes;

/// Names the policy's stream of chance.
const STREAM: u64 = 21;

/// What it asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// A new key every so often.
    Ordinary,
    Never,
    /// A new key at once, and to be asked again at once.
    Always,
    Nonsense,
}

impl Policy {
    /// In some seeds the operator's limits are nonsense too.
    pub fn draw(seed: u64, limits: &mut KeyLimits, mutation: Option<Mutation>) -> Self {
        let mut dice = Dice::new(seed, STREAM);
        let drawn = match dice.below(10) {
            0 => Self::Never,
            1 => Self::Always,
            2 => Self::Nonsense,
            _ => Self::Ordinary,
        };
        if dice.chance(50) {
            *limits = KeyLimits { interval_min: Millis(0), age_max: Millis(u64::MAX), bytes_max: ByteLen(u64::MAX) };
        }
        match mutation {
            Some(Mutation::AgeNotWatched) => {
                limits.age_max = Millis(1_000);
                Self::Never
            }
            Some(Mutation::BytesNotWatched) => {
                limits.bytes_max = ByteLen(100_000);
                Self::Never
            }
            Some(Mutation::IntervalNotWatched) => {
                limits.interval_min = Millis(10_000);
                Self::Always
            }
            _ => drawn,
        }
    }

    pub fn seen(self) -> Option<Sometimes> {
        match self {
            Self::Ordinary => None,
            Self::Never => Some(Sometimes::PolicyNeverRotates),
            Self::Always => Some(Sometimes::PolicyAlwaysRotates),
            Self::Nonsense => Some(Sometimes::PolicyTalksNonsense),
        }
    }

    /// What the machine is told of the limits: the limits, unless the driver is broken.
    pub fn limit(self, limits: &mut KeyLimits, mutation: Option<Mutation>) {
        match mutation {
            Some(Mutation::AgeNotWatched) => limits.age_max = KEY_AGE_MAX,
            Some(Mutation::BytesNotWatched) => limits.bytes_max = KEY_BYTES_MAX,
            Some(Mutation::IntervalNotWatched) => limits.interval_min = Millis(0),
            _ => {}
        }
    }

    pub fn decide(self, wall: WallTime, dice: &mut Dice) -> Vec<Decision> {
        match self {
            Self::Ordinary => ordinary(wall, dice),
            Self::Never => Vec::new(),
            Self::Always => {
                let id = dice.draw();
                let rotate = [None, Some(How::InBand), Some(How::Pause)].map(Action::Rotate);
                rotate.into_iter().chain([Action::WakeAt(wall)]).map(|action| Decision { id, action }).collect()
            }
            Self::Nonsense => {
                let count = dice.below(12);
                (0..count).map(|_| nonsense(dice)).collect()
            }
        }
    }
}

/// Rotates every so often, and sometimes says what no host knows.
fn ordinary(wall: WallTime, dice: &mut Dice) -> Vec<Decision> {
    let id = dice.draw();
    let wake = Decision { id, action: Action::WakeAt(WallTime(wall.0 + dice.between(100, 5_000))) };
    match dice.below(8) {
        0 => vec![Decision { id, action: Action::Rotate(None) }, wake],
        1 => vec![Decision { id, action: Action::Rotate(Some(How::InBand)) }, wake],
        2 => vec![Decision { id, action: Action::Rotate(Some(How::Pause)) }, wake],
        3 => vec![Decision { id, action: Action::Watch { bytes: Some(dice.below(100_000)), blocks: None } }],
        4 => vec![Decision { id, action: Action::Unknown }],
        5 => vec![],
        _ => vec![wake],
    }
}

/// The same number for all, times that never come or are long over, marks that were passed before they were set, and what
/// no contract lets a policy ask for.
fn nonsense(dice: &mut Dice) -> Decision {
    let action = match dice.below(8) {
        0 => Action::Unknown,
        1 => Action::WakeAt(WallTime(0)),
        2 => Action::WakeAt(WallTime(u64::MAX)),
        3 => Action::Watch { bytes: Some(0), blocks: Some(0) },
        4 => Action::Watch { bytes: Some(u64::MAX), blocks: None },
        5 => Action::Rotate(Some(How::AtOnce)),
        6 => Action::Rotate(Some(How::Pause)),
        _ => Action::Rotate(None),
    };
    Decision { id: 0, action }
}
