//! The configuration: flags, environment variables, `dor.toml` and defaults, in this order of precedence.
//!
//! Each layer is a map of `key -> (value, source)`. The layers are merged before the values are parsed, so
//! every value keeps its source. `dor config show` prints the source, and an error about a value names it.

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
    /// The `dor.toml` that was read. `None`: there is none.
    pub file: Option<PathBuf>,
    /// Folder on a fast disk for intermediate files.
    pub scratch: Option<Setting<Location>>,
    /// Parent folder of the outputs that have no location of their own.
    pub parent_data_dir: Option<Setting<Location>>,
    /// Archive of raw model history, which is only read.
    pub data_dir: Option<Setting<Location>>,
    /// Folder of the research-grade files.
    pub output_dir: Option<Setting<Location>>,
    /// Grid file with complete `TLAT` and `TLONG`.
    pub grid: Option<Setting<Location>>,
    /// Sea surface height of the reference run, for DIC of store 2.
    pub ssh: Option<Setting<Location>>,
    /// Centers of the polygons, for store 3.
    pub centers: Option<Setting<Location>>,
    /// Regridding weights of store 2.
    pub weights_store: Option<Setting<Location>>,
    /// Visualization store 1.
    pub store1: Option<Setting<Location>>,
    /// Visualization store 2.
    pub store2: Option<Setting<Location>>,
    /// Store of the cumulative CO2 flux in percent.
    pub store3: Option<Setting<Location>>,
    /// The plan of a campaign.
    pub plan: Option<Setting<Location>>,
    /// Number of files that are converted at the same time.
    pub workers: Setting<NonZeroUsize>,
    /// S3 options of flags, `DOR_S3_*` variables and `dor.toml`. The storage layer adds those of the standard
    /// AWS variables and files.
    pub s3: S3Options,
    entries: Vec<SettingEntry>,
}

/// One line of `dor config show`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SettingEntry {
    /// Name of the key; with its table, such as `s3.region`.
    pub key: String,
    /// The value, with secrets hidden. `None`: not set.
    pub value: Option<Value>,
    /// The layer of the value. `None`: not set.
    #[serde(serialize_with = "provenance::as_text")]
    pub source: Option<SettingProvenance>,
}

impl Config {
    /// Resolves the configuration of this process.
    ///
    /// # Errors
    /// As [`Self::load_in`].
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        Self::load_in(overrides, &ProcessEnv::of_process())
    }

    /// Resolves the configuration of a process with the environment `env`.
    ///
    /// # Errors
    /// The configuration file cannot be read, or a key or a value is not valid.
    pub fn load_in(overrides: &Overrides, env: &ProcessEnv) -> Result<Self, ConfigError> {
        let file = file::find(overrides.config.as_deref(), env)?;
        let mut layers = Layers::default();
        if let Some(file) = &file {
            layers.add_file(file, env)?;
        }
        layers.add_environment(env)?;
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
            file: file.map(|file| file.path),
            scratch: layers.location("scratch")?,
            data_dir: layers.location("data_dir")?,
            output_dir: or_under_parent("output_dir", "research-grade")?,
            grid: layers.location("grid")?,
            ssh: layers.location("ssh")?,
            centers: layers.location("centers")?,
            weights_store: layers.location("weights_store")?,
            store1: or_under_parent("store1", "store1b.zarr")?,
            store2: or_under_parent("store2", "store2.zarr")?,
            store3: or_under_parent("store3", "cumulative_FG_CO2_percent.zarr")?,
            plan: layers.location("plan")?,
            workers: layers.workers(env)?,
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

    /// Every key with its value and source, with the S3 values of AWS files and built-in profiles.
    ///
    /// # Errors
    /// The AWS files cannot be read, or the profile does not exist.
    pub async fn effective_entries(&self) -> Result<Vec<SettingEntry>, StoreError> {
        let EffectiveSettings { endpoint_url, region, addressing } =
            EffectiveSettings::of(&self.s3).await?;
        let addressing = (serde_json::to_value(addressing.0).ok(), addressing.1);
        let effective = [
            ("s3.endpoint_url", (endpoint_url.0.map(|url| redact(&url).into()), endpoint_url.1)),
            ("s3.region", (Some(region.0.into()), region.1)),
            ("s3.addressing", addressing),
        ];
        let mut entries = self.entries.clone();
        for (key, (value, setting_source)) in effective {
            let Some(entry) = entries.iter_mut().find(|entry| entry.key == key) else { continue };
            let source = match (setting_source, &entry.source) {
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

    /// The locations that are set, each with the name of its key.
    pub fn locations(&self) -> impl Iterator<Item = (&'static str, &Setting<Location>)> {
        [
            ("scratch", &self.scratch),
            ("parent_data_dir", &self.parent_data_dir),
            ("data_dir", &self.data_dir),
            ("output_dir", &self.output_dir),
            ("grid", &self.grid),
            ("ssh", &self.ssh),
            ("centers", &self.centers),
            ("weights_store", &self.weights_store),
            ("store1", &self.store1),
            ("store2", &self.store2),
            ("store3", &self.store3),
            ("plan", &self.plan),
        ]
        .into_iter()
        .filter_map(|(key, setting)| Some((key, setting.as_ref()?)))
    }

    /// The entries of [`Self::entries`].
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
