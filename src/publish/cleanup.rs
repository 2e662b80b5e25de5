//! What goes from a destination: objects that are deleted, and uploads that nobody will complete.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::claim::Held;
use super::plan::stage;
use super::{Entry, Progress, PublishError};
use crate::pipeline::Stopped;
use crate::store::{Store, StoreError};

/// Requests under way at the same time, one for each object: not every server takes several in one.
pub(super) const REQUESTS: usize = 16;

/// Deletes objects at the destination, what names others before those: the order of sending, backwards.
/// How many.
pub(super) async fn delete(
    destination: &Store,
    entries: &[Entry],
    held: &Arc<Held>,
    progress: &dyn Progress,
    stop: &CancellationToken,
) -> Result<usize, PublishError> {
    let delete = async |entry: &Entry| {
        if stop.is_cancelled() {
            return Err(PublishError::from(Stopped));
        }
        let _change = held.change(entry).await?;
        match destination.delete(&entry.key).await {
            // On a disk, a folder that it was in has become a file, or it a folder.
            Err(StoreError::BadLocation(_) | StoreError::NotAFile { .. }) => {}
            deleted => {
                deleted?;
                destination.prune(&entry.key).await?;
            }
        }
        progress.deleted(&entry.key);
        Ok(())
    };
    let mut entries = entries.to_vec();
    entries.sort_by_key(|entry| Reverse(stage(&entry.key)));
    for same in entries.chunk_by(|a, b| stage(&a.key) == stage(&b.key)) {
        let deleted = stream::iter(same).map(&delete).buffered(REQUESTS);
        deleted.try_for_each(async |()| Ok(())).await?;
    }
    Ok(entries.len())
}

/// Ends all uploads of those objects that go by parts, whoever has begun them.
pub(super) async fn end_uploads(
    destination: &Store,
    entries: impl Iterator<Item = &Entry>,
) -> Result<(), PublishError> {
    let is_of_parts = |entry: &&Entry| entry.etag.is_of_parts();
    let large: BTreeSet<&str> = entries.filter(is_of_parts).map(|entry| &*entry.key).collect();
    let end = async |key: &str| Ok(destination.abort_uploads(key, &[]).await?);
    stream::iter(large).map(end).buffered(REQUESTS).try_for_each(async |_| Ok(())).await
}
