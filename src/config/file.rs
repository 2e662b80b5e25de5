//! Finding and reading the configuration file `dor.toml`.

use std::path::{Path, PathBuf};

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, KEYS, s3_keys};
use super::raw::RawValue;
use super::{ConfigError, ProcessEnv, SettingProvenance};
use crate::store::read_text;

/// Largest size of a configuration file in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// A configuration file and its text.
pub(super) struct ConfigFile {
    pub path: PathBuf,
    text: String,
}

/// Reads the configuration file: that of `--config`, else of `DOR_CONFIG`, else `./dor.toml`, else that of
/// the user (`~/.config/dor/dor.toml`).
///
/// A file that `--config` or `DOR_CONFIG` names must exist; the others may be absent.
pub(super) fn find(
    flag: Option<&Path>,
    env: &ProcessEnv,
) -> Result<Option<ConfigFile>, ConfigError> {
    let requested = flag
        .map(|path| (path.to_owned(), "from --config"))
        .or_else(|| Some((env.path("DOR_CONFIG")?, "from environment DOR_CONFIG")));
    if let Some((path, asked_by)) = requested {
        return read(&path, asked_by, env).map(Some);
    }
    let user = env
        .path("XDG_CONFIG_HOME")
        .filter(|folder| folder.is_absolute())
        .or_else(|| Some(env.path("HOME")?.join(".config")))
        .map(|folder| folder.join("dor/dor.toml"));
    for path in [Some(PathBuf::from("dor.toml")), user].into_iter().flatten() {
        match read(&path, "found by the default search", env) {
            Err(ConfigError::Unreadable { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound
                    || source.kind() == std::io::ErrorKind::NotADirectory => {}
            found => return found.map(Some),
        }
    }
    Ok(None)
}

fn read(path: &Path, asked_by: &str, env: &ProcessEnv) -> Result<ConfigFile, ConfigError> {
    let text = read_text(&env.folder.join(path), MAX_SIZE).map_err(|source| {
        ConfigError::Unreadable { path: path.to_owned(), asked_by: asked_by.to_owned(), source }
    })?;
    Ok(ConfigFile { path: path.to_owned(), text })
}

impl ConfigFile {
    /// The settings of the file; a key in a table is named `table.key`.
    pub fn settings(&self) -> Result<Vec<(String, RawValue)>, ConfigError> {
        let document = DeTable::parse(&self.text).map_err(|error| ConfigError::Syntax {
            path: self.path.clone(),
            line: self.line(error.span().map_or(0, |span| span.start)),
            // Only the message: the full text quotes the line, which may have a secret.
            message: error.message().to_owned(),
        })?;
        let s3 = s3_keys();
        let mut settings = Vec::new();
        for (key, value) in document.get_ref() {
            match value.get_ref() {
                DeValue::Table(table) if key.get_ref() == "s3" => {
                    for (inner, value) in table {
                        if !s3.iter().any(|name| name == inner.get_ref()) {
                            return Err(self.unknown(&format!("s3.{}", inner.get_ref()), inner));
                        }
                        settings.push(self.setting(
                            format!("s3.{}", inner.get_ref()),
                            inner,
                            value,
                        )?);
                    }
                }
                _ if key.get_ref() == "s3" => {
                    return Err(self.bad("s3", key, value, "write a table: [s3]"));
                }
                _ if KEYS.iter().any(|known| known.name == key.get_ref()) => {
                    settings.push(self.setting(key.get_ref().to_string(), key, value)?);
                }
                _ => return Err(self.unknown(key.get_ref(), key)),
            }
        }
        Ok(settings)
    }

    fn setting<K>(
        &self,
        key: String,
        at: &Spanned<K>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(String, RawValue), ConfigError> {
        let scalar = match value.get_ref() {
            DeValue::String(text) => Value::from(text.as_ref()),
            DeValue::Boolean(flag) => Value::from(*flag),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map(Value::from)
                .map_err(|_| self.bad(&key, at, value, "the number is too large"))?,
            _ => {
                return Err(self.bad(
                    &key,
                    at,
                    value,
                    "give a string, a whole number or a boolean",
                ));
            }
        };
        Ok((key, RawValue { value: scalar, source: self.source(at) }))
    }

    fn source<K>(&self, at: &Spanned<K>) -> SettingProvenance {
        SettingProvenance::File { path: self.path.clone(), line: self.line(at.span().start) }
    }

    /// The line, from 1, of the byte at `offset`.
    fn line(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
    }

    fn unknown<K>(&self, key: &str, at: &Spanned<K>) -> ConfigError {
        ConfigError::UnknownKey {
            path: self.path.clone(),
            line: self.line(at.span().start),
            key: key.to_owned(),
            suggestion: keys::nearest(key),
        }
    }

    fn bad<K>(
        &self,
        key: &str,
        at: &Spanned<K>,
        value: &Spanned<DeValue<'_>>,
        reason: &str,
    ) -> ConfigError {
        ConfigError::BadValue {
            key: key.to_owned(),
            origin: self.source(at),
            value: value.get_ref().type_str().to_owned(),
            reason: reason.to_owned(),
        }
    }
}
