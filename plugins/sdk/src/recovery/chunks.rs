//! How far the background is: chunks in ascending order, but those around recent reads first, and after them those that the strategy prefers
//!
//! Everything is bounded. What falls out of a bound is opened again in its turn, which costs little: the host skips
//! blocks that are open.

use serde::{Deserialize, Serialize};

use super::Extent;
use crate::{Instant, Span};

/// Chunks around recent reads that wait; the oldest fall out.
const MOST_NEAR: usize = 16;
/// Chunks opened out of order that are remembered; the furthest fall out.
const MOST_AHEAD: usize = 2048;
/// Chunks that a strategy prefers and that wait; the last fall out.
const MOST_PREFERRED: usize = 1024;

/// The host clamps wake-ups that are closer than this.
const NEAREST_WAKE: Span = Span::from_millis(1_000);

/// Numbers are chunks, counted from the volume's start.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Chunks {
    /// Blocks in a chunk.
    chunk: u32,
    volume_blocks: u64,
    /// All chunks before this one are opened or being opened.
    frontier: u64,
    /// Being opened.
    opening: Vec<u64>,
    /// Around recent reads, the newest last.
    near: Vec<u64>,
    /// Preferred by the strategy, the next one last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    preferred: Vec<u64>,
    /// Opened or being opened, behind the frontier; ascending.
    ahead: Vec<u64>,
    /// With a rate: when the next chunk may be opened.
    not_before: Instant,
}

/// What to do next.
pub(super) enum Next {
    Open(Extent, &'static str),
    WaitUntil(Instant),
    WaitForSwept,
    Finished,
}

impl Chunks {
    /// The beginning, or a restart: what was being opened then is opened again.
    pub(super) fn begin(&mut self, chunk: u32, volume_blocks: u64) {
        if (self.chunk, self.volume_blocks) != (chunk, volume_blocks) {
            *self = Self { chunk, volume_blocks, ..Self::default() };
        }
        let interrupted = std::mem::take(&mut self.opening);
        self.ahead.retain(|chunk| !interrupted.contains(chunk));
        self.frontier = interrupted.into_iter().fold(self.frontier, u64::min);
    }

    pub(super) fn swept(&mut self, extent: Extent) {
        if let Some(chunk) = extent.first.checked_div(u64::from(self.chunk)) {
            self.opening.retain(|opening| *opening != chunk);
        }
    }

    /// The chunk of a read comes next, and the one after it behind that.
    pub(super) fn accessed(&mut self, extent: Extent) {
        let last = extent.first.saturating_add(extent.blocks.saturating_sub(1));
        let Some(chunk) = last.checked_div(u64::from(self.chunk)) else { return };
        for near in [chunk.saturating_add(1), chunk] {
            self.near.retain(|other| *other != near);
            if !self.is_taken(near) {
                self.near.push(near);
            }
        }
        let surplus = self.near.len().saturating_sub(MOST_NEAR);
        self.near.drain(..surplus);
    }

    /// These come first, in this order, and only the parts of the volume that they lie in.
    pub(super) fn prefer(&mut self, extents: impl Iterator<Item = Extent>) {
        let mut wanted: Vec<u64> = Vec::new();
        for extent in extents {
            let Some(first) = extent.first.checked_div(u64::from(self.chunk)) else { continue };
            let end = extent.first.saturating_add(extent.blocks).div_ceil(u64::from(self.chunk).max(1));
            for chunk in first..end.min(self.chunks()) {
                if wanted.len() == MOST_PREFERRED {
                    break;
                }
                if !self.is_taken(chunk) && !wanted.contains(&chunk) {
                    wanted.push(chunk);
                }
            }
        }
        wanted.reverse();
        self.preferred = wanted;
    }

    /// `rate` is in blocks a second, 0 for none.
    pub(super) fn next(&mut self, now: Instant, rate: u64, at_once: u32) -> Next {
        while let Some(near) = self.near.last().copied()
            && self.is_taken(near)
        {
            self.near.pop();
        }
        while let Some(preferred) = self.preferred.last().copied()
            && self.is_taken(preferred)
        {
            self.preferred.pop();
        }
        self.pass_over_ahead();
        let (chunk, why) = match (self.near.last(), self.preferred.last()) {
            (Some(near), _) => (*near, "close to a recent read"),
            (None, Some(preferred)) => (*preferred, "written last of what is not open"),
            (None, None) if self.frontier < self.chunks() => (self.frontier, "next in order"),
            (None, None) if self.opening.is_empty() => return Next::Finished,
            (None, None) => return Next::WaitForSwept,
        };
        if self.opening.len() >= usize::try_from(at_once).unwrap_or(usize::MAX) {
            return Next::WaitForSwept;
        }
        if let Some(pace) = u64::from(self.chunk).saturating_mul(1_000).checked_div(rate).map(Span::from_millis) {
            // Never further ahead than one pace, even if the clock stepped back; kept, or the wait would begin anew each time.
            self.not_before = self.not_before.min(now + pace);
            if now < self.not_before {
                return Next::WaitUntil(self.not_before.max(now + NEAREST_WAKE));
            }
            // What the last second left unused is caught up, as nobody is woken more often.
            self.not_before = self.not_before.max(now - NEAREST_WAKE) + pace;
        }
        self.take(chunk);
        Next::Open(self.extent(chunk), why)
    }

    fn take(&mut self, chunk: u64) {
        self.near.retain(|near| *near != chunk);
        self.opening.push(chunk);
        if chunk == self.frontier {
            self.frontier += 1;
        } else if let Err(place) = self.ahead.binary_search(&chunk) {
            self.ahead.insert(place, chunk);
            self.ahead.truncate(MOST_AHEAD);
        }
    }

    fn pass_over_ahead(&mut self) {
        while let Some(first) = self.ahead.first().copied()
            && first <= self.frontier
        {
            self.ahead.remove(0);
            self.frontier = self.frontier.max(first + 1);
        }
    }

    /// Opened, being opened, or behind the volume's end.
    fn is_taken(&self, chunk: u64) -> bool {
        chunk < self.frontier
            || chunk >= self.chunks()
            || self.opening.contains(&chunk)
            || self.ahead.binary_search(&chunk).is_ok()
    }

    fn chunks(&self) -> u64 {
        if self.chunk == 0 { 0 } else { self.volume_blocks.div_ceil(u64::from(self.chunk)) }
    }

    fn extent(&self, chunk: u64) -> Extent {
        let first = chunk.saturating_mul(u64::from(self.chunk));
        Extent { first, blocks: u64::from(self.chunk).min(self.volume_blocks.saturating_sub(first)) }
    }
}
