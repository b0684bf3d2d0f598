//! Rotation policy `time-to-break`: the interval follows from what it would take to break a key, to tell its
//! ciphertext from chance, and from what a stolen key would expose; the policy says which of them bound, with the numbers.

use farseal_sdk::asking::Asking;
use farseal_sdk::bounds::{Traffic, seal_units_per_key};
use farseal_sdk::rotation::{Action, Context, Decisions, Event, KeyInfo, Policy, Watch};
use farseal_sdk::settings::wrong;
use farseal_sdk::{About, Diagnostic, Plugin, Size, Span};
use serde::{Deserialize, Serialize};

use model::Search;

pub mod model;

farseal_sdk::settings! {
    /// The adversary, what is to be kept from them, and for how long.
    pub struct Settings {
        /// Bits of the data key.
        key_bits: u32 = 256,
        /// What the adversary spends on trying keys, in dollars a year.
        budget: u64 = 1000000000,
        /// Trials that a dollar buys today, as a power of two.
        trials_exponent: u32 = 60,
        /// The time in which trials become half as dear.
        halving: Span = "730d",
        /// The probability of success that must not be reached: 2 to the minus this.
        success_exponent: u32 = 32,
        /// Keys that the adversary may be after at once: 2 to this.
        targets_exponent: u32 = 40,
        /// How long what is sealed today must stay secret.
        secrecy: Span = "10950d",
        /// The share of the time to break, less `secrecy`, for which a key is used: one part in so many.
        share: u32 = 1000,
        /// A stolen key exposes at most the data of this time.
        exposed_time: Span = "24h",
        /// A stolen key exposes at most this much data.
        exposed_bytes: Size = "64GiB",
        /// The observer's advantage over the pair's life: 2 to the minus this.
        advantage_exponent: u32 = 40,
        /// All that the pair will ever seal.
        lifetime: Size = "280PiB",
        /// Bytes of the volume's blocks.
        block_bytes: Size = "4KiB",
        /// When the capsules' key agreement is expected to be broken, from today; null where it is a hybrid with ML-KEM.
        agreement_broken: Option<Span> = null,
        /// How long it takes to change that agreement everywhere.
        migration: Span = "1095d",
    }
}

/// An hour: the shortest interval that the search model may give before the cipher is called unacceptable.
const LEAST: Span = Span::from_millis(3_600_000);
const DAY_MILLIS: f64 = 86_400_000.0;
const YEAR_DAYS: f64 = 365.25;

/// What is kept between calls.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    asking: Asking,
}

/// The policy.
#[derive(Debug)]
pub struct TimeToBreak;

/// How old a key may grow, and why no older.
struct Age {
    most: Span,
    why: String,
}

/// How much a key may seal, and why not more.
struct Share {
    bytes: Size,
    why: String,
}

impl Plugin for TimeToBreak {
    const ABOUT: About =
        farseal_sdk::about!("Derives the interval from the time to break a key, and says which limit it was.");
    const STATE_SCHEMA: u32 = 1;
    type Settings = Settings;

    fn check(settings: &Settings) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        if !(1..=512).contains(&settings.key_bits) {
            found.push(wrong("key-bits", "no data key has so many bits", "256"));
        }
        if settings.budget == 0 {
            found.push(wrong("budget", "an adversary without money breaks nothing", "for example 1000000000"));
        }
        if settings.halving < Span::from_millis(86_400_000) {
            found.push(wrong("halving", "costs do not halve within a day", "for example \"730d\""));
        }
        if settings.share == 0 {
            found.push(wrong("share", "one part in zero is no share", "for example 1000"));
        }
        if settings.exposed_time < Span::from_millis(1_000) {
            found.push(wrong("exposed-time", "shorter than a second", "for example \"24h\""));
        }
        if settings.exposed_bytes < Size::from_bytes(1 << 20) {
            found.push(wrong("exposed-bytes", "less than a mebibyte", "for example \"64GiB\""));
        }
        if !(512..=65_536).contains(&settings.block_bytes.as_bytes()) {
            found.push(wrong("block-bytes", "no block has this size", "512B to 64KiB, as the pair is set up"));
        } else if settings.bound() < Size::from_bytes(1 << 20) {
            let message = format!("the bound leaves {} to a key", settings.bound());
            found.push(wrong(
                "advantage-exponent",
                &message,
                "a smaller exponent, or a `lifetime` nearer to the truth",
            ));
        }
        found
    }
}

impl Settings {
    /// How long a key withstands the search.
    fn time_to_break(&self) -> Span {
        let search = Search {
            key_bits: self.key_bits,
            budget: self.budget,
            trials_exponent: self.trials_exponent,
            halving_years: days(self.halving) / YEAR_DAYS,
            success_exponent: self.success_exponent,
            targets_exponent: self.targets_exponent,
        };
        whole_days(search.years() * YEAR_DAYS)
    }

    /// Bytes that the AEAD bound leaves to one key.
    fn bound(&self) -> Size {
        let traffic = Traffic { lifetime: self.lifetime, seal_unit: self.block_bytes };
        let units = seal_units_per_key(self.advantage_exponent, traffic);
        Size::from_bytes(units.saturating_mul(self.block_bytes.as_bytes()))
    }

    /// For how long the search lets a key be used; none where what is sealed would not stay secret for long enough.
    fn by_search(&self) -> Option<Span> {
        let spare = self.time_to_break().as_millis().checked_sub(self.secrecy.as_millis())?;
        Some(Span::from_millis(spare / u64::from(self.share.max(1)))).filter(|span| *span >= LEAST)
    }

    fn age(&self) -> Age {
        match self.by_search() {
            Some(most) if most < self.exposed_time => Age {
                most,
                why: format!("key search: 1/{} of what is left of {} to break a key", self.share, self.time_to_break()),
            },
            Some(_) | None => Age {
                most: self.exposed_time,
                why: format!("exposure: a stolen key opens {} of data", self.exposed_time),
            },
        }
    }

    fn most(&self) -> Share {
        let bound = self.bound();
        if bound < self.exposed_bytes {
            let why = format!("AEAD bound: an advantage of 2^-{} over {}", self.advantage_exponent, self.lifetime);
            Share { bytes: bound, why }
        } else {
            Share { bytes: self.exposed_bytes, why: format!("exposure: a stolen key opens {}", self.exposed_bytes) }
        }
    }

    /// What the operator has to know: it is not for this policy to mend.
    fn concerns(&self, floor: Span, ceiling: Span) -> Vec<String> {
        let mut found = Vec::new();
        if self.by_search().is_none() {
            found.push(format!(
                "a key of {} bits withstands this adversary for {}, and data must stay secret for {}: \
                 no interval is short enough, choose another cipher",
                self.key_bits,
                self.time_to_break(),
                self.secrecy
            ));
        }
        if let Some(broken) = self.agreement_broken
            && self.secrecy + self.migration > broken
        {
            found.push(format!(
                "the key agreement is expected to be broken in {broken}, and data must stay secret for {} after {} of \
                 migration: new data keys do not help, change the agreement",
                self.secrecy, self.migration
            ));
        }
        if self.age().most > ceiling {
            found.push(format!("a key might live for {}, and the host's ceiling is {ceiling}", self.age().most));
        }
        if self.age().most < floor {
            found.push(format!("a key should live for {}, and the host's floor is {floor}", self.age().most));
        }
        found
    }

    fn summary(&self) -> String {
        let Age { most, why } = self.age();
        let share = self.most();
        format!(
            "{most} ({why}) or {} ({}); a search takes {}, the AEAD bound leaves {}",
            share.bytes,
            share.why,
            self.time_to_break(),
            self.bound()
        )
    }
}

impl Policy for TimeToBreak {
    type State = State;

    fn step(state: &mut State, event: &Event, cx: &Context<'_, Settings>, decisions: &mut Decisions) {
        let new_key = state.asking.observe(event, cx);
        let started = matches!(event, Event::Started);
        if started {
            cx.settings.concerns(cx.floor(), cx.ceiling()).iter().for_each(|concern| decisions.alert(concern));
            farseal_sdk::info!("{}", cx.settings.summary());
        }
        let (age, share) = (cx.settings.age(), cx.settings.most());
        let due = state.asking.born() + age.most;
        if cx.now >= due {
            let old = cx.now - state.asking.born();
            state.asking.want(&format!("the key is {old} old; {}", age.why));
        }
        if let Some(key) = cx.sealing() {
            if sealed_enough(key, &share) {
                state.asking.want(&format!("the key has sealed {}; {}", key.sealed(), share.why));
            } else if new_key || started {
                let bytes = Some(share.bytes.as_bytes());
                decisions.make(&share.why, Action::Watch(Watch { bytes, blocks: None }));
            }
        }
        state.asking.ask(cx, decisions);
        decisions.wake_at(state.asking.wake_at(due, cx), &age.why);
    }
}

fn sealed_enough(key: &KeyInfo, share: &Share) -> bool {
    key.sealed() >= share.bytes
}

#[expect(clippy::cast_precision_loss, reason = "a model of years does not hang on milliseconds")]
fn days(span: Span) -> f64 {
    span.as_millis() as f64 / DAY_MILLIS
}

/// Rounded down to whole days from a day on, so that what is printed can be read; the cast saturates.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is never negative")]
fn whole_days(days: f64) -> Span {
    let days = if days >= 1.0 { days.floor() } else { days };
    Span::from_millis((days * DAY_MILLIS) as u64)
}

farseal_sdk::export_rotation!(TimeToBreak);

#[cfg(test)]
mod tests;
