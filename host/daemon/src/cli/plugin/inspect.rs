//! `farseal plugin inspect`: a component as an operator judges it: what it is, what it may, which settings it takes and
//! what they are without a word, its digest, its size and the fuel of its calls.

use std::path::PathBuf;

use clap::Args;
use farseal_core::units::ByteLen;
use farseal_plugin::{Cost, Inspection, Kind, Power, escaped};
use serde_json::{Map, Value};

use super::{host_for, read, settings};
use crate::cli::failure::Failure;
use crate::cli::{say, show};

/// `farseal plugin inspect`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Inspect {
    /// The component.
    file: PathBuf,
    /// Settings for the calls whose cost is shown.
    #[arg(long, value_name = "JSON", value_parser = settings)]
    settings: Option<Value>,
    /// Keep native code there from one run to the next. Whoever can write to it can have this program run anything.
    #[arg(long, value_name = "FOLDER")]
    compiled: Option<PathBuf>,
}

pub(super) fn inspect(wanted: &Inspect) -> Result<(), Failure> {
    let bytes = read(&wanted.file)?;
    let host = host_for(&wanted.file, &bytes, wanted.compiled.as_deref())?;
    let subject = wanted.file.display().to_string();
    let found = host.inspect(&subject, &bytes).map_err(|error| Failure::of(&error))?;
    let config = wanted.settings.clone().unwrap_or_default();
    let costs = host.cost(&subject, &bytes, &config).map_err(|error| Failure::of(&error))?;
    say(&words(&found, &costs))
}

fn words(found: &Inspection, costs: &[Cost]) -> String {
    let powers: Vec<String> = found.powers.iter().map(|power| power_words(*power)).collect();
    let mut text = format!(
        "name     {} {}\nkind     {}\ncontract farseal:plugin {}\nasks for {}\nexports  {}\nsize     {}\nsha256   {}\nsummary  {}\n",
        escaped(&found.about.name),
        escaped(&found.about.version),
        found.kind,
        escaped(&found.abi),
        powers.join("\n         "),
        escaped(&interfaces(&found.exports).join(", ")),
        show::size(ByteLen(u64::try_from(found.bytes).unwrap_or(u64::MAX))),
        found.digest,
        escaped(&found.about.summary),
    );
    if !found.optional.is_empty() {
        text.push_str(&format!("newer    {}: this node does not ask for it\n", escaped(&found.optional.join(", "))));
    }
    if !found.about.understands.is_empty() {
        text.push_str(&format!("extends  {}\n", escaped(&found.about.understands.join(", "))));
    }
    if found.about.state_schema > 0 {
        text.push_str(&format!("state    schema {}\n", found.about.state_schema));
    }
    text.push_str("settings");
    let settings = settings_words(&found.about.config_schema);
    if settings.is_empty() {
        text.push_str(" none\n");
    }
    for (index, line) in settings.iter().enumerate() {
        text.push_str(&format!("{}{line}\n", if index == 0 { " " } else { "         " }));
    }
    text.push_str(&format!("fuel     {} to describe itself\n", found.describe_fuel));
    for cost in costs {
        text.push_str(&format!("         {}\n", cost_words(cost)));
    }
    if found.kind == Kind::Cipher {
        text.push_str("         not counted in a cipher's calls, which are limited by wall time\n");
    }
    text
}

/// What componentize-py hangs its own module on, under a plain word, is nothing that a node asks for.
fn interfaces(exports: &[String]) -> Vec<&str> {
    exports.iter().map(String::as_str).filter(|name| name.contains(':') || name.contains(' ')).collect()
}

fn power_words(power: Power) -> String {
    match power {
        Power::Log => "log: lines for the operator, within limits; needs no grant".into(),
        Power::Raw => "raw: keys derived for it, and the blocks themselves; needs grants = [\"raw\"]".into(),
    }
}

/// Each setting with its form, its default and what it is for, as the component's schema says.
fn settings_words(schema: &str) -> Vec<String> {
    let schema: Value = serde_json::from_str(schema).unwrap_or_default();
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Vec::new() };
    let needed = |name: &str| {
        schema.get("required").and_then(Value::as_array).is_some_and(|names| names.iter().any(|one| one == name))
    };
    let line = |(name, about): (&String, &Value)| {
        let default = match about.get("default") {
            Some(default) => format!("default {default}"),
            None if needed(name) => "needed".into(),
            None => "no default".into(),
        };
        let what = about.get("description").and_then(Value::as_str).unwrap_or_default();
        escaped(&format!("{name}: {}, {default}. {what}", form(about))).trim_end().to_owned()
    };
    properties.iter().map(line).collect()
}

/// `string`, `integer of 1 to 10`, `"a" or "b"`.
fn form(about: &Value) -> String {
    if let Some(words) = about.get("enum").and_then(Value::as_array) {
        return words.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
    }
    let kind = match about.get("type") {
        Some(Value::String(kind)) => kind.clone(),
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => "any".into(),
    };
    let none = Map::new();
    let about = about.as_object().unwrap_or(&none);
    match (about.get("minimum"), about.get("maximum")) {
        (Some(least), Some(most)) => format!("{kind} of {least} to {most}"),
        (Some(least), None) => format!("{kind} of {least} or more"),
        (None, Some(most)) => format!("{kind} of at most {most}"),
        (None, None) => kind,
    }
}

fn cost_words(cost: &Cost) -> String {
    let Cost { function, calls, least, most, limit, failed } = cost;
    let share = most.saturating_mul(100).div_ceil((*limit).max(1));
    let range = if least == most { most.to_string() } else { format!("{least} to {most}") };
    let took = match calls {
        0 => format!("{function}: no call ended well"),
        1 => format!("{function}: {range}, at most {share} % of what a call may take"),
        calls => format!("{function}: {range} in {calls} calls, at most {share} % of what a call may take"),
    };
    failed.as_ref().map_or(took.clone(), |failed| format!("{took}; one ended so: {}", escaped(failed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tool_leaves_among_the_exports_is_not_shown() {
        let exports = ["exports", "farseal:plugin/meta@0.1.0", "run (not an interface)"].map(String::from);
        assert_eq!(interfaces(&exports), ["farseal:plugin/meta@0.1.0", "run (not an interface)"]);
    }

    #[test]
    fn settings_are_shown_with_form_default_and_purpose() {
        let schema = r#"{"properties":{
            "interval":{"type":"string","default":"1h","description":"How long."},
            "count":{"type":"integer","minimum":1,"maximum":9},
            "order":{"enum":["up","down"],"default":"up"}},"required":["count"]}"#;
        assert_eq!(
            settings_words(schema),
            [
                "count: integer of 1 to 9, needed.",
                "interval: string, default \"1h\". How long.",
                "order: \"up\" or \"down\", default \"up\"."
            ]
        );
        assert_eq!(settings_words("{}"), Vec::<String>::new());
    }
}
