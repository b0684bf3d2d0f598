//! Where an epoch stands in its life, from being drawn to being destroyed, as one word for consoles and records.
//!
//! ```text
//! prepared ─▶ escrowed ─▶ delivered ─▶ armed ─▶ active ─▶ draining ─▶ retired ─▶ shredded
//!     └────────────┴───────────┴─────────┴─▶ void
//! ```

use serde::{Deserialize, Serialize};

use crate::rotation::State as RotationState;
use crate::units::{Epoch, Sequence};

/// Where an epoch stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Its key is being drawn, or waits for its place, or is on its way.
    Prepared,
    /// Every escrow site that it is for has a capsule and said so; it is on its way to the secondary.
    Escrowed,
    /// The secondary holds it durably, and its start is not fixed yet.
    Delivered,
    /// It comes into force at its start.
    Armed,
    /// What is written is sealed under it.
    Active,
    /// A later one is in force; the secondary does not hold all that this one sealed.
    Draining,
    /// The secondary holds all that it sealed. Its key opens, and seals nothing.
    Retired,
    /// Its key was destroyed at both sites: whatever it sealed opens nowhere.
    Shredded,
    /// It never came into force, and never will.
    Void,
}

/// What is known of an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochFacts {
    /// It was given up before it came into force.
    pub void: bool,
    /// Its packages are gone at both sites.
    pub destroyed: bool,
    /// Has everybody who is to keep a capsule for the secondary said so? `None`: nobody is to.
    pub escrowed: Option<bool>,
    /// The secondary holds its key record durably.
    pub delivered: bool,
    /// The first record that it seals; none as long as its key record has no place.
    pub start: Option<Sequence>,
    /// It came into force.
    pub in_force: bool,
    /// The last record that it sealed; none as long as no later epoch is in force.
    pub last: Option<Sequence>,
    /// The secondary holds everything up to here.
    pub acked: Sequence,
}

impl Stage {
    /// The one stage that follows from the facts.
    pub fn of(facts: &EpochFacts) -> Self {
        match *facts {
            EpochFacts { destroyed: true, .. } => Self::Shredded,
            EpochFacts { void: true, .. } => Self::Void,
            EpochFacts { in_force: true, last: None, .. } => Self::Active,
            EpochFacts { in_force: true, last: Some(last), acked, .. } if acked < last => Self::Draining,
            EpochFacts { in_force: true, .. } => Self::Retired,
            EpochFacts { delivered: true, start: Some(_), .. } => Self::Armed,
            EpochFacts { delivered: true, start: None, .. } => Self::Delivered,
            EpochFacts { escrowed: Some(true), .. } => Self::Escrowed,
            EpochFacts { .. } => Self::Prepared,
        }
    }

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Escrowed => "escrowed",
            Self::Delivered => "delivered",
            Self::Armed => "armed",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Retired => "retired",
            Self::Shredded => "shredded",
            Self::Void => "void",
        }
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl EpochFacts {
    /// What the rotation that is under way says of its epoch, in a pair with an escrow site or without; `None` while none is.
    pub fn under_way(rotation: &RotationState, acked: Sequence, escrow: bool) -> Option<(Epoch, Self)> {
        let (epoch, delivered, start) = match *rotation {
            RotationState::Idle => return None,
            RotationState::Preparing { epoch, .. }
            | RotationState::Escrowing { epoch, .. }
            | RotationState::Waiting { epoch, .. }
            | RotationState::Carrying { epoch, .. }
            | RotationState::Draining { epoch, .. } => (epoch, false, None),
            RotationState::Delivering { epoch, start, .. } => (epoch, false, Some(start)),
            RotationState::Armed { epoch, start, .. } => (epoch, true, Some(start)),
        };
        let facts = Self {
            void: false,
            destroyed: false,
            // No key goes beyond these two before its receipt is here.
            escrowed: escrow
                .then_some(!matches!(rotation, RotationState::Preparing { .. } | RotationState::Escrowing { .. })),
            delivered,
            start,
            in_force: false,
            last: None,
            acked,
        };
        Some((epoch, facts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotation::{How, Slot};
    use crate::units::Instant;

    const DRAWN: EpochFacts = EpochFacts {
        void: false,
        destroyed: false,
        escrowed: None,
        delivered: false,
        start: None,
        in_force: false,
        last: None,
        acked: Sequence(0),
    };

    #[test]
    fn each_fact_leads_to_its_stage_and_later_ones_outweigh_earlier_ones() {
        let placed = EpochFacts { start: Some(Sequence(20)), ..DRAWN };
        let escrowed = EpochFacts { escrowed: Some(true), ..placed };
        let armed = EpochFacts { delivered: true, ..escrowed };
        let active = EpochFacts { in_force: true, ..armed };
        let succeeded = EpochFacts { last: Some(Sequence(30)), acked: Sequence(29), ..active };
        let held = EpochFacts { acked: Sequence(30), ..succeeded };
        let table = [
            (DRAWN, Stage::Prepared),
            (placed, Stage::Prepared),
            (EpochFacts { escrowed: Some(false), ..placed }, Stage::Prepared),
            (escrowed, Stage::Escrowed),
            (EpochFacts { delivered: true, ..DRAWN }, Stage::Delivered),
            (armed, Stage::Armed),
            (EpochFacts { escrowed: None, ..armed }, Stage::Armed),
            (active, Stage::Active),
            (EpochFacts { delivered: false, escrowed: Some(false), ..active }, Stage::Active),
            (succeeded, Stage::Draining),
            (held, Stage::Retired),
            (EpochFacts { void: true, ..DRAWN }, Stage::Void),
            (EpochFacts { void: true, ..armed }, Stage::Void),
            (EpochFacts { destroyed: true, ..held }, Stage::Shredded),
            (EpochFacts { destroyed: true, void: true, ..DRAWN }, Stage::Shredded),
        ];
        for (facts, stage) in table {
            assert_eq!(Stage::of(&facts), stage, "{facts:?}");
        }
    }

    #[test]
    fn every_state_of_a_rotation_is_a_stage_of_its_epoch() {
        let (epoch, how, slot) = (Epoch(7), How::InBand, Slot { at: Instant(1), blocks: 1, chance: 0 });
        let (key, start) = (Sequence(10), Sequence(20));
        let table = [
            (RotationState::Idle, None),
            (RotationState::Preparing { epoch, how }, Some(Stage::Prepared)),
            (RotationState::Escrowing { epoch, how, slot, late_at: None }, Some(Stage::Prepared)),
            (RotationState::Waiting { epoch, how, slot }, Some(Stage::Prepared)),
            (RotationState::Carrying { epoch, slot, key, start, carried: true }, Some(Stage::Prepared)),
            (
                RotationState::Draining { epoch, slot, through: Sequence(9), deadline: Instant(2) },
                Some(Stage::Prepared),
            ),
            (RotationState::Delivering { epoch, how, key, start, deadline: None }, Some(Stage::Prepared)),
            (RotationState::Armed { epoch, how, key, start }, Some(Stage::Armed)),
        ];
        for (state, stage) in table {
            let found = |escrow| {
                EpochFacts::under_way(&state, Sequence(9), escrow).map(|(epoch, facts)| (epoch, Stage::of(&facts)))
            };
            assert_eq!(found(false), stage.map(|stage| (epoch, stage)));
            let early = matches!(state, RotationState::Preparing { .. } | RotationState::Escrowing { .. });
            let with_escrow = stage.map(|stage| if early { stage } else { stage.max(Stage::Escrowed) });
            assert_eq!(found(true), with_escrow.map(|stage| (epoch, stage)));
        }
    }
}
