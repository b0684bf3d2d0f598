//! Earlier points of a copy, drawn at random: named cuts, records by their number, and times; and how many transactions each must hold,
//! by what was noted while they were written

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};

use super::load::Random;

/// A point that is gone back to, as `recover test --at` takes it.
#[derive(Debug)]
pub(super) struct Point {
    pub(super) at: String,
    /// Transactions that it holds at least, and at most.
    pub(super) least: u64,
    pub(super) most: u64,
}

/// What was noted at one moment: transactions that were committed before and after the main site said which record it had durable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) before: u64,
    pub(super) record: u64,
    pub(super) after: u64,
}

/// A named cut, and the transactions committed before it was asked for and after it was made.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    pub(super) name: String,
    pub(super) before: u64,
    pub(super) after: u64,
}

/// A transaction's number, and when its program knew that it was committed, in milliseconds of Unix time.
pub(super) type Commit = (u64, u64);

/// All that was noted while initiators wrote, up to the newest point of the copy.
#[derive(Debug)]
pub(super) struct Noted {
    pub(super) cuts: Vec<Cut>,
    pub(super) samples: Vec<Sample>,
    pub(super) commits: Vec<Commit>,
    pub(super) newest: u64,
}

impl Noted {
    /// So many points, a third of each kind, anywhere between the first and the last moment that was noted.
    pub(super) fn draw(&self, count: u64, random: &mut Random) -> Result<Vec<Point>> {
        (0..count)
            .map(|turn| match turn % 3 {
                0 => self.record(random),
                1 => self.time(random),
                _ => self.cut(random),
            })
            .collect()
    }

    fn record(&self, random: &mut Random) -> Result<Point> {
        let first = self.samples.first().context("nothing was noted")?.record;
        let record = between(random, first, self.newest)?;
        let least = self.samples.iter().filter(|sample| sample.record <= record).map(|sample| sample.before).max();
        let later = self.samples.iter().filter(|sample| sample.record >= record).map(|sample| sample.after).min();
        let most = later.or(self.commits.last().map(|(number, _)| *number)).context("nothing was committed")? + 1;
        Ok(Point { at: record.to_string(), least: least.unwrap_or(0), most })
    }

    /// Times are given to the second. A transaction that was known to be committed by then is in it; one more may be.
    fn time(&self, random: &mut Random) -> Result<Point> {
        let [(_, first), .., (_, last)] = self.commits.as_slice() else { bail!("too little was committed") };
        let second = between(random, first.div_ceil(1000), last / 1000)?;
        let known = self.commits.iter().rev().find(|(_, at)| *at <= second * 1000).map_or(0, |(number, _)| *number);
        Ok(Point { at: utc(second), least: known, most: known + 1 })
    }

    fn cut(&self, random: &mut Random) -> Result<Point> {
        let cuts = u64::try_from(self.cuts.len())?;
        let drawn = between(random, 0, cuts.checked_sub(1).context("no cut was made")?)?;
        let Cut { name, before, after } = self.cuts[usize::try_from(drawn)?].clone();
        // A transaction that was committed while the cut was made may be in it or not.
        Ok(Point { at: name, least: before, most: after + 1 })
    }
}

/// From the system's clock, so that no two runs draw the same. The caller says which it was.
pub(super) fn seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_micros()).unwrap_or(1).max(1)
}

fn between(random: &mut Random, first: u64, last: u64) -> Result<u64> {
    if first > last {
        bail!("there is nothing between {first} and {last}");
    }
    Ok(first + random.next() % (last - first + 1))
}

/// As `recover test --at` reads a time: civil days from days since 1970, by eras of 400 years that begin in March.
fn utc(second: u64) -> String {
    let (days, time) = (second / 86_400 + 719_468, second % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) =
        (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", time / 3600, time / 60 % 60, time % 60)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn times_are_written_as_they_are_read() {
        for (second, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_795_951_800, "2026-11-29T11:30:00Z"),
        ] {
            assert_eq!(utc(second), expected);
        }
    }

    #[test]
    fn a_point_holds_what_was_committed_before_it_and_at_most_one_transaction_more() {
        let sample = |before, record, after| Sample { before, record, after };
        let noted = Noted {
            cuts: vec![Cut { name: "cut-1".into(), before: 3, after: 4 }],
            samples: vec![sample(1, 10, 1), sample(4, 20, 5), sample(8, 30, 9)],
            commits: vec![(1, 1_000), (4, 2_500), (9, 9_900)],
            newest: 35,
        };
        let points = noted.draw(300, &mut Random(7)).unwrap();
        for point in &points {
            let expected = match point.at.parse::<u64>() {
                Ok(10) => (1, 2),
                Ok(11..=19) => (1, 6),
                Ok(20) => (4, 6),
                Ok(21..=29) => (4, 10),
                Ok(30) => (8, 10),
                Ok(31..=35) => (8, 10),
                Ok(record) => panic!("record {record} is outside"),
                Err(_) if point.at == "cut-1" => (3, 5),
                Err(_) if point.at <= utc(2) => (1, 2),
                Err(_) => (4, 5),
            };
            assert_eq!((point.least, point.most), expected, "{}", point.at);
        }
        assert!(points.iter().any(|point| point.at == utc(9)) && points.iter().any(|point| point.at == "35"));
    }
}
