//! The operator's settings, typed: one declaration gives the struct, its JSON Schema and a reader whose complaints
//! carry JSON pointers.

use serde_json::{Map, Value, json};

use crate::bindings::farseal::plugin::types::Diagnostic;
use crate::units::{Size, Span};

/// A plugin's settings. Written with [`settings!`](crate::settings!).
pub trait Settings: Sized {
    /// Each setting in the order declared.
    fn fields() -> Vec<Field>;
    /// Reads every field, so that all complaints come at once.
    fn read(reader: &mut Reader) -> Option<Self>;

    /// From the text that the host passes.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place.
    fn parse(config: &str) -> Result<Self, Vec<Diagnostic>> {
        let values = match serde_json::from_str(config) {
            Ok(Value::Object(values)) => values,
            Ok(_) => return Err(vec![diagnostic("", "the settings must be a JSON object", None)]),
            Err(error) => return Err(vec![diagnostic("", &format!("not JSON: {error}"), None)]),
        };
        let mut reader = Reader { values, wrong: Vec::new() };
        let read = Self::read(&mut reader);
        reader.reject_unknown(&Self::fields());
        match read {
            Some(settings) if reader.wrong.is_empty() => Ok(settings),
            _ => Err(reader.wrong),
        }
    }

    /// JSON Schema (2020-12).
    #[must_use]
    fn schema() -> String {
        let properties: Map<String, Value> =
            Self::fields().into_iter().map(|field| (field.name, field.schema)).collect();
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "additionalProperties": false,
            "properties": properties,
        })
        .to_string()
    }
}

/// A setting as the schema shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// As written in JSON: `max-bytes`.
    pub name: String,
    pub schema: Value,
}

impl Field {
    /// `name` as Rust writes it (`max_bytes`).
    #[must_use]
    pub fn new<T: Setting>(name: &str, doc: &[&str], default: Value) -> Self {
        let mut schema = T::schema();
        if let Value::Object(schema) = &mut schema {
            let description = doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
            schema.insert(String::from("description"), Value::String(description));
            schema.insert(String::from("default"), default);
        }
        Self { name: json_name(name), schema }
    }
}

/// A type that a setting can have.
pub trait Setting: Sized {
    fn schema() -> Value;
    /// # Errors
    /// What was expected instead, as in "expected {a span of time}", and an example.
    fn from_json(value: &Value) -> Result<Self, Expected>;
}

/// What a setting should have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    pub what: &'static str,
    pub example: &'static str,
}

/// Takes one setting after the other out of the document and collects complaints.
#[derive(Debug)]
pub struct Reader {
    values: Map<String, Value>,
    wrong: Vec<Diagnostic>,
}

impl Reader {
    /// `name` as Rust writes it. `None` when a complaint was recorded.
    pub fn take<T: Setting>(&mut self, name: &str, default: Value) -> Option<T> {
        let name = json_name(name);
        let value = self.values.remove(&name).unwrap_or(default);
        match T::from_json(&value) {
            Ok(setting) => Some(setting),
            Err(Expected { what, example }) => {
                let message = format!("{value} is not {what}");
                self.wrong.push(diagnostic(&pointer(&name), &message, Some(format!("for example {example}"))));
                None
            }
        }
    }

    fn reject_unknown(&mut self, known: &[Field]) {
        let names = known.iter().map(|field| field.name.as_str()).collect::<Vec<_>>().join(", ");
        let help = if names.is_empty() { String::from("there are no settings") } else { format!("there are: {names}") };
        for unknown in self.values.keys() {
            let message = format!("there is no setting \"{unknown}\"");
            self.wrong.push(diagnostic(&pointer(unknown), &message, Some(help.clone())));
        }
    }
}

/// A complaint about a setting, for checks that go beyond one field. `setting` is its name in JSON.
#[must_use]
pub fn wrong(setting: &str, message: &str, help: &str) -> Diagnostic {
    diagnostic(&pointer(setting), message, Some(help.to_owned()))
}

fn diagnostic(path: &str, message: &str, help: Option<String>) -> Diagnostic {
    Diagnostic { path: path.to_owned(), message: message.to_owned(), help }
}

fn json_name(rust_name: &str) -> String {
    rust_name.replace('_', "-")
}

/// RFC 6901, section 3.
fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

impl Setting for Span {
    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d|w))+$" })
    }

    fn from_json(value: &Value) -> Result<Self, Expected> {
        let expected = Expected { what: "a span of time", example: "\"250ms\", \"15m\", \"1h30m\", \"90d\"" };
        value.as_str().and_then(Self::parse).ok_or(expected)
    }
}

impl Setting for Size {
    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^([0-9]+(B|KiB|MiB|GiB|TiB|PiB))+$" })
    }

    fn from_json(value: &Value) -> Result<Self, Expected> {
        let expected = Expected { what: "a size", example: "\"512MiB\", \"64GiB\"" };
        value.as_str().and_then(Self::parse).ok_or(expected)
    }
}

impl Setting for bool {
    fn schema() -> Value {
        json!({ "type": "boolean" })
    }

    fn from_json(value: &Value) -> Result<Self, Expected> {
        value.as_bool().ok_or(Expected { what: "a yes or no", example: "true" })
    }
}

impl Setting for String {
    fn schema() -> Value {
        json!({ "type": "string" })
    }

    fn from_json(value: &Value) -> Result<Self, Expected> {
        value.as_str().map(ToOwned::to_owned).ok_or(Expected { what: "a text", example: "\"text\"" })
    }
}

impl Setting for u64 {
    fn schema() -> Value {
        json!({ "type": "integer", "minimum": 0 })
    }

    fn from_json(value: &Value) -> Result<Self, Expected> {
        value.as_u64().ok_or(Expected { what: "a whole number from 0 on", example: "16" })
    }
}

impl Setting for u32 {
    fn schema() -> Value {
        json!({ "type": "integer", "minimum": 0, "maximum": Self::MAX })
    }

    fn from_json(value: &Value) -> Result<Self, Expected> {
        let expected = Expected { what: "a whole number from 0 to 4294967295", example: "16" };
        value.as_u64().and_then(|number| Self::try_from(number).ok()).ok_or(expected)
    }
}

impl Setting for i64 {
    fn schema() -> Value {
        json!({ "type": "integer" })
    }

    fn from_json(value: &Value) -> Result<Self, Expected> {
        value.as_i64().ok_or(Expected { what: "a whole number", example: "-5" })
    }
}

impl Setting for i32 {
    fn schema() -> Value {
        json!({ "type": "integer", "minimum": Self::MIN, "maximum": Self::MAX })
    }

    fn from_json(value: &Value) -> Result<Self, Expected> {
        let expected = Expected { what: "a whole number from -2147483648 to 2147483647", example: "-5" };
        value.as_i64().and_then(|number| Self::try_from(number).ok()).ok_or(expected)
    }
}

/// `null`, or absent with the default `null`, is `None`.
impl<T: Setting> Setting for Option<T> {
    fn schema() -> Value {
        let mut schema = T::schema();
        if let Some(kind) = schema.get("type").cloned() {
            schema["type"] = json!([kind, "null"]);
        }
        schema
    }

    fn from_json(value: &Value) -> Result<Self, Expected> {
        if value.is_null() { Ok(None) } else { T::from_json(value).map(Some) }
    }
}

/// Declares a plugin's settings: name, type, default as JSON, and a doc comment that the operator reads.
///
/// ```
/// farseal_sdk::settings! {
///     /// How often.
///     pub struct Settings {
///         /// The age at which the key changes.
///         interval: farseal_sdk::Span = "1h",
///         /// The bytes after which it changes; no limit when absent.
///         max_bytes: Option<farseal_sdk::Size> = null,
///     }
/// }
/// use farseal_sdk::Settings as _;
/// let settings = Settings::parse(r#"{"max-bytes": "64GiB"}"#).unwrap();
/// assert_eq!(settings.interval.to_string(), "1h");
/// assert_eq!(Settings::parse(r#"{"interval": 5}"#).unwrap_err()[0].path, "/interval");
/// ```
#[macro_export]
macro_rules! settings {
    (
        $(#[doc = $about:literal])*
        $vis:vis struct $name:ident {
            $( $(#[doc = $doc:literal])* $field:ident : $type:ty = $default:tt $($negative:literal)? ),+ $(,)?
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, PartialEq)]
        $vis struct $name {
            $( $(#[doc = $doc])* pub $field: $type, )*
        }

        impl $crate::settings::Settings for $name {
            fn fields() -> Vec<$crate::settings::Field> {
                vec![$(
                    $crate::settings::Field::new::<$type>(
                        stringify!($field),
                        &[$($doc),*],
                        $crate::serde_json::json!($default $($negative)?),
                    )
                ),*]
            }

            fn read(reader: &mut $crate::settings::Reader) -> Option<Self> {
                $( let $field = reader.take(stringify!($field), $crate::serde_json::json!($default $($negative)?)); )*
                Some(Self { $( $field: $field? ),* })
            }
        }
    };
}

/// For a plugin that has no settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoSettings;

impl Settings for NoSettings {
    fn fields() -> Vec<Field> {
        Vec::new()
    }

    fn read(_reader: &mut Reader) -> Option<Self> {
        Some(Self)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    settings! {
        struct Example {
            /// How often,
            /// at least.
            interval: Span = "1h",
            /// How much.
            max_bytes: Option<Size> = null,
            /// How many.
            count: u32 = 3,
            /// Hours from UTC.
            utc_offset: i32 = -5,
        }
    }

    #[test]
    fn absent_settings_take_their_defaults() {
        let read = Example::parse("{}").unwrap();
        let interval = Span::from_millis(3_600_000);
        assert_eq!(read, Example { interval, max_bytes: None, count: 3, utc_offset: -5 });
    }

    #[test]
    fn every_complaint_comes_at_once_with_its_place() {
        let wrong = Example::parse(r#"{"interval": "soon", "max-bytes": 7, "count": -1, "a/b": 0}"#).unwrap_err();
        let places: Vec<_> = wrong.iter().map(|diagnostic| diagnostic.path.as_str()).collect();
        assert_eq!(places, ["/interval", "/max-bytes", "/count", "/a~1b"]);
        assert_eq!(wrong[0].message, "\"soon\" is not a span of time");
        assert_eq!(wrong[3].help.as_deref(), Some("there are: interval, max-bytes, count, utc-offset"));
    }

    #[test]
    fn a_number_may_lie_below_zero_where_its_type_does() {
        for (given, read) in [(-12, Some(-12)), (2_147_483_647, Some(2_147_483_647)), (2_147_483_648_i64, None)] {
            let parsed = Example::parse(&json!({ "utc-offset": given }).to_string());
            assert_eq!(parsed.ok().map(|example| example.utc_offset), read, "{given}");
        }
        assert_eq!(i64::from_json(&json!(i64::MIN)), Ok(i64::MIN));
        assert!(i64::from_json(&json!(1.5)).is_err() && i64::from_json(&json!(u64::MAX)).is_err());
    }

    #[test]
    fn text_that_is_no_object_is_refused() {
        for text in ["", "[]", "null", "{"] {
            assert_eq!(Example::parse(text).unwrap_err().len(), 1, "{text}");
        }
    }

    #[test]
    fn schema_tells_types_defaults_and_meanings() {
        let schema: Value = serde_json::from_str(&Example::schema()).unwrap();
        let interval = &schema["properties"]["interval"];
        assert_eq!(interval["default"], "1h");
        assert_eq!(interval["description"], "How often, at least.");
        assert_eq!(schema["properties"]["max-bytes"]["type"], json!(["string", "null"]));
    }
}
