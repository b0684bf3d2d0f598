//! Comparing a volume with its copy, range by range, while initiators write and records flow.
//!
//! ```text
//!   idle ──range──▶ beginning ──quiet─▶ asking ──answer──▶ comparing ──▶ idle
//!                      ▲                  │ ▲ index behind, path lost
//!                      └── again, later ──┴─┴──────────────────────────────────
//! ```
//!
//! Why no write makes a false difference: the lane begins to note who writes in a range and says which of its blocks are owed, and up
//! to which record the secondary has acknowledged. The copy's answer counts only if its index holds everything up to
//! there. The home is read after the answer, and then the lane says what was written since then. A block that
//! was neither owed at the beginning nor written until the end was the same in the order all that time: the index holds
//! its newest record, and the home its content. Every other block is looked at again, and skipped if it is always busy.
//!
//! What is found different is looked at a second time before it is reported: whatever a disk or a compaction does in
//! between is not called a difference.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::flow::Rate;
use crate::flow::bucket::Bucket;
use crate::inspect::Unreadable;
use crate::limits::{
    VERIFY_AGAIN, VERIFY_AGAIN_MAX, VERIFY_ANSWER_WAIT, VERIFY_FOUND_MAX, VERIFY_INDEX_WAIT, VERIFY_LINK_WAIT,
    VERIFY_RANGE_BYTES, VERIFY_TRIES_MAX,
};
use crate::owed::{OwedMap, joined};
use crate::units::{BlockBytes, BlockCount, Epoch, Extent, Instant, Lba, Millis, Sequence};

/// What is compared.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Plan {
    pub blocks: BlockCount,
    pub block_bytes: BlockBytes,
    /// Of 10 000 ranges so many, by chance.
    pub sample: u16,
    /// Which ones, where not all.
    pub seed: u64,
    pub rate: Option<Rate>,
}

/// How blocks differ.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Difference {
    #[error("differs")]
    Content,
    #[error("missing: no record of the copy says what is there")]
    Missing,
    #[error("cannot be opened: the copy's bytes were altered, or belong elsewhere")]
    NotAuthentic,
    #[error("cannot be opened: the key of epoch {0} is not at this site any more")]
    NoKey(Epoch),
    #[error("cannot be opened: its record falls in no epoch that this site knows")]
    NoEpoch,
    #[error("cannot be read at the remote: {0}")]
    Unreadable(Unreadable),
    #[error("cannot be read here: this site's disk does not read it")]
    NotReadHere,
}

/// Blocks that differ in one way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    pub extent: Extent,
    pub what: Difference,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// The lane notes who writes there; these blocks of it are owed, and everything up to `acked` is at the secondary.
    Begun {
        owed: Vec<Extent>,
        acked: Sequence,
    },
    /// The copy has answered; its index holds everything up to `through`.
    Answered {
        through: Sequence,
    },
    /// No path carries the question, or the one that did is gone.
    NoAnswer,
    /// The home was read and compared; `written` says where initiators wrote since then.
    Compared {
        found: Vec<Found>,
        written: Vec<Extent>,
    },
    Tick,
}

/// What the driver must do, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Have the lane note who writes in this range, and in no other.
    Begin(Extent),
    /// Ask the copy for it.
    Ask { id: u64, extent: Extent },
    /// Compare what the last answer says with the home.
    Compare(Extent),
    /// It is over.
    End(End),
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    Done,
    /// The link was away for too long.
    NoLink,
}

/// What it has come to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Blocks that are to be compared.
    pub planned: BlockCount,
    pub compared: BlockCount,
    /// Busy each time.
    pub skipped: BlockCount,
    pub different: BlockCount,
    /// In the order in which they were found, neighbours joined; the first [`VERIFY_FOUND_MAX`].
    pub found: Vec<Found>,
    /// Those beyond.
    pub found_more: u64,
}

/// One look at a range.
#[derive(Clone, Debug)]
struct Look {
    extent: Extent,
    /// The first look found it different.
    second: bool,
    tries: u8,
    not_before: Instant,
}

/// A look that waits for the copy's answer.
#[derive(Clone, Debug)]
struct Question {
    look: Look,
    /// What of it was not owed when it began.
    quiet: Vec<Extent>,
    /// The answer's index must hold everything up to here.
    acked: Sequence,
    /// Since when the copy's index is waited for.
    first: Instant,
}

#[derive(Clone, Debug)]
enum State {
    Idle,
    Beginning(Look),
    /// Asked at this time.
    Asking(Question, Instant),
    /// The copy's index is behind, or there is no path: asked again at this time.
    Waiting(Question, Instant),
    Comparing(Question),
    Ended,
}

/// See the module.
#[derive(Debug)]
pub struct Verify {
    plan: Plan,
    bucket: Bucket,
    state: State,
    /// Where the next range begins.
    next: Lba,
    again: VecDeque<Look>,
    /// The number of the last question.
    asked: u64,
    /// Since when no question was answered for want of a path.
    no_link: Option<Instant>,
    tally: Tally,
    owed: OwedMap,
    outputs: VecDeque<Output>,
}

impl Verify {
    pub fn new(now: Instant, plan: Plan) -> Self {
        let mut verify = Self {
            plan,
            bucket: Bucket::new(now, plan.rate),
            state: State::Idle,
            next: Lba(0),
            again: VecDeque::new(),
            asked: 0,
            no_link: None,
            tally: Tally::default(),
            owed: OwedMap::empty(plan.blocks, plan.block_bytes),
            outputs: VecDeque::new(),
        };
        verify.tally.planned = BlockCount(verify.ranges().map(|range| range.blocks().0).sum());
        verify.proceed(now);
        verify
    }

    /// Takes in one event. Outputs that follow from it wait in [`Verify::poll_output`].
    pub fn handle(&mut self, now: Instant, input: Input) {
        match (std::mem::replace(&mut self.state, State::Idle), input) {
            (State::Beginning(look), Input::Begun { owed, acked }) => self.begun(now, look, &owed, acked),
            (State::Asking(question, _), Input::Answered { through }) => self.answered(now, question, through),
            (State::Asking(question, _), Input::NoAnswer) => {
                let since = *self.no_link.get_or_insert(now);
                self.state = State::Waiting(question, now.plus(VERIFY_AGAIN));
                if now.since(since) >= VERIFY_LINK_WAIT {
                    self.end(End::NoLink);
                }
            }
            (State::Comparing(question), Input::Compared { found, written }) => {
                self.compared(now, &question, &found, &written);
            }
            // What comes late, of a question that was given up, changes nothing.
            (state, _) => self.state = state,
        }
        self.proceed(now);
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to send [`Input::Tick`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Idle => {
                let again = self.again.front().filter(|_| !self.may_begin()).map(|look| look.not_before);
                self.bucket.ready_at().max(again)
            }
            State::Asking(_, since) => Some(since.plus(VERIFY_ANSWER_WAIT)),
            State::Waiting(_, at) => Some(*at),
            State::Beginning(_) | State::Comparing(_) | State::Ended => None,
        }
    }

    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Everything that was found different, in granules, to be owed again.
    pub fn to_owe(&self) -> &OwedMap {
        &self.owed
    }

    /// The last question, the only one whose answer counts.
    pub fn asked(&self) -> u64 {
        self.asked
    }

    fn proceed(&mut self, now: Instant) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => self.begin(now),
            State::Waiting(question, at) if at <= now => self.ask(now, question),
            State::Asking(question, since) if now.since(since) >= VERIFY_ANSWER_WAIT => {
                let away = *self.no_link.get_or_insert(since);
                if now.since(away) >= VERIFY_LINK_WAIT { self.end(End::NoLink) } else { self.ask(now, question) }
            }
            state @ (State::Beginning(_)
            | State::Asking(..)
            | State::Waiting(..)
            | State::Comparing(_)
            | State::Ended) => self.state = state,
        }
    }

    /// The next range, or a place that is to be looked at again.
    fn begin(&mut self, now: Instant) {
        if !self.bucket.is_ready(now) {
            return;
        }
        let look = if self.may_begin() {
            let range = self.ranges().next();
            self.next = range.map_or(self.next, Extent::end);
            range.map(|extent| Look { extent, second: false, tries: 0, not_before: now })
        } else if self.again.is_empty() {
            return self.end(End::Done);
        } else {
            self.again.pop_front_if(|look| look.not_before <= now)
        };
        if let Some(look) = look {
            self.outputs.push_back(Output::Begin(look.extent));
            self.state = State::Beginning(look);
        }
    }

    fn may_begin(&self) -> bool {
        self.again.len() < VERIFY_AGAIN_MAX && self.ranges().next().is_some()
    }

    /// The ranges that are still to be begun.
    fn ranges(&self) -> impl Iterator<Item = Extent> {
        let plan = self.plan;
        let size = (VERIFY_RANGE_BYTES.0 / plan.block_bytes.as_u64()).max(1);
        (self.next.0.div_ceil(size)..plan.blocks.0.div_ceil(size))
            .filter(move |range| plan.sample >= WHOLE || chance(plan.seed, *range) < u64::from(plan.sample))
            .filter_map(move |range| Extent::new(Lba(range * size), BlockCount(size.min(plan.blocks.0 - range * size))))
    }

    fn begun(&mut self, now: Instant, look: Look, owed: &[Extent], acked: Sequence) {
        let quiet = without(&[look.extent], owed);
        if quiet.is_empty() {
            return self.try_again(now, &look, &[look.extent]);
        }
        self.bucket.take(look.extent.blocks().byte_len(self.plan.block_bytes));
        self.ask(now, Question { look, quiet, acked, first: now });
    }

    fn ask(&mut self, now: Instant, question: Question) {
        self.asked += 1;
        self.outputs.push_back(Output::Ask { id: self.asked, extent: question.look.extent });
        self.state = State::Asking(question, now);
    }

    fn answered(&mut self, now: Instant, mut question: Question, through: Sequence) {
        if self.no_link.take().is_some() {
            question.first = now;
        }
        if through >= question.acked {
            self.outputs.push_back(Output::Compare(question.look.extent));
            self.state = State::Comparing(question);
        } else if now.since(question.first) >= VERIFY_INDEX_WAIT {
            self.try_again(now, &question.look, &[question.look.extent]);
        } else {
            self.state = State::Waiting(question, now.plus(VERIFY_AGAIN));
        }
    }

    fn compared(&mut self, now: Instant, question: &Question, found: &[Found], written: &[Extent]) {
        let look = &question.look;
        let quiet = without(&question.quiet, written);
        let found: Vec<Found> = found
            .iter()
            .flat_map(|found| clipped(found.extent, &quiet).map(|extent| Found { extent, what: found.what }))
            .collect();
        let different = total(found.iter().map(|found| found.extent));
        self.tally.compared.0 += total(quiet.iter().copied()) - different;
        if look.second {
            self.tally.compared.0 += different;
            self.tally.different.0 += different;
            found.into_iter().for_each(|found| self.report(found));
        } else {
            let again = joined(found.iter().map(|found| found.extent));
            let look = |extent| Look { extent, second: true, tries: 0, not_before: now.plus(VERIFY_AGAIN) };
            self.again.extend(again.into_iter().map(look));
        }
        self.try_again(now, look, &without(&[look.extent], &quiet));
    }

    /// Places that were busy; after too many looks they are skipped.
    fn try_again(&mut self, now: Instant, look: &Look, busy: &[Extent]) {
        let tries = look.tries + 1;
        for extent in busy.iter().copied() {
            if tries >= VERIFY_TRIES_MAX {
                self.tally.skipped.0 += extent.blocks().0;
            } else {
                let not_before = now.plus(Millis(VERIFY_AGAIN.0 * u64::from(tries)));
                self.again.push_back(Look { extent, second: look.second, tries, not_before });
            }
        }
    }

    fn report(&mut self, found: Found) {
        self.owed.mark(found.extent);
        let list = &mut self.tally.found;
        match list.last_mut().and_then(|last| both(last, &found)) {
            Some(longer) => _ = list.last_mut().map(|last| *last = longer),
            None if list.len() < VERIFY_FOUND_MAX => list.push(found),
            None => self.tally.found_more += 1,
        }
    }

    fn end(&mut self, end: End) {
        let mut found = std::mem::take(&mut self.tally.found);
        found.sort_by_key(|found| found.extent.first());
        for found in found {
            match self.tally.found.last_mut().and_then(|last| both(last, &found)) {
                Some(longer) => _ = self.tally.found.last_mut().map(|last| *last = longer),
                None => self.tally.found.push(found),
            }
        }
        self.state = State::Ended;
        self.outputs.push_back(Output::End(end));
    }
}

/// Neighbours that differ in the same way, as one.
fn both(before: &Found, after: &Found) -> Option<Found> {
    let touch = before.what == after.what && before.extent.end() == after.extent.first();
    let blocks = BlockCount(before.extent.blocks().0 + after.extent.blocks().0);
    let extent = Extent::new(before.extent.first(), blocks).filter(|_| touch)?;
    Some(Found { extent, what: before.what })
}

fn total(extents: impl Iterator<Item = Extent>) -> u64 {
    extents.map(|extent| extent.blocks().0).sum()
}

/// Of 10 000: all.
pub const WHOLE: u16 = 10_000;

/// What of the extents lies outside of the others.
fn without(extents: &[Extent], others: &[Extent]) -> Vec<Extent> {
    let mut left = extents.to_vec();
    for other in others {
        let cut = |extent: Extent| {
            let before = other.first().0.min(extent.end().0).saturating_sub(extent.first().0);
            let after = extent.end().0.saturating_sub(other.end().0.max(extent.first().0));
            let rest = Lba(extent.end().0 - after);
            let parts = [Extent::new(extent.first(), BlockCount(before)), Extent::new(rest, BlockCount(after))];
            if extent.overlaps(*other) { parts } else { [Some(extent), None] }
        };
        left = left.into_iter().flat_map(cut).flatten().collect();
    }
    left
}

/// The parts of an extent that lie in others.
fn clipped(extent: Extent, within: &[Extent]) -> impl Iterator<Item = Extent> {
    within.iter().filter_map(move |within| within.intersection(extent))
}

/// A number below 10 000 for a range, by splitmix64.
fn chance(seed: u64, range: u64) -> u64 {
    let mut z = seed.wrapping_add(range.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ z >> 31) % u64::from(WHOLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(first: u64, blocks: u64) -> Extent {
        Extent::new(Lba(first), BlockCount(blocks)).unwrap()
    }

    fn plan(blocks: u64) -> Plan {
        Plan { blocks: BlockCount(blocks), block_bytes: BlockBytes::DEFAULT, sample: WHOLE, seed: 0, rate: None }
    }

    fn found(first: u64, blocks: u64) -> Found {
        Found { extent: extent(first, blocks), what: Difference::Content }
    }

    /// A driver whose copy differs in some blocks, whose lane owes some, and whose initiators write some.
    struct Rig {
        verify: Verify,
        now: Instant,
        /// For each look what is owed and written; the last goes on.
        owed: Vec<Vec<Extent>>,
        written: Vec<Vec<Extent>>,
        differs: Vec<Found>,
        /// What the index holds at each answer.
        through: Vec<u64>,
        said: Vec<String>,
    }

    impl Rig {
        fn new(plan: Plan) -> Self {
            let none = || vec![Vec::new()];
            let verify = Verify::new(Instant(0), plan);
            let (through, said) = (vec![5], Vec::new());
            Self { verify, now: Instant(0), owed: none(), written: none(), differs: Vec::new(), through, said }
        }

        fn next<T: Clone>(list: &mut Vec<T>) -> T {
            if list.len() > 1 { list.remove(0) } else { list[0].clone() }
        }

        /// Runs to the end; the lane had an acknowledgement of record 5.
        fn run(mut self) -> (Tally, Vec<String>) {
            for _ in 0..10_000 {
                let Some(output) = self.verify.poll_output() else {
                    self.now = self.verify.poll_timeout().expect("something is due").max(self.now);
                    self.verify.handle(self.now, Input::Tick);
                    continue;
                };
                let input = match output {
                    Output::Begin(_) => Input::Begun { owed: Self::next(&mut self.owed), acked: Sequence(5) },
                    Output::Ask { extent, .. } => {
                        self.said.push(format!("{} ask {}+{}", self.now.0, extent.first(), extent.blocks().0));
                        match Self::next(&mut self.through) {
                            0 => Input::NoAnswer,
                            through => Input::Answered { through: Sequence(through) },
                        }
                    }
                    Output::Compare(_) => {
                        Input::Compared { found: self.differs.clone(), written: Self::next(&mut self.written) }
                    }
                    Output::End(end) => {
                        self.said.push(format!("{} {end:?}", self.now.0));
                        return (self.verify.tally().clone(), self.said);
                    }
                };
                self.verify.handle(self.now, input);
            }
            panic!("it does not end: {:?}", self.said);
        }
    }

    #[test]
    fn what_differs_is_looked_at_twice_and_named_once() {
        let mut rig = Rig::new(plan(300));
        rig.differs = vec![found(10, 2), found(12, 1), found(299, 1)];
        let (tally, said) = rig.run();
        assert_eq!(said, ["0 ask 0+256", "0 ask 256+44", "200 ask 10+3", "200 ask 299+1", "200 Done"]);
        assert_eq!(tally.found, [found(10, 3), found(299, 1)]);
        let counts = (tally.planned.0, tally.compared.0, tally.different.0, tally.skipped.0);
        assert_eq!(counts, (300, 300, 4, 0));
    }

    #[test]
    fn a_difference_that_the_second_look_does_not_see_is_none() {
        let mut rig = Rig::new(plan(16));
        rig.differs = vec![found(3, 1)];
        rig.written = vec![vec![], vec![extent(3, 1)], vec![]];
        // The second look meets a write, the third finds it the same.
        let (tally, said) = {
            let mut rig = rig;
            let mut looks = 0;
            loop {
                match rig.verify.poll_output() {
                    Some(Output::Begin(_)) => {
                        rig.verify.handle(rig.now, Input::Begun { owed: vec![], acked: Sequence(5) });
                    }
                    Some(Output::Ask { extent, .. }) => {
                        rig.said.push(format!("ask {}+{}", extent.first(), extent.blocks().0));
                        rig.verify.handle(rig.now, Input::Answered { through: Sequence(5) });
                    }
                    Some(Output::Compare(_)) => {
                        looks += 1;
                        let found = if looks < 3 { rig.differs.clone() } else { vec![] };
                        let written = Rig::next(&mut rig.written);
                        rig.verify.handle(rig.now, Input::Compared { found, written });
                    }
                    Some(Output::End(_)) => break (rig.verify.tally().clone(), rig.said),
                    None => {
                        rig.now = rig.verify.poll_timeout().unwrap();
                        rig.verify.handle(rig.now, Input::Tick);
                    }
                }
            }
        };
        assert_eq!(said, ["ask 0+16", "ask 3+1", "ask 3+1"]);
        assert_eq!((tally.found, tally.compared.0), (vec![], 16));
    }

    #[test]
    fn what_is_owed_or_written_meanwhile_is_never_called_different() {
        let mut rig = Rig::new(plan(16));
        rig.differs = vec![found(0, 16)];
        rig.owed = vec![vec![extent(0, 10)]];
        rig.written = vec![vec![extent(10, 6)]];
        let (tally, said) = rig.run();
        assert_eq!(tally.found, []);
        assert_eq!((tally.compared.0, tally.skipped.0), (0, 16), "always busy: {said:?}");
    }

    #[test]
    fn an_index_behind_the_acknowledgement_is_waited_for() {
        let mut rig = Rig::new(plan(16));
        rig.through = vec![3, 4, 5];
        let (tally, said) = rig.run();
        assert_eq!(said, ["0 ask 0+16", "200 ask 0+16", "400 ask 0+16", "400 Done"]);
        assert_eq!(tally.compared.0, 16);
    }

    #[test]
    fn an_index_that_stays_behind_makes_the_place_busy_and_a_lost_link_ends_it() {
        let mut rig = Rig::new(plan(16));
        rig.through = vec![3];
        let (tally, _) = rig.run();
        assert_eq!((tally.compared.0, tally.skipped.0), (0, 16));
        let mut rig = Rig::new(plan(16));
        rig.through = vec![0];
        let (tally, said) = rig.run();
        assert_eq!((tally.compared.0, said.last().map(String::as_str)), (0, Some("60000 NoLink")));
    }

    #[test]
    fn no_more_is_read_than_the_rate_lets() {
        let rate = Rate::new(1 << 20).ok();
        let (_, said) = Rig::new(Plan { rate, ..plan(1024) }).run();
        assert_eq!(said, ["0 ask 0+256", "901 ask 256+256", "1901 ask 512+256", "2901 ask 768+256", "3901 Done"]);
    }

    #[test]
    fn a_sample_is_as_large_as_was_asked_for_and_the_same_for_the_same_seed() {
        let sampled = |seed| Verify::new(Instant(0), Plan { sample: 100, seed, ..plan(256 * 100_000) }).tally.planned.0;
        let ranges = sampled(7) / 256;
        assert!((900..1100).contains(&ranges), "{ranges} of 100 000 ranges");
        assert_eq!(sampled(7), sampled(7));
        assert_ne!(sampled(7), sampled(8));
    }

    #[test]
    fn what_is_left_of_extents() {
        for (extents, others, left) in [
            (vec![extent(0, 10)], vec![], vec![extent(0, 10)]),
            (vec![extent(0, 10)], vec![extent(3, 2)], vec![extent(0, 3), extent(5, 5)]),
            (vec![extent(5, 5)], vec![extent(0, 6), extent(9, 9)], vec![extent(6, 3)]),
            (vec![extent(5, 5)], vec![extent(0, 5), extent(10, 1)], vec![extent(5, 5)]),
            (vec![extent(5, 5), extent(20, 1)], vec![extent(5, 5)], vec![extent(20, 1)]),
            (vec![extent(5, 5)], vec![extent(0, 50)], vec![]),
        ] {
            assert_eq!(without(&extents, &others), left);
        }
    }
}
