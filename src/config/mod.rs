//! Configuration: flags over environment over `dor.toml` over defaults.
//!
//! Every layer is flattened to `key -> (value, source)`, the layers are laid over each other, and only
//! then are the values parsed, so that each keeps the place it came from: `dor config show` prints it, and an
//! error about a value names it.

mod error;
mod file;
mod keys;
mod layers;
pub(crate) mod location_checks;
mod overrides;
mod provenance;
mod raw;
mod redaction;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use crate::store::{EffectiveSettings, Location, S3Options, SettingSource, StoreError};
pub use error::ConfigError;
pub use keys::{AWS_VARIABLES, KEYS, Key, s3_keys};
use layers::Layers;
pub use overrides::Overrides;
pub use provenance::{ProcessEnv, Setting, SettingProvenance};
pub use redaction::{redact, show_variable};

/// The resolved configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The `dor.toml` that was read, if there was one.
    pub file: Option<PathBuf>,
    /// Fast space for intermediate files.
    pub scratch: Option<Setting<Location>>,
    /// Folder that the defaults of the outputs lie under.
    pub parent_data_dir: Option<Setting<Location>>,
    /// The archive of raw model history; only ever read.
    pub data_dir: Option<Setting<Location>>,
    /// Where the research-grade files go.
    pub output_dir: Option<Setting<Location>>,
    /// File with the full `TLAT` and `TLONG`.
    pub grid: Option<Setting<Location>>,
    /// Visualization store 1.
    pub store1: Option<Setting<Location>>,
    /// Visualization store 2.
    pub store2: Option<Setting<Location>>,
    /// Store of the cumulative CO2 flux in percent.
    pub store3: Option<Setting<Location>>,
    /// The plan of a campaign.
    pub plan: Option<Setting<Location>>,
    /// Files converted at the same time.
    pub workers: Setting<NonZeroUsize>,
    /// Everything about S3 that flags, `DOR_S3_*` and `dor.toml` say; the storage layer adds what
    /// the standard AWS variables and files say.
    pub s3: S3Options,
    entries: Vec<SettingEntry>,
}

/// One line of `dor config show`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SettingEntry {
    /// Name of the key, `s3.region` for one in a table.
    pub key: String,
    /// Value as it may be shown: secrets are hidden. `None`: not set.
    pub value: Option<Value>,
    /// Where the value came from. `None`: not set.
    #[serde(serialize_with = "provenance::as_text")]
    pub source: Option<SettingProvenance>,
}

impl Config {
    /// Resolves the configuration of this process.
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        Self::load_in(overrides, &ProcessEnv::of_process())
    }

    /// Resolves the configuration as it would be in `surroundings`.
    pub fn load_in(overrides: &Overrides, surroundings: &ProcessEnv) -> Result<Self, ConfigError> {
        let found = file::find(overrides.config.as_deref(), surroundings)?;
        let mut layers = Layers::default();
        if let Some(file) = &found {
            layers.add_file(file, surroundings)?;
        }
        layers.add_environment(surroundings)?;
        layers.add_flags(overrides);

        let parent_data_dir = layers.location("parent_data_dir")?;
        let under_parent = |name: &str| {
            parent_data_dir.as_ref().map(|parent| Setting {
                value: parent.value.join(name),
                source: SettingProvenance::Derived("parent_data_dir"),
            })
        };
        let or_under_parent = |key: &str, name: &str| -> Result<_, ConfigError> {
            Ok(layers.location(key)?.or_else(|| under_parent(name)))
        };
        let mut config = Self {
            file: found.map(|f| f.path),
            scratch: layers.location("scratch")?,
            data_dir: layers.location("data_dir")?,
            output_dir: or_under_parent("output_dir", "research-grade")?,
            grid: layers.location("grid")?,
            store1: or_under_parent("store1", "store1b.zarr")?,
            store2: or_under_parent("store2", "store2.zarr")?,
            store3: or_under_parent("store3", "cumulative_FG_CO2_percent.zarr")?,
            plan: layers.location("plan")?,
            workers: layers.workers(surroundings)?,
            s3: layers.s3()?,
            parent_data_dir: parent_data_dir.clone(),
            entries: Vec::new(),
        };
        config.entries = config.describe(&layers);
        Ok(config)
    }

    /// Every key with its value and source, in the order of the documentation.
    pub fn entries(&self) -> &[SettingEntry] {
        &self.entries
    }

    /// The same with what AWS files and the profiles that are built in say of S3.
    pub async fn entries_in_force(&self) -> Result<Vec<SettingEntry>, StoreError> {
        let EffectiveSettings { endpoint_url, region, addressing } =
            EffectiveSettings::of(&self.s3).await?;
        let addressing = (serde_json::to_value(addressing.0).ok(), addressing.1);
        let decided = [
            ("s3.endpoint_url", (endpoint_url.0.map(|url| redact(&url).into()), endpoint_url.1)),
            ("s3.region", (Some(region.0.into()), region.1)),
            ("s3.addressing", addressing),
        ];
        let mut entries = self.entries.clone();
        for (key, (value, decider)) in decided {
            let Some(entry) = entries.iter_mut().find(|entry| entry.key == key) else { continue };
            let source = match (decider, &entry.source) {
                (SettingSource::Options, _)
                | (SettingSource::Aws, Some(SettingProvenance::AwsEnvironment(_))) => continue,
                (SettingSource::Aws, _) => SettingProvenance::AwsFile,
                (SettingSource::Profile(name), _) => SettingProvenance::Profile(name),
                (SettingSource::Default, _) => SettingProvenance::Default,
            };
            (entry.value, entry.source) = match value {
                Some(value) => (Some(value), Some(source)),
                None => (Some("AWS".into()), Some(source)),
            };
        }
        Ok(entries)
    }

    /// The locations that are configured, with the name of their key.
    pub fn locations(&self) -> impl Iterator<Item = (&'static str, &Setting<Location>)> {
        [
            ("scratch", &self.scratch),
            ("parent_data_dir", &self.parent_data_dir),
            ("data_dir", &self.data_dir),
            ("output_dir", &self.output_dir),
            ("grid", &self.grid),
            ("store1", &self.store1),
            ("store2", &self.store2),
            ("store3", &self.store3),
            ("plan", &self.plan),
        ]
        .into_iter()
        .filter_map(|(key, setting)| Some((key, setting.as_ref()?)))
    }

    fn describe(&self, layers: &Layers) -> Vec<SettingEntry> {
        let locations = KEYS.iter().filter(|key| key.name != "workers").map(|key| {
            let setting = self.locations().find(|(name, _)| *name == key.name).map(|(_, s)| s);
            SettingEntry {
                key: key.name.to_owned(),
                value: setting.map(|s| redact(&s.value.to_string()).into()),
                source: setting.map(|s| s.source.clone()),
            }
        });
        let workers = SettingEntry {
            key: "workers".to_owned(),
            value: Some(self.workers.value.get().into()),
            source: Some(self.workers.source.clone()),
        };
        let s3 = s3_keys().into_iter().map(|name| {
            let key = format!("s3.{name}");
            let (value, source) = match (layers.get(&key), keys::s3_default(&name)) {
                (Some(raw), _) => (Some(redaction::show(&name, &raw.value)), raw.source.clone()),
                (None, default) => (default, SettingProvenance::Default),
            };
            SettingEntry { key, source: value.is_some().then_some(source), value }
        });
        locations.chain([workers]).chain(s3).collect()
    }
}

#[cfg(test)]
mod tests;
