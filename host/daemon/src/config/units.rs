//! Sizes and durations as people write them: `64MiB`, `15m`. Exact both ways.

use farseal_core::flow::{BadRate, Rate};
use farseal_core::units::{ByteLen, Millis};

/// What a size may look like, for messages.
pub const SIZE_FORM: &str = "a whole number and one of B, KiB, MiB, GiB, TiB, as in 64MiB";
/// What a duration may look like, for messages.
pub const SPAN_FORM: &str = "a whole number and one of ms, s, m, h, d, as in 15m";

const SIZES: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const SPANS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Why a text is no size or duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// It does not begin with a whole number.
    #[error("there is no whole number before the unit")]
    NoNumber,
    /// There is nothing after the number.
    #[error("the unit is missing")]
    NoUnit,
    /// 1000 or 1024? Nobody has to guess.
    #[error("decimal units are not used here")]
    Decimal,
    /// Something else after the number.
    #[error("the unit is not known")]
    UnknownUnit,
    /// More than 64 bits hold.
    #[error("it is too large")]
    TooLarge,
}

/// Reads a size.
///
/// # Errors
/// [`UnitError`].
pub fn parse_size(text: &str) -> Result<ByteLen, UnitError> {
    let decimal = |unit: &str| matches!(unit, "KB" | "MB" | "GB" | "TB" | "kB" | "K" | "M" | "G" | "T" | "k");
    parse(text, &SIZES, decimal).map(ByteLen)
}

/// Reads a duration.
///
/// # Errors
/// [`UnitError`].
pub fn parse_span(text: &str) -> Result<Millis, UnitError> {
    parse(text, &SPANS, |_| false).map(Millis)
}

/// What a rate may look like, for messages.
pub const RATE_FORM: &str = "a size a second, as in 50MiB/s, of 64KiB/s to 1TiB/s; or none";

/// Why a text is no rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// It does not end in `/s`.
    #[error("`/s` is missing")]
    NoSecond,
    /// What stands before it.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// Outside of the host's limits.
    #[error(transparent)]
    Bad(#[from] BadRate),
}

/// Reads a rate; `none` is none.
///
/// # Errors
/// [`RateError`].
pub fn parse_rate(text: &str) -> Result<Option<Rate>, RateError> {
    if text.trim() == "none" {
        return Ok(None);
    }
    let size = text.trim().strip_suffix("/s").ok_or(RateError::NoSecond)?;
    Ok(Some(Rate::new(parse_size(size)?.0)?))
}

/// Writes a rate so that [`parse_rate`] reads the same one.
#[must_use]
pub fn rate_text(rate: Option<Rate>) -> String {
    rate.map_or_else(|| "none".to_owned(), |rate| format!("{}/s", size_text(ByteLen(rate.get()))))
}

/// Writes a size so that [`parse_size`] reads the same one: in the largest unit that divides it.
#[must_use]
pub fn size_text(size: ByteLen) -> String {
    text(size.0, &SIZES)
}

/// Writes a duration so that [`parse_span`] reads the same one: in the largest unit that divides it.
#[must_use]
pub fn span_text(span: Millis) -> String {
    text(span.0, &SPANS)
}

fn parse(text: &str, units: &[(&str, u64)], decimal: impl Fn(&str) -> bool) -> Result<u64, UnitError> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(UnitError::NoNumber);
    }
    let unit = unit.trim_start();
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(match unit {
            "" => UnitError::NoUnit,
            unit if decimal(unit) => UnitError::Decimal,
            _ => UnitError::UnknownUnit,
        });
    };
    let number: u64 = number.parse().map_err(|_| UnitError::TooLarge)?;
    number.checked_mul(*factor).ok_or(UnitError::TooLarge)
}

fn text(value: u64, units: &[(&str, u64)]) -> String {
    let fits = |(_, factor): &&(&str, u64)| value != 0 && value.is_multiple_of(*factor);
    let (name, factor) = units.iter().find(fits).copied().unwrap_or(units.last().copied().unwrap_or(("", 1)));
    format!("{}{name}", value / factor)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn sizes_are_binary_and_exact() {
        for (text, expected) in [
            ("0B", Ok(0)),
            ("64MiB", Ok(64 << 20)),
            ("4 GiB", Ok(4 << 30)),
            ("64", Err(UnitError::NoUnit)),
            ("64MB", Err(UnitError::Decimal)),
            ("64mib", Err(UnitError::UnknownUnit)),
            ("1.5GiB", Err(UnitError::UnknownUnit)),
            ("-1GiB", Err(UnitError::NoNumber)),
            ("99999999TiB", Err(UnitError::TooLarge)),
            ("99999999999999999999B", Err(UnitError::TooLarge)),
        ] {
            assert_eq!(parse_size(text).map(|size| size.0), expected, "{text}");
        }
    }

    #[test]
    fn rates_are_sizes_a_second_within_limits() {
        for (text, expected) in [("none", None), ("64KiB/s", Some(64 << 10)), (" 50MiB/s ", Some(50 << 20))] {
            let rate = parse_rate(text).unwrap();
            assert_eq!(rate.map(Rate::get), expected, "{text}");
            assert_eq!(rate_text(rate), text.trim());
        }
        for (text, wrong) in [
            ("50MiB", RateError::NoSecond),
            ("50MB/s", RateError::Unit(UnitError::Decimal)),
            ("1KiB/s", RateError::Bad(BadRate(1024))),
        ] {
            assert_eq!(parse_rate(text), Err(wrong), "{text}");
        }
    }

    #[test]
    fn durations_are_exact() {
        for (text, expected) in [
            ("100ms", Ok(100)),
            ("15m", Ok(900_000)),
            ("30d", Ok(2_592_000_000)),
            ("15min", Err(UnitError::UnknownUnit)),
        ] {
            assert_eq!(parse_span(text).map(|span| span.0), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_reads_back(value: u64) {
            proptest::prop_assert_eq!(parse_size(&size_text(ByteLen(value))), Ok(ByteLen(value)));
            proptest::prop_assert_eq!(parse_span(&span_text(Millis(value))), Ok(Millis(value)));
        }
    }
}
