//! `dor setup-environment`: checks the configured locations and the machine.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::output::{Table, bytes, duration};
use super::report::JsonArgs;
use super::system_info::SystemInfo;
use super::{Exit, GlobalArgs};
use crate::cli::stores::stores;
use crate::config::Config;
use crate::config::location_checks::{LocationCheck, check_locations, problems};

const NOTHING_CONFIGURED: &str = "\
nothing is configured; set the folder of the raw history and the output folder, for example

    export OCEAN_CDR_DATA_ARCHIVE_DIR=/archive/raw
    export DOR_OUTPUT_DIR=s3://bucket/research-grade

or in dor.toml:

    data_dir = \"/archive/raw\"
    output_dir = \"s3://bucket/research-grade\"";

/// Check every configured location and this machine, and create the local output folders
///
/// The exit code is 0 when a conversion can start, else 78.
#[derive(Args, Debug)]
pub(super) struct Command {
    #[command(flatten)]
    json: JsonArgs,
}

impl Command {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let report = SetupReport::of(&Config::load(&global.overrides())?).await;
        self.json.print(out, &report, |out, report| report.write(out))?;
        Ok(if report.ready { Exit::Done } else { Exit::Configuration })
    }
}

/// Result of the checks.
#[derive(Serialize)]
struct SetupReport {
    ready: bool,
    /// Whether a conversion can start, and if not, why, in words.
    verdict: String,
    locations: Vec<LocationCheck>,
    capabilities: SystemInfo,
}

impl SetupReport {
    /// Checks the locations and the machine.
    async fn of(config: &Config) -> Self {
        let capabilities = SystemInfo::find();
        let stores = stores(config);
        let locations = check_locations(config, &stores).await;
        let mut obstacles = problems(&locations);
        if !capabilities.deflate_filter {
            obstacles.push("HDF5 has no zlib filter; install one built with zlib".to_owned());
        }
        let verdict = match obstacles.as_slice() {
            _ if locations.is_empty() => NOTHING_CONFIGURED.to_owned(),
            [] => "ready: dor can read raw history and write research-grade files".to_owned(),
            _ => format!("not ready: {}", obstacles.join("; ")),
        };
        Self { ready: obstacles.is_empty(), verdict, locations, capabilities }
    }

    fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        if !self.locations.is_empty() {
            let mut table = Table::new([
                "KEY",
                "LOCATION",
                "STATUS",
                "READ",
                "WRITE",
                "CREDENTIALS UNTIL",
                "ROUND TRIP",
            ]);
            for row in &self.locations {
                let status = format!("{:?}", row.status).to_lowercase();
                let time = row.round_trip_seconds.map(|s| duration(Duration::from_secs_f64(s)));
                table.row([
                    row.key.to_owned(),
                    row.location.clone(),
                    status,
                    yes_or_no(row.readable),
                    yes_or_no(row.writable),
                    row.credentials_until.clone().unwrap_or_else(|| "-".to_owned()),
                    time.unwrap_or_else(|| "-".to_owned()),
                ]);
            }
            table.write(out)?;
            writeln!(out)?;
            for row in &self.locations {
                if let Some(problem) = &row.problem {
                    writeln!(out, "{} ({}): {problem}", row.key, row.source)?;
                }
            }
        }
        let SystemInfo { cores, memory_limit, netcdf_c, hdf5, deflate_filter } = &self.capabilities;
        writeln!(
            out,
            "cores: {cores}\nmemory limit: {}\nnetCDF-C: {netcdf_c}\nHDF5: {hdf5}, zlib filter: {}\n",
            memory_limit.map_or("unknown".to_owned(), bytes),
            yes_or_no(Some(*deflate_filter)),
        )?;
        writeln!(out, "{}", self.verdict)
    }
}

fn yes_or_no(answer: Option<bool>) -> String {
    match answer {
        Some(true) => "yes",
        Some(false) => "no",
        None => "-",
    }
    .to_owned()
}
