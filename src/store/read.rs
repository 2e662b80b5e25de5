//! Reads of whole small objects, and of metadata.

use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::path::Path as ObjectPath;

use super::backend::attempt_read;
use super::error::StoreError;
use super::limit::SMALL_OBJECT;
use super::object::{Object, read_body};
use super::object_meta::ObjectMeta;
use super::registry::Store;
use super::response::with_size_limit;

impl Store {
    /// Reads a small object; `None` if it does not exist.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] if it has more than [`SMALL_OBJECT`] bytes, or another error of the
    /// request.
    pub async fn get(&self, key: &str) -> Result<Option<(Bytes, ObjectMeta)>, StoreError> {
        self.get_within(key, SMALL_OBJECT).await
    }

    /// Reads an object of at most `limit` bytes; `None` if it does not exist. The size is checked before
    /// the body is read.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] if it has more than `limit` bytes, or another error of the request.
    pub async fn get_within(
        &self,
        key: &str,
        limit: u64,
    ) -> Result<Option<(Bytes, ObjectMeta)>, StoreError> {
        let objects = self.backend().objects().await?;
        let path = self.path(key)?;
        self.backend().ensure_regular(key)?;
        let get = async || {
            let response = objects.get(&path).await?;
            let meta = response.meta.clone();
            let is_small = response.range.end <= limit;
            let data = if is_small { Some(read_body(response).await?) } else { None };
            Ok((data, meta))
        };
        match with_size_limit(limit, attempt_read(self.backend(), key, "read", get)).await {
            Ok((Some(data), meta)) => Ok(Some((data, ObjectMeta::new(key.to_owned(), meta)))),
            Ok((None, meta)) => {
                Err(StoreError::TooLarge { url: self.url(key), size: Some(meta.size), most: limit })
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens an object for reading, after one request for its metadata.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it does not exist, or another error of the request.
    pub async fn open(&self, key: &str) -> Result<Object, StoreError> {
        let info = self.backend().head(key).await?;
        Ok(self.object_known(key, info))
    }

    /// Requests the metadata of an object; `None` if it does not exist.
    ///
    /// # Errors
    /// The request fails.
    pub async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        match self.backend().head(key).await {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens an object for reading, with the metadata of a listing and without a request.
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
    async fn a_large_object_is_rejected_before_it_is_read() {
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
    async fn reading_a_pipe_does_not_block() {
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
