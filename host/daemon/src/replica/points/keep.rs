//! Points on disk: what a start finds of them, and what is made durable before compaction removes anything.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use farseal_core::group::CutName;
use farseal_core::points::{Moment, Pin, Points, Terms};
use farseal_core::units::{Sequence, WallTime};
use serde::{Deserialize, Serialize};

use super::super::{Runner, StartError};
use super::build::Purpose;
use super::{Beside, Floor, Pass, Pinned};
use crate::store::index::{Index, IndexError};
use crate::store::log::{Location, Log};
use crate::store::{StoreError, files};

/// Moments are some 100 bytes each, pins and names few.
const POINTS_BYTES_MAX: u64 = 4 << 20;

/// What the checkpoint of a point's index says.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    through: Sequence,
    /// The floor's: where a pass begins. Packed.
    #[serde(default)]
    from: u64,
    /// It was on its way there, and is no state of the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<Moment>,
}

/// For the index of a point that stays where it is.
pub(super) fn point_state(through: Sequence) -> Vec<u8> {
    serde_json::to_vec(&State { through, from: 0, to: None }).unwrap_or_default()
}

impl Beside {
    /// What a start finds. `newest`: the index as it is after the log was read.
    pub(in super::super) fn open(
        directory: &Path,
        terms: Option<Terms>,
        opened: Option<Sequence>,
        log: &Log,
        newest: &Index,
    ) -> Result<Self, StartError> {
        let place = directory.join("points");
        let found = files::read_if_there(&place.join("points.json"), POINTS_BYTES_MAX)?;
        let book = match found.map(|bytes| serde_json::from_slice::<Points>(&bytes)) {
            Some(Ok(book)) => book,
            Some(Err(error)) => pins_of(&place, newest, &error),
            None => Points::default(),
        };
        let mut beside = Self {
            place,
            terms,
            book,
            floor: None,
            pins: BTreeMap::new(),
            tested: None,
            opened: None,
            queue: VecDeque::new(),
            build: None,
            live: None,
        };
        for purpose in [Purpose::Test, Purpose::Plan] {
            beside.remove(&purpose);
        }
        match opened {
            Some(at) => beside.opened = Some((at, beside.point(&Purpose::TakeOver, at, log, newest)?)),
            None => beside.remove(&Purpose::TakeOver),
        }
        let pins: Vec<(CutName, Sequence)> =
            beside.book.pins().iter().map(|pin| (pin.name.clone(), pin.sequence)).collect();
        for (name, sequence) in pins {
            // What compaction took since nobody can tell: made again of the log, the point could show an older state.
            if !beside.place_of(&Purpose::Pin(name.clone())).join("index.root").exists() {
                tracing::error!(%name, record = sequence.0, "the pin has no index any more, and is let go");
                beside.book.unpin(&name);
                continue;
            }
            let index = beside.point(&Purpose::Pin(name.clone()), sequence, log, newest)?;
            beside.pins.insert(name, Pinned { sequence, index, changed: false });
        }
        beside.remove_strays();
        match terms {
            Some(_) => beside.open_floor(log, newest)?,
            None => beside.remove_dir(&beside.place.join("floor")),
        }
        Ok(beside)
    }

    /// The window begins with what the newest index says.
    pub(super) fn begin(&mut self, newest: &Index, moment: Moment) -> Result<(), IndexError> {
        let mut index = newest.copy_to(&self.place.join("floor"))?;
        let from = Location::unpack(moment.from);
        index.checkpoint(&floor_state(moment.sequence, from, None))?;
        self.book.begin_again(moment);
        self.save_moments();
        self.floor = Some(Floor::kept(index, moment.sequence, from));
        Ok(())
    }

    fn open_floor(&mut self, log: &Log, newest: &Index) -> Result<(), StartError> {
        let place = self.place.join("floor");
        if !place.join("index.root").exists() {
            return Ok(());
        }
        let (index, state) = match Index::open(&place, newest.volume()) {
            Ok((index, Some(state))) => (index, serde_json::from_slice::<State>(&state).ok()),
            Ok((_, None)) => return Ok(()),
            Err(error) if error.rebuild() => {
                tracing::warn!(%error, "the window of points begins anew with the newest");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let Some(State { through, from, to }) = state else { return Ok(()) };
        let mut floor = Floor::kept(index, through, Location::unpack(from));
        floor.index.share_with(newest);
        if let Some(to) = to {
            let walk = log.reader().walk(floor.from);
            floor.pass = Some(Pass { to, room: farseal_core::compaction::Room::Enough, walk });
        }
        // Where a crash came before the book was kept, the index has the word.
        let first = to.unwrap_or(Moment { sequence: through, from, end: from, ..self.first_moment() });
        if self.book.oldest() < first.sequence || self.book.moments().is_empty() {
            match self.book.moments().is_empty() {
                true => self.book.begin_again(first),
                false => self.book.advance(&first, None, first.at),
            }
        }
        self.floor = Some(floor);
        Ok(())
    }

    fn first_moment(&self) -> Moment {
        let none = Moment { sequence: Sequence::NONE, at: WallTime(0), made: WallTime(0), from: 0, end: 0 };
        self.book.moments().front().copied().unwrap_or(none)
    }

    /// The index of a point that stays; made again of the log's headers if it is damaged.
    fn point(&self, purpose: &Purpose, at: Sequence, log: &Log, newest: &Index) -> Result<Index, StartError> {
        let place = self.place_of(purpose);
        let mut index = match Index::open(&place, newest.volume()) {
            Ok((index, Some(_))) => index,
            Ok((_, None)) => again(&place, at, log, newest)?,
            Err(error) if error.rebuild() => {
                tracing::warn!(%error, "the index of a point is built again from the log");
                again(&place, at, log, newest)?
            }
            Err(error) => return Err(error.into()),
        };
        index.share_with(newest);
        Ok(index)
    }

    /// What is written here of moments is a help: the floor's index has the last word.
    pub(super) fn save_moments(&self) {
        if let Err(error) = self.save(&self.book) {
            tracing::warn!(%error, "the copy's points could not be kept: a restart knows them less well");
        }
    }

    /// Which pins there are nothing but the book says.
    pub(super) fn save(&self, book: &Points) -> Result<(), StoreError> {
        files::write_atomically(&self.place.join("points.json"), &serde_json::to_vec(book).unwrap_or_default())
    }

    pub(super) fn remove(&self, purpose: &Purpose) {
        self.remove_dir(&self.place_of(purpose));
    }

    fn remove_dir(&self, place: &Path) {
        match std::fs::remove_dir_all(place) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %place.display(), %error, "what was kept of a point stays"),
        }
    }

    /// Pins that were not made, or were let go, when the process ended.
    fn remove_strays(&self) {
        let kept: Vec<PathBuf> = self.pins.keys().map(|name| self.place_of(&Purpose::Pin(name.clone()))).collect();
        for entry in std::fs::read_dir(&self.place).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with("pin-") && !kept.contains(&path) {
                self.remove_dir(&path);
            }
        }
    }
}

impl Runner {
    /// What compaction has moved is durable in every index. Says whether it is.
    pub(in super::super) fn keep_points(&mut self) -> bool {
        let beside = &mut self.beside;
        let mut done = Ok(());
        if let Some(floor) = beside.floor.as_mut().filter(|floor| floor.changed) {
            done = floor.keep();
        }
        for pin in beside.pins.values_mut().filter(|pin| pin.changed) {
            let kept = pin.index.checkpoint(&point_state(pin.sequence));
            pin.changed = kept.is_err();
            done = done.and(kept);
        }
        if let Some((sequence, index)) = &mut beside.opened {
            done = done.and(index.checkpoint(&point_state(*sequence)));
        }
        if let Err(error) = &done {
            tracing::error!(pair = self.name, %error, "the index of a point could not be kept: nothing of the log is removed");
        }
        done.is_ok()
    }
}

impl Floor {
    /// As it is on disk.
    pub(super) fn kept(index: Index, through: Sequence, from: Location) -> Self {
        Self { index, through, from, kept_from: from, pass: None, changed: false }
    }

    /// Makes it durable as it is now.
    pub(super) fn keep(&mut self) -> Result<(), IndexError> {
        self.index.checkpoint(&floor_state(self.through, self.from, self.pass.as_ref().map(|pass| pass.to)))?;
        (self.kept_from, self.changed) = (self.from, false);
        Ok(())
    }
}

/// What the book said of pins, as their own indexes say it.
fn pins_of(place: &Path, newest: &Index, error: &serde_json::Error) -> Points {
    tracing::warn!(path = %place.display(), %error, "the book of points is damaged: it is made anew of the indexes beside it");
    let mut book = Points::default();
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_str().and_then(|name| CutName::new(name.strip_prefix("pin-")?).ok());
        let state = Index::open(&entry.path(), newest.volume()).ok().and_then(|(_, state)| state);
        let state = state.and_then(|state| serde_json::from_slice::<State>(&state).ok());
        if let (Some(name), Some(State { through, .. })) = (name, state) {
            book.pin(Pin { name, sequence: through, at: WallTime(0) });
        }
    }
    book
}

fn floor_state(through: Sequence, from: Location, to: Option<Moment>) -> Vec<u8> {
    serde_json::to_vec(&State { through, from: from.pack(), to }).unwrap_or_default()
}

/// The newest record up to a point that is left of each block is the one that the point reads.
fn again(place: &Path, at: Sequence, log: &Log, newest: &Index) -> Result<Index, StartError> {
    let mut index = Index::anew(place, newest.volume())?;
    super::super::compact::index_again(log, at, &mut index)?;
    let mut walk = log.reader().walk(Location::START);
    while let Some((header, location)) = walk.record().map_err(StoreError::from)? {
        if header.sequence <= at {
            index.apply(&header, location);
        }
    }
    index.checkpoint(&point_state(at))?;
    Ok(index)
}
