//! Are the configured locations there, and can they be read and written?

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::redaction::redact;
use super::{Config, Setting};
use crate::store::{Location, ProbeReport, StoreError, StoreRegistry, with_causes};

/// How long a location may take to answer before it counts as unreachable.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was found at a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LocationStatus {
    /// Something is there.
    Exists,
    /// Nothing is there.
    Missing,
    /// Its folder was made.
    Created,
    /// It does not answer, or may not be looked at.
    Unreachable,
    /// Cannot be found out.
    Unknown,
}

/// A configured location; `None` is what was not tried or does not apply.
#[derive(Clone, Debug, Serialize)]
pub struct LocationCheck {
    /// Key of the setting.
    pub key: &'static str,
    /// The location, secrets hidden.
    pub location: String,
    /// Where the setting came from.
    pub source: String,
    /// What was found.
    pub status: LocationStatus,
    /// Whether it can be read.
    pub readable: Option<bool>,
    /// Whether it can be written.
    pub writable: Option<bool>,
    /// When the credentials for it expire, or that they do not.
    pub credentials_until: Option<String>,
    /// Time that a request took, in seconds.
    pub round_trip_seconds: Option<f64>,
    /// What is wrong.
    pub problem: Option<String>,
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
            "grid" | "plan" => Self::InputFile,
            "scratch" | "output_dir" => Self::Output,
            _ => Self::LaterOutput,
        }
    }
}

/// Looks at every configured location, and makes the local folders of outputs that are missing.
pub async fn check_locations(config: &Config, stores: &StoreRegistry) -> Vec<LocationCheck> {
    // Before any check: an output may be what makes the folder above it.
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

/// Makes a local folder that is missing; whether it did.
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

/// How long the credentials for S3 are good, if any location needs them.
async fn credentials(config: &Config, stores: &StoreRegistry) -> Option<Result<String, String>> {
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
        Err(_) => Err(format!("no credentials within {:.1} s", PATIENCE.as_secs_f64())),
    })
}

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
        row.problem = Some(format!("cannot make the folder: {}", with_causes(error)));
        return row;
    }
    if Role::of(key) != Role::InputFile && location.local_path().is_some_and(Path::is_file) {
        row.status = LocationStatus::Exists;
        row.problem = Some("it is a file, and must be a folder".to_owned());
        return row;
    }
    if Role::of(key) != Role::InputFile && is_web(location) {
        row.status = LocationStatus::Unknown;
        row.problem = Some("the web has no listing to look in: give a path or s3://".to_owned());
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
        Err(_) => row.problem = Some(format!("no answer within {:.1} s", PATIENCE.as_secs_f64())),
    }
    row
}

impl LocationCheck {
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

    fn unreadable(&self) -> Option<String> {
        match (self.status, self.readable) {
            (_, Some(true)) => None,
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
        // The first request paid for the client and its connection; the second is what work will see.
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

/// What keeps work from starting.
pub fn obstacles(rows: &[LocationCheck]) -> Vec<String> {
    let find = |key| rows.iter().find(|row| row.key == key);
    let mut obstacles = Vec::new();
    match find("data_dir") {
        Some(row) => obstacles.extend(row.unreadable()),
        None => obstacles.push("data_dir is not set; set OCEAN_CDR_DATA_ARCHIVE_DIR".to_owned()),
    }
    match find("output_dir") {
        Some(row) if row.writable == Some(true) => {}
        Some(row) => obstacles.push(format!("output_dir {} cannot be written", row.location)),
        None => obstacles.push("output_dir is not set; set DOR_OUTPUT_DIR".to_owned()),
    }
    obstacles.extend(find("grid").and_then(LocationCheck::unreadable));
    obstacles
}
