//! Options for S3, from flags, environment variables and `dor.toml`.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A numeric S3 option.
#[derive(Debug, Clone)]
pub struct NumericOption {
    /// Name of the field in [`S3Options`].
    pub name: &'static str,
    /// Value if the option is not set.
    pub default: u64,
    /// Accepted values.
    pub range: RangeInclusive<u64>,
}

const fn number(name: &'static str, default: u64, range: RangeInclusive<u64>) -> NumericOption {
    NumericOption { name, default, range }
}

const MIB: usize = 1 << 20;
// S3 accepts parts of 5 MiB to 5 GiB; the last part may be smaller.
const PART_SIZE: NumericOption = number("part_size", 16 << 20, 5 << 20..=5 << 30);
const MAX_RETRIES: NumericOption = number("max_retries", 10, 0..=100);
const TIMEOUT: NumericOption = number("timeout_seconds", 120, 1..=86_400);
const CONNECT_TIMEOUT: NumericOption = number("connect_timeout_seconds", 10, 1..=600);

/// Where a request names the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Addressing {
    /// In the path, `https://endpoint/bucket/key`: MinIO, Source Cooperative and most other servers.
    Path,
    /// In the host name, `https://bucket.endpoint/key`: AWS.
    Virtual,
}

/// Options for S3. A field that is `None` comes from the profile, the standard AWS environment variables
/// and files, or a default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3Options {
    /// Name of a profile. `minio` and `source-coop` are built in; any other name is a profile of the
    /// AWS files, and then the credentials come from that profile only. `None` uses `AWS_PROFILE`, over
    /// which access keys in the environment take precedence, as in the AWS tools.
    pub profile: Option<String>,
    /// URL of the server, `https://host[:port]`; `http://` only for this machine.
    pub endpoint_url: Option<String>,
    /// Region for which requests are signed.
    pub region: Option<String>,
    /// `path` or `virtual`; by default `path` with an endpoint, `virtual` without.
    pub addressing: Option<Addressing>,
    /// `true` sends unsigned requests without credentials, for public buckets.
    pub no_sign_request: Option<bool>,
    /// Size in bytes of a part of a multipart upload, rounded down to whole MiB: 5 MiB to 5 GiB,
    /// default 16 MiB.
    pub part_size: Option<u64>,
    /// Number of retries after a transient failure: 0 to 100, default 10.
    pub max_retries: Option<u32>,
    /// Timeout of one request with its body, in seconds: 1 to 86400, default 120.
    pub timeout_seconds: Option<u64>,
    /// Timeout of a connection attempt, in seconds: 1 to 600, default 10.
    pub connect_timeout_seconds: Option<u64>,
}

impl S3Options {
    /// The numeric options.
    pub const NUMBERS: [NumericOption; 4] = [PART_SIZE, MAX_RETRIES, TIMEOUT, CONNECT_TIMEOUT];

    /// Size in bytes of a part of a multipart upload, in whole MiB.
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

    /// Whether requests are unsigned.
    pub(super) fn is_anonymous(&self) -> bool {
        self.no_sign_request == Some(true)
    }
}
