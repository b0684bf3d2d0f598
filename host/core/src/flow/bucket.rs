//! A token bucket: at most so many bytes a second, with a bounded burst. Time is an argument, the maths is in integers.
//!
//! Bytes may be taken while the level is above zero, and one take may overdraw it: a run of records is never cut for a
//! throttle's sake. So in any span the bytes taken are at most the rate times the span, one burst of
//! [`RATE_BURST`], and the largest single take.

use super::Rate;
use crate::limits::RATE_BURST;
use crate::units::{ByteLen, Instant, Millis};

/// See the module. Without a rate it is always ready.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    rate: Option<Rate>,
    /// Thousandths of a byte, so that a rate times milliseconds is exact.
    level: i64,
    at: Instant,
}

impl Bucket {
    /// Full.
    pub fn new(now: Instant, rate: Option<Rate>) -> Self {
        Self { rate, level: rate.map_or(0, burst), at: now }
    }

    /// Another rate from now on. What was overdrawn stays so.
    pub fn set_rate(&mut self, now: Instant, rate: Option<Rate>) {
        if self.rate != rate {
            self.refill(now);
            self.level = if self.rate.is_none() { 0 } else { self.level };
            self.level = self.level.min(rate.map_or(0, burst));
            self.rate = rate;
        }
    }

    /// May bytes be taken now?
    pub fn is_ready(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.rate.is_none() || self.level > 0
    }

    pub fn take(&mut self, bytes: ByteLen) {
        if self.rate.is_some() {
            let thousandths = i64::try_from(bytes.0).unwrap_or(i64::MAX).saturating_mul(1_000);
            self.level = self.level.saturating_sub(thousandths);
        }
    }

    /// What was taken was not used after all.
    pub fn give_back(&mut self, bytes: ByteLen) {
        if let Some(rate) = self.rate {
            let thousandths = i64::try_from(bytes.0).unwrap_or(i64::MAX).saturating_mul(1_000);
            self.level = self.level.saturating_add(thousandths).min(burst(rate));
        }
    }

    /// When bytes may be taken again, as of the last look; none: now.
    pub fn ready_at(&self) -> Option<Instant> {
        let rate = self.rate?;
        let missing = u64::try_from(1_i64.saturating_sub(self.level)).unwrap_or(0);
        (missing > 0).then(|| self.at.plus(Millis(missing.div_ceil(rate.get()))))
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.since(self.at);
        self.at = self.at.max(now);
        let Some(rate) = self.rate else { return };
        let gained = i64::try_from(rate.get().saturating_mul(elapsed.0)).unwrap_or(i64::MAX);
        self.level = self.level.saturating_add(gained).min(burst(rate));
    }
}

fn burst(rate: Rate) -> i64 {
    i64::try_from(rate.get().saturating_mul(RATE_BURST.0)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::{RATE_MAX, RATE_MIN};

    fn rate(bytes: u64) -> Option<Rate> {
        Rate::new(bytes).ok()
    }

    #[test]
    fn an_overdraft_is_waited_for() {
        let mut bucket = Bucket::new(Instant(0), rate(1 << 20));
        assert!(bucket.is_ready(Instant(0)));
        bucket.take(ByteLen(1 << 20));
        assert!(!bucket.is_ready(Instant(0)));
        let at = bucket.ready_at().unwrap();
        assert_eq!(at, Instant(901), "a second's worth, of which a burst of a tenth was there");
        assert!(!bucket.is_ready(Instant(at.0 - 1)));
        assert!(bucket.is_ready(at));
        assert_eq!(bucket.ready_at(), None);
    }

    #[test]
    fn without_a_rate_nothing_waits_and_a_new_rate_holds_from_then_on() {
        let mut bucket = Bucket::new(Instant(0), None);
        bucket.take(ByteLen(u64::MAX));
        assert!(bucket.is_ready(Instant(0)) && bucket.ready_at().is_none());
        bucket.set_rate(Instant(5), rate(RATE_MIN.0));
        assert!(!bucket.is_ready(Instant(5)), "no burst is given for the time without a rate");
        assert!(bucket.is_ready(bucket.ready_at().unwrap()));
        bucket.take(ByteLen(1 << 30));
        bucket.set_rate(Instant(10), None);
        assert!(bucket.is_ready(Instant(10)));
    }

    proptest! {
        /// Greedy: takes whenever it may. Checked over every span that begins with a take.
        #[test]
        fn no_span_has_more_than_the_rate_a_burst_and_one_take(
            per_second in RATE_MIN.0..=1 << 30,
            steps in proptest::collection::vec((0..2_000u64, 1..4_000_000u64), 1..60),
        ) {
            let mut bucket = Bucket::new(Instant(0), rate(per_second));
            let (mut now, mut taken) = (0, Vec::new());
            for (wait, bytes) in steps {
                now += wait;
                if bucket.is_ready(Instant(now)) {
                    bucket.take(ByteLen(bytes));
                    taken.push((now, bytes));
                }
            }
            for (from, (start, _)) in taken.iter().enumerate() {
                let (mut sum, mut largest) = (0, 0);
                for (at, bytes) in &taken[from..] {
                    sum += bytes;
                    largest = largest.max(*bytes);
                    let most = per_second * (at - start + RATE_BURST.0) / 1_000 + largest + 1;
                    prop_assert!(sum <= most, "{sum} bytes from {start} to {at}; at most {most}");
                }
            }
        }

        #[test]
        fn no_times_or_sizes_panic(
            per_second in RATE_MIN.0..=RATE_MAX.0,
            steps in proptest::collection::vec((any::<u64>(), any::<u64>()), 1..20),
        ) {
            let mut bucket = Bucket::new(Instant(0), rate(per_second));
            for (now, bytes) in steps {
                bucket.is_ready(Instant(now));
                bucket.take(ByteLen(bytes));
                let _ = bucket.ready_at();
            }
        }
    }
}
