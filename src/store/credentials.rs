//! Cache of the credentials for all requests.
//!
//! The credentials come from the provider chain of aws-config. One request renews them before they
//! expire; the others use the cached ones meanwhile.

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

/// How long before their expiry credentials are renewed: at most this, and at most a fifth of their life.
const MARGIN: Duration = Duration::from_secs(300);
/// Pause after a failed renewal while the cached credentials are still valid.
const PAUSE: Duration = Duration::from_secs(10);

/// Credentials of one source, cached and renewed.
pub(super) struct Credentials {
    source: SharedCredentialsProvider,
    cached: RwLock<Option<CachedCredentials>>,
    /// Held by the request that renews.
    renewing: Mutex<()>,
}

#[derive(Clone)]
struct CachedCredentials {
    credential: Arc<AwsCredential>,
    /// `None` for credentials that do not expire.
    expires: Option<SystemTime>,
    /// When the next renewal is due; `None` for never.
    renew_from: Option<SystemTime>,
    loaded: SystemTime,
}

impl CachedCredentials {
    /// Whether no renewal is due.
    fn is_fresh(&self) -> bool {
        self.renew_from.is_none_or(|from| SystemTime::now() < from)
    }

    /// Whether the credentials have not expired.
    fn is_usable(&self) -> bool {
        self.expires.is_none_or(|expires| SystemTime::now() < expires)
    }
}

impl Credentials {
    pub(super) fn new(source: SharedCredentialsProvider) -> Self {
        Self { source, cached: RwLock::default(), renewing: Mutex::default() }
    }

    fn cached(&self) -> Option<CachedCredentials> {
        self.cached.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_cached(&self, cached: Option<CachedCredentials>) {
        *self.cached.write().unwrap_or_else(PoisonError::into_inner) = cached;
    }

    /// When the credentials expire; `None` if they do not.
    pub(super) async fn expiry(&self) -> Result<Option<SystemTime>, CredentialsUnavailable> {
        Ok(self.current().await?.expires)
    }

    /// Drops credentials that were loaded before `time`, after a server has reported them as expired.
    /// Returns whether the request is worth repeating: false for credentials that do not expire.
    pub(super) fn renew_if_older(&self, time: SystemTime) -> bool {
        let Some(cached) = self.cached().filter(|cached| cached.expires.is_some()) else {
            return false;
        };
        if cached.loaded < time {
            self.set_cached(None);
        }
        true
    }

    /// The cached credentials, or new ones if a renewal is due.
    async fn current(&self) -> Result<CachedCredentials, CredentialsUnavailable> {
        let usable = match self.cached() {
            Some(cached) if cached.is_fresh() => return Ok(cached),
            cached => cached.filter(CachedCredentials::is_usable),
        };
        let _renewal = match (usable, self.renewing.try_lock()) {
            (_, Ok(guard)) => guard,
            (Some(usable), Err(_)) => return Ok(usable),
            (None, Err(_)) => self.renewing.lock().await,
        };
        // Another request may have renewed them while this one waited for the lock.
        match self.cached() {
            Some(cached) if cached.is_fresh() => return Ok(cached),
            _ => {}
        }
        let failure = match self.renew().await {
            Ok(renewed) => {
                self.set_cached(Some(renewed.clone()));
                return Ok(renewed);
            }
            Err(failure) => failure,
        };
        let Some(mut cached) = self.cached().filter(CachedCredentials::is_usable) else {
            return Err(failure);
        };
        warn!(error = %failure, "cannot renew the credentials; the current ones are still valid");
        cached.renew_from = Some(SystemTime::now() + PAUSE);
        self.set_cached(Some(cached.clone()));
        Ok(cached)
    }

    /// Loads credentials from the source and checks them.
    async fn renew(&self) -> Result<CachedCredentials, CredentialsUnavailable> {
        let new =
            self.source.provide_credentials().await.map_err(|error| CredentialsUnavailable {
                problem: match &error {
                    CredentialsError::CredentialsNotLoaded(_) => CredentialsProblem::Missing,
                    CredentialsError::ProviderTimedOut(_) => CredentialsProblem::Unanswered,
                    _ => problem_of(&with_causes(&error)),
                },
                // The text of the SDK has line breaks.
                detail: with_causes(&error).split_whitespace().collect::<Vec<_>>().join(" "),
            })?;
        let loaded = SystemTime::now();
        let expires = new.expiry();
        let life = expires.map(|expires| expires.duration_since(loaded).unwrap_or_default());
        if life == Some(Duration::ZERO) {
            let detail = "the source returned expired credentials".to_owned();
            return Err(CredentialsUnavailable { problem: CredentialsProblem::Expired, detail });
        }
        debug!(?life, "credentials loaded");
        let renew_from = life.map(|life| loaded + life.saturating_sub(MARGIN.min(life / 5)));
        let header_values = [new.access_key_id(), new.session_token().unwrap_or_default()];
        if header_values.iter().any(|text| text.chars().any(char::is_control)) {
            let detail =
                "the access key or the session token contains a control character".to_owned();
            return Err(CredentialsUnavailable { problem: CredentialsProblem::Rejected, detail });
        }
        let credential = Arc::new(AwsCredential {
            key_id: new.access_key_id().to_owned(),
            secret_key: new.secret_access_key().to_owned(),
            token: new.session_token().map(str::to_owned),
        });
        Ok(CachedCredentials { credential, expires, renew_from, loaded })
    }
}

/// Classifies the error text of a source of credentials.
fn problem_of(text: &str) -> CredentialsProblem {
    const TRANSIENT: [&str; 7] = [
        "timed out",
        "timeout",
        "dispatch failure",
        "connection re",
        "throttl",
        "too many requests",
        "unavailable",
    ];
    let text = text.to_lowercase();
    match () {
        () if text.contains("expired") => CredentialsProblem::Expired,
        () if TRANSIENT.iter().any(|words| text.contains(words)) => CredentialsProblem::Unanswered,
        () => CredentialsProblem::Missing,
    }
}

#[async_trait]
impl CredentialProvider for Credentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        match self.current().await {
            Ok(cached) => Ok(cached.credential),
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
    fn transient_failures_are_distinguished_from_permanent_ones() {
        use CredentialsProblem::{Expired, Missing, Unanswered};
        for (text, problem) in [
            ("an error occurred while loading credentials: dispatch failure: io error", Unanswered),
            ("service error: Throttling: Rate exceeded", Unanswered),
            ("credential_process: HTTP 503 Service Unavailable", Unanswered),
            ("The SSO session has expired, or timed out", Expired),
            ("credential_process returned 1: no such user", Missing),
        ] {
            assert_eq!(problem_of(text), problem, "{text}");
        }
    }
}
