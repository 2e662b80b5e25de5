//! The HTTP client below the retrying one: says when a server does not answer, and gives up one
//! that cannot be reached sooner than one that is busy.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use tracing::warn;

use super::with_causes;

/// A wrong endpoint or a lost network is for the user to mend.
const UNREACHABLE_FOR: Duration = Duration::from_secs(25);
/// The longest pause between two tries.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(15);
const QUIET_FOR: Duration = Duration::from_secs(30);

/// Makes such clients.
#[derive(Debug)]
pub(super) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Watched { client, trouble: Mutex::default() }))
    }
}

#[derive(Debug)]
struct Watched {
    client: HttpClient,
    trouble: Mutex<Trouble>,
}

#[derive(Debug, Default)]
struct Trouble {
    /// First failure to connect since the last answer, or since a request was given up.
    unreachable_since: Option<Instant>,
    given_up: Option<Instant>,
    warned: Option<Instant>,
}

impl Trouble {
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

#[async_trait]
impl HttpService for Watched {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let server = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let result = self.client.execute(request).await;
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(answer) => {
                let status = answer.status();
                (trouble.unreachable_since, trouble.given_up) = (None, None);
                if status.is_server_error() || status.as_u16() == 429 {
                    trouble.warn(&server, &status.to_string());
                }
                Ok(answer)
            }
            Err(error) => {
                let text = with_causes(&error);
                if is_unreachable(&text) && (text.contains("certificate") || trouble.ends()) {
                    // A kind that is not tried again.
                    return Err(HttpError::new(HttpErrorKind::Unknown, error));
                }
                trouble.warn(&server, &cause(&text));
                Err(error)
            }
        }
    }
}

/// Whether a failure, told with its causes, came before there was a connection.
pub(super) fn is_unreachable(text: &str) -> bool {
    text.contains("client error (Connect)")
}

/// What a failure, told with its causes, says to a user.
pub(super) fn cause(text: &str) -> String {
    // What stands before says only that a request was sent, and failed.
    let told = ["tcp connect error: ", "client error (Connect): ", "error sending request: "];
    let cause = told.iter().find_map(|told| Some(text.rsplit_once(told)?.1)).unwrap_or(text);
    cause.replacen("dns error", "DNS lookup failed", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn gives_up_what_cannot_be_reached_and_begins_anew() {
        let mut trouble = Trouble::default();
        assert!(!trouble.ends());
        trouble.unreachable_since = Instant::now().checked_sub(2 * UNREACHABLE_FOR);
        assert!(trouble.ends());
        assert!(trouble.ends(), "made at the same time");
        trouble.given_up = Instant::now().checked_sub(2 * LONGEST_PAUSE);
        assert!(!trouble.ends());
    }
}
