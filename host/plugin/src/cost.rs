//! What a component's calls cost in fuel: a few ordinary calls of its kind, made once each. Fuel is exact, so one time is
//! enough; how much an unlikely call takes is what the conformance kit finds out.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fault::{CallError, Called};
use crate::host::{LoadRequest, Plugin as _, PluginHost};
use crate::kind::{Digest, Kind};
use crate::limits;
use crate::load_error::LoadError;
use crate::wit::{disguise, recovery, rotation};

/// What the calls of one function took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Cost {
    /// The function, as `rotation.step`.
    pub function: String,
    /// Calls that were made.
    pub calls: u32,
    /// Units of fuel of the cheapest of them.
    pub least: u64,
    /// Units of fuel of the dearest.
    pub most: u64,
    /// What one call may take.
    pub limit: u64,
    /// How a call failed or was refused, if one did; it counts for nothing above.
    pub failed: Option<String>,
}

/// One hour, in milliseconds.
const HOUR: u64 = 3_600_000;

impl PluginHost {
    /// Makes ordinary calls of the component's kind, with these settings (null: none), and says what they took. Empty for a
    /// cipher: its calls are limited by wall time alone.
    ///
    /// # Errors
    /// What makes it unloadable, wrong settings among it. `subject` is what messages call it.
    pub fn cost(&self, subject: &str, bytes: &[u8], config: &Value) -> Result<Vec<Cost>, LoadError> {
        let request = LoadRequest { slot: subject, bytes, pin: Some(Digest::of(bytes)), grants: &[], config };
        Ok(match self.inspect(subject, bytes)?.kind {
            Kind::Rotation => rotation(&self.load(&request)?),
            Kind::Recovery => recovery(&self.load(&request)?),
            Kind::Disguise => disguise(&self.load(&request)?),
            Kind::Cipher => Vec::new(),
        })
    }
}

/// Gathers the calls of one function.
struct Meter(Cost);

impl Meter {
    fn new(function: &str, limit: Option<u64>) -> Self {
        let (function, limit) = (function.to_owned(), limit.unwrap_or(u64::MAX));
        Self(Cost { function, calls: 0, least: u64::MAX, most: 0, limit, failed: None })
    }

    fn note<T>(&mut self, answer: Result<Called<T>, CallError>) -> Option<T> {
        match answer {
            Ok(called) => {
                self.0.calls += 1;
                self.0.least = self.0.least.min(called.fuel);
                self.0.most = self.0.most.max(called.fuel);
                Some(called.value)
            }
            Err(error) => {
                self.0.failed.get_or_insert_with(|| error.to_string());
                None
            }
        }
    }
}

fn done(meters: impl IntoIterator<Item = Meter>) -> Vec<Cost> {
    meters.into_iter().map(|meter| meter.0).collect()
}

fn rotation(policy: &crate::RotationPolicy) -> Vec<Cost> {
    use rotation::{Context, Decided, Event, HostLimits, KeyInfo, KeyState, OutcomeOfDecision};
    let (mut init, mut step) =
        (Meter::new("rotation.init", limits::DECISION.fuel), Meter::new("rotation.step", limits::DECISION.fuel));
    let key = |epoch| KeyInfo {
        epoch,
        state: if epoch == 3 { KeyState::Active } else { KeyState::Retired },
        since: epoch * HOUR,
        bytes_sealed: 1 << 30,
        blocks_sealed: 1 << 18,
        records_sealed: 1 << 14,
    };
    let mut context = Context {
        now: 3 * HOUR,
        pair: "pair".into(),
        entropy: 7_919,
        config: policy.facts().config.clone(),
        keys: [3, 2, 1].map(key).to_vec(),
        limits: HostLimits { min_interval: 1_000, max_age: 4_320 * HOUR, max_bytes: 1 << 40 },
        link_up: true,
    };
    let mut state = init.note(policy.init(&context)).map(|outcome| outcome.state).unwrap_or_default();
    let events = [
        Event::Started,
        Event::Timer,
        Event::Usage,
        Event::Requested("an operator's words".into()),
        Event::Decided(Decided { id: 1, outcome: OutcomeOfDecision::Refused("too soon".into()) }),
        Event::Suspect(3),
        Event::Rotated(3),
    ];
    for event in events {
        context.now += HOUR;
        if let Some(outcome) = step.note(policy.step(&state, &event, &context)) {
            state = outcome.state;
        }
    }
    done([init, step])
}

fn recovery(strategy: &crate::Recovery) -> Vec<Cost> {
    use recovery::{Context, Event, Extent, Progress, Swept};
    let (mut init, mut step) =
        (Meter::new("recovery.init", limits::DECISION.fuel), Meter::new("recovery.step", limits::DECISION.fuel));
    let blocks = 1 << 28;
    let mut context = Context {
        now: HOUR,
        volume: "pair".into(),
        config: strategy.facts().config.clone(),
        volume_blocks: blocks,
        progress: Progress { present: blocks, opened: 0, failed: 0 },
        entropy: 7_919,
    };
    let mut state = init.note(strategy.init(&context)).map(|outcome| outcome.state).unwrap_or_default();
    let read = |first| Extent { first, blocks: 8 };
    let events = [
        Event::Begin,
        Event::Accessed((0..64).map(|n| read(n << 20)).collect()),
        Event::Swept(Swept { extent: Extent { first: 0, blocks: 4_096 }, opened: 4_096, failed: 0 }),
        Event::Timer,
        Event::Requested("pause".into()),
    ];
    for event in events {
        context.now += 1_000;
        if let Some(outcome) = step.note(strategy.step(&state, &event, &context)) {
            state = outcome.state;
        }
    }
    done([init, step])
}

fn disguise(disguise: &crate::Disguise) -> Vec<Cost> {
    let meter = |function| Meter::new(function, limits::DISGUISE.fuel);
    let (mut plan, mut embed, mut extract) =
        (meter("disguise.plan"), meter("disguise.embed"), meter("disguise.extract"));
    let seen = |n: u64| disguise::Seen { gap: n % 50, blocks: 1 + u32::try_from(n % 16).unwrap_or(0) };
    let recent: Vec<_> = (0..256).map(seen).collect();
    plan.note(disguise.plan(&recent, 1, &[7; 32]));
    plan.note(disguise.plan(&[], 1, &[7; 32]));
    // Covers of one block and of sixteen, with a payload of a key's length.
    for bytes in [4_096_usize, 65_536] {
        let cover: Vec<u8> = (0..bytes).map(|n| u8::try_from(n * 31 % 251).unwrap_or(0)).collect();
        let carrier = embed.note(disguise.embed(&cover, &[0xa5; 1_500], &[7; 32]));
        extract.note(disguise.extract(&carrier.unwrap_or(cover)));
    }
    done([plan, embed, extract])
}
