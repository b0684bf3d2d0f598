//! A disguise's story: plans from what was seen, and round trips through covers of several lengths.

use serde::Deserialize;
use serde::de::Error as _;

use super::Script;
use super::contents::Contents;
use super::units::{Span, span};
use crate::disguise::Disguise;
use crate::fault::{CallError, Called};
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
    /// What payloads, seeds and covers are made of, each from another part of it.
    #[serde(default)]
    contents: Option<u64>,
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
    for (at, cover) in story.covers.iter().enumerate() {
        let trip = Trip { disguise: &disguise, story, contents: Contents::new(story.contents), at };
        if let Err(error) = trip.round_trips(*cover, script) {
            return script.error(&error);
        }
    }
}

fn plan(disguise: &Disguise, smallest: u32, seen: &[Seen], seed: u8, script: &mut Script) -> Result<(), CallError> {
    script.asked = format!("a plan after {} seen transfers, of slots of {smallest} blocks at least", seen.len());
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

/// A payload that was not found in plain covers is looked for in so many more of them, and in few where each is long.
const PLAIN_COVERS: usize = 6;
/// See [`PLAIN_COVERS`].
const FEW_PLAIN_COVERS: usize = 1;
/// From here on a cover is long.
const LONG_COVER: usize = 64 << 10;

/// The round trips through one cover of a story.
struct Trip<'a> {
    disguise: &'a Disguise,
    story: &'a Story,
    contents: Contents,
    /// Which of the story's covers.
    at: usize,
}

impl Trip<'_> {
    fn round_trips(&self, cover_bytes: usize, script: &mut Script) -> Result<(), CallError> {
        let cover = self.contents.noise(self.at, cover_bytes);
        let asked = u32::try_from(cover_bytes).unwrap_or(u32::MAX);
        let capacity = self.disguise.capacity(asked);
        let capacity = script.answered(capacity, "R-21", || format!("a cover of {cover_bytes} bytes"))?;
        let Some(Called { value: capacity, .. }) = capacity else { return Ok(()) };
        let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
        script.blank();
        script.line(&format!("cover of {cover_bytes} bytes: carries {capacity}"));
        for (number, payload) in self.story.payloads.iter().enumerate() {
            let bytes = match payload {
                Payload::Bytes(bytes) => *bytes,
                Payload::Capacity => capacity,
            };
            // A capacity of 0 is none, also for an empty payload.
            if bytes > capacity || capacity == 0 {
                script.line(&format!("  {bytes:>9} bytes do not fit"));
                continue;
            }
            self.round_trip(&cover, bytes, capacity, number, script)?;
        }
        if capacity < cover_bytes {
            self.one_byte_more(&cover, capacity, script)?;
        }
        self.nothing_in_plain(cover, script)
    }

    fn round_trip(
        &self,
        cover: &[u8],
        bytes: usize,
        capacity: usize,
        number: usize,
        script: &mut Script,
    ) -> Result<(), CallError> {
        let number = self.number(number);
        let payload = self.contents.data("payload", number, bytes, 0xa5);
        let carrier = self.disguise.embed(cover, &payload, &self.contents.key("seed", number, 7));
        let asked = || format!("{bytes} bytes in a cover of {}, which carries {capacity}", cover.len());
        let Some(carrier) = script.answered(carrier, "R-21", asked)? else { return Ok(()) };
        let changed = carrier.value.iter().zip(cover).filter(|(a, b)| a != b).count();
        let share = changed.saturating_mul(100).checked_div(cover.len()).unwrap_or(0);
        script.line(&format!("  {bytes:>9} bytes in and out again; {share} % of the cover changed"));
        script.logs(&carrier.logs);
        let mut others = 0;
        for bit in &self.story.flips {
            let Some(changed) = with_flipped(&carrier.value, *bit) else { continue };
            let found = self.disguise.extract(&changed);
            let Some(found) = script.answered(found, "R-23", || "a carrier with one bit changed".into())? else {
                continue;
            };
            others += u64::from(found.value.is_some_and(|found| found != payload));
        }
        if others > 0 {
            script.fail(format!("{others} carriers with one bit changed hold another payload (R-23)"));
        }
        Ok(())
    }

    /// No two payloads of a story have the same content and seed.
    fn number(&self, payload: usize) -> usize {
        self.at.saturating_mul(self.story.payloads.len().saturating_add(1)).saturating_add(payload)
    }

    fn one_byte_more(&self, cover: &[u8], capacity: usize, script: &mut Script) -> Result<(), CallError> {
        let number = self.number(self.story.payloads.len());
        let payload = self.contents.data("payload", number, capacity + 1, 0xa5);
        match self.disguise.embed(cover, &payload, &self.contents.key("seed", number, 7)) {
            Err(CallError::Refused { .. }) => script.line("  one byte more is refused"),
            Err(error) => return Err(error),
            Ok(_) => script.fail("one byte more than the capacity is embedded (R-21)"),
        }
        Ok(())
    }

    fn nothing_in_plain(&self, cover: Vec<u8>, script: &mut Script) -> Result<(), CallError> {
        let length = cover.len();
        let more = if length >= LONG_COVER { FEW_PLAIN_COVERS } else { PLAIN_COVERS };
        let more = if self.contents.is_varied() { more } else { 0 };
        let others = (1..=more).map(|more| self.contents.noise(self.at + more * self.story.covers.len(), length));
        for cover in std::iter::once(cover).chain(others) {
            let found = self.disguise.extract(&cover);
            match script.answered(found, "R-23", || format!("a plain cover of {length} bytes"))? {
                None => return Ok(()),
                Some(Called { value: None, .. }) => {}
                Some(Called { value: Some(_), .. }) => {
                    script.fail("a payload is found in a plain cover (R-23)");
                    return Ok(());
                }
            }
        }
        script.line("  nothing is found in the plain cover");
        Ok(())
    }
}

/// A carrier with one bit changed; none of one without bits.
fn with_flipped(carrier: &[u8], bit: u64) -> Option<Vec<u8>> {
    let mut changed = carrier.to_vec();
    let bits = u64::try_from(changed.len()).unwrap_or(u64::MAX).saturating_mul(8);
    let at = usize::try_from(bit.checked_rem(bits)? / 8).ok()?;
    *changed.get_mut(at)? ^= 1 << (bit % 8);
    Some(changed)
}
