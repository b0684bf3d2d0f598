//! Key rotation: which key seals, and how the next one comes into force.
//!
//! ```text
//!              begin            prepared          slot due            acknowledged        its start
//!   Idle ────────────▶ Preparing ──────▶ Waiting ─────────▶ Delivering ──────────▶ Armed ──────────▶ Idle, new key
//!    ▲                    │                ▲ │ pause only        │  ▲
//!    │                    │ with an escrow │ └───▶ Draining ─────┼──┘ all acknowledged
//!    │                    └─▶ Escrowing ───┘ receipt             │
//!    └── void: not acknowledged when the record before its start is due, refused, or a pause took too long
//! ```
//!
//! The key record takes a sequence number of its own, and its signed descriptor names the first one that it seals. Both
//! are part of the one order, so whichever way records travel, each falls in exactly one epoch. Everything slow is
//! done before the key record is placed. In a pair with an escrow site no key is placed before that site's receipt is
//! here: while it is silent the old key goes on, to its hard limit and no further. A key seals nothing before the secondary holds it durably; if it does
//! not in time, a void record takes the last place before the start, and the old key goes on.
//!
//! Two exceptions seal from the next record on, without waiting: a node's first key after a start, and a key whose
//! predecessor has reached the host's hard limit. In both the order itself keeps the promise that counts: the secondary
//! offers no record before it holds the key record that stands before it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::limits::{
    ESCROW_WAIT, KEY_AGE_MAX, KEY_BYTES_MAX, KEY_DELIVERY_WAIT, KEY_LEAD_MAX, KEY_LEAD_MIN, KEY_LEAD_SHRINKS_AFTER,
    PAUSE_ROTATION_MAX, POLICY_KEYS_MAX, ROTATION_INTERVAL_MIN, STORE_RETRY_INTERVAL,
};
use crate::units::{ByteLen, Epoch, Instant, Millis, Now, Sequence, WallTime};

/// The way a key comes into force.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// R22: nothing stops; records go on under the old key until the new one's start.
    InBand,
    /// R21: sealing is held, what was sealed drains, the key goes alone, sealing goes on under the new key.
    Pause,
    /// From the next record on, acknowledged or not: after a start, and at the host's hard limit.
    AtOnce,
}

/// The host's limits around every policy. Within the absolute ones of [`crate::limits`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyLimits {
    /// Between the beginnings of two rotations.
    pub interval_min: Millis,
    /// At this age sealing stops until there is a new key.
    pub age_max: Millis,
    /// After this many bytes sealing stops until there is a new key.
    pub bytes_max: ByteLen,
}

/// Where a rotation stands. Data lives in the state that needs it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub enum State {
    Idle,
    /// The driver draws the key and makes its capsules, or is to with the next doing of a standing schedule.
    Preparing {
        epoch: Epoch,
        how: How,
    },
    /// The escrow site has not said yet that it holds the key.
    Escrowing {
        epoch: Epoch,
        how: How,
        slot: Slot,
        /// When that is worth an alarm; `None` once it was raised.
        late_at: Option<Instant>,
    },
    /// The key waits for the slot that the disguise fixed.
    Waiting {
        epoch: Epoch,
        how: How,
        slot: Slot,
    },
    /// The key record's place is fixed, and the record goes there in the slots of those before it.
    Carrying {
        epoch: Epoch,
        slot: Slot,
        key: Sequence,
        start: Sequence,
        /// The secondary has all of its pieces.
        carried: bool,
    },
    /// A pause rotation holds sealing back until everything up to `through` is acknowledged.
    Draining {
        epoch: Epoch,
        slot: Slot,
        through: Sequence,
        deadline: Instant,
    },
    /// The key record has its place; the secondary has not acknowledged it.
    Delivering {
        epoch: Epoch,
        how: How,
        key: Sequence,
        start: Sequence,
        deadline: Option<Instant>,
    },
    /// The secondary holds the key; it comes into force at `start`.
    Armed {
        epoch: Epoch,
        how: How,
        key: Sequence,
        start: Sequence,
    },
}

/// A place that the disguise fixed for a key record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Slot {
    pub at: Instant,
    pub blocks: u32,
    /// Uniform, by the driver: how far off the places of a key are that goes in other records' slots.
    #[serde(skip)]
    pub chance: u64,
}

/// A key as the policy knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyUse {
    pub epoch: Epoch,
    pub state: KeyState,
    pub since: WallTime,
    pub bytes: ByteLen,
    pub blocks: u64,
    pub records: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyState {
    Delivering,
    Active,
    Retired,
    Suspect,
}

/// What must stand at a sequence number before any ordinary record may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// Any record, under `epoch`.
    Ordinary { epoch: Epoch },
    /// The key record of `epoch`, this many blocks long; [`Rotation::placed`] follows.
    Key { epoch: Epoch, blocks: u32, how: How },
    /// The place of the key record that was carried, if some record stands behind it; where not `carried`, that record
    /// takes the place, and [`Rotation::uncarry`] follows.
    CarriedKey { carried: bool },
    /// The void of `epoch`, under the key that goes on; [`Rotation::voided`] follows.
    Void { epoch: Epoch },
    /// As `Void`, but only if some record must be placed: this is the last place before the start.
    LastPlace { epoch: Epoch },
    /// Nothing: a key that has no place yet was given up. Ask again.
    Drop { epoch: Epoch },
    /// A cut under the old key: the state that both sites hold in the pause.
    PauseCut,
    /// Nothing: sealing is held.
    Hold(Held),
}

/// Why sealing is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Held {
    /// No key has been made yet.
    NoKey,
    /// A pause rotation is under way.
    PauseRotation,
    /// The last place before the start of a key that the secondary has not acknowledged yet.
    Delivery,
    /// The key has reached the host's hard limit.
    HardLimit,
}

/// Why a rotation cannot begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, Serialize)]
pub enum Refused {
    #[error("epoch {0} is on its way already")]
    UnderWay(Epoch),
    #[error("the last rotation began less than {} ms ago; {} ms to go", interval.0, wait.0)]
    TooSoon { interval: Millis, wait: Millis },
    #[error("the link is down: the key could not be delivered; ask again when it is up")]
    LinkDown,
    #[error(
        "a pause shows on the link, and the pair has a disguise: rotate in-band, or give the [[pair]] a `shape`, as in \
         shape = \"32MiB/s\""
    )]
    Visible,
}

/// How an attempt at a rotation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Ended {
    InForce(Epoch),
    Void(Epoch),
}

#[derive(Clone, Debug)]
pub struct Rotation {
    limits: KeyLimits,
    state: State,
    next: Epoch,
    active: Option<Active>,
    past: VecDeque<KeyUse>,
    last_begun: Option<Instant>,
    /// The driver could not prepare a key: it is not asked again before this.
    retry_at: Option<Instant>,
    /// Each void doubles the lead of the keys that follow, up to its limit: checking a key takes the secondary longer
    /// than storing a record, by a factor that stays what it is.
    lead_scale: u64,
    /// No key is placed before the escrow site's receipt.
    escrowed: bool,
    /// Keys and covers of a standing schedule that came in time since the scale changed.
    in_time: u32,
    /// A disguise keeps a standing schedule: a key waits for one of its slots.
    scheduled: bool,
    /// A disguise carries in-band keys in the slots of other records.
    in_slots: bool,
}

#[derive(Clone, Copy, Debug)]
struct Active {
    uses: KeyUse,
    since: Instant,
}

impl KeyLimits {
    /// The given limits, inside the absolute ones.
    pub fn clamped(self) -> Self {
        Self {
            interval_min: self.interval_min.max(ROTATION_INTERVAL_MIN),
            age_max: self.age_max.min(KEY_AGE_MAX),
            bytes_max: self.bytes_max.min(KEY_BYTES_MAX),
        }
    }
}

impl Rotation {
    /// No key yet: the first rotation is `AtOnce`. `newest` is the newest epoch that the lane ever used.
    pub fn new(limits: KeyLimits, newest: Epoch) -> Self {
        Self {
            limits: limits.clamped(),
            state: State::Idle,
            next: newest.next(),
            active: None,
            past: VecDeque::new(),
            last_begun: None,
            retry_at: None,
            lead_scale: 1,
            escrowed: false,
            in_time: 0,
            scheduled: false,
            in_slots: false,
        }
    }

    /// In-band keys are carried in the slots of other records, or are not.
    #[must_use]
    pub fn with_slots(self, in_slots: bool) -> Self {
        Self { in_slots, ..self }
    }

    /// With an escrow site, whose receipt every key needs before it is placed, or without.
    #[must_use]
    pub fn with_escrow(self, escrowed: bool) -> Self {
        Self { escrowed, ..self }
    }

    /// Starts to change the key. Says which epoch the driver must prepare. The first key comes `AtOnce` whatever was
    /// asked: there is none under which a cut or a void could stand meanwhile.
    pub fn begin(&mut self, now: Now, how: How, link_up: bool) -> Result<Epoch, Refused> {
        if let Some(epoch) = self.under_way() {
            return Err(Refused::UnderWay(epoch));
        }
        let how = if self.active.is_some() { how } else { How::AtOnce };
        if how != How::AtOnce {
            if !link_up {
                return Err(Refused::LinkDown);
            }
            if let Some(last) = self.last_begun {
                let waited = now.instant.since(last);
                if waited < self.limits.interval_min {
                    let wait = Millis(self.limits.interval_min.0 - waited.0);
                    return Err(Refused::TooSoon { interval: self.limits.interval_min, wait });
                }
            }
        }
        let epoch = self.next;
        self.next = epoch.next();
        self.last_begun = Some(now.instant);
        self.retry_at = None;
        self.state = State::Preparing { epoch, how };
        Ok(epoch)
    }

    /// A key that has no place in the order yet is given up for another. Says which epoch never comes into force. One that comes
    /// at once is not: the gap that it stands behind may have its place already.
    pub fn give_up_unplaced(&mut self) -> Option<Epoch> {
        match self.state {
            State::Preparing { epoch, how }
            | State::Escrowing { epoch, how, .. }
            | State::Waiting { epoch, how, .. }
                if how != How::AtOnce =>
            {
                self.state = State::Idle;
                Some(epoch)
            }
            State::Carrying { epoch, .. } | State::Draining { epoch, .. } => {
                self.state = State::Idle;
                Some(epoch)
            }
            State::Idle
            | State::Preparing { .. }
            | State::Escrowing { .. }
            | State::Waiting { .. }
            | State::Delivering { .. }
            | State::Armed { .. } => None,
        }
    }

    /// The driver is told only now to draw the key that was begun: the least interval and the escrow's wait count from here.
    pub fn begins(&mut self, now: Now) {
        self.last_begun = Some(now.instant);
    }

    /// The driver has the key and its capsules, and the disguise has fixed the slot. Says whether it was awaited.
    pub fn prepared(&mut self, epoch: Epoch, slot: Slot) -> bool {
        let State::Preparing { epoch: awaited, how } = self.state else { return false };
        if awaited == epoch {
            let late_at = self.last_begun.map(|begun| begun.plus(ESCROW_WAIT));
            self.state = if self.escrowed {
                State::Escrowing { epoch, how, slot, late_at }
            } else {
                State::Waiting { epoch, how, slot }
            };
        }
        awaited == epoch
    }

    /// The escrow site holds the key, durably: its receipt was checked. Says whether it was awaited.
    pub fn escrowed(&mut self, epoch: Epoch) -> bool {
        let State::Escrowing { epoch: awaited, how, slot, .. } = self.state else { return false };
        if awaited == epoch {
            self.state = State::Waiting { epoch, how, slot };
        }
        awaited == epoch
    }

    /// The key whose receipt has not come in [`ESCROW_WAIT`]; said once for each key.
    pub fn escrow_late(&mut self, now: Now) -> Option<Epoch> {
        let State::Escrowing { epoch, late_at, .. } = &mut self.state else { return None };
        late_at.take_if(|at| now.instant >= *at).map(|_| *epoch)
    }

    /// The driver could not prepare the key, or the escrow site does not take it.
    pub fn failed(&mut self, now: Now, epoch: Epoch) -> bool {
        let awaited = matches!(
            self.state,
            State::Preparing { epoch: awaited, .. } | State::Escrowing { epoch: awaited, .. } if awaited == epoch
        );
        if awaited {
            self.state = State::Idle;
            self.retry_at = Some(now.instant.plus(STORE_RETRY_INTERVAL));
        }
        awaited
    }

    /// A gap is to be placed, and a fresh key right behind it: the secondary lacks the keys of what is given up. Turns
    /// what is under way to that end; called until [`Rotation::is_ready_at_once`]. Says which epoch the driver must prepare.
    pub fn renew(&mut self, now: Now) -> Option<Epoch> {
        match &mut self.state {
            State::Idle if self.retry_at.is_some_and(|at| now.instant < at) => None,
            State::Idle => self.begin(now, How::AtOnce, false).ok(),
            State::Preparing { how, .. } | State::Escrowing { how, .. } | State::Waiting { how, .. } => {
                *how = How::AtOnce;
                None
            }
            State::Carrying { epoch, slot, .. } | State::Draining { epoch, slot, .. } => {
                self.state = State::Waiting { epoch: *epoch, how: How::AtOnce, slot: *slot };
                None
            }
            State::Delivering { epoch, how, key, start, .. } | State::Armed { epoch, how, key, start } => {
                if *how != How::AtOnce {
                    self.state = State::Delivering {
                        epoch: *epoch,
                        how: *how,
                        key: *key,
                        start: *start,
                        deadline: Some(Instant(0)),
                    };
                }
                None
            }
        }
    }

    /// The next record may be a key that seals from the one after on.
    pub fn is_ready_at_once(&self) -> bool {
        matches!(self.state, State::Waiting { how: How::AtOnce, .. })
    }

    /// What must stand at `next`. Called before each record is placed; moves through time-driven states.
    pub fn due(&mut self, now: Now, next: Sequence, acked: Sequence) -> Due {
        if self.hard_limit_reached(now) {
            self.hurry(now);
        }
        match self.state.clone() {
            State::Waiting { epoch, how: How::AtOnce, slot } => {
                Due::Key { epoch, blocks: slot.blocks, how: How::AtOnce }
            }
            State::Waiting { epoch, how: How::InBand, slot } if now.instant >= slot.at && !self.keeps_back() => {
                Due::Key { epoch, blocks: slot.blocks, how: How::InBand }
            }
            State::Waiting { epoch, how: How::Pause, slot } if now.instant >= slot.at && !self.scheduled => {
                self.drain(now, epoch, slot, next);
                self.due(now, next, acked)
            }
            State::Carrying { key, carried, .. } if next == key => Due::CarriedKey { carried },
            State::Carrying { key, .. } if next > key => {
                self.uncarry();
                self.due(now, next, acked)
            }
            State::Draining { epoch, slot, through, .. } if acked >= through => {
                Due::Key { epoch, blocks: slot.blocks, how: How::Pause }
            }
            State::Draining { deadline, .. } if now.instant < deadline => Due::Hold(Held::PauseRotation),
            State::Draining { epoch, .. } => {
                self.state = State::Idle;
                Due::Drop { epoch }
            }
            State::Delivering { epoch, deadline, .. } if deadline.is_some_and(|at| now.instant >= at) => {
                Due::Void { epoch }
            }
            State::Delivering { epoch, how: How::InBand, start, .. } if next.next() >= start => {
                Due::LastPlace { epoch }
            }
            State::Delivering { how: How::Pause, .. } => Due::Hold(Held::PauseRotation),
            State::Armed { how: How::Pause, start, .. } if next.next() == start => Due::PauseCut,
            State::Idle
            | State::Preparing { .. }
            | State::Escrowing { .. }
            | State::Waiting { .. }
            | State::Carrying { .. }
            | State::Delivering { .. }
            | State::Armed { .. } => self.ordinary(now),
        }
    }

    /// From now on keys wait for the slots of a standing schedule, or no longer do.
    pub fn schedule(&mut self, scheduled: bool) {
        self.scheduled = scheduled;
    }

    /// A slot of the standing schedule is to be filled at `next`: the key that waits takes it, or else a cover does. A
    /// pause rotation begins to drain with one, and its key goes when that is done.
    pub fn take_slot(&mut self, now: Now, next: Sequence) -> Option<Epoch> {
        match self.state {
            State::Waiting { epoch, how: How::InBand, .. } => Some(epoch),
            State::Waiting { epoch, how: How::Pause, slot } => {
                self.drain(now, epoch, slot, next);
                None
            }
            State::Idle
            | State::Preparing { .. }
            | State::Escrowing { .. }
            | State::Waiting { .. }
            | State::Carrying { .. }
            | State::Draining { .. }
            | State::Delivering { .. }
            | State::Armed { .. } => None,
        }
    }

    /// The key that waits to be carried in the slots of other records.
    pub fn waits_to_be_carried(&self, now: Now) -> Option<(Epoch, Slot)> {
        let State::Waiting { epoch, how: How::InBand, slot } = self.state else { return None };
        (self.in_slots && now.instant >= slot.at).then_some((epoch, slot))
    }

    /// The key that waits to be carried will stand at `key` and start at `start`.
    pub fn carry(&mut self, key: Sequence, start: Sequence) {
        if let State::Waiting { epoch, how: How::InBand, slot } = self.state {
            self.state = State::Carrying { epoch, slot, key, start, carried: false };
        }
    }

    /// The secondary has all pieces of the key record.
    pub fn carried(&mut self) {
        if let State::Carrying { carried, .. } = &mut self.state {
            *carried = true;
        }
    }

    /// The key is not carried to its place: it waits again, and is carried anew.
    pub fn uncarry(&mut self) {
        if let State::Carrying { epoch, slot, .. } = self.state {
            self.state = State::Waiting { epoch, how: How::InBand, slot };
        }
    }

    pub fn is_carrying(&self) -> bool {
        matches!(self.state, State::Carrying { .. })
    }

    /// In-band keys do not go by themselves.
    fn keeps_back(&self) -> bool {
        self.scheduled || self.in_slots
    }

    /// Sealing is held until what was sealed has drained: covers may be placed.
    pub fn is_draining(&self) -> bool {
        matches!(self.state, State::Draining { .. })
    }

    /// Records from a key, or from the cover in its place, to its start: beyond the `in_flight` ones that were on their
    /// way, so that the acknowledgement has a round trip's time, and `gap` more.
    pub fn lead(&self, in_flight: u64, gap: u64) -> u64 {
        let lead = in_flight.saturating_add(KEY_LEAD_MIN).saturating_mul(self.lead_scale);
        lead.saturating_add(gap).min(KEY_LEAD_MAX)
    }

    /// A key, or the cover in its place, was not acknowledged before its start was due.
    pub fn came_late(&mut self) {
        self.lead_scale = (self.lead_scale * 2).min(KEY_LEAD_MAX);
        self.in_time = 0;
    }

    /// With a standing schedule this is asked with each slot, so a lead that was too short once need not stay long.
    pub fn came_in_time(&mut self) {
        self.in_time += 1;
        if self.in_time >= KEY_LEAD_SHRINKS_AFTER {
            self.lead_scale = (self.lead_scale / 2).max(1);
            self.in_time = 0;
        }
    }

    /// The key record of the epoch that was [`Due::Key`] stands at `key`. `in_flight` records were on their way, and the
    /// start lies `gap` records beyond what they need. Returns the start.
    pub fn placed(&mut self, now: Now, key: Sequence, in_flight: u64, gap: u64) -> Sequence {
        let (epoch, how) = match self.state {
            State::Carrying { epoch, key, start, .. } => {
                self.state = State::Delivering { epoch, how: How::InBand, key, start, deadline: None };
                return start;
            }
            State::Waiting { epoch, how, .. } => (epoch, how),
            State::Draining { epoch, .. } => (epoch, How::Pause),
            State::Idle
            | State::Preparing { .. }
            | State::Escrowing { .. }
            | State::Delivering { .. }
            | State::Armed { .. } => return key.next(),
        };
        let lead = self.lead(in_flight, gap);
        let (start, deadline) = match how {
            How::InBand => (key.plus(lead), None),
            How::Pause => (key.plus(KEY_LEAD_MIN), Some(now.instant.plus(PAUSE_ROTATION_MAX))),
            How::AtOnce => (key.next(), None),
        };
        self.state = if how == How::AtOnce {
            State::Armed { epoch, how, key, start }
        } else {
            State::Delivering { epoch, how, key, start, deadline }
        };
        start
    }

    /// The last place before an in-band key's start is asked for, and the key is still on its way: may sealing wait for
    /// it? For [`KEY_DELIVERY_WAIT`] from the first time on; after that [`Self::due`] gives the place to a void.
    pub fn wait_for_delivery(&mut self, now: Now) -> bool {
        let State::Delivering { how: How::InBand, deadline, .. } = &mut self.state else { return false };
        now.instant < *deadline.get_or_insert(now.instant.plus(KEY_DELIVERY_WAIT))
    }

    /// The secondary holds everything up to `acked`. Says which key that delivers.
    pub fn acknowledged(&mut self, acked: Sequence) -> Option<Epoch> {
        let State::Delivering { epoch, how, key, start, .. } = self.state else { return None };
        if acked < key {
            return None;
        }
        self.state = State::Armed { epoch, how, key, start };
        Some(epoch)
    }

    /// The secondary cannot take the key at `key`. Its epoch is void at the next record; `false` if it is in force.
    pub fn refused(&mut self, key: Sequence) -> bool {
        let (State::Delivering { epoch, how, key: at, start, .. } | State::Armed { epoch, how, key: at, start }) =
            self.state
        else {
            return false;
        };
        let waiting = at == key && how != How::AtOnce;
        if waiting {
            // A deadline in the past makes the void due as soon as a record is placed.
            self.state = State::Delivering { epoch, how, key, start, deadline: Some(Instant(0)) };
        }
        waiting
    }

    /// The void record that was [`Due::Void`] has its place.
    pub fn voided(&mut self) -> Option<Ended> {
        let State::Delivering { epoch, .. } = self.state else {
            return None;
        };
        self.state = State::Idle;
        self.came_late();
        Some(Ended::Void(epoch))
    }

    /// A delivered key's start is this.
    pub fn starts(&self, sequence: Sequence) -> bool {
        matches!(self.state, State::Armed { start, .. } if start <= sequence)
    }

    /// A record is about to stand at `sequence`: a key whose start that is comes into force.
    pub fn reached(&mut self, now: Now, sequence: Sequence) -> Option<Ended> {
        let State::Armed { epoch, start, .. } = self.state else {
            return None;
        };
        if sequence < start {
            return None;
        }
        if let Some(old) = self.active.take() {
            let state = if old.uses.state == KeyState::Suspect { KeyState::Suspect } else { KeyState::Retired };
            self.past.push_front(KeyUse { state, ..old.uses });
            self.past.truncate(POLICY_KEYS_MAX - 2);
        }
        let uses = KeyUse { epoch, state: KeyState::Active, since: now.wall, bytes: ByteLen(0), blocks: 0, records: 0 };
        self.active = Some(Active { uses, since: now.instant });
        self.state = State::Idle;
        Some(Ended::InForce(epoch))
    }

    /// A record of this size was given to the active key.
    pub fn sealed(&mut self, bytes: ByteLen, blocks: u64) {
        if let Some(active) = &mut self.active {
            active.uses.bytes.0 += bytes.0;
            active.uses.blocks += blocks;
            active.uses.records += 1;
        }
    }

    /// Someone said that this epoch's key may be known to others.
    pub fn suspect(&mut self, epoch: Epoch) {
        let active = self.active.as_mut().map(|active| &mut active.uses);
        if let Some(uses) = active.into_iter().chain(&mut self.past).find(|uses| uses.epoch == epoch) {
            uses.state = KeyState::Suspect;
        }
    }

    /// The host must change the key now, whatever the policy says: none yet, or a sixteenth before a hard limit.
    pub fn host_demands(&self, now: Now) -> bool {
        self.under_way().is_none()
            && self.retry_at.is_none_or(|at| now.instant >= at)
            && self.active.is_none_or(|active| {
                now.instant.since(active.since).0 >= self.limits.age_max.0 - self.limits.age_max.0 / 16
                    || active.uses.bytes.0 >= self.limits.bytes_max.0 - self.limits.bytes_max.0 / 16
            })
    }

    /// The times at which [`Rotation::due`] or [`Rotation::host_demands`] will say something else by the clock alone.
    pub fn timeouts(&self) -> impl Iterator<Item = (Instant, &'static str)> {
        let own = match &self.state {
            State::Escrowing { late_at, .. } => late_at.map(|at| (at, "the escrow site's receipt is late")),
            State::Waiting { slot, .. } if !self.scheduled => Some((slot.at, "the key's slot")),
            State::Draining { deadline, .. } => Some((*deadline, "pause rotation takes too long")),
            State::Delivering { deadline, .. } => deadline.map(|at| (at, "the key's delivery takes too long")),
            State::Idle
            | State::Preparing { .. }
            | State::Waiting { .. }
            | State::Carrying { .. }
            | State::Armed { .. } => None,
        };
        let ages = self.active.into_iter().flat_map(|active| {
            let old = Millis(self.limits.age_max.0 - self.limits.age_max.0 / 16);
            [
                (active.since.plus(old), "the key is old: the next is due"),
                (active.since.plus(self.limits.age_max), "the key's greatest age"),
            ]
        });
        let retry = self.retry_at.filter(|_| self.under_way().is_none()).map(|at| (at, "prepare a key again"));
        own.into_iter().chain(ages).chain(retry)
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn limits(&self) -> KeyLimits {
        self.limits
    }

    /// The epoch that seals.
    pub fn active(&self) -> Option<KeyUse> {
        self.active.map(|active| active.uses)
    }

    /// The keys that a policy is told of, newest first.
    pub fn keys(&self) -> Vec<KeyUse> {
        let coming = self.under_way().map(|epoch| KeyUse {
            epoch,
            state: KeyState::Delivering,
            since: WallTime(0),
            bytes: ByteLen(0),
            blocks: 0,
            records: 0,
        });
        coming.into_iter().chain(self.active()).chain(self.past.iter().copied()).collect()
    }

    fn drain(&mut self, now: Now, epoch: Epoch, slot: Slot, next: Sequence) {
        let deadline = now.instant.plus(PAUSE_ROTATION_MAX);
        self.state = State::Draining { epoch, slot, through: next.previous(), deadline };
    }

    fn under_way(&self) -> Option<Epoch> {
        match self.state {
            State::Idle => None,
            State::Preparing { epoch, .. }
            | State::Escrowing { epoch, .. }
            | State::Waiting { epoch, .. }
            | State::Carrying { epoch, .. }
            | State::Draining { epoch, .. }
            | State::Delivering { epoch, .. }
            | State::Armed { epoch, .. } => Some(epoch),
        }
    }

    fn ordinary(&self, now: Now) -> Due {
        match self.active {
            None => Due::Hold(Held::NoKey),
            Some(_) if self.hard_limit_reached(now) => Due::Hold(Held::HardLimit),
            Some(active) => Due::Ordinary { epoch: active.uses.epoch },
        }
    }

    /// Sealing stops until there is a new key.
    pub fn hard_limit_reached(&self, now: Now) -> bool {
        self.active.is_some_and(|active| {
            now.instant.since(active.since) >= self.limits.age_max || active.uses.bytes >= self.limits.bytes_max
        })
    }

    /// At the hard limit nothing waits for an acknowledgement any more.
    fn hurry(&mut self, now: Now) {
        match &mut self.state {
            State::Preparing { how, .. } | State::Escrowing { how, .. } | State::Waiting { how, .. } => {
                *how = How::AtOnce;
            }
            State::Carrying { epoch, slot, .. } | State::Draining { epoch, slot, .. } => {
                self.state = State::Waiting { epoch: *epoch, how: How::AtOnce, slot: *slot };
            }
            State::Delivering { deadline, .. } => *deadline = Some(now.instant),
            State::Idle | State::Armed { .. } => {}
        }
    }
}
