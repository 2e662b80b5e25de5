//! Uploads by parts that were begun and never ended, by a process that was killed or a request whose
//! answer was lost: their parts take room that no listing of objects shows.
//!
//! `object_store` cannot ask for them or their parts, so these requests are made here.

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

/// What stands in a path of a URL as it is ("Signature Version 4", canonical URI).
const PLAIN: AsciiSet =
    NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

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

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedParts {
    upload_id: String,
    #[serde(default)]
    is_truncated: bool,
    next_part_number_marker: Option<usize>,
    #[serde(default)]
    part: Vec<Listed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    part_number: usize,
    #[serde(rename = "ETag")]
    etag: String,
    size: u64,
}

/// A part of an unfinished upload.
pub(super) struct UploadedPart {
    /// Which, from 0.
    pub index: usize,
    /// Its size in bytes, as the server tells it.
    pub size: u64,
    /// What the server calls it.
    pub etag: String,
}

impl UploadedPart {
    /// Its MD5, where the server tells that.
    pub fn md5(&self) -> Option<Md5Digest> {
        unquoted(&self.etag).parse().ok()
    }
}

impl Bucket {
    /// Ids of the unfinished uploads of an object; none where its server does not tell.
    pub(super) async fn uploads(&self, path: &ObjectPath) -> Result<Vec<String>, StoreError> {
        let query = [("prefix", path.as_ref()), ("uploads", "")];
        let answer: Option<Uploads> = ask(self, "", &query).await?;
        let uploads = answer.map(|answer| answer.upload).unwrap_or_default().into_iter();
        let of_this = uploads.filter(|upload| upload.key == path.as_ref());
        Ok(of_this.map(|upload| upload.upload_id).collect())
    }

    /// The parts of an unfinished upload that have arrived; none where its server does not tell.
    pub(super) async fn parts_of(
        &self,
        path: &ObjectPath,
        id: &str,
    ) -> Result<Vec<UploadedPart>, StoreError> {
        let (mut arrived, mut after) = (Vec::new(), 0);
        loop {
            let marker = after.to_string();
            let query = [("part-number-marker", marker.as_str()), ("uploadId", id)];
            let answer: Option<ListedParts> = ask(self, path.as_ref(), &query).await?;
            // What is of no such upload is the answer to something else.
            let Some(answer) = answer.filter(|answer| answer.upload_id == id) else { break };
            arrived.extend(answer.part.into_iter().filter_map(
                |Listed { part_number, etag, size }| {
                    Some(UploadedPart { index: part_number.checked_sub(1)?, size, etag })
                },
            ));
            match answer.next_part_number_marker.filter(|next| answer.is_truncated && *next > after)
            {
                Some(next) => after = next,
                None => break,
            }
        }
        Ok(arrived)
    }
}

/// Asks the server of a bucket about the object `name`, or the bucket; `None` when it does not tell.
async fn ask<T: DeserializeOwned>(
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
        name => format!("{}/{}", url.trim_end_matches('/'), utf8_percent_encode(name, &PLAIN)),
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
    let answer = match client.execute(request).await {
        Ok(answer) => answer,
        // It redirects, or says that it cannot.
        Err(error) if error.source().is_some_and(|cause| cause.is::<RejectedResponse>()) => {
            return Ok(None);
        }
        Err(error) => return Err(other(&error)),
    };
    let status = answer.status();
    if !status.is_success() {
        debug!(%status, bucket = bucket.name, "the server does not tell unfinished uploads");
        return Ok(None);
    }
    let body = answer.into_body().bytes().await.map_err(|error| other(&error))?;
    Ok(quick_xml::de::from_reader(&*body).ok())
}
