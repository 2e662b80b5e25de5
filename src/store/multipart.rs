//! Writing: whole small objects, and large ones by parts in any order. Nothing is visible under
//! its name before it is whole.

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
    /// Writes a small object whole, over what was there. Readers see the old or the new; on disk
    /// it is on the platter when this returns.
    pub async fn put(&self, key: &str, data: Bytes) -> Result<ObjectMeta, StoreError> {
        self.send(key, data, &PutOptions::default()).await
    }

    /// The same, told how it is sent. [`StoreError::PreconditionFailed`] when the condition does not hold, as it no longer
    /// does after a try of which only the answer was lost; on disk, writers that check at the same moment can both
    /// find that [`Condition::Is`] holds.
    ///
    /// [`Condition::Is`]: super::PutMode::Is
    pub async fn send(
        &self,
        key: &str,
        data: Bytes,
        sending: &PutOptions,
    ) -> Result<ObjectMeta, StoreError> {
        self.backend().put(key, vec![data], sending).await
    }

    /// Begins a large object. Makes no request yet; on disk, makes the file beside its target.
    pub async fn create(&self, key: &str) -> Result<Upload, StoreError> {
        self.create_as(key, PutOptions::default()).await
    }

    /// The same, told how it is sent. Of the conditions of an object in several parts only
    /// [`Condition::Absent`] is looked at, on disk.
    ///
    /// [`Condition::Absent`]: super::PutMode::Absent
    pub async fn create_as(&self, key: &str, sending: PutOptions) -> Result<Upload, StoreError> {
        let sink = self.backend().create(key).await?;
        let usual = sending.part_size.unwrap_or(self.part_size() as u64);
        let part_size = usize::try_from(part_size(usual, sending.size)).unwrap_or(usize::MAX);
        let several = sending.size > part_size as u64;
        let state = Mutex::new(UploadState { several, ..UploadState::default() });
        let (store, key) = (self.clone(), key.to_owned());
        Ok(Upload { store, key, part_size, sending, sink, state })
    }

    /// Removes an object; one that is not there is fine.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.backend().delete(key).await
    }

    /// Ends all unfinished uploads of an object that the server tells of; how many there were. Not every
    /// server can tell.
    pub async fn abort_uploads(&self, key: &str) -> Result<usize, StoreError> {
        let mut ended = 0;
        for id in self.backend().uploads(key).await? {
            ended += usize::from(self.backend().abort_upload(key, &id).await?);
        }
        Ok(ended)
    }
}

/// A large object being written. Dropped before [`Upload::complete`], it leaves nothing, as far
/// as the server can still be told.
pub struct Upload {
    store: Store,
    key: String,
    part_size: usize,
    sending: PutOptions,
    sink: Sink,
    state: Mutex<UploadState>,
}

#[derive(Default)]
struct UploadState {
    /// Length of each part that has arrived, and what the server calls it.
    arrived: BTreeMap<usize, (u64, Option<PartId>)>,
    /// Part 0, until it is known not to be the only one.
    first: Option<UploadPart>,
    /// Whether there is a second part, as far as is known.
    several: bool,
}

impl Upload {
    /// Bytes in every part but the last, which may have fewer.
    pub fn part_size(&self) -> usize {
        self.part_size
    }

    fn url(&self) -> String {
        self.store.url(&self.key)
    }

    fn state(&self) -> MutexGuard<'_, UploadState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn incomplete(&self, detail: String) -> StoreError {
        StoreError::Incomplete { url: self.url(), detail }
    }

    /// Writes the bytes from `index * part_size` on; `data` together are one part. Parts may come
    /// in any order and from several tasks; one that failed may be given again. Part 0 is kept
    /// in memory until there is another, unless it is known that there will be.
    pub async fn part(&self, index: usize, data: Vec<Bytes>) -> Result<(), StoreError> {
        self.take(index, UploadPart { body: PartBody::Bytes(data), md5: None }).await
    }

    /// The same with the MD5 of the part, which is not computed again for bytes. A range of an object is
    /// compared with it as it is read: [`StoreError::Differs`] before its end has gone out.
    pub async fn part_with_md5(
        &self,
        index: usize,
        body: PartBody,
        md5: Md5Digest,
    ) -> Result<(), StoreError> {
        self.take(index, UploadPart { body, md5: Some(md5) }).await
    }

    /// Whether a part of `source` is better given as a range of it than held in memory: it can be
    /// read again for little when it must be sent again.
    fn streams(&self, source: &Object) -> bool {
        source.is_on_disk() && self.store.backend().is_remote()
    }

    /// Whether a part of `source` is held in memory while it is written.
    pub fn holds(&self, source: &Object) -> bool {
        matches!(self.sink, Sink::Parts(_)) && !self.streams(source)
    }

    async fn take(&self, index: usize, part: UploadPart) -> Result<(), StoreError> {
        let size = part.body.size();
        if size > self.part_size() as u64 {
            let detail = format!("part {index} has {size} bytes, more than {}", self.part_size());
            return Err(self.incomplete(detail));
        }
        match &self.sink {
            Sink::Disk(staged) => {
                let staged = staged.clone().ok_or_else(|| self.incomplete("it is over".into()))?;
                let offset = (index as u64).saturating_mul(self.part_size() as u64);
                match part {
                    UploadPart { body: PartBody::Range(object, range), md5: Some(md5) } => {
                        self.copy(&staged, offset, FileBody::new(object, range, md5)).await?;
                    }
                    part => {
                        let data = part.bytes().await?;
                        let write = move || staged.write_at(offset, &data);
                        blocking(&self.url(), "write", write).await?;
                    }
                }
                self.state().arrived.insert(index, (size, None));
                Ok(())
            }
            Sink::Parts(sink) => {
                let sink = sink.clone().ok_or_else(|| self.incomplete("it is over".into()))?;
                let first = {
                    let mut state = self.state();
                    if index == 0 && !state.several {
                        state.first = Some(part);
                        return Ok(());
                    }
                    state.several = true;
                    state.first.take()
                };
                let this = self.send(&sink, index, part);
                match first {
                    None => this.await,
                    Some(first) => try_join(self.send(&sink, 0, first), this).await.map(|_| ()),
                }
            }
        }
    }

    /// Writes a part of an object to a file, piece by piece: nobody sees the file before it is whole.
    async fn copy(
        &self,
        staged: &Arc<AtomicFile>,
        mut offset: u64,
        part: FileBody,
    ) -> Result<(), StoreError> {
        let mut pieces = part.stream();
        while let Some(piece) = pieces.next().await {
            let piece = match piece {
                Ok(piece) => piece,
                Err(source) => {
                    let failure = part.failure();
                    return Err(failure.unwrap_or(StoreError::io(&self.url(), "write", source)));
                }
            };
            let (staged, size) = (Arc::clone(staged), piece.len() as u64);
            let write = move || staged.write_at(offset, &[piece]);
            blocking(&self.url(), "write", write).await?;
            offset += size;
        }
        Ok(())
    }

    /// Goes on with an upload of the same object that was begun before and not ended, if the server tells
    /// of one that has parts with these MD5s: of several with the one that has most, and ends the others.
    /// Which parts are there, counted from 0.
    pub async fn resume(&self, parts: &[Md5Digest]) -> Result<BTreeSet<usize>, StoreError> {
        let Sink::Parts(Some(sink)) = &self.sink else { return Ok(BTreeSet::new()) };
        let size = |index: usize| {
            let start = (self.part_size() as u64).saturating_mul(index as u64);
            self.sending.size.saturating_sub(start).min(self.part_size() as u64)
        };
        let mut found = Vec::new();
        for id in self.store.backend().uploads(&self.key).await? {
            let mut arrived = self.store.backend().parts_of(&self.key, &id).await?;
            arrived.retain(|part| {
                let md5 = parts.get(part.index).copied();
                md5.is_some() && part.md5() == md5 && part.size == size(part.index)
            });
            found.push((id, arrived));
        }
        found.sort_by_key(|(_, arrived)| arrived.len());
        let best = found.pop_if(|(_, arrived)| !arrived.is_empty());
        for (id, _) in found {
            self.store.backend().abort_upload(&self.key, &id).await?;
        }
        let Some((id, arrived)) = best else { return Ok(BTreeSet::new()) };
        // Nothing was begun before.
        let _ = sink.id.set(id);
        let mut state = self.state();
        state.several = true;
        let arrived = arrived.into_iter().map(|part| {
            let id = PartId { content_id: part.etag };
            (part.index, (part.size, Some(id)))
        });
        state.arrived.extend(arrived);
        Ok(state.arrived.keys().copied().collect())
    }

    /// Leaves what has arrived to a later [`Upload::resume`].
    pub fn leave(mut self) {
        self.sink = match &self.sink {
            Sink::Disk(_) => Sink::Disk(None),
            Sink::Parts(_) => Sink::Parts(None),
        };
    }

    async fn begun<'a>(&self, sink: &'a MultipartSink) -> Result<&'a MultipartId, StoreError> {
        let MultipartSink { parts, path, id } = sink;
        let create = || {
            let options = PutMultipartOptions::from(self.sending.attributes(path));
            parts.create_multipart_opts(path, options)
        };
        id.get_or_try_init(|| attempt(self.store.backend(), &self.key, "write", create)).await
    }

    async fn send(
        &self,
        sink: &MultipartSink,
        index: usize,
        part: UploadPart,
    ) -> Result<(), StoreError> {
        let MultipartSink { parts, path, .. } = sink;
        let id = self.begun(sink).await?;
        let size = part.body.size();
        let put = |payload: &PutPayload| parts.put_part(path, id, index, payload.clone());
        let part = match part {
            UploadPart { body: PartBody::Range(object, range), md5: Some(md5) }
                if self.streams(&object) =>
            {
                let body = Arc::new(FileBody::new(object, range, md5));
                let empty = PutPayload::new();
                let sent = attempt(self.store.backend(), &self.key, "write", || put(&empty));
                let sent = with_body(Arc::clone(&body) as _, with_body_md5(Some(md5), sent)).await;
                sent.map_err(|error| body.failure().unwrap_or(error))?
            }
            part => {
                let md5 = part.md5;
                let payload = PutPayload::from_iter(part.bytes().await?);
                let sent = attempt(self.store.backend(), &self.key, "write", || put(&payload));
                with_body_md5(md5, sent).await?
            }
        };
        self.state().arrived.insert(index, (size, Some(part)));
        Ok(())
    }

    /// Makes the object visible, over what was there. Fails, and leaves nothing, unless every
    /// part has come and all but the last are full.
    pub async fn complete(mut self) -> Result<ObjectMeta, StoreError> {
        let result = self.finish().await;
        if result.is_err() {
            self.discard().await;
        }
        result
    }

    /// Leaves nothing.
    pub async fn abort(mut self) -> Result<(), StoreError> {
        match &mut self.sink {
            Sink::Disk(staged) => drop(staged.take()),
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
        let UploadState { arrived, first, several } = std::mem::take(&mut *self.state());
        if !several && let Some(part) = first {
            self.sink = Sink::Parts(None);
            let sending = PutOptions { md5: part.md5.or(self.sending.md5), ..self.sending.clone() };
            return self.store.backend().put(&self.key, part.bytes().await?, &sending).await;
        }
        let total = self.whole(&arrived)?;
        match &mut self.sink {
            Sink::Disk(staged) => {
                let whole = staged.take().and_then(Arc::into_inner);
                let staged =
                    whole.ok_or_else(|| self.incomplete("a part is still being written".into()))?;
                finish(self.url(), staged, total, &self.sending.condition).await?;
                self.store.backend().head(&self.key).await
            }
            Sink::Parts(_) if arrived.is_empty() => {
                self.store.backend().put(&self.key, Vec::new(), &self.sending).await
            }
            Sink::Parts(sink) => {
                let ids: Vec<_> = arrived.into_values().filter_map(|(_, id)| id).collect();
                let Some(sink) = sink.clone() else {
                    return Err(self.incomplete("it is over".into()));
                };
                let id = sink.id.get().cloned().unwrap_or_default();
                let end = || sink.parts.complete_multipart(&sink.path, &id, ids.clone());
                let result = match attempt(self.store.backend(), &self.key, "write", end).await {
                    // Its parts are gone, or it was completed by a try whose answer was lost.
                    Err(StoreError::NotFound { .. }) => {
                        return Err(self.incomplete("the server no longer knows of it".into()));
                    }
                    result => result?,
                };
                self.sink = Sink::Parts(None);
                Ok(ObjectMeta::written(&self.key, total, result.e_tag.as_deref()))
            }
        }
    }

    /// The size of the object, when all its parts have come.
    fn whole(&self, arrived: &BTreeMap<usize, (u64, Option<PartId>)>) -> Result<u64, StoreError> {
        let full = self.part_size() as u64;
        if let Some((missing, _)) =
            arrived.keys().enumerate().find(|(place, index)| place != *index)
        {
            return Err(self.incomplete(format!("part {missing} never came")));
        }
        let last = arrived.len().saturating_sub(1);
        if let Some((index, (size, _))) =
            arrived.iter().find(|(index, (size, _))| **index != last && *size != full)
        {
            return Err(self.incomplete(format!("part {index} has {size} bytes, not {full}")));
        }
        Ok(arrived.values().map(|(size, _)| size).sum())
    }

    async fn discard(&mut self) {
        let sink = std::mem::replace(&mut self.sink, Sink::Disk(None));
        if let Sink::Parts(Some(sink)) = sink {
            abort(sink, self.url()).await;
        }
    }
}

async fn abort(sink: Arc<MultipartSink>, url: String) {
    if let Some(id) = sink.id.get()
        && let Err(error) = sink.parts.abort_multipart(&sink.path, id).await
    {
        warn!(%url, upload = %id, %error, "cannot abort an upload: its parts stay until removed");
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
            Err(_) => warn!(%url, "an upload was dropped outside the runtime: its parts stay"),
        }
    }
}
