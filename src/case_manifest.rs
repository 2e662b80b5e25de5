//! Case manifests: the files of a case, their inputs, and the rules of the conversion.
//!
//! The manifest of a case lies beside its files and is written last: a case with a manifest is complete.
//! While a case is converted, a partial manifest lists the files that are done, so that an interrupted
//! conversion continues. Manifests have no times of conversion and no machine names: the same case from
//! the same input has the same manifest. Publishing reads the manifests instead of the data.

mod difference;
mod enclosing;
mod summary;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::{Checksums, ErrorKind, WithErrorKind, hex};
use crate::store::{ObjectMeta, PutMode, PutOptions, Store, StoreError};

pub use difference::{SettingDifference, first_digits};
pub use enclosing::{enclosing_raw_history, enclosing_results};
pub use summary::{CaseValues, Loss, ManifestObject, ManifestSummary, values_sha256};

/// Name of the record of a complete case, in the folder of its files.
pub const CASE_MANIFEST: &str = "manifest.json";
/// Name of the record of a case that is not complete.
pub const PARTIAL_MANIFEST: &str = "manifest.partial.json";
/// Hidden folder of the records in a map store, with `PPP-MM.json` for each case.
pub const CASES_FOLDER: &str = ".cases";
/// Name of the record, in [`CASES_FOLDER`], of objects that all cases share: metadata, coordinates and shared
/// chunks.
pub const SHARED_MANIFEST: &str = "shared.json";
/// Name of the object, in [`CASES_FOLDER`], with the rules of a store.
pub const RECIPE_FILE: &str = "recipe.json";
/// Names of objects that mark their folder as a Zarr hierarchy or as the folder of a case. Other results
/// are not written into such a folder.
pub const RESULT_MARKERS: [&str; 5] =
    [".zgroup", ".zmetadata", "zarr.json", CASE_MANIFEST, PARTIAL_MANIFEST];
/// Version of the format of records, of cases and in map stores.
pub const FORMAT: u32 = 2;

/// An error of reading or writing a record.
#[derive(Debug, thiserror::Error)]
pub enum CaseManifestError {
    /// A request to the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object is not a valid record.
    #[error("{url} is not a valid case manifest of dor; move it away or use --force")]
    Damaged {
        /// URL of the object.
        url: String,
        /// The error of the parser.
        source: serde_json::Error,
    },
    /// The record has a format that this program does not read.
    #[error("{}", other_format(url, *found))]
    Format {
        /// URL of the record.
        url: String,
        /// Format of the record.
        found: u32,
    },
}

/// The message about a record with another format.
pub fn other_format(url: &str, found: u32) -> String {
    let advice = match found < FORMAT {
        true => "an earlier version of dor wrote it: make its case again with --force",
        false => "use a newer version of dor",
    };
    format!("{url} has case manifest format {found}, this program reads {FORMAT}; {advice}")
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

/// The record of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseManifest {
    /// Version of the format.
    pub format: u32,
    /// Full name of the case.
    pub case: String,
    /// Product and rules of the conversion.
    pub recipe: ConversionRecipe,
    /// Number of points of the model grid, `[nlat, nlon]`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub grid_shape: Option<[usize; 2]>,
    /// Model months without input, if the user allowed missing months.
    pub missing_months: Vec<String>,
    /// Size in bytes of the parts of files whose MD5s are recorded.
    pub part_size: u64,
    /// Of a partial manifest: the fingerprint of the raw files ([`InputRecord::fingerprint`]) that its process
    /// converts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub inputs_fingerprint: Option<String>,
    /// Files, ordered by key.
    pub files: Vec<FileRecord>,
}

/// The rules of a conversion. Results of different rules are not mixed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConversionRecipe {
    /// Product, such as `research-grade`.
    pub product: String,
    /// Version of the rules.
    pub version: u32,
    /// SHA-256 of the grid file. `None`: without a grid file, with the coordinates of the raw files.
    pub grid_sha256: Option<String>,
}

impl ConversionRecipe {
    /// The settings of this recorded recipe that conflict with those of `now`: all that differ, except
    /// that a grid file now, and none before, is no conflict, because it only adds coordinates.
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

/// An output file and the input it was made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Key of the output, relative to the output location.
    pub key: String,
    /// Size and checksums of the output.
    #[serde(flatten)]
    pub content: Checksums,
    /// The input file.
    pub input: InputRecord,
}

/// The version of an input that was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputRecord {
    /// Key, relative to the input location.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last modification, RFC 3339.
    pub modified: String,
    /// ETag. `None`: the store has no ETags.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub etag: Option<String>,
    /// SHA-256 of the content, in hexadecimal. `None`: the file was not read to the end, and no record
    /// has its checksum.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<String>,
}

/// The state of an input compared with its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputState {
    /// Size and modification time, or ETag, are the same.
    Same,
    /// The modification time or the ETag differs, the content is the same.
    Touched,
    /// The content differs.
    Changed,
    /// The modification time or the ETag differs, and the record has no checksum of the content.
    Unknown,
}

impl InputRecord {
    /// The record of an object that was read.
    pub fn new(info: &ObjectMeta, sha256: Option<String>) -> Self {
        Self {
            key: info.key.clone(),
            size: info.size,
            modified: info.modified.to_rfc3339(),
            etag: info.etag.clone(),
            sha256,
        }
    }

    /// SHA-256 of the keys and versions of inputs, in hexadecimal, without reading them.
    pub fn fingerprint<'a>(inputs: impl Iterator<Item = &'a Self>) -> String {
        let mut digest = Sha256::new();
        for Self { key, size, modified, etag, .. } in inputs {
            // The end of each text is marked, so that different inputs never give the same bytes.
            digest.update(format!("{key}\0{size}\0{modified}\0{etag:?}\0"));
        }
        hex(&digest.finalize())
    }

    /// Whether both are the same version of an object, without reading it: the same key, size and ETag.
    /// Where one of them has no ETag, the modification times are compared.
    pub fn is_same_version(&self, other: &Self) -> bool {
        let same = match (&self.etag, &other.etag) {
            (Some(a), Some(b)) => a == b,
            _ => self.modified == other.modified,
        };
        self.key == other.key && self.size == other.size && same
    }

    /// Whether both have the same content: the same checksum or, where one of them has none, the same
    /// version ([`Self::is_same_version`]).
    pub fn has_same_content(&self, other: &Self) -> bool {
        match (&self.sha256, &other.sha256) {
            (Some(a), Some(b)) => a == b,
            _ => self.is_same_version(other),
        }
    }

    /// Compares the recorded input with `info`, the object in `store` now. All products decide by this
    /// result whether they convert an input again.
    ///
    /// Size and modification time (or ETag) are compared first. If the time differs, the object is read
    /// and its checksum is compared, so that a copied or touched archive is not converted again.
    ///
    /// # Errors
    /// The object cannot be read.
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
            // On a disk the ETag includes the inode, which differs in a copy of the file.
            now.etag = None;
        }
        if self.is_same_version(&now) {
            return Ok(InputState::Same);
        }
        let Some(known) = &self.sha256 else { return Ok(InputState::Unknown) };
        let same = *known == sha256(store, info).await?;
        tracing::info!(
            "{}: its modification time differs, its content {}",
            store.location().join(&info.key),
            if same { "is the same" } else { "differs too" }
        );
        Ok(if same { InputState::Touched } else { InputState::Changed })
    }
}

/// SHA-256 of the content of an object, in hexadecimal.
///
/// # Errors
/// The object cannot be read.
pub async fn sha256(store: &Store, info: &ObjectMeta) -> Result<String, StoreError> {
    let object = store.object_known(&info.key, info.clone());
    let update = |digest: &mut Sha256, bytes: &mut Vec<u8>| digest.update(bytes);
    Ok(hex(&object.fold(0..info.size, Sha256::new(), update).await?.finalize()))
}

impl CaseManifest {
    /// A record without files. `part_size` is the size in bytes of the parts whose MD5s are recorded.
    pub fn new(
        case: String,
        recipe: ConversionRecipe,
        missing_months: Vec<String>,
        part_size: u64,
    ) -> Self {
        Self {
            format: FORMAT,
            case,
            recipe,
            grid_shape: None,
            missing_months,
            part_size,
            inputs_fingerprint: None,
            files: Vec::new(),
        }
    }

    /// Adds or replaces the entry of a file; entries stay ordered by key.
    pub fn insert(&mut self, file: FileRecord) {
        match self.files.binary_search_by(|f| f.key.cmp(&file.key)) {
            Ok(at) => self.files[at] = file,
            Err(at) => self.files.insert(at, file),
        }
    }

    /// The entry of an output file.
    pub fn file(&self, key: &str) -> Option<&FileRecord> {
        let at = self.files.binary_search_by(|f| f.key.as_str().cmp(key)).ok()?;
        self.files.get(at)
    }

    /// Reads the record in `folder`; `name` is [`CASE_MANIFEST`] or [`PARTIAL_MANIFEST`]. `None`: there is none.
    ///
    /// # Errors
    /// The record cannot be read, is not valid, or has another format.
    pub async fn load(
        store: &Store,
        folder: &str,
        name: &str,
    ) -> Result<Option<Self>, CaseManifestError> {
        Ok(Self::load_with_condition(store, folder, name).await?.0)
    }

    /// Reads the record as [`Self::load`], with the condition for replacing it only if it is still this
    /// version.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub async fn load_with_condition(
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

    /// Writes the record to `folder`; `name` is [`CASE_MANIFEST`] or [`PARTIAL_MANIFEST`].
    ///
    /// # Errors
    /// The store fails.
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

    /// Writes the record if `condition` holds, and returns whether it held. A service without conditional
    /// writes always writes it. Errors are those of [`Self::save`].
    pub async fn save_if(
        &self,
        store: &Store,
        folder: &str,
        name: &str,
        condition: PutMode,
    ) -> Result<bool, CaseManifestError> {
        let key = format!("{folder}/{name}");
        let options = PutOptions { condition, ..PutOptions::default() };
        match store.send(&key, self.json(&key)?, &options).await {
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
        record.save(&store, "112/04", CASE_MANIFEST).await.unwrap();
        let read = CaseManifest::load(&store, "112/04", CASE_MANIFEST).await.unwrap();
        assert_eq!(read.as_ref(), Some(&record));
        assert_eq!(CaseManifest::load(&store, "112/04", PARTIAL_MANIFEST).await.unwrap(), None);
    }

    #[tokio::test]
    async fn the_error_of_another_object_or_format_names_it() {
        let store = Store::memory();
        for text in [r#"{"format": 9}"#, "hello", r#"{"format": 1}"#, r#"{"format": 2}"#] {
            store.put("x/manifest.json", Bytes::from(text)).await.unwrap();
            let error = CaseManifest::load(&store, "x", CASE_MANIFEST).await.unwrap_err();
            assert!(error.to_string().contains("x/manifest.json"), "{error}");
            let is_earlier = error.to_string().contains("an earlier version of dor wrote it");
            assert_eq!(is_earlier, text == r#"{"format": 1}"#, "{error}");
        }
    }

    #[tokio::test]
    async fn the_checksum_decides_where_time_or_etag_differ() {
        let store = Store::memory();
        store.put("a", Bytes::from_static(b"12345")).await.unwrap();
        let now = store.head("a").await.unwrap().unwrap();
        let recorded = |content: Option<&[u8]>| {
            InputRecord::new(&now, content.map(|c| hex(&Sha256::digest(c))))
        };
        let other_etag =
            |content| InputRecord { etag: Some("other".to_owned()), ..recorded(content) };
        let other_time = |content| InputRecord {
            etag: None,
            modified: chrono::DateTime::UNIX_EPOCH.to_rfc3339(),
            ..recorded(content)
        };
        let (same, other): (&[u8], &[u8]) = (b"12345", b"54321");
        for (recorded, expected) in [
            (recorded(None), InputState::Same),
            // The object is not read where size and ETag, or time, are the same.
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
