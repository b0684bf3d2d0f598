//! How copying flows: over which paths, how fast, and how initiators are slowed down before the journal is full.

use std::fmt;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use crate::limits::{HIGH_WATER_PERCENT, PACE_MAX, RATE_MAX, RATE_MIN};
use crate::units::{ByteLen, Millis};

pub mod bucket;
pub mod meter;

/// The order in which records travel (R9, R10).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transfer {
    /// One path, in order. Other paths stand by, and one takes over when it breaks.
    #[default]
    Ordered,
    /// In batches over every path, in any order; the secondary puts them in order.
    Scheduled,
}

/// Over what records go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Way {
    pub transfer: Transfer,
    /// Connections that the link should have: 1 to [`crate::limits::PATHS_MAX`].
    pub paths: u16,
}

/// Bytes a second, within [`RATE_MIN`] and [`RATE_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Rate(NonZeroU64);

/// Why a number cannot be a rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a rate is {least} to {most} bytes a second; got {0}", least = RATE_MIN.0, most = RATE_MAX.0)]
pub struct BadRate(pub u64);

/// How fast copying may be; none: as fast as it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Limits {
    /// Everything that goes over the pair's paths.
    pub link: Option<Rate>,
    /// What is read again because the dirty map owes it.
    pub resync: Option<Rate>,
    /// The same, for the first copy of a volume and for one that an operator asked for.
    pub initial_copy: Option<Rate>,
}

/// How initiators are slowed down before the journal is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pacing {
    /// Percent of the journal's limit above which answers to writes are delayed: 1 to 100.
    pub high_water_percent: u8,
    /// The delay of one write's answer when the journal is full; from high water up to there it grows evenly. Zero: never.
    pub pace_max: Millis,
}

/// How copying flows, as configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flow {
    pub way: Way,
    pub limits: Limits,
    pub pacing: Pacing,
}

/// What an operator chose while the pair ran, in place of what is configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Chosen {
    pub way: Option<Way>,
    pub limits: Option<Limits>,
}

impl Default for Way {
    fn default() -> Self {
        Self { transfer: Transfer::Ordered, paths: 1 }
    }
}

impl Default for Pacing {
    fn default() -> Self {
        Self { high_water_percent: HIGH_WATER_PERCENT, pace_max: PACE_MAX }
    }
}

impl Pacing {
    /// Above this many bytes of the journal initiators are slowed down.
    pub fn high_water(self, journal_max: ByteLen) -> ByteLen {
        let most = u128::from(journal_max.0) * u128::from(self.high_water_percent.min(100)) / 100;
        ByteLen(u64::try_from(most).unwrap_or(u64::MAX))
    }

    /// By how much the answer to a write is delayed, in microseconds.
    pub fn delay_us(self, used: ByteLen, journal_max: ByteLen) -> u64 {
        let high = self.high_water(journal_max);
        let (above, room) = (used.0.saturating_sub(high.0), journal_max.0.saturating_sub(high.0).max(1));
        let most = self.pace_max.0.saturating_mul(1_000);
        let delay = u128::from(most) * u128::from(above.min(room)) / u128::from(room);
        u64::try_from(delay).unwrap_or(most)
    }
}

impl Rate {
    pub fn new(bytes_a_second: u64) -> Result<Self, BadRate> {
        let rate = NonZeroU64::new(bytes_a_second).filter(|rate| (RATE_MIN.0..=RATE_MAX.0).contains(&rate.get()));
        rate.map(Self).ok_or(BadRate(bytes_a_second))
    }

    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl TryFrom<u64> for Rate {
    type Error = BadRate;

    fn try_from(bytes: u64) -> Result<Self, BadRate> {
        Self::new(bytes)
    }
}

impl From<Rate> for u64 {
    fn from(rate: Rate) -> Self {
        rate.get()
    }
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ordered => "ordered",
            Self::Scheduled => "scheduled",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initiators_are_slowed_from_high_water_on_and_never_by_more_than_is_configured() {
        let max = ByteLen(1_000);
        let pacing = |high_water_percent, ms| Pacing { high_water_percent, pace_max: Millis(ms) };
        for (pacing, used, delay_us) in [
            (pacing(80, 20), 0, 0),
            (pacing(80, 20), 800, 0),
            (pacing(80, 20), 850, 5_000),
            (pacing(80, 20), 900, 10_000),
            (pacing(80, 20), 1_000, 20_000),
            (pacing(80, 20), 5_000, 20_000),
            (pacing(80, 0), 5_000, 0),
            (pacing(100, 20), 1_000, 0),
            (pacing(100, 20), 1_001, 20_000),
            (pacing(1, 1_000), u64::MAX, 1_000_000),
        ] {
            assert_eq!(pacing.delay_us(ByteLen(used), max), delay_us, "{pacing:?} at {used}");
        }
    }

    #[test]
    fn a_rate_is_within_its_limits() {
        for (bytes, good) in
            [(0, false), (RATE_MIN.0 - 1, false), (RATE_MIN.0, true), (RATE_MAX.0, true), (RATE_MAX.0 + 1, false)]
        {
            assert_eq!(Rate::new(bytes).is_ok(), good, "{bytes}");
        }
    }
}
