//! The index of an earlier point: made of the floor's, or of a pin's, and the log from there on, some records at a time.

use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use farseal_core::compaction::Room;
use farseal_core::group::{CutName, OfferLimit};
use farseal_core::ledger::Ledger;
use farseal_core::limits::{BACKLOG_STEP_BYTES, BACKLOG_STEP_RECORDS};
use farseal_core::points::{Pin, PinError, PointError};
use farseal_core::secondary::Input;
use farseal_core::units::Sequence;

use super::super::Runner;
use super::{Pinned, SharedIndex};
use crate::store::StoreError;
use crate::store::index::{Index, IndexError};
use crate::store::log::{Location, LogReader, ReadError, Walk};

/// What a point is opened for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// It stays, under this name.
    Pin(CutName),
    /// Somebody works on it until they end it.
    Test,
    /// Somebody wants to know what it needs.
    Plan,
    /// This site writes from there on, as its group decided.
    TakeOver,
    /// The same by itself, whatever its group holds. Until the point is open the group's cut bounds what is offered: if nothing
    /// comes of it, the group can still be taken over as a whole.
    TakeOverAlone,
}

/// A point to open.
pub struct Open {
    /// `None`: whatever is the newest by then.
    pub at: Option<Sequence>,
    pub purpose: Purpose,
    pub done: Box<dyn FnOnce(Result<Opened, OpenError>) + Send>,
}

/// It is open.
#[derive(Clone, Debug)]
pub struct Opened {
    pub sequence: Sequence,
    /// For a test or a plan.
    pub index: Option<SharedIndex>,
    pub reader: LogReader,
    pub ledger: Arc<Ledger>,
    /// The folder of what was opened.
    pub place: PathBuf,
    /// Blocks that it says nothing of are what this site's own image holds.
    pub based: bool,
}

/// Why a point is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Point(#[from] PointError),
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error("a test is under way at record {0}: end it first")]
    Tested(Sequence),
    #[error("this site has been taken over to")]
    TakenOver,
    #[error("the history that is kept here is not whole yet: there are no points of it")]
    NotWhole,
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("the log cannot be read: {0}")]
    Log(#[from] ReadError),
    #[error("the pin could not be written down, and was not made: {0}")]
    Book(#[from] StoreError),
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open").field("at", &self.at).field("purpose", &self.purpose).finish_non_exhaustive()
    }
}

impl Open {
    pub(super) fn refuse(self, why: OpenError) {
        (self.done)(Err(why));
    }
}

/// Where an index begins: of which point it is to be, and what is missing, if anything is.
type Begun = (Sequence, Index, Option<(Walk, Location)>);

/// An index on its way to a point.
pub(super) struct Build {
    open: Open,
    sequence: Sequence,
    index: Index,
    /// Records are missing yet, up to this place of the log.
    left: Option<(Walk, Location)>,
}

impl Build {
    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    pub(super) fn index_mut(&mut self) -> &mut Index {
        &mut self.index
    }

    pub(super) fn refuse(self, why: OpenError) {
        self.open.refuse(why);
    }
}

impl Runner {
    /// A step of the index that is being made, or the beginning of the next.
    pub(super) fn build_on(&mut self) {
        let Some(mut build) = self.beside.build.take() else { return self.begin_build() };
        let Some((walk, until)) = &mut build.left else { return self.end_build(build) };
        match read_some(walk, *until, build.sequence, &mut build.index) {
            Ok(true) => self.end_build(build),
            Ok(false) => self.beside.build = Some(build),
            Err(error) => build.refuse(error.into()),
        }
    }

    fn begin_build(&mut self) {
        // In the middle of a pass the index is no state of the volume.
        if self.backlog.is_reading() {
            return;
        }
        let Some(open) = self.beside.queue.pop_front() else { return };
        match self.begun(&open) {
            Ok((sequence, index, left)) => self.beside.build = Some(Build { open, sequence, index, left }),
            Err(why) => open.refuse(why),
        }
        self.beside.live = None;
    }

    fn begun(&self, open: &Open) -> Result<Begun, OpenError> {
        let beside = &self.beside;
        match (&open.purpose, &beside.tested) {
            (Purpose::Pin(name), _) => beside.book.may_pin(name)?,
            (Purpose::Test, Some((sequence, _))) => return Err(OpenError::Tested(*sequence)),
            (Purpose::Test | Purpose::Plan | Purpose::TakeOver | Purpose::TakeOverAlone, _) => {}
        }
        let Some(newest) = &self.index else { return Err(OpenError::TakenOver) };
        if self.secondary.base_differs() {
            return Err(OpenError::NotWhole);
        }
        let view = self.points();
        let sequence = view.known().point(open.at.unwrap_or(view.newest))?;
        let place = self.beside.place_of(&open.purpose);
        if sequence == view.newest {
            return Ok((sequence, newest.copy_to(&place)?, None));
        }
        if let Some(pin) = beside.pins.values().find(|pin| pin.sequence == sequence) {
            return Ok((sequence, pin.index.copy_to(&place)?, None));
        }
        let Some(floor) = &beside.floor else { return Err(OpenError::NotWhole) };
        let end = beside.book.end_of(sequence).map_or(self.log.durable_end(), Location::unpack);
        Ok((sequence, floor.index.copy_to(&place)?, Some((self.log.reader().walk(floor.from), end))))
    }

    fn end_build(&mut self, build: Build) {
        let Build { open, sequence, mut index, .. } = build;
        if let Some(newest) = &self.index {
            index.share_with(newest);
        }
        self.beside.live = None;
        let mut opened = Opened {
            sequence,
            index: None,
            place: self.beside.place_of(&open.purpose),
            reader: self.log.reader(),
            ledger: Arc::new(self.secondary.ledger().clone()),
            based: self.control.keeps.is_some(),
        };
        match &open.purpose {
            Purpose::Pin(name) => {
                if let Err(error) = index.checkpoint(&super::keep::point_state(sequence)) {
                    return open.refuse(error.into());
                }
                let pin = Pin { name: name.clone(), sequence, at: self.clock.now().wall };
                let mut book = self.beside.book.clone();
                book.pin(pin);
                if let Err(error) = self.beside.save(&book) {
                    self.beside.remove(&open.purpose);
                    return open.refuse(error.into());
                }
                self.beside.book = book;
                self.beside.pins.insert(name.clone(), Pinned { sequence, index, changed: false });
            }
            Purpose::Test => {
                let shared = Arc::new(RwLock::new(index));
                opened.index = Some(Arc::clone(&shared));
                self.beside.tested = Some((sequence, shared));
            }
            // It is read at once and never through the log.
            Purpose::Plan => opened.index = Some(Arc::new(RwLock::new(index))),
            Purpose::TakeOver | Purpose::TakeOverAlone => {
                if let Err(error) = index.checkpoint(&super::keep::point_state(sequence)) {
                    return open.refuse(error.into());
                }
                self.beside.opened = Some((sequence, index));
                self.opening = Some(sequence);
                self.answer_words(true);
                if open.purpose == Purpose::TakeOverAlone {
                    self.give(Input::Limit(OfferLimit::Everything));
                }
                self.give(Input::TakeOver);
            }
        }
        (open.done)(Ok(opened));
    }

    /// A point to open, in its turn.
    pub(in super::super) fn open_point(&mut self, open: Open) {
        self.beside.queue.push_back(open);
    }

    /// Says whether there was a pin of this name. Where that could not be written down it stays, and so does all that it needs.
    pub(in super::super) fn unpin(&mut self, name: &CutName) -> Result<bool, StoreError> {
        let mut book = self.beside.book.clone();
        let gone = book.unpin(name);
        if gone {
            self.beside.save(&book)?;
            self.beside.book = book;
            self.beside.pins.remove(name);
            self.beside.remove(&Purpose::Pin(name.clone()));
            self.beside.live = None;
            self.compact(Room::Enough);
        }
        Ok(gone)
    }

    /// The test is over, at this record.
    pub(in super::super) fn end_test(&mut self) -> Option<Sequence> {
        let (sequence, _) = self.beside.tested.take()?;
        self.beside.remove(&Purpose::Test);
        self.beside.live = None;
        self.compact(Room::Enough);
        Some(sequence)
    }
}

/// Applies some records up to `through`, of those before `until`. Says whether these were all.
pub(super) fn read_some(
    walk: &mut Walk,
    until: Location,
    through: Sequence,
    index: &mut Index,
) -> Result<bool, ReadError> {
    let enough = walk.bytes().saturating_add(BACKLOG_STEP_BYTES.0);
    for _ in 0..BACKLOG_STEP_RECORDS {
        if walk.at() >= until {
            return Ok(true);
        }
        let Some((header, location)) = walk.record()? else { return Ok(true) };
        if header.sequence <= through {
            index.apply(&header, location);
        }
        if walk.bytes() >= enough {
            break;
        }
    }
    Ok(false)
}

impl super::Beside {
    pub(super) fn place_of(&self, purpose: &Purpose) -> PathBuf {
        match purpose {
            Purpose::Pin(name) => self.place.join(format!("pin-{name}")),
            Purpose::Test => self.place.join("looked-at"),
            Purpose::Plan => self.place.join("planned"),
            Purpose::TakeOver | Purpose::TakeOverAlone => self.place.join("opened"),
        }
    }
}
