//! What `object_store` reports, put in our terms.
//!
//! The retrying client's error type is private: what it knows (request, attempts, time, status,
//! body) is only to be had from its text, whose form the tests of this file and of the
//! conformance suite hold.

use std::error::Error;
use std::io;
use std::time::Duration;

use super::error::{CredentialsProblem, CredentialsUnavailable, StoreError};
use super::error_chain::with_causes;
use super::location::LocationError;
use super::response::{LATE, RejectedResponse, tag};

/// One failed request, as the retrying client tells of it.
#[derive(Debug, PartialEq)]
struct FailedRequest {
    request: String,
    elapsed: Duration,
    attempts: u32,
    status: Option<u16>,
    /// S3's `<Code>`.
    code: Option<String>,
    detail: String,
}

/// What the translation needs to know of where the failure was.
pub(super) struct ErrorContext<'a> {
    pub url: String,
    pub action: &'static str,
    pub bucket: &'a str,
    pub endpoint: &'a str,
    /// How to renew the credentials.
    pub advice: &'a str,
    pub anonymous: bool,
    /// Whether accounts of Source Cooperative stand where buckets do.
    pub is_source_coop: bool,
}

impl ErrorContext<'_> {
    /// Where there is nothing to tell of a server.
    pub(super) fn new(url: String, action: &'static str) -> Self {
        let (bucket, endpoint, advice) = Default::default();
        Self { url, action, bucket, endpoint, advice, anonymous: false, is_source_coop: false }
    }
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// The system's own error in the chain, made anew because the chain cannot be taken apart.
fn system_error(error: &object_store::Error) -> Option<io::Error> {
    let found = chain(error).find_map(|e| e.downcast_ref::<io::Error>())?;
    Some(match found.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(found.kind(), found.to_string()),
    })
}

/// The error that a caller sees.
pub(super) fn translate(error: object_store::Error, site: ErrorContext<'_>) -> StoreError {
    let ErrorContext { url, action, .. } = &site;
    let (url, action) = (url.clone(), *action);
    if let Some(missing) = chain(&error).find_map(|e| e.downcast_ref::<CredentialsUnavailable>()) {
        return StoreError::Credentials {
            url,
            problem: missing.problem,
            detail: missing.detail.clone(),
            advice: site.advice.to_owned(),
        };
    }
    let request = chain(&error).find_map(|e| FailedRequest::parse(&with_causes(e)));
    if let Some(refusal) = chain(&error).find_map(|e| e.downcast_ref::<RejectedResponse>()) {
        return refused(refusal.clone(), request.map(|r| r.request).unwrap_or_default(), site);
    }
    if let Some(request) = request {
        return request.translate(site);
    }
    match error {
        object_store::Error::NotFound { .. } => return StoreError::NotFound { url },
        object_store::Error::Precondition { .. } => {
            return other_version(url, action);
        }
        object_store::Error::AlreadyExists { .. } => {
            return StoreError::PreconditionFailed { url, detail: "it exists".into() };
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

/// An object is no longer the one that a request was for.
fn other_version(url: String, action: &str) -> StoreError {
    let detail = "its version is another".to_owned();
    match action {
        "write" | "delete" => StoreError::PreconditionFailed { url, detail },
        _ => StoreError::Changed { url, detail },
    }
}

/// Why an answer was not taken, as a caller sees it.
fn refused(refusal: RejectedResponse, request: String, site: ErrorContext<'_>) -> StoreError {
    let ErrorContext { url, bucket, .. } = site;
    match refusal {
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
            StoreError::WrongRegion { url, detail: format!("the server tells of {region}{to}") }
        }
        RejectedResponse::Redirected { to, region: None } => StoreError::Redirected {
            url,
            to: to.unwrap_or_else(|| "a place that it does not name".to_owned()),
            advice: match bucket.is_empty() {
                true => "give that location, if it is what you want",
                false => "correct the endpoint (--endpoint-url) or the region (--region)",
            },
        },
    }
}

impl FailedRequest {
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
            Some(answer) => {
                let status = answer.get(..3).and_then(|status| status.parse().ok());
                (status, answer.split_once(": ").map_or("", |(_, body)| body))
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

    fn translate(self, site: ErrorContext<'_>) -> StoreError {
        let ErrorContext { url, action, bucket, endpoint, advice, anonymous, is_source_coop } =
            site;
        let credentials = match self.code.as_deref() {
            Some("ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired") => {
                Some((CredentialsProblem::Expired, advice))
            }
            Some("InvalidToken") => Some((
                CredentialsProblem::Rejected,
                "take key, secret and session token anew, all from one source; keys that do not \
                 expire need no token: then unset AWS_SESSION_TOKEN",
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
                let place = url.strip_prefix("s3://").unwrap_or(&url);
                let product: Vec<&str> = place.splitn(3, '/').take(2).collect();
                let (product, endpoint) = (product.join("/"), endpoint.to_owned());
                return StoreError::NoSuchProduct { url, product, endpoint };
            }
            Some("NoSuchBucket") => {
                let (bucket, endpoint) = (bucket.to_owned(), endpoint.to_owned());
                return StoreError::NoSuchBucket { url, bucket, endpoint };
            }
            Some("InvalidBucketName") => {
                let reason = format!("the server has no buckets with names like {bucket}");
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
            Some(412) => other_version(url, action),
            Some(status) if status < 500 && status != 429 && status != 408 => {
                StoreError::Refused { url, request: self.request, status, detail: self.detail }
            }
            None if is_untrusted(&self.detail) => {
                StoreError::Untrusted { url, detail: cause(&self.detail) }
            }
            status => StoreError::RetriesExhausted {
                url,
                late: status == Some(LATE.as_u16()),
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

/// Whether a failure, told with its causes, came before there was a connection.
pub(super) fn is_unreachable(text: &str) -> bool {
    text.contains("client error (Connect)")
}

/// Whether such a failure is because of the server's certificate.
pub(super) fn is_untrusted(text: &str) -> bool {
    is_unreachable(text) && text.contains("certificate")
}

/// What a failure, told with its causes, says to a user.
pub(super) fn cause(text: &str) -> String {
    // What stands before says only that a request was sent, and failed.
    let told = ["tcp connect error: ", "client error (Connect): ", "error sending request: "];
    let cause = told.iter().find_map(|told| Some(text.rsplit_once(told)?.1)).unwrap_or(text);
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
    fn reads_the_text_of_the_retrying_client() {
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
    fn tells_the_cause() {
        let sent = "HTTP error: error sending request: client error (Connect): ";
        for (text, said, unreachable) in [
            (format!("{sent}tcp connect error: Connection refused"), "Connection refused", true),
            (format!("{sent}dns error: no such host"), "DNS lookup failed: no such host", true),
            (format!("{sent}operation timed out"), "operation timed out", true),
            (
                "HTTP error: error sending request: operation timed out".into(),
                "operation timed out",
                false,
            ),
            ("SlowDown: as ordered".into(), "SlowDown: as ordered", false),
        ] {
            assert_eq!((cause(&text).as_str(), is_unreachable(&text)), (said, unreachable));
        }
    }
}
