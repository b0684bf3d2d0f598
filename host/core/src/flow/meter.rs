//! A rate, smoothed over some ten seconds, in integers: what a console shows and a time left is reckoned with.

use crate::units::{Instant, Millis};

/// How much of the past counts: after this long without a byte a third of the rate is left, in
/// one step of that length a half.
const MEMORY: Millis = Millis(10_000);
/// Bytes that come within this long are one sample.
const STEP: Millis = Millis(250);
/// Fractions of a byte a second that are kept.
const SCALE: u128 = 256;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    /// Bytes a second, times [`SCALE`].
    rate: u128,
    /// Bytes since `at`.
    bytes: u64,
    at: Instant,
}

impl Meter {
    pub fn new(now: Instant) -> Self {
        Self { rate: 0, bytes: 0, at: now }
    }

    pub fn add(&mut self, now: Instant, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.roll(now);
    }

    /// Bytes a second.
    pub fn per_second(mut self, now: Instant) -> u64 {
        self.roll(now);
        u64::try_from(self.rate / SCALE).unwrap_or(u64::MAX)
    }

    /// How long so many bytes last at this rate; none where nothing comes.
    pub fn time_for(self, now: Instant, bytes: u64) -> Option<Millis> {
        let rate = self.per_second(now);
        let time = u128::from(bytes) * 1_000;
        (rate > 0).then(|| Millis(u64::try_from(time / u128::from(rate)).unwrap_or(u64::MAX)))
    }

    /// The sample weighs as its span does against the memory.
    fn roll(&mut self, now: Instant) {
        let span = u128::from(now.since(self.at).0);
        if span < u128::from(STEP.0) {
            return;
        }
        let (bytes, memory) = (u128::from(std::mem::take(&mut self.bytes)), u128::from(MEMORY.0));
        // The sample's rate times its span is its bytes times a thousand.
        self.rate = (self.rate * memory + bytes * 1_000 * SCALE) / (memory + span);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_found_and_an_end_is_noticed() {
        let mut meter = Meter::new(Instant(0));
        let mut shown = Vec::new();
        for step in 1..=600_u64 {
            meter.add(Instant(step * 100), if step <= 300 { 100_000 } else { 0 });
            if step % 100 == 0 {
                shown.push(meter.per_second(Instant(step * 100)));
            }
        }
        // A megabyte a second for thirty seconds, then nothing.
        assert_eq!(shown, [622_973, 857_851, 947_967, 357_408, 134_752, 49_325]);
        assert_eq!(meter.time_for(Instant(60_000), 0), Some(Millis(0)));
        assert_eq!(Meter::new(Instant(0)).time_for(Instant(9), 5), None);
    }

    #[test]
    fn no_numbers_panic() {
        let mut meter = Meter::new(Instant(5));
        for (at, bytes) in [(0, u64::MAX), (u64::MAX, u64::MAX), (7, 0)] {
            meter.add(Instant(at), bytes);
            let _ = (meter.per_second(Instant(at)), meter.time_for(Instant(at), u64::MAX));
        }
    }
}
