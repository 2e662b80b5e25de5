//! Options for writing an object: headers, condition, checksum and part size.

use object_store::path::Path as ObjectPath;
use object_store::{Attribute, Attributes};

use crate::model::Md5Digest;

/// The condition under which an object is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PutMode {
    /// No condition: replaces an existing object.
    #[default]
    Always,
    /// The object must not exist.
    Absent,
    /// The existing object must have this ETag (without quotes).
    Is(String),
}

/// Options for writing an object. A store on disk uses only the condition and the part size.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// `Content-Type`; `None` derives it from the extension of the key.
    pub content_type: Option<String>,
    /// `Cache-Control`; `None` sends no such header.
    pub cache_control: Option<String>,
    /// Condition of the write.
    pub condition: PutMode,
    /// MD5 of the whole object; `None` if it is unknown.
    pub md5: Option<Md5Digest>,
    /// Size in bytes of an object that is written in parts; 0 if it is unknown. The parts grow so that
    /// there are at most 10,000, the limit of S3.
    pub size: u64,
    /// Size in bytes of a part; `None` for the part size of the store.
    pub part_size: Option<u64>,
}

impl PutOptions {
    /// The headers of the object.
    pub(super) fn attributes(&self, path: &ObjectPath) -> Attributes {
        let kind = self.content_type.clone();
        let kind = kind.unwrap_or_else(|| content_type(path.filename().unwrap_or_default()).into());
        let mut attributes = Attributes::from_iter([(Attribute::ContentType, kind)]);
        if let Some(control) = &self.cache_control {
            attributes.insert(Attribute::CacheControl, control.clone().into());
        }
        attributes
    }
}

/// The media type of a file name.
fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.') {
        Some((_, "nc")) => "application/x-netcdf",
        Some((_, "png")) => "image/png",
        Some((_, "json" | "zarray" | "zattrs" | "zgroup" | "zmetadata")) => "application/json",
        _ => "application/octet-stream",
    }
}
