//! The HTTP client below the retrying client of `object_store`.
//!
//! It adds `Content-MD5` to uploads, reads parts of files while they are sent, checks responses, counts
//! failures, logs a warning when a server fails, and ends the retries for an unreachable server sooner
//! than those for a busy one.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::future::poll_fn;
use futures::stream::BoxStream;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::BodyExt;
use md5::{Digest as _, Md5};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use object_store::{ClientOptions, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Certificate, Client, redirect};
use tracing::warn;
use url::form_urlencoded;

use super::addressable;
use super::error_chain::with_causes;
use super::response::{ERROR_AFTER_SUCCESS, ExpectedBody, RejectedResponse, check};
use super::translate::{cause, is_unreachable, is_untrusted};
use crate::model::Md5Digest;

/// Time after which an unreachable server is given up. The user has to correct a wrong endpoint or the
/// network.
const UNREACHABLE_FOR: Duration = Duration::from_secs(25);
/// The longest pause between two attempts.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Least time between two warnings about a server.
const WARN_INTERVAL: Duration = Duration::from_secs(30);

/// Observations about the servers of a session.
#[derive(Debug, Default)]
pub(super) struct ClientStats {
    /// Number of failed requests.
    pub failures: AtomicU64,
    /// Whether a response has shown encryption by KMS or by a key of the client. The ETag of such an
    /// object is not its MD5.
    pub hides_md5: AtomicBool,
    /// Whether a server has responded to a range request with the whole object.
    pub ignores_ranges: AtomicBool,
}

/// Options of an HTTP client, from which `object_store` creates its clients.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub stats: Arc<ClientStats>,
    pub timeout: Duration,
    pub connect_timeout: Duration,
    /// Whether http without TLS is allowed.
    pub plain: bool,
    /// Whether requests bypass the proxy, because the server is on this machine.
    pub direct: bool,
    /// Authorities that are trusted in addition to those of the system.
    pub roots: Vec<Certificate>,
}

impl Connector {
    /// Creates the client.
    pub(super) fn client(&self) -> reqwest::Result<Client> {
        let client = Client::builder()
            .user_agent(concat!("dor-atlas/", env!("CARGO_PKG_VERSION")))
            .timeout(self.timeout)
            .connect_timeout(self.connect_timeout)
            .https_only(!self.plain)
            // A request is signed for one server.
            .redirect(redirect::Policy::none())
            .tls_certs_merge(self.roots.iter().cloned())
            // Several HTTP/1 connections transfer parts faster than one HTTP/2 connection.
            .http1_only();
        if self.direct { client.no_proxy() } else { client }.build()
    }
}

impl HttpConnector for Connector {
    /// Ignores the options of `object_store`: the connector has its own.
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = self.client().map_err(|error| object_store::Error::Generic {
            store: "HTTP client",
            source: Box::new(error),
        })?;
        let (stats, outage) = (Arc::clone(&self.stats), Mutex::default());
        Ok(HttpClient::new(InstrumentedClient { client, stats, outage }))
    }
}

/// An HTTP client that checks and counts its requests and responses.
#[derive(Debug)]
struct InstrumentedClient {
    client: Client,
    stats: Arc<ClientStats>,
    outage: Mutex<OutageTracker>,
}

/// Tracks the failures of a server.
#[derive(Debug, Default)]
struct OutageTracker {
    /// First failure to connect since the last response, or since the last request that was given up.
    unreachable_since: Option<Instant>,
    /// When a request was last given up.
    given_up: Option<Instant>,
    /// Time of the last warning.
    warned: Option<Instant>,
}

impl OutageTracker {
    /// Logs a warning, unless there was one within [`WARN_INTERVAL`].
    fn warn(&mut self, server: &str, what: &str) {
        if self.warned.is_none_or(|warned| warned.elapsed() > WARN_INTERVAL) {
            self.warned = Some(Instant::now());
            warn!("{server} fails: {what}; trying again for a while");
        }
    }

    /// Records a failure to connect. Returns whether to give up the request.
    fn record_connect_failure(&mut self) -> bool {
        // Concurrent requests are given up together. A later request gets the full time again.
        if self.given_up.is_some_and(|at| at.elapsed() < LONGEST_PAUSE) {
            return true;
        }
        let since = *self.unreachable_since.get_or_insert_with(Instant::now);
        let record_connect_failure = since.elapsed() > UNREACHABLE_FOR;
        if record_connect_failure {
            self.given_up = Some(Instant::now());
            self.unreachable_since = None;
        }
        record_connect_failure
    }
}

/// The body of a request that is read while it is sent.
pub(super) trait RequestBody: Send + Sync {
    /// Size in bytes.
    fn size(&self) -> u64;

    /// The body from its beginning; each attempt of the request calls this.
    fn stream(&self) -> BoxStream<'static, io::Result<Bytes>>;

    /// Whether the body could not be read.
    fn has_failed(&self) -> bool;
}

tokio::task_local! {
    /// Number of failed requests of the surrounding [`count_failures`].
    static FAILURES: Arc<AtomicU32>;
    /// Known MD5 of the body. `object_store` passes no extensions with requests for parts.
    static BODY_MD5: Md5Digest;
    /// Replaces the body of the request.
    static BODY: Arc<dyn RequestBody>;
}

/// Runs `work` and adds the number of its failed requests to `failures`, including those that are
/// retried.
pub async fn count_failures<T>(failures: &Arc<AtomicU32>, work: impl Future<Output = T>) -> T {
    FAILURES.scope(Arc::clone(failures), work).await
}

/// Runs a request whose body has the MD5 `md5`, if it is known, so that it is not computed again.
pub(super) async fn with_body_md5<T>(
    md5: Option<Md5Digest>,
    request: impl Future<Output = T>,
) -> T {
    match md5 {
        Some(md5) => BODY_MD5.scope(md5, request).await,
        None => request.await,
    }
}

/// Runs a request with an empty body, and sends `body` in its place.
pub(super) async fn with_body<T>(
    body: Arc<dyn RequestBody>,
    request: impl Future<Output = T>,
) -> T {
    BODY.scope(body, request).await
}

/// Adds `Content-MD5` to a PUT request, with which the server detects a damaged body. The header is not
/// signed; S3 does not require it.
async fn with_content_md5(mut request: HttpRequest) -> Result<HttpRequest, HttpError> {
    if request.method() != "PUT" {
        return Ok(request);
    }
    let digest = match BODY_MD5.try_with(|md5| *md5) {
        Ok(md5) => md5,
        Err(_) => {
            let mut body = std::pin::pin!(request.body().clone());
            let mut md5 = Md5::new();
            while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
                md5.update(frame?.data_ref().map_or(&[][..], |data| data));
            }
            md5.into()
        }
    };
    if let Ok(value) = HeaderValue::from_str(&BASE64_STANDARD.encode(digest.0)) {
        request.headers_mut().insert("content-md5", value);
    }
    Ok(request)
}

/// Escapes the query as Signature Version 4 does: all characters but letters, digits and `-._~`. Some
/// servers verify the signature with the query as it was sent.
fn with_strict_query(mut request: HttpRequest) -> HttpRequest {
    const STRICT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    let Some(query) = request.uri().query() else { return request };
    let escape = |text: &str| utf8_percent_encode(text, STRICT).to_string();
    let pairs = form_urlencoded::parse(query.as_bytes());
    let pairs: Vec<_> = pairs.map(|(k, v)| format!("{}={}", escape(&k), escape(&v))).collect();
    let target = format!("{}?{}", request.uri().path(), pairs.join("&"));
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = target.parse().ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

impl InstrumentedClient {
    /// Counts a failed request.
    fn record_failure(&self) {
        self.stats.failures.fetch_add(1, Ordering::Relaxed);
        // Outside of `count_failures` there is no counter.
        _ = FAILURES.try_with(|failures| failures.fetch_add(1, Ordering::Relaxed));
    }

    /// Records a response with a whole object to a range request; logs a warning for the first.
    fn record_ignored_range(&self, server: &str) {
        if !self.stats.ignores_ranges.swap(true, Ordering::Relaxed) {
            warn!(
                "{server} does not support range requests: each read starts at the beginning of its file, which is slow; copy large files first"
            );
        }
    }

    /// Sends a request, with the body of the surrounding [`with_body`].
    async fn execute(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        match BODY.try_with(Arc::clone) {
            Ok(body) if request.method() == "PUT" => self.send_streamed(request, &*body).await,
            _ => self.client.call(request).await,
        }
    }

    /// Sends a request with a body that is read while it is sent.
    async fn send_streamed(
        &self,
        request: HttpRequest,
        body: &dyn RequestBody,
    ) -> Result<HttpResponse, HttpError> {
        let unusable = |error| HttpError::new(HttpErrorKind::Unknown, error);
        let (mut head, _) = request.into_parts();
        // The length is not signed.
        head.headers.insert(CONTENT_LENGTH, body.size().into());
        let stream = reqwest::Body::wrap_stream(body.stream());
        let request = http::Request::from_parts(head, stream).try_into().map_err(unusable)?;
        let failed = |error: reqwest::Error| {
            let kind = match () {
                // The body could not be read: a retry is useless.
                () if body.has_failed() => HttpErrorKind::Unknown,
                () if error.is_timeout() => HttpErrorKind::Timeout,
                () if error.is_connect() => HttpErrorKind::Connect,
                () => HttpErrorKind::Interrupted,
            };
            HttpError::new(kind, error.without_url())
        };
        let response = self.client.execute(request).await.map_err(failed)?;
        let (head, body) = http::Response::<reqwest::Body>::from(response).into_parts();
        let interrupted =
            |error: reqwest::Error| HttpError::new(HttpErrorKind::Interrupted, error.without_url());
        Ok(Response::from_parts(head, HttpResponseBody::new(body.map_err(interrupted))))
    }
}

#[async_trait]
impl HttpService for InstrumentedClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let request = with_content_md5(with_strict_query(request)).await?;
        let expected = ExpectedBody::of(&request);
        let is_put = request.method() == "PUT";
        let server = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let is_listing = addressable::is_listing(request.uri());
        let result = match self.execute(request).await {
            Ok(response) => {
                if matches!(expected, ExpectedBody::Range(..))
                    && response.status() == StatusCode::OK
                {
                    self.record_ignored_range(&server);
                }
                check(response, expected).await
            }
            Err(error) => Err(error),
        };
        let result = match result {
            Ok(response) if is_listing && response.status().is_success() => {
                addressable::remove_unaddressable(response).await
            }
            result => result,
        };
        if result.is_err() && BODY.try_with(|body| body.has_failed()).unwrap_or(false) {
            // The failure is not that of the server.
            return result;
        }
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(mut response) => {
                // A successful PUT returns an ETag. Without one, the response is an error despite its status.
                if is_put
                    && response.status().is_success()
                    && !response.headers().contains_key("etag")
                {
                    *response.status_mut() = StatusCode::BAD_GATEWAY;
                }
                let status = response.status();
                (outage.unreachable_since, outage.given_up) = (None, None);
                if hides_md5(response.headers()) {
                    self.stats.hides_md5.store(true, Ordering::Relaxed);
                }
                if status.is_server_error() || status.as_u16() == 429 {
                    self.record_failure();
                    match status == ERROR_AFTER_SUCCESS {
                        true => outage.warn(&server, "an error after a status of success"),
                        false => outage.warn(&server, &status.to_string()),
                    }
                }
                Ok(response)
            }
            Err(error) => {
                self.record_failure();
                let text = with_causes(&error);
                if error.source().is_some_and(|cause| cause.is::<RejectedResponse>()) {
                    return Err(error);
                }
                if is_unreachable(&text) && (is_untrusted(&text) || outage.record_connect_failure())
                {
                    // `object_store` does not retry this kind.
                    return Err(HttpError::new(HttpErrorKind::Unknown, error));
                }
                outage.warn(&server, &cause(&text));
                Err(error)
            }
        }
    }
}

/// Whether a response shows that the object is encrypted by KMS or by a key of the client.
fn hides_md5(headers: &HeaderMap) -> bool {
    let encryption = headers.get("x-amz-server-side-encryption");
    encryption.is_some_and(|name| name.as_bytes().starts_with(b"aws:kms"))
        || headers.contains_key("x-amz-server-side-encryption-customer-algorithm")
}

#[cfg(test)]
mod tests {
    use object_store::client::HttpRequestBody;

    use super::*;

    #[test]
    fn queries_are_escaped_as_they_are_signed() {
        for (sent, strict) in [
            ("http://h/b?list-type=2&prefix=a+b%7Ec*%2F", "list-type=2&prefix=a%20b~c%2A%2F"),
            ("http://h/b/k?uploadId=x%2By%25&partNumber=1", "uploadId=x%2By%25&partNumber=1"),
            ("http://h/b?uploads", "uploads="),
        ] {
            let request = http::Request::get(sent).body(HttpRequestBody::empty()).unwrap();
            assert_eq!(with_strict_query(request).uri().query(), Some(strict));
        }
    }

    #[test]
    fn an_unreachable_server_is_given_up_and_tried_anew() {
        let mut outage = OutageTracker::default();
        assert!(!outage.record_connect_failure());
        outage.unreachable_since = Instant::now().checked_sub(2 * UNREACHABLE_FOR);
        assert!(outage.record_connect_failure());
        assert!(outage.record_connect_failure(), "made at the same time");
        outage.given_up = Instant::now().checked_sub(2 * LONGEST_PAUSE);
        assert!(!outage.record_connect_failure());
    }
}
