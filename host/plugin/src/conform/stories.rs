//! Stories made by chance, in the form of `fixtures/`: what may happen to a plugin of each kind, the unlikely as often
//! as the likely.

use serde_yaml_ng::{Mapping, Value};

use super::Rule;
use super::chance::Chance;
use super::texts::{repeated, text};
use crate::kind::Kind;
use crate::limits;
use crate::rotation::RotationCall;
use crate::scenario::Scenario;
use crate::wit::rotation::{Context, Decided, Event, HostLimits, KeyInfo, KeyState, OutcomeOfDecision};
use crate::wit::types::Extension;

const HOUR: u64 = 3_600_000;
/// Calls of one story: settings that change the key every second must not make it last for ever.
const CALLS: u64 = 400;

/// How often a long story tells the same in each of its three parts.
pub(super) const ROUNDS: u64 = 60;
/// Calls of a long story.
const LONG_CALLS: u64 = 1_500;

/// Bytes of what an operator or another program writes.
const REQUEST_BYTES: usize = 5_000;
/// Bytes of the longest request of all.
const LONGEST_REQUEST_BYTES: usize = 28_000;
/// Bytes of what the host says of a decision, and of an extension.
const SAID_BYTES: usize = 1_000;
/// What a long story tells again and again beside what chance adds: one kind a story. Requests and looks come first, so that where the
/// fuel allows two stories alone a list of either is seen to grow.
const TOLD_LONG: [&str; 5] = ["request", "look", "suspect", "usage", "restart"];
/// A request of a long story: short, so that what keeps each grows and does not end at once.
const SHORT_REQUEST: &str = "the operator asks for a new key";

/// Bytes of a pair's name.
const NAME_BYTES: usize = 120;

/// With settings that change the key at every moment the calls are soon made.
const SETTINGS_ROTATION: &str =
    "{ calls: 4, host: { min-interval: 1s }, timeline: [{ request: a new key please }, { advance: 1d }] }";

pub(super) fn story(kind: Kind, rule: Rule, config: &serde_json::Value, turn: u32, chance: &mut Chance) -> Value {
    let mut story = Mapping::new();
    story.insert("about".into(), format!("{} ({}).", sentence(rule), rule.number()).into());
    story.insert("kind".into(), kind.name().into());
    if let Some(config) = serde_yaml_ng::to_value(config).ok().filter(|config| !config.is_null()) {
        story.insert("config".into(), config);
    }
    match kind {
        Kind::Rotation => rotation(rule, turn, chance, &mut story),
        Kind::Recovery => recovery(rule, chance, &mut story),
        Kind::Disguise => disguise(chance, &mut story),
        Kind::Cipher => cipher(chance, &mut story),
    }
    Value::Mapping(story)
}

/// A few calls with these settings: the first one, and one or two that follow it in any node.
pub(super) fn of_settings(kind: Kind, config: &serde_json::Value) -> Result<Value, serde_yaml_ng::Error> {
    let rest = match kind {
        Kind::Rotation => SETTINGS_ROTATION,
        Kind::Recovery => "{ volume-blocks: 8, timeline: [{ read: [0, 1] }, { advance: 1s }] }",
        Kind::Disguise => "{ seen: [{ gap: 5ms, blocks: 8, times: 40 }], seeds: [1], covers: [4096], payloads: [113] }",
        Kind::Cipher => "{ batches: [{ epoch: 1, first-sequence: 1, records: [[data, 0, 2], [zeroes, 8, 1]] }] }",
    };
    let mut story = Mapping::new();
    story.insert("about".into(), "Settings that are taken can be used (C-4).".into());
    story.insert("kind".into(), kind.name().into());
    story.insert("config".into(), serde_yaml_ng::to_value(config)?);
    story.extend(serde_yaml_ng::from_str::<Mapping>(rest)?);
    Ok(Value::Mapping(story))
}

/// Whether it is a scenario.
pub(super) fn form(story: &Value) -> Result<(), String> {
    let yaml = serde_yaml_ng::to_string(story).map_err(|error| error.to_string())?;
    Scenario::parse("conformance", &yaml).map(drop).map_err(|error| error.to_string())
}

/// As a scenario's title.
fn sentence(rule: Rule) -> String {
    let mut letters = rule.words().chars();
    letters.next().map(|first| first.to_uppercase().collect::<String>() + letters.as_str()).unwrap_or_default()
}

fn entry(name: &str, value: impl Into<Value>) -> Value {
    let mut entry = Mapping::new();
    entry.insert(name.into(), value.into());
    Value::Mapping(entry)
}

fn span(ms: u64) -> Value {
    format!("{ms}ms").into()
}

fn numbers(chance: &mut Chance, count: u64, mut number: impl FnMut(&mut Chance) -> Value) -> Value {
    Value::Sequence((0..count).map(|_| number(chance)).collect())
}

fn rotation(rule: Rule, turn: u32, chance: &mut Chance, story: &mut Mapping) {
    let mut host = Mapping::new();
    let floors = if rule == Rule::NeverBegs {
        [HOUR, 2 * HOUR, 4 * HOUR, 6 * HOUR]
    } else if rule == Rule::Heeds {
        [0, 60_000, HOUR, 4 * HOUR]
    } else {
        [0, 1_000, 60_000, HOUR]
    };
    let floor = chance.pick(&floors).unwrap_or(0);
    host.insert("min-interval".into(), span(floor));
    host.insert("max-age".into(), span(floor + HOUR + chance.below(48 * HOUR)));
    let delivery = chance.pick(&[0, 2_000, 600_000]).unwrap_or(0);
    host.insert("delivery".into(), span(delivery));
    story.insert("host".into(), Value::Mapping(host));
    story.insert("calls".into(), CALLS.into());
    // Told twice there are more calls, which must not get other numbers for that.
    let count = if rule == Rule::ToldTwice { 1 } else { 1 + chance.below(7) };
    story.insert("entropy".into(), numbers(chance, count, |chance| chance.next().into()));
    let mut timeline = Vec::new();
    // The first long one is of nothing but requests: what chance adds may use up its calls.
    let is_bare = rule == Rule::StaysSmall && turn == 0;
    let happenings = if rule == Rule::StaysSmall { 1 + chance.below(3) } else { 4 + chance.below(20) };
    let happenings = if is_bare { 0 } else { happenings };
    for _ in 0..happenings {
        timeline.push(happening(rule, chance));
    }
    match rule {
        Rule::StaysSmall => {
            story.insert("calls".into(), LONG_CALLS.into());
            timeline.extend(told_long(turn, chance));
        }
        Rule::Heeds => {
            // Whatever is on its way arrives, and no limit of the host's stands in the way of another.
            let free = span(floor + 2 * HOUR);
            timeline.extend([entry("link", "up"), entry("advance", free.clone()), entry("suspect", "current")]);
            // Whoever asked for it has a new key a little later, and the floor lies ahead: that one is known to others, too.
            timeline.extend([entry("advance", span(delivery + 1 + chance.below(1_000))), entry("suspect", "current")]);
            timeline.extend([entry("advance", span(2 * floor + HOUR)), entry("advance", free)]);
        }
        Rule::NeverBegs => {
            // A new key, and at once the wish for another: the wait for the floor's end lies ahead, and nothing else happens in it.
            timeline.extend([entry("link", "up"), entry("advance", span(2 * floor + HOUR))]);
            for wish in [entry("request", SHORT_REQUEST), entry("suspect", "current")] {
                timeline.extend([wish.clone(), entry("advance", span(1 + chance.below(60_000))), wish]);
                timeline.push(entry("advance", span(2 * floor)));
            }
        }
        Rule::ForeignState => {
            timeline.push(entry("state", foreign_state(chance)));
            timeline.push(entry("advance", span(chance.below(6 * HOUR))));
        }
        Rule::Migrates => {
            timeline.push(entry("migrate", chance.pick(&[0, 1, 2, u64::from(u32::MAX)]).unwrap_or(0)));
            timeline.push(entry("advance", span(chance.below(6 * HOUR))));
        }
        Rule::NeverDies | Rule::WithinBounds | Rule::Pure => {
            for _ in 0..1 + chance.below(6) {
                let at = usize::try_from(chance.below(u64::try_from(timeline.len()).unwrap_or(1))).unwrap_or(0);
                if let Ok(call) = serde_yaml_ng::to_value(call(chance)) {
                    timeline.insert(at, entry("call", call));
                }
            }
        }
        Rule::ComesToRest => {
            // Within the second before a wake-up: whoever asks for the same moment again is clamped, and told.
            for _ in 0..2 {
                timeline.push(happening(rule, chance));
                timeline.push(entry("before-wake", span(1 + chance.below(999))));
                timeline.push(match chance.below(3) {
                    0 => entry("suspect", "current"),
                    1 => entry("request", SHORT_REQUEST),
                    _ => "restart".into(),
                });
            }
        }
        Rule::SettingsChecked
        | Rule::WakesAhead
        | Rule::ToldTwice
        | Rule::Finishes
        | Rule::RoundTrips
        | Rule::NeverGuesses
        | Rule::PlansRepeat
        | Rule::Opens
        | Rule::Depends => {}
    }
    story.insert("timeline".into(), Value::Sequence(timeline));
}

fn happening(rule: Rule, chance: &mut Chance) -> Value {
    match chance.below(12) {
        0..=3 => {
            let mut advance = Mapping::new();
            let most = chance.pick(&[2_000, HOUR, 6 * HOUR]).unwrap_or(HOUR);
            advance.insert("advance".into(), span(1 + chance.below(most)));
            if chance.below(2) == 0 {
                advance
                    .insert("sealing".into(), (chance.next() >> chance.pick(&[20, 24, 30, 40]).unwrap_or(30)).into());
            }
            Value::Mapping(advance)
        }
        4 => entry("usage", chance.next() >> (20 + chance.below(30))),
        5 => entry("request", text(chance, REQUEST_BYTES)),
        6 => match chance.below(3) {
            0 => entry("suspect", chance.edgy()),
            _ => entry("suspect", "current"),
        },
        7 => entry("link", chance.text(&["up", "up", "down"])),
        // A clock that jumps makes two tellings differ in when, which is not what that rule is about.
        8 if !matches!(rule, Rule::ToldTwice | Rule::StaysSmall | Rule::NeverBegs) => {
            let step = chance.pick(&["+3650d", "-3650d", "-2h", "+2h", "-1ms", "+100000d"]).unwrap_or("-2h");
            entry("clock", step)
        }
        9 if rule != Rule::ToldTwice => entry("crash", chance.text(&["before-ack", "after-ack"])),
        10 => "restart".into(),
        _ => entry("advance", span(chance.below(HOUR))),
    }
}

/// What every round of the long story with this number tells; little time passes with it, in which no key's age matters. Where each round is
/// a look, so much passes as the plugin wanted to wait.
fn told_long(turn: u32, chance: &mut Chance) -> Vec<Value> {
    let kind = usize::try_from(turn).ok().and_then(|turn| TOLD_LONG.get(turn % TOLD_LONG.len())).copied();
    let mut told = match kind {
        Some("suspect") => vec![entry("suspect", "current")],
        Some("usage") => vec![entry("usage", 1_u64 << (20 + chance.below(16)))],
        Some("look") => return vec![entry("before-wake", span(1)), entry("advance", span(1_000))],
        Some("restart") => vec![entry("link", "down"), "restart".into(), entry("link", "up")],
        _ => vec![entry("request", SHORT_REQUEST)],
    };
    told.push(entry("advance", span(1 + chance.below(60_000))));
    told
}

/// The same, often, told in three parts.
pub(super) fn three_times(timeline: &Value) -> Value {
    let mut part = Mapping::new();
    part.insert("repeat".into(), ROUNDS.into());
    part.insert("of".into(), timeline.clone());
    Value::Sequence(vec![Value::Mapping(part); 3])
}

/// In the same surroundings the journal holds each of these states in its turn. Little time passes between them: what matters is a
/// step with each, and one more that reads another part of it.
pub(super) fn of_states(kind: Kind, story: &Value, states: Vec<String>, chance: &mut Chance) -> Value {
    let mut timeline = Vec::new();
    for (turn, state) in (chance.below(4)..).zip(states) {
        let follows = match kind {
            Kind::Recovery => follows_recovering(turn, story, chance),
            Kind::Rotation | Kind::Disguise | Kind::Cipher => follows(turn, chance),
        };
        timeline.extend([entry("state", state), follows, entry("advance", span(chance.below(3_000)))]);
    }
    timeline.push(entry("advance", span(chance.below(6 * HOUR))));
    let mut story = story.clone();
    if let Some(story) = story.as_mapping_mut() {
        story.insert("timeline".into(), Value::Sequence(timeline));
    }
    story
}

fn follows(turn: u64, chance: &mut Chance) -> Value {
    match turn % 4 {
        0 => entry("request", SHORT_REQUEST),
        1 => entry("suspect", "current"),
        2 => entry("usage", chance.next() >> (20 + chance.below(30))),
        _ => entry("link", chance.text(&["up", "down"])),
    }
}

/// What a strategy is told: what was swept comes by itself, with the time that passes after it.
fn follows_recovering(turn: u64, story: &Value, chance: &mut Chance) -> Value {
    let blocks = story.get("volume-blocks").and_then(Value::as_u64).unwrap_or(1);
    match turn % 4 {
        0 => entry("request", SHORT_REQUEST),
        1 => "restart".into(),
        _ => entry("read", Value::Sequence(vec![chance.below(blocks).into(), (1 + chance.below(64)).into()])),
    }
}

fn foreign_state(chance: &mut Chance) -> String {
    match chance.below(8) {
        0 => String::new(),
        1 => "null".into(),
        2 => "{}".into(),
        3 => "{\"v\":1,\"next\":18446744073709551615,\"own\":{}}".into(),
        4 => format!("{{\"v\":{},\"next\":{},\"own\":null}}", chance.edgy(), chance.edgy()),
        5 => "[".repeat(4_000),
        6 => "x".repeat(limits::STATE_BYTES),
        _ => (0..chance.below(200)).filter_map(|_| char::from_u32(u32::try_from(chance.below(0x3000)).ok()?)).collect(),
    }
}

/// Everything that the types allow, however unlikely.
fn call(chance: &mut Chance) -> RotationCall {
    let context = context(chance);
    let event = match chance.below(9) {
        0 => return RotationCall::Init { context },
        1 => Event::Started,
        2 => Event::Timer,
        3 => Event::Usage,
        4 => Event::Requested(repeated(chance, LONGEST_REQUEST_BYTES)),
        5 => Event::Suspect(chance.edgy()),
        6 => Event::Rotated(chance.edgy()),
        7 => {
            let text = text(chance, SAID_BYTES);
            let outcome = match chance.below(3) {
                0 => OutcomeOfDecision::Applied,
                1 => OutcomeOfDecision::Clamped(text),
                _ => OutcomeOfDecision::Refused(text),
            };
            Event::Decided(Decided { id: chance.edgy(), outcome })
        }
        _ => Event::Ext(Extension { name: text(chance, SAID_BYTES), json: text(chance, SAID_BYTES) }),
    };
    RotationCall::Step { state: "own".into(), event, context }
}

fn context(chance: &mut Chance) -> Context {
    let count = chance.pick(&[0, 1, 2, 3, limits::KEYS]).unwrap_or(1);
    let states = [KeyState::Delivering, KeyState::Active, KeyState::Retired, KeyState::Suspect];
    let key = |chance: &mut Chance| KeyInfo {
        epoch: chance.edgy(),
        state: chance.pick(&states).unwrap_or(KeyState::Active),
        since: chance.edgy(),
        bytes_sealed: chance.edgy(),
        blocks_sealed: chance.edgy(),
        records_sealed: chance.edgy(),
    };
    let keys = (0..count).map(|_| key(chance)).collect();
    Context {
        now: chance.edgy(),
        pair: text(chance, NAME_BYTES),
        entropy: chance.next(),
        config: "{}".into(),
        keys,
        limits: HostLimits { min_interval: chance.edgy(), max_age: chance.edgy(), max_bytes: chance.edgy() },
        link_up: chance.below(2) == 0,
    }
}

fn recovery(rule: Rule, chance: &mut Chance, story: &mut Mapping) {
    let most = chance.pick(&[1, 100, 20_000]).unwrap_or(100);
    let blocks = 1 + chance.below(most);
    story.insert("volume-blocks".into(), blocks.into());
    let extents = |chance: &mut Chance| {
        let count = chance.below(5);
        numbers(chance, count, |chance| {
            Value::Sequence(vec![chance.below(blocks).into(), (1 + chance.below(blocks)).into()])
        })
    };
    if chance.below(2) == 0 {
        story.insert("present".into(), extents(chance));
    }
    story.insert("damaged".into(), extents(chance));
    story.insert("speed".into(), (1 + chance.below(1_000_000)).into());
    story.insert("entropy".into(), chance.next().into());
    let mut timeline = Vec::new();
    for _ in 0..chance.below(16) {
        timeline.push(match chance.below(8) {
            0 | 1 => entry("advance", span(chance.below(60_000))),
            2 => "restart".into(),
            4 => entry("clock", chance.text(&["+3650d", "-3650d", "-2h", "+2h", "-1ms"])),
            5 => entry("crash", chance.text(&["before-ack", "after-ack"])),
            3 if rule != Rule::Finishes => entry("request", text(chance, REQUEST_BYTES)),
            _ => entry("read", Value::Sequence(vec![chance.below(blocks).into(), (1 + chance.below(64)).into()])),
        });
    }
    if rule == Rule::ForeignState {
        timeline.push(entry("state", foreign_state(chance)));
    }
    timeline.push(entry("run", "52w"));
    story.insert("timeline".into(), Value::Sequence(timeline));
}

fn disguise(chance: &mut Chance, story: &mut Mapping) {
    let smallest = chance.pick(&[1, 1, 2, 3, 16, 256]).unwrap_or(1);
    story.insert("smallest".into(), smallest.into());
    let count = chance.below(6);
    let seen = numbers(chance, count, |chance| {
        let mut sight = Mapping::new();
        sight.insert("gap".into(), span(chance.edgy() >> 20));
        sight.insert("blocks".into(), chance.below(300).into());
        sight.insert("times".into(), (1 + chance.below(40)).into());
        Value::Mapping(sight)
    });
    story.insert("seen".into(), seen);
    story.insert("seeds".into(), numbers(chance, 3, |chance| chance.below(256).into()));
    let covers = [0, 1, 31, 52, 100, 512, 4_096, 65_536, 1 << 20];
    story.insert("covers".into(), numbers(chance, 2, |chance| chance.pick(&covers).unwrap_or(512).into()));
    let mut payloads = vec!["capacity".into(), 0.into()];
    payloads.extend((0..3).map(|_| Value::from(chance.below(3_000))));
    story.insert("payloads".into(), Value::Sequence(payloads));
    story.insert("flips".into(), numbers(chance, 8, |chance| (chance.next() >> 40).into()));
    story.insert("contents".into(), chance.next().into());
}

fn cipher(chance: &mut Chance, story: &mut Mapping) {
    let count = 1 + chance.below(4);
    let batches = numbers(chance, count, |chance| {
        let block = chance.pick(&[512, 1_024, 4_096, 65_536]).unwrap_or(4_096_u64);
        let mut batch = Mapping::new();
        batch.insert("epoch".into(), (1 + (chance.edgy() >> 1)).into());
        batch.insert("first-sequence".into(), (1 + chance.below(1 << 47)).into());
        batch.insert("block-bytes".into(), block.into());
        // A batch of an own algorithm holds at most 4 MiB.
        let fit = u64::try_from(limits::RAW_BATCH_BYTES).unwrap_or(1 << 22) / block;
        let room = (fit / 4).clamp(1, 64);
        let count = 1 + chance.below(3);
        let mut records: Vec<Value> = (0..count)
            .map(|_| {
                let kind = chance.text(&["data", "data", "zeroes", "cover"]);
                Value::Sequence(vec![kind.into(), (chance.edgy() >> 9).into(), (1 + chance.below(room)).into()])
            })
            .collect();
        // Many small ones, now and then: with the three a batch holds all that it may.
        let many = chance.pick(&[0, 0, 0, 0, 60, 600]).unwrap_or(0).min(fit / 4);
        if many > 0 {
            records.push(Value::Sequence(vec!["data".into(), 0.into(), 1.into(), many.into()]));
        }
        batch.insert("records".into(), Value::Sequence(records));
        Value::Mapping(batch)
    });
    story.insert("batches".into(), batches);
    story.insert("contents".into(), chance.next().into());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kit does: what is told of a strategy's own state is another story than what is told of a policy's.
    #[test]
    fn every_story_that_the_kit_makes_is_a_scenario() {
        for kind in Kind::ALL {
            for (rule, turn) in Rule::of(kind).into_iter().flat_map(|rule| (0..40).map(move |turn| (rule, turn))) {
                let mut chance = Chance::new(1, rule.number(), turn);
                let story = story(kind, rule, &serde_json::Value::Null, turn, &mut chance);
                assert_eq!(form(&story), Ok(()), "{kind:?} {rule} {turn}");
                if rule == Rule::ForeignState {
                    let states = (0..9).map(|at| format!("level={at}")).collect();
                    let of_its_own = of_states(kind, &story, states, &mut chance);
                    assert_eq!(form(&of_its_own), Ok(()), "{kind:?} {rule} {turn}, of its own");
                }
            }
        }
    }

    /// What is tried must be what was written: a number or a character that YAML has no form for would be another setting.
    #[test]
    fn settings_that_people_get_wrong_come_through_a_scenario_as_they_are() {
        let schema = r#"{ "properties": { "interval": {}, "max-bytes": {} } }"#;
        for config in super::super::settings::unlikely(schema, &serde_json::json!({ "kept": "3d" })) {
            for kind in Kind::ALL {
                let story = of_settings(kind, &config).map_err(|error| error.to_string());
                assert_eq!(story.as_ref().map_err(Clone::clone).and_then(form), Ok(()), "{config}");
                let text = story.ok().and_then(|story| serde_yaml_ng::to_string(&story).ok()).unwrap_or_default();
                let read: Value = serde_yaml_ng::from_str(&text).unwrap_or_default();
                let read = read.get("config").and_then(|config| serde_json::to_value(config).ok());
                assert_eq!(read.as_ref(), Some(&config));
            }
        }
    }

    #[test]
    fn a_long_story_tells_of_everything_that_happens_and_of_requests_and_looks_first() {
        let kinds = (0..5).map(|turn| {
            let mut chance = Chance::new(1, Rule::StaysSmall.number(), turn);
            let story = story(Kind::Rotation, Rule::StaysSmall, &serde_json::Value::Null, turn, &mut chance);
            let told = story["timeline"].as_sequence().cloned().unwrap_or_default();
            ["request", "before-wake", "suspect", "usage", "link"]
                .map(|kind| told.iter().any(|entry| entry.get(kind).is_some()))
        });
        let kinds: Vec<_> = kinds.collect();
        assert!(
            kinds[0] == [true, false, false, false, false] && kinds[1][1] && kinds[2][2] && kinds[3][3] && kinds[4][4],
            "{kinds:?}"
        );
    }
}
