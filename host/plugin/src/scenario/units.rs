//! How scenarios write spans, sizes, times and ranges, and how transcripts show them.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Milliseconds, written `1d2h`, `90s`, `500ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub u64);

/// Milliseconds forward or back, written `+10d` or `-2h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step(pub i64);

/// Bytes, written as a number or `40GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

/// Milliseconds since 1970, written `2026-01-01T00:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instant(pub u64);

/// A count that must be between two bounds, both allowed; a number alone is both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    min: u64,
    max: u64,
}

const SPANS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZES: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Range {
    /// Whether the count is within the bounds.
    #[must_use]
    pub const fn holds(&self, count: u64) -> bool {
        self.min <= count && count <= self.max
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (min, max) if min == max => write!(f, "{min}"),
            (min, u64::MAX) => write!(f, "{min} or more"),
            (min, max) => write!(f, "{min} to {max}"),
        }
    }
}

fn parse_span(text: &str) -> Option<u64> {
    let mut total = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at_checked(digits)?;
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit_end)?;
        let (_, scale) = SPANS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*scale)?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, scale) = SIZES.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

/// Days since 1970 of a date in the Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year < 1970 {
        return None;
    }
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let era = shifted_year / 400;
    let year_of_era = shifted_year % 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

fn parse_instant(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, by| text.split(by).map(|part: &str| part.parse().ok()).collect::<Option<Vec<u64>>>();
    let date = numbers(date, '-')?;
    let time = numbers(time, ':')?;
    let ([year, month, day], [hour, minute, second]) = (date.as_slice(), time.as_slice()) else { return None };
    let seconds = days(*year, *month, *day)?.checked_mul(86_400)? + hour * 3_600 + minute * 60 + second;
    (*hour < 24 && *minute < 60 && *second < 60 && *year < 10_000).then(|| seconds * 1_000)
}

macro_rules! text_form {
    ($name:ident, $parse:expr, $hint:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                $parse(text.as_str()).map($name).ok_or_else(|| D::Error::custom(format!("{text:?} is not {}", $hint)))
            }
        }
    };
}

text_form!(Span, parse_span, "a span such as 1h30m");
text_form!(Instant, parse_instant, "a time such as 2026-01-01T00:00:00Z");
text_form!(
    Step,
    |text: &str| {
        let (sign, span) =
            text.strip_prefix('-').map_or((1, text.strip_prefix('+').unwrap_or(text)), |rest| (-1, rest));
        parse_span(span).and_then(|span| i64::try_from(span).ok()).map(|span| span * sign)
    },
    "a step such as -2h"
);

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOr<T> {
    Number(u64),
    Other(T),
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match NumberOr::<String>::deserialize(deserializer)? {
            NumberOr::Number(bytes) => Ok(Self(bytes)),
            NumberOr::Other(text) => parse_size(&text)
                .map(Self)
                .ok_or_else(|| D::Error::custom(format!("{text:?} is not a size such as 40GiB"))),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bounds {
    min: Option<u64>,
    max: Option<u64>,
}

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match NumberOr::<Bounds>::deserialize(deserializer)? {
            NumberOr::Number(exactly) => Self { min: exactly, max: exactly },
            NumberOr::Other(bounds) => Self { min: bounds.min.unwrap_or(0), max: bounds.max.unwrap_or(u64::MAX) },
        })
    }
}

/// A time as scenarios write it, to the second.
#[must_use]
pub fn instant(ms: u64) -> String {
    let (day, rest) = (ms / 86_400_000, ms % 86_400_000 / 1_000);
    // The inverse of `days`, of the same source.
    let shifted = day + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

/// A span for people: `1d2h`, `500ms`, `0s`.
#[must_use]
pub fn span(ms: u64) -> String {
    let mut rest = ms;
    let mut text = String::new();
    for (name, scale) in SPANS.iter().skip(1) {
        let count = rest / scale;
        rest %= scale;
        if count > 0 {
            text.push_str(&format!("{count}{name}"));
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// A size for people: exact in the largest unit that fits, else with one decimal, rounded down.
#[must_use]
pub fn size(bytes: u64) -> String {
    let Some((name, scale)) = SIZES.iter().find(|(_, scale)| bytes >= *scale) else { return "0B".into() };
    let tenths = bytes % scale * 10 / scale;
    if tenths == 0 { format!("{}{name}", bytes / scale) } else { format!("{}.{tenths}{name}", bytes / scale) }
}

/// A place in the story: `+12d03:04:05`, with milliseconds when there are any.
#[must_use]
pub fn story_time(ms: u64) -> String {
    let (day, rest) = (ms / 86_400_000, ms % 86_400_000);
    let (hour, minute, second, milli) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1_000 % 60, rest % 1_000);
    let millis = if milli == 0 { String::new() } else { format!(".{milli:03}") };
    format!("+{day}d{hour:02}:{minute:02}:{second:02}{millis}")
}

/// A time by the node's clock, relative to the story's start; before it, with a minus.
#[must_use]
pub fn clock_time(start: u64, at: u64) -> String {
    match at.checked_sub(start) {
        Some(after) => story_time(after),
        None => format!("-{}", span(start - at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_sizes_and_times_are_read_and_shown() {
        for (text, ms) in [
            ("1h30m", Some(5_400_000)),
            ("500ms", Some(500)),
            ("2w", Some(1_209_600_000)),
            ("", None),
            ("1", None),
            ("h", None),
            ("1y", None),
        ] {
            assert_eq!(parse_span(text), ms, "{text}");
        }
        assert_eq!(parse_size("40GiB"), Some(40 << 30));
        assert_eq!(parse_size("40GB"), None);
        assert_eq!(parse_instant("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse_instant("2026-01-01T00:00:00Z"), Some(1_767_225_600_000));
        assert_eq!(parse_instant("2024-02-29T23:59:59Z"), Some(1_709_251_199_000));
        assert_eq!(parse_instant("2026-13-01T00:00:00Z"), None);
        for text in ["1970-01-01T00:00:00Z", "2024-02-29T23:59:59Z", "2000-12-31T00:00:01Z", "2026-11-29T15:04:05Z"] {
            assert_eq!(parse_instant(text).map(instant).as_deref(), Some(text));
        }
        assert_eq!((span(93_600_000), span(0), size(3 << 29)), ("1d2h".into(), "0s".into(), "1.5GiB".into()));
        assert_eq!(story_time(93_605_250), "+1d02:00:05.250");
    }
}
