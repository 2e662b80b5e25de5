//! What there is, and small objects whole.

use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::path::Path as ObjectPath;

use super::answer::with_most;
use super::backend::reading;
use super::error::StoreError;
use super::limit::SMALL_OBJECT;
use super::object::{Object, collected};
use super::object_info::ObjectInfo;
use super::open::Store;

impl Store {
    /// A small object whole; `None` when there is none. One of more than [`SMALL_OBJECT`] bytes is
    /// [`StoreError::TooLarge`].
    pub async fn read(&self, key: &str) -> Result<Option<(Bytes, ObjectInfo)>, StoreError> {
        self.read_within(key, SMALL_OBJECT).await
    }

    /// The same of an object of up to `limit` bytes. Its size is known before it is read.
    pub async fn read_within(
        &self,
        key: &str,
        limit: u64,
    ) -> Result<Option<(Bytes, ObjectInfo)>, StoreError> {
        let objects = self.backend().objects().await?;
        let path = self.path(key)?;
        self.backend().refuse_odd(key)?;
        let whole = async || {
            let found = objects.get(&path).await?;
            let meta = found.meta.clone();
            let is_small = found.range.end <= limit;
            let data = if is_small { Some(collected(found).await?) } else { None };
            Ok((data, meta))
        };
        match with_most(limit, reading(self.backend(), key, "read", whole)).await {
            Ok((Some(data), meta)) => Ok(Some((data, ObjectInfo::new(key.to_owned(), meta)))),
            Ok((None, meta)) => {
                Err(StoreError::TooLarge { url: self.url(key), size: Some(meta.size), most: limit })
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An object to read from, after one request for what it is.
    pub async fn object(&self, key: &str) -> Result<Object, StoreError> {
        let info = self.backend().head(key).await?;
        Ok(self.object_known(key, info))
    }

    /// What an object is; `None` when there is none.
    pub async fn find(&self, key: &str) -> Result<Option<ObjectInfo>, StoreError> {
        match self.backend().head(key).await {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An object to read from, when a listing has told what it is: no request.
    pub fn object_known(&self, key: &str, info: ObjectInfo) -> Object {
        let path = self.path(key).unwrap_or_else(|_| ObjectPath::from(key));
        Object::new(self.clone(), path, ObjectInfo { key: key.to_owned(), ..info })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{S3Options, Stores};

    #[tokio::test]
    async fn a_large_object_is_refused_before_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let location = folder.path().display().to_string().parse().unwrap();
        let disk = Stores::new(S3Options::default()).open(&location).unwrap();
        for store in [Store::memory(), disk] {
            store.put("x", Bytes::from_static(b"12345")).await.unwrap();
            assert_eq!(store.read_within("x", 5).await.unwrap().unwrap().0, "12345");
            let error = store.read_within("x", 4).await.unwrap_err();
            assert!(
                matches!(error, StoreError::TooLarge { size: Some(5), most: 4, .. }),
                "{error}"
            );
        }
        std::fs::File::create(folder.path().join("sparse")).unwrap().set_len(1 << 40).unwrap();
        let store = Stores::new(S3Options::default()).open(&location).unwrap();
        let error = store.read("sparse").await.unwrap_err().to_string();
        assert!(error.contains("sparse") && error.contains("1099511627776"), "{error}");
    }

    #[tokio::test]
    async fn a_pipe_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let location = folder.path().display().to_string().parse().unwrap();
        let store = Stores::new(S3Options::default()).open(&location).unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        let error = store.read("pipe").await.unwrap_err();
        assert!(matches!(error, StoreError::NotAFile { .. }), "{error}");
        assert!(store.find("pipe").await.is_err());
    }
}
