//! A disguise's standing schedule: slots are fixed first, and filled later with a key or with cover.
//!
//! A slot is a time and a length that the disguise planned before anybody knew what would go there. While the pair sends
//! in order, each slot gives one record: the key that waits, or a cover of just that length. So that nothing but the
//! content differs, a cover draws a *sham start* as a key draws its start: there a commit is split as for a key, and
//! there sealing waits for the cover's acknowledgement as it would for a key's.

use std::collections::VecDeque;

use crate::limits::{
    KEY_DELIVERY_WAIT, KEY_GAP_MAX, KEY_GAP_MEAN, SHAMS_MAX, SLOT_LATE_MAX, SLOTS_LOW, SLOTS_PLANNED_MAX,
};
use crate::units::{Instant, Millis, Sequence};

/// A slot as the disguise plans it, with the driver's random number for what is drawn at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Planned {
    /// After the slot before; after the plan, for the first.
    pub gap: Millis,
    /// Blocks of the body of the record that goes there.
    pub blocks: u32,
    /// Uniform: how far beyond the lead the key or the sham of this slot starts.
    pub chance: u64,
}

/// A slot whose time has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Open {
    pub blocks: u32,
    pub chance: u64,
}

/// What is known of the disguise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// It has not been asked yet.
    Unknown,
    /// It plans no slots: a key goes at once.
    None,
    Kept,
}

#[derive(Clone, Copy, Debug)]
struct Fixed {
    at: Instant,
    open: Open,
}

/// A cover on its way to its start.
#[derive(Clone, Copy, Debug)]
struct Sham {
    cover: Sequence,
    start: Sequence,
    /// Until when sealing waits for its acknowledgement.
    deadline: Option<Instant>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Schedule {
    standing: Standing,
    slots: VecDeque<Fixed>,
    shams: VecDeque<Sham>,
    asked: bool,
    retry_at: Option<Instant>,
}

impl Schedule {
    /// Nothing is known of the disguise. Without a secondary there is nobody to hide from.
    pub fn new(paired: bool) -> Self {
        let standing = if paired { Standing::Unknown } else { Standing::None };
        Self { standing, slots: VecDeque::new(), shams: VecDeque::new(), asked: false, retry_at: None }
    }

    /// Keys wait for slots.
    pub fn is_standing(&self) -> bool {
        self.standing == Standing::Kept
    }

    /// Called while the pair sends in order: must slots be planned now? Each `true` is one question to the disguise.
    pub fn wants_slots(&mut self, now: Instant) -> bool {
        let rests = self.retry_at.is_some_and(|at| now < at);
        let wants = self.standing != Standing::None && !self.asked && !rests && self.slots.len() < SLOTS_LOW;
        self.asked |= wants;
        wants
    }

    /// A key is to be drawn: a disguise that planned nothing may have been changed since.
    pub fn ask_again(&mut self, paired: bool) {
        if paired && self.standing == Standing::None {
            self.standing = Standing::Unknown;
        }
    }

    /// The disguise's answer. Without any slots it keeps no schedule; what is more than [`SLOTS_PLANNED_MAX`] is left out.
    pub fn planned(&mut self, now: Instant, slots: &[Planned]) {
        self.asked = false;
        self.retry_at = None;
        self.standing = if slots.is_empty() { Standing::None } else { Standing::Kept };
        let mut at = self.slots.back().map_or(now, |slot| slot.at.max(now));
        for slot in slots.iter().take(SLOTS_PLANNED_MAX.saturating_sub(self.slots.len())) {
            at = at.plus(slot.gap);
            self.slots.push_back(Fixed { at, open: Open { blocks: slot.blocks, chance: slot.chance } });
        }
    }

    /// The driver could not ask.
    pub fn not_planned(&mut self, again: Instant) {
        self.asked = false;
        self.retry_at = Some(again);
    }

    /// The pair does not send: its slots pass unused, and others are planned when it does again.
    pub fn rest(&mut self) {
        self.slots.clear();
    }

    /// Has a slot's time come? Those that are long past are left out: the machine itself stood still.
    pub fn is_due(&mut self, now: Instant) -> bool {
        while self.slots.pop_front_if(|slot| now.since(slot.at) > SLOT_LATE_MAX).is_some() {}
        self.slots.front().is_some_and(|slot| now >= slot.at)
    }

    /// The slot whose time has come, to be filled.
    pub fn take(&mut self, now: Instant) -> Option<Open> {
        self.slots.pop_front_if(|slot| now >= slot.at).map(|slot| slot.open)
    }

    /// What was taken for a slot came to nothing: the slot is still to be filled.
    pub fn again(&mut self, now: Instant, open: Open) {
        self.slots.push_front(Fixed { at: now, open });
    }

    /// The cover of a slot stands at `cover`, and would start at `start` if it were a key.
    pub fn covered(&mut self, cover: Sequence, start: Sequence) {
        if self.shams.len() == SHAMS_MAX {
            self.shams.pop_front();
        }
        self.shams.push_back(Sham { cover, start, deadline: None });
    }

    /// A sham's start is this.
    pub fn starts(&self, next: Sequence) -> bool {
        self.shams.iter().any(|sham| sham.start <= next)
    }

    /// A record is about to stand at `next`. How many shams begin with it.
    pub fn reached(&mut self, next: Sequence) -> usize {
        let before = self.shams.len();
        self.shams.retain(|sham| sham.start > next);
        before - self.shams.len()
    }

    /// `next` is the last place before the start of a sham whose cover is not acknowledged.
    pub fn is_late(&self, next: Sequence, acked: Sequence) -> bool {
        self.late(next, acked).next().is_some()
    }

    /// May sealing wait for it, as for a key's delivery? For [`KEY_DELIVERY_WAIT`] from the first time on.
    pub fn wait_for_delivery(&mut self, now: Instant, next: Sequence, acked: Sequence) -> bool {
        let late = |sham: &&mut Sham| next.next() >= sham.start && sham.cover > acked;
        self.shams
            .iter_mut()
            .filter(late)
            .fold(false, |waits, sham| waits | (now < *sham.deadline.get_or_insert(now.plus(KEY_DELIVERY_WAIT))))
    }

    /// What is late is given up.
    pub fn give_up(&mut self, next: Sequence, acked: Sequence) {
        self.shams.retain(|sham| next.next() < sham.start || sham.cover <= acked);
    }

    /// When a slot's time comes, or a wait is over.
    pub fn timeouts(&self) -> impl Iterator<Item = (Instant, &'static str)> {
        let slot = self.slots.front().map(|slot| (slot.at, "the disguise's slot"));
        let retry = self.retry_at.map(|at| (at, "plan slots again"));
        let late =
            self.shams.iter().filter_map(|sham| sham.deadline).map(|at| (at, "the cover's delivery takes too long"));
        slot.into_iter().chain(retry).chain(late)
    }

    fn late(&self, next: Sequence, acked: Sequence) -> impl Iterator<Item = &Sham> {
        self.shams.iter().filter(move |sham| next.next() >= sham.start && sham.cover > acked)
    }
}

/// Records that a start lies beyond the lead: a coin with one chance in [`KEY_GAP_MEAN`] for each, tossed with what
/// follows from `chance`, so that no count and no time foretells it. [`KEY_GAP_MAX`] at most.
pub fn gap(chance: u64) -> u64 {
    let mut state = chance;
    (0..KEY_GAP_MAX).find(|_| toss(&mut state).is_multiple_of(KEY_GAP_MEAN)).unwrap_or(KEY_GAP_MAX)
}

/// SplitMix64: spreads one uniform number over many tosses.
fn toss(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Planned = Planned { gap: Millis(100), blocks: 3, chance: 7 };

    fn kept() -> Schedule {
        let mut schedule = Schedule::new(true);
        assert!(schedule.wants_slots(Instant(0)));
        schedule.planned(Instant(0), &[SLOT, SLOT]);
        schedule
    }

    #[test]
    fn slots_follow_each_other_by_their_gaps_and_the_next_plan_goes_on_from_the_last() {
        let mut schedule = kept();
        assert!(schedule.wants_slots(Instant(10)) && !schedule.wants_slots(Instant(10)), "one question at a time");
        schedule.planned(Instant(10), &[SLOT]);
        assert!(!schedule.is_due(Instant(99)));
        let open = Open { blocks: 3, chance: 7 };
        for at in [100, 200, 300] {
            assert_eq!(schedule.take(Instant(at - 1)), None);
            assert_eq!(schedule.take(Instant(at)), Some(open));
        }
        assert_eq!(schedule.take(Instant(1_000)), None);
    }

    #[test]
    fn a_disguise_without_slots_keeps_no_schedule_and_is_asked_again_with_the_next_key() {
        let mut schedule = Schedule::new(true);
        assert!(schedule.wants_slots(Instant(0)));
        schedule.planned(Instant(0), &[]);
        assert!(!schedule.is_standing() && !schedule.wants_slots(Instant(9)));
        schedule.ask_again(true);
        assert!(schedule.wants_slots(Instant(9)));
    }

    #[test]
    fn slots_that_were_slept_through_do_not_come_in_a_burst() {
        let mut schedule = kept();
        assert!(!schedule.is_due(Instant(200).plus(SLOT_LATE_MAX).plus(Millis(1))));
        assert!(schedule.wants_slots(Instant(5_000)));
    }

    #[test]
    fn a_plan_that_is_longer_than_the_queue_is_cut() {
        let mut schedule = Schedule::new(true);
        schedule.planned(Instant(0), &[SLOT; 1_000]);
        assert_eq!(schedule.slots.len(), SLOTS_PLANNED_MAX);
    }

    #[test]
    fn a_sham_holds_the_last_place_before_its_start_until_its_cover_is_acknowledged() {
        let mut schedule = kept();
        schedule.covered(Sequence(10), Sequence(13));
        assert!(!schedule.is_late(Sequence(11), Sequence(9)) && schedule.is_late(Sequence(12), Sequence(9)));
        assert!(!schedule.is_late(Sequence(12), Sequence(10)));
        assert!(schedule.wait_for_delivery(Instant(0), Sequence(12), Sequence(9)));
        let over = Instant(0).plus(KEY_DELIVERY_WAIT);
        assert!(!schedule.wait_for_delivery(over, Sequence(12), Sequence(9)));
        assert!(!schedule.starts(Sequence(12)) && schedule.starts(Sequence(13)));
        assert_eq!(schedule.reached(Sequence(13)), 1);
        assert!(!schedule.starts(Sequence(13)));
    }

    #[test]
    fn gaps_are_geometric_with_their_mean_and_their_limit() {
        let (mut state, mut sum, mut zeroes) = (1, 0, 0);
        for _ in 0..100_000 {
            let gap = gap(toss(&mut state));
            assert!(gap <= KEY_GAP_MAX);
            sum += gap;
            zeroes += u64::from(gap == 0);
        }
        let mean = KEY_GAP_MEAN - 1;
        assert!((mean * 98_000..mean * 102_000).contains(&sum), "a mean of {mean} tosses before the first success");
        assert!((95_000 / KEY_GAP_MEAN..105_000 / KEY_GAP_MEAN).contains(&zeroes));
    }
}
