//! What a story says of a rule: whether it is broken, in words, and by which flaw, so that a story that is cut down shows the same
//! flaw and of two rules that one flaw breaks the nearer one comes first.

use std::collections::BTreeMap;

use serde_yaml_ng::Value;

use super::{GROWTH_BYTES, Rule, Verdict, stories};
use crate::fault::{FaultClass, escaped};
use crate::kind::Kind;
use crate::limits;
use crate::scenario::{Refusal, Run, Scenario};

/// A rotation that is refused so often in one wait for the host's floor was asked for by a policy that does not hear the refusal. Whoever
/// doubles the wait from a second on asks twelve times in an hour.
const REFUSED_IN_ONE_WAIT: u64 = 12;

/// What went wrong, without when, how often and with which words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Flaw {
    /// A fault.
    Fault(String),
    /// Call followed call: what was decided again and again, and what came of it.
    Restless { deed: String, came: Option<&'static str> },
    /// A wake-up lies behind.
    LateWake,
    /// It cannot read its own state.
    Unread,
    /// A call that a node makes is refused.
    Refused(String),
    /// What only its own rule knows.
    Other(String),
}

/// A rule that a story breaks.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) said: String,
    pub(super) flaw: Flaw,
    /// The story as it was told.
    pub(super) story: Value,
    pub(super) transcript: String,
}

/// How the story breaks the rule; none where it does not, or is no story.
pub(super) fn judge(rule: Rule, story: &Value, tell: &impl Fn(&Value) -> Option<Run>) -> Option<Judged> {
    let mut story = story.clone();
    if rule == Rule::StaysSmall {
        let base = story.get("timeline")?.clone();
        story.as_mapping_mut()?.insert("timeline".into(), stories::three_times(&base));
    }
    let run = tell(&story)?;
    let (said, flaw) = match rule {
        Rule::Pure => {
            let again = tell(&story)?;
            let otherwise =
                (again.transcript != run.transcript).then_some("the same story went otherwise the second time");
            other(run.impure.as_deref().or(otherwise))
        }
        Rule::NeverDies => {
            let died = run.fault.filter(|class| is_death(*class)).map(|class| faulty(&run, class));
            // A policy that cannot read its own state has a rule for that.
            let is_recovery = story.get("kind").and_then(Value::as_str) == Some(Kind::Recovery.name());
            died.or_else(|| refused(&run)).or_else(|| unread(&run).filter(|_| is_recovery))
        }
        Rule::WithinBounds => {
            let outside = run.fault.filter(|class| *class == FaultClass::Protocol && !run.restless);
            outside.map(|class| faulty(&run, class))
        }
        Rule::ForeignState => {
            let died = run.fault.map(|class| if run.restless { restless(&run) } else { faulty(&run, class) });
            died.or_else(|| refused(&run))
        }
        Rule::Migrates => unread(&run).or_else(|| run.fault.map(|class| faulty(&run, class))),
        Rule::ComesToRest => run.restless.then(|| restless(&run)),
        Rule::ToldTwice => more_keys(&run, &mut story, tell),
        Rule::StaysSmall => growth(&run).map(|said| (said, Flaw::Other("growth".into()))),
        Rule::Heeds => other(unheeded(&run)),
        Rule::NeverBegs => begging(&run),
        Rule::Finishes => {
            let left_alone = story.get("timeline").and_then(|timeline| timeline.as_sequence()?.last()?.get("run"));
            let ended = run.finished || run.restless || is_cut_short(&run) || left_alone.is_none();
            other((!ended).then_some("the plan is not finished"))
        }
        Rule::WakesAhead => {
            let late = (count(&run, "late-wakes") > 0).then_some("it asks to be woken at a time that has passed");
            let late = late.map(|said| (said.to_owned(), Flaw::LateWake));
            late.or_else(|| other((count(&run, "many-wakes") > 0).then_some("it asks to be woken twice in one answer")))
        }
        Rule::RoundTrips | Rule::Opens => {
            other(rule.failure(&run).as_deref()).or_else(|| run.fault.map(|class| faulty(&run, class)))
        }
        Rule::NeverGuesses | Rule::PlansRepeat | Rule::Depends => other(rule.failure(&run).as_deref()),
        Rule::SettingsChecked => None,
    }?;
    let (said, flaw) = match unread(&run).filter(|_| flaw != Flaw::Unread) {
        Some((why, flaw)) if matches!(rule, Rule::ComesToRest | Rule::Heeds | Rule::NeverBegs) => {
            (format!("{why}: {said}"), flaw)
        }
        Some(_) | None => (said, flaw),
    };
    Some(Judged { said, flaw, story, transcript: run.transcript })
}

/// Whether an honest policy that is part of the host would seem to break the rule in this story, too. Never for a kind that has none.
pub(super) fn is_of_the_story(rule: Rule, story: &Value) -> bool {
    let to_listener = |story: &Value| {
        let yaml = serde_yaml_ng::to_string(story).ok()?;
        Scenario::parse("conformance", &yaml).ok()?.play_to_listener()
    };
    judge(rule, story, &to_listener).is_some()
}

const fn is_death(class: FaultClass) -> bool {
    match class {
        FaultClass::Timeout | FaultClass::Fuel | FaultClass::Memory | FaultClass::Panic => true,
        FaultClass::Protocol | FaultClass::Invariant => false,
    }
}

/// A fault or a refusal ended the story before it was told.
const fn is_cut_short(run: &Run) -> bool {
    run.fault.is_some() || run.refusal.is_some()
}

/// The rule that a fault or a refusal is about that ended the story.
pub(super) fn rule_of_end(run: &Run) -> Option<Rule> {
    if run.restless {
        return Some(Rule::ComesToRest);
    }
    is_cut_short(run).then(|| if run.fault.is_none_or(is_death) { Rule::NeverDies } else { Rule::WithinBounds })
}

/// What goes wrong in the few calls with settings that the plugin took.
pub(super) fn with_settings(run: &Run) -> Option<String> {
    let refused = || refused(run).map(|(said, _)| said);
    run.died.clone().or_else(refused).or_else(|| run.failures.first().cloned())
}

fn count(run: &Run, what: &str) -> u64 {
    run.counts.get(what).copied().unwrap_or(0)
}

fn other(said: Option<&str>) -> Option<(String, Flaw)> {
    said.map(|said| (said.to_owned(), Flaw::Other(kind_of(said))))
}

fn faulty(run: &Run, class: FaultClass) -> (String, Flaw) {
    let article = if class == FaultClass::Invariant { "an" } else { "a" };
    let said = format!("{article} {class} fault");
    let flaw = Flaw::Fault(kind_of(run.died.as_deref().unwrap_or(&said)));
    (said, flaw)
}

fn restless(run: &Run) -> (String, Flaw) {
    let again = run.again.as_ref();
    let (deed, came) = again.map(|again| (again.deed.clone(), again.came)).unwrap_or_default();
    let what = again.map(|again| format!(": {}", again.said)).unwrap_or_default();
    (format!("call followed call, and no time passed{what}"), Flaw::Restless { deed, came })
}

/// A call that every node makes: of a kind whose refusals have no rule of their own.
fn refused(run: &Run) -> Option<(String, Flaw)> {
    let Refusal { function, why, asked } = run.refusal.as_ref()?;
    let said = format!("{function} was refused, asked `{}`: {why}", escaped(asked));
    Some((said, Flaw::Refused(kind_of(&format!("{function} {why}")))))
}

fn unheeded(run: &Run) -> Option<&'static str> {
    if count(run, "unheeded-suspicions") > 0 {
        return Some("told that the key in force may be known to others, it neither asks for a new one nor alerts");
    }
    (count(run, "forgotten-suspicions") > 0).then_some(
        "told that the key in force may be known to others, it asks below the host's floor, is refused, and neither asks again nor alerts",
    )
}

fn unread(run: &Run) -> Option<(String, Flaw)> {
    (count(run, "unread-states") > 0)
        .then(|| ("it cannot read the state that it wrote itself".to_owned(), Flaw::Unread))
}

fn begging(run: &Run) -> Option<(String, Flaw)> {
    let times = count(run, "begged");
    let said = || {
        format!(
            "of its own accord it asks {times} times for a key that the host's floor forbids, in one wait for the floor's end"
        )
    };
    (times > REFUSED_IN_ONE_WAIT).then(|| (said(), Flaw::Other("begging".into())))
}

fn more_keys(run: &Run, story: &mut Value, tell: &impl Fn(&Value) -> Option<Run>) -> Option<(String, Flaw)> {
    let once = count(run, "rotations");
    if run.counts.contains_key("cut") {
        // Both tellings would end somewhere, and not at the same place.
        return None;
    }
    story.as_mapping_mut()?.insert("told".into(), "twice".into());
    story.as_mapping_mut()?.insert("calls".into(), 4_000.into());
    let twice = count(&tell(story)?, "rotations");
    let said = || format!("{once} new keys told once, {twice} told twice");
    (twice > once).then(|| (said(), Flaw::Other("more keys".into())))
}

/// What a state grew in each of the last two thirds of a story that tells the same three times. A list that keeps the last fifty of
/// something is full after the first; digits that a counter gains are a few bytes.
fn growth(run: &Run) -> Option<String> {
    let [first, second, third] = run.states[..] else { return None };
    let grew = |from: u64, to: u64| to.saturating_sub(from) >= GROWTH_BYTES;
    let is_long = usize::try_from(count(run, "state-bytes")).is_ok_and(|longest| longest > limits::STATE_BYTES / 2);
    let outgrew = run.fault == Some(FaultClass::Protocol) && is_long;
    if run.counts.contains_key("cut") || !(outgrew || (grew(first, second) && grew(second, third))) {
        return None;
    }
    let place = run.ends.as_ref().and_then(|(first, last)| grown(first, last));
    let place = place.map(|place| format!("; what grows is {place}")).unwrap_or_default();
    Some(if outgrew {
        format!("the state outgrew its bound in {} rounds of the same{place}", 3 * stories::ROUNDS)
    } else {
        let rounds = stories::ROUNDS;
        format!("the state has {first}, {second} and {third} bytes after each {rounds} rounds of the same{place}")
    })
}

/// Where most of what a state gained is, as a JSON pointer; none where it is no JSON, or all of it gained a little.
fn grown(first: &str, last: &str) -> Option<String> {
    let read = |state: &str| serde_json::from_str::<serde_json::Value>(state).ok();
    let (first, last) = (read(first)?, read(last)?);
    let (mut before, mut after, mut place) = (&first, &last, String::new());
    let length = |value: &serde_json::Value| value.to_string().len();
    let none = serde_json::Value::Null;
    // Down to where it is no longer one field of several that has gained most of it.
    while let Some(fields) = after.as_object() {
        let whole = length(after).saturating_sub(length(before));
        let old = |name: &String| before.get(name).unwrap_or(&none);
        let gains = fields.iter().map(|(name, value)| (length(value).saturating_sub(length(old(name))), name, value));
        let Some((gained, name, value)) = gains.max_by_key(|(gained, ..)| *gained) else { break };
        if gained * 2 < whole {
            break;
        }
        place = format!("{place}/{}", escaped(&name.replace('~', "~0").replace('/', "~1")));
        (before, after) = (old(name), value);
    }
    let entries = |value: &serde_json::Value| {
        let list = value.as_array().map(|list| (list.len(), "entries"));
        list.or_else(|| value.as_object().map(|fields| (fields.len(), "fields")))
    };
    let counts = entries(before).zip(entries(after)).filter(|((before, _), (after, _))| before < after);
    let counts = counts.map(|((before, _), (after, what))| format!(" (first {before}, then {after} {what})"));
    (!place.is_empty()).then(|| format!("`{place}`{}", counts.unwrap_or_default()))
}

/// A message up to what it quotes, without its numbers; and where in the source it was, as `src/lib.rs:12:3`.
fn kind_of(message: &str) -> String {
    let quotes = ['"', '\'', '`'];
    let plain = message.split(quotes).next().unwrap_or_default();
    let is_place =
        |word: &&str| word.split_once(':').is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
    let places = message.split_whitespace().filter(is_place);
    let words = plain.split_whitespace().filter(|word| !is_place(word));
    let words = words.map(|word| word.chars().filter(|c| !c.is_ascii_digit()).collect::<String>());
    words.chain(places.map(str::to_owned)).collect::<Vec<_>>().join(" ")
}

/// The rule that is to be mended first, where this one is broken by a flaw that is nearer to that one.
fn cause(rule: Rule, flaw: &Flaw, flaws: &BTreeMap<Rule, Flaw>) -> Option<Rule> {
    let has = |rule: Rule, flaw: &Flaw| flaws.get(&rule) == Some(flaw);
    let cause = match flaw {
        Flaw::Unread if has(Rule::Migrates, flaw) => Rule::Migrates,
        // It is clamped, which is told: answered with another one it never comes to rest.
        Flaw::Restless { deed, .. } if deed == "wake-at" && has(Rule::WakesAhead, &Flaw::LateWake) => Rule::WakesAhead,
        Flaw::Restless { .. } if has(Rule::ComesToRest, flaw) => Rule::ComesToRest,
        Flaw::Unread | Flaw::Restless { .. } | Flaw::Fault(_) | Flaw::LateWake | Flaw::Refused(_) | Flaw::Other(_) => {
            return None;
        }
    };
    (cause != rule).then_some(cause)
}

/// Where one rule's flaw is why another is broken its verdict comes first, and the other says so.
pub(super) fn explain(verdicts: &mut Vec<Verdict>, flaws: &BTreeMap<Rule, Flaw>) {
    for (rule, flaw) in flaws {
        let Some(first) = cause(*rule, flaw, flaws) else { continue };
        let at = |rule| verdicts.iter().position(|verdict: &Verdict| verdict.rule == rule);
        let Some((cause, result)) = at(first).zip(at(*rule)) else { continue };
        if let Some(broken) = verdicts.get_mut(result).and_then(|verdict| verdict.broken.as_mut()) {
            broken.said.push_str(&format!("; mend {} first", first.number()));
        }
        if cause > result {
            let cause = verdicts.remove(cause);
            verdicts.insert(result, cause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restless(deed: &str, came: Option<&'static str>) -> Flaw {
        Flaw::Restless { deed: deed.into(), came }
    }

    #[test]
    fn the_rule_nearest_to_the_flaw_is_the_cause() {
        let late = (Rule::WakesAhead, Flaw::LateWake);
        let wakes = restless("wake-at", Some("clamped"));
        let rest = (Rule::ComesToRest, wakes.clone());
        let check = |rule, flaw: Flaw, others: &[&(Rule, Flaw)]| {
            let flaws = others.iter().copied().cloned().chain([(rule, flaw.clone())]).collect();
            cause(rule, &flaw, &flaws)
        };
        assert_eq!(check(Rule::ComesToRest, wakes.clone(), &[&late]), Some(Rule::WakesAhead));
        assert_eq!(check(Rule::ForeignState, wakes.clone(), &[&late, &rest]), Some(Rule::WakesAhead));
        assert_eq!(check(Rule::ForeignState, wakes.clone(), &[&rest]), Some(Rule::ComesToRest));
        assert_eq!(check(Rule::ForeignState, restless("rotate", Some("refused")), &[&rest]), None);
        assert_eq!(check(Rule::ComesToRest, restless("rotate", Some("refused")), &[&late]), None);
        assert_eq!(check(Rule::ComesToRest, wakes, &[&(Rule::WakesAhead, Flaw::Other("twice".into()))]), None);
        let unread = (Rule::Migrates, Flaw::Unread);
        assert_eq!(check(Rule::Heeds, Flaw::Unread, &[&unread]), Some(Rule::Migrates));
        assert_eq!(check(Rule::Migrates, Flaw::Unread, &[&unread]), None);
    }

    #[test]
    fn what_grows_in_a_state_is_named_as_deep_as_one_field_has_most_of_it() {
        let envelope = |own: &str| format!(r#"{{"v":1,"next":99,"own":{own}}}"#);
        let grown = |first: &str, last: &str| grown(&envelope(first), &envelope(last));
        let list = grown(r#"{"asked":["a"],"born":1}"#, r#"{"asked":["a","b","c"],"born":100}"#);
        assert_eq!(list.as_deref(), Some("`/own/asked` (first 1, then 3 entries)"));
        let text = grown(r#"{"a/b":{"seen":"."}}"#, r#"{"a/b":{"seen":"........"}}"#);
        assert_eq!(text.as_deref(), Some("`/own/a~1b/seen`"));
        let fields = grown(r#"{"1":1}"#, r#"{"1":1,"2":2,"3":3,"4":4,"5":5}"#);
        assert_eq!(fields.as_deref(), Some("`/own` (first 1, then 5 fields)"));
        assert_eq!(super::grown("....", "........"), None);
    }

    #[test]
    fn a_message_is_known_again_whatever_its_numbers_and_quotations_are() {
        let kinds = [
            "panic fault in rotation.step: byte index 64 is no boundary of `ab\u{e9}` at src/lib.rs:93:9",
            "panic fault in rotation.step: byte index 65 is no boundary of `c` at src/lib.rs:93:9",
            "panic fault in rotation.step: byte index 65 is no boundary of `c` at src/lib.rs:97:9",
        ]
        .map(kind_of);
        assert_eq!(kinds[0], kinds[1]);
        assert_ne!(kinds[1], kinds[2]);
    }
}
