//! Rotation policy `volume-budget`: a key is used up by what it seals, not by its age: bytes, blocks, and what the
//! AEAD bound of draft-irtf-cfrg-aead-limits leaves to one key of a long life.

use farseal_sdk::asking::Asking;
use farseal_sdk::bounds::{Traffic, seal_units_per_key};
use farseal_sdk::rotation::{Action, Context, Decisions, Event, KeyInfo, Policy, Watch};
use farseal_sdk::settings::wrong;
use farseal_sdk::{About, Diagnostic, Instant, Plugin, Size};
use serde::{Deserialize, Serialize};

farseal_sdk::settings! {
    /// What uses a key up.
    pub struct Settings {
        /// Bytes that one key seals; null for what the other limits allow.
        bytes: Option<Size> = null,
        /// Blocks that one key seals; null for what the other limits allow.
        blocks: Option<u64> = null,
        /// Whoever sees all of the pair's traffic has an advantage of at most 2 to the minus this.
        advantage_exponent: u32 = 40,
        /// All that the pair will ever seal: by default a gigabyte a second for ten years.
        lifetime: Size = "280PiB",
        /// Bytes of the volume's blocks.
        block_bytes: Size = "4KiB",
    }
}

/// The smallest budget that makes sense: below it the pair would do little but change keys.
const LEAST_BLOCKS: u64 = 256;

/// What is kept between calls.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    asking: Asking,
}

/// The policy.
#[derive(Debug)]
pub struct VolumeBudget;

impl Plugin for VolumeBudget {
    const ABOUT: About =
        farseal_sdk::about!("Changes the key when it has sealed its share, and says which limit it was.");
    const STATE_SCHEMA: u32 = 1;
    type Settings = Settings;

    fn check(settings: &Settings) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        if settings.bytes.is_some_and(|bytes| bytes.as_bytes() == 0) {
            found.push(wrong("bytes", "zero would change the key without end", "null for no limit"));
        }
        if settings.blocks.is_some_and(|blocks| blocks < LEAST_BLOCKS) {
            found.push(wrong("blocks", "fewer than 256 would do little but change keys", "null for no limit"));
        }
        if !(512..=65_536).contains(&settings.block_bytes.as_bytes()) {
            found.push(wrong("block-bytes", "no block has this size", "512B to 64KiB, as the pair is set up"));
        } else if settings.bound() < LEAST_BLOCKS {
            let message = format!("the bound leaves {} blocks to a key", settings.bound());
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
    /// Blocks that the AEAD bound leaves to one key.
    fn bound(&self) -> u64 {
        let traffic = Traffic { lifetime: self.lifetime, seal_unit: self.block_bytes };
        seal_units_per_key(self.advantage_exponent, traffic)
    }

    /// Blocks that one key may seal, and why not more.
    fn block_budget(&self) -> (u64, String) {
        let bound = self.bound();
        match self.blocks {
            Some(blocks) if blocks <= bound => (blocks, format!("{blocks} blocks, its budget")),
            Some(_) | None => (
                bound,
                format!(
                    "{bound} blocks, what an advantage of 2^-{} over {} leaves to one key",
                    self.advantage_exponent, self.lifetime
                ),
            ),
        }
    }

    /// Which budget this key has used up.
    fn used_up(&self, key: &KeyInfo) -> Option<String> {
        let (blocks, why) = self.block_budget();
        if self.bytes.is_some_and(|most| key.sealed() >= most) {
            Some(format!("the key has sealed {}, its budget", key.sealed()))
        } else {
            (key.blocks_sealed >= blocks).then(|| format!("the key has sealed {why}"))
        }
    }
}

impl Policy for VolumeBudget {
    type State = State;

    fn step(state: &mut State, event: &Event, cx: &Context<'_, Settings>, decisions: &mut Decisions) {
        let new_key = state.asking.observe(event, cx);
        if let Some(key) = cx.sealing() {
            if let Some(reason) = cx.settings.used_up(key) {
                state.asking.want(&reason);
            } else if new_key || matches!(event, Event::Started) {
                let (blocks, why) = cx.settings.block_budget();
                let bytes = cx.settings.bytes.map(Size::as_bytes);
                decisions.make(&why, Action::Watch(Watch { bytes, blocks: Some(blocks) }));
            }
        }
        state.asking.ask(cx, decisions);
        let nothing_due = Instant::from_millis(u64::MAX);
        let wake = state.asking.wake_at(nothing_due, cx);
        if wake < nothing_due {
            decisions.wake_at(wake, "the next look");
        }
    }
}

farseal_sdk::export_rotation!(VolumeBudget);

#[cfg(test)]
mod tests;
