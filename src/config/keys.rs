//! The keys there are.

use serde_json::Value;

use crate::store::S3Options;

/// A key of `dor.toml`, outside its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Name in `dor.toml`.
    pub name: &'static str,
    /// The environment variable that lies over it.
    pub variable: &'static str,
}

/// The keys outside tables, in the order in which they are shown.
pub const KEYS: [Key; 10] = [
    Key { name: "scratch", variable: "SCRATCH" },
    Key { name: "parent_data_dir", variable: "OCEAN_CDR_PARENT_DATA_DIR" },
    Key { name: "data_dir", variable: "OCEAN_CDR_DATA_ARCHIVE_DIR" },
    Key { name: "output_dir", variable: "DOR_OUTPUT_DIR" },
    Key { name: "grid", variable: "DOR_GRID" },
    Key { name: "store1", variable: "OCEAN_CDR_STORE_1_PATH" },
    Key { name: "store2", variable: "OCEAN_CDR_STORE_2_PATH" },
    Key { name: "store3", variable: "OCEAN_CDR_CUMULATIVE_FG_CO2_PERCENT_STORE_PATH" },
    Key { name: "plan", variable: "DOR_PLAN" },
    Key { name: "workers", variable: "DOR_WORKERS" },
];

/// Standard AWS variables that the storage layer reads, for showing what is in force.
pub const AWS_VARIABLES: [&str; 17] = [
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_EC2_METADATA_DISABLED",
];

/// AWS variables that say the same as a key of `[s3]`, the stronger one first.
pub(super) const AWS_EQUIVALENTS: [(&str, &[&str]); 3] = [
    ("profile", &["AWS_PROFILE"]),
    ("region", &["AWS_REGION", "AWS_DEFAULT_REGION"]),
    ("endpoint_url", &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
];

/// The keys of the table `[s3]`: the fields of [`S3Options`], which is what reads them.
pub fn s3_keys() -> Vec<String> {
    match serde_json::to_value(S3Options::default()) {
        Ok(Value::Object(fields)) => fields.into_iter().map(|(name, _)| name).collect(),
        _ => Vec::new(),
    }
}

/// What a key of `[s3]` is when nobody sets it, where that is one value.
pub(super) fn s3_default(name: &str) -> Option<Value> {
    let numbers = S3Options::NUMBERS.into_iter().map(|n| (n.name, Value::from(n.default)));
    let defaults = numbers.chain([("no_sign_request", Value::from(false))]);
    defaults.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// The known key that `key` was most likely meant to be.
pub(super) fn nearest(key: &str) -> Option<String> {
    let wanted = key.to_ascii_lowercase().replace('-', "_");
    let last = |name: &str| name.rsplit('.').next().map(str::to_owned).unwrap_or_default();
    KEYS.iter()
        .map(|known| known.name.to_owned())
        .chain(s3_keys().into_iter().map(|name| format!("s3.{name}")))
        .chain(["s3".to_owned()])
        .map(|known| {
            let whole = strsim::damerau_levenshtein(&wanted, &known);
            // A key may stand outside its table, or in the wrong one.
            let inner = strsim::damerau_levenshtein(&last(&wanted), &last(&known));
            (whole.min(inner + 1), known)
        })
        .filter(|(distance, known)| *distance <= 2.max(known.len() / 4))
        .min()
        .map(|(_, known)| known)
}
