//! Uploads by parts that were begun and never ended, by a process that was killed or a request whose
//! answer was lost: their parts take room that no listing of objects shows.
//!
//! `object_store` cannot ask for them, so this request is made here.

use std::error::Error;

use object_store::aws::AwsAuthorizer;
use object_store::client::{HttpConnector, HttpRequestBody};
use object_store::{ClientOptions, CredentialProvider};
use serde::Deserialize;
use tracing::{debug, warn};
use url::Url;

use super::answer::Refusal;
use super::error::StoreError;
use super::open::{Backend, Store};
use super::s3::Bucket;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    upload: Vec<Unfinished>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Unfinished {
    key: String,
    upload_id: String,
}

impl Store {
    /// Ends the unfinished uploads of an object, those with the ids `known` and all others that the
    /// server tells of; how many there were. Not every server can tell.
    pub async fn abort_uploads(&self, key: &str, known: &[String]) -> Result<usize, StoreError> {
        let Backend::S3(bucket) = self.backend() else { return Ok(0) };
        let path = self.path(key)?;
        let mut ids = known.to_vec();
        ids.extend(unfinished(bucket, path.as_ref()).await?.unwrap_or_default());
        ids.sort_unstable();
        ids.dedup();
        let parts = self.parts().await?;
        let mut ended = 0;
        for id in &ids {
            match self.attempt(key, "abort", || parts.abort_multipart(&path, id)).await {
                Ok(()) => ended += 1,
                Err(error) if error.is_not_found() => {}
                // It takes room, and harms nobody.
                Err(error) => warn!(%error, upload = %id, "an unfinished upload stays"),
            }
        }
        Ok(ended)
    }
}

/// Ids of the unfinished uploads of the object `name` in a bucket; `None` when its server does not
/// tell.
async fn unfinished(bucket: &Bucket, name: &str) -> Result<Option<Vec<String>>, StoreError> {
    let (url, region) = bucket.url_and_region().await?;
    let failed = |source: object_store::Error| StoreError::Library {
        url: format!("s3://{}/{name}", bucket.name),
        action: "list the uploads of",
        source,
    };
    let other = |error: &dyn std::fmt::Display| {
        failed(object_store::Error::Generic { store: "S3", source: error.to_string().into() })
    };
    let mut url = Url::parse(&url).map_err(|error| other(&error))?;
    url.query_pairs_mut().append_pair("prefix", name).append_pair("uploads", "");
    let mut request = http::Request::get(url.as_str())
        .body(HttpRequestBody::empty())
        .map_err(|error| other(&error))?;
    if let Some(credentials) = bucket.session.credentials().await? {
        let credential = credentials.get_credential().await.map_err(failed)?;
        let authorizer = AwsAuthorizer::new(&credential, "s3", &region);
        authorizer.try_authorize(&mut request, None).map_err(failed)?;
    }
    let client = bucket.connector().await?.connect(&ClientOptions::new()).map_err(failed)?;
    let answer = match client.execute(request).await {
        Ok(answer) => answer,
        // It redirects, or says that it cannot.
        Err(error) if error.source().is_some_and(|cause| cause.is::<Refusal>()) => return Ok(None),
        Err(error) => return Err(other(&error)),
    };
    let status = answer.status();
    if !status.is_success() {
        debug!(%status, bucket = bucket.name, "the server does not tell unfinished uploads");
        return Ok(None);
    }
    let body = answer.into_body().bytes().await.map_err(|error| other(&error))?;
    let Ok(answer) = quick_xml::de::from_reader::<_, Answer>(&*body) else { return Ok(None) };
    let of_this = answer.upload.into_iter().filter(|upload| upload.key == name);
    Ok(Some(of_this.map(|upload| upload.upload_id).collect()))
}
