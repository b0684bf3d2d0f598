//! Days of the year on which something is due, in UTC (proleptic Gregorian calendar).

use farseal_sdk::Instant;

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
/// Days from 0000-03-01 to 1970-01-01; years are counted from March, so that the leap day is the last.
const EPOCH: u64 = 719_468;
/// Days in 400 years.
const CYCLE: u64 = 146_097;

/// A day and hour in some months of the year.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Calendar {
    /// January first; at least one.
    pub(crate) months: [bool; 12],
    pub(crate) day: u32,
    pub(crate) hour: u32,
}

impl Calendar {
    /// The first such moment after this one; the end of time if there is none that 64 bits can say.
    pub(crate) fn next_after(&self, instant: Instant) -> Instant {
        let (year, month, _) = civil(instant);
        // A month in the calendar comes within a year, or this month's is over.
        let months = (0..=12).map(|ahead| {
            let ordinal = month - 1 + ahead;
            (year.saturating_add(ordinal / 12), ordinal % 12 + 1)
        });
        let moments = months.filter(|(_, month)| self.has(*month)).map(|(year, month)| {
            let days = days_before(year, month, u64::from(self.day));
            Instant::from_millis(days.saturating_mul(DAY).saturating_add(u64::from(self.hour) * HOUR))
        });
        moments.into_iter().find(|moment| *moment > instant).unwrap_or(Instant::from_millis(u64::MAX))
    }

    fn has(&self, month: u64) -> bool {
        usize::try_from(month - 1).ok().and_then(|place| self.months.get(place)).copied().unwrap_or(false)
    }
}

/// `1 4 7 10`; `None` where a word is no month, or there is none.
pub(crate) fn months(text: &str) -> Option<[bool; 12]> {
    let mut months = [false; 12];
    for word in text.split_whitespace() {
        let month: usize = word.parse().ok()?;
        *months.get_mut(month.checked_sub(1)?)? = true;
    }
    months.contains(&true).then_some(months)
}

/// `2026-04-01 02:00 UTC`.
pub(crate) fn date(instant: Instant) -> String {
    let (year, month, day) = civil(instant);
    let minutes = instant.as_millis() % DAY / 60_000;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

/// Year, month and day.
const fn civil(instant: Instant) -> (u64, u64, u64) {
    let days = instant.as_millis() / DAY + EPOCH;
    let (cycle, of_cycle) = (days / CYCLE, days % CYCLE);
    let year_of_cycle = (of_cycle - of_cycle / 1_460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = cycle * 400 + year_of_cycle + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

/// Days from 1970-01-01 to this day; 0 for what lies before.
const fn days_before(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year.saturating_sub(1) } else { year };
    let (cycle, year_of_cycle) = (year / 400, year % 400);
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * from_march + 2) / 5 + day.saturating_sub(1);
    let of_cycle = year_of_cycle * 365 + year_of_cycle / 4 - year_of_cycle / 100 + of_year;
    (cycle * CYCLE + of_cycle).saturating_sub(EPOCH)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn at(year: u64, month: u64, day: u64, hour: u64) -> Instant {
        Instant::from_millis(days_before(year, month, day) * DAY + hour * HOUR)
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (20_454, (2026, 1, 1)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil(Instant::from_millis(days * DAY + 1)), expected);
            assert_eq!(days_before(expected.0, expected.1, expected.2), days);
        }
    }

    #[test]
    fn the_next_quarter_comes_after_this_one() {
        let quarters = Calendar { months: months("1 4 7 10").unwrap(), day: 1, hour: 2 };
        assert_eq!(quarters.next_after(at(2026, 1, 1, 1)), at(2026, 1, 1, 2));
        assert_eq!(quarters.next_after(at(2026, 1, 1, 2)), at(2026, 4, 1, 2), "not the same one again");
        assert_eq!(quarters.next_after(at(2026, 11, 30, 0)), at(2027, 1, 1, 2));
        let yearly = Calendar { months: months("2").unwrap(), day: 28, hour: 0 };
        assert_eq!(yearly.next_after(at(2026, 2, 28, 0)), at(2027, 2, 28, 0));
        assert_eq!(date(at(2026, 4, 1, 2)), "2026-04-01 02:00 UTC");
    }

    #[test]
    fn the_end_of_time_is_survived() {
        let monthly = Calendar { months: [true; 12], day: 1, hour: 0 };
        let end = Instant::from_millis(u64::MAX);
        assert_eq!(monthly.next_after(end), end);
    }
}
