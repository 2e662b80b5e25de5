//! Objects at a destination whose bytes nobody knows: a publisher that had lost its claim may have written
//! them over what another one sent, before it noticed. Whoever publishes next sends or reads them again.
//!
//! Marks in the form of the manifest, one of each such publisher.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::published::{PACKED, pack, unpack};
use super::unfinished::Unfinished;
use super::{Entry, FOLDER, PublishError};
use crate::store::{Store, StoreError};

/// Marks that are read or removed at the same time.
const MARKS: usize = 8;

/// What is in doubt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doubt {
    /// Objects, ordered by key, as they may have been written.
    pub objects: Vec<Entry>,
    /// Whether all is in doubt: a mark cannot be understood.
    pub is_all: bool,
    /// Keys of the marks.
    marks: Vec<String>,
}

impl Doubt {
    fn folder() -> String {
        format!("{FOLDER}/doubt")
    }

    /// What is in doubt at a destination.
    pub async fn load(destination: &Store) -> Result<Self, StoreError> {
        let marks = destination.list(&Self::folder()).await?;
        let marks: Vec<String> = marks.into_iter().map(|mark| mark.key).collect();
        let read = stream::iter(marks.clone())
            .map(async |key| destination.read_within(&key, PACKED).await);
        let read: Vec<_> = read.buffered(MARKS).try_collect().await?;
        let mut doubt = Self { marks, ..Self::default() };
        // Somebody may have settled one meanwhile.
        for (bytes, _) in read.into_iter().flatten() {
            match unpack::<()>(&bytes, destination) {
                Ok(unpacked) => {
                    let ((), objects) = unpacked.without_refused(destination, &Self::folder());
                    doubt.objects.extend(objects);
                }
                Err(_) => doubt.is_all = true,
            }
        }
        doubt.objects.sort_by(|a, b| a.key.cmp(&b.key));
        doubt.objects.dedup_by(|a, b| a.key == b.key);
        Ok(doubt)
    }

    /// Whether nothing is.
    pub fn is_none(&self) -> bool {
        self.marks.is_empty()
    }

    /// Whether an object is.
    pub fn concerns(&self, key: &str) -> bool {
        self.is_all || self.objects.binary_search_by(|entry| (*entry.key).cmp(key)).is_ok()
    }

    /// Whether this has marks that `before` had not.
    pub fn is_more_than(&self, before: &Self) -> bool {
        self.marks.iter().any(|mark| !before.marks.contains(mark))
    }

    /// Leaves a mark on objects, which are in order.
    pub async fn mark(destination: &Store, objects: &[Entry]) -> Result<(), PublishError> {
        let key = format!("{}/{}.jsonl.gz", Self::folder(), Unfinished::new_token());
        let packed = pack(&(), objects.iter()).map_err(|error| {
            let url = destination.location().join(&key).to_string();
            PublishError::Published { url, problem: error.to_string() }
        })?;
        destination.put(&key, Bytes::from(packed)).await?;
        Ok(())
    }

    /// Removes the marks: what lies there is known again.
    pub async fn settle(&self, destination: &Store) -> Result<(), PublishError> {
        let remove = async |key: String| {
            destination.delete(&key).await?;
            destination.prune(&key).await
        };
        let removed = stream::iter(self.marks.clone()).map(remove).buffered(MARKS);
        Ok(removed.try_for_each(async |()| Ok(())).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn marks_of_several_are_settled_by_who_has_read_them() {
        let store = Store::memory();
        let entry = |key: &str| Entry::of(key, b"x", 16 << 20);
        Doubt::mark(&store, &["b", "c"].map(entry)).await.unwrap();
        let first = Doubt::load(&store).await.unwrap();
        Doubt::mark(&store, &["a", "b"].map(entry)).await.unwrap();
        let both = Doubt::load(&store).await.unwrap();
        assert!(both.is_more_than(&first) && !first.is_more_than(&both));
        assert_eq!(both.objects, ["a", "b", "c"].map(entry));
        assert!(both.concerns("c") && !both.concerns("d"));
        first.settle(&store).await.unwrap();
        let left = Doubt::load(&store).await.unwrap();
        assert_eq!(left.objects, ["a", "b"].map(entry));
        left.settle(&store).await.unwrap();
        assert!(Doubt::load(&store).await.unwrap().is_none());
        store.put(".dor/doubt/x", Bytes::from_static(b"?")).await.unwrap();
        assert!(Doubt::load(&store).await.unwrap().concerns("anything"));
    }
}
