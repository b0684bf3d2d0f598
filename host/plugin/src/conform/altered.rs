//! A plugin's own state with one thing changed, as a damaged journal or a version with a mistake may hold it: each value in its turn, and
//! the text itself. Few of these are refused by their form alone.

use serde_json::{Value, json};

use super::chance::Chance;

/// A text in a state that is short and is no ASCII.
const OTHER_TEXT: &str = "\u{20ac}x\u{e9}\u{1f600}";
/// What may stand for one character.
const CHARACTERS: [char; 7] = ['0', '9', 'f', '-', '\u{0}', '\u{e9}', '\u{10ffff}'];

/// The state with a value of it changed, in the way that has this number; after the last one the first comes again. None
/// where there is no value in it.
pub(super) fn value(state: &str, number: u64) -> Option<String> {
    let document = serde_json::from_str(state).ok().filter(|read: &Value| read.is_object() || read.is_array());
    let Some(document) = document else { return digits(state, number) };
    let mut ways = ways(&document);
    let count = u64::try_from(ways.len()).ok()?;
    let (place, to) = ways.swap_remove(usize::try_from(number.checked_rem(count)?).ok()?);
    let mut changed = document.clone();
    match to {
        Some(to) => *changed.pointer_mut(&place)? = to,
        None => take_out(&mut changed, &place)?,
    }
    Some(changed.to_string())
}

/// The state's text damaged somewhere: cut off, or a character changed, gone or doubled.
pub(super) fn damaged(state: &str, chance: &mut Chance) -> String {
    let mut letters: Vec<char> = state.chars().collect();
    let at = usize::try_from(chance.below(u64::try_from(letters.len()).unwrap_or(1).max(1))).unwrap_or(0);
    let Some(letter) = letters.get(at).copied() else { return OTHER_TEXT.into() };
    match chance.below(5) {
        0 => letters.truncate(at),
        1 => drop(letters.remove(at)),
        2 => letters.insert(at, letter),
        // One bit of it, where that leaves a character.
        3 if letter.is_ascii() => letters[at] = char::from_u32(u32::from(letter) ^ 1).unwrap_or(letter),
        _ => letters[at] = chance.pick(&CHARACTERS).unwrap_or('0'),
    }
    letters.into_iter().collect()
}

/// Whether the two differ in the number of the next decision, in the form of state that the SDKs and the bare template write. Those of
/// today refuse a number that no decision has; components with an earlier one in them do not, and are to be taken as before.
pub(super) fn counts_otherwise(state: &str, changed: &str) -> bool {
    let read = |state: &str| serde_json::from_str(state).ok().filter(|read: &Value| read.get("v").is_some());
    let Some((before, now)) = read(state).zip(read(changed)) else { return false };
    counts(&before) && now.get("next").is_some_and(|next| before.get("next") != Some(next))
}

/// Whether it has the number of the next decision where the SDKs and the bare template write it.
fn counts(document: &Value) -> bool {
    document.get("v").is_some() && document.get("next").is_some_and(Value::is_number)
}

/// Every place with each value that may stand there instead, but for other numbers of the next decision. The author's own values come
/// first, what every state has last; each place has its first way before one has its second.
fn ways(document: &Value) -> Vec<(String, Option<Value>)> {
    let mut places = places(document);
    places.sort_by_key(|(place, _)| match place.as_str() {
        "/v" | "/next" => 2,
        own if own.starts_with("/own/") => 0,
        _ => 1,
    });
    let counts = counts(document);
    let mut ways = Vec::new();
    for (place, value) in places {
        let others = instead(value).filter(|to| !(counts && place == "/next" && to.is_some()));
        ways.extend(others.enumerate().map(|(turn, to)| (turn, (place.clone(), to))));
    }
    ways.sort_by_key(|(turn, _)| *turn);
    ways.into_iter().map(|(_, way)| way).collect()
}

/// Every value below the whole, as a JSON pointer, from the outside in.
fn places(document: &Value) -> Vec<(String, &Value)> {
    let mut found = vec![(String::new(), document)];
    let mut next = 0;
    while let Some((place, value)) = found.get(next).cloned() {
        match value {
            Value::Object(fields) => found.extend(fields.iter().map(|(name, value)| {
                let name = name.replace('~', "~0").replace('/', "~1");
                (format!("{place}/{name}"), value)
            })),
            Value::Array(values) => {
                found.extend(values.iter().enumerate().map(|(at, value)| (format!("{place}/{at}"), value)));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
        next += 1;
    }
    found.remove(0);
    found
}

/// What may stand for a value: none, for nothing at all.
fn instead(value: &Value) -> impl Iterator<Item = Option<Value>> + use<> {
    let others = match value {
        Value::Null => vec![json!(0), json!(u64::MAX), json!(OTHER_TEXT), json!([]), json!({})],
        Value::Bool(is) => vec![json!(!is), json!(null), json!(2)],
        Value::Number(number) => {
            let more = number.as_u64().map_or(json!(1), |number| json!(number.saturating_add(1)));
            let most = [json!(u32::MAX), json!(i64::MAX), json!(u64::MAX)];
            let others = [json!(0), json!(1), json!(-1), json!(1.5), json!(1e300), json!(null), json!(OTHER_TEXT)];
            most.into_iter().chain([more]).chain(others).collect()
        }
        Value::String(_) => {
            [json!(""), json!(OTHER_TEXT), json!("0"), json!(u64::MAX.to_string()), json!(null), json!(7)].into()
        }
        Value::Array(values) => {
            let twice: Vec<&Value> = values.iter().chain(values).collect();
            vec![json!([]), json!(values.get(..1)), json!(twice), json!([null]), json!({})]
        }
        Value::Object(_) => vec![json!({}), json!(null), json!([]), json!(0)],
    };
    let others: Vec<Option<Value>> = others.into_iter().filter(|other| other != value).map(Some).collect();
    others.into_iter().chain([None])
}

fn take_out(document: &mut Value, place: &str) -> Option<()> {
    let (above, name) = place.rsplit_once('/')?;
    match document.pointer_mut(above)? {
        Value::Object(fields) => fields.remove(&name.replace("~1", "/").replace("~0", "~")).map(drop),
        Value::Array(values) => {
            values.remove(name.parse().ok()?);
            Some(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Of a text that is no JSON: one of the numbers in it.
fn digits(state: &str, number: u64) -> Option<String> {
    const OTHERS: [&str; 8] =
        ["0", "1", "-1", "", "255", "4294967295", "18446744073709551615", "99999999999999999999999"];
    let starts = state.char_indices().filter(|(at, letter)| {
        letter.is_ascii_digit() && !state[..*at].ends_with(|before: char| before.is_ascii_digit())
    });
    let starts: Vec<usize> = starts.map(|(at, _)| at).collect();
    let ways = starts.len().checked_mul(OTHERS.len() + 1)?;
    let way = usize::try_from(number.checked_rem(u64::try_from(ways).ok()?)?).ok()?;
    let (before, rest) = state.split_at(*starts.get(way / (OTHERS.len() + 1))?);
    let after = rest.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let next =
        || rest[..rest.len() - after.len()].parse::<u64>().map_or(0, |number| number.saturating_add(1)).to_string();
    let other = OTHERS.get(way % (OTHERS.len() + 1)).map_or_else(next, |other| (*other).to_owned());
    Some(format!("{before}{other}{after}"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_value_of_json_is_changed_in_its_turn() {
        let state = r#"{"v":1,"own":{"level":2,"who":["a/b"],"a/b":null}}"#;
        let all: BTreeSet<String> = (0..200).filter_map(|number| value(state, number)).collect();
        for wanted in [
            r#"{"own":{"a/b":null,"level":18446744073709551615,"who":["a/b"]},"v":1}"#,
            r#"{"own":{"a/b":null,"level":2,"who":[]},"v":1}"#,
            r#"{"own":{"level":2,"who":["a/b"]},"v":1}"#,
            r#"{"own":{"a/b":null,"who":["a/b"],"level":2}}"#,
            r#"{"own":{},"v":1}"#,
        ] {
            let wanted: Value = serde_json::from_str(wanted).unwrap();
            assert!(all.contains(&wanted.to_string()), "{wanted}");
        }
        assert!(all.iter().all(|changed| serde_json::from_str::<Value>(changed).unwrap() != value_of(state)));
    }

    #[test]
    fn the_authors_values_come_first_and_every_place_before_the_second_way_of_one() {
        let state = r#"{"next":5,"own":{"a":7,"b":"x"},"v":1}"#;
        let first = |count: u64| (0..count).filter_map(|number| value(state, number)).collect::<Vec<_>>();
        let [a, b, own, ..] = &first(6)[..] else { panic!("six of them") };
        assert_eq!(a, r#"{"next":5,"own":{"a":4294967295,"b":"x"},"v":1}"#);
        assert_eq!(b, r#"{"next":5,"own":{"a":7,"b":""},"v":1}"#);
        assert_eq!(own, r#"{"next":5,"own":{},"v":1}"#);
        let all = first(100);
        assert!(all.iter().all(|changed| !counts_otherwise(state, changed)), "{all:?}");
        assert!(all.iter().any(|changed| value_of(changed).get("next").is_none()));
    }

    fn value_of(state: &str) -> Value {
        serde_json::from_str(state).unwrap()
    }

    #[test]
    fn the_number_that_is_the_sdks_is_told_from_those_that_are_the_authors() {
        let state = r#"{"v":1,"next":2,"own":{"next":2}}"#;
        assert!(counts_otherwise(state, r#"{"v":1,"next":0,"own":{"next":2}}"#));
        for changed in [r#"{"v":1,"next":2,"own":{"next":0}}"#, r#"{"v":1,"own":{"next":2}}"#, "{\"v\":1,\"ne", ""] {
            assert!(!counts_otherwise(state, changed), "{changed}");
        }
        assert!(!counts_otherwise(r#"{"next":2}"#, r#"{"next":0}"#));
        let flat = r#"{"v":1,"next":2,"level":3}"#;
        assert!(counts_otherwise(flat, r#"{"v":1,"next":0,"level":3}"#), "of the bare template");
        assert!(!counts_otherwise(flat, r#"{"v":1,"next":2,"level":0}"#));
        assert!(!counts_otherwise(r#"{"v":1,"next":"soon"}"#, r#"{"v":1,"next":0}"#), "an author's own");
    }

    #[test]
    fn of_another_text_each_number_is() {
        let all: BTreeSet<String> = (0..50).filter_map(|number| value("at=12;left=3", number)).collect();
        for wanted in ["at=0;left=3", "at=13;left=3", "at=12;left=", "at=12;left=4", "at=12;left=18446744073709551615"]
        {
            assert!(all.contains(wanted), "{wanted} in {all:?}");
        }
        assert_eq!(value("...", 3), None);
        assert_eq!(value("", 3), None);
    }

    #[test]
    fn a_text_is_damaged_at_every_place() {
        let mut chance = Chance::new(1, "C-5", 0);
        let all: BTreeSet<String> = (0..500).map(|_| damaged("ab\u{20ac}", &mut chance)).collect();
        for wanted in ["", "a", "ab", "b\u{20ac}", "aab\u{20ac}", "`b\u{20ac}", "0b\u{20ac}", "ab9"] {
            assert!(all.contains(wanted), "{wanted:?} in {all:?}");
        }
        assert!(!damaged("", &mut chance).is_empty());
    }
}
