//! A cipher's story: its stacks, what it plans for batches, and for the raw world the round trip of bytes.

use std::sync::Arc;

use serde::Deserialize;

use super::Script;
use super::contents::Contents;
use crate::cipher::{Cipher, CipherWorker};
use crate::fault::CallError;
use crate::limits;
use crate::wit::cipher::{Batch, Plan, RecordKind, Shape, Stack, Suite, Unit};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Story {
    batches: Vec<BatchForm>,
    /// What is sealed and under which keys and nonces, each from another part of it.
    #[serde(default)]
    contents: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct BatchForm {
    epoch: u64,
    first_sequence: u64,
    #[serde(default = "four_kib")]
    block_bytes: u32,
    records: Vec<RecordForm>,
}

const fn four_kib() -> u32 {
    4096
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum KindForm {
    Data,
    Zeroes,
    Cover,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum RecordForm {
    Once(KindForm, u64, u32),
    Times(KindForm, u64, u32, u16),
}

impl BatchForm {
    fn batch(&self) -> Batch {
        let shapes = |form: &RecordForm| {
            let (kind, first, blocks, times) = match *form {
                RecordForm::Once(kind, first, blocks) => (kind, first, blocks, 1),
                RecordForm::Times(kind, first, blocks, times) => (kind, first, blocks, times),
            };
            let kind = match kind {
                KindForm::Data => RecordKind::Data,
                KindForm::Zeroes => RecordKind::Zeroes,
                KindForm::Cover => RecordKind::Cover,
            };
            let step = u64::from(blocks);
            (0..u64::from(times)).map(move |n| Shape {
                kind,
                first: first.saturating_add(n.saturating_mul(step)),
                blocks,
            })
        };
        let records = self.records.iter().flat_map(shapes).collect();
        Batch { epoch: self.epoch, first_sequence: self.first_sequence, block_bytes: self.block_bytes, records }
    }
}

/// Plays the story; the first fault or refusal ends it.
pub(super) fn play(cipher: Cipher, story: &Story, script: &mut Script) {
    let cipher = Arc::new(cipher);
    script.blank();
    let stacks = &cipher.description().stacks;
    script.counts.insert("stacks", u64::try_from(stacks.len()).unwrap_or(u64::MAX));
    for (index, stack) in stacks.iter().enumerate() {
        script.line(&format!("stack {index}   {}", stack_words(stack)));
    }
    // There is nothing to ask for of a cipher that only plans.
    script.round_trip = !cipher.is_raw();
    let mut worker = Arc::clone(&cipher).worker();
    for (at, form) in story.batches.iter().enumerate() {
        let batch = form.batch();
        if let Err(error) = plan(&cipher, &mut worker, &batch, script) {
            return script.error(&error);
        }
        if cipher.is_raw()
            && let Err(error) = RoundTrip::of(&batch, Contents::new(story.contents), at).go(&mut worker, script)
        {
            return script.error(&error);
        }
    }
}

fn plan(cipher: &Arc<Cipher>, worker: &mut CipherWorker, batch: &Batch, script: &mut Script) -> Result<(), CallError> {
    let records = batch.records.len();
    let asked = || format!("a batch of {records} records in blocks of {}", batch.block_bytes);
    let Some(called) = script.answered(worker.plan_batch(batch), "R-32", asked)? else { return Ok(()) };
    let last = batch.first_sequence.saturating_add(u64::try_from(batch.records.len()).unwrap_or(0)).saturating_sub(1);
    script.blank();
    script.line(&format!(
        "epoch {}, records {} to {last} in blocks of {}",
        batch.epoch, batch.first_sequence, batch.block_bytes
    ));
    for line in plan_words(&called.value, batch) {
        script.line(&format!("  plugin    {line}"));
    }
    script.logs(&called.logs);
    match Arc::clone(cipher).worker().plan_batch(batch) {
        Ok(again) if again.value == called.value => {}
        Ok(_) | Err(CallError::Refused { .. }) => script.impure("a fresh instance plans otherwise (R-1, R-32)"),
        Err(error) => return Err(error),
    }
    Ok(())
}

fn plan_words(plan: &Plan, batch: &Batch) -> Vec<String> {
    if let [choice] = plan.choices.as_slice() {
        let how_long = if plan.valid_below == 0 {
            "for this batch".into()
        } else {
            format!("for every record below {}", plan.valid_below)
        };
        return vec![format!("stack {choice} {how_long}")];
    }
    let pairs: Vec<_> = plan.choices.iter().zip(&batch.records).collect();
    let same = |a: &(&u8, &Shape), b: &(&u8, &Shape)| a.0 == b.0 && a.1.kind == b.1.kind && a.1.blocks == b.1.blocks;
    let words = |run: &[(&u8, &Shape)]| {
        let (choice, shape) = run.first()?;
        let kind = match shape.kind {
            RecordKind::Data => "data",
            RecordKind::Zeroes => "zeroes",
            RecordKind::Cover => "cover",
        };
        Some(format!("stack {choice} for {} records of {} blocks of {kind}", run.len(), shape.blocks))
    };
    pairs.chunk_by(same).filter_map(words).collect()
}

/// A batch of an own algorithm on its way through it.
struct RoundTrip {
    subkey: [u8; 32],
    plain: Vec<Unit>,
}

impl RoundTrip {
    fn of(batch: &Batch, contents: Contents, at: usize) -> Self {
        // Never twice the same under one key: the number of record and block is in it.
        let mask = contents.key("nonces", at, 0);
        let unit = |(index, shape): (usize, &Shape)| {
            let blocks = usize::try_from(shape.blocks).unwrap_or(0);
            let bytes = usize::try_from(batch.block_bytes).unwrap_or(0).saturating_mul(blocks);
            let nonces = (0..blocks).flat_map(|block| masked(nonce(index, block), &mask)).collect();
            let number = at.saturating_mul(limits::BATCH_RECORDS).saturating_add(index);
            Unit { nonces, block_bytes: batch.block_bytes, bytes: contents.data("block", number, bytes, 0x5a) }
        };
        let plain = batch.records.iter().enumerate().map(unit).collect();
        Self { subkey: contents.key("subkey", at, 0x42), plain }
    }

    fn go(&self, worker: &mut CipherWorker, script: &mut Script) -> Result<(), CallError> {
        let plain = &self.plain;
        let total: usize = plain.iter().map(|unit| unit.bytes.len()).sum();
        let asked = |what: &str| format!("{what} of {} units, {total} bytes", plain.len());
        let sealed = worker.seal(&self.subkey, plain);
        let Some(sealed) = script.answered(sealed, "R-40", || asked("a batch"))? else { return Ok(()) };
        let units = |bodies: &[Vec<u8>]| -> Vec<Unit> {
            bodies.iter().zip(plain).map(|(bytes, unit)| Unit { bytes: bytes.clone(), ..unit.clone() }).collect()
        };
        let opened = worker.open(&self.subkey, &units(&sealed.value));
        let Some(opened) = script.answered(opened, "R-40", || asked("what it sealed, a batch"))? else { return Ok(()) };
        if opened.value.iter().zip(plain).any(|(bytes, unit)| *bytes != unit.bytes) {
            script.fail("what was sealed opens to something else (R-40)");
            return Ok(());
        }
        let same =
            sealed.value.iter().zip(plain).filter(|(bytes, unit)| **bytes == unit.bytes && !bytes.is_empty()).count();
        if same > 0 {
            script.fail(format!("{same} records are sealed to themselves (R-41)"));
        }
        script.line(&format!("  raw       {total} bytes sealed, opened and the same again"));
        script.round_trip = true;
        let sealed = units(&sealed.value);
        let Some((plain, sealed)) = plain.iter().zip(&sealed).find(|(unit, _)| !unit.bytes.is_empty()) else {
            return Ok(());
        };
        self.block_by_block(worker, plain, sealed, script)?;
        self.depends(worker, plain, sealed, script)
    }

    /// The last block comes back alone, and beside one of which a bit was changed.
    fn block_by_block(
        &self,
        worker: &mut CipherWorker,
        plain: &Unit,
        sealed: &Unit,
        script: &mut Script,
    ) -> Result<(), CallError> {
        let last = (plain.nonces.len() / NONCE).saturating_sub(1);
        let wanted = alone(plain, last).bytes;
        let opened = worker.open(&self.subkey, &[alone(sealed, last)]);
        if let Some(opened) = script.answered(opened, "R-40", || "a block that comes back alone".into())?
            && opened.value.first() != Some(&wanted)
        {
            script.fail("a block that comes back alone opens to something else (R-40)");
        }
        let mut damaged = sealed.clone();
        let Some(byte) = damaged.bytes.first_mut().filter(|_| last > 0) else { return Ok(()) };
        *byte ^= 1;
        let opened = worker.open(&self.subkey, &[damaged]);
        if let Some(opened) = script.answered(opened, "R-40", || "a block beside a damaged one".into())?
            && !opened.value.first().is_some_and(|bytes| bytes.ends_with(&wanted))
        {
            script.fail("one changed bit spoils another block (R-40)");
        }
        Ok(())
    }

    /// The first block under the nonce of another one, and under another key. To refuse either is right.
    fn depends(
        &self,
        worker: &mut CipherWorker,
        plain: &Unit,
        sealed: &Unit,
        script: &mut Script,
    ) -> Result<(), CallError> {
        let (wanted, first) = (alone(plain, 0).bytes, alone(sealed, 0));
        let moved = Unit { nonces: vec![0xb5; NONCE], ..first.clone() };
        if opens(worker, &self.subkey, moved)?.as_ref() == Some(&wanted) {
            script.fail("a block opens under another block's nonce (R-41)");
        }
        let other = self.subkey.map(|byte| byte ^ 0x11);
        if opens(worker, &other, first)?.as_ref() == Some(&wanted) {
            script.fail("a block opens under another key (R-41)");
        }
        Ok(())
    }
}

/// What a unit opens to; none where that is refused.
fn opens(worker: &mut CipherWorker, subkey: &[u8; 32], unit: Unit) -> Result<Option<Vec<u8>>, CallError> {
    match worker.open(subkey, &[unit]) {
        Ok(opened) => Ok(opened.value.into_iter().next()),
        Err(CallError::Refused { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn masked(nonce: Vec<u8>, mask: &[u8; 32]) -> impl Iterator<Item = u8> + use<> {
    let mask = *mask;
    nonce.into_iter().zip(mask).map(|(byte, mask)| byte ^ mask)
}

/// A block of a unit, as a unit of its own.
fn alone(unit: &Unit, block: usize) -> Unit {
    let size = usize::try_from(unit.block_bytes).unwrap_or(usize::MAX);
    let part = |bytes: &[u8], size: usize| bytes.chunks(size.max(1)).nth(block).unwrap_or_default().to_vec();
    Unit { nonces: part(&unit.nonces, NONCE), block_bytes: unit.block_bytes, bytes: part(&unit.bytes, size) }
}

const NONCE: usize = 12;

fn nonce(record: usize, block: usize) -> Vec<u8> {
    let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX).to_be_bytes();
    let [.., a, b, c, d] = number(block);
    [number(record).as_slice(), &[a, b, c, d]].concat()
}

/// The layers, the innermost first.
pub(crate) fn stack_words(stack: &Stack) -> String {
    let layer = |suite: Suite| match suite {
        Suite::Aes256Gcm => "aes-256-gcm",
        Suite::Aes256GcmSiv => "aes-256-gcm-siv",
        Suite::Chacha20Poly1305 => "chacha20-poly1305",
        Suite::Chacha20 => "chacha20",
        Suite::Own => "its own algorithm",
    };
    let layers: Vec<_> =
        stack.layers.iter().map(|one| format!("{} under key {:?}", layer(one.suite), one.key_label)).collect();
    layers.join(", then ")
}
