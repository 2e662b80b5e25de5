//! `dor demo`: runs the whole workflow on synthetic data.

mod steps;

use std::io::Write;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;

use super::output::{Table, bytes};
use super::report::Report;
use super::research_data::convert_case;
use super::signals::stop_on_signals;
use super::vis::run_context;
use super::{Exit, GlobalArgs};
use crate::cli::arguments::{case, from_one};
use crate::cli::completions::names;
use crate::cli::stores::stores;
use crate::config::{Config, Overrides, Setting, SettingProvenance, redact};
use crate::demo::{self, ARCHIVE, GRID};
use crate::encode::research as layout;
use crate::executor::{ObjectSource, Pool, memory, until};
use crate::model::Case;
use crate::model::dataset::Header;
use crate::model::similar::{did_you_mean, nearest};
use crate::read::metadata;
use crate::store::{EffectiveSettings, Location, S3Options, StoreError, StoreRegistry};
use crate::synthetic::{ClassicFormat, Shape, SyntheticCase};
use steps::{EFFICIENCY, MAP, PLAN, RESEARCH, STORE1, STORE2, STORE3, Steps, UPTAKE};

/// Names of the products below the location of the demo.
const PRODUCTS: [&str; 9] =
    [RESEARCH, STORE1, STORE2, STORE3, PLAN, "plan.state", MAP, EFFICIENCY, UPTAKE];

/// Run the whole workflow on synthetic data
///
/// Writes the raw files of a synthetic case, converts them, makes the map stores, checks the stores and draws pictures
/// of them. The case is complete and has the exact form of the model's raw output; its values come from no model. `dor
/// demo raw` writes only the raw files. The folder must be empty, or one that the demo has made. The demo does not
/// replace files of others, or its own files that were changed since.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Command {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    demo: Demo,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Raw(Raw),
}

impl Command {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        match self.verb {
            Some(Verb::Raw(raw)) => raw.run(global, out).await,
            None => self.demo.run(global, out).await,
        }
    }
}

/// Options of the synthetic case.
#[derive(Args, Debug)]
struct Synthetic {
    /// Case: polygon and month (112-04), index (449 or 00449), or the full name
    #[arg(long, default_value = "112-04", value_parser = case)]
    case: Case,
    /// Grid: small (24x20x5), medium (48x40x10), full (384x320x60), or rows x columns x levels
    #[arg(long, default_value = "medium", value_name = "SIZE", add = names(&SHAPES))]
    shape: ShapeArg,
    /// Number of months to write, 1 to 180
    #[arg(long, default_value_t = 180, value_name = "N", value_parser = months)]
    months: u16,
    /// Seed of the values: the same seed gives the same bytes
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Number of three-dimensional fields, 1 to 13 [default: 13 on 60 levels, else 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=13))]
    fields: Option<u8>,
    /// NetCDF format of the raw files
    #[arg(long, value_enum, default_value = "cdf2")]
    format: FormatArg,
    /// Files written at the same time [default: workers of the configuration, or all cores]
    #[arg(short, long, value_name = "N", value_parser = from_one)]
    workers: Option<NonZeroUsize>,
}

/// Parses a number of months, 1 to 180.
fn months(text: &str) -> Result<u16, String> {
    let months = text.parse().ok().filter(|months| (1..=180).contains(months));
    months.ok_or_else(|| "a case has 1 to 180 months".to_owned())
}

/// Names of shapes.
const SHAPES: [&str; 3] = ["small", "medium", "full"];

/// The shape of a grid, by name or as `rows x columns x levels`.
#[derive(Clone, Copy, Debug)]
struct ShapeArg(Shape);

impl FromStr for ShapeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shape = match text {
            "small" => Some(Shape::SMALL),
            "medium" => Some(Shape::MEDIUM),
            "full" => Some(Shape::FULL),
            _ => text.split('x').map(|n| n.parse().ok()).collect::<Option<Vec<usize>>>().and_then(
                |lengths| match *lengths.as_slice() {
                    [nlat @ 4..=384, nlon @ 4..=320, nz @ 1..=60] => Some(Shape { nlat, nlon, nz }),
                    _ => None,
                },
            ),
        };
        let range = "from 4x4x1 to 384x320x60";
        let expected = format!("give rows x columns x levels {range}, or {}", SHAPES.join(", "));
        shape.map(Self).ok_or_else(|| did_you_mean(nearest(text, SHAPES).as_deref(), &expected))
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArg {
    /// NetCDF-3 classic
    Cdf1,
    /// NetCDF-3 64-bit offset, the format of the model
    Cdf2,
    /// NetCDF-3 64-bit data
    Cdf5,
}

impl Synthetic {
    /// Writes the raw files below `location`, and returns the case and the total size of its files in bytes.
    ///
    /// # Errors
    /// The location holds other files, or it cannot be written.
    async fn write(
        &self,
        stores: &StoreRegistry,
        location: &Location,
        workers: usize,
        ssh: bool,
        products: &[&str],
    ) -> anyhow::Result<(Case, u64)> {
        let case = self.case;
        let store = stores.open(location)?;
        let (shape, seed) = (self.shape.0, self.seed);
        let pool = Pool::new(workers, memory::budget());
        let (fields, format) = (self.fields, self.format);
        let permit = pool.acquire(0).await?;
        let synthetic = Pool::run(&permit, move || {
            let synthetic = SyntheticCase::new(case, shape, seed).with_format(match format {
                FormatArg::Cdf1 => ClassicFormat::Cdf1,
                FormatArg::Cdf2 => ClassicFormat::Cdf2,
                FormatArg::Cdf5 => ClassicFormat::Cdf5,
            });
            match fields {
                Some(fields) => synthetic.with_3d_fields(fields.into()),
                None => synthetic,
            }
        })
        .await?;
        drop(permit);
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone());
        let total = std::sync::atomic::AtomicU64::new(0);
        let months = self.months.into();
        let plan = demo::SyntheticInput { case, synthetic: Arc::new(synthetic), months, ssh };
        demo::claim(&store, &plan, products).await?;
        demo::write_raw(&store, &plan, &pool, &stop, |size| {
            total.fetch_add(size, std::sync::atomic::Ordering::Relaxed);
        })
        .await?;
        Ok((case, total.into_inner()))
    }

    /// Loads the configuration with the number of workers.
    fn config(&self, global: &GlobalArgs) -> anyhow::Result<Config> {
        Ok(Config::load(&Overrides { workers: self.workers, ..global.overrides() })?)
    }
}

/// Write the raw files of a synthetic case, with its grid file and the centers of the polygons
///
/// Writes archive/CASE/ocn/hist/*.nc, grid.nc, centers.csv and, with --ssh, ssh.nc below the location. The location
/// must be empty, or one that `dor demo` has made. Files that were changed since are not replaced.
#[derive(Args, Debug)]
struct Raw {
    /// Folder to write to: a path or URL
    #[arg(default_value = "demo")]
    location: Location,
    #[command(flatten)]
    synthetic: Synthetic,
    /// Also write the sea surface height (350 MB on the full grid)
    #[arg(long)]
    ssh: bool,
}

impl Raw {
    async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let config = self.synthetic.config(global)?;
        let stores = stores(&config);
        let workers = config.workers.value.get();
        let written = self.synthetic.write(&stores, &self.location, workers, self.ssh, &[]);
        let (case, size) = written.await?;
        writeln!(out, "case {}: {} written to {}", case.short(), bytes(size), self.location)?;
        Ok(Exit::Done)
    }
}

#[derive(Args, Debug)]
struct Demo {
    /// Folder of the demo: a path or URL
    #[arg(default_value = "demo")]
    location: Location,
    #[command(flatten)]
    synthetic: Synthetic,
    /// Use `dor plan`, `run` and `finalize`, as a campaign of many cases on many nodes does
    #[arg(long)]
    plan: bool,
}

impl Demo {
    async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let mut config = self.synthetic.config(global)?;
        let stores = stores(&config);
        let workers = config.workers.value.get();
        let out = &mut Report::text(out);
        writeln!(out, "1. raw history of a synthetic case")?;
        out.flush()?;
        let written = self.synthetic.write(&stores, &self.location, workers, true, &PRODUCTS);
        let (case, size) = written.await?;
        let archive = self.location.join(ARCHIVE);
        writeln!(out, "   {} in {archive}\n", bytes(size))?;

        let research = self.location.join(RESEARCH);
        let setting = |value| Some(Setting { value, source: SettingProvenance::Default });
        config.data_dir = setting(archive);
        config.output_dir = setting(research.clone());
        config.grid = setting(self.location.join(GRID));
        let months = self.synthetic.months;
        let (location, context) = (&self.location, run_context(&config));
        let reading = until(&context.stop, &stores);
        let steps = Steps { location, config: &config, stores: reading, context, case, months };
        if self.plan {
            writeln!(
                out,
                "2. the research-grade dataset and the map stores, in one pass over the files"
            )?;
            // A plan is never replaced, and the raw files are new.
            stores.open(&self.location)?.delete(PLAN).await?;
            let exit = steps.all_by_plan(out).await?;
            if exit != Exit::Done {
                return Ok(exit);
            }
        } else {
            writeln!(out, "2. the research-grade dataset")?;
            out.flush()?;
            convert_case(&config, case, steps.months_are_missing(), out).await?;
        }
        if self.synthetic.shape.0 != Shape::FULL {
            writeln!(
                out,
                "   (each file has about 0.23 MB of indexes and metadata on any grid: the smaller the \
                 grid, the larger out/in)"
            )?;
        }
        write_first_file(&stores, &research, case, out).await?;
        writeln!(out, "\nOpen all months in Python:\n")?;
        let folder = research.join(&layout::folder(case));
        out.write_all(python_example(&folder, &config.s3).await?.as_bytes())?;
        writeln!(out, "\n4. the three stores of the public map")?;
        if !self.plan {
            let exit = steps.maps_from_files(out).await?;
            if exit != Exit::Done {
                return Ok(exit);
            }
        }
        steps.check_and_plot(out).await
    }
}

/// Prints the data variables of the first research-grade file of a case.
async fn write_first_file(
    stores: &StoreRegistry,
    research: &Location,
    case: Case,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let key = layout::key(case, case.first_month());
    writeln!(out, "\n3. the first file, {}", research.join(&key))?;
    let object = stores.open(research)?.open(&key).await?;
    let source = ObjectSource::new(object, CancellationToken::new(), |_| {});
    let pool = Pool::new(1, u64::MAX);
    let permit = pool.acquire(0).await?;
    let header = Pool::run(&permit, move || metadata::header(Box::new(source))).await??;
    Ok(write_header(out, &header)?)
}

/// Returns Python code that opens all files of a folder as one dataset.
///
/// # Errors
/// The S3 settings cannot be read.
async fn python_example(folder: &Location, s3: &S3Options) -> Result<String, StoreError> {
    const HOW: &str = "combine=\"by_coords\", coords=\"minimal\", data_vars=\"minimal\", \
                       compat=\"override\"";
    let files = format!("{folder}/*.nc");
    if folder.is_local() {
        return Ok(format!("import xarray\nxarray.open_mfdataset({files:?}, {HOW})\n"));
    }
    let endpoint = EffectiveSettings::of(s3).await?.endpoint_url.0;
    let endpoint = endpoint.map(|url| format!("endpoint_url={:?}", redact(&url)));
    let anonymous = (s3.no_sign_request == Some(true)).then(|| "anon=True".to_owned());
    let options: Vec<String> = endpoint.into_iter().chain(anonymous).collect();
    Ok(format!(
        "import s3fs, xarray\ns3 = s3fs.S3FileSystem({})\nfiles = [s3.open(name) for name in \
         s3.glob({files:?})]\nxarray.open_mfdataset(files, engine=\"h5netcdf\", {HOW})\n",
        options.join(", ")
    ))
}

/// Prints the data variables of a file, with units and shapes.
fn write_header(out: &mut dyn Write, header: &Header) -> std::io::Result<()> {
    let mut table = Table::new(["VARIABLE", "UNITS", "SHAPE"]);
    for variable in
        header.variables.iter().filter(|v| v.dims.len() > 1 && v.has_leading_dim("polygon_id"))
    {
        let dims: Vec<String> =
            variable.dims.iter().map(|d| format!("{} {}", d.name, d.len)).collect();
        table.row([variable.name.clone(), variable.text("units").to_owned(), dims.join(", ")]);
    }
    table.write(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_in_a_bucket_are_opened_through_s3fs() {
        let s3 = S3Options {
            endpoint_url: Some("http://127.0.0.1:9000".to_owned()),
            no_sign_request: Some(true),
            ..S3Options::default()
        };
        let program = python_example(&"s3://bucket/demo".parse().unwrap(), &s3).await.unwrap();
        let lines: Vec<&str> = program.lines().collect();
        assert_eq!(
            lines[1],
            r#"s3 = s3fs.S3FileSystem(endpoint_url="http://127.0.0.1:9000", anon=True)"#
        );
        assert!(lines[2].contains(r#"s3.glob("s3://bucket/demo/*.nc")"#), "{program}");
        assert!(lines[3].contains(r#"engine="h5netcdf""#), "{program}");
    }
}
