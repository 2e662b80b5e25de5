//! What there is, and small objects whole.

use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::path::Path as ObjectPath;

use super::backend::reading;
use super::error::StoreError;
use super::limit::SMALL_OBJECT;
use super::object::{Object, collected};
use super::object_meta::ObjectMeta;
use super::registry::Store;
use super::response::with_most;

impl Store {
    /// A small object whole; `None` when there is none. One of more than [`SMALL_OBJECT`] bytes is
    /// [`StoreError::TooLarge`].
    pub async fn get(&self, key: &str) -> Result<Option<(Bytes, ObjectMeta)>, StoreError> {
        self.get_within(key, SMALL_OBJECT).await
    }

    /// The same of an object of up to `limit` bytes. Its size is known before it is read.
    pub async fn get_within(
        &self,
        key: &str,
        limit: u64,
    ) -> Result<Option<(Bytes, ObjectMeta)>, StoreError> {
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
            Ok((Some(data), meta)) => Ok(Some((data, ObjectMeta::new(key.to_owned(), meta)))),
            Ok((None, meta)) => {
                Err(StoreError::TooLarge { url: self.url(key), size: Some(meta.size), most: limit })
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An object to read from, after one request for what it is.
    pub async fn open(&self, key: &str) -> Result<Object, StoreError> {
        let info = self.backend().head(key).await?;
        Ok(self.object_known(key, info))
    }

    /// What an object is; `None` when there is none.
    pub async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        match self.backend().head(key).await {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An object to read from, when a listing has told what it is: no request.
    pub fn object_known(&self, key: &str, info: ObjectMeta) -> Object {
        let path = self.path(key).unwrap_or_else(|_| ObjectPath::from(key));
        Object::new(self.clone(), path, ObjectMeta { key: key.to_owned(), ..info })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{S3Options, StoreRegistry};

    #[tokio::test]
    async fn a_large_object_is_refused_before_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let location = folder.path().display().to_string().parse().unwrap();
        let disk = StoreRegistry::new(S3Options::default()).open(&location).unwrap();
        for store in [Store::memory(), disk] {
            store.put("x", Bytes::from_static(b"12345")).await.unwrap();
            assert_eq!(store.get_within("x", 5).await.unwrap().unwrap().0, "12345");
            let error = store.get_within("x", 4).await.unwrap_err();
            assert!(
                matches!(error, StoreError::TooLarge { size: Some(5), most: 4, .. }),
                "{error}"
            );
        }
        std::fs::File::create(folder.path().join("sparse")).unwrap().set_len(1 << 40).unwrap();
        let store = StoreRegistry::new(S3Options::default()).open(&location).unwrap();
        let error = store.get("sparse").await.unwrap_err().to_string();
        assert!(error.contains("sparse") && error.contains("1099511627776"), "{error}");
    }

    #[tokio::test]
    async fn a_pipe_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let location = folder.path().display().to_string().parse().unwrap();
        let store = StoreRegistry::new(S3Options::default()).open(&location).unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        let error = store.get("pipe").await.unwrap_err();
        assert!(matches!(error, StoreError::UnsupportedFileType { .. }), "{error}");
        assert!(store.head("pipe").await.is_err());
    }
}
