//! Time and size as people write them: `90d`, `1h30m`, `64GiB`.

use std::fmt::{self, Display};
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z by the node's clock, which may step back or far ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Instant(u64);

/// A length of time in milliseconds; written as `250ms`, `15m`, `1h30m`, `90d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(u64);

/// A number of bytes; written as `512B`, `64GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Size(u64);

/// Largest first, as `Display` needs them.
const SPANS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZES: [(&str, u64); 6] =
    [("PiB", 1 << 50), ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Instant {
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }
}

impl Span {
    pub const ZERO: Self = Self(0);

    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// `None` when the text is not a span of time or does not fit in 64 bits of milliseconds.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        parse(text, &SPANS).map(Self)
    }

    /// So many times this span; the longest there is when that overflows.
    #[must_use]
    pub const fn times(self, factor: u64) -> Self {
        Self(self.0.saturating_mul(factor))
    }

    /// Somewhere from zero up to, but not including, this span, chosen by `entropy`. Zero for a zero span.
    #[must_use]
    pub const fn part(self, entropy: u64) -> Self {
        if self.0 == 0 { Self(0) } else { Self(entropy % self.0) }
    }
}

impl Size {
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub const fn as_bytes(self) -> u64 {
        self.0
    }

    /// `None` when the text is not a size or does not fit in 64 bits of bytes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        parse(text, &SIZES).map(Self)
    }

    /// So many times this size; the largest there is when that overflows.
    #[must_use]
    pub const fn times(self, factor: u64) -> Self {
        Self(self.0.saturating_mul(factor))
    }
}

/// Later by the span; the last instant there is when that overflows.
impl Add<Span> for Instant {
    type Output = Self;

    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

/// Earlier by the span; 1970 when that underflows.
impl Sub<Span> for Instant {
    type Output = Self;

    fn sub(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

/// From the earlier to the later; zero when `earlier` is the later one, as after a clock that stepped back.
impl Sub<Self> for Instant {
    type Output = Span;

    fn sub(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Self> for Span {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub<Self> for Span {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// The largest there is when that overflows.
impl Add<Self> for Size {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// Nothing when the other is larger.
impl Sub<Self> for Size {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without weeks: "90d" says more than "12w6d".
        write_parts(f, self.0, &SPANS[1..], "0s")
    }
}

impl Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_parts(f, self.0, &SIZES, "0B")
    }
}

/// Numbers with units, one after the other without gaps, each unit smaller than the one before.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let mut rest = text;
    let mut left = units;
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let place = left.iter().position(|(unit, _)| *unit == &rest[..end])?;
        total = total.checked_add(number.checked_mul(left[place].1)?)?;
        left = &left[place + 1..];
        rest = &rest[end..];
    }
    (!text.is_empty()).then_some(total)
}

fn write_parts(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)], zero: &str) -> fmt::Result {
    if value == 0 {
        return f.write_str(zero);
    }
    let mut rest = value;
    for (unit, worth) in units {
        if rest >= *worth {
            write!(f, "{}{unit}", rest / worth)?;
            rest %= worth;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_people_write_them() {
        for (text, millis) in
            [("0s", 0), ("250ms", 250), ("15m", 900_000), ("1h30m", 5_400_000), ("90d", 7_776_000_000)]
        {
            assert_eq!(Span::parse(text), Some(Span::from_millis(millis)), "{text}");
        }
        for wrong in
            ["", "h", "1", "1 h", "1x", "30m1h", "1h1h", "-1h", "99999999999999999999d", "99999999999999999w", "1é"]
        {
            assert_eq!(Span::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        assert_eq!(Size::parse("64GiB"), Some(Size::from_bytes(64 << 30)));
        assert_eq!(Size::parse("1MiB512KiB"), Some(Size::from_bytes(1536 << 10)));
        assert_eq!(Size::parse("64GB"), None);
    }

    #[test]
    fn what_is_printed_reads_back() {
        for millis in [0, 1, 999, 1_000, 61_001, 5_400_000, 7_776_000_000, u64::MAX] {
            let span = Span::from_millis(millis);
            assert_eq!(Span::parse(&span.to_string()), Some(span), "{span}");
            let size = Size::from_bytes(millis);
            assert_eq!(Size::parse(&size.to_string()), Some(size), "{size}");
        }
    }

    #[test]
    fn sizes_saturate_at_both_ends() {
        let gib = Size::from_bytes(1 << 30);
        assert_eq!(gib + gib, gib.times(2));
        assert_eq!(gib - gib.times(2), Size::default());
        assert_eq!(gib.times(u64::MAX) + gib, Size::from_bytes(u64::MAX));
    }

    #[test]
    fn time_saturates_at_both_ends() {
        let early = Instant::from_millis(5);
        assert_eq!(early - Span::from_millis(9), Instant::from_millis(0));
        assert_eq!(early - Instant::from_millis(9), Span::ZERO);
        assert_eq!(early + Span::from_millis(u64::MAX), Instant::from_millis(u64::MAX));
    }
}
