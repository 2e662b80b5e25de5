//! The keys of the configuration and their environment variables.

use serde_json::Value;

use crate::store::S3Options;

/// A key of `dor.toml` that is not in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Name in `dor.toml`.
    pub name: &'static str,
    /// The environment variable that overrides it.
    pub variable: &'static str,
}

/// The keys that are not in a table, in the order of `dor config show`.
pub const KEYS: [Key; 13] = [
    Key { name: "scratch", variable: "SCRATCH" },
    Key { name: "parent_data_dir", variable: "OCEAN_CDR_PARENT_DATA_DIR" },
    Key { name: "data_dir", variable: "OCEAN_CDR_DATA_ARCHIVE_DIR" },
    Key { name: "output_dir", variable: "DOR_OUTPUT_DIR" },
    Key { name: "grid", variable: "DOR_GRID" },
    Key { name: "ssh", variable: "DOR_SSH" },
    Key { name: "centers", variable: "DOR_CENTERS" },
    Key { name: "weights_store", variable: "DOR_WEIGHTS_STORE" },
    Key { name: "store1", variable: "OCEAN_CDR_STORE_1_PATH" },
    Key { name: "store2", variable: "OCEAN_CDR_STORE_2_PATH" },
    Key { name: "store3", variable: "OCEAN_CDR_CUMULATIVE_FG_CO2_PERCENT_STORE_PATH" },
    Key { name: "plan", variable: "DOR_PLAN" },
    Key { name: "workers", variable: "DOR_WORKERS" },
];

/// Standard AWS variables that the storage layer reads; `dor config show` lists those that are set.
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

/// AWS variables with the meaning of a key of `[s3]`, in order of precedence.
pub(super) const AWS_EQUIVALENTS: [(&str, &[&str]); 3] = [
    ("profile", &["AWS_PROFILE"]),
    ("region", &["AWS_REGION", "AWS_DEFAULT_REGION"]),
    ("endpoint_url", &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
];

/// The keys of the table `[s3]`: the fields of [`S3Options`].
pub fn s3_keys() -> Vec<String> {
    match serde_json::to_value(S3Options::default()) {
        Ok(Value::Object(fields)) => fields.into_iter().map(|(name, _)| name).collect(),
        _ => Vec::new(),
    }
}

/// The default of a key of `[s3]`. `None`: it has no constant default.
pub(super) fn s3_default(name: &str) -> Option<Value> {
    let numbers = S3Options::NUMBERS.into_iter().map(|n| (n.name, Value::from(n.default)));
    let defaults = numbers.chain([("no_sign_request", Value::from(false))]);
    defaults.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// The known key that is most similar to `key`. `None`: no key is similar.
pub(super) fn nearest(key: &str) -> Option<String> {
    let written = key.to_ascii_lowercase().replace('-', "_");
    let last = |name: &str| name.rsplit('.').next().map(str::to_owned).unwrap_or_default();
    KEYS.iter()
        .map(|known| known.name.to_owned())
        .chain(s3_keys().into_iter().map(|name| format!("s3.{name}")))
        .chain(["s3".to_owned()])
        .map(|known| {
            let whole = strsim::damerau_levenshtein(&written, &known);
            // The key may be written outside its table, or in a wrong table.
            let inner = strsim::damerau_levenshtein(&last(&written), &last(&known));
            (whole.min(inner + 1), known)
        })
        .filter(|(distance, known)| *distance <= 2.max(known.len() / 4))
        .min()
        .map(|(_, known)| known)
}
