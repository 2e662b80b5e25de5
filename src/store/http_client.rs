//! The HTTP client below the retrying one: tells the server the MD5 of what it is sent, reads parts
//! of files while they are sent, takes no more of an answer than was asked for, says when a server does not
//! answer, and gives up one that cannot be reached sooner than one that is busy.

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
use super::response::{ExpectedBody, LATE, RejectedResponse, taken};
use super::translate::{cause, is_unreachable, is_untrusted};
use crate::model::Md5Digest;

/// A wrong endpoint or a lost network is for the user to mend.
const UNREACHABLE_FOR: Duration = Duration::from_secs(25);
/// The longest pause between two tries.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(15);
const QUIET_FOR: Duration = Duration::from_secs(30);

/// What was seen of servers.
#[derive(Debug, Default)]
pub(super) struct ClientStats {
    /// Requests that have failed.
    pub failures: AtomicU64,
    /// Whether objects are encrypted so that their ETags are no MD5 of their bytes.
    pub hides_md5: AtomicBool,
    /// Whether one answers with the whole object to a request for a range.
    pub ignores_ranges: AtomicBool,
}

/// Makes such clients, for servers that are reached in the same way.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub seen: Arc<ClientStats>,
    pub timeout: Duration,
    pub connect_timeout: Duration,
    /// Whether http without TLS may be spoken.
    pub plain: bool,
    /// Whether the server is on this machine, where no proxy stands between.
    pub direct: bool,
    /// Authorities that are trusted beside those of the system.
    pub roots: Vec<Certificate>,
}

impl Connector {
    pub(super) fn client(&self) -> reqwest::Result<Client> {
        let client = Client::builder()
            .user_agent(concat!("dor-atlas/", env!("CARGO_PKG_VERSION")))
            .timeout(self.timeout)
            .connect_timeout(self.connect_timeout)
            .https_only(!self.plain)
            // A request is for the server that it was made and signed for.
            .redirect(redirect::Policy::none())
            .tls_certs_merge(self.roots.iter().cloned())
            // One stream of parts on one connection would be slower than several connections.
            .http1_only();
        if self.direct { client.no_proxy() } else { client }.build()
    }
}

impl HttpConnector for Connector {
    /// All options are the connector's own.
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = self.client().map_err(|error| object_store::Error::Generic {
            store: "HTTP client",
            source: Box::new(error),
        })?;
        let (seen, trouble) = (Arc::clone(&self.seen), Mutex::default());
        Ok(HttpClient::new(InstrumentedClient { client, seen, trouble }))
    }
}

#[derive(Debug)]
struct InstrumentedClient {
    client: Client,
    seen: Arc<ClientStats>,
    trouble: Mutex<OutageTracker>,
}

#[derive(Debug, Default)]
struct OutageTracker {
    /// First failure to connect since the last answer, or since a request was given up.
    unreachable_since: Option<Instant>,
    given_up: Option<Instant>,
    warned: Option<Instant>,
}

impl OutageTracker {
    fn warn(&mut self, server: &str, what: &str) {
        if self.warned.is_none_or(|warned| warned.elapsed() > QUIET_FOR) {
            self.warned = Some(Instant::now());
            warn!("{server} fails: {what}; trying again for a while");
        }
    }

    /// Whether a failure to connect is to be the last.
    fn ends(&mut self) -> bool {
        // Requests that were made at the same time are given up together; those who ask later get
        // a time of their own.
        if self.given_up.is_some_and(|at| at.elapsed() < LONGEST_PAUSE) {
            return true;
        }
        let since = *self.unreachable_since.get_or_insert_with(Instant::now);
        let ends = since.elapsed() > UNREACHABLE_FOR;
        if ends {
            self.given_up = Some(Instant::now());
            self.unreachable_since = None;
        }
        ends
    }
}

/// The body of a request that is read while it is sent.
pub(super) trait RequestBody: Send + Sync {
    /// Bytes.
    fn size(&self) -> u64;

    /// From the beginning, each time that the request is sent.
    fn stream(&self) -> BoxStream<'static, io::Result<Bytes>>;

    /// Whether it could not be read.
    fn has_failed(&self) -> bool;
}

tokio::task_local! {
    /// Counts the requests that fail.
    static FAILURES: Arc<AtomicU32>;
    /// MD5 of what is sent, from who has it already: requests for parts carry no extensions.
    static BODY_MD5: Md5Digest;
    /// What is sent in place of the body of the request.
    static BODY: Arc<dyn RequestBody>;
}

/// Counts the requests that fail while something is done, those that are sent again too.
pub async fn count_failures<T>(failures: &Arc<AtomicU32>, work: impl Future<Output = T>) -> T {
    FAILURES.scope(Arc::clone(failures), work).await
}

/// Sends an object or a part whose MD5 may be known, so that it is not computed again.
pub(super) async fn with_body_md5<T>(
    md5: Option<Md5Digest>,
    sending: impl Future<Output = T>,
) -> T {
    match md5 {
        Some(md5) => BODY_MD5.scope(md5, sending).await,
        None => sending.await,
    }
}

/// Sends a part of a file, in requests whose bodies are empty.
pub(super) async fn with_body<T>(
    body: Arc<dyn RequestBody>,
    sending: impl Future<Output = T>,
) -> T {
    BODY.scope(body, sending).await
}

/// Adds `Content-MD5` to an object or a part that is sent: a server that knows the header refuses
/// what was damaged on the way. The header is not signed, which S3 does not ask for.
async fn with_content_md5(mut request: HttpRequest) -> Result<HttpRequest, HttpError> {
    if request.method() != "PUT" {
        return Ok(request);
    }
    let digest = match BODY_MD5.try_with(|known| *known) {
        Ok(known) => known,
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

/// Writes a query as signatures cover it, in which only letters, digits and `-._~` stand for themselves:
/// who verifies it as it was sent would find another.
fn with_strict_query(mut request: HttpRequest) -> HttpRequest {
    const STRICT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    let Some(query) = request.uri().query() else { return request };
    let strict = |text: &str| utf8_percent_encode(text, STRICT).to_string();
    let pairs = form_urlencoded::parse(query.as_bytes());
    let pairs: Vec<_> = pairs.map(|(k, v)| format!("{}={}", strict(&k), strict(&v))).collect();
    let target = format!("{}?{}", request.uri().path(), pairs.join("&"));
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = target.parse().ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

impl InstrumentedClient {
    fn note_failure(&self) {
        self.seen.failures.fetch_add(1, Ordering::Relaxed);
        // Not everybody counts.
        _ = FAILURES.try_with(|failures| failures.fetch_add(1, Ordering::Relaxed));
    }

    /// A whole object has come in place of a range.
    fn note_whole(&self, server: &str) {
        if !self.seen.ignores_ranges.swap(true, Ordering::Relaxed) {
            warn!(
                "{server} knows no ranges of files: each read begins at the start of its file, which takes long; copy what is large first"
            );
        }
    }

    async fn execute(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        match BODY.try_with(Arc::clone) {
            Ok(body) if request.method() == "PUT" => self.stream(request, &*body).await,
            _ => self.client.call(request).await,
        }
    }

    async fn stream(
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
                // Reading failed: to send it again is of no use.
                () if body.has_failed() => HttpErrorKind::Unknown,
                () if error.is_timeout() => HttpErrorKind::Timeout,
                () if error.is_connect() => HttpErrorKind::Connect,
                () => HttpErrorKind::Interrupted,
            };
            HttpError::new(kind, error.without_url())
        };
        let answer = self.client.execute(request).await.map_err(failed)?;
        let (head, rest) = http::Response::<reqwest::Body>::from(answer).into_parts();
        let lost =
            |error: reqwest::Error| HttpError::new(HttpErrorKind::Interrupted, error.without_url());
        Ok(Response::from_parts(head, HttpResponseBody::new(rest.map_err(lost))))
    }
}

#[async_trait]
impl HttpService for InstrumentedClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let request = with_content_md5(with_strict_query(request)).await?;
        let asked = ExpectedBody::of(&request);
        let is_put = request.method() == "PUT";
        let server = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let is_listing = addressable::is_listing(request.uri());
        let result = match self.execute(request).await {
            Ok(answer) => {
                if matches!(asked, ExpectedBody::Range(..)) && answer.status() == StatusCode::OK {
                    self.note_whole(&server);
                }
                taken(answer, asked).await
            }
            Err(error) => Err(error),
        };
        let result = match result {
            Ok(answer) if is_listing && answer.status().is_success() => {
                addressable::without_others(answer).await
            }
            result => result,
        };
        if result.is_err() && BODY.try_with(|body| body.has_failed()).unwrap_or(false) {
            // That is not the server's doing.
            return result;
        }
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(mut answer) => {
                // An object or a part that arrived has an ETag: what came is an error, whatever it
                // is called.
                if is_put && answer.status().is_success() && !answer.headers().contains_key("etag")
                {
                    *answer.status_mut() = StatusCode::BAD_GATEWAY;
                }
                let status = answer.status();
                (trouble.unreachable_since, trouble.given_up) = (None, None);
                if hides_md5(answer.headers()) {
                    self.seen.hides_md5.store(true, Ordering::Relaxed);
                }
                if status.is_server_error() || status.as_u16() == 429 {
                    self.note_failure();
                    match status == LATE {
                        true => trouble.warn(&server, "an error in an answer that had begun well"),
                        false => trouble.warn(&server, &status.to_string()),
                    }
                }
                Ok(answer)
            }
            Err(error) => {
                self.note_failure();
                let text = with_causes(&error);
                if error.source().is_some_and(|cause| cause.is::<RejectedResponse>()) {
                    return Err(error);
                }
                if is_unreachable(&text) && (is_untrusted(&text) || trouble.ends()) {
                    // A kind that is not tried again.
                    return Err(HttpError::new(HttpErrorKind::Unknown, error));
                }
                trouble.warn(&server, &cause(&text));
                Err(error)
            }
        }
    }
}

/// Whether an object is encrypted by KMS or by a key of the client's.
fn hides_md5(headers: &HeaderMap) -> bool {
    let by = headers.get("x-amz-server-side-encryption");
    by.is_some_and(|by| by.as_bytes().starts_with(b"aws:kms"))
        || headers.contains_key("x-amz-server-side-encryption-customer-algorithm")
}

#[cfg(test)]
mod tests {
    use object_store::client::HttpRequestBody;

    use super::*;

    #[test]
    fn queries_are_written_as_they_are_signed() {
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
    fn gives_up_what_cannot_be_reached_and_begins_anew() {
        let mut trouble = OutageTracker::default();
        assert!(!trouble.ends());
        trouble.unreachable_since = Instant::now().checked_sub(2 * UNREACHABLE_FOR);
        assert!(trouble.ends());
        assert!(trouble.ends(), "made at the same time");
        trouble.given_up = Instant::now().checked_sub(2 * LONGEST_PAUSE);
        assert!(!trouble.ends());
    }
}
