//! The shortest story that still does it: what may be left out is, and lists lose their halves, then single entries.

use serde_yaml_ng::Value;

/// Stories played at most: a story is short already, and each try costs a few milliseconds.
const TRIES: u32 = 150;

/// Lists of a story that may become shorter.
const LISTS: [&str; 9] = ["timeline", "seen", "seeds", "covers", "payloads", "flips", "batches", "present", "damaged"];

/// What a story may do without.
const OPTIONAL: [&str; 9] = ["host", "entropy", "speed", "present", "damaged", "smallest", "seen", "seeds", "flips"];

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
            shorten(&mut story, list, &mut tries, &still);
        }
        if weight(&story) == before || tries == 0 {
            return story;
        }
    }
}

fn weight(story: &Value) -> usize {
    LISTS.iter().filter_map(|list| story.get(list)?.as_sequence()).map(Vec::len).sum()
}

/// Takes out runs of entries, long ones first.
fn shorten(story: &mut Value, list: &str, tries: &mut u32, still: &impl Fn(&Value) -> bool) {
    let length = |story: &Value| story.get(list).and_then(Value::as_sequence).map_or(0, Vec::len);
    let mut run = length(story);
    while run > 0 {
        let mut at = 0;
        while at < length(story) {
            if *tries == 0 {
                return;
            }
            *tries -= 1;
            let mut shorter = story.clone();
            if let Some(entries) = shorter.get_mut(list).and_then(Value::as_sequence_mut) {
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
}
