//! How an object is sent: what its readers are told of it, on which condition, with which checksum.

use object_store::path::Path as ObjectPath;
use object_store::{Attribute, Attributes};

use crate::model::Md5Digest;

/// When an object may be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PutMode {
    /// Over whatever is there.
    #[default]
    Always,
    /// When there is none.
    Absent,
    /// While the one that is there has this ETag.
    Is(String),
}

/// How an object is sent. Disks keep nothing of it but the condition.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// `Content-Type`; by the name, when none is given.
    pub content_type: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// When it may be written.
    pub condition: PutMode,
    /// MD5 of the whole object, if it is known.
    pub md5: Option<Md5Digest>,
    /// Bytes of an object by parts, where they are known: more than 10,000 parts, which S3 does not take, are
    /// fewer and larger ones.
    pub size: u64,
    /// Bytes of a part of it, if not as usual at its store.
    pub part_size: Option<u64>,
}

impl PutOptions {
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

/// What the content of a file of this name is.
fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.') {
        Some((_, "nc")) => "application/x-netcdf",
        Some((_, "png")) => "image/png",
        Some((_, "json" | "zarray" | "zattrs" | "zgroup" | "zmetadata")) => "application/json",
        _ => "application/octet-stream",
    }
}
