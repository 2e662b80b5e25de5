//! What can be said about S3, whoever says it: flags, environment, `dor.toml`.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A number that can be set for S3.
#[derive(Debug, Clone)]
pub struct NumericOption {
    /// Its field in [`S3Options`].
    pub name: &'static str,
    /// What it is when nobody sets it.
    pub default: u64,
    /// What it may be.
    pub range: RangeInclusive<u64>,
}

const fn number(name: &'static str, default: u64, range: RangeInclusive<u64>) -> NumericOption {
    NumericOption { name, default, range }
}

const MIB: usize = 1 << 20;
// S3 takes parts of 5 MiB to 5 GiB, but for the last.
const PART_SIZE: NumericOption = number("part_size", 16 << 20, 5 << 20..=5 << 30);
const MAX_RETRIES: NumericOption = number("max_retries", 10, 0..=100);
const TIMEOUT: NumericOption = number("timeout_seconds", 120, 1..=86_400);
const CONNECT_TIMEOUT: NumericOption = number("connect_timeout_seconds", 10, 1..=600);

/// How the bucket is named in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Addressing {
    /// `https://endpoint/bucket/key`: MinIO, Source Cooperative and most servers but AWS.
    Path,
    /// `https://bucket.endpoint/key`: AWS.
    Virtual,
}

/// Everything that can be set for S3; what is `None` comes from the profile, the standard AWS
/// environment variables and files, or a default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3Options {
    /// `minio` and `source-coop` are built in; any other is a profile of the shared AWS files.
    /// Credentials then come from that profile only: leave it unset for `AWS_PROFILE`, which
    /// gives way to access keys in the environment as everywhere else.
    pub profile: Option<String>,
    /// `https://host[:port]`; `http://` only for this machine.
    pub endpoint_url: Option<String>,
    /// The region that requests are signed for.
    pub region: Option<String>,
    /// `path` or `virtual`; by default `path` when there is an endpoint.
    pub addressing: Option<Addressing>,
    /// Do not look for credentials, send unsigned requests: public buckets.
    pub no_sign_request: Option<bool>,
    /// Bytes in a part of a multipart upload, less what is over whole MiB: 16 MiB; 5 MiB to 5 GiB.
    pub part_size: Option<u64>,
    /// How often a request is tried again after a transient failure: 10.
    pub max_retries: Option<u32>,
    /// Seconds that one request may take, body and all: 120.
    pub timeout_seconds: Option<u64>,
    /// Seconds to wait for a connection: 10.
    pub connect_timeout_seconds: Option<u64>,
}

impl S3Options {
    /// The numbers among the options.
    pub const NUMBERS: [NumericOption; 4] = [PART_SIZE, MAX_RETRIES, TIMEOUT, CONNECT_TIMEOUT];

    pub(super) fn part_size(&self) -> usize {
        let size = usize::try_from(self.part_size.unwrap_or(PART_SIZE.default));
        size.unwrap_or(usize::MAX) / MIB * MIB
    }

    pub(super) fn max_retries(&self) -> usize {
        let retries = self.max_retries.map_or(MAX_RETRIES.default, u64::from);
        usize::try_from(retries).unwrap_or(usize::MAX)
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.unwrap_or(TIMEOUT.default))
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.connect_timeout_seconds.unwrap_or(CONNECT_TIMEOUT.default))
    }

    pub(super) fn is_anonymous(&self) -> bool {
        self.no_sign_request == Some(true)
    }
}
