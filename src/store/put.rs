//! Writes of whole small objects by `object_store`.

use bytes::Bytes;
use object_store::{ObjectStore, PutPayload, UpdateVersion};

use super::backend::{Backend, attempt};
use super::error::StoreError;
use super::http_client::with_body_md5;
use super::object_meta::ObjectMeta;
use super::put_options::{PutMode, PutOptions};

/// Writes an object with one request, under the condition of its options.
///
/// # Errors
/// [`StoreError::PreconditionFailed`] if the condition does not hold, or another error of the request.
pub(super) async fn put_whole<B: Backend>(
    backend: &B,
    key: &str,
    data: Vec<Bytes>,
    put_options: &PutOptions,
) -> Result<ObjectMeta, StoreError> {
    let objects = backend.objects().await?;
    let path = backend.path(key)?;
    let payload = PutPayload::from_iter(data);
    let size = payload.content_length() as u64;
    let mode = match &put_options.condition {
        PutMode::Always => object_store::PutMode::Overwrite,
        PutMode::Absent => object_store::PutMode::Create,
        PutMode::Is(etag) => {
            let e_tag = Some(format!("\"{etag}\""));
            object_store::PutMode::Update(UpdateVersion { e_tag, version: None })
        }
    };
    let attributes = put_options.attributes(&path);
    let options = object_store::PutOptions { mode, attributes, ..Default::default() };
    let put = || objects.put_opts(&path, payload.clone(), options.clone());
    let result = with_body_md5(put_options.md5, attempt(backend, key, "write", put)).await?;
    Ok(ObjectMeta::written(key, size, result.e_tag.as_deref()))
}
