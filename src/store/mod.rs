//! Storage (stub).
#![allow(missing_docs)]
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Location(String);

#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    #[error("`{0}` is not a location: give a path, file://, s3://bucket/prefix or https://")]
    BadLocation(String),
    #[error("{url}: not found")]
    NotFound { url: String },
    #[error("{0}: {1}")]
    Io(String, String),
}

impl FromStr for Location {
    type Err = StoreError;
    fn from_str(s: &str) -> Result<Self, StoreError> {
        let known = ["file", "s3", "https", "http"];
        match s.split_once("://") {
            Some((scheme, _)) if !known.contains(&scheme) => {
                Err(StoreError::BadLocation(s.to_owned()))
            }
            _ if s.is_empty() => Err(StoreError::BadLocation(s.to_owned())),
            _ => Ok(Self(s.to_owned())),
        }
    }
}
impl TryFrom<String> for Location {
    type Error = StoreError;
    fn try_from(s: String) -> Result<Self, StoreError> {
        s.parse()
    }
}
impl From<Location> for String {
    fn from(l: Location) -> String {
        l.0
    }
}
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl Location {
    pub fn join(&self, relative: &str) -> Self {
        Self(format!("{}/{relative}", self.0.trim_end_matches('/')))
    }
    pub fn is_local(&self) -> bool {
        self.local_path().is_some()
    }
    pub fn local_path(&self) -> Option<&Path> {
        match self.0.split_once("://") {
            Some(("file", path)) => Some(Path::new(path)),
            Some(_) => None,
            None => Some(Path::new(&self.0)),
        }
    }
    pub fn file_name(&self) -> Option<&str> {
        self.0.rsplit('/').next().filter(|n| !n.is_empty())
    }
    pub fn parent(&self) -> Option<Self> {
        Path::new(&self.0).parent().map(|p| Self(p.display().to_string()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Addressing {
    Path,
    Virtual,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3Options {
    pub profile: Option<String>,
    pub endpoint_url: Option<String>,
    pub region: Option<String>,
    pub addressing: Option<Addressing>,
    pub no_sign_request: Option<bool>,
    pub part_size: Option<u64>,
    pub max_retries: Option<u32>,
}

#[derive(Clone)]
pub struct Stores;
impl Stores {
    pub fn new(_: S3Options) -> Self {
        Self
    }
    pub fn open(&self, location: &Location) -> Result<Store, StoreError> {
        Ok(Store(location.clone()))
    }
    pub async fn credentials_expiry(&self) -> Result<Option<SystemTime>, StoreError> {
        Ok(None)
    }
}

#[derive(Clone)]
pub struct Store(Location);
pub struct Check {
    pub exists: bool,
    pub readable: Result<(), StoreError>,
    pub writable: Option<Result<(), StoreError>>,
    pub round_trip: Duration,
}
pub struct Object;
impl Store {
    fn path(&self) -> Result<PathBuf, StoreError> {
        let e = || StoreError::Io(self.0.to_string(), "not local".into());
        self.0.local_path().map(Path::to_owned).ok_or_else(e)
    }
    pub async fn object(&self, key: &str) -> Result<Object, StoreError> {
        let p = self.path()?.join(key);
        if p.is_file() {
            Ok(Object)
        } else {
            Err(StoreError::NotFound { url: p.display().to_string() })
        }
    }
    pub async fn make_root(&self) -> Result<(), StoreError> {
        let e = |e: std::io::Error| StoreError::Io(self.0.to_string(), e.to_string());
        std::fs::create_dir_all(self.path()?).map_err(e)
    }
    pub async fn check(&self, write: bool) -> Check {
        let start = Instant::now();
        let io = |e: std::io::Error| StoreError::Io(self.0.to_string(), e.to_string());
        let path = self.path();
        let exists = path.as_ref().is_ok_and(|p| p.is_dir());
        let readable = path.clone().and_then(|p| match std::fs::metadata(&p) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(io(e)),
            Ok(_) => Ok(()),
        });
        let writable = write.then(|| {
            let path = path?;
            let there = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("."));
            let probe = there.join(".probe");
            std::fs::write(&probe, b"x").map_err(io)?;
            std::fs::remove_file(&probe).map_err(io)
        });
        Check { exists, readable, writable, round_trip: start.elapsed() }
    }
}
