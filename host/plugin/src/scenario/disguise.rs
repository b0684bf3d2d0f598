//! A disguise's story: plans from what was seen, and round trips through covers of several lengths.

use serde::Deserialize;
use serde::de::Error as _;

use super::Script;
use super::units::{Span, span};
use crate::disguise::Disguise;
use crate::fault::CallError;
use crate::wit::disguise::{Seen, Slot};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Story {
    #[serde(default = "one")]
    smallest: u32,
    #[serde(default)]
    seen: Vec<Sight>,
    #[serde(default)]
    seeds: Vec<u8>,
    #[serde(default)]
    covers: Vec<usize>,
    #[serde(default)]
    payloads: Vec<Payload>,
    /// Bits of each carrier that are flipped, one at a time.
    #[serde(default)]
    flips: Vec<u64>,
}

const fn one() -> u32 {
    1
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sight {
    gap: Span,
    blocks: u32,
    #[serde(default = "once")]
    times: usize,
}

const fn once() -> usize {
    1
}

#[derive(Debug, Clone, Copy)]
enum Payload {
    Bytes(usize),
    Capacity,
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_yaml_ng::Value::deserialize(deserializer)?;
        if value.as_str() == Some("capacity") {
            return Ok(Self::Capacity);
        }
        let bytes = value.as_u64().and_then(|bytes| usize::try_from(bytes).ok());
        bytes.map(Self::Bytes).ok_or_else(|| D::Error::custom("a payload is a number of bytes or `capacity`"))
    }
}

/// Plays the story; the first fault or refusal ends it.
pub(super) fn play(disguise: Disguise, story: &Story, script: &mut Script) {
    let seen: Vec<Seen> = story
        .seen
        .iter()
        .flat_map(|sight| vec![Seen { gap: sight.gap.0, blocks: sight.blocks }; sight.times.min(crate::limits::SEEN)])
        .collect();
    for seed in &story.seeds {
        if let Err(error) = plan(&disguise, story.smallest, &seen, *seed, script) {
            return script.error(&error);
        }
    }
    for cover in &story.covers {
        if let Err(error) = round_trips(&disguise, *cover, story, script) {
            return script.error(&error);
        }
    }
}

fn plan(disguise: &Disguise, smallest: u32, seen: &[Seen], seed: u8, script: &mut Script) -> Result<(), CallError> {
    let called = disguise.plan(seen, smallest, &[seed; 32])?;
    script.blank();
    script.line(&format!("plan, seed {seed}, after {} seen transfers: {} slots", seen.len(), called.value.len()));
    for line in grouped(&called.value) {
        script.line(&format!("  slot      {line}"));
    }
    script.logs(&called.logs);
    let count = u64::try_from(called.value.len()).unwrap_or(u64::MAX);
    let least = script.counts.get("slots-least").copied().unwrap_or(count).min(count);
    let most = script.counts.get("slots-most").copied().unwrap_or(count).max(count);
    script.counts.insert("slots-least", least);
    script.counts.insert("slots-most", most);
    if disguise.plan(seen, smallest, &[seed; 32])?.value != called.value {
        script.impure("the same seed plans otherwise the second time (R-1, R-20)");
    }
    Ok(())
}

/// Equal slots in a row as one line.
fn grouped(slots: &[Slot]) -> Vec<String> {
    slots
        .chunk_by(|a, b| a == b)
        .filter_map(|run| {
            let slot = run.first()?;
            let times = if run.len() == 1 { String::new() } else { format!(", {} times", run.len()) };
            Some(format!("after {:<12}{} blocks{times}", span(slot.gap), slot.blocks))
        })
        .collect()
}

fn round_trips(disguise: &Disguise, cover_bytes: usize, story: &Story, script: &mut Script) -> Result<(), CallError> {
    let cover = noise(cover_bytes);
    let asked = u32::try_from(cover_bytes).unwrap_or(u32::MAX);
    let capacity = usize::try_from(disguise.capacity(asked)?.value).unwrap_or(usize::MAX);
    script.blank();
    script.line(&format!("cover of {cover_bytes} bytes: carries {capacity}"));
    for payload in &story.payloads {
        let bytes = match payload {
            Payload::Bytes(bytes) => *bytes,
            Payload::Capacity => capacity,
        };
        // A capacity of 0 is none, also for an empty payload.
        if bytes > capacity || capacity == 0 {
            script.line(&format!("  {bytes:>9} bytes do not fit"));
            continue;
        }
        let carrier = disguise.embed(&cover, &vec![0xa5; bytes], &[7; 32])?;
        let changed = carrier.value.iter().zip(&cover).filter(|(a, b)| a != b).count();
        let share = changed.saturating_mul(100).checked_div(cover_bytes).unwrap_or(0);
        script.line(&format!("  {bytes:>9} bytes in and out again; {share} % of the cover changed"));
        script.logs(&carrier.logs);
        let payload = vec![0xa5; bytes];
        let mut others = 0;
        for bit in &story.flips {
            if !is_sound_with_flipped(disguise, &carrier.value, *bit, &payload)? {
                others += 1;
            }
        }
        if others > 0 {
            script.fail(format!("{others} carriers with one bit changed hold another payload (R-23)"));
        }
    }
    if capacity < cover_bytes {
        match disguise.embed(&cover, &vec![0xa5; capacity + 1], &[7; 32]) {
            Err(CallError::Refused { .. }) => script.line("  one byte more is refused"),
            Err(error) => return Err(error),
            Ok(_) => script.fail("one byte more than the capacity is embedded (R-21)"),
        }
    }
    match disguise.extract(&cover)?.value {
        None => script.line("  nothing is found in the plain cover"),
        Some(_) => script.fail("a payload is found in a plain cover (R-23)"),
    }
    Ok(())
}

/// A carrier with one bit changed holds its payload or nothing.
fn is_sound_with_flipped(disguise: &Disguise, carrier: &[u8], bit: u64, payload: &[u8]) -> Result<bool, CallError> {
    let mut changed = carrier.to_vec();
    let bits = u64::try_from(changed.len()).unwrap_or(u64::MAX).saturating_mul(8);
    let at = usize::try_from(bit.checked_rem(bits).unwrap_or(0) / 8).unwrap_or(usize::MAX);
    let Some(byte) = changed.get_mut(at) else { return Ok(true) };
    *byte ^= 1 << (bit % 8);
    let found = disguise.extract(&changed)?.value;
    Ok(found.is_none_or(|found| found == payload))
}

/// Bytes without a pattern, the same ones each time: BLAKE3's output of the length.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(b"farseal scenario cover").finalize_xof().fill(&mut bytes);
    bytes
}
