//! Completion records: what is done, from what, under which recipe.
//!
//! A case's record lies beside its files and is written last: where it is, the case is complete.
//! Until then a record under another name says which files are done, so that a case that was
//! stopped continues. Records hold no times and no machine names: the same case from the same
//! input has the same record. They are also the manifests that publishing compares.

mod summary;

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::{Checksums, ErrorKind, WithErrorKind, hex};
use crate::store::{ObjectMeta, PutMode, PutOptions, Store, StoreError};

pub use summary::{Loss, ManifestObject, ManifestSummary};

/// Name of the record of a complete case, in the folder of its files.
pub const COMPLETE: &str = "manifest.json";
/// Name of the record of a case that is not complete.
pub const PARTIAL: &str = "manifest.partial.json";
/// Folder of the records in a map store, which readers pass over: `PPP-MM.json` for each case,
pub const CASES: &str = ".cases";
/// and this for what the cases share: metadata, coordinates, the chunks that hold all of them.
pub const SHARED: &str = "shared.json";
/// There, the rules that the store is filled under, decided by the first process that fills it.
pub const RULES: &str = "recipe.json";
/// Objects that tell, in the folder they lie in, of results that belong together: a Zarr hierarchy, the
/// files of a case. Nothing else is made among them.
pub const TOGETHER: [&str; 5] = [".zgroup", ".zmetadata", "zarr.json", COMPLETE, PARTIAL];
/// Version of the form of the records, here and in map stores.
pub const FORMAT: u32 = 2;

/// A record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CaseManifestError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object is no record.
    #[error("{url} is not a record of this program; move it away or use --force")]
    Damaged {
        /// Object.
        url: String,
        /// Cause.
        source: serde_json::Error,
    },
    /// The record is of a form that this program does not know.
    #[error("{}", other_format(url, *found))]
    Format {
        /// Object.
        url: String,
        /// Its format.
        found: u32,
    },
}

/// What to do about a record of another form.
pub fn other_format(url: &str, found: u32) -> String {
    let advice = match found < FORMAT {
        true => "an earlier dor has made it: make what it belongs to again with --force",
        false => "use a newer dor",
    };
    format!("{url} has record format {found}, this program knows {FORMAT}; {advice}")
}

impl WithErrorKind for CaseManifestError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Format { .. } => ErrorKind::Config,
            Self::Damaged { .. } => ErrorKind::BadData,
        }
    }
}

/// What was done for a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseManifest {
    /// Version of the record's form.
    pub format: u32,
    /// Name of the case.
    pub case: String,
    /// What was made and under which rules.
    pub recipe: ConversionRecipe,
    /// Model months without input, when that was allowed.
    pub missing_months: Vec<String>,
    /// Bytes of the parts of files of which the MD5s are recorded.
    pub part_size: u64,
    /// A file each, by key.
    pub files: Vec<FileRecord>,
}

/// The rules that outputs were made under.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConversionRecipe {
    /// Product, such as `research-grade`.
    pub product: String,
    /// Version of the rules.
    pub version: u32,
    /// SHA-256 of the grid file; none when the raw files' own coordinates were kept.
    pub grid_sha256: Option<String>,
}

impl ConversionRecipe {
    /// The settings for which a result under these rules would not be made again under those of
    /// `now`: all that differ, but for a grid file where there was none, which makes it better.
    pub fn conflicts(&self, now: &Self) -> Vec<SettingDifference> {
        let rules = |recipe: &Self| format!("{} version {}", recipe.product, recipe.version);
        let same_rules = (&self.product, self.version) == (&now.product, now.version);
        let rules = (!same_rules).then(|| SettingDifference {
            setting: "rules",
            recorded: rules(self),
            now: rules(now),
        });
        let grid =
            SettingDifference::of_grid(self.grid_sha256.as_deref(), now.grid_sha256.as_deref());
        rules.into_iter().chain(grid).collect()
    }
}

/// A setting that a finished result depends on, and that is another one now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingDifference {
    /// What it is.
    pub setting: &'static str,
    /// Its value in the record.
    pub recorded: String,
    /// Its value in this run.
    pub now: String,
}

impl SettingDifference {
    /// Of the SHA-256 of the grid file; `None` when it is the same, and when there was none before.
    pub fn of_grid(recorded: Option<&str>, now: Option<&str>) -> Option<Self> {
        let before = recorded.filter(|before| now != Some(*before))?;
        let now = match now {
            Some(now) => format!("the grid file it was given (SHA-256 {})", first_digits(now)),
            None => "none (--grid is not given)".to_owned(),
        };
        let recorded = format!("another grid file (SHA-256 {})", first_digits(before));
        Some(Self { setting: "grid", recorded, now })
    }
}

/// Digits of a checksum that tell a few files apart: nobody compares 64.
pub fn first_digits(sha256: &str) -> String {
    const SHOWN: usize = 12;
    sha256.chars().filter(char::is_ascii_hexdigit).take(SHOWN).chain(['…']).collect()
}

impl fmt::Display for SettingDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, recorded, now } = self;
        write!(f, "{setting}: the record has {recorded}, this run has {now}")
    }
}

/// An input and the output made from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Key of the output, relative to the output location.
    pub key: String,
    /// Size and checksums of the output.
    #[serde(flatten)]
    pub content: Checksums,
    /// What it was made from.
    pub input: InputRecord,
}

/// An input as it was when it was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputRecord {
    /// Key, relative to the input location.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Last modification, RFC 3339.
    pub modified: String,
    /// ETag, where the store has real ones.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub etag: Option<String>,
    /// SHA-256 of the content, in hexadecimal; none of files that were not read to the end and of which
    /// there is no record.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<String>,
}

/// What became of an input since it was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputState {
    /// It is the same object.
    Same,
    /// Its time or name is another one, its content is the same.
    Touched,
    /// Its content is another one.
    Changed,
    /// Its time is another one, and there is no checksum to tell whether the content is too.
    Unknown,
}

impl InputRecord {
    /// Describes an object that was read.
    pub fn new(info: &ObjectMeta, sha256: Option<String>) -> Self {
        Self {
            key: info.key.clone(),
            size: info.size,
            modified: info.modified.to_rfc3339(),
            etag: info.etag.clone(),
            sha256,
        }
    }

    /// Whether the object is the one that was recorded, as far as can be told without reading it: its
    /// name and size, and its ETag, or its time where one of the two has no ETag.
    pub fn is_version(&self, other: &Self) -> bool {
        let same = match (&self.etag, &other.etag) {
            (Some(a), Some(b)) => a == b,
            _ => self.modified == other.modified,
        };
        self.key == other.key && self.size == other.size && same
    }

    /// Whether the content is known to be that of `other`: by checksum where both have one, else as by
    /// [`Self::is_version`].
    pub fn is_content(&self, other: &Self) -> bool {
        match (&self.sha256, &other.sha256) {
            (Some(a), Some(b)) => a == b,
            _ => self.is_version(other),
        }
    }

    /// What became of the input, which is `info` in `store` now. This decides everywhere what is done
    /// again: size and time first; where the time (or the ETag) is another one, the object is read, and
    /// the recorded checksum decides, so that a copied or touched archive converts nothing again.
    pub async fn compare(
        &self,
        store: &Store,
        info: &ObjectMeta,
    ) -> Result<InputState, StoreError> {
        if self.size != info.size {
            return Ok(InputState::Changed);
        }
        let mut now = Self::new(info, None);
        if store.location().is_local() {
            // On disk an ETag names the inode, which a copy of the same file does not keep.
            now.etag = None;
        }
        if self.is_version(&now) {
            return Ok(InputState::Same);
        }
        let Some(known) = &self.sha256 else { return Ok(InputState::Unknown) };
        let same = *known == sha256(store, info).await?;
        tracing::info!(
            "{}: its time is another one, its content {}",
            store.location().join(&info.key),
            if same { "is the same" } else { "too" }
        );
        Ok(if same { InputState::Touched } else { InputState::Changed })
    }
}

/// SHA-256 of an object's content, in hexadecimal.
pub async fn sha256(store: &Store, info: &ObjectMeta) -> Result<String, StoreError> {
    let object = store.object_known(&info.key, info.clone());
    let step = |digest: &mut Sha256, piece: &mut Vec<u8>| digest.update(piece);
    Ok(hex(&object.fold(0..info.size, Sha256::new(), step).await?.finalize()))
}

impl CaseManifest {
    /// An empty record, of files of which the MD5s of such parts will be recorded.
    pub fn new(
        case: String,
        recipe: ConversionRecipe,
        missing_months: Vec<String>,
        part_size: u64,
    ) -> Self {
        Self { format: FORMAT, case, recipe, missing_months, part_size, files: Vec::new() }
    }

    /// Adds or replaces the entry of a file; entries stay ordered by key.
    pub fn insert(&mut self, file: FileRecord) {
        match self.files.binary_search_by(|f| f.key.cmp(&file.key)) {
            Ok(at) => self.files[at] = file,
            Err(at) => self.files.insert(at, file),
        }
    }

    /// The entry of an output.
    pub fn file(&self, key: &str) -> Option<&FileRecord> {
        let at = self.files.binary_search_by(|f| f.key.as_str().cmp(key)).ok()?;
        self.files.get(at)
    }

    /// Reads the record in `folder` under one of the two names.
    pub async fn load(
        store: &Store,
        folder: &str,
        name: &str,
    ) -> Result<Option<Self>, CaseManifestError> {
        Ok(Self::load_version(store, folder, name).await?.0)
    }

    /// The same, with the condition under which nobody has replaced it since.
    pub async fn load_version(
        store: &Store,
        folder: &str,
        name: &str,
    ) -> Result<(Option<Self>, PutMode), CaseManifestError> {
        let key = format!("{folder}/{name}");
        let Some((bytes, info)) = store.get(&key).await? else {
            return Ok((None, PutMode::Absent));
        };
        let url = store.location().join(&key).to_string();
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let damaged = |source| CaseManifestError::Damaged { url: url.clone(), source };
        let Format { format } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if format != FORMAT {
            return Err(CaseManifestError::Format { url, found: format });
        }
        let record = serde_json::from_slice(&bytes).map_err(damaged)?;
        Ok((Some(record), info.etag.map_or(PutMode::Always, PutMode::Is)))
    }

    /// Writes the record to `folder` under one of the two names.
    pub async fn save(
        &self,
        store: &Store,
        folder: &str,
        name: &str,
    ) -> Result<(), CaseManifestError> {
        let key = format!("{folder}/{name}");
        store.put(&key, self.json(&key)?).await?;
        Ok(())
    }

    /// Writes the record under one of the two names where `condition` holds; whether it held. A service
    /// that knows no conditions has it written in any case.
    pub async fn save_on(
        &self,
        store: &Store,
        folder: &str,
        name: &str,
        condition: PutMode,
    ) -> Result<bool, CaseManifestError> {
        let key = format!("{folder}/{name}");
        let sending = PutOptions { condition, ..PutOptions::default() };
        match store.send(&key, self.json(&key)?, &sending).await {
            Ok(_) => Ok(true),
            Err(StoreError::PreconditionFailed { .. }) => Ok(false),
            Err(StoreError::NotImplemented { .. }) => {
                self.save(store, folder, name).await.map(|()| true)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn json(&self, key: &str) -> Result<Bytes, CaseManifestError> {
        let damaged = |source| CaseManifestError::Damaged { url: key.to_owned(), source };
        let mut text = serde_json::to_vec_pretty(self).map_err(damaged)?;
        text.push(b'\n');
        Ok(Bytes::from(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> CaseManifest {
        let recipe = ConversionRecipe {
            product: "research-grade".to_owned(),
            version: 1,
            grid_sha256: None,
        };
        CaseManifest::new("case".to_owned(), recipe, Vec::new(), 16 << 20)
    }

    fn info(size: u64, etag: Option<&str>) -> ObjectMeta {
        ObjectMeta {
            key: "a".to_owned(),
            size,
            modified: chrono::DateTime::UNIX_EPOCH,
            etag: etag.map(str::to_owned),
        }
    }

    #[tokio::test]
    async fn a_record_is_read_as_it_was_written_and_keeps_its_order() {
        let store = Store::memory();
        let mut record = record();
        for key in ["b", "a", "c", "a"] {
            let input = InputRecord::new(&info(1, None), Some("00".to_owned()));
            let content = Checksums::of(key.as_bytes(), record.part_size);
            record.insert(FileRecord { key: key.to_owned(), content, input });
        }
        assert_eq!(
            record.files.iter().map(|f| f.key.as_str()).collect::<Vec<_>>(),
            ["a", "b", "c"]
        );
        record.save(&store, "112/04", COMPLETE).await.unwrap();
        let read = CaseManifest::load(&store, "112/04", COMPLETE).await.unwrap();
        assert_eq!(read.as_ref(), Some(&record));
        assert_eq!(CaseManifest::load(&store, "112/04", PARTIAL).await.unwrap(), None);
    }

    #[tokio::test]
    async fn other_objects_and_newer_formats_are_refused_by_name() {
        let store = Store::memory();
        for text in [r#"{"format": 9}"#, "hello", r#"{"format": 1}"#, r#"{"format": 2}"#] {
            store.put("x/manifest.json", Bytes::from(text)).await.unwrap();
            let error = CaseManifest::load(&store, "x", COMPLETE).await.unwrap_err();
            assert!(error.to_string().contains("x/manifest.json"), "{error}");
            let is_earlier = error.to_string().contains("an earlier dor has made it");
            assert_eq!(is_earlier, text == r#"{"format": 1}"#, "{error}");
        }
    }

    #[tokio::test]
    async fn the_checksum_decides_where_time_or_etag_are_others() {
        let store = Store::memory();
        store.put("a", Bytes::from_static(b"12345")).await.unwrap();
        let now = store.head("a").await.unwrap().unwrap();
        let recorded =
            |of: Option<&[u8]>| InputRecord::new(&now, of.map(|bytes| hex(&Sha256::digest(bytes))));
        let other_etag = |of| InputRecord { etag: Some("other".to_owned()), ..recorded(of) };
        let other_time = |of| InputRecord {
            etag: None,
            modified: chrono::DateTime::UNIX_EPOCH.to_rfc3339(),
            ..recorded(of)
        };
        let (same, other): (&[u8], &[u8]) = (b"12345", b"54321");
        for (recorded, expected) in [
            (recorded(None), InputState::Same),
            // Nothing is read where size and ETag, or time, are the same.
            (recorded(Some(other)), InputState::Same),
            (InputRecord { size: 6, ..recorded(Some(same)) }, InputState::Changed),
            (other_etag(None), InputState::Unknown),
            (other_etag(Some(same)), InputState::Touched),
            (other_etag(Some(other)), InputState::Changed),
            (other_time(None), InputState::Unknown),
            (other_time(Some(same)), InputState::Touched),
            (other_time(Some(other)), InputState::Changed),
        ] {
            assert_eq!(recorded.compare(&store, &now).await.unwrap(), expected, "{recorded:?}");
        }
    }

    #[test]
    fn a_grid_where_there_was_none_is_no_conflict() {
        let recipe = |version, grid: Option<&str>| ConversionRecipe {
            product: "research-grade".to_owned(),
            version,
            grid_sha256: grid.map(str::to_owned),
        };
        let conflicts = |a: &ConversionRecipe, b: &ConversionRecipe| {
            a.conflicts(b).iter().map(|d| d.setting).collect::<Vec<_>>()
        };
        let (without, with) = (recipe(1, None), recipe(1, Some("a")));
        assert_eq!(conflicts(&without, &with), [""; 0]);
        assert_eq!(conflicts(&with, &with), [""; 0]);
        assert_eq!(conflicts(&with, &without), ["grid"]);
        assert_eq!(conflicts(&with, &recipe(1, Some("b"))), ["grid"]);
        assert_eq!(conflicts(&without, &recipe(2, Some("b"))), ["rules"]);
    }
}
