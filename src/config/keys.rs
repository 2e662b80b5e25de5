//! The keys of the configuration and their environment variables.

use serde_json::Value;

use crate::model::similar;
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
    let s3 = s3_keys().into_iter().map(|name| format!("s3.{name}"));
    let known = KEYS.iter().map(|known| known.name.to_owned()).chain(s3);
    similar::nearest(key, known.chain(["s3".to_owned()]))
}

/// The variable of a key of `[s3]`.
pub(super) fn s3_variable(name: &str) -> String {
    format!("DOR_S3_{}", name.to_ascii_uppercase())
}

/// Variables of dor that have no key.
const OTHER_VARIABLES: [&str; 2] = ["DOR_CONFIG", "DOR_STATE_DIR"];

/// The known variable that is most similar to `variable`, which begins as those of dor do and is not known. `None`:
/// the variable is known, belongs to another program, or is similar to none.
pub(super) fn misspelled_variable(variable: &str) -> Option<String> {
    let is_ours = ["DOR_", "OCEAN_CDR_"].iter().any(|prefix| variable.starts_with(prefix));
    let keys = KEYS.iter().map(|key| key.variable.to_owned());
    let s3 = s3_keys().into_iter().map(|name| s3_variable(&name));
    let known: Vec<String> = keys.chain(s3).chain(OTHER_VARIABLES.map(str::to_owned)).collect();
    if !is_ours || known.iter().any(|known| known == variable) {
        return None;
    }
    similar::nearest(variable, known)
}
