//! Values of the configuration before they are parsed.

use serde_json::Value;

use super::{ConfigError, SettingProvenance, redaction};

/// A value that is not parsed yet, and its source.
#[derive(Clone, Debug)]
pub(super) struct RawValue {
    pub value: Value,
    pub source: SettingProvenance,
}

impl RawValue {
    /// The error of a value that is not valid for `key`.
    pub fn bad(&self, key: &str, reason: impl ToString) -> ConfigError {
        let value = match redaction::show(key, &self.value) {
            Value::String(text) => text,
            other => other.to_string(),
        };
        // The reason may quote the value, which may have a secret.
        let reason = match self.value.as_str() {
            Some(text) => redaction::redact_within(&reason.to_string(), text),
            None => reason.to_string(),
        };
        ConfigError::BadValue { key: key.to_owned(), origin: self.source.clone(), value, reason }
    }
}
