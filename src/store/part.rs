//! A part of a large object.

use std::ops::Range;

use bytes::Bytes;

use super::blocking::blocking;
use super::error::StoreError;
use super::object::Object;
use crate::model::Md5Digest;

/// The bytes of a part.
#[derive(Clone, Debug)]
pub enum PartBody {
    /// Buffers, one after another.
    Bytes(Vec<Bytes>),
    /// A range of an object. A range of a file on disk is read while it is sent.
    Range(Object, Range<u64>),
}

impl PartBody {
    /// Size in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Bytes(data) => data.iter().map(|bytes| bytes.len() as u64).sum(),
            Self::Range(_, range) => range.end.saturating_sub(range.start),
        }
    }
}

/// A part of an upload. `md5` is `None` if it is unknown.
pub(super) struct UploadPart {
    pub body: PartBody,
    pub md5: Option<Md5Digest>,
}

impl UploadPart {
    /// Reads the bytes of the part.
    ///
    /// # Errors
    /// The range cannot be read, or does not have the expected MD5 ([`StoreError::Differs`]).
    pub async fn bytes(self) -> Result<Vec<Bytes>, StoreError> {
        let (object, range) = match self.body {
            PartBody::Bytes(data) => return Ok(data),
            PartBody::Range(object, range) => (object, range),
        };
        let (url, start) = (object.url(), range.start);
        let data = object.range(range).await?;
        let Some(expected) = self.md5 else { return Ok(vec![data]) };
        let hash = {
            let data = data.clone();
            move || Ok(Md5Digest::of(&data))
        };
        let found = blocking(&url, "read", hash).await?;
        match found == expected {
            true => Ok(vec![data]),
            false => Err(StoreError::Differs { url, start, found, expected }),
        }
    }
}
