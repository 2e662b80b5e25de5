//! `dor setup-environment`: is everything there that work needs?

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;
use serde::Serialize;

use super::capabilities::Capabilities;
use super::output::{Table, bytes, duration, write_json};
use super::{Exit, GlobalArgs};
use crate::config::{Config, Setting, redact};
use crate::store::{Check, Location, StoreError, Stores};

/// How long a location may take to answer before it counts as unreachable.
const PATIENCE: Duration = Duration::from_secs(30);

const NOTHING_CONFIGURED: &str = "\
nothing is configured: say where the raw history is and where the output goes, for example

    export OCEAN_CDR_DATA_ARCHIVE_DIR=/archive/raw
    export DOR_OUTPUT_DIR=s3://bucket/research-grade

or the same in dor.toml:

    data_dir = \"/archive/raw\"
    output_dir = \"s3://bucket/research-grade\"";

/// Check every configured location and this machine, and make the local output folders
///
/// Ends with 0 only when work can start, else with 78.
#[derive(Args, Debug)]
pub(super) struct Command {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Command {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let report = Report::of(&Config::load(&global.overrides())?).await;
        if self.json {
            write_json(out, &report)?
        } else {
            report.write(out)?
        }
        Ok(if report.ready { Exit::Done } else { Exit::Configuration })
    }
}

#[derive(Serialize)]
struct Report {
    ready: bool,
    verdict: String,
    locations: Vec<Row>,
    capabilities: Capabilities,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Exists,
    Missing,
    Created,
    Unreachable,
}

/// A configured location; `None` is what was not tried or does not apply.
#[derive(Serialize)]
struct Row {
    key: &'static str,
    location: String,
    source: String,
    status: Status,
    readable: Option<bool>,
    writable: Option<bool>,
    credentials_until: Option<String>,
    round_trip_seconds: Option<f64>,
    problem: Option<String>,
}

/// What dor does with a location, and so what is tried there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A folder that is only read.
    Input,
    /// A file that is only read.
    InputFile,
    /// A folder that is written to, and made here when it is local and missing.
    Output,
    /// Written to, but made by whoever first has something to put there.
    LaterOutput,
}

impl Role {
    fn of(key: &str) -> Self {
        match key {
            "data_dir" => Self::Input,
            "grid" => Self::InputFile,
            "scratch" | "output_dir" => Self::Output,
            _ => Self::LaterOutput,
        }
    }
}

impl Report {
    async fn of(config: &Config) -> Self {
        let capabilities = Capabilities::find();
        // Before any check: an output may be what makes the folder above it.
        let created: BTreeMap<_, _> = config
            .locations()
            .filter(|(key, _)| Role::of(key) == Role::Output)
            .map(|(key, setting)| (key, create(&setting.value)))
            .collect();
        let stores = Stores::new(config.s3.clone());
        let credentials = credentials(config, &stores).await;
        let rows = config.locations().map(|(key, setting)| {
            row(&stores, key, setting, created.get(key), credentials.as_ref())
        });
        let locations = futures::future::join_all(rows).await;
        let obstacles = obstacles(&locations, &capabilities);
        let verdict = match obstacles.as_slice() {
            _ if locations.is_empty() => NOTHING_CONFIGURED.to_owned(),
            [] => "ready: raw history can be read, research-grade files can be written".to_owned(),
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
        let Capabilities { cores, memory_limit, netcdf_c, hdf5, deflate_filter } =
            &self.capabilities;
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

/// Makes a local folder that is missing; whether it did.
fn create(location: &Location) -> std::io::Result<bool> {
    match location.local_path() {
        Some(path) if !path.try_exists()? => std::fs::create_dir_all(path).map(|()| true),
        _ => Ok(false),
    }
}

fn is_s3(location: &Location) -> bool {
    location.to_string().starts_with("s3://")
}

/// How long the credentials for S3 are good, if any location needs them.
async fn credentials(config: &Config, stores: &Stores) -> Option<Result<String, String>> {
    if !config.locations().any(|(_, setting)| is_s3(&setting.value)) {
        return None;
    }
    if config.s3.no_sign_request == Some(true) {
        return Some(Ok("anonymous".to_owned()));
    }
    let expiry = tokio::time::timeout(PATIENCE, stores.credentials_expiry());
    Some(match expiry.await {
        Ok(Ok(Some(time))) => {
            Ok(DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Secs, true))
        }
        Ok(Ok(None)) => Ok("no expiry".to_owned()),
        Ok(Err(error)) => Err(with_causes(&error)),
        Err(_) => Err(format!("no credentials within {}", duration(PATIENCE))),
    })
}

async fn row(
    stores: &Stores,
    key: &'static str,
    setting: &Setting<Location>,
    created: Option<&std::io::Result<bool>>,
    credentials: Option<&Result<String, String>>,
) -> Row {
    let location = &setting.value;
    let mut row = Row {
        key,
        location: redact(&location.to_string()),
        source: setting.source.to_string(),
        status: Status::Unreachable,
        readable: None,
        writable: None,
        credentials_until: None,
        round_trip_seconds: None,
        problem: None,
    };
    if let Some(Err(error)) = created {
        row.status = Status::Missing;
        row.writable = Some(false);
        row.problem = Some(format!("cannot make the folder {}: {error}", row.location));
        return row;
    }
    match credentials.filter(|_| is_s3(location)) {
        Some(Ok(until)) => row.credentials_until = Some(until.clone()),
        Some(Err(problem)) => {
            row.problem = Some(problem.clone());
            return row;
        }
        None => {}
    }
    match tokio::time::timeout(PATIENCE, check(stores, location, Role::of(key))).await {
        Ok(Ok(check)) => row.fill(check, matches!(created, Some(Ok(true)))),
        Ok(Err(error)) => row.problem = Some(with_causes(&error)),
        Err(_) => row.problem = Some(format!("no answer within {}", duration(PATIENCE))),
    }
    row
}

impl Row {
    fn fill(&mut self, check: Check, created: bool) {
        self.status = match check.exists {
            true if created => Status::Created,
            true => Status::Exists,
            false => Status::Missing,
        };
        self.round_trip_seconds = Some(check.round_trip.as_secs_f64());
        self.readable = check.exists.then_some(check.readable.is_ok());
        self.writable = check.writable.as_ref().map(Result::is_ok);
        let errors =
            [check.readable.err().filter(|_| check.exists), check.writable.and_then(Result::err)];
        self.problem = errors.iter().flatten().map(|error| with_causes(error)).next();
    }
}

async fn check(stores: &Stores, location: &Location, role: Role) -> Result<Check, StoreError> {
    if role == Role::InputFile {
        return check_file(stores, location).await;
    }
    // Trying to write makes a local folder, which is not ours to do for what is only read or comes later.
    let absent = location.local_path().is_some_and(|path| !path.exists());
    let write = role == Role::Output || (role == Role::LaterOutput && !absent);
    Ok(stores.open(location)?.check(write).await)
}

async fn check_file(stores: &Stores, location: &Location) -> Result<Check, StoreError> {
    let start = std::time::Instant::now();
    let (Some(folder), Some(name)) = (location.parent(), location.file_name()) else {
        return Err(StoreError::NotFound { url: location.to_string() });
    };
    let (exists, readable) = match stores.open(&folder)?.object(name).await {
        Ok(_) => (true, Ok(())),
        Err(error @ StoreError::NotFound { .. }) => (false, Err(error)),
        Err(error) => return Err(error),
    };
    Ok(Check { exists, readable, writable: None, round_trip: start.elapsed() })
}

/// What keeps work from starting.
fn obstacles(rows: &[Row], capabilities: &Capabilities) -> Vec<String> {
    let mut obstacles = Vec::new();
    let mut need = |key: &str, fine: fn(&Row) -> bool, problem: &str, advice: Option<&str>| match (
        rows.iter().find(|row| row.key == key),
        advice,
    ) {
        (Some(row), _) if !fine(row) => {
            obstacles.push(format!("{key} {} {problem}", row.location));
        }
        (None, Some(advice)) => obstacles.push(format!("{key} is not set; set {advice}")),
        _ => {}
    };
    let readable = |row: &Row| row.readable == Some(true);
    need(
        "data_dir",
        readable,
        "cannot be read",
        Some("OCEAN_CDR_DATA_ARCHIVE_DIR or data_dir in dor.toml"),
    );
    let writable = |row: &Row| row.writable == Some(true);
    need(
        "output_dir",
        writable,
        "cannot be written",
        Some("DOR_OUTPUT_DIR or output_dir in dor.toml"),
    );
    need("grid", readable, "cannot be read", None);
    if !capabilities.deflate_filter {
        obstacles
            .push("the HDF5 library has no zlib filter; install one built with zlib".to_owned());
    }
    obstacles
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
