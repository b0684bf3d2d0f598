//! The shortest story that still does it: what may be left out is, lists lose their halves, then single entries, and the values that
//! are left become plain.

use serde_yaml_ng::Value;

/// Stories played at most: a story is short already, and each try costs a few milliseconds.
const TRIES: u32 = 150;
/// As well as these, to make plain what is left.
const PLAIN_TRIES: u32 = 100;
/// Characters that a text may be cut down to, where it may not be empty.
const BEGINNINGS: [usize; 5] = [1, 16, 80, 300, 1_200];

/// Lists of a story that may become shorter.
const LISTS: [&str; 9] = ["timeline", "seen", "seeds", "covers", "payloads", "flips", "batches", "present", "damaged"];

/// What a story may do without.
const OPTIONAL: [&str; 11] =
    ["host", "entropy", "speed", "present", "damaged", "smallest", "seen", "seeds", "flips", "calls", "contents"];

/// `still` says whether a shorter story does it, too.
pub(super) fn shrink(mut story: Value, still: impl Fn(&Value) -> bool) -> Value {
    let mut tries = TRIES;
    for key in OPTIONAL {
        let mut without = story.clone();
        if without.as_mapping_mut().is_some_and(|story| story.remove(key).is_some()) && still(&without) {
            story = without;
        }
    }
    loop {
        let before = weight(&story);
        for list in LISTS {
            shorten(&mut story, &[list.into()], &mut tries, &still);
        }
        for batch in 0..story.get("batches").and_then(Value::as_sequence).map_or(0, Vec::len) {
            shorten(&mut story, &["batches".into(), batch.into(), "records".into()], &mut tries, &still);
        }
        if weight(&story) == before || tries == 0 {
            break;
        }
    }
    plain(&mut story, &still);
    story
}

/// Numbers, texts and lists within what happens become the plainest that still do it.
fn plain(story: &mut Value, still: &impl Fn(&Value) -> bool) {
    let mut tries = PLAIN_TRIES;
    let mut at = 0;
    // Places are numbered anew after each change: a list that became empty has none below it.
    while let Some(place) = places(story).get(at) {
        let plainer = leaf(story, place).map(plainest).unwrap_or_default();
        for value in plainer {
            if tries == 0 {
                return;
            }
            tries -= 1;
            let mut changed = story.clone();
            if let Some(leaf) = leaf_mut(&mut changed, place) {
                *leaf = value;
            }
            if still(&changed) {
                *story = changed;
                break;
            }
        }
        at += 1;
    }
}

/// What may stand for a value, the plainest first; nothing for one that is as plain as it can be.
fn plainest(value: &Value) -> Vec<Value> {
    if value.as_u64().is_some_and(|number| number > 1) {
        return vec![0.into(), 1.into()];
    }
    if let Some([first, ..]) = value.as_sequence().map(Vec::as_slice) {
        return vec![Value::Sequence(Vec::new()), Value::Sequence(vec![first.clone()])];
    }
    let Some(text) = value.as_str().filter(|text| !text.is_empty()) else { return Vec::new() };
    match text.strip_suffix("ms").and_then(|ms| ms.parse::<u64>().ok()) {
        Some(0) => Vec::new(),
        Some(_) => ["0s", "1s", "1h"].map(Value::from).into(),
        None => beginnings(text),
    }
}

/// The empty text, and what a text begins with.
fn beginnings(text: &str) -> Vec<Value> {
    let begin = |count: usize| text.chars().take(count).collect::<String>();
    let shorter = std::iter::once(0).chain(BEGINNINGS).map(begin).take_while(|shorter| shorter.len() < text.len());
    shorter.map(Value::from).collect()
}

/// The way to a value: positions in lists and in mappings.
type Place = Vec<usize>;

/// Every list, text and number below the entries of the timeline, from the outside in.
fn places(story: &Value) -> Vec<Place> {
    let mut found = Vec::new();
    let entries = story.get("timeline").and_then(Value::as_sequence).map_or(0, Vec::len);
    let mut open: Vec<Place> = (0..entries).rev().map(|entry| vec![entry]).collect();
    while let Some(place) = open.pop() {
        let value = leaf(story, &place);
        let entries = value.and_then(Value::as_mapping).map_or(0, |mapping| mapping.len());
        let below = value.and_then(Value::as_sequence).map_or(entries, Vec::len);
        open.extend((0..below).rev().map(|step| [&place[..], &[step]].concat()));
        if place.len() > 1 {
            found.push(place);
        }
    }
    found
}

fn leaf<'a>(story: &'a Value, place: &[usize]) -> Option<&'a Value> {
    place.iter().try_fold(story.get("timeline")?, |value, step| match value.as_mapping() {
        Some(mapping) => mapping.values().nth(*step),
        None => value.as_sequence()?.get(*step),
    })
}

fn leaf_mut<'a>(story: &'a mut Value, place: &[usize]) -> Option<&'a mut Value> {
    place.iter().try_fold(story.get_mut("timeline")?, |value, step| {
        if value.is_mapping() {
            value.as_mapping_mut()?.values_mut().nth(*step)
        } else {
            value.as_sequence_mut()?.get_mut(*step)
        }
    })
}

fn weight(story: &Value) -> usize {
    let lists = LISTS.iter().filter_map(|list| story.get(list)?.as_sequence());
    let batches = story.get("batches").and_then(Value::as_sequence).into_iter().flatten();
    lists.chain(batches.filter_map(|batch| batch.get("records")?.as_sequence())).map(Vec::len).sum()
}

/// A list of a story: names, and numbers of entries.
fn list_in<'a>(story: &'a Value, way: &[Value]) -> Option<&'a Vec<Value>> {
    let step = |value: &'a Value, step: &Value| match step.as_u64() {
        Some(at) => value.get(usize::try_from(at).ok()?),
        None => value.get(step.as_str()?),
    };
    way.iter().try_fold(story, step)?.as_sequence()
}

fn list_in_mut<'a>(story: &'a mut Value, way: &[Value]) -> Option<&'a mut Vec<Value>> {
    let step = |value: &'a mut Value, step: &Value| match step.as_u64() {
        Some(at) => value.get_mut(usize::try_from(at).ok()?),
        None => value.get_mut(step.as_str()?),
    };
    way.iter().try_fold(story, step)?.as_sequence_mut()
}

/// Takes out runs of entries, long ones first.
fn shorten(story: &mut Value, list: &[Value], tries: &mut u32, still: &impl Fn(&Value) -> bool) {
    let length = |story: &Value| list_in(story, list).map_or(0, Vec::len);
    let mut run = length(story);
    while run > 0 {
        let mut at = 0;
        while at < length(story) {
            if *tries == 0 {
                return;
            }
            *tries -= 1;
            let mut shorter = story.clone();
            if let Some(entries) = list_in_mut(&mut shorter, list) {
                let end = (at + run).min(entries.len());
                entries.drain(at..end);
            }
            if still(&shorter) {
                *story = shorter;
            } else {
                at += run;
            }
        }
        run /= 2;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn what_does_not_matter_is_left_out() {
        let story: Value = serde_yaml_ng::from_str("{ timeline: [1, 2, 3, 4, 5, 6, 7, 8, 9], seeds: [1, 2] }").unwrap();
        let holds = |story: &Value, wanted: u64| {
            story.get("timeline").unwrap().as_sequence().unwrap().iter().any(|entry| entry.as_u64() == Some(wanted))
        };
        let shrunk = shrink(story, |story| holds(story, 3) && holds(story, 8));
        assert_eq!(serde_yaml_ng::to_string(&shrunk).unwrap(), "timeline:\n- 3\n- 8\n");
    }

    #[test]
    fn of_a_batch_only_the_records_that_matter_are_left() {
        let story: Value =
            serde_yaml_ng::from_str("{ batches: [{ records: [1, 2] }, { records: [3, 4, 5] }] }").unwrap();
        let holds = |story: &Value| {
            let batches = story.get("batches").unwrap().as_sequence().unwrap();
            batches.iter().any(|batch| batch["records"].as_sequence().unwrap().contains(&4.into()))
        };
        let shrunk = shrink(story, holds);
        assert_eq!(serde_yaml_ng::to_string(&shrunk).unwrap(), "batches:\n- records:\n  - 4\n");
    }

    #[test]
    fn what_is_left_is_plain() {
        let text = "timeline: [{ call: { keys: [{ epoch: 77, since: 5 }, { epoch: 9 }], name: abc, age: 71234ms } }]";
        let story: Value = serde_yaml_ng::from_str(text).unwrap();
        let call = |story: &Value| story.get("timeline").unwrap().get(0).unwrap().get("call").unwrap().clone();
        let epoch = |story: &Value| call(story).get("keys")?.get(0)?.get("epoch")?.as_u64();
        let shrunk = shrink(story, |story| story.get("timeline").unwrap().get(0).is_some() && epoch(story) == Some(77));
        let plain = "call:\n  keys:\n  - epoch: 77\n    since: 0\n  name: ''\n  age: 0s\n";
        assert_eq!(serde_yaml_ng::to_string(&shrunk["timeline"][0]).unwrap(), plain);
    }

    #[test]
    fn a_text_that_must_be_long_is_as_long_as_it_must_be() {
        let text = "\u{20ac}".repeat(1_000);
        let story: Value = serde_yaml_ng::from_str(&format!("timeline: [{{ request: {text} }}]")).unwrap();
        let length = |story: &Value| story["timeline"][0]["request"].as_str().map_or(0, str::len);
        assert_eq!(length(&shrink(story, |story| length(story) > 200)), 240);
    }
}
