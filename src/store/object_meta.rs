//! What is known of an object without its bytes.

use chrono::{DateTime, Utc};

use serde::{Deserialize, Serialize};

/// What a store knows of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectMeta {
    /// Where it is below the store's location.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// When it was written; just after an upload to S3, this machine's time of that.
    pub modified: DateTime<Utc>,
    /// Its version, without quotes; on disk made of inode, time and size. Some servers leave it
    /// out of listings.
    pub etag: Option<String>,
}

impl ObjectMeta {
    pub(super) fn new(key: String, meta: object_store::ObjectMeta) -> Self {
        let etag = meta.e_tag.as_deref().map(unquoted);
        Self { key, size: meta.size, modified: meta.last_modified, etag }
    }

    /// What is known of an object that was written just now.
    pub(super) fn written(key: &str, size: u64, etag: Option<&str>) -> Self {
        let etag = etag.map(unquoted);
        Self { key: key.to_owned(), size, modified: Utc::now(), etag }
    }

    /// What differs from `now`, when it cannot be the same object.
    pub(super) fn differs(&self, now: &Self) -> Option<String> {
        let strong = |etag: &str| etag.trim_start_matches("W/").trim_matches('"').to_owned();
        match (&self.etag, &now.etag) {
            _ if self.size != now.size => Some(format!("{} bytes, not {}", now.size, self.size)),
            (Some(known), Some(found)) if strong(known) == strong(found) => None,
            (Some(known), Some(found)) => Some(format!("version {found}, not {known}")),
            // Headers tell seconds where listings tell milliseconds.
            _ if self.modified.timestamp() == now.modified.timestamp() => None,
            _ => Some(format!("written {}, not {}", now.modified, self.modified)),
        }
    }
}

/// An ETag as it is kept.
pub(super) fn unquoted(etag: &str) -> String {
    match etag.strip_prefix('"').and_then(|etag| etag.strip_suffix('"')) {
        Some(inner) => inner.to_owned(),
        None => etag.to_owned(),
    }
}
