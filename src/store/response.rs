//! What is taken of a server's answer. Nothing in it is believed: how much of it is held is bounded
//! here for all requests, a redirect is not followed, an error is one under whatever status it
//! comes, and of a whole object that comes where a range was asked for, that range is taken.

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

/// Most bytes of an answer that is no object. The longest is a page of 1000 keys of 1024 bytes: 6 MiB
/// when each byte is escaped.
const CONTROL: u64 = 16 << 20;
/// Most bytes of an error that are looked at.
const ERROR: u64 = 64 << 10;
/// Stands for an error that comes when an upload was said to go well, and may pass.
pub(super) const LATE: StatusCode = match StatusCode::from_u16(599) {
    Ok(status) => status,
    Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
};

/// Why an answer is not taken. Nothing of it is tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RejectedResponse {
    /// To another place, which the request was not signed for.
    #[error("it redirects to {}", to.as_deref().unwrap_or("a place that it does not name"))]
    Redirected {
        /// Without user, password and query.
        to: Option<String>,
        region: Option<String>,
    },
    #[error("{detail}")]
    NotImplemented { detail: String },
    #[error(
        "it answers with the whole to a request for a range, and does not say how long that is"
    )]
    NoRange,
    #[error("its answer has more than the {most} bytes that were expected")]
    TooLong { most: u64 },
}

impl RejectedResponse {
    fn into_error(self) -> HttpError {
        // A kind that is not tried again.
        HttpError::new(HttpErrorKind::Unknown, self)
    }
}

tokio::task_local! {
    /// Most bytes of an object that is read whole.
    static MOST: u64;
}

/// Reads an object whole that may have so many bytes.
pub(super) async fn with_most<T>(most: u64, reading: impl Future<Output = T>) -> T {
    MOST.scope(most, reading).await
}

/// What a request asks for, as far as the answer depends on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ExpectedBody {
    /// The bytes of an object, at most so many.
    Object(u64),
    /// Those from a first one on, at most so many.
    Range(u64, u64),
    /// The end of an upload by parts.
    End,
    /// Something else: what is done, what there is.
    Control,
}

impl ExpectedBody {
    pub(super) fn of(request: &HttpRequest) -> Self {
        let query = request.uri().query().unwrap_or_default();
        match request.method().as_str() {
            "GET" if query.is_empty() => match range(request.headers()) {
                Some((first, length)) => Self::Range(first, length),
                None => Self::Object(MOST.try_with(|most| *most).unwrap_or(SMALL_OBJECT)),
            },
            "POST" if query.starts_with("uploadId=") => Self::End,
            _ => Self::Control,
        }
    }
}

/// From which byte on a request asks for how many; `None` for all.
fn range(headers: &HeaderMap) -> Option<(u64, u64)> {
    let range = headers.get(RANGE)?.to_str().ok()?.strip_prefix("bytes=")?;
    let (first, last) = range.split_once('-')?;
    let first = first.parse().ok()?;
    Some((first, last.parse::<u64>().ok()?.checked_sub(first)?.checked_add(1)?))
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Makes the answer with a whole object, which a server may give to a request for a range, one with that range.
fn made_partial(head: &mut Parts, first: u64, most: u64) -> Result<(), RejectedResponse> {
    let size = length(&head.headers).ok_or(RejectedResponse::NoRange)?;
    let end = first.saturating_add(most).min(size);
    let Some(last) = end.checked_sub(1).filter(|last| *last >= first) else {
        head.status = StatusCode::RANGE_NOT_SATISFIABLE;
        head.headers.insert(CONTENT_LENGTH, 0.into());
        return Ok(());
    };
    let told = format!("bytes {first}-{last}/{size}");
    head.headers
        .insert(CONTENT_RANGE, HeaderValue::try_from(told).map_err(|_| RejectedResponse::NoRange)?);
    head.headers.insert(CONTENT_LENGTH, (end - first).into());
    head.status = StatusCode::PARTIAL_CONTENT;
    Ok(())
}

/// An answer, or why it is not taken.
pub(super) async fn taken(
    answer: HttpResponse,
    asked: ExpectedBody,
) -> Result<HttpResponse, HttpError> {
    let status = answer.status();
    let (mut head, body) = answer.into_parts();
    let redirects = status.is_redirection() && status != StatusCode::NOT_MODIFIED;
    if redirects || status == StatusCode::NOT_IMPLEMENTED {
        let body = start(body).await;
        let text = String::from_utf8_lossy(&body);
        return Err(match redirects {
            true => redirected(&head.headers, &text),
            false => RejectedResponse::NotImplemented { detail: told(&text, status) },
        }
        .into_error());
    }
    if !status.is_success() {
        // Not always text: what cannot be read is told by its status.
        let text = String::from_utf8_lossy(&start(body).await).into_owned();
        return Ok(HttpResponse::from_parts(head, text.into()));
    }
    let most = match asked {
        ExpectedBody::Object(most) | ExpectedBody::Range(_, most) => {
            let skip = match asked {
                ExpectedBody::Range(first, most) if status == StatusCode::OK => {
                    made_partial(&mut head, first, most).map_err(RejectedResponse::into_error)?;
                    if !head.status.is_success() {
                        return Ok(HttpResponse::from_parts(head, String::new().into()));
                    }
                    first
                }
                _ => 0,
            };
            if length(&head.headers).is_some_and(|length| length > most) {
                return Err(RejectedResponse::TooLong { most }.into_error());
            }
            let body = HttpResponseBody::new(LimitedBody { body, skip, left: most });
            return Ok(HttpResponse::from_parts(head, body));
        }
        ExpectedBody::End | ExpectedBody::Control => CONTROL,
    };
    let body = whole(body, most).await?;
    if let Some(status) = error_within(&body) {
        let is_late = asked == ExpectedBody::End && status.is_server_error();
        head.status = if is_late { LATE } else { status };
        return Ok(HttpResponse::from_parts(head, body.into()));
    }
    Ok(HttpResponse::from_parts(head, body.into()))
}

/// The beginning of an error.
async fn start(body: HttpResponseBody) -> Bytes {
    whole(HttpResponseBody::new(LimitedBody { body, skip: 0, left: ERROR }), ERROR)
        .await
        .unwrap_or_default()
}

/// All of a body; an error when there is more than `most`. Nothing is reserved for what a server says will come.
async fn whole(body: HttpResponseBody, most: u64) -> Result<Bytes, HttpError> {
    let mut stream = body.bytes_stream();
    let mut data = BytesMut::new();
    while let Some(more) = stream.try_next().await? {
        if data.len() as u64 + more.len() as u64 > most {
            return Err(RejectedResponse::TooLong { most }.into_error());
        }
        data.extend_from_slice(&more);
    }
    Ok(data.freeze())
}

/// The status of an error that comes under the status of a success, as S3 sends it when it has begun to
/// answer before it knew. Those of its codes that may pass are tried again as under a status of their own.
fn error_within(body: &[u8]) -> Option<StatusCode> {
    const PASSING: [&str; 5] =
        ["InternalError", "SlowDown", "ServiceUnavailable", "Busy", "RequestTimeout"];
    let text = std::str::from_utf8(body.get(..body.len().min(ERROR as usize))?).ok()?;
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
        code if code.is_empty() || PASSING.contains(&code) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    })
}

/// Code and message of an error.
fn told(body: &str, status: StatusCode) -> String {
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

fn redirected(headers: &HeaderMap, body: &str) -> RejectedResponse {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let region = text("x-amz-bucket-region").or_else(|| tag(body, "Region")).map(str::to_owned);
    let location = text(LOCATION.as_str()).map(|text| match Url::parse(text) {
        // A query may be a signature.
        Ok(url) if url.host().is_some() => {
            url[..url::Position::BeforeUsername].to_owned()
                + &url[url::Position::BeforeHost..url::Position::AfterPath]
        }
        _ => text.split(['?', '#']).next().unwrap_or_default().to_owned(),
    });
    let to = tag(body, "Endpoint").map(str::to_owned).or(location);
    RejectedResponse::Redirected { to, region }
}

/// A body of which no more is taken than was asked for.
struct LimitedBody {
    body: HttpResponseBody,
    /// Bytes that come before.
    skip: u64,
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
            let before = data.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.skip -= before as u64;
            data.advance(before);
            if before == 0 || !data.is_empty() {
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
    fn an_error_is_one_under_the_status_of_a_success() {
        for (body, status) in [
            ("<Error><Code>InternalError</Code></Error>", Some(500)),
            ("\n  <?xml version=\"1.0\"?>\n<Error><Code>SlowDown</Code></Error>", Some(500)),
            ("<Error xmlns=\"x\"><Code>AccessDenied</Code></Error>", Some(403)),
            ("<Error><Code>InvalidPart</Code></Error>", Some(400)),
            ("<Error/>", None),
            // A name is none.
            ("<ListBucketResult><Contents><Key>SlowDown</Key></Contents></ListBucketResult>", None),
            ("", None),
        ] {
            assert_eq!(error_within(body.as_bytes()).map(|s| s.as_u16()), status, "{body}");
        }
    }

    #[test]
    fn a_redirect_tells_where_to_without_what_is_secret() {
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
        let of = |text: &str| range(&HeaderMap::from_iter([(RANGE, text.parse().unwrap())]));
        assert_eq!(of("bytes=2-4"), Some((2, 3)));
        assert_eq!(of("bytes=-4"), None);
        assert_eq!(of("bytes=4-2"), None);
        assert_eq!(of("bytes=0-18446744073709551615"), None);
        assert_eq!(range(&HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn a_range_is_taken_from_a_whole_object() {
        let body: Vec<u8> = (0..100).collect();
        let ask = async |first, most, length: Option<u64>| {
            let mut answer = HttpResponse::new(body.clone().into());
            if let Some(length) = length {
                answer.headers_mut().insert(CONTENT_LENGTH, length.into());
            }
            taken(answer, ExpectedBody::Range(first, most)).await
        };
        for (first, most, told) in [(0, 3, "0-2"), (97, 3, "97-99"), (98, 9, "98-99")] {
            let answer = ask(first, most, Some(100)).await.unwrap();
            assert_eq!(answer.status(), 206);
            assert_eq!(answer.headers()[CONTENT_RANGE], format!("bytes {told}/100"));
            let end = (first + most).min(100) as usize;
            let data = answer.into_body().bytes().await.unwrap();
            assert_eq!(data, body[first as usize..end], "{told}");
        }
        assert_eq!(ask(100, 1, Some(100)).await.unwrap().status(), 416);
        assert!(ask(0, 1, None).await.is_err());
    }

    #[tokio::test]
    async fn no_more_is_taken_than_was_asked_for() {
        let answer = || HttpResponse::new(vec![1; 100].into());
        let taken = taken(answer(), ExpectedBody::Object(7)).await.unwrap();
        assert_eq!(taken.into_body().bytes().await.unwrap().len(), 7);
        let body = || HttpResponseBody::from(vec![1; 100]);
        assert!(whole(body(), 99).await.is_err());
        assert_eq!(whole(body(), 100).await.unwrap().len(), 100);
    }
}
