//! What a destination tells of a publish that was begun and has not ended: whether the journal on this
//! machine speaks of what lies there, since when it may differ from the manifest, and which objects of
//! no manifest may lie there.
//!
//! In the form of the manifest, with another header.

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::published::{PACKED, pack, unpack};
use super::{Entry, FOLDER, PublishError};
use crate::store::{ObjectInfo, Store, StoreError};

/// Listings tell parts of a second, other answers do not.
const ROUNDED: TimeDelta = TimeDelta::seconds(2);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    /// The publish, as the journal of its machine knows it; `None` when all has arrived.
    token: Option<String>,
    /// When the manifest that it found was written, by the clock of the destination.
    since: Option<DateTime<Utc>>,
}

/// The mark of what has not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unfinished {
    header: Header,
    /// Objects that are in no manifest and may lie there: they were to be sent, or to be deleted.
    pub objects: Vec<Entry>,
}

impl Unfinished {
    /// A token that nobody else has.
    pub fn new_token() -> String {
        format!("{:032x}", rand::rng().random::<u128>())
    }

    /// The publish that has not ended.
    pub fn token(&self) -> Option<&str> {
        self.header.token.as_deref()
    }

    /// Whether an object may have been written by what has not ended.
    pub fn concerns(&self, object: &ObjectInfo) -> bool {
        let is_after = |since: DateTime<Utc>| object.modified >= since - ROUNDED;
        self.header.token.is_some() && self.header.since.is_none_or(is_after)
    }

    /// Whether an object that is in no manifest may be its own. What nobody knows may have any.
    pub fn may_have(&self, key: &str) -> bool {
        self.token() == Some("")
            || self.objects.binary_search_by(|entry| (*entry.key).cmp(key)).is_ok()
    }

    fn key() -> String {
        format!("{FOLDER}/unfinished.jsonl.gz")
    }

    /// The mark at a destination. One that cannot be understood is of something that nobody knows.
    pub async fn load(destination: &Store) -> Result<Self, StoreError> {
        let Some((bytes, _)) = destination.read_within(&Self::key(), PACKED).await? else {
            return Ok(Self::default());
        };
        Ok(match unpack(&bytes, destination) {
            Ok(unpacked) => {
                let (header, objects) = unpacked.without_refused(destination, &Self::key());
                Self { header, objects }
            }
            Err(_) => {
                let header = Header { token: Some(String::new()), since: None };
                Self { header, objects: Vec::new() }
            }
        })
    }

    /// Marks that a publish with this token goes on. It ends what this mark tells of, too; otherwise it
    /// found a manifest written at `since`.
    pub async fn begin(
        &self,
        destination: &Store,
        token: &str,
        since: Option<DateTime<Utc>>,
        objects: impl Iterator<Item = &Entry>,
    ) -> Result<(), PublishError> {
        let since = if self.token().is_some() { self.header.since } else { since };
        save(destination, &Header { token: Some(token.to_owned()), since }, objects).await
    }

    /// Marks that all has arrived, and that these may lie there.
    pub async fn end(destination: &Store, objects: &[Entry]) -> Result<(), PublishError> {
        match objects {
            [] => Ok(destination.delete(&Self::key()).await?),
            objects => save(destination, &Header::default(), objects.iter()).await,
        }
    }
}

async fn save(
    destination: &Store,
    header: &Header,
    objects: impl Iterator<Item = &Entry>,
) -> Result<(), PublishError> {
    let key = Unfinished::key();
    let url = || destination.location().join(&key).to_string();
    let packed = pack(header, objects);
    let packed =
        packed.map_err(|e| PublishError::Published { url: url(), problem: e.to_string() })?;
    destination.put(&key, Bytes::from(packed)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mark_tells_who_knows_what_lies_there_and_what_is_to_be_read() {
        let store = Store::memory();
        let none = Unfinished::load(&store).await.unwrap();
        assert_eq!(none, Unfinished::default());
        let gone = [Entry::of("gone", b"gone", 16 << 20)];
        let since = Utc::now();
        none.begin(&store, "1", Some(since), gone.iter()).await.unwrap();
        let first = Unfinished::load(&store).await.unwrap();
        assert_eq!((first.token(), &first.objects[..]), (Some("1"), &gone[..]));
        // Somebody else goes on: what the first one found is what counts.
        let later = Some(since + TimeDelta::hours(2));
        first.begin(&store, "2", later, gone.iter()).await.unwrap();
        let second = Unfinished::load(&store).await.unwrap();
        let at = |modified| ObjectInfo { key: "x".to_owned(), size: 1, modified, etag: None };
        assert!(second.concerns(&at(since + TimeDelta::hours(1))));
        assert!(!second.concerns(&at(since - TimeDelta::hours(1))));
        Unfinished::end(&store, &gone).await.unwrap();
        let left = Unfinished::load(&store).await.unwrap();
        assert!(!left.concerns(&at(since)) && left.objects == gone);
        store.put(&Unfinished::key(), Bytes::from_static(b"?")).await.unwrap();
        assert!(Unfinished::load(&store).await.unwrap().concerns(&at(since)));
        Unfinished::end(&store, &[]).await.unwrap();
        assert_eq!(Unfinished::load(&store).await.unwrap(), none);
    }
}
