//! `dor vis create-template-store1`, `2` and `3`: creates empty stores.

use std::io::Write;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::arguments::{config, output};
use crate::cli::arguments::{levels, variable};
use crate::cli::output::{Table, count};
use crate::cli::report::{Report, ReportArgs};
use crate::cli::stores::stores;
use crate::cli::{Exit, GlobalArgs};
use crate::config::Config;
use crate::encode::zarr::{Hierarchy, ZarrVersion};
use crate::model::atlas::MapVariable;
use crate::store::{Location, Store, StoreRegistry};
use crate::vis::schema::PyramidOptions;
use crate::vis::{StoreKind, VisError, create};

/// Location of an empty store.
#[derive(Args, Debug)]
struct Target {
    /// Store to create: a path or URL [default: that of the configuration]
    #[arg(short, long = "output", visible_alias = "output-store", value_name = "LOCATION")]
    output_store: Option<Location>,
    /// Replace a store that holds data
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    report: ReportArgs,
}

/// Create the empty store of efficiencies (store 1)
#[derive(Args, Debug)]
pub(super) struct Store1 {
    #[command(flatten)]
    target: Target,
}

/// Create the empty store of uptake by distance (store 3)
#[derive(Args, Debug)]
pub(super) struct Store3 {
    #[command(flatten)]
    target: Target,
}

/// Create the empty map pyramid (store 2)
#[derive(Args, Debug)]
pub(super) struct Store2 {
    #[command(flatten)]
    target: Target,
    /// Variables of the maps [default: all]
    #[arg(long, visible_alias = "variable", value_name = "NAME", num_args = 1.., value_delimiter = ',', value_parser = variable())]
    variables: Vec<MapVariable>,
    /// Number of levels of the pyramid, with 128, 256, ... cells per side
    #[arg(short, long, value_name = "N", default_value_t = 2, value_parser = levels())]
    levels: u8,
    /// Version of the Zarr format: the public map reads 2; 3 has fewer, larger objects
    #[arg(long, value_enum, default_value = "2")]
    zarr_format: ZarrFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ZarrFormat {
    /// Each chunk is an object
    #[value(name = "2")]
    V2,
    /// Chunks in shards; each shard is an object
    #[value(name = "3")]
    V3,
}

impl Store1 {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        self.target.create(&StoreKind::Store1, global, out).await
    }
}

impl Store3 {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        self.target.create(&StoreKind::Store3, global, out).await
    }
}

impl Store2 {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let is_selected =
            |variable: &MapVariable| self.variables.is_empty() || self.variables.contains(variable);
        let pyramid = PyramidOptions {
            levels: self.levels,
            variables: MapVariable::ALL.into_iter().filter(is_selected).collect(),
            format: match self.zarr_format {
                ZarrFormat::V2 => ZarrVersion::V2,
                ZarrFormat::V3 => ZarrVersion::V3,
            },
        };
        self.target.create(&StoreKind::Store2(pyramid), global, out).await
    }
}

impl Target {
    async fn create(
        &self,
        kind: &StoreKind,
        global: &GlobalArgs,
        out: &mut dyn Write,
    ) -> anyhow::Result<Exit> {
        let config = config(global, None, None)?;
        let location = store_of(kind, self.output_store.as_ref(), &config)?;
        let mut report = self.report.report(out);
        create(&stores(&config), &location, kind, self.overwrite, &mut report).await?;
        report.end()?;
        Ok(Exit::Done)
    }
}

/// Creates an empty store and prints its arrays. A dry run only checks and prints.
///
/// # Errors
/// The store holds data and `overwrite` is `false`, or it cannot be written.
pub(crate) async fn create(
    stores: &StoreRegistry,
    location: &Location,
    kind: &StoreKind,
    overwrite: bool,
    out: &mut Report<'_>,
) -> anyhow::Result<()> {
    let store = stores.open(location)?;
    let hierarchy = match out.is_dry() {
        true => create::check_template(&store, kind, overwrite).await?,
        false => create::create(&store, kind, overwrite).await?,
    };
    out.set("store", json!(location.to_string()));
    out.set("kind", json!(kind.name()));
    out.set("zarr_format", json!(version(kind.format())));
    for array in &hierarchy.arrays {
        let (path, shape, chunks) = (&array.path, &array.shape, &array.chunks);
        let (dimensions, shards) = (&array.dimensions, &array.shards);
        out.push(
            "arrays",
            json!({
                "path": path, "dimensions": dimensions, "shape": shape, "chunks": chunks,
                "shards": shards,
            }),
        );
    }
    writeln!(out, "{location}: {} in Zarr v{}\n", kind.name(), version(kind.format()))?;
    Ok(write_structure(out, &hierarchy, kind.format())?)
}

/// Opens the named store, or else the stores of the configuration that exist.
///
/// # Errors
/// No store is named, and no store of the configuration exists.
pub(super) async fn named_or_configured(
    named: Option<&Location>,
    config: &Config,
    stores: &StoreRegistry,
) -> anyhow::Result<Vec<(Location, Store)>> {
    if let Some(location) = named {
        return Ok(vec![(location.clone(), stores.open(location)?)]);
    }
    let mut existing = Vec::new();
    for setting in [&config.store1, &config.store2, &config.store3].into_iter().flatten() {
        let store = stores.open(&setting.value)?;
        if create::open(&store, "store1, 2 or 3").await.is_ok() {
            existing.push((setting.value.clone(), store));
        }
    }
    match existing.is_empty() {
        false => Ok(existing),
        true => Err(VisError::Settings(
            "no store is named, and none of store1, store2 and store3 of the configuration exists; name a store"
                .to_owned(),
        )
        .into()),
    }
}

/// Returns the location of the store of a kind: from the flag, or else from the configuration.
///
/// # Errors
/// Neither is set.
pub(super) fn store_of(
    kind: &StoreKind,
    flag: Option<&Location>,
    config: &Config,
) -> Result<Location, crate::config::ConfigError> {
    match kind {
        StoreKind::Store1 => {
            output(flag, config.store1.as_ref(), "store1", "OCEAN_CDR_STORE_1_PATH")
        }
        StoreKind::Store2(_) => {
            output(flag, config.store2.as_ref(), "store2", "OCEAN_CDR_STORE_2_PATH")
        }
        StoreKind::Store3 => output(
            flag,
            config.store3.as_ref(),
            "store3",
            "OCEAN_CDR_CUMULATIVE_FG_CO2_PERCENT_STORE_PATH",
        ),
    }
}

/// Number of a version of the Zarr format.
fn version(format: ZarrVersion) -> u8 {
    match format {
        ZarrVersion::V2 => 2,
        ZarrVersion::V3 => 3,
    }
}

/// Prints the dimensions, the chunks and the number of objects of each array.
fn write_structure(
    out: &mut dyn Write,
    hierarchy: &Hierarchy,
    format: ZarrVersion,
) -> std::io::Result<()> {
    let mut table = Table::new(["ARRAY", "DIMENSIONS", "CHUNKS", "OBJECTS"]);
    for array in &hierarchy.arrays {
        let dimensions: Vec<String> = array
            .dimensions
            .iter()
            .zip(&array.shape)
            .map(|(name, len)| format!("{name} {len}"))
            .collect();
        let sizes =
            |sizes: &[usize]| sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let number_of = |chunks: &[usize]| -> usize {
            array.shape.iter().zip(chunks).map(|(len, chunk)| len.div_ceil(*chunk)).product()
        };
        let (chunks, objects) = match (&array.shards, format) {
            (Some(shards), ZarrVersion::V3) => {
                (format!("{} in shards {}", sizes(&array.chunks), sizes(shards)), number_of(shards))
            }
            _ => (sizes(&array.chunks), number_of(&array.chunks)),
        };
        table.row([array.path.clone(), dimensions.join(", "), chunks, objects.to_string()]);
    }
    table.write(out)?;
    let data = hierarchy.arrays.iter().filter(|array| array.is_data()).count();
    writeln!(out, "\n{} of data, 4-byte floats", count(data, "array"))
}
