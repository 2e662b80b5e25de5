//! Creation of empty stores and opening of existing ones.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;

use super::record::{self, FileEntry, RecordedCases};
use super::schema::{EFFICIENCY, MAX_LEVELS, PyramidOptions, RECIPE, StoreKind, UPTAKE};
use super::{StoreRecipe, VisError, coverage};
use crate::case_manifest::{CASES_FOLDER, RECIPE_FILE, enclosing_results};
use crate::encode::zarr::{Array, Hierarchy, StoreObject, ZarrVersion, chunk, v2, v3};
use crate::model::Case;
use crate::model::atlas::{FILL, MapVariable};
use crate::store::{PutMode, PutOptions, Store, StoreError};

/// An existing store, as its metadata describes it.
pub struct ExistingStore {
    /// Kind of the store, with the options of a pyramid.
    pub kind: StoreKind,
    /// Recipe of the results; `None` before the first case.
    pub recipe: Option<StoreRecipe>,
}

/// Creates an empty store: metadata, coordinates and, for stores 1 and 3, chunks of fill.
///
/// A store with results is replaced only when `overwrite` is set. A store of another kind, or a folder
/// with other files, is never replaced.
///
/// # Errors
/// The location is inside other results, or holds something that may not be replaced; the store fails.
pub async fn create(
    store: &Store,
    kind: &StoreKind,
    overwrite: bool,
) -> Result<Hierarchy, VisError> {
    let (objects, mut existing) = prepare(store, kind, overwrite).await?;
    existing.retain(|key| !objects.iter().any(|object| object.key == *key));
    // The consolidated metadata is deleted first, so that readers do not open a store that is being
    // deleted. The other metadata is deleted last, so that an interrupted call can be repeated.
    if !existing.is_empty() {
        store.delete(v2::CONSOLIDATED).await?;
    }
    existing.sort_by_key(|key| std::cmp::Reverse((!is_metadata(key), key.matches('/').count())));
    for key in &existing {
        store.delete(key).await?;
    }
    for StoreObject { key, bytes } in objects {
        store.put(&key, bytes).await?;
    }
    Ok(kind.hierarchy(None))
}

/// Checks that [`create`] would create the store, and returns its structure. Writes nothing.
///
/// # Errors
/// As [`create`].
pub async fn check_template(
    store: &Store,
    kind: &StoreKind,
    overwrite: bool,
) -> Result<Hierarchy, VisError> {
    prepare(store, kind, overwrite).await.map(|_| kind.hierarchy(None))
}

/// Checks that an empty store may be created. Returns its objects, and the keys of the objects that it replaces.
async fn prepare(
    store: &Store,
    kind: &StoreKind,
    overwrite: bool,
) -> Result<(Vec<StoreObject>, Vec<String>), VisError> {
    if let Some(above) = store.parent()
        && let Some(outer) = enclosing_results(&above).await
    {
        let (url, other) = (store.location().to_string(), outer.to_string());
        return Err(VisError::Inside { url, other });
    }
    let objects = objects(kind, &kind.hierarchy(None))?;
    let existing: Vec<String> = store.list("").await?.into_iter().map(|o| o.key).collect();
    check_replaceable(store, kind, &objects, &existing, overwrite).await?;
    Ok((objects, existing))
}

/// Whether the file name of a key is that of a Zarr metadata object.
fn is_metadata(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key);
    [".zarray", ".zattrs", ".zgroup", v2::CONSOLIDATED, v3::METADATA].contains(&name)
}

/// Checks that the `existing` objects of a location may be replaced by a new store of this kind.
async fn check_replaceable(
    store: &Store,
    kind: &StoreKind,
    objects: &[StoreObject],
    existing: &[String],
    overwrite: bool,
) -> Result<(), VisError> {
    if existing.is_empty() {
        return Ok(());
    }
    let url = || store.location().to_string();
    let old_kind = match open(store, kind.name()).await {
        Ok(opened) => opened.kind,
        Err(VisError::NoStore { .. } | VisError::Foreign { .. }) => {
            return check_partial_template(store, objects, existing).await;
        }
        Err(error) => return Err(error),
    };
    if old_kind.name() != kind.name() {
        let (found, wanted) = (old_kind.name(), kind.name());
        return Err(VisError::OtherKind { url: url(), found, wanted });
    }
    let hierarchy = old_kind.hierarchy(None);
    if let Some(key) = existing.iter().find(|key| !belongs(key, &hierarchy)) {
        let problem = format!("also holds {key}, which is not part of a store; move it away");
        return Err(VisError::WrongLocation { url: url(), problem });
    }
    if overwrite {
        return Ok(());
    }
    match existing_results(store, &old_kind, &hierarchy, existing).await? {
        None => Ok(()),
        Some(what) => Err(VisError::NotEmpty { url: url(), what }),
    }
}

/// Checks that all `existing` objects are parts of the same template, which a killed process left. The
/// caller then completes the template.
async fn check_partial_template(
    store: &Store,
    objects: &[StoreObject],
    existing: &[String],
) -> Result<(), VisError> {
    for key in existing {
        let expected = objects.iter().find(|object| object.key == *key);
        let bytes = store.get(key).await?.map(|(bytes, _)| bytes);
        if bytes.as_ref() != expected.map(|object| &object.bytes) {
            let url = store.location().to_string();
            let problem = "is not a store of this program: it holds other files".to_owned();
            return Err(VisError::WrongLocation { url, problem });
        }
    }
    Ok(())
}

/// Describes the results in a store, such as `results of 2 cases`; `None` when it has none.
async fn existing_results(
    store: &Store,
    kind: &StoreKind,
    hierarchy: &Hierarchy,
    existing: &[String],
) -> Result<Option<String>, VisError> {
    let mut cases: BTreeSet<Case> = coverage::with_values(store, kind).await?.into_keys().collect();
    let recorded = RecordedCases::of(store).await?;
    cases.extend(recorded.done.into_iter().chain(recorded.partial));
    // In store 2 every chunk is a result, so the listing shows whether the store is empty.
    let is_chunk = |key: &&String| {
        let mut arrays = hierarchy.arrays.iter().filter(|array| array.is_data());
        arrays.any(|array| is_below(key, &array.path)) && !is_metadata(key)
    };
    let chunks = match kind.columns() {
        0 => existing.iter().filter(is_chunk).count(),
        _ => 0,
    };
    Ok(match (cases.len(), chunks) {
        (0, 0) => None,
        (0, chunks) => Some(format!("{chunks} objects of data")),
        (1, _) => Some("results of 1 case".to_owned()),
        (cases, _) => Some(format!("results of {cases} cases")),
    })
}

/// Whether a key is inside a folder.
fn is_below(key: &str, folder: &str) -> bool {
    key.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a key is one of a metadata object, chunk or record of a store.
fn belongs(key: &str, hierarchy: &Hierarchy) -> bool {
    let (folder, _) = key.rsplit_once('/').unwrap_or(("", key));
    let is_group = || folder.is_empty() || hierarchy.groups.iter().any(|group| group == folder);
    is_metadata(key) && is_group()
        || is_below(key, CASES_FOLDER)
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

/// Writes the metadata and coordinates of a store with this recipe, the consolidated metadata last.
/// Returns the entries of the objects.
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

/// Opens a store and checks its metadata against the schema. `expected_kind` is the name of the store for the
/// message when there is none.
///
/// # Errors
/// [`VisError::NoStore`] when the location has no store, [`VisError::Foreign`] when its metadata is
/// another; the store fails.
pub async fn open(store: &Store, expected_kind: &'static str) -> Result<ExistingStore, VisError> {
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
        // Without consolidated metadata, the metadata of each group and array can be read.
        None => match unconsolidated_metadata(store).await? {
            Some(documents) => (ZarrVersion::V2, json!({ "metadata": documents })),
            None => return Err(VisError::NoStore { url: url(), store: expected_kind }),
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
        .ok_or_else(|| foreign(format!("{key} has none of the data arrays of a store")))?;
    let hierarchy = kind.hierarchy(None);
    let expected = array_layouts(format, &hierarchy).map_err(foreign)?;
    for (name, expected) in expected {
        let found = documents.get(&name).map(|document| layout(format, document));
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

/// Reads the metadata objects of a Zarr v2 hierarchy one by one; `None` when there is no root group, or no
/// listing.
async fn unconsolidated_metadata(store: &Store) -> Result<Option<Map<String, Value>>, VisError> {
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
            let below = store.list_folders(&folder).await?;
            folders.extend(below.into_iter().filter(|folder| !folder.starts_with('.')));
        }
    }
    Ok(Some(documents))
}

/// Determines the kind of a store from the paths of its arrays; `None` when it is none of the three.
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

/// Returns the layout of each array of a hierarchy, with the name of the array in consolidated metadata.
fn array_layouts(
    format: ZarrVersion,
    hierarchy: &Hierarchy,
) -> Result<Vec<(String, Value)>, String> {
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
        Some((name, layout(format, &serde_json::from_slice(&object.bytes).ok()?)))
    };
    Ok(names.into_iter().filter_map(document).collect())
}

/// Reduces the metadata of an array to the fields that determine the names and encoding of its chunks.
fn layout(format: ZarrVersion, document: &Value) -> Value {
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
    let mut layout: Map<String, Value> =
        keys.iter().map(|key| ((*key).to_owned(), document[*key].clone())).collect();
    if format == ZarrVersion::V2 {
        let separator = document.get("dimension_separator").cloned().unwrap_or(json!("."));
        layout.insert("dimension_separator".to_owned(), separator);
    }
    Value::Object(layout)
}

/// Describes the first field in which the layout of an array differs.
fn difference(name: &str, found: &Value, expected: &Value) -> String {
    let none = Map::new();
    let expected = expected.as_object().unwrap_or(&none);
    let other = expected.iter().find(|(key, value)| found[key.as_str()] != **value);
    let (key, value) = other.map_or(("layout", &Value::Null), |(k, v)| (k.as_str(), v));
    format!("{name} has {key} {}, not {value}", found[key])
}

/// A store that is opened to be filled with results of one recipe.
///
/// The first result writes the recipe into the store.
pub struct OpenStore {
    /// Location of the store.
    pub store: Store,
    /// Kind of the store, with the options of a pyramid.
    pub kind: StoreKind,
    /// Recipe of this run.
    pub recipe: StoreRecipe,
    /// Set once the store has the recipe.
    recipe_written: OnceCell<()>,
}

impl OpenStore {
    /// Opens a store of the kind with the name `expected_kind`.
    ///
    /// # Errors
    /// There is no such store, it has another recipe, or it is a store 1 or 3 with values that no record
    /// covers.
    pub async fn open(
        store: Store,
        expected_kind: &'static str,
        recipe: StoreRecipe,
    ) -> Result<Self, VisError> {
        let ExistingStore { kind, recipe: stored } = open(&store, expected_kind).await?;
        if kind.name() != expected_kind {
            let problem = format!("is {}, not {expected_kind}", kind.name());
            let url = store.location().to_string();
            return Err(VisError::WrongLocation { url, problem });
        }
        if stored.is_some() {
            check_recipe(&store, stored.as_ref(), &recipe)?;
        }
        if kind.columns() > 0 {
            coverage::refuse_uncovered(&store, &kind, &BTreeSet::new()).await?;
        }
        let recipe_written = OnceCell::new_with(stored.map(|_| ()));
        Ok(Self { store, kind, recipe, recipe_written })
    }

    /// Writes the recipe into the store, unless it has one. If several processes call this at the same
    /// time, the recipe of one of them is written.
    ///
    /// # Errors
    /// [`VisError::Recipe`] when the store has another recipe.
    pub async fn write_recipe(&self) -> Result<(), VisError> {
        let write = async || {
            let stored = store_recipe(&self.store, &self.recipe).await?;
            check_recipe(&self.store, Some(&stored), &self.recipe)?;
            write_metadata(&self.store, &self.kind, Some(&self.recipe)).await.map(drop)
        };
        self.recipe_written.get_or_try_init(write).await.copied()
    }
}

/// Writes `recipe` as the recipe of an empty store, unless the store has one. Returns the recipe that the
/// store has. The write is conditional, so that one of several concurrent processes succeeds.
async fn store_recipe(store: &Store, recipe: &StoreRecipe) -> Result<StoreRecipe, VisError> {
    let key = format!("{CASES_FOLDER}/{RECIPE_FILE}");
    let absent = PutOptions { condition: PutMode::Absent, ..PutOptions::default() };
    match store.send(&key, record::to_json(&key, recipe)?, &absent).await {
        // The condition also fails when an earlier attempt wrote the recipe and its response was lost.
        Ok(_) | Err(StoreError::PreconditionFailed { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(record::load(store, &key).await?.unwrap_or_else(|| recipe.clone()))
}

/// Checks that the recipe of a store is the recipe of this run.
fn check_recipe(
    store: &Store,
    stored: Option<&StoreRecipe>,
    recipe: &StoreRecipe,
) -> Result<(), VisError> {
    if stored == Some(recipe) {
        return Ok(());
    }
    Err(VisError::Recipe {
        url: store.location().to_string(),
        has: stored.map_or("none".to_owned(), StoreRecipe::to_string),
        wanted: recipe.to_string(),
    })
}
