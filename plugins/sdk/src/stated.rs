//! How typed state becomes the text that the host keeps: `{"v":1,"next":7,"own":{..}}`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bindings::farseal::plugin::types::PluginError;

/// Far more decisions than any policy makes: behind it there would soon be no number left.
const LAST_ID: u64 = u64::MAX >> 1;

/// The text between two calls.
#[derive(Serialize, Deserialize)]
struct Kept<S> {
    /// The plugin's `STATE_SCHEMA`.
    v: u32,
    /// The id of the next decision, for the kinds that number theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
    /// The author's.
    own: S,
}

pub(crate) fn encode<S: Serialize>(schema: u32, next: Option<u64>, own: &S) -> Result<String, PluginError> {
    serde_json::to_string(&Kept { v: schema, next, own })
        .map_err(|error| PluginError::Internal(format!("the state cannot be written as JSON: {error}")))
}

/// The author's state and the next decision's id.
pub(crate) fn decode<S: DeserializeOwned>(schema: u32, text: &str) -> Result<(S, Option<u64>), PluginError> {
    let kept: Kept<S> = serde_json::from_str(text).map_err(|error| PluginError::InvalidState(error.to_string()))?;
    if kept.v != schema {
        return Err(PluginError::InvalidState(format!("state of schema {}; this plugin keeps {schema}", kept.v)));
    }
    if let Some(next) = kept.next.filter(|next| !(1..=LAST_ID).contains(next)) {
        return Err(PluginError::InvalidState(format!("{next} is no decision's number")));
    }
    Ok((kept.own, kept.next))
}

/// The state as it was written under `from`, for the author's `migrate`.
pub(crate) fn decode_older(from: u32, text: &str) -> Result<(serde_json::Value, Option<u64>), PluginError> {
    decode(from, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_no_decision_has_is_somebody_elses() {
        let read = |next: &str| decode::<u8>(1, &format!(r#"{{"v":1,"next":{next},"own":7}}"#));
        assert!(matches!(read("9"), Ok((7, Some(9)))));
        for wrong in ["0", "18446744073709551615", "-1", "1.5", "\"1\""] {
            assert!(matches!(read(wrong), Err(PluginError::InvalidState(_))), "{wrong}");
        }
    }
}
