//! Making an empty store, and opening one that is there.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;

use super::earlier::refuse_taken;
use super::record::{self, CaseRecord, FileEntry, RecordedCases};
use super::schema::{EFFICIENCY, MAX_LEVELS, PyramidOptions, RECIPE, StoreKind, UPTAKE};
use super::{StoreRecipe, VisError, coverage};
use crate::case_manifest::{CASES, RULES, TOGETHER};
use crate::encode::zarr::{Array, Hierarchy, StoreObject, ZarrVersion, chunk, v2, v3};
use crate::model::Case;
use crate::model::atlas::{FILL, MapVariable};
use crate::store::{PutMode, PutOptions, Store, StoreError};

/// A store that is there.
pub struct ExistingStore {
    /// Which one.
    pub kind: StoreKind,
    /// Under which rules it is filled; none before the first case.
    pub recipe: Option<StoreRecipe>,
}

/// Makes an empty store: metadata, coordinates and, where cases share chunks, chunks of fill.
///
/// A store that holds results is replaced only when `overwrite` is set; a store of another kind and
/// other folders never are.
pub async fn create(
    store: &Store,
    kind: &StoreKind,
    overwrite: bool,
) -> Result<Hierarchy, VisError> {
    if let Some(above) = store.parent()
        && let Some(other) = above.within(&TOGETHER).await
    {
        let (url, other) = (store.location().to_string(), other.to_string());
        return Err(VisError::Inside { url, other });
    }
    let hierarchy = kind.hierarchy(None);
    let objects = objects(kind, &hierarchy)?;
    let mut others: Vec<String> = store.list("").await?.into_iter().map(|o| o.key).collect();
    refuse_occupied(store, kind, &objects, &others, overwrite).await?;
    others.retain(|key| !objects.iter().any(|object| object.key == *key));
    // Readers find nothing rather than half of it; what tells that it is a store goes last.
    if !others.is_empty() {
        store.delete(v2::CONSOLIDATED).await?;
    }
    others.sort_by_key(|key| std::cmp::Reverse((!is_metadata(key), key.matches('/').count())));
    for key in &others {
        store.delete(key).await?;
    }
    for StoreObject { key, bytes } in objects {
        store.put(&key, bytes).await?;
    }
    Ok(hierarchy)
}

fn is_metadata(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key);
    [".zarray", ".zattrs", ".zgroup", v2::CONSOLIDATED, v3::METADATA].contains(&name)
}

/// Refuses to make a store where something lies that it would replace and that is not its to replace.
async fn refuse_occupied(
    store: &Store,
    kind: &StoreKind,
    objects: &[StoreObject],
    found: &[String],
    overwrite: bool,
) -> Result<(), VisError> {
    if found.is_empty() {
        return Ok(());
    }
    let url = || store.location().to_string();
    let foreign = |problem| VisError::Foreign { url: url(), problem };
    let before = match open(store, kind.name()).await {
        Ok(opened) => opened.kind,
        Err(VisError::NoStore { .. } | VisError::Foreign { .. }) => {
            // What a process that was killed has left of the same template is completed.
            for key in found {
                let same = objects.iter().find(|object| object.key == *key);
                let there = store.get(key).await?.map(|(bytes, _)| bytes);
                if there.as_ref() != same.map(|object| &object.bytes) {
                    return Err(foreign("it holds files of something else".to_owned()));
                }
            }
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    if before.name() != kind.name() {
        return Err(VisError::OtherKind { url: url(), found: before.name(), wanted: kind.name() });
    }
    let parts = before.hierarchy(None);
    if let Some(key) = found.iter().find(|key| !belongs(key, &parts)) {
        let problem = format!("it also holds {key}: move away what is no part of it");
        return Err(foreign(problem));
    }
    if overwrite {
        return Ok(());
    }
    let mut cases: BTreeSet<Case> =
        coverage::with_values(store, &before).await?.into_keys().collect();
    let recorded = RecordedCases::of(store).await?;
    cases.extend(recorded.done.into_iter().chain(recorded.begun));
    // Of a pyramid any object counts: the listing has them all.
    let is_chunk = |key: &&String| {
        let mut arrays = parts.arrays.iter().filter(|array| array.is_data());
        arrays.any(|array| is_below(key, &array.path)) && !is_metadata(key)
    };
    let chunks = match before.columns() {
        0 => found.iter().filter(is_chunk).count(),
        _ => 0,
    };
    match (cases.len(), chunks) {
        (0, 0) => Ok(()),
        (0, chunks) => {
            Err(VisError::NotEmpty { url: url(), what: format!("{chunks} objects of data") })
        }
        (1, _) => Err(VisError::NotEmpty { url: url(), what: "results of 1 case".to_owned() }),
        (cases, _) => {
            Err(VisError::NotEmpty { url: url(), what: format!("results of {cases} cases") })
        }
    }
}

fn is_below(key: &str, folder: &str) -> bool {
    key.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether an object is part of a store.
fn belongs(key: &str, hierarchy: &Hierarchy) -> bool {
    let (folder, _) = key.rsplit_once('/').unwrap_or(("", key));
    let is_group = || folder.is_empty() || hierarchy.groups.iter().any(|group| group == folder);
    is_metadata(key) && is_group()
        || is_below(key, CASES)
        || hierarchy.arrays.iter().any(|array| is_below(key, &array.path))
}

/// All objects of an empty store, in the order in which they are written.
fn objects(kind: &StoreKind, hierarchy: &Hierarchy) -> Result<Vec<StoreObject>, VisError> {
    if kind.format() == ZarrVersion::V3 {
        let failed = |source| VisError::Shard { key: kind.name().to_owned(), source };
        return v3::objects(hierarchy).map_err(failed);
    }
    let mut objects = v2::metadata(hierarchy);
    if kind.columns() > 0 {
        for array in hierarchy.arrays.iter().filter(|array| array.is_data()) {
            let empty = chunk::encode_floats(&vec![FILL; array.chunk_len()]);
            let keys = array.chunk_keys().into_iter();
            objects.extend(keys.map(|key| StoreObject { key, bytes: empty.clone() }));
        }
    }
    objects.extend(v2::coordinates(hierarchy));
    objects.push(v2::consolidated(hierarchy));
    Ok(objects)
}

/// Writes the metadata and coordinates of a store again, under `recipe`, the consolidated
/// metadata last; what was written.
pub async fn write_metadata(
    store: &Store,
    kind: &StoreKind,
    recipe: Option<&StoreRecipe>,
) -> Result<Vec<FileEntry>, VisError> {
    let hierarchy = kind.hierarchy(recipe);
    let objects = match kind.format() {
        ZarrVersion::V3 => objects(kind, &hierarchy)?,
        ZarrVersion::V2 => {
            let mut objects = v2::metadata(&hierarchy);
            objects.extend(v2::coordinates(&hierarchy));
            objects.push(v2::consolidated(&hierarchy));
            objects
        }
    };
    let mut written = Vec::with_capacity(objects.len());
    for StoreObject { key, bytes } in objects {
        written.push(FileEntry::new(key.clone(), &bytes, store.multipart_size()));
        store.put(&key, bytes).await?;
    }
    Ok(written)
}

/// Opens a store, which must have the form that this program gives it.
pub async fn open(store: &Store, wanted: &'static str) -> Result<ExistingStore, VisError> {
    let url = || store.location().to_string();
    let foreign = |problem: String| VisError::Foreign { url: url(), problem };
    let (format, key, document) = match store.get(v2::CONSOLIDATED).await? {
        Some((bytes, _)) => (ZarrVersion::V2, v2::CONSOLIDATED, Some(bytes)),
        None => (ZarrVersion::V3, v3::METADATA, store.get(v3::METADATA).await?.map(|(b, _)| b)),
    };
    let (format, document) = match document {
        Some(bytes) => {
            let document = serde_json::from_slice(&bytes);
            (format, document.map_err(|e| foreign(format!("{key} is not JSON: {e}")))?)
        }
        // It can be made again from what it consolidates.
        None => match scattered(store).await? {
            Some(documents) => (ZarrVersion::V2, json!({ "metadata": documents })),
            None => return Err(VisError::NoStore { url: url(), store: wanted }),
        },
    };
    let (attributes, documents) = match format {
        ZarrVersion::V2 => (&document["metadata"][".zattrs"], &document["metadata"]),
        ZarrVersion::V3 => {
            (&document["attributes"], &document["consolidated_metadata"]["metadata"])
        }
    };
    let none = Map::new();
    let documents = documents.as_object().unwrap_or(&none);
    let kind = kind_of(format, documents)
        .ok_or_else(|| foreign(format!("{key} names none of the arrays of the atlas")))?;
    let hierarchy = kind.hierarchy(None);
    let expected = arrays(format, &hierarchy).map_err(foreign)?;
    for (name, expected) in expected {
        let found = documents.get(&name).map(|document| form(format, document));
        if found.as_ref() != Some(&expected) {
            return Err(foreign(match found {
                None => format!("{key} lacks {name}"),
                Some(found) => difference(&name, &found, &expected),
            }));
        }
    }
    let recipe = match attributes.get(RECIPE) {
        None => None,
        Some(recipe) => Some(
            serde_json::from_value(recipe.clone())
                .map_err(|e| foreign(format!("its recipe is {recipe}: {e}")))?,
        ),
    };
    Ok(ExistingStore { kind, recipe })
}

/// The metadata of a hierarchy of version 2 that lacks the consolidated one; `None` when there is no
/// group.
async fn scattered(store: &Store) -> Result<Option<Map<String, Value>>, VisError> {
    let mut documents = Map::new();
    if store.get(".zgroup").await?.is_none() || !store.can_list() {
        return Ok(None);
    }
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let prefix = if folder.is_empty() { folder.clone() } else { format!("{folder}/") };
        for name in [".zarray", ".zattrs", ".zgroup"] {
            let key = format!("{prefix}{name}");
            if let Some((bytes, _)) = store.get(&key).await?
                && let Ok(document) = serde_json::from_slice(&bytes)
            {
                documents.insert(key, document);
            }
        }
        if !documents.contains_key(&format!("{prefix}.zarray")) {
            let below = store.list_prefixes(&folder).await?;
            folders.extend(below.into_iter().filter(|folder| !folder.starts_with('.')));
        }
    }
    Ok(Some(documents))
}

/// Which of the stores has these arrays.
fn kind_of(format: ZarrVersion, documents: &Map<String, Value>) -> Option<StoreKind> {
    let has = |path: &str| match format {
        ZarrVersion::V2 => documents.contains_key(&format!("{path}/.zarray")),
        ZarrVersion::V3 => documents.contains_key(path),
    };
    if format == ZarrVersion::V2 && has(EFFICIENCY) {
        return Some(StoreKind::Store1);
    }
    if format == ZarrVersion::V2 && has(UPTAKE) {
        return Some(StoreKind::Store3);
    }
    let variables: Vec<MapVariable> =
        MapVariable::ALL.into_iter().filter(|v| has(&format!("0/{}", v.name()))).collect();
    let first = variables.first()?.name();
    let levels = (0..MAX_LEVELS).take_while(|level| has(&format!("{level}/{first}"))).count() as u8;
    Some(StoreKind::Store2(PyramidOptions { levels, variables, format }))
}

/// The documents of the arrays, reduced to what gives them their form.
fn arrays(format: ZarrVersion, hierarchy: &Hierarchy) -> Result<Vec<(String, Value)>, String> {
    let objects = match format {
        ZarrVersion::V2 => v2::metadata(hierarchy),
        ZarrVersion::V3 => v3::objects(hierarchy).map_err(|error| error.to_string())?,
    };
    let of = |array: &Array| match format {
        ZarrVersion::V2 => (format!("{}/.zarray", array.path), format!("{}/.zarray", array.path)),
        ZarrVersion::V3 => (array.path.clone(), format!("{}/{}", array.path, v3::METADATA)),
    };
    let names: Vec<(String, String)> = hierarchy.arrays.iter().map(of).collect();
    let document = |(name, key): (String, String)| {
        let object = objects.iter().find(|object| object.key == key)?;
        Some((name, form(format, &serde_json::from_slice(&object.bytes).ok()?)))
    };
    Ok(names.into_iter().filter_map(document).collect())
}

/// What of an array's metadata decides how its chunks are named and read.
fn form(format: ZarrVersion, document: &Value) -> Value {
    let keys: &[&str] = match format {
        ZarrVersion::V2 => &[
            "zarr_format",
            "shape",
            "chunks",
            "dtype",
            "compressor",
            "fill_value",
            "order",
            "filters",
        ],
        ZarrVersion::V3 => &[
            "zarr_format",
            "shape",
            "chunk_grid",
            "data_type",
            "codecs",
            "fill_value",
            "dimension_names",
        ],
    };
    let mut form: Map<String, Value> =
        keys.iter().map(|key| ((*key).to_owned(), document[*key].clone())).collect();
    if format == ZarrVersion::V2 {
        let separator = document.get("dimension_separator").cloned().unwrap_or(json!("."));
        form.insert("dimension_separator".to_owned(), separator);
    }
    Value::Object(form)
}

/// The first thing in which an array differs.
fn difference(name: &str, found: &Value, expected: &Value) -> String {
    let none = Map::new();
    let expected = expected.as_object().unwrap_or(&none);
    let other = expected.iter().find(|(key, value)| found[key.as_str()] != **value);
    let (key, value) = other.map_or(("form", &Value::Null), |(k, v)| (k.as_str(), v));
    format!("{name} has {key} {}, not {value}", found[key])
}

/// A store that is to be filled under a recipe. The store says so from the first result on.
pub struct OpenStore {
    /// The store.
    pub store: Store,
    /// Which one.
    pub kind: StoreKind,
    /// The rules.
    pub recipe: StoreRecipe,
    claimed: OnceCell<()>,
}

impl OpenStore {
    /// Opens the store `wanted`. A store that is filled under other rules, and one of series with
    /// values that no record covers, are refused.
    pub async fn open(
        store: Store,
        wanted: &'static str,
        recipe: StoreRecipe,
    ) -> Result<Self, VisError> {
        let ExistingStore { kind, recipe: has } = open(&store, wanted).await?;
        if kind.name() != wanted {
            let (url, problem) =
                (store.location().to_string(), format!("is {}, not {wanted}", kind.name()));
            return Err(VisError::Mismatch { url, problem });
        }
        if has.is_some() {
            agree(&store, has.as_ref(), &recipe)?;
        }
        if kind.columns() > 0 {
            coverage::refuse_uncovered(&store, &kind, &BTreeSet::new()).await?;
        }
        let claimed = OnceCell::new_with(has.map(|_| ()));
        Ok(Self { store, kind, recipe, claimed })
    }

    /// Decides under which rules the store is filled, and writes it into the metadata, unless the
    /// store says so. Of processes that begin at the same moment, one decides.
    pub async fn claim(&self) -> Result<(), VisError> {
        let claim = async || {
            let decided = decide(&self.store, &self.recipe).await?;
            agree(&self.store, Some(&decided), &self.recipe)?;
            write_metadata(&self.store, &self.kind, Some(&self.recipe)).await.map(drop)
        };
        self.claimed.get_or_try_init(claim).await.copied()
    }
}

/// A case whose objects are being written, noted before the first of them.
pub struct CaseInProgress {
    destination: Arc<OpenStore>,
    case: Case,
    /// The case's record, without its objects yet.
    record: CaseRecord,
    /// Objects that are there as they are to be, by key.
    kept: Vec<FileEntry>,
    /// Whether it is written whatever others write.
    force: bool,
    noted: OnceCell<()>,
}

impl CaseInProgress {
    /// For a case, before its first object; `kept` is what an earlier record says is there, by key.
    pub fn new(
        destination: Arc<OpenStore>,
        case: Case,
        record: CaseRecord,
        kept: Vec<FileEntry>,
        force: bool,
    ) -> Self {
        Self { destination, case, record, kept, force, noted: OnceCell::new() }
    }

    /// Whether an object is there as it is to be.
    pub fn keeps(&self, entry: &FileEntry) -> bool {
        let at = self.kept.binary_search_by(|kept| kept.key.cmp(&entry.key));
        at.ok().and_then(|at| self.kept.get(at)) == Some(entry)
    }

    /// Whether an object was written.
    pub fn is_noted(&self) -> bool {
        self.noted.initialized()
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.destination.store
    }

    /// Notes that the case is being written, once. Of processes that begin at the same moment with
    /// other settings, one goes on.
    pub async fn note(&self) -> Result<(), VisError> {
        let note = async || {
            self.destination.claim().await?;
            let (store, case) = (self.store(), self.case);
            let condition = if self.force { PutMode::Always } else { PutMode::Absent };
            let is_first = self.record.note(store, case, condition).await?;
            if !self.force
                && let Err(error) = refuse_taken(store, case, &self.record).await
            {
                if is_first {
                    CaseRecord::give_up(store, case).await?;
                }
                return Err(error);
            }
            if !is_first {
                self.record.note(store, case, PutMode::Always).await?;
            }
            Ok(CaseRecord::begin(store, case).await?)
        };
        self.noted.get_or_try_init(note).await.copied()
    }
}

/// Writes `recipe` down as that of an empty store, unless there is one already; gives the one that
/// holds. A write on the condition that there is none decides between processes that begin at once.
async fn decide(store: &Store, recipe: &StoreRecipe) -> Result<StoreRecipe, VisError> {
    let key = format!("{CASES}/{RULES}");
    let absent = PutOptions { condition: PutMode::Absent, ..PutOptions::default() };
    match store.send(&key, record::to_json(&key, recipe)?, &absent).await {
        // A try whose answer was lost may have written it.
        Ok(_) | Err(StoreError::PreconditionFailed { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(record::load(store, &key).await?.unwrap_or_else(|| recipe.clone()))
}

fn agree(store: &Store, has: Option<&StoreRecipe>, recipe: &StoreRecipe) -> Result<(), VisError> {
    if has == Some(recipe) {
        return Ok(());
    }
    Err(VisError::Recipe {
        url: store.location().to_string(),
        has: has.map_or("nobody".to_owned(), StoreRecipe::to_string),
        wanted: recipe.to_string(),
    })
}
