//! How an object is sent: what its readers are told of it, on which condition, with which checksum.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path as ObjectPath;
use object_store::{
    Attribute, Attributes, ObjectStore, PutMode, PutOptions, PutPayload, UpdateVersion,
};

use super::connect::with_body_md5;
use super::error::StoreError;
use super::object_info::ObjectInfo;
use super::open::{Backend, Store};
use crate::model::Digest;

/// How often a write on a condition is tried again when its connection was lost, and how long after.
const AGAIN: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// When an object may be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
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
pub struct Sending {
    /// `Content-Type`; by the name, when none is given.
    pub content_type: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// When it may be written.
    pub condition: Condition,
    /// MD5 of the whole object, if it is known.
    pub md5: Option<Digest>,
    /// Bytes of an object by parts, where they are known: more than 10,000 parts, which S3 does not take, are
    /// fewer and larger ones.
    pub size: u64,
    /// Bytes of a part of it, if not as usual at its store.
    pub part_size: Option<u64>,
}

impl Sending {
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

impl Store {
    /// Writes a small object whole. [`StoreError::Overtaken`] when the condition does not hold, as it no longer does
    /// after a try of which only the answer was lost; on disk, writers that check at the same moment can both find that [`Condition::Is`] holds.
    pub async fn send(
        &self,
        key: &str,
        data: Bytes,
        sending: &Sending,
    ) -> Result<ObjectInfo, StoreError> {
        match self.backend() {
            Backend::Http(..) => Err(self.read_only()),
            Backend::Local(_) => {
                if let Condition::Is(etag) = &sending.condition {
                    let found = self.find(key).await?;
                    if found.and_then(|found| found.etag).as_ref() != Some(etag) {
                        return Err(self.overtaken(key));
                    }
                }
                self.put_parts(key, data, sending.clone()).await
            }
            Backend::Memory(_) | Backend::S3(_) => self.put_whole(key, vec![data], sending).await,
        }
    }

    pub(super) async fn put_whole(
        &self,
        key: &str,
        data: Vec<Bytes>,
        sending: &Sending,
    ) -> Result<ObjectInfo, StoreError> {
        let objects = self.objects().await?;
        let path = self.path(key)?;
        let payload = PutPayload::from_iter(data);
        let size = payload.content_length() as u64;
        let put = || {
            let mode = match &sending.condition {
                Condition::Always => PutMode::Overwrite,
                Condition::Absent => PutMode::Create,
                Condition::Is(etag) => {
                    let e_tag = Some(format!("\"{etag}\""));
                    PutMode::Update(UpdateVersion { e_tag, version: None })
                }
            };
            let attributes = sending.attributes(&path);
            let options = PutOptions { mode, attributes, ..PutOptions::default() };
            objects.put_opts(&path, payload.clone(), options)
        };
        // The client does not send again what the server may have done, however many tries it has left: here
        // the condition guards it.
        let (mut left, most) = match (&sending.condition, self.backend()) {
            (Condition::Absent | Condition::Is(_), Backend::S3(bucket)) => {
                (AGAIN, bucket.session.options.max_retries())
            }
            _ => (0, 0),
        };
        let result = loop {
            match with_body_md5(sending.md5, self.attempt(key, "write", &put)).await {
                Err(StoreError::Exhausted { attempts, .. })
                    if left > 0 && attempts as usize <= most =>
                {
                    left -= 1;
                }
                result => break result?,
            }
            tokio::time::sleep(PAUSE).await;
        };
        Ok(ObjectInfo::written(key, size, result.e_tag.as_deref()))
    }

    /// Whether an ETag that looks like an MD5 is one, as far as is known. It is not where the service encrypts by
    /// KMS.
    pub fn tells_md5(&self) -> bool {
        match self.backend() {
            Backend::S3(bucket) => !bucket.session.seen.hides_md5.load(Ordering::Relaxed),
            _ => true,
        }
    }

    /// How many requests to this service have failed so far; those that were sent again count.
    pub fn failures(&self) -> u64 {
        match self.backend() {
            Backend::S3(bucket) => bucket.session.seen.failures.load(Ordering::Relaxed),
            _ => 0,
        }
    }

    fn overtaken(&self, key: &str) -> StoreError {
        let detail = "its version is another".to_owned();
        StoreError::Overtaken { url: self.url(key), detail }
    }
}
