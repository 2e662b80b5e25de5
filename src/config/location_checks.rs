//! Checks of the configured locations: whether they exist and can be read and written.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::redaction::redact;
use super::{Config, Setting};
use crate::store::{Location, ProbeReport, StoreError, StoreRegistry, with_causes};

/// Time without a response after which a location counts as unreachable.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The state of a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LocationStatus {
    /// The file, folder or prefix exists.
    Exists,
    /// The file, folder or prefix does not exist.
    Missing,
    /// The check has created the folder.
    Created,
    /// The location does not respond, or access is denied.
    Unreachable,
    /// The location cannot be checked.
    Unknown,
}

/// The result of checking a configured location. `None`: not checked, or does not apply.
#[derive(Clone, Debug, Serialize)]
pub struct LocationCheck {
    /// Key of the setting in `dor.toml`.
    pub key: &'static str,
    /// The location, with secrets hidden.
    pub location: String,
    /// The layer of the setting.
    pub source: String,
    /// Whether it exists.
    pub status: LocationStatus,
    /// Whether it can be read.
    pub readable: Option<bool>,
    /// Whether it can be written.
    pub writable: Option<bool>,
    /// Time at which the credentials expire (RFC 3339), `no expiry` or `anonymous`.
    pub credentials_until: Option<String>,
    /// Duration of a request in seconds.
    pub round_trip_seconds: Option<f64>,
    /// The first error.
    pub problem: Option<String>,
}

/// The use of a location, which decides what is checked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A folder that is only read.
    Input,
    /// A file that is only read.
    InputFile,
    /// A folder that is written to. A local folder that is missing is created by the check.
    Output,
    /// A folder that is written to. The first command that writes to it creates it.
    LaterOutput,
}

impl Role {
    fn of(key: &str) -> Self {
        match key {
            "data_dir" => Self::Input,
            "grid" | "plan" | "ssh" | "centers" => Self::InputFile,
            "scratch" | "output_dir" => Self::Output,
            _ => Self::LaterOutput,
        }
    }
}

/// Checks every configured location, and creates missing local folders of outputs.
pub async fn check_locations(config: &Config, stores: &StoreRegistry) -> Vec<LocationCheck> {
    // Before all checks: creating an output may create the parent folder of another location.
    let mut created = BTreeMap::new();
    for (key, setting) in config.locations().filter(|(key, _)| Role::of(key) == Role::Output) {
        created.insert(key, create(stores, &setting.value).await);
    }
    let credentials = credentials(config, stores).await;
    let rows = config
        .locations()
        .map(|(key, setting)| row(stores, key, setting, created.get(key), credentials.as_ref()));
    futures::future::join_all(rows).await
}

/// Creates a local folder that is missing. Returns whether it was created.
async fn create(stores: &StoreRegistry, location: &Location) -> Result<bool, StoreError> {
    match location.local_path() {
        Some(path) if !path.exists() => {
            stores.open(location)?.make_root().await?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn is_s3(location: &Location) -> bool {
    location.to_string().starts_with("s3://")
}

fn is_web(location: &Location) -> bool {
    let text = location.to_string();
    text.starts_with("https://") || text.starts_with("http://")
}

/// The expiry of the credentials for S3, or why there are none. `None`: no location needs them.
async fn credentials(config: &Config, stores: &StoreRegistry) -> Option<Result<String, String>> {
    if !config.locations().any(|(_, setting)| is_s3(&setting.value)) {
        return None;
    }
    if config.s3.no_sign_request == Some(true) {
        return Some(Ok("anonymous".to_owned()));
    }
    let expiry = tokio::time::timeout(TIMEOUT, stores.credentials_expiry());
    Some(match expiry.await {
        Ok(Ok(Some(time))) => {
            Ok(DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Secs, true))
        }
        Ok(Ok(None)) => Ok("no expiry".to_owned()),
        Ok(Err(error)) => Err(with_causes(&error)),
        Err(_) => Err(format!("no credentials within {:.1} s", TIMEOUT.as_secs_f64())),
    })
}

/// Checks one location. `created` is the result of creating its folder.
async fn row(
    stores: &StoreRegistry,
    key: &'static str,
    setting: &Setting<Location>,
    created: Option<&Result<bool, StoreError>>,
    credentials: Option<&Result<String, String>>,
) -> LocationCheck {
    let location = &setting.value;
    let mut row = LocationCheck {
        key,
        location: redact(&location.to_string()),
        source: setting.source.to_string(),
        status: LocationStatus::Unreachable,
        readable: None,
        writable: None,
        credentials_until: None,
        round_trip_seconds: None,
        problem: None,
    };
    if let Some(Err(error)) = created {
        row.status = LocationStatus::Missing;
        row.writable = Some(false);
        row.problem = Some(format!("cannot create the folder: {}", with_causes(error)));
        return row;
    }
    if Role::of(key) != Role::InputFile && location.local_path().is_some_and(Path::is_file) {
        row.status = LocationStatus::Exists;
        row.problem = Some("it is a file, and must be a folder".to_owned());
        return row;
    }
    if Role::of(key) != Role::InputFile && is_web(location) {
        row.status = LocationStatus::Unknown;
        row.problem = Some("https locations cannot be listed; give a path or s3://".to_owned());
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
    match tokio::time::timeout(TIMEOUT, check(stores, location, Role::of(key))).await {
        Ok(Ok(check)) => {
            row.fill(check, matches!(created, Some(Ok(true))));
            if key == "data_dir" && row.readable == Some(true) {
                row.problem = empty_archive(stores, location).await;
            }
        }
        Ok(Err(error)) => row.problem = Some(with_causes(&error)),
        Err(_) => row.problem = Some(format!("no answer within {:.1} s", TIMEOUT.as_secs_f64())),
    }
    row
}

/// A sentence if the archive is an empty folder.
async fn empty_archive(stores: &StoreRegistry, location: &Location) -> Option<String> {
    stores.open(location).ok()?.absence().await.ok()?.map(str::to_owned)
}

impl LocationCheck {
    /// Adds the result of a check.
    fn fill(&mut self, check: ProbeReport, created: bool) {
        self.status = match (&check.readable, check.exists) {
            (Ok(()), true) if created => LocationStatus::Created,
            (_, true) => LocationStatus::Exists,
            (Ok(()), false) => LocationStatus::Missing,
            (Err(_), false) => LocationStatus::Unreachable,
        };
        self.round_trip_seconds = Some(check.round_trip.as_secs_f64());
        self.readable = (check.exists || check.readable.is_err()).then_some(check.readable.is_ok());
        self.writable = check.writable.as_ref().map(Result::is_ok);
        let errors = [check.readable.err(), check.writable.and_then(Result::err)];
        self.problem = errors.iter().flatten().map(|error| with_causes(error)).next();
    }

    /// A sentence if the location cannot be read.
    fn unreadable(&self) -> Option<String> {
        match (self.status, self.readable) {
            (_, Some(true)) => self
                .problem
                .as_ref()
                .map(|problem| format!("{} {}: {problem}", self.key, self.location)),
            (LocationStatus::Missing, _) => {
                Some(format!("{} {} does not exist", self.key, self.location))
            }
            _ => Some(format!("{} {} cannot be read", self.key, self.location)),
        }
    }
}

async fn check(
    stores: &StoreRegistry,
    location: &Location,
    role: Role,
) -> Result<ProbeReport, StoreError> {
    if role == Role::InputFile {
        return check_file(stores, location).await;
    }
    let write = matches!(role, Role::Output | Role::LaterOutput);
    let store = stores.open(location)?;
    let mut check = store.check(write).await;
    if check.readable.is_ok() {
        // The first request includes the time to open a connection; the second does not.
        check.round_trip = store.check(false).await.round_trip;
    }
    Ok(check)
}

async fn check_file(
    stores: &StoreRegistry,
    location: &Location,
) -> Result<ProbeReport, StoreError> {
    let start = Instant::now();
    let (Some(folder), Some(name)) = (location.parent(), location.file_name()) else {
        return Err(StoreError::NotFound { url: location.to_string() });
    };
    let exists = match stores.open(&folder)?.open(name).await {
        Ok(_) => true,
        Err(StoreError::NotFound { .. }) => false,
        Err(error) => return Err(error),
    };
    Ok(ProbeReport { exists, readable: Ok(()), writable: None, round_trip: start.elapsed() })
}

/// The reasons, one sentence each, for which no conversion can start.
pub fn problems(rows: &[LocationCheck]) -> Vec<String> {
    let find = |key| rows.iter().find(|row| row.key == key);
    let mut problems = Vec::new();
    match find("data_dir") {
        Some(row) => problems.extend(row.unreadable()),
        None => problems.push("data_dir is not set; set OCEAN_CDR_DATA_ARCHIVE_DIR".to_owned()),
    }
    match find("output_dir") {
        Some(row) if row.writable == Some(true) => {}
        Some(row) => problems.push(format!("output_dir {} cannot be written", row.location)),
        None => problems.push("output_dir is not set; set DOR_OUTPUT_DIR".to_owned()),
    }
    problems.extend(find("grid").and_then(LocationCheck::unreadable));
    problems
}
