//! Values before their keys have parsed them.

use serde_json::Value;

use super::{ConfigError, Source, secrets};

/// A value before its key has parsed it.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub value: Value,
    pub source: Source,
}

impl Raw {
    pub fn bad(&self, key: &str, reason: impl ToString) -> ConfigError {
        let value = match secrets::show(key, &self.value) {
            Value::String(text) => text,
            other => other.to_string(),
        };
        // The reason may quote the value.
        let reason = match self.value.as_str() {
            Some(text) => secrets::redact_within(&reason.to_string(), text),
            None => reason.to_string(),
        };
        ConfigError::BadValue { key: key.to_owned(), origin: self.source.clone(), value, reason }
    }
}
