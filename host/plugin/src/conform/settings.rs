//! Settings that people get wrong: each field of a schema with values of other types and at the edges, and fields that
//! there are not.

use serde_json::{Map, Value, json};

/// Documents to try. The first is the empty one.
pub(super) fn unlikely(schema: &str) -> Vec<Value> {
    let schema: Value = serde_json::from_str(schema).unwrap_or_default();
    let names: Vec<&String> =
        schema["properties"].as_object().map(|fields| fields.keys().collect()).unwrap_or_default();
    let mut documents = vec![json!({}), json!({ "no-such-setting": 1 }), json!({ "": null, "\u{7f}": [] })];
    for name in &names {
        documents.extend(values().into_iter().map(|value| one(name, value)));
    }
    // All of them wrong at once: every complaint comes, not only the first.
    let all: Map<String, Value> = names.iter().map(|name| ((*name).clone(), json!([null]))).collect();
    documents.push(Value::Object(all));
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
