//! How long a key withstands a search, and what an adversary has to pay for it.

use serde::{Deserialize, Serialize};

/// An adversary who tries keys, and what counts as success.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Search {
    /// Bits of the key.
    pub key_bits: u32,
    /// Dollars a year.
    pub budget: u64,
    /// Trials that a dollar buys today, as a power of two.
    pub trials_exponent: u32,
    /// Years in which trials become half as dear.
    pub halving_years: f64,
    /// The probability of success that must not be reached, as a power of one half.
    pub success_exponent: u32,
    /// Keys that are searched for at once, as a power of two.
    pub targets_exponent: u32,
}

impl Search {
    /// Years until the search succeeds with the given probability: `t = tau * log2(1 + P * 2^k / m * ln2 / (A * c0 *
    /// tau))`, from trials that grow by halving costs, `O(t) = A * c0 * tau / ln2 * (2^(t / tau) - 1)`, and success
    /// `m * O(t) / 2^k`. Finite and not negative for every input with a positive budget and halving time.
    #[must_use]
    pub fn years(&self) -> f64 {
        let exponent = f64::from(self.key_bits)
            - f64::from(self.success_exponent)
            - f64::from(self.targets_exponent)
            - f64::from(self.trials_exponent);
        let first_halving = to_f64(self.budget.max(1)) * self.halving_years;
        let log2_ratio = exponent + std::f64::consts::LN_2.log2() - first_halving.log2();
        // Above 2^60 the 1 no longer shows.
        let log2 = if log2_ratio > 60.0 { log2_ratio } else { log2_ratio.exp2().ln_1p() / std::f64::consts::LN_2 };
        self.halving_years * log2
    }
}

#[expect(clippy::cast_precision_loss, reason = "a budget in dollars is no exact number")]
fn to_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_takes_as_long_as_the_model_says() {
        // A billion dollars a year, 2^60 trials a dollar, costs that halve in two years.
        for (key_bits, targets_exponent, success_exponent, years) in [
            (56, 0, 1, 0.0),
            (80, 0, 1, 4.6 / 24.0 / 365.25),
            (112, 0, 1, 39.0),
            (128, 0, 1, 71.0),
            (128, 20, 1, 31.0),
            (128, 40, 32, 0.0),
            (256, 40, 32, 185.0),
            (256, 0, 1, 327.0),
        ] {
            let search = Search {
                key_bits,
                budget: 1_000_000_000,
                trials_exponent: 60,
                halving_years: 2.0,
                success_exponent,
                targets_exponent,
            };
            let found = search.years();
            let near = (found - years).abs() <= (years * 0.02).max(1e-5);
            assert!(near, "{key_bits} bits, 2^{targets_exponent} targets: {found} years, not {years}");
        }
    }
}
