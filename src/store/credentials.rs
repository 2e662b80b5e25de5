//! Credentials for all requests: taken from aws-config's chain once, kept, and renewed before
//! they expire by one request while the others go on with what there is.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tokio::sync::Mutex;
use tracing::{debug, warn};

use super::error::{CredentialsProblem, CredentialsUnavailable};
use super::error_chain::with_causes;

const MARGIN: Duration = Duration::from_secs(300);
/// How long to leave a source alone that failed while its last credentials are still good.
const PAUSE: Duration = Duration::from_secs(10);

pub(super) struct Credentials {
    source: SharedCredentialsProvider,
    held: RwLock<Option<CachedCredentials>>,
    renewing: Mutex<()>,
}

#[derive(Clone)]
struct CachedCredentials {
    credential: Arc<AwsCredential>,
    expires: Option<SystemTime>,
    renew_from: Option<SystemTime>,
    since: SystemTime,
}

impl CachedCredentials {
    fn is_fresh(&self) -> bool {
        self.renew_from.is_none_or(|from| SystemTime::now() < from)
    }

    fn is_usable(&self) -> bool {
        self.expires.is_none_or(|expires| SystemTime::now() < expires)
    }
}

impl Credentials {
    pub(super) fn new(source: SharedCredentialsProvider) -> Self {
        Self { source, held: RwLock::default(), renewing: Mutex::default() }
    }

    fn held(&self) -> Option<CachedCredentials> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hold(&self, held: Option<CachedCredentials>) {
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = held;
    }

    /// Until when the credentials are good; `None` when they do not expire.
    pub(super) async fn expiry(&self) -> Result<Option<SystemTime>, CredentialsUnavailable> {
        Ok(self.current().await?.expires)
    }

    /// After a server has called them expired: whether a new try may go better.
    pub(super) fn renew_if_older(&self, than: SystemTime) -> bool {
        let Some(held) = self.held().filter(|held| held.expires.is_some()) else {
            return false;
        };
        if held.since < than {
            self.hold(None);
        }
        true
    }

    async fn current(&self) -> Result<CachedCredentials, CredentialsUnavailable> {
        let usable = match self.held() {
            Some(held) if held.is_fresh() => return Ok(held),
            held => held.filter(CachedCredentials::is_usable),
        };
        let _one_at_a_time = match (usable, self.renewing.try_lock()) {
            (_, Ok(guard)) => guard,
            (Some(usable), Err(_)) => return Ok(usable),
            (None, Err(_)) => self.renewing.lock().await,
        };
        match self.held() {
            Some(held) if held.is_fresh() => return Ok(held),
            _ => {}
        }
        let failure = match self.renew().await {
            Ok(held) => {
                self.hold(Some(held.clone()));
                return Ok(held);
            }
            Err(failure) => failure,
        };
        let Some(mut held) = self.held().filter(CachedCredentials::is_usable) else {
            return Err(failure);
        };
        warn!(error = %failure, "credentials could not be renewed; the last are still good");
        held.renew_from = Some(SystemTime::now() + PAUSE);
        self.hold(Some(held.clone()));
        Ok(held)
    }

    async fn renew(&self) -> Result<CachedCredentials, CredentialsUnavailable> {
        let new =
            self.source.provide_credentials().await.map_err(|error| CredentialsUnavailable {
                problem: match &error {
                    CredentialsError::CredentialsNotLoaded(_) => CredentialsProblem::Missing,
                    CredentialsError::ProviderTimedOut(_) => CredentialsProblem::Unanswered,
                    _ => problem_of(&with_causes(&error)),
                },
                // It goes over several lines.
                detail: with_causes(&error).split_whitespace().collect::<Vec<_>>().join(" "),
            })?;
        let since = SystemTime::now();
        let expires = new.expiry();
        let life = expires.map(|expires| expires.duration_since(since).unwrap_or_default());
        if life == Some(Duration::ZERO) {
            let detail = "their source gave expired ones".to_owned();
            return Err(CredentialsUnavailable { problem: CredentialsProblem::Expired, detail });
        }
        debug!(?life, "credentials loaded");
        let renew_from = life.map(|life| since + life.saturating_sub(MARGIN.min(life / 5)));
        let told = [new.access_key_id(), new.session_token().unwrap_or_default()];
        if told.iter().any(|text| text.chars().any(char::is_control)) {
            let detail = "the access key or the session token has a control character".to_owned();
            return Err(CredentialsUnavailable { problem: CredentialsProblem::Rejected, detail });
        }
        let credential = Arc::new(AwsCredential {
            key_id: new.access_key_id().to_owned(),
            secret_key: new.secret_access_key().to_owned(),
            token: new.session_token().map(str::to_owned),
        });
        Ok(CachedCredentials { credential, expires, renew_from, since })
    }
}

/// What is wrong when a source of credentials says this.
fn problem_of(said: &str) -> CredentialsProblem {
    const PASSING: [&str; 7] = [
        "timed out",
        "timeout",
        "dispatch failure",
        "connection re",
        "throttl",
        "too many requests",
        "unavailable",
    ];
    let said = said.to_lowercase();
    match () {
        () if said.contains("expired") => CredentialsProblem::Expired,
        () if PASSING.iter().any(|words| said.contains(words)) => CredentialsProblem::Unanswered,
        () => CredentialsProblem::Missing,
    }
}

#[async_trait]
impl CredentialProvider for Credentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        match self.current().await {
            Ok(held) => Ok(held.credential),
            Err(source) => {
                Err(object_store::Error::Generic { store: "S3", source: Box::new(source) })
            }
        }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_go_better_later_is_told_from_what_must_be_mended() {
        use CredentialsProblem::{Expired, Missing, Unanswered};
        for (said, problem) in [
            ("an error occurred while loading credentials: dispatch failure: io error", Unanswered),
            ("service error: Throttling: Rate exceeded", Unanswered),
            ("credential_process: HTTP 503 Service Unavailable", Unanswered),
            ("The SSO session has expired, or timed out", Expired),
            ("credential_process returned 1: no such user", Missing),
        ] {
            assert_eq!(problem_of(said), problem, "{said}");
        }
    }
}
