//! Which points of the copy can be gone back to: a window of time behind the newest one, and points that an operator pinned.
//!
//! Every record at which the copy was a state of the volume is a point; none is between the record before a gap and the cut
//! that closes it. A block's version is needed by the points from its own record on, up to the one before the record that
//! superseded it ([`crate::compaction::is_needed`]). So the window is one number, the *oldest* point in it: what is younger
//! is kept as it came. *Moments* say when the copy offered what, so that the oldest point can follow the time.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::group::{CutName, NamedCut};
use crate::limits::{HOLES_MAX, MOMENT_BYTES, MOMENT_SPAN_MIN, MOMENTS_IN_WINDOW, MOMENTS_MAX, PINS_MAX};
use crate::units::{ByteLen, CutNumber, Millis, Sequence, WallTime};

/// How long points stay that nobody pinned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// By this site's clock, from when a record was offered.
    pub span: Millis,
    /// What the log may take for it at most; the oldest go first.
    pub size: Option<ByteLen>,
}

/// What was offered when.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Moment {
    pub sequence: Sequence,
    /// By this site's clock.
    pub at: WallTime,
    /// When the writing site gave the newest durable record its place.
    pub made: WallTime,
    /// A place in the log, as the driver counts: no record after `sequence` lies before it.
    pub from: u64,
    /// No record up to `sequence` lies behind it.
    pub end: u64,
}

/// The copy was no state of the volume at the records between these two.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hole {
    /// The last point before the gap.
    pub after: Sequence,
    /// The cut that closed it: the next point.
    pub until: Sequence,
}

/// A point that stays until an operator lets it go.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pin {
    pub name: CutName,
    pub sequence: Sequence,
    /// When it was pinned.
    pub at: WallTime,
}

/// Why the window is shorter than it was to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    #[error("the disk was full")]
    NoRoom,
    #[error("it would take more room than retention-size allows")]
    Size,
    #[error("keys that it needed were retired")]
    KeysRetired,
}

/// The window gave way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shortened {
    pub why: Why,
    pub at: WallTime,
}

/// What a copy keeps beside its newest state.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Points {
    oldest: Sequence,
    moments: VecDeque<Moment>,
    pins: Vec<Pin>,
    shortened: Option<Shortened>,
}

/// What an operator asks for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asked {
    Newest,
    Sequence(Sequence),
    /// By the writing site's clock: the newest point at or before it.
    Time(WallTime),
    /// A cut, or a pin.
    Named(CutName),
}

/// What is known when somebody asks.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    pub points: &'a Points,
    /// Only what is offered and what is pinned is kept.
    pub window: bool,
    pub holes: &'a [Hole],
    pub cuts: &'a [NamedCut],
    /// The copy's history begins behind this record.
    pub begins: Sequence,
    /// What is offered, and when that was made.
    pub newest: Sequence,
    pub made: WallTime,
}

/// Which point is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    Point(Sequence),
    /// The last record of this time behind `after` and up to `until`: the log's records say which that is.
    Within {
        time: WallTime,
        after: Sequence,
        until: Sequence,
        from: u64,
        end: Option<u64>,
    },
}

/// Why there is no such point.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PointError {
    #[error("record {asked} is not kept any more: the oldest point is record {oldest}{}", also(pins))]
    Gone { asked: Sequence, oldest: Sequence, pins: Vec<Pin> },
    #[error("record {asked} is not here yet: the newest point is record {newest}")]
    Future { asked: Sequence, newest: Sequence },
    #[error(
        "at record {asked} the copy was catching up and no state of the volume: the nearest points are records {before} \
         and {after}"
    )]
    CatchingUp { asked: Sequence, before: Sequence, after: Sequence },
    #[error(
        "record {asked} is of an earlier history: this copy begins behind record {begins}, and its oldest point is record {oldest}"
    )]
    OtherHistory { asked: Sequence, begins: Sequence, oldest: Sequence },
    #[error("that time is before every point: the oldest is record {oldest}{}", also(pins))]
    BeforeAll { oldest: Sequence, pins: Vec<Pin> },
    #[error("no cut or pin is called {name}{}", nearest(known))]
    Unknown { name: CutName, known: Vec<CutName> },
    #[error("no cut is called {name}{}", nearest(known))]
    NoSuchCut { name: CutName, known: Vec<CutName> },
    #[error("this copy does not hold the cut {name}: it was behind when the cut was made")]
    NotHeld { name: CutName },
}

/// Why a point is not pinned.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PinError {
    #[error("a pin is called {0} already: let it go first, or choose another name")]
    Taken(CutName),
    #[error("there are {PINS_MAX} pins, and each keeps an index of the volume: let one go first")]
    TooMany,
}

impl Points {
    /// Nothing before `first` can be gone back to.
    pub fn beginning(first: Moment) -> Self {
        Self { oldest: first.sequence, moments: VecDeque::from([first]), ..Self::default() }
    }

    /// Begins the window anew; pins stay.
    pub fn begin_again(&mut self, first: Moment) {
        let pins = std::mem::take(&mut self.pins);
        *self = Self { pins, ..Self::beginning(first) };
    }

    /// The oldest point of the window.
    pub fn oldest(&self) -> Sequence {
        self.oldest
    }

    pub fn moments(&self) -> &VecDeque<Moment> {
        &self.moments
    }

    pub fn pins(&self) -> &[Pin] {
        &self.pins
    }

    pub fn shortened(&self) -> Option<Shortened> {
        self.shortened
    }

    /// Is it time to note what is offered? `room` says what the log takes behind a moment: a window gives way from moment to
    /// moment, so that one that grows fast has many.
    pub fn wants_moment(
        &self,
        terms: &Terms,
        offered: Sequence,
        now: WallTime,
        room: impl Fn(&Moment) -> ByteLen,
    ) -> bool {
        let grain = Millis((terms.span.0 / MOMENTS_IN_WINDOW).max(MOMENT_SPAN_MIN.0));
        let is_due = |last: &Moment| now.since(last.at) >= grain || room(last) >= MOMENT_BYTES;
        self.moments.back().is_none_or(|last| last.sequence < offered && is_due(last))
    }

    /// What is offered now; a later moment is of a later record.
    pub fn note(&mut self, moment: Moment) {
        if self.moments.back().is_some_and(|last| last.sequence >= moment.sequence) {
            return;
        }
        self.moments.push_back(moment);
        if self.moments.len() > MOMENTS_MAX {
            let (mut at, last) = (0, self.moments.len() - 1);
            self.moments.retain(|_| {
                at += 1;
                at == 1 || at > last || at % 2 == 0
            });
        }
    }

    /// What the oldest point is to be now, if it is another: the window's age, or its room, is used up. `room` says what the
    /// log takes behind a moment.
    pub fn due(
        &self,
        terms: &Terms,
        now: WallTime,
        room: impl Fn(&Moment) -> ByteLen,
    ) -> Option<(Moment, Option<Why>)> {
        let aged = self.moments.iter().rev().find(|moment| now.since(moment.at) >= terms.span);
        let fits = |size: ByteLen| self.moments.iter().find(|moment| room(moment) <= size).or(self.moments.back());
        let fitting = terms.size.and_then(fits);
        let by_age = aged.filter(|moment| moment.sequence > self.oldest);
        let by_size = fitting.filter(|moment| moment.sequence > self.oldest);
        match (by_age, by_size) {
            (Some(age), Some(size)) if size.sequence > age.sequence => Some((*size, Some(Why::Size))),
            (Some(age), _) => Some((*age, None)),
            (None, size) => size.map(|size| (*size, Some(Why::Size))),
        }
    }

    /// What the oldest point is to be so that the log can shrink: the first moment that frees any room. The newest point stays.
    pub fn gives_way(&self, frees: impl Fn(&Moment) -> bool) -> Option<Moment> {
        let mut later = self.moments.iter().filter(|moment| moment.sequence > self.oldest);
        later
            .find(|moment| frees(moment))
            .or(self.moments.back())
            .filter(|moment| moment.sequence > self.oldest)
            .copied()
    }

    /// Nothing before this moment is a point of the window any more.
    pub fn advance(&mut self, to: &Moment, why: Option<Why>, now: WallTime) {
        self.oldest = self.oldest.max(to.sequence);
        self.moments.retain(|moment| moment.sequence >= self.oldest);
        match (why, self.shortened) {
            (Some(why), _) => self.shortened = Some(Shortened { why, at: now }),
            // It is as long as it was to be again.
            (None, Some(_)) => self.shortened = None,
            (None, None) => {}
        }
    }

    /// May a point be pinned under this name?
    pub fn may_pin(&self, name: &CutName) -> Result<(), PinError> {
        if self.pins.iter().any(|pin| pin.name == *name) {
            return Err(PinError::Taken(name.clone()));
        }
        if self.pins.len() >= PINS_MAX { Err(PinError::TooMany) } else { Ok(()) }
    }

    pub fn pin(&mut self, pin: Pin) {
        self.pins.push(pin);
        self.pins.sort_by_key(|pin| pin.sequence);
    }

    /// Says whether there was one.
    pub fn unpin(&mut self, name: &CutName) -> bool {
        let before = self.pins.len();
        self.pins.retain(|pin| pin.name != *name);
        self.pins.len() < before
    }

    /// Between which places of the log lie the records behind `after`, up to `through`? The end: `None` for the log's.
    pub fn end_of(&self, through: Sequence) -> Option<u64> {
        self.moments.iter().find(|moment| moment.sequence >= through).map(|moment| moment.end)
    }
}

impl Known<'_> {
    /// Which point is meant, or why there is none.
    pub fn find(&self, asked: &Asked) -> Result<Found, PointError> {
        match asked {
            Asked::Newest => Ok(Found::Point(self.newest)),
            Asked::Sequence(sequence) => self.point(*sequence).map(Found::Point),
            Asked::Named(name) => self.named(name).map(Found::Point),
            Asked::Time(time) => self.at(*time),
        }
    }

    /// The oldest point that is kept, pinned or not.
    pub fn oldest(&self) -> Sequence {
        if self.window { self.points.oldest.min(self.newest) } else { self.newest }
    }

    /// Is it a point that can be gone back to?
    pub fn point(&self, asked: Sequence) -> Result<Sequence, PointError> {
        let pinned = self.points.pins.iter().any(|pin| pin.sequence == asked);
        let oldest = self.oldest();
        if asked > self.newest {
            return Err(PointError::Future { asked, newest: self.newest });
        }
        if pinned || asked == self.newest {
            return Ok(asked);
        }
        if asked < self.begins {
            return Err(PointError::OtherHistory { asked, begins: self.begins, oldest });
        }
        if asked < oldest {
            return Err(PointError::Gone { asked, oldest, pins: self.points.pins.clone() });
        }
        match self.hole_of(asked) {
            Some(hole) => Err(PointError::CatchingUp { asked, before: hole.after, after: hole.until }),
            None => Ok(asked),
        }
    }

    fn hole_of(&self, asked: Sequence) -> Option<&Hole> {
        self.holes.iter().find(|hole| hole.after < asked && asked < hole.until)
    }

    fn named(&self, name: &CutName) -> Result<Sequence, PointError> {
        if let Some(pin) = self.points.pins.iter().find(|pin| pin.name == *name) {
            return Ok(pin.sequence);
        }
        match self.cut(name) {
            Err(PointError::NoSuchCut { name, mut known }) => {
                known.extend(self.points.pins.iter().map(|pin| pin.name.clone()));
                Err(PointError::Unknown { name, known })
            }
            found => found.map(|(_, sequence)| sequence),
        }
    }

    /// The newest cut of this name: its number, which all pairs of its group share, and its record here. No pin is meant.
    pub fn cut(&self, name: &CutName) -> Result<(CutNumber, Sequence), PointError> {
        // A name may have been given again.
        let Some(cut) = self.cuts.iter().rev().find(|cut| cut.name == *name) else {
            let known = self.cuts.iter().map(|cut| cut.name.clone()).collect();
            return Err(PointError::NoSuchCut { name: name.clone(), known });
        };
        let sequence = cut.sequence.ok_or_else(|| PointError::NotHeld { name: name.clone() })?;
        Ok((cut.cut, self.point(sequence)?))
    }

    fn at(&self, time: WallTime) -> Result<Found, PointError> {
        if time >= self.made {
            return Ok(Found::Point(self.newest));
        }
        let before_all = || PointError::BeforeAll { oldest: self.oldest(), pins: self.points.pins.clone() };
        if !self.window {
            return Err(before_all());
        }
        let moments = &self.points.moments;
        let at = moments.iter().rposition(|moment| moment.made <= time).ok_or_else(before_all)?;
        let (Some(first), next) = (moments.get(at), moments.get(at + 1)) else { return Err(before_all()) };
        let until = next.map_or(self.newest, |next| next.sequence);
        Ok(Found::Within { time, after: first.sequence, until, from: first.from, end: next.map(|next| next.end) })
    }

    /// The point that a search by time found: where the copy was catching up, the one before.
    pub fn at_or_before(&self, sequence: Sequence) -> Sequence {
        self.hole_of(sequence).map_or(sequence, |hole| hole.after).max(self.oldest())
    }
}

/// A gap was closed. Holes that are too many become one: fewer points, and none that is wrong.
pub fn add_hole(holes: &mut Vec<Hole>, hole: Hole) {
    match holes.last_mut() {
        // The same, heard again.
        Some(last) if last.until >= hole.until => {}
        _ => holes.push(hole),
    }
    if holes.len() > HOLES_MAX
        && let [first, second, ..] = holes.as_mut_slice()
    {
        first.until = second.until;
        holes.remove(1);
    }
}

fn also(pins: &[Pin]) -> String {
    let named: Vec<String> = pins.iter().map(|pin| format!("{} (record {})", pin.name, pin.sequence)).collect();
    if named.is_empty() { String::new() } else { format!("; pinned: {}", named.join(", ")) }
}

fn nearest(known: &[CutName]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in known.iter().rev().map(CutName::as_str) {
        if !names.contains(&name) && names.len() < 5 {
            names.push(name);
        }
    }
    if names.is_empty() { "; there are none".into() } else { format!("; the newest are {}", names.join(", ")) }
}

#[cfg(test)]
mod tests;
