//! What a destination tells of a publish that was begun and has not ended: whether the journal on this
//! machine speaks of what lies there, since when it may differ from the manifest, and what is still to
//! be deleted.

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{Digest, Entry, FOLDER, PublishError};
use crate::store::{ObjectInfo, Store, StoreError};

/// Listings tell parts of a second, other answers do not.
const ROUNDED: TimeDelta = TimeDelta::seconds(2);

/// The mark of what has not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    /// The publish, as the journal of its machine knows it; `None` when all has arrived.
    token: Option<String>,
    /// When the manifest that it found was written, by the clock of the destination.
    since: Option<DateTime<Utc>>,
    /// Objects that are in no manifest, but may lie there: key, bytes, MD5.
    deleting: Vec<(Box<str>, u64, Digest)>,
}

impl Unfinished {
    /// A token that nobody else has.
    pub fn new_token() -> String {
        format!("{:032x}", rand::rng().random::<u128>())
    }

    /// The mark while a publish with this token goes on: it ends what was begun before, too, which
    /// found a manifest written at `since`, unless an earlier one is known.
    pub fn while_publishing(
        &self,
        token: &str,
        since: Option<DateTime<Utc>>,
        deleting: impl Iterator<Item = Entry>,
    ) -> Self {
        let since = if self.token.is_some() { self.since } else { since };
        let deleting = deleting.map(|entry| (entry.key, entry.size, entry.md5)).collect();
        Self { token: Some(token.to_owned()), since, deleting }
    }

    /// The mark when all has arrived, and only deletes are left.
    pub fn but_for(deleting: &[Entry]) -> Self {
        let deleting = deleting.iter().map(|e| (e.key.clone(), e.size, e.md5)).collect();
        Self { deleting, ..Self::default() }
    }

    /// The publish that has not ended.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Whether an object may have been written by what has not ended.
    pub fn concerns(&self, object: &ObjectInfo) -> bool {
        let is_after = |since: DateTime<Utc>| object.modified >= since - ROUNDED;
        self.token.is_some() && self.since.is_none_or(is_after)
    }

    /// Objects that were to be deleted.
    pub fn deleting(&self) -> impl Iterator<Item = Entry> {
        let entry = |(key, size, md5): &_| Entry { key: Box::clone(key), size: *size, md5: *md5 };
        self.deleting.iter().map(entry)
    }

    fn key() -> String {
        format!("{FOLDER}/unfinished.json")
    }

    /// The mark at a destination. One that cannot be understood is of something that nobody knows.
    pub async fn load(destination: &Store) -> Result<Self, StoreError> {
        let Some((bytes, _)) = destination.read(&Self::key()).await? else {
            return Ok(Self::default());
        };
        let unknown = || Self { token: Some(String::new()), ..Self::default() };
        Ok(serde_json::from_slice(&bytes).unwrap_or_else(|_| unknown()))
    }

    /// Puts the mark there, or takes it away when there is nothing to tell.
    pub async fn save(&self, destination: &Store) -> Result<(), PublishError> {
        if self == &Self::default() {
            return Ok(destination.delete(&Self::key()).await?);
        }
        // Text and numbers: this does not fail.
        let text = serde_json::to_vec(self).unwrap_or_default();
        destination.put(&Self::key(), Bytes::from(text)).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mark_tells_who_knows_what_lies_there_and_what_is_to_be_read() {
        let store = Store::memory();
        let none = Unfinished::load(&store).await.unwrap();
        assert_eq!(none, Unfinished::default());
        let gone = Entry { key: "gone".into(), size: 4, md5: Digest::of(b"gone") };
        let since = Utc::now();
        let mark = none.while_publishing("1", Some(since), [gone.clone()].into_iter());
        mark.save(&store).await.unwrap();
        let read = Unfinished::load(&store).await.unwrap();
        assert_eq!((read.token(), &read), (Some("1"), &mark));
        // Somebody else goes on: what the first one found is what counts.
        let later = Some(since + TimeDelta::hours(2));
        let next = read.while_publishing("2", later, read.deleting());
        let at = |modified| ObjectInfo { key: "x".to_owned(), size: 1, modified, etag: None };
        assert!(next.concerns(&at(since + TimeDelta::hours(1))));
        assert!(!next.concerns(&at(since - TimeDelta::hours(1))));
        let left = Unfinished::but_for(std::slice::from_ref(&gone));
        assert!(!left.concerns(&at(since)));
        assert_eq!(left.deleting().collect::<Vec<_>>(), [gone]);
        store.put(&Unfinished::key(), Bytes::from_static(b"?")).await.unwrap();
        assert!(Unfinished::load(&store).await.unwrap().concerns(&at(since)));
        none.save(&store).await.unwrap();
        assert_eq!(Unfinished::load(&store).await.unwrap(), none);
    }
}
