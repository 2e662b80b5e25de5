//! Listing of unfinished multipart uploads and of their parts.
//!
//! A process that is killed, or a lost response, leaves an unfinished upload, whose parts take space that
//! no listing of objects shows. `object_store` has no request for them, so this module makes
//! `ListMultipartUploads` and `ListParts` requests.

use std::error::Error;

use object_store::aws::AwsAuthorizer;
use object_store::client::{HttpConnector, HttpRequestBody};
use object_store::path::Path as ObjectPath;
use object_store::{ClientOptions, CredentialProvider};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tracing::debug;
use url::Url;

use super::bucket::Bucket;
use super::error::StoreError;
use super::object_meta::unquoted;
use super::response::RejectedResponse;
use crate::model::Md5Digest;

/// Characters to escape in the path of a URL (Signature Version 4, canonical URI).
const PATH_ESCAPES: AsciiSet =
    NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Response to `ListMultipartUploads`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Uploads {
    #[serde(default)]
    upload: Vec<UnfinishedUpload>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UnfinishedUpload {
    key: String,
    upload_id: String,
}

/// Response to `ListParts`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedParts {
    upload_id: String,
    #[serde(default)]
    is_truncated: bool,
    next_part_number_marker: Option<usize>,
    #[serde(default)]
    part: Vec<ListedPart>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedPart {
    part_number: usize,
    #[serde(rename = "ETag")]
    etag: String,
    size: u64,
}

/// A part of an unfinished upload.
pub(super) struct UploadedPart {
    /// Index, from 0.
    pub index: usize,
    /// Size in bytes, as the server states it.
    pub size: u64,
    /// ETag, with the quotes of the response.
    pub etag: String,
}

impl UploadedPart {
    /// MD5 of the part; `None` if the ETag is not an MD5.
    pub fn md5(&self) -> Option<Md5Digest> {
        unquoted(&self.etag).parse().ok()
    }
}

impl Bucket {
    /// Ids of the unfinished uploads of an object; empty if the server does not list them.
    pub(super) async fn uploads(&self, path: &ObjectPath) -> Result<Vec<String>, StoreError> {
        let query = [("prefix", path.as_ref()), ("uploads", "")];
        let response: Option<Uploads> = request(self, "", &query).await?;
        let uploads = response.map(|response| response.upload).unwrap_or_default().into_iter();
        let of_object = uploads.filter(|upload| upload.key == path.as_ref());
        Ok(of_object.map(|upload| upload.upload_id).collect())
    }

    /// Parts that an unfinished upload has received; empty if the server does not list them.
    pub(super) async fn list_parts(
        &self,
        path: &ObjectPath,
        id: &str,
    ) -> Result<Vec<UploadedPart>, StoreError> {
        let (mut parts, mut after) = (Vec::new(), 0);
        loop {
            let marker = after.to_string();
            let query = [("part-number-marker", marker.as_str()), ("uploadId", id)];
            let response: Option<ListedParts> = request(self, path.as_ref(), &query).await?;
            // A server that ignores the query returns another document.
            let Some(response) = response.filter(|response| response.upload_id == id) else {
                break;
            };
            parts.extend(response.part.into_iter().filter_map(
                |ListedPart { part_number, etag, size }| {
                    Some(UploadedPart { index: part_number.checked_sub(1)?, size, etag })
                },
            ));
            match response
                .next_part_number_marker
                .filter(|next| response.is_truncated && *next > after)
            {
                Some(next) => after = next,
                None => break,
            }
        }
        Ok(parts)
    }
}

/// Sends a GET request for the object `name`, or for the bucket if it is `""`. Returns `None` if the
/// server rejects the request or responds with another document.
async fn request<T: DeserializeOwned>(
    bucket: &Bucket,
    name: &str,
    query: &[(&str, &str)],
) -> Result<Option<T>, StoreError> {
    let (url, region) = bucket.url_and_region().await?;
    let failed = |source: object_store::Error| StoreError::Library {
        url: format!("s3://{}/{name}", bucket.name),
        action: "list the uploads of",
        source,
    };
    let other = |error: &dyn std::fmt::Display| {
        failed(object_store::Error::Generic { store: "S3", source: error.to_string().into() })
    };
    let url = match name {
        "" => url,
        name => {
            format!("{}/{}", url.trim_end_matches('/'), utf8_percent_encode(name, &PATH_ESCAPES))
        }
    };
    let mut url = Url::parse(&url).map_err(|error| other(&error))?;
    url.query_pairs_mut().extend_pairs(query);
    let mut request = http::Request::get(url.as_str())
        .body(HttpRequestBody::empty())
        .map_err(|error| other(&error))?;
    if let Some(credentials) = bucket.session.credentials().await? {
        let credential = credentials.get_credential().await.map_err(failed)?;
        let authorizer = AwsAuthorizer::new(&credential, "s3", &region);
        authorizer.try_authorize(&mut request, None).map_err(failed)?;
    }
    let client = bucket.connector().await?.connect(&ClientOptions::new()).map_err(failed)?;
    let response = match client.execute(request).await {
        Ok(response) => response,
        // A redirect, or status 501.
        Err(error) if error.source().is_some_and(|cause| cause.is::<RejectedResponse>()) => {
            return Ok(None);
        }
        Err(error) => return Err(other(&error)),
    };
    let status = response.status();
    if !status.is_success() {
        debug!(%status, bucket = bucket.name, "the server does not list unfinished uploads");
        return Ok(None);
    }
    let body = response.into_body().bytes().await.map_err(|error| other(&error))?;
    Ok(quick_xml::de::from_reader(&*body).ok())
}
