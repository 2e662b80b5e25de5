//! Values before their keys have parsed them.

use serde_json::Value;

use super::{ConfigError, SettingProvenance, redaction};

/// A value before its key has parsed it.
#[derive(Clone, Debug)]
pub(super) struct RawValue {
    pub value: Value,
    pub source: SettingProvenance,
}

impl RawValue {
    pub fn bad(&self, key: &str, reason: impl ToString) -> ConfigError {
        let value = match redaction::show(key, &self.value) {
            Value::String(text) => text,
            other => other.to_string(),
        };
        // The reason may quote the value.
        let reason = match self.value.as_str() {
            Some(text) => redaction::redact_within(&reason.to_string(), text),
            None => reason.to_string(),
        };
        ConfigError::BadValue { key: key.to_owned(), origin: self.source.clone(), value, reason }
    }
}
