//! A window that opens at the same time of the same weekdays, in UTC.

use farseal_sdk::{Instant, Span};

const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Times are minutes of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// On which days it opens, Monday first; at least one.
    pub(crate) days: [bool; 7],
    pub(crate) opens: u64,
    pub(crate) closes: u64,
}

impl Window {
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        let day = now.as_millis() / DAY;
        // The one of today, or the one of yesterday that has not closed.
        [Some(day), day.checked_sub(1)].into_iter().flatten().any(|day| {
            let opening = self.opening_on(day);
            opening.is_some_and(|opening| opening <= now && now < opening + self.length())
        })
    }

    /// This moment if it is open, else when it opens next.
    pub(crate) fn opening(&self, now: Instant) -> Instant {
        if self.is_open(now) {
            return now;
        }
        let day = now.as_millis() / DAY;
        let coming = (day..=day.saturating_add(7)).filter_map(|day| self.opening_on(day));
        coming.into_iter().find(|opening| *opening >= now).unwrap_or(Instant::from_millis(u64::MAX))
    }

    fn opening_on(&self, day: u64) -> Option<Instant> {
        // 1970-01-01 was a Thursday.
        let weekday = usize::try_from((day + 3) % 7).unwrap_or(0);
        let start = day.saturating_mul(DAY).saturating_add(self.opens * MINUTE);
        self.days.get(weekday).copied().unwrap_or(false).then_some(Instant::from_millis(start))
    }

    const fn length(&self) -> Span {
        let minutes =
            if self.closes > self.opens { self.closes - self.opens } else { DAY / MINUTE + self.closes - self.opens };
        Span::from_millis(minutes * MINUTE)
    }
}

/// `22:00`, as minutes of a day.
pub(crate) fn minutes(text: &str) -> Option<u64> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str, most: u64| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>().ok().filter(|number| digits && *number <= most)
    };
    Some(number(hours, 23)? * 60 + number(minutes, 59)?)
}

/// `sat sun`, Monday first.
///
/// # Errors
/// The first word that is no day; nothing, if there is none at all.
pub(crate) fn days(text: &str) -> Result<[bool; 7], String> {
    let mut days = [false; 7];
    for word in text.split_whitespace() {
        let place = DAYS.iter().position(|day| *day == word).ok_or_else(|| word.to_owned())?;
        days[place] = true;
    }
    if days.contains(&true) { Ok(days) } else { Err(String::new()) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// 2026-01-01T00:00:00Z, a Thursday.
    const NEW_YEAR: u64 = 1_767_225_600_000;

    fn at(day: u64, time: &str) -> Instant {
        Instant::from_millis(NEW_YEAR + day * DAY + minutes(time).unwrap() * MINUTE)
    }

    fn window(text: &str, opens: &str, closes: &str) -> Window {
        Window { days: days(text).unwrap(), opens: minutes(opens).unwrap(), closes: minutes(closes).unwrap() }
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_it_opens_on() {
        let saturday = window("sat", "22:00", "05:00");
        for (day, time, open) in
            [(2, "21:59", false), (2, "22:00", true), (3, "04:59", true), (3, "05:00", false), (3, "22:00", false)]
        {
            assert_eq!(saturday.is_open(at(day, time)), open, "{day} {time}");
        }
        assert_eq!(saturday.opening(at(0, "00:00")), at(2, "22:00"));
        assert_eq!(saturday.opening(at(3, "01:00")), at(3, "01:00"), "it is open");
        assert_eq!(saturday.opening(at(3, "05:00")), at(9, "22:00"), "a week later");
    }

    #[test]
    fn the_same_time_twice_is_a_whole_day() {
        let always = window("mon tue wed thu fri sat sun", "00:00", "00:00");
        assert!((0..8).all(|day| always.is_open(at(day, "00:00")) && always.is_open(at(day, "23:59"))));
    }

    #[test]
    fn the_ends_of_time_are_survived() {
        let sunday = window("sun", "12:00", "13:00");
        assert!(!sunday.is_open(Instant::from_millis(0)));
        assert!(sunday.opening(Instant::from_millis(u64::MAX)) >= Instant::from_millis(u64::MAX - DAY));
    }
}
