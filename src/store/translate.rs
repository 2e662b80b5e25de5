//! Conversion of `object_store` errors to [`StoreError`].
//!
//! The error type of the retrying client is private. Its request, attempts, time, status and body are
//! parsed from its text; tests of this file and the conformance suite check the form of the text.

use std::error::Error;
use std::io;
use std::time::Duration;

use super::error::{CredentialsProblem, CredentialsUnavailable, StoreError};
use super::error_chain::with_causes;
use super::location::LocationError;
use super::response::{ERROR_AFTER_SUCCESS, RejectedResponse, tag};

/// A failed request, parsed from the error text of the retrying client.
#[derive(Debug, PartialEq)]
struct FailedRequest {
    /// Method and URL.
    request: String,
    elapsed: Duration,
    attempts: u32,
    /// HTTP status; `None` if there was no response.
    status: Option<u16>,
    /// `<Code>` of the error document.
    code: Option<String>,
    detail: String,
}

/// The place of a failure. `bucket`, `endpoint` and `advice` are empty for other stores than S3.
pub(super) struct ErrorContext<'a> {
    pub url: String,
    pub action: &'static str,
    pub bucket: &'a str,
    pub endpoint: &'a str,
    /// How to renew the credentials.
    pub advice: &'a str,
    pub anonymous: bool,
    /// Whether the service is Source Cooperative, where a bucket is an account.
    pub is_source_coop: bool,
}

impl ErrorContext<'_> {
    /// The context for a store other than S3.
    pub(super) fn new(url: String, action: &'static str) -> Self {
        let (bucket, endpoint, advice) = Default::default();
        Self { url, action, bucket, endpoint, advice, anonymous: false, is_source_coop: false }
    }
}

/// An error and its causes.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// A copy of the first [`io::Error`] in the chain of causes. The chain only lends the original.
fn system_error(error: &object_store::Error) -> Option<io::Error> {
    let system = chain(error).find_map(|e| e.downcast_ref::<io::Error>())?;
    Some(match system.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(system.kind(), system.to_string()),
    })
}

/// Converts an error of `object_store`.
pub(super) fn translate(error: object_store::Error, context: ErrorContext<'_>) -> StoreError {
    let ErrorContext { url, action, .. } = &context;
    let (url, action) = (url.clone(), *action);
    if let Some(unavailable) =
        chain(&error).find_map(|e| e.downcast_ref::<CredentialsUnavailable>())
    {
        return StoreError::Credentials {
            url,
            problem: unavailable.problem,
            detail: unavailable.detail.clone(),
            advice: context.advice.to_owned(),
        };
    }
    let request = chain(&error).find_map(|e| FailedRequest::parse(&with_causes(e)));
    if let Some(rejected) = chain(&error).find_map(|e| e.downcast_ref::<RejectedResponse>()) {
        return translate_rejected(
            rejected.clone(),
            request.map(|r| r.request).unwrap_or_default(),
            context,
        );
    }
    if let Some(request) = request {
        return request.translate(context);
    }
    match error {
        object_store::Error::NotFound { .. } => return StoreError::NotFound { url },
        object_store::Error::Precondition { .. } => {
            return version_differs(url, action);
        }
        object_store::Error::AlreadyExists { .. } => {
            return StoreError::PreconditionFailed { url, detail: "the object exists".into() };
        }
        object_store::Error::InvalidPath { source } => {
            return StoreError::BadKey { url, reason: source.to_string() };
        }
        _ => {}
    }
    match system_error(&error) {
        Some(source) => StoreError::io(&url, action, source),
        None => StoreError::Library { url, action, source: error },
    }
}

/// The error for status 412: the object does not have the ETag of the request.
fn version_differs(url: String, action: &str) -> StoreError {
    let detail = "the version differs".to_owned();
    match action {
        "write" | "delete" => StoreError::PreconditionFailed { url, detail },
        _ => StoreError::Changed { url, detail },
    }
}

/// Converts the reason for a rejected response.
fn translate_rejected(
    rejected: RejectedResponse,
    request: String,
    context: ErrorContext<'_>,
) -> StoreError {
    let ErrorContext { url, bucket, .. } = context;
    match rejected {
        RejectedResponse::NotImplemented { detail } => {
            StoreError::NotImplemented { url, request, detail }
        }
        RejectedResponse::NoRange => {
            let detail = RejectedResponse::NoRange.to_string();
            StoreError::NotImplemented { url, request, detail }
        }
        RejectedResponse::TooLong { most } => StoreError::TooLarge { url, size: None, most },
        RejectedResponse::Redirected { to, region: Some(region) } => {
            let to = to.map(|to| format!(" at {to}")).unwrap_or_default();
            StoreError::WrongRegion { url, detail: format!("the server names {region}{to}") }
        }
        RejectedResponse::Redirected { to, region: None } => StoreError::Redirected {
            url,
            to: to.unwrap_or_else(|| "an unnamed location".to_owned()),
            advice: match bucket.is_empty() {
                true => "use that location, if it is the intended one",
                false => "correct the endpoint (--endpoint-url) or the region (--region)",
            },
        },
    }
}

impl FailedRequest {
    /// Parses the error text of the retrying client; `None` for any other text.
    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("Error performing ")?;
        let (head, outcome) = rest.split_once(" - ")?;
        let (request, timing) = head.split_once(" in ")?;
        let mut timing = timing.split(", ");
        let elapsed = parse_duration(timing.next()?.trim())?;
        let retries = timing.next().and_then(|part| {
            part.strip_prefix("after ")?.strip_suffix(" retries")?.parse::<u32>().ok()
        });
        let (status, body) = match outcome.strip_prefix("Server returned non-2xx status code: ") {
            Some(response) => {
                let status = response.get(..3).and_then(|status| status.parse().ok());
                (status, response.split_once(": ").map_or("", |(_, body)| body))
            }
            None => match outcome.strip_prefix("Server returned error response: ") {
                Some(body) => (Some(500), body),
                None => (None, ""),
            },
        };
        let detail = match (tag(body, "Code"), tag(body, "Message")) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.to_owned(),
            _ if status.is_some() && body.trim().is_empty() => outcome
                .rsplit_once("code: ")
                .map_or(outcome, |(_, status)| status)
                .trim_end_matches([':', ' '])
                .to_owned(),
            _ => outcome.chars().take(500).collect(),
        };
        let code = tag(body, "Code").map(str::to_owned);
        let attempts = retries.unwrap_or(0).saturating_add(1);
        Some(Self { request: request.to_owned(), elapsed, attempts, status, code, detail })
    }

    /// Converts a failed request by its error code, then by its status.
    fn translate(self, context: ErrorContext<'_>) -> StoreError {
        let ErrorContext { url, action, bucket, endpoint, advice, anonymous, is_source_coop } =
            context;
        let credentials = match self.code.as_deref() {
            Some("ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired") => {
                Some((CredentialsProblem::Expired, advice))
            }
            Some("InvalidToken") => Some((
                CredentialsProblem::Rejected,
                "renew key, secret and session token together, from one source; for keys that do not \
                 expire, unset AWS_SESSION_TOKEN",
            )),
            Some("RequestTimeTooSkewed") => {
                Some((CredentialsProblem::Rejected, "set the clock of this machine"))
            }
            Some(
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "InvalidSecurity"
                | "InvalidClientTokenId"
                | "NotSignedUp"
                | "MissingSecurityHeader",
            ) => Some((CredentialsProblem::Rejected, advice)),
            _ => None,
        };
        if let Some((problem, advice)) = credentials {
            let (detail, advice) = (self.detail, advice.to_owned());
            return StoreError::Credentials { url, problem, detail, advice };
        }
        match self.code.as_deref() {
            Some("NoSuchBucket") if is_source_coop => {
                let path = url.strip_prefix("s3://").unwrap_or(&url);
                let product: Vec<&str> = path.splitn(3, '/').take(2).collect();
                let (product, endpoint) = (product.join("/"), endpoint.to_owned());
                return StoreError::NoSuchProduct { url, product, endpoint };
            }
            Some("NoSuchBucket") => {
                let (bucket, endpoint) = (bucket.to_owned(), endpoint.to_owned());
                return StoreError::NoSuchBucket { url, bucket, endpoint };
            }
            Some("InvalidBucketName") => {
                let reason = format!("the server does not accept {bucket} as the name of a bucket");
                return StoreError::BadLocation(LocationError { text: url, reason });
            }
            Some("AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
                return StoreError::WrongRegion { url, detail: self.detail };
            }
            Some("XMinioStorageFull" | "QuotaExceeded" | "XMinioAdminBucketQuotaExceeded") => {
                return StoreError::StorageFull { url, detail: self.detail };
            }
            _ => {}
        }
        match self.status {
            Some(404) => StoreError::NotFound { url },
            Some(401 | 403) => {
                let hint = if anonymous { " (the request was not signed)" } else { "" };
                let detail = format!("{}{hint}", self.detail);
                StoreError::PermissionDenied { url, action, detail }
            }
            Some(412) => version_differs(url, action),
            Some(status) if status < 500 && status != 429 && status != 408 => {
                StoreError::Refused { url, request: self.request, status, detail: self.detail }
            }
            None if is_untrusted(&self.detail) => {
                StoreError::Untrusted { url, detail: cause(&self.detail) }
            }
            status => StoreError::RetriesExhausted {
                url,
                late: status == Some(ERROR_AFTER_SUCCESS.as_u16()),
                request: self.request,
                attempts: self.attempts,
                elapsed: self.elapsed,
                advice: match status {
                    None if !is_unreachable(&self.detail) => "try again later",
                    None if endpoint.is_empty() => "check the address and the network",
                    None => "check the endpoint (--endpoint-url) and the network",
                    Some(_) => "try again later",
                },
                detail: cause(&self.detail),
            },
        }
    }
}

/// Whether the text of an error with its causes means that no connection was established.
pub(super) fn is_unreachable(text: &str) -> bool {
    text.contains("client error (Connect)")
}

/// Whether the text of an error with its causes means that the certificate of the server is not trusted.
pub(super) fn is_untrusted(text: &str) -> bool {
    is_unreachable(text) && text.contains("certificate")
}

/// The cause in the text of an error with its causes.
pub(super) fn cause(text: &str) -> String {
    // The text before these prefixes only says that a request was sent and failed.
    let prefixes = ["tcp connect error: ", "client error (Connect): ", "error sending request: "];
    let cause =
        prefixes.iter().find_map(|prefix| Some(text.rsplit_once(prefix)?.1)).unwrap_or(text);
    cause.replacen("dns error", "DNS lookup failed", 1)
}

/// The `Debug` form of [`Duration`]: `1.5s`, `12.3ms`, `5µs`, `3ns`.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_text_of_the_retrying_client() {
        let text = "Error performing PUT http://h/b/k in 1.5s, after 3 retries, max_retries: 3, \
                    retry_timeout: 180s  - Server returned non-2xx status code: 503 Service \
                    Unavailable: <Error><Code>SlowDown</Code><Message>Slower</Message></Error>";
        let request = FailedRequest::parse(text).unwrap();
        assert_eq!(request.request, "PUT http://h/b/k");
        assert_eq!((request.attempts, request.status), (4, Some(503)));
        assert_eq!(request.elapsed, Duration::from_millis(1500));
        assert_eq!(request.detail, "SlowDown: Slower");

        let text = "Error performing HEAD http://h/b/k in 812.5µs - Server returned non-2xx \
                    status code: 403 Forbidden: ";
        let request = FailedRequest::parse(text).unwrap();
        assert_eq!((request.attempts, request.status), (1, Some(403)));
        assert_eq!(request.detail, "403 Forbidden");

        let text = "Error performing GET http://h/ in 2ms - HTTP error: error sending request";
        let request = FailedRequest::parse(text).unwrap();
        assert_eq!(
            (request.status, request.detail.as_str()),
            (None, "HTTP error: error sending request")
        );
        assert_eq!(FailedRequest::parse("something else"), None);
    }

    #[test]
    fn finds_the_cause() {
        let prefix = "HTTP error: error sending request: client error (Connect): ";
        for (text, expected, unreachable) in [
            (format!("{prefix}tcp connect error: Connection refused"), "Connection refused", true),
            (format!("{prefix}dns error: no such host"), "DNS lookup failed: no such host", true),
            (format!("{prefix}operation timed out"), "operation timed out", true),
            (
                "HTTP error: error sending request: operation timed out".into(),
                "operation timed out",
                false,
            ),
            ("SlowDown: as ordered".into(), "SlowDown: as ordered", false),
        ] {
            assert_eq!((cause(&text).as_str(), is_unreachable(&text)), (expected, unreachable));
        }
    }
}
