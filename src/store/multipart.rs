//! Writes: small objects with one request, large objects in parts that may come in any order. An object
//! becomes visible when it is complete.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::try_join;
use object_store::multipart::PartId;
use object_store::{MultipartId, PutMultipartOptions, PutPayload};
use tracing::warn;

use super::atomic_file::AtomicFile;
use super::backend::attempt;
use super::blocking::blocking;
use super::error::StoreError;
use super::file_body::FileBody;
use super::http_client::{RequestBody, with_body, with_body_md5};
use super::object::Object;
use super::object_meta::ObjectMeta;
use super::part::{PartBody, UploadPart};
use super::put_options::PutOptions;
use super::registry::Store;
use super::sink::{MultipartSink, Sink, finish};
use crate::model::Md5Digest;
use crate::model::checksums::part_size;

impl Store {
    /// Writes a small object and replaces an existing one. Readers see either the old or the new object.
    /// On disk, the object is synced when the call returns.
    ///
    /// # Errors
    /// The object cannot be written.
    pub async fn put(&self, key: &str, data: Bytes) -> Result<ObjectMeta, StoreError> {
        self.send(key, data, &PutOptions::default()).await
    }

    /// Like [`Store::put`], with options.
    ///
    /// # Errors
    /// [`StoreError::PreconditionFailed`] if the condition does not hold. This also happens when an
    /// earlier attempt has written the object and its response was lost. On disk, two writers that
    /// check [`PutMode::Is`] at the same time can both succeed.
    ///
    /// [`PutMode::Is`]: super::PutMode::Is
    pub async fn send(
        &self,
        key: &str,
        data: Bytes,
        options: &PutOptions,
    ) -> Result<ObjectMeta, StoreError> {
        self.backend().put(key, vec![data], options).await
    }

    /// Starts the upload of a large object. Makes no request yet; on disk, creates the temporary file.
    ///
    /// # Errors
    /// The key is invalid, the store is read-only, or the file cannot be created.
    pub async fn create(&self, key: &str) -> Result<Upload, StoreError> {
        self.create_as(key, PutOptions::default()).await
    }

    /// Like [`Store::create`], with options. For an object of several parts, only
    /// [`PutMode::Absent`] is checked, and only on disk.
    ///
    /// # Errors
    /// As [`Store::create`].
    ///
    /// [`PutMode::Absent`]: super::PutMode::Absent
    pub async fn create_as(&self, key: &str, options: PutOptions) -> Result<Upload, StoreError> {
        let sink = self.backend().create(key).await?;
        let preferred = options.part_size.unwrap_or(self.part_size() as u64);
        let part_size = usize::try_from(part_size(preferred, options.size)).unwrap_or(usize::MAX);
        let is_multipart = options.size > part_size as u64;
        let state = Mutex::new(UploadState { is_multipart, ..UploadState::default() });
        let (store, key) = (self.clone(), key.to_owned());
        Ok(Upload { store, key, part_size, options, sink, state })
    }

    /// Removes an object. Succeeds if it does not exist.
    ///
    /// # Errors
    /// The store is read-only, or the request fails.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.backend().delete(key).await
    }

    /// Aborts all unfinished multipart uploads of an object that the server lists, and returns their
    /// number. Some servers do not list them.
    ///
    /// # Errors
    /// A request fails.
    pub async fn abort_uploads(&self, key: &str) -> Result<usize, StoreError> {
        let mut aborted = 0;
        for id in self.backend().uploads(key).await? {
            aborted += usize::from(self.backend().abort_upload(key, &id).await?);
        }
        Ok(aborted)
    }
}

/// The upload of a large object. Dropping it before [`Upload::complete`] aborts the upload, if the server
/// can be reached.
pub struct Upload {
    store: Store,
    key: String,
    part_size: usize,
    options: PutOptions,
    sink: Sink,
    state: Mutex<UploadState>,
}

#[derive(Default)]
struct UploadState {
    /// Size in bytes and id of each part that has been written, by index. On disk, parts have no id.
    written: BTreeMap<usize, (u64, Option<PartId>)>,
    /// Part 0, until there is a second part. An object of one part is written with one request.
    first: Option<UploadPart>,
    /// Whether the object is known to have a second part.
    is_multipart: bool,
}

impl Upload {
    /// Size in bytes of every part but the last, which may be smaller.
    pub fn part_size(&self) -> usize {
        self.part_size
    }

    /// The whole URL or path of the object, for messages.
    fn url(&self) -> String {
        self.store.url(&self.key)
    }

    fn state(&self) -> MutexGuard<'_, UploadState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn incomplete(&self, detail: String) -> StoreError {
        StoreError::Incomplete { url: self.url(), detail }
    }

    fn ended(&self) -> StoreError {
        self.incomplete("it has already ended".into())
    }

    /// Writes part `index`, which begins at byte `index * part_size`; the buffers of `data` are joined.
    /// Parts may come in any order and from several tasks, and a failed part may be repeated. Part 0 is
    /// held in memory until there is another, unless [`PutOptions::size`] shows that there will be.
    ///
    /// # Errors
    /// The part is larger than [`Upload::part_size`], or cannot be written.
    pub async fn part(&self, index: usize, data: Vec<Bytes>) -> Result<(), StoreError> {
        self.write_part(index, UploadPart { body: PartBody::Bytes(data), md5: None }).await
    }

    /// Like [`Upload::part`], with the MD5 of the part. For [`PartBody::Bytes`] it saves computing the MD5;
    /// a [`PartBody::Range`] is compared with it while it is read.
    ///
    /// # Errors
    /// [`StoreError::Differs`] if the MD5 of the range differs; the part is then not written. Otherwise
    /// as [`Upload::part`].
    pub async fn part_with_md5(
        &self,
        index: usize,
        body: PartBody,
        md5: Md5Digest,
    ) -> Result<(), StoreError> {
        self.write_part(index, UploadPart { body, md5: Some(md5) }).await
    }

    /// Whether a part of `source` is read while it is sent, and not held in memory. For a retry it is read
    /// again, which is cheap for a file on disk.
    fn is_streamed(&self, source: &Object) -> bool {
        source.is_on_disk() && self.store.backend().is_remote()
    }

    /// Whether a part of `source` is held in memory while it is written.
    pub fn holds(&self, source: &Object) -> bool {
        matches!(self.sink, Sink::Parts(_)) && !self.is_streamed(source)
    }

    /// Writes a part to the sink.
    async fn write_part(&self, index: usize, part: UploadPart) -> Result<(), StoreError> {
        let size = part.body.size();
        if size > self.part_size() as u64 {
            let detail = format!("part {index} has {size} bytes, more than {}", self.part_size());
            return Err(self.incomplete(detail));
        }
        match &self.sink {
            Sink::Disk(file) => {
                let file = file.clone().ok_or_else(|| self.ended())?;
                let offset = (index as u64).saturating_mul(self.part_size() as u64);
                match part {
                    UploadPart { body: PartBody::Range(object, range), md5: Some(md5) } => {
                        self.copy(&file, offset, FileBody::new(object, range, md5)).await?;
                    }
                    part => {
                        let data = part.bytes().await?;
                        let write = move || file.write_at(offset, &data);
                        blocking(&self.url(), "write", write).await?;
                    }
                }
                self.state().written.insert(index, (size, None));
                Ok(())
            }
            Sink::Parts(sink) => {
                let sink = sink.clone().ok_or_else(|| self.ended())?;
                let first = {
                    let mut state = self.state();
                    if index == 0 && !state.is_multipart {
                        state.first = Some(part);
                        return Ok(());
                    }
                    state.is_multipart = true;
                    state.first.take()
                };
                let current = self.send(&sink, index, part);
                match first {
                    None => current.await,
                    Some(first) => try_join(self.send(&sink, 0, first), current).await.map(|_| ()),
                }
            }
        }
    }

    /// Copies a part to the temporary file, chunk by chunk.
    async fn copy(
        &self,
        file: &Arc<AtomicFile>,
        mut offset: u64,
        part: FileBody,
    ) -> Result<(), StoreError> {
        let mut chunks = part.stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(source) => {
                    let failure = part.failure();
                    return Err(failure.unwrap_or(StoreError::io(&self.url(), "write", source)));
                }
            };
            let (file, size) = (Arc::clone(file), chunk.len() as u64);
            let write = move || file.write_at(offset, &[chunk]);
            blocking(&self.url(), "write", write).await?;
            offset += size;
        }
        Ok(())
    }

    /// Continues an unfinished upload of the same object, if the server lists one that has parts with the
    /// MD5s `parts`. Of several it takes the one with the most parts, and aborts the others. Returns the
    /// indices, from 0, of the parts that the upload already has.
    ///
    /// # Errors
    /// A request fails.
    pub async fn resume(&self, parts: &[Md5Digest]) -> Result<BTreeSet<usize>, StoreError> {
        let Sink::Parts(Some(sink)) = &self.sink else { return Ok(BTreeSet::new()) };
        let size = |index: usize| {
            let start = (self.part_size() as u64).saturating_mul(index as u64);
            self.options.size.saturating_sub(start).min(self.part_size() as u64)
        };
        let mut candidates = Vec::new();
        for id in self.store.backend().uploads(&self.key).await? {
            let mut written = self.store.backend().list_parts(&self.key, &id).await?;
            written.retain(|part| {
                let md5 = parts.get(part.index).copied();
                md5.is_some() && part.md5() == md5 && part.size == size(part.index)
            });
            candidates.push((id, written));
        }
        candidates.sort_by_key(|(_, written)| written.len());
        let best = candidates.pop_if(|(_, written)| !written.is_empty());
        for (id, _) in candidates {
            self.store.backend().abort_upload(&self.key, &id).await?;
        }
        let Some((id, written)) = best else { return Ok(BTreeSet::new()) };
        // `resume` comes before the first part, so no id is set yet.
        let _ = sink.id.set(id);
        let mut state = self.state();
        state.is_multipart = true;
        let written = written.into_iter().map(|part| {
            let id = PartId { content_id: part.etag };
            (part.index, (part.size, Some(id)))
        });
        state.written.extend(written);
        Ok(state.written.keys().copied().collect())
    }

    /// Ends the upload without aborting it. [`Upload::resume`] can continue it later.
    pub fn leave(mut self) {
        self.sink = match &self.sink {
            Sink::Disk(_) => Sink::Disk(None),
            Sink::Parts(_) => Sink::Parts(None),
        };
    }

    /// The id of the multipart upload, which is created on the server on first use.
    async fn upload_id<'a>(&self, sink: &'a MultipartSink) -> Result<&'a MultipartId, StoreError> {
        let MultipartSink { parts, path, id } = sink;
        let create = || {
            let options = PutMultipartOptions::from(self.options.attributes(path));
            parts.create_multipart_opts(path, options)
        };
        id.get_or_try_init(|| attempt(self.store.backend(), &self.key, "write", create)).await
    }

    /// Sends a part to the server.
    async fn send(
        &self,
        sink: &MultipartSink,
        index: usize,
        part: UploadPart,
    ) -> Result<(), StoreError> {
        let MultipartSink { parts, path, .. } = sink;
        let id = self.upload_id(sink).await?;
        let size = part.body.size();
        let put = |payload: &PutPayload| parts.put_part(path, id, index, payload.clone());
        let part = match part {
            UploadPart { body: PartBody::Range(object, range), md5: Some(md5) }
                if self.is_streamed(&object) =>
            {
                let body = Arc::new(FileBody::new(object, range, md5));
                let empty = PutPayload::new();
                let request = attempt(self.store.backend(), &self.key, "write", || put(&empty));
                let request = with_body_md5(Some(md5), request);
                let result = with_body(Arc::clone(&body) as _, request).await;
                result.map_err(|error| body.failure().unwrap_or(error))?
            }
            part => {
                let md5 = part.md5;
                let payload = PutPayload::from_iter(part.bytes().await?);
                let request = attempt(self.store.backend(), &self.key, "write", || put(&payload));
                with_body_md5(md5, request).await?
            }
        };
        self.state().written.insert(index, (size, Some(part)));
        Ok(())
    }

    /// Completes the upload: the object becomes visible and replaces an existing one.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`] if a part is missing or has a wrong size, or another error of the
    /// request. The upload is then aborted.
    pub async fn complete(mut self) -> Result<ObjectMeta, StoreError> {
        let result = self.finish().await;
        if result.is_err() {
            self.discard().await;
        }
        result
    }

    /// Aborts the upload and removes its parts.
    ///
    /// # Errors
    /// The request fails.
    pub async fn abort(mut self) -> Result<(), StoreError> {
        match &mut self.sink {
            Sink::Disk(file) => drop(file.take()),
            Sink::Parts(sink) => {
                if let Some(sink) = sink.take()
                    && let Some(id) = sink.id.get()
                {
                    let abort = || sink.parts.abort_multipart(&sink.path, id);
                    attempt(self.store.backend(), &self.key, "abort the upload of", abort).await?;
                }
            }
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<ObjectMeta, StoreError> {
        let UploadState { written, first, is_multipart } = std::mem::take(&mut *self.state());
        if !is_multipart && let Some(part) = first {
            self.sink = Sink::Parts(None);
            let options = PutOptions { md5: part.md5.or(self.options.md5), ..self.options.clone() };
            return self.store.backend().put(&self.key, part.bytes().await?, &options).await;
        }
        let total = self.total_size(&written)?;
        match &mut self.sink {
            Sink::Disk(file) => {
                let file = file.take().and_then(Arc::into_inner);
                let file =
                    file.ok_or_else(|| self.incomplete("a part is still being written".into()))?;
                finish(self.url(), file, total, &self.options.condition).await?;
                self.store.backend().head(&self.key).await
            }
            Sink::Parts(_) if written.is_empty() => {
                self.store.backend().put(&self.key, Vec::new(), &self.options).await
            }
            Sink::Parts(sink) => {
                let ids: Vec<_> = written.into_values().filter_map(|(_, id)| id).collect();
                let Some(sink) = sink.clone() else {
                    return Err(self.ended());
                };
                let id = sink.id.get().cloned().unwrap_or_default();
                let complete = || sink.parts.complete_multipart(&sink.path, &id, ids.clone());
                let result = match attempt(self.store.backend(), &self.key, "write", complete).await
                {
                    // The upload was aborted, or an earlier attempt has completed it and its response was
                    // lost.
                    Err(StoreError::NotFound { .. }) => {
                        return Err(self.incomplete("the server no longer has the upload".into()));
                    }
                    result => result?,
                };
                self.sink = Sink::Parts(None);
                Ok(ObjectMeta::written(&self.key, total, result.e_tag.as_deref()))
            }
        }
    }

    /// The size of the object in bytes.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`] if a part is missing or has a wrong size.
    fn total_size(
        &self,
        written: &BTreeMap<usize, (u64, Option<PartId>)>,
    ) -> Result<u64, StoreError> {
        let full = self.part_size() as u64;
        if let Some((missing, _)) =
            written.keys().enumerate().find(|(position, index)| position != *index)
        {
            return Err(self.incomplete(format!("part {missing} is missing")));
        }
        let last = written.len().saturating_sub(1);
        if let Some((index, (size, _))) =
            written.iter().find(|(index, (size, _))| **index != last && *size != full)
        {
            return Err(self.incomplete(format!("part {index} has {size} bytes instead of {full}")));
        }
        Ok(written.values().map(|(size, _)| size).sum())
    }

    /// Aborts the upload; logs a failure.
    async fn discard(&mut self) {
        let sink = std::mem::replace(&mut self.sink, Sink::Disk(None));
        if let Sink::Parts(Some(sink)) = sink {
            abort(sink, self.url()).await;
        }
    }
}

/// Aborts a multipart upload; logs a failure.
async fn abort(sink: Arc<MultipartSink>, url: String) {
    if let Some(id) = sink.id.get()
        && let Err(error) = sink.parts.abort_multipart(&sink.path, id).await
    {
        warn!(%url, upload = %id, %error, "cannot abort an upload; its parts remain until they are removed");
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Sink::Parts(sink) = &mut self.sink else {
            return;
        };
        let Some(sink) = sink.take().filter(|sink| sink.id.initialized()) else {
            return;
        };
        let url = self.store.url(&self.key);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(abort(sink, url))),
            Err(_) => warn!(%url, "an upload was dropped outside of the runtime; its parts remain"),
        }
    }
}
