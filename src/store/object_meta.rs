//! Metadata of an object.

use chrono::{DateTime, Utc};

use serde::{Deserialize, Serialize};

/// Metadata of an object, from a listing, a HEAD request or a response to a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectMeta {
    /// Key below the location of the store.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last write. In the response to an S3 upload it is the time of this machine.
    pub modified: DateTime<Utc>,
    /// ETag without quotes; on disk derived from inode, mtime and size. `None` if the server does not
    /// send it, which some do in listings.
    pub etag: Option<String>,
}

impl ObjectMeta {
    /// Converts metadata of `object_store`.
    pub(super) fn new(key: String, meta: object_store::ObjectMeta) -> Self {
        let etag = meta.e_tag.as_deref().map(unquoted);
        Self { key, size: meta.size, modified: meta.last_modified, etag }
    }

    /// Metadata of an object that was written just now.
    pub(super) fn written(key: &str, size: u64, etag: Option<&str>) -> Self {
        let etag = etag.map(unquoted);
        Self { key: key.to_owned(), size, modified: Utc::now(), etag }
    }

    /// Describes how `now` differs; `None` if it can be the same version of the object.
    pub(super) fn differs(&self, now: &Self) -> Option<String> {
        let strong = |etag: &str| etag.trim_start_matches("W/").trim_matches('"').to_owned();
        match (&self.etag, &now.etag) {
            _ if self.size != now.size => {
                Some(format!("{} bytes instead of {}", now.size, self.size))
            }
            (Some(old), Some(new)) if strong(old) == strong(new) => None,
            (Some(old), Some(new)) => Some(format!("version {new} instead of {old}")),
            // Headers have seconds, listings have milliseconds.
            _ if self.modified.timestamp() == now.modified.timestamp() => None,
            _ => Some(format!("written {} instead of {}", now.modified, self.modified)),
        }
    }
}

/// An ETag without its quotes.
pub(super) fn unquoted(etag: &str) -> String {
    match etag.strip_prefix('"').and_then(|etag| etag.strip_suffix('"')) {
        Some(inner) => inner.to_owned(),
        None => etag.to_owned(),
    }
}
