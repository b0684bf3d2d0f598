//! Settings that people get wrong: each field of a schema with values of other types and at the edges, and fields that
//! there are not. What else there is stays as the plugin is tried with.

use serde_json::{Map, Value, json};

/// Documents to try. The first is the empty one, and the others are these settings with something changed.
pub(super) fn unlikely(schema: &str, settings: &Value) -> Vec<Value> {
    let schema: Value = serde_json::from_str(schema).unwrap_or_default();
    let names: Vec<&String> =
        schema["properties"].as_object().map(|fields| fields.keys().collect()).unwrap_or_default();
    let with = |changed: Value| {
        let mut document = settings.as_object().cloned().unwrap_or_default();
        document.extend(changed.as_object().cloned().unwrap_or_default());
        Value::Object(document)
    };
    let strangers = [json!({ "no-such-setting": 1 }), json!({ "": null, "\u{7f}": [] })];
    let mut documents: Vec<Value> = std::iter::once(json!({})).chain(strangers.map(with)).collect();
    for name in &names {
        documents.extend(values().into_iter().map(|value| with(one(name, value))));
    }
    // All of them wrong at once: every complaint comes, not only the first.
    let all: Map<String, Value> = names.iter().map(|name| ((*name).clone(), json!([null]))).collect();
    documents.push(with(Value::Object(all)));
    documents
}

fn one(name: &str, value: Value) -> Value {
    let mut document = Map::new();
    document.insert(name.into(), value);
    Value::Object(document)
}

fn values() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e300),
        json!(""),
        json!("0s"),
        json!("0B"),
        json!("soon"),
        json!("99999999999999999999d"),
        json!("99999999w"),
        json!("\u{0}\u{e9}\u{7f}"),
        json!("x".repeat(60_000)),
        json!("\u{20ac}".repeat(400)),
        json!(format!("x{}", "\u{1f600}".repeat(300))),
        json!([]),
        json!([[[[[[]]]]]]),
        json!({}),
        json!({ "a": { "b": null } }),
    ]
}
