//! How typed state becomes the text that the host keeps: `{"v":1,"next":7,"own":{..}}`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bindings::farseal::plugin::types::PluginError;

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
    Ok((kept.own, kept.next))
}

/// The state as it was written under `from`, for the author's `migrate`.
pub(crate) fn decode_older(from: u32, text: &str) -> Result<(serde_json::Value, Option<u64>), PluginError> {
    decode(from, text)
}
