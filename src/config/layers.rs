//! Merging the layers of the configuration, and parsing the merged values.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;

use serde_json::{Map, Value};

use super::file::ConfigFile;
use super::keys::{AWS_EQUIVALENTS, KEYS, misspelled_variable, s3_keys, s3_variable};
use super::raw::RawValue;
use super::{ConfigError, Overrides, ProcessEnv, Setting, SettingProvenance};
use crate::store::{Location, S3Options};

/// The merged value of each key that is set. A layer that is added overrides the previous ones.
#[derive(Debug, Default)]
pub(super) struct Layers(BTreeMap<String, RawValue>);

impl Layers {
    /// Adds the settings of a file. Relative paths in it are relative to its folder.
    pub fn add_file(&mut self, file: &ConfigFile, env: &ProcessEnv) -> Result<(), ConfigError> {
        let folder = file.path.parent().unwrap_or(Path::new(""));
        let home = env.path("HOME");
        for (key, mut raw) in file.settings()? {
            if let Some(text) = raw.value.as_str()
                && key != "workers"
                && !key.contains('.')
            {
                let path = resolve_path(text, folder, home.as_deref());
                raw.value = path.map_err(|reason| raw.bad(&key, reason))?.into();
            }
            self.0.insert(key, raw);
        }
        Ok(())
    }

    /// Adds the environment variables of dor, which override the standard AWS variables.
    pub fn add_environment(&mut self, env: &ProcessEnv) -> Result<(), ConfigError> {
        // Only a warning: another program may have a variable of this name.
        for variable in env.variables.keys() {
            if let Some(known) = misspelled_variable(variable) {
                tracing::warn!("the variable {variable} has no effect; did you mean `{known}`?");
            }
        }
        for key in KEYS {
            self.add_variable(key.name, key.variable, SettingProvenance::Environment, env)?;
        }
        for (name, variables) in AWS_EQUIVALENTS {
            for variable in variables.iter().rev() {
                let key = format!("s3.{name}");
                self.add_variable(&key, variable, SettingProvenance::AwsEnvironment, env)?;
            }
        }
        for name in s3_keys() {
            let variable = s3_variable(&name);
            let key = format!("s3.{name}");
            self.add_variable(&key, &variable, SettingProvenance::Environment, env)?;
        }
        Ok(())
    }

    fn add_variable(
        &mut self,
        key: &str,
        variable: &str,
        source: impl Fn(String) -> SettingProvenance,
        env: &ProcessEnv,
    ) -> Result<(), ConfigError> {
        let Some(value) = env.variable(variable) else { return Ok(()) };
        let raw =
            RawValue { value: value.to_string_lossy().into(), source: source(variable.to_owned()) };
        if value.to_str().is_none() {
            return Err(raw.bad(key, "it is not UTF-8"));
        }
        self.0.insert(key.to_owned(), raw);
        Ok(())
    }

    /// Adds the flags that are given.
    pub fn add_flags(&mut self, overrides: &Overrides) {
        let flags =
            [("", serde_json::to_value(overrides)), ("s3.", serde_json::to_value(&overrides.s3))];
        for (table, values) in flags {
            let Ok(Value::Object(values)) = values else { continue };
            for (name, value) in values.into_iter().filter(|(_, value)| !value.is_null()) {
                let source = SettingProvenance::Flag(format!("--{}", name.replace('_', "-")));
                self.0.insert(format!("{table}{name}"), RawValue { value, source });
            }
        }
    }

    /// The merged value of a key.
    pub fn get(&self, key: &str) -> Option<&RawValue> {
        self.0.get(key)
    }

    /// A key whose value is a path or a URL.
    pub fn location(&self, key: &str) -> Result<Option<Setting<Location>>, ConfigError> {
        let Some(raw) = self.get(key) else { return Ok(None) };
        let text =
            raw.value.as_str().ok_or_else(|| raw.bad(key, "give a path or a URL, quoted"))?;
        let value = text.parse().map_err(|error| raw.bad(key, error))?;
        Ok(Some(Setting { value, source: raw.source.clone() }))
    }

    /// The number of workers. The default is the number of CPUs of this process or, if smaller, of its Slurm
    /// task.
    pub fn workers(&self, env: &ProcessEnv) -> Result<Setting<NonZeroUsize>, ConfigError> {
        let Some(raw) = self.get("workers") else {
            // This respects the CPU affinity of the process and the quota of its control group.
            let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
            let task_cpus = env.variable("SLURM_CPUS_PER_TASK");
            let task_cpus = task_cpus.and_then(|number| number.to_str()?.trim().parse().ok());
            let value = task_cpus.map_or(cores, |cpus| cores.min(cpus));
            return Ok(Setting { value, source: SettingProvenance::Default });
        };
        let text = raw.value.as_str().map_or_else(|| raw.value.to_string(), str::to_owned);
        let value = text.trim().parse();
        let value = value.map_err(|_| raw.bad("workers", "give a whole number of 1 or more"))?;
        Ok(Setting { value, source: raw.source.clone() })
    }

    /// The S3 options, without those of AWS variables: the storage layer reads these itself, because their
    /// precedence depends on its profiles.
    pub fn s3(&self) -> Result<S3Options, ConfigError> {
        let mut options = Map::new();
        for (key, raw) in &self.0 {
            if matches!(raw.source, SettingProvenance::AwsEnvironment(_)) {
                continue;
            }
            if let Some(name) = key.strip_prefix("s3.") {
                options.insert(name.to_owned(), s3_value(name, key, raw)?);
            }
        }
        serde_json::from_value(Value::Object(options)).map_err(|error| {
            // Each value is valid by itself, so only a rule over several values can fail here.
            let raw = RawValue { value: Value::Null, source: SettingProvenance::Default };
            raw.bad("s3", error)
        })
    }
}

/// Resolves the path `text` relative to the folder `base`, unless it is a URL or an absolute path.
fn resolve_path(text: &str, base: &Path, home: Option<&Path>) -> Result<String, &'static str> {
    if text.is_empty() || text.contains("://") {
        return Ok(text.to_owned());
    }
    let path = match (text.strip_prefix('~'), home) {
        (None, _) => base.join(text),
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
            home.join(rest.trim_start_matches('/'))
        }
        (Some(rest), None) if rest.is_empty() || rest.starts_with('/') => {
            return Err("`~` needs HOME, which is not set; write the path out");
        }
        (Some(_), _) => return Err("`~user` is not supported; write the path out"),
    };
    Ok(path.display().to_string())
}

/// Converts a value to the type of its field in [`S3Options`]. A variable has numbers and booleans as text,
/// with 1 and 0 for true and false.
fn s3_value(name: &str, key: &str, raw: &RawValue) -> Result<Value, ConfigError> {
    let number = S3Options::NUMBERS.into_iter().find(|number| number.name == name);
    let check = |value: &Value| -> Result<(), String> {
        if let Some(number) = &number
            && !value.as_u64().is_some_and(|value| number.range.contains(&value))
        {
            let (min, max) = (number.range.start(), number.range.end());
            return Err(format!("give a whole number from {min} to {max}"));
        }
        let options = Map::from_iter([(name.to_owned(), value.clone())]);
        let parsed = serde_json::from_value::<S3Options>(Value::Object(options));
        parsed.map(drop).map_err(|error| error.to_string())
    };
    let Err(reason) = check(&raw.value) else { return Ok(raw.value.clone()) };
    if let (SettingProvenance::Environment(_), Some(text)) = (&raw.source, raw.value.as_str()) {
        let text = text.trim().to_ascii_lowercase();
        let digit = match text.as_str() {
            "1" => Some(Value::Bool(true)),
            "0" => Some(Value::Bool(false)),
            _ => None,
        };
        let mut candidates = text.parse::<Value>().ok().into_iter().chain(digit);
        if let Some(value) = candidates.find(|value| check(value).is_ok()) {
            return Ok(value);
        }
    }
    Err(raw.bad(key, reason))
}
