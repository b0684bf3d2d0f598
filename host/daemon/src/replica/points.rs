//! Points of the copy beside the newest: the window of retention, pins, and what is opened at an earlier point.
//!
//! Each is an index of its own. The window's is that of its oldest point, the *floor*: what is younger lies in the log as it came,
//! and is not compacted before the floor has passed it. So the index of any point in the window is the floor's and the log from
//! there on. What any of these indexes reads, compaction keeps and moves for all of them.
//!
//! | in the copy's folder | what |
//! |---|---|
//! | `points/points.json` | moments, pins, the oldest point |
//! | `points/floor/` | the index of the oldest point of the window |
//! | `points/pin-NAME/` | the index of a pin |
//! | `points/opened/` | the index of the point that a takeover opened |
//! | `points/looked-at/` | of a test or a plan; gone after a restart |

mod build;
mod keep;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use farseal_core::compaction::Room;
use farseal_core::group::{CutName, NamedCut};
use farseal_core::limits::{MOMENT_SPAN_MIN, MOMENTS_IN_WINDOW};
use farseal_core::points::{Found, Hole, Known, Moment, Points, Shortened, Terms, Why};
use farseal_core::record::Header;
use farseal_core::units::{ByteLen, Epoch, Millis, Sequence, WallTime};

use self::build::Build;
pub(crate) use self::build::{Open, OpenError, Opened, Purpose};
use super::Runner;
use crate::store::index::Index;
use crate::store::log::{Kept, Location, Log, LogReader, ReadError, Walk};

/// An index that others read while compaction moves what it reads.
pub(crate) type SharedIndex = Arc<RwLock<Index>>;

/// The points of a copy, as they are now.
#[derive(Clone, Debug)]
pub struct View {
    pub points: Points,
    pub terms: Option<Terms>,
    /// There is a window of retention.
    pub window: bool,
    pub holes: Vec<Hole>,
    pub cuts: Vec<NamedCut>,
    /// The copy's history begins behind this record.
    pub begins: Sequence,
    /// The newest point, and when it was made.
    pub newest: Sequence,
    pub made: WallTime,
    /// What the log takes from the oldest point of the window on.
    pub room: ByteLen,
    /// What is being tested.
    pub tested: Option<Sequence>,
}

/// What is kept beside the newest state.
pub(super) struct Beside {
    place: PathBuf,
    terms: Option<Terms>,
    book: Points,
    floor: Option<Floor>,
    pins: BTreeMap<CutName, Pinned>,
    /// The point that a test looks at.
    tested: Option<(Sequence, SharedIndex)>,
    /// The point that a takeover is to open, or has opened.
    opened: Option<(Sequence, Index)>,
    queue: VecDeque<Open>,
    build: Option<Build>,
    /// Blocks that these read beside the floor, by segment; `None` when it is to be counted again.
    live: Option<BTreeMap<u32, u64>>,
}

/// The oldest point of the window.
struct Floor {
    index: Index,
    through: Sequence,
    /// No record behind `through` lies before this.
    from: Location,
    /// The same of what is on disk, where a restart goes on.
    kept_from: Location,
    pass: Option<Pass>,
    /// Not as it is on disk.
    changed: bool,
}

/// On the way to a later oldest point: the index is no state of the volume meanwhile.
struct Pass {
    to: Moment,
    room: Room,
    walk: Walk,
}

struct Pinned {
    sequence: Sequence,
    index: Index,
    changed: bool,
}

impl View {
    /// For questions about them.
    pub fn known(&self) -> Known<'_> {
        Known {
            points: &self.points,
            window: self.window,
            holes: &self.holes,
            cuts: &self.cuts,
            begins: self.begins,
            newest: self.newest,
            made: self.made,
        }
    }

    pub fn shortened(&self) -> Option<Shortened> {
        self.points.shortened()
    }

    /// The point that was meant by a time: the log's records between two moments are looked at.
    pub fn settle(&self, found: Found, reader: &LogReader) -> Result<Sequence, ReadError> {
        let Found::Within { time, after, until, from, end } = found else {
            let Found::Point(point) = found else { return Ok(self.newest) };
            return Ok(point);
        };
        let (mut walk, mut last) = (reader.walk(Location::unpack(from)), after);
        let end = end.map(Location::unpack);
        while end.is_none_or(|end| walk.at() < end) {
            let Some((header, _)) = walk.record()? else { break };
            if header.sequence > last && header.sequence <= until && header.wall <= time {
                last = header.sequence;
            }
        }
        Ok(self.known().at_or_before(last))
    }
}

impl Runner {
    /// The points of the copy, as they are now.
    pub(super) fn points(&self) -> View {
        let beside = &self.beside;
        View {
            points: beside.book.clone(),
            terms: beside.terms,
            window: beside.floor.is_some(),
            holes: self.secondary.holes().to_vec(),
            cuts: self.secondary.cuts().named().to_vec(),
            begins: self.control.history().start,
            newest: self.backlog.indexed(),
            made: self.secondary.durable_wall().unwrap_or(WallTime(0)),
            room: beside.floor.as_ref().map_or(ByteLen(0), |floor| self.log.bytes_from(floor.from)),
            tested: beside.tested.as_ref().map(|(sequence, _)| *sequence),
        }
    }

    /// One step of whatever is under way with points, or the next that is due.
    pub(super) fn points_on(&mut self) {
        if self.index.is_none() || self.control.taken_over_at.is_some() {
            return self.beside.give_up();
        }
        self.note_moment();
        if self.beside.floor.as_ref().is_some_and(|floor| floor.pass.is_some()) {
            return self.floor_on();
        }
        if self.beside.build.is_some() || !self.beside.queue.is_empty() {
            return self.build_on();
        }
        let (Some(terms), Some(_)) = (self.beside.terms, &self.beside.floor) else { return };
        let log = &self.log;
        let room = |moment: &Moment| log.bytes_from(Location::unpack(moment.from));
        if let Some((to, why)) = self.beside.book.due(&terms, self.clock.now().wall, room) {
            self.begin_pass(to, why, Room::Enough);
        }
    }

    /// Begins the window, and notes what is offered when.
    fn note_moment(&mut self) {
        let Some(terms) = self.beside.terms else { return };
        let (now, offered) = (self.clock.now().wall, self.secondary.offered());
        let settled = !self.backlog.is_reading() && !self.secondary.base_differs();
        if !settled || !self.secondary.is_recovered() {
            return;
        }
        let (log, book) = (&self.log, &self.beside.book);
        let room = |moment: &Moment| log.bytes_from(Location::unpack(moment.end));
        if self.beside.floor.is_some() && !book.wants_moment(&terms, offered, now, room) {
            return;
        }
        let moment = self.moment();
        if self.beside.floor.is_none() {
            let Some(index) = &self.index else { return };
            if let Err(error) = self.beside.begin(index, moment) {
                tracing::error!(pair = self.name, %error, "the window of retention cannot begin: it is tried again when the disk is mended and the node restarted");
                self.beside.terms = None;
            }
            return;
        }
        self.beside.book.note(moment);
        self.beside.save_moments();
    }

    fn moment(&self) -> Moment {
        Moment {
            sequence: self.backlog.indexed(),
            at: self.clock.now().wall,
            made: self.secondary.durable_wall().unwrap_or(WallTime(0)),
            from: self.frontier().pack(),
            end: self.log.durable_end().pack(),
        }
    }

    /// Nothing before this moment is kept any more, unless it is pinned.
    fn begin_pass(&mut self, to: Moment, why: Option<Why>, room: Room) {
        let (now, reader) = (self.clock.now().wall, self.log.reader());
        self.beside.book.advance(&to, why, now);
        if let Some(why) = why {
            tracing::warn!(pair = self.name, oldest = to.sequence.0, "the window of points was shortened: {why}");
        }
        self.beside.save_moments();
        if let Some(floor) = &mut self.beside.floor {
            floor.pass = Some(Pass { to, room, walk: reader.walk(floor.from) });
        }
        let oldest = self.beside.book.pins().first().map_or(to.sequence, |pin| pin.sequence.min(to.sequence));
        self.secondary.forget_holes(oldest);
    }

    /// One step of the floor's way.
    fn floor_on(&mut self) {
        let now = self.clock.now().instant;
        if self.read_again_at.is_some_and(|at| now < at) {
            return;
        }
        let Some(floor) = &mut self.beside.floor else { return };
        match floor.step() {
            Ok(None) => {}
            Ok(Some(room)) => {
                self.beside.live = None;
                // Without room everything that may be compacted counts: what the index on disk knows.
                let kept = if room == Room::None { self.checkpoint() } else { self.keep_points() };
                if kept {
                    self.compact(room);
                }
            }
            Err(error) => {
                tracing::error!(pair = self.name, %error, "the log cannot be read: the window of points stays as it is");
                self.read_again_at = Some(now.plus(farseal_core::limits::STORE_RETRY_INTERVAL));
                if let Some(pass) = self.beside.floor.as_mut().and_then(|floor| floor.pass.as_mut()) {
                    let at = pass.walk.at();
                    pass.walk = self.log.reader().walk(at);
                }
            }
        }
    }

    /// The disk is full: the oldest of the window goes first.
    pub(super) fn points_give_way(&mut self) {
        let idle = self.beside.build.is_none() && !self.backlog.is_reading();
        if idle && self.beside.floor.is_some() {
            let moment = self.moment();
            self.beside.book.note(moment);
        }
        let Some(floor) = self.beside.floor.as_ref().filter(|floor| floor.pass.is_none() && idle) else { return };
        let segment = floor.from.segment;
        let frees = |moment: &Moment| Location::unpack(moment.from).segment > segment;
        if let Some(to) = self.beside.book.gives_way(frees) {
            self.begin_pass(to, Some(Why::NoRoom), Room::None);
        }
    }

    /// Keys go: the window is to begin with what is offered now. Says whether it does.
    pub(super) fn window_begins_now(&mut self) -> bool {
        let (newest, from) = (self.backlog.indexed(), self.frontier());
        match &mut self.beside.floor {
            None => true,
            Some(floor) if floor.pass.is_some() || self.beside.build.is_some() => false,
            Some(floor) if floor.through >= newest => {
                (floor.from, floor.changed) = (floor.from.max(from), true);
                true
            }
            Some(_) => {
                let moment = self.moment();
                self.beside.book.note(moment);
                self.begin_pass(moment, Some(Why::KeysRetired), Room::Enough);
                false
            }
        }
    }

    /// The oldest epoch that the floor needs beside the newest state.
    pub(super) fn window_needs(&self) -> Option<Epoch> {
        let (floor, index) = (self.beside.floor.as_ref()?, self.index.as_ref()?);
        self.oldest_epoch(&floor.index, index)
    }

    /// The points that stay whatever the window does, with the oldest epoch that each needs beside the newest state.
    pub(super) fn pinned_needs(&self) -> Vec<(Sequence, Epoch)> {
        let Some(newest) = &self.index else { return Vec::new() };
        let pins = self.beside.pins.values();
        let mut needs: Vec<_> =
            pins.filter_map(|pin| Some((pin.sequence, self.oldest_epoch(&pin.index, newest)?))).collect();
        if let Some((sequence, index)) = &self.beside.tested {
            let index = index.read().unwrap_or_else(PoisonError::into_inner);
            needs.extend(self.oldest_epoch(&index, newest).map(|epoch| (*sequence, epoch)));
        }
        needs
    }

    fn oldest_epoch(&self, index: &Index, newest: &Index) -> Option<Epoch> {
        let (ledger, mut oldest) = (self.secondary.ledger(), None);
        index.read_beside(newest, |sequence| {
            oldest = oldest.into_iter().chain([sequence]).min();
        });
        oldest.map(|sequence: Sequence| ledger.epoch_at(sequence))
    }

    /// What of a record anybody still reads.
    pub(super) fn anybody_reads(&self, header: &Header, location: Location) -> Option<Kept> {
        let newest = self.index.as_ref()?;
        let mut kept = newest.reads(header, location);
        self.beside.each(&mut |index| {
            kept = match (kept.take(), index.reads(header, location)) {
                (Some(one), Some(other)) => Some(one.both(other, header)),
                (one, other) => one.or(other),
            };
        });
        kept
    }

    /// Blocks of data of a segment that anybody reads.
    pub(super) fn anybody_lives_in(&mut self, segment: u32) -> u64 {
        let Some(newest) = &self.index else { return 0 };
        let base = self.beside.floor.as_ref().map_or(newest, |floor| &floor.index);
        let own = base.live(segment).0;
        let (pins, tested) = (&self.beside.pins, &self.beside.tested);
        if pins.is_empty() && tested.is_none() && self.beside.build.is_none() {
            return own;
        }
        let live = self.beside.live.get_or_insert_with(|| beside(base, pins, tested.as_ref()));
        own + live.get(&segment).copied().unwrap_or_default()
    }

    /// Compaction may take segments before this: a pass reads what lies behind it again, in its order.
    pub(super) fn compacts_before(&self) -> Location {
        let floor = self.beside.floor.as_ref().map(|floor| floor.kept_from);
        floor.map_or(self.kept, |from| from.min(self.kept))
    }
}

impl Beside {
    /// Is there a step to be done at once?
    pub(super) fn is_busy(&self) -> bool {
        self.build.is_some() || self.floor.as_ref().is_some_and(|floor| floor.pass.is_some())
    }

    /// When the window is to be looked at again.
    pub(super) fn patience(&self) -> Option<Millis> {
        let waits = (!self.queue.is_empty()).then_some(Millis(50));
        let grain = self.terms.map(|terms| Millis((terms.span.0 / MOMENTS_IN_WINDOW).clamp(MOMENT_SPAN_MIN.0, 60_000)));
        waits.into_iter().chain(grain).min()
    }

    /// Shows every index beside the newest.
    pub(super) fn each(&self, show: &mut dyn FnMut(&Index)) {
        self.floor.iter().for_each(|floor| show(&floor.index));
        self.pins.values().for_each(|pin| show(&pin.index));
        if let Some((_, index)) = &self.tested {
            show(&index.read().unwrap_or_else(PoisonError::into_inner));
        }
        self.opened.iter().for_each(|(_, index)| show(index));
        self.build.iter().for_each(|build| show(build.index()));
    }

    /// Compaction has put records elsewhere.
    pub(super) fn moved(&mut self, header: &Header, to: Location, left: &dyn Fn(u32) -> bool) {
        if let Some(floor) = &mut self.floor {
            floor.index.moved(header, to, left);
            floor.changed = true;
        }
        for pin in self.pins.values_mut() {
            pin.index.moved(header, to, left);
            pin.changed = true;
        }
        if let Some((_, index)) = &self.tested {
            index.write().unwrap_or_else(PoisonError::into_inner).moved(header, to, left);
        }
        if let Some((_, index)) = &mut self.opened {
            index.moved(header, to, left);
        }
        if let Some(build) = &mut self.build {
            build.index_mut().moved(header, to, left);
        }
        self.live = None;
    }

    /// The index of the point that a takeover opens.
    pub(super) fn take_opened(&mut self) -> Option<Index> {
        self.opened.take().map(|(_, index)| index)
    }

    /// The copy takes no more part: whoever waits hears it.
    fn give_up(&mut self) {
        self.queue.drain(..).for_each(|open| open.refuse(OpenError::TakenOver));
        self.build.take().into_iter().for_each(|build| build.refuse(OpenError::TakenOver));
    }
}

impl Floor {
    /// Reads some records. Says for the sake of which room it was, once it is there.
    fn step(&mut self) -> Result<Option<Room>, ReadError> {
        let Some(pass) = &mut self.pass else { return Ok(None) };
        let (through, until) = (pass.to.sequence, Location::unpack(pass.to.end));
        if !build::read_some(&mut pass.walk, until, through, &mut self.index)? {
            return Ok(None);
        }
        (self.through, self.from, self.changed) = (through, Location::unpack(pass.to.from), true);
        Ok(self.pass.take().map(|pass| pass.room))
    }
}

/// Blocks that only earlier points read, by segment. A version that two points read is read by all between them: so each is
/// compared with the one after it.
fn beside(
    base: &Index,
    pins: &BTreeMap<CutName, Pinned>,
    tested: Option<&(Sequence, SharedIndex)>,
) -> BTreeMap<u32, u64> {
    let mut live = BTreeMap::new();
    let mut add = |counts: BTreeMap<u32, u64>| {
        counts.into_iter().for_each(|(segment, blocks)| *live.entry(segment).or_default() += blocks);
    };
    let mut later = base;
    let mut earlier: Vec<&Pinned> = pins.values().collect();
    earlier.sort_by_key(|pin| std::cmp::Reverse(pin.sequence));
    for pin in earlier {
        add(pin.index.live_beside(later));
        later = &pin.index;
    }
    if let Some((_, index)) = tested {
        // Counted against the newest alone: too much where a pin reads the same, and a test is over soon.
        add(index.read().unwrap_or_else(PoisonError::into_inner).live_beside(base));
    }
    live
}

/// After a crash in the middle of a compaction, or a start: everything reads the new segments.
pub(super) fn finish(log: &Log, beside: &mut Beside) -> Result<(), super::StartError> {
    for (header, to) in log.unfinished()? {
        beside.moved(&header, to, &|number| log.is_replaced(number));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
