//! The flow of a pair's copying at the primary: throttles, the journal's fill, and what a console shows of them.

use serde::Serialize;

use super::*;
use crate::flow::Pacing;
use crate::flow::bucket::Bucket;
use crate::flow::meter::Meter;
use crate::owed::CopyKind;
use crate::units::Millis;

/// What is in force, and what it has come to.
#[derive(Debug)]
pub(super) struct Flowing {
    way: Way,
    limits: Limits,
    pacing: Pacing,
    /// For everything that goes over the paths.
    link: Bucket,
    /// For what is read to be copied.
    copies: Bucket,
    /// What is appended to the journal.
    filling: Meter,
    /// What the dirty map no longer owes.
    copied: Meter,
    is_high: bool,
    high_waters: u64,
    overflows: u64,
}

/// What a console shows of the flow.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FlowStatus {
    pub way: Way,
    /// The path that carries records, or did last; where the transfer is ordered, the others stand by.
    pub carrier: Option<Path>,
    pub limits: Limits,
    pub journal: JournalFill,
    /// What the dirty map owes, where there is one.
    pub copy: Option<CopyProgress>,
}

/// How full the journal is, and for how long it lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct JournalFill {
    pub used: ByteLen,
    pub max: ByteLen,
    /// Above it initiators are slowed down.
    pub high_water: ByteLen,
    /// Bytes a second that are written, smoothed.
    pub fill_rate: ByteLen,
    /// How long it takes at this rate until the journal is full, if the secondary takes nothing. None where nothing is written.
    pub time_left: Option<Millis>,
    /// By how much a write's answer is delayed now, in microseconds.
    pub pace_us: u64,
    /// How often it rose above high water, and how often it overflowed into the dirty map, since the start.
    pub high_waters: u64,
    pub overflows: u64,
}

/// How far the dirty map is worked off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct CopyProgress {
    pub kind: CopyKind,
    /// What it owed altogether since it came into being, in whole granules.
    pub total: ByteLen,
    pub done: ByteLen,
    /// Bytes a second, smoothed.
    pub rate: ByteLen,
    /// Until nothing is owed, at this rate. None while nothing is copied.
    pub time_left: Option<Millis>,
}

impl Flowing {
    pub(super) fn new(now: Instant, configured: Flow, chosen: Chosen) -> Self {
        let limits = chosen.limits.unwrap_or(configured.limits);
        Self {
            way: chosen.way.unwrap_or(configured.way),
            limits,
            pacing: configured.pacing,
            link: Bucket::new(now, limits.link),
            copies: Bucket::new(now, limits.resync),
            filling: Meter::new(now),
            copied: Meter::new(now),
            is_high: false,
            high_waters: 0,
            overflows: 0,
        }
    }

    pub(super) fn way(&self) -> Way {
        self.way
    }

    pub(super) fn may_send(&mut self, now: Now) -> bool {
        self.link.is_ready(now.instant)
    }

    pub(super) fn sends(&mut self, bytes: ByteLen) {
        self.link.take(bytes);
    }

    /// The throttle of this kind of copy is the one that counts.
    pub(super) fn copy_as(&mut self, now: Now, kind: CopyKind) {
        let rate = match kind {
            CopyKind::Initial => self.limits.initial_copy,
            CopyKind::Resync => self.limits.resync,
        };
        self.copies.set_rate(now.instant, rate);
    }

    pub(super) fn may_copy(&mut self, now: Now) -> bool {
        self.copies.is_ready(now.instant)
    }

    pub(super) fn copies(&mut self, bytes: ByteLen) {
        self.copies.take(bytes);
    }

    /// What was to be copied turned out to be zeroes.
    pub(super) fn copies_nothing(&mut self, bytes: ByteLen) {
        self.copies.give_back(bytes);
    }

    pub(super) fn copied(&mut self, now: Now, granules: u64) {
        self.copied.add(now.instant, granules.saturating_mul(OWED_GRANULE_BYTES.0));
    }

    pub(super) fn filled(&mut self, now: Now, bytes: ByteLen) {
        self.filling.add(now.instant, bytes.0);
    }

    pub(super) fn overflowed(&mut self) {
        self.overflows += 1;
    }

    pub(super) fn timeouts(&self) -> impl Iterator<Item = (Instant, &'static str)> {
        let link = self.link.ready_at().map(|at| (at, "send within the throttle"));
        let copies = self.copies.ready_at().map(|at| (at, "copy within the throttle"));
        link.into_iter().chain(copies)
    }
}

impl Primary {
    /// The numbers of the flow, as of now.
    pub fn flow(&self, now: Now) -> FlowStatus {
        let (flow, max) = (&self.flow, self.settings.journal_bytes_max);
        let owed = self.copying.owed().byte_len(self.settings.block_bytes);
        let progress = self.copying.map().and_then(OwedMap::progress);
        let journal = JournalFill {
            used: self.journal_bytes,
            max,
            high_water: flow.pacing.high_water(max),
            fill_rate: ByteLen(flow.filling.per_second(now.instant)),
            time_left: flow.filling.time_for(now.instant, max.0.saturating_sub(self.journal_bytes.0)),
            pace_us: self.pace_us(),
            high_waters: flow.high_waters,
            overflows: flow.overflows,
        };
        let copy = progress.map(|(kind, total, done)| CopyProgress {
            kind,
            total,
            done,
            rate: ByteLen(flow.copied.per_second(now.instant)),
            time_left: flow.copied.time_for(now.instant, owed.0),
        });
        FlowStatus { way: flow.way, carrier: self.transfer.current(), limits: flow.limits, journal, copy }
    }

    /// It is the secondary that keeps records in the journal: home has what the secondary lacks.
    fn secondary_is_waited_for(&self) -> bool {
        self.settings.paired && self.copying.sends() && self.transfer.acked() < self.homed
    }

    /// By how much the driver delays the answer to an initiator's write, in microseconds: only above high water, and only
    /// while it is the secondary that the journal waits for. Behind, the dirty map makes room, and nobody is slowed.
    pub fn pace_us(&self) -> u64 {
        if !self.secondary_is_waited_for() {
            return 0;
        }
        self.flow.pacing.delay_us(self.journal_bytes, self.settings.journal_bytes_max)
    }

    /// What is on its way stays there; what is sent from now on goes as asked. Paths beyond the wanted ones are closed.
    pub(super) fn set_way(&mut self, way: Way) {
        if self.flow.way == way {
            return;
        }
        self.flow.way = way;
        for path in self.transfer.paths_beyond(way.paths) {
            self.transfer.path_lost(path);
            self.outputs.push_back(Output::ClosePath { path });
        }
        self.outputs.push_back(Output::PersistWay { way });
    }

    pub(super) fn set_limits(&mut self, now: Now, limits: Limits) {
        if self.flow.limits != limits {
            self.flow.limits = limits;
            self.flow.link.set_rate(now.instant, limits.link);
            self.outputs.push_back(Output::PersistLimits { limits });
        }
    }

    /// Tells the operator once each time that the journal rises above high water.
    pub(super) fn run_high_water(&mut self, now: Now) {
        let high = self.flow.pacing.high_water(self.settings.journal_bytes_max);
        if self.secondary_is_waited_for() && self.journal_bytes > high && !self.flow.is_high {
            self.flow.is_high = true;
            self.flow.high_waters += 1;
            self.alarm(now, Alarm::HighWater);
        }
        // A little below, so that a journal that stands at the mark is one event.
        if self.journal_bytes.0 < high.0 - high.0 / 16 {
            self.flow.is_high = false;
        }
    }
}
