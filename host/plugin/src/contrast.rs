//! What two ciphers or two disguises make of the same made-up traffic. Their calls are journalled nowhere, so this is what an
//! operator is shown before one goes in the place of the other.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cipher::Cipher;
use crate::disguise::Disguise;
use crate::fault::CallError;
use crate::scenario::{stack_words, units::span};
use crate::wit::cipher::{Batch, RecordKind, Shape};
use crate::wit::disguise::Seen;

/// One thing that both do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Contrast {
    /// With what they were tried.
    pub what: String,
    /// What the one in force does.
    pub old: String,
    /// What the other one does.
    pub new: String,
}

impl Contrast {
    fn of<P>(what: impl Into<String>, old: &P, new: &P, asked: impl Fn(&P) -> Result<String, CallError>) -> Self {
        let words = |plugin| asked(plugin).unwrap_or_else(|error| error.to_string());
        Self { what: what.into(), old: words(old), new: words(new) }
    }
}

/// What seals a record of each kind.
#[must_use]
pub fn contrast_ciphers(old: &Arc<Cipher>, new: &Arc<Cipher>) -> Vec<Contrast> {
    let kinds = [(RecordKind::Data, "data"), (RecordKind::Zeroes, "zeroes"), (RecordKind::Cover, "cover")];
    kinds
        .into_iter()
        .map(|(kind, name)| Contrast::of(format!("records of {name}"), old, new, |cipher| layers(cipher, kind)))
        .collect()
}

fn layers(cipher: &Arc<Cipher>, kind: RecordKind) -> Result<String, CallError> {
    let records = vec![Shape { kind, first: 0, blocks: 16 }];
    let batch = Batch { epoch: 1, first_sequence: 1, block_bytes: 4_096, records };
    let plan = Arc::clone(cipher).worker().plan_batch(&batch)?.value;
    let choice = plan.choices.first().map(|choice| usize::from(*choice));
    let stack = choice.and_then(|choice| cipher.description().stacks.get(choice));
    Ok(stack.map_or_else(|| "no layers".into(), stack_words))
}

/// Plans that are added up, each of another seed: a single one says little.
const PLANS: u8 = 32;
/// A transfer of the made-up traffic: four blocks, ten times a second.
const BUSY: Seen = Seen { gap: 100, blocks: 4 };
/// Blocks that carry a key.
const SMALLEST: u32 = 2;

/// When slots are planned, and what a cover carries.
#[must_use]
pub fn contrast_disguises(old: &Disguise, new: &Disguise) -> Vec<Contrast> {
    let busy = vec![BUSY; 64];
    vec![
        Contrast::of("slots while nothing is sent", old, new, |disguise| schedule(disguise, &[])),
        Contrast::of("slots in ten transfers a second", old, new, |disguise| schedule(disguise, &busy)),
        Contrast::of("a cover of 8 KiB", old, new, |disguise| {
            let whole = disguise.capacity(8_192)?.value;
            Ok(format!("carries {whole} bytes of a key's"))
        }),
        Contrast::of("where keys go", old, new, |disguise| {
            Ok(if disguise.is_in_records() { "beside other records" } else { "in records of their own" }.into())
        }),
    ]
}

fn schedule(disguise: &Disguise, recent: &[Seen]) -> Result<String, CallError> {
    let (mut slots, mut wait, mut blocks) = (0_u64, 0_u64, 0_u64);
    for seed in 0..PLANS {
        for slot in disguise.plan(recent, SMALLEST, &[seed; 32])?.value {
            slots += 1;
            wait += slot.gap;
            blocks += u64::from(slot.blocks);
        }
    }
    let mean = |sum: u64| sum.checked_div(slots);
    Ok(match (mean(wait), blocks.checked_div(slots)) {
        (Some(wait), Some(blocks)) => format!("{} after one another, {blocks} blocks each, on average", span(wait)),
        (None, _) | (_, None) => "none".into(),
    })
}
