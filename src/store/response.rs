//! Checks of server responses, for all requests.
//!
//! The size of every body is limited, and redirects are rejected. An error document in a response with a
//! status of success gets a status of failure. From a whole object in response to a range request, the
//! range is extracted.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use futures::TryStreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, LOCATION, RANGE};
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame};
use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody};
use url::Url;

use super::limit::SMALL_OBJECT;

/// Largest response other than an object, in bytes. The longest is a page of 1000 keys of 1024 bytes:
/// 6 MiB if each byte is escaped.
const MAX_CONTROL: u64 = 16 << 20;
/// Bytes of an error document that are read.
const MAX_ERROR: u64 = 64 << 10;
/// Status for a transient error document that the server sent with a status of success at the end of an
/// upload. No server uses 599.
pub(super) const ERROR_AFTER_SUCCESS: StatusCode = match StatusCode::from_u16(599) {
    Ok(status) => status,
    Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
};

/// The reason why a response is rejected. Such a request is not retried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RejectedResponse {
    /// A redirect to another URL, for which the request is not signed.
    #[error("the server redirects to {}", to.as_deref().unwrap_or("an unnamed location"))]
    Redirected {
        /// Target without user, password and query; `None` if the response has none.
        to: Option<String>,
        /// Region of the bucket; `None` if the response has none.
        region: Option<String>,
    },
    #[error("{detail}")]
    NotImplemented { detail: String },
    #[error(
        "the server responds to a range request with the whole object, and does not state its size"
    )]
    NoRange,
    #[error("the response is larger than the expected {most} bytes")]
    TooLong { most: u64 },
}

impl RejectedResponse {
    fn into_error(self) -> HttpError {
        // `object_store` does not retry this kind.
        HttpError::new(HttpErrorKind::Unknown, self)
    }
}

tokio::task_local! {
    /// Largest object that the current task reads whole, in bytes.
    static SIZE_LIMIT: u64;
}

/// Runs a read of a whole object with a limit of `limit` bytes.
pub(super) async fn with_size_limit<T>(limit: u64, read: impl Future<Output = T>) -> T {
    SIZE_LIMIT.scope(limit, read).await
}

/// The kind of body that a request expects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ExpectedBody {
    /// A whole object of at most this many bytes.
    Object(u64),
    /// A range of an object: the first byte, and the number of bytes.
    Range(u64, u64),
    /// The response to `CompleteMultipartUpload`.
    CompleteUpload,
    /// Any other response, such as a listing.
    Control,
}

impl ExpectedBody {
    /// The kind of body that a request expects.
    pub(super) fn of(request: &HttpRequest) -> Self {
        let query = request.uri().query().unwrap_or_default();
        match request.method().as_str() {
            "GET" if query.is_empty() => match requested_range(request.headers()) {
                Some((first, length)) => Self::Range(first, length),
                None => Self::Object(SIZE_LIMIT.try_with(|limit| *limit).unwrap_or(SMALL_OBJECT)),
            },
            "POST" if query.starts_with("uploadId=") => Self::CompleteUpload,
            _ => Self::Control,
        }
    }
}

/// First byte and number of bytes of a range request; `None` for a whole object.
fn requested_range(headers: &HeaderMap) -> Option<(u64, u64)> {
    let range = headers.get(RANGE)?.to_str().ok()?.strip_prefix("bytes=")?;
    let (first, last) = range.split_once('-')?;
    let first = first.parse().ok()?;
    Some((first, last.parse::<u64>().ok()?.checked_sub(first)?.checked_add(1)?))
}

/// The `Content-Length` of a response.
fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Converts the head of a response with a whole object to that of a response with the range. HTTP allows a
/// server to ignore a range request.
fn make_partial(head: &mut Parts, first: u64, most: u64) -> Result<(), RejectedResponse> {
    let size = content_length(&head.headers).ok_or(RejectedResponse::NoRange)?;
    let end = first.saturating_add(most).min(size);
    let Some(last) = end.checked_sub(1).filter(|last| *last >= first) else {
        head.status = StatusCode::RANGE_NOT_SATISFIABLE;
        head.headers.insert(CONTENT_LENGTH, 0.into());
        return Ok(());
    };
    let content_range = format!("bytes {first}-{last}/{size}");
    let content_range =
        HeaderValue::try_from(content_range).map_err(|_| RejectedResponse::NoRange)?;
    head.headers.insert(CONTENT_RANGE, content_range);
    head.headers.insert(CONTENT_LENGTH, (end - first).into());
    head.status = StatusCode::PARTIAL_CONTENT;
    Ok(())
}

/// Checks a response and limits its body.
///
/// # Errors
/// [`RejectedResponse`], or the body cannot be read.
pub(super) async fn check(
    response: HttpResponse,
    expected: ExpectedBody,
) -> Result<HttpResponse, HttpError> {
    let status = response.status();
    let (mut head, body) = response.into_parts();
    let is_redirect = status.is_redirection() && status != StatusCode::NOT_MODIFIED;
    if is_redirect || status == StatusCode::NOT_IMPLEMENTED {
        let body = read_error_body(body).await;
        let text = String::from_utf8_lossy(&body);
        return Err(match is_redirect {
            true => redirected(&head.headers, &text),
            false => RejectedResponse::NotImplemented { detail: error_detail(&text, status) },
        }
        .into_error());
    }
    if !status.is_success() {
        // A body that is not text is converted lossily; the status then describes the error.
        let text = String::from_utf8_lossy(&read_error_body(body).await).into_owned();
        return Ok(HttpResponse::from_parts(head, text.into()));
    }
    let most = match expected {
        ExpectedBody::Object(most) | ExpectedBody::Range(_, most) => {
            let skip = match expected {
                ExpectedBody::Range(first, most) if status == StatusCode::OK => {
                    make_partial(&mut head, first, most).map_err(RejectedResponse::into_error)?;
                    if !head.status.is_success() {
                        return Ok(HttpResponse::from_parts(head, String::new().into()));
                    }
                    first
                }
                _ => 0,
            };
            if content_length(&head.headers).is_some_and(|size| size > most) {
                return Err(RejectedResponse::TooLong { most }.into_error());
            }
            let body = HttpResponseBody::new(LimitedBody { body, skip, left: most });
            return Ok(HttpResponse::from_parts(head, body));
        }
        ExpectedBody::CompleteUpload | ExpectedBody::Control => MAX_CONTROL,
    };
    let body = read_limited(body, most).await?;
    if let Some(status) = embedded_error(&body) {
        let is_late = expected == ExpectedBody::CompleteUpload && status.is_server_error();
        head.status = if is_late { ERROR_AFTER_SUCCESS } else { status };
        return Ok(HttpResponse::from_parts(head, body.into()));
    }
    Ok(HttpResponse::from_parts(head, body.into()))
}

/// Reads the beginning of an error document.
async fn read_error_body(body: HttpResponseBody) -> Bytes {
    read_limited(HttpResponseBody::new(LimitedBody { body, skip: 0, left: MAX_ERROR }), MAX_ERROR)
        .await
        .unwrap_or_default()
}

/// Reads a body. The buffer grows with the received bytes, whatever size the server states.
///
/// # Errors
/// [`RejectedResponse::TooLong`] if the body has more than `most` bytes.
async fn read_limited(body: HttpResponseBody, most: u64) -> Result<Bytes, HttpError> {
    let mut stream = body.bytes_stream();
    let mut data = BytesMut::new();
    while let Some(chunk) = stream.try_next().await? {
        if data.len() as u64 + chunk.len() as u64 > most {
            return Err(RejectedResponse::TooLong { most }.into_error());
        }
        data.extend_from_slice(&chunk);
    }
    Ok(data.freeze())
}

/// The status for an error document in a response with a status of success; `None` for any other body. S3
/// sends such a document when the operation fails after the response has begun. A transient error gets
/// status 500, so that the client retries it.
fn embedded_error(body: &[u8]) -> Option<StatusCode> {
    const TRANSIENT: [&str; 6] = [
        "InternalError",
        "SlowDown",
        "ServiceUnavailable",
        "Busy",
        "RequestTimeout",
        "TooManyRequests",
    ];
    let text = std::str::from_utf8(body.get(..body.len().min(MAX_ERROR as usize))?).ok()?;
    let text = text.trim_start();
    let text = match text.strip_prefix("<?xml") {
        Some(rest) => rest.split_once("?>")?.1.trim_start(),
        None => text,
    };
    if !text.starts_with("<Error>") && !text.starts_with("<Error ") {
        return None;
    }
    let code = tag(text, "Code").unwrap_or_default();
    Some(match code {
        "PreconditionFailed" => StatusCode::PRECONDITION_FAILED,
        "NoSuchUpload" | "NoSuchKey" | "NoSuchBucket" => StatusCode::NOT_FOUND,
        "AccessDenied" => StatusCode::FORBIDDEN,
        code if code.is_empty() || TRANSIENT.contains(&code) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    })
}

/// Code and message of an error document, or the status.
fn error_detail(body: &str, status: StatusCode) -> String {
    match (tag(body, "Code"), tag(body, "Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => status.to_string(),
    }
}

/// The text of an XML element without attributes or children.
pub(super) fn tag<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
}

/// The rejection of a redirect.
fn redirected(headers: &HeaderMap, body: &str) -> RejectedResponse {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let region = text("x-amz-bucket-region").or_else(|| tag(body, "Region")).map(str::to_owned);
    let location = text(LOCATION.as_str()).map(|text| match Url::parse(text) {
        // The user, the password and the query may be secrets.
        Ok(url) if url.host().is_some() => {
            url[..url::Position::BeforeUsername].to_owned()
                + &url[url::Position::BeforeHost..url::Position::AfterPath]
        }
        _ => text.split(['?', '#']).next().unwrap_or_default().to_owned(),
    });
    let to = tag(body, "Endpoint").map(str::to_owned).or(location);
    RejectedResponse::Redirected { to, region }
}

/// A body that skips `skip` bytes and ends after `left` bytes.
struct LimitedBody {
    body: HttpResponseBody,
    /// Bytes that are still to be skipped.
    skip: u64,
    /// Bytes that may still be returned.
    left: u64,
}

impl Body for LimitedBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut data = loop {
            let frame = match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => frame,
                other => return other,
            };
            let Ok(mut data) = frame.into_data() else { return Poll::Ready(None) };
            let skipped = data.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.skip -= skipped as u64;
            data.advance(skipped);
            if skipped == 0 || !data.is_empty() {
                break data;
            }
        };
        data.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= data.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_document_is_recognized_under_a_status_of_success() {
        for (body, status) in [
            ("<Error><Code>InternalError</Code></Error>", Some(500)),
            ("\n  <?xml version=\"1.0\"?>\n<Error><Code>SlowDown</Code></Error>", Some(500)),
            ("<Error xmlns=\"x\"><Code>AccessDenied</Code></Error>", Some(403)),
            ("<Error><Code>InvalidPart</Code></Error>", Some(400)),
            ("<Error/>", None),
            // An object whose key is an error code.
            ("<ListBucketResult><Contents><Key>SlowDown</Key></Contents></ListBucketResult>", None),
            ("", None),
        ] {
            assert_eq!(embedded_error(body.as_bytes()).map(|s| s.as_u16()), status, "{body}");
        }
    }

    #[test]
    fn a_redirect_is_reported_without_secrets() {
        let mut headers = HeaderMap::new();
        headers.insert(
            LOCATION,
            "https://me:pw@other.example:9/a?X-Amz-Signature=f0".parse().unwrap(),
        );
        let RejectedResponse::Redirected { to, region } = redirected(&headers, "") else {
            panic!()
        };
        assert_eq!((to.as_deref(), region), (Some("https://other.example:9/a"), None));
        headers.insert("x-amz-bucket-region", "eu-west-1".parse().unwrap());
        let body = "<Error><Endpoint>b.s3.eu-west-1.amazonaws.com</Endpoint></Error>";
        let RejectedResponse::Redirected { to, region } = redirected(&headers, body) else {
            panic!()
        };
        assert_eq!(to.as_deref(), Some("b.s3.eu-west-1.amazonaws.com"));
        assert_eq!(region.as_deref(), Some("eu-west-1"));
    }

    #[test]
    fn a_range_has_a_length() {
        let of =
            |text: &str| requested_range(&HeaderMap::from_iter([(RANGE, text.parse().unwrap())]));
        assert_eq!(of("bytes=2-4"), Some((2, 3)));
        assert_eq!(of("bytes=-4"), None);
        assert_eq!(of("bytes=4-2"), None);
        assert_eq!(of("bytes=0-18446744073709551615"), None);
        assert_eq!(requested_range(&HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn a_range_is_extracted_from_a_whole_object() {
        let body: Vec<u8> = (0..100).collect();
        let respond = async |first, most, length: Option<u64>| {
            let mut response = HttpResponse::new(body.clone().into());
            if let Some(length) = length {
                response.headers_mut().insert(CONTENT_LENGTH, length.into());
            }
            check(response, ExpectedBody::Range(first, most)).await
        };
        for (first, most, range) in [(0, 3, "0-2"), (97, 3, "97-99"), (98, 9, "98-99")] {
            let response = respond(first, most, Some(100)).await.unwrap();
            assert_eq!(response.status(), 206);
            assert_eq!(response.headers()[CONTENT_RANGE], format!("bytes {range}/100"));
            let end = (first + most).min(100) as usize;
            let data = response.into_body().bytes().await.unwrap();
            assert_eq!(data, body[first as usize..end], "{range}");
        }
        assert_eq!(respond(100, 1, Some(100)).await.unwrap().status(), 416);
        assert!(respond(0, 1, None).await.is_err());
    }

    #[tokio::test]
    async fn no_more_bytes_are_read_than_expected() {
        let response = HttpResponse::new(vec![1; 100].into());
        let checked = check(response, ExpectedBody::Object(7)).await.unwrap();
        assert_eq!(checked.into_body().bytes().await.unwrap().len(), 7);
        let body = || HttpResponseBody::from(vec![1; 100]);
        assert!(read_limited(body(), 99).await.is_err());
        assert_eq!(read_limited(body(), 100).await.unwrap().len(), 100);
    }
}
