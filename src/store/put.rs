//! Small objects that the client of the library sends whole.

use bytes::Bytes;
use object_store::{ObjectStore, PutMode, PutOptions, PutPayload, UpdateVersion};

use super::backend::{Backend, attempt};
use super::connect::with_body_md5;
use super::error::StoreError;
use super::object_info::ObjectInfo;
use super::send::{Condition, Sending};

/// Writes an object whole, on its condition.
pub(super) async fn put_whole<B: Backend>(
    backend: &B,
    key: &str,
    data: Vec<Bytes>,
    sending: &Sending,
) -> Result<ObjectInfo, StoreError> {
    let objects = backend.objects().await?;
    let path = backend.path(key)?;
    let payload = PutPayload::from_iter(data);
    let size = payload.content_length() as u64;
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
    let put = || objects.put_opts(&path, payload.clone(), options.clone());
    let result = with_body_md5(sending.md5, attempt(backend, key, "write", put)).await?;
    Ok(ObjectInfo::written(key, size, result.e_tag.as_deref()))
}
