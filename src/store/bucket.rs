//! S3 clients: one per bucket. All buckets share one [`Session`] with its credentials.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::provider::SharedCredentialsProvider;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{BackoffConfig, RetryConfig};
use tokio::sync::OnceCell;
use url::{Host, Url};

use super::aws_http::AwsHttp;
use super::ca_certificates::{self, Bundle};
use super::credentials::Credentials;
use super::error::{CredentialsUnavailable, StoreError};
use super::error_chain::with_causes;
use super::http_client::{ClientStats, Connector, LONGEST_PAUSE};
use super::location::{has_user, is_loopback, without_user};
use super::options::{Addressing, S3Options};
use super::profile::ResolvedSettings;

/// Longest time for all attempts of a request. Every attempt has the signature of the first, so the last
/// one must arrive before the signature expires.
const RETRY_FOR: Duration = Duration::from_secs(180);
/// A pause between attempts is drawn uniformly from the range between the first pause and this many
/// times the previous pause. Below e, the pauses do not grow on average.
const BACKOFF: f64 = 5.0;

/// Settings, credentials and counters that all buckets share.
pub(super) struct Session {
    pub options: S3Options,
    /// Source of credentials that replaces the search of the AWS SDK; `None` for the search.
    source: Option<SharedCredentialsProvider>,
    settings: OnceCell<ResolvedSettings>,
    credentials: OnceCell<Arc<Credentials>>,
    pub(super) stats: Arc<ClientStats>,
}

impl Session {
    pub(super) fn new(options: S3Options, source: Option<SharedCredentialsProvider>) -> Self {
        let (settings, credentials) = (OnceCell::new(), OnceCell::new());
        Self { options, source, settings, credentials, stats: Arc::default() }
    }

    async fn settings(&self) -> Result<&ResolvedSettings, StoreError> {
        self.settings.get_or_try_init(|| ResolvedSettings::resolve(&self.options)).await
    }

    /// The credentials; `None` for unsigned requests.
    pub(super) async fn credentials(&self) -> Result<Option<&Arc<Credentials>>, StoreError> {
        if self.options.is_anonymous() {
            return Ok(None);
        }
        let load = async || {
            let source = match &self.source {
                Some(source) => source.clone(),
                None => {
                    let settings = self.settings().await?;
                    settings.credentials(self.aws_http(settings)?).await
                }
            };
            Ok(Arc::new(Credentials::new(source)))
        };
        self.credentials.get_or_try_init(load).await.map(Some)
    }

    /// When the credentials expire; `None` for unsigned requests and for credentials that do not expire.
    ///
    /// # Errors
    /// [`StoreError::Credentials`] if they cannot be loaded.
    pub(super) async fn expiry(&self) -> Result<Option<SystemTime>, StoreError> {
        let Some(credentials) = self.credentials().await? else {
            return Ok(None);
        };
        let advice = self.settings().await?.advice.clone();
        credentials.expiry().await.map_err(|CredentialsUnavailable { problem, detail }| {
            StoreError::Credentials { url: "s3://".into(), problem, detail, advice }
        })
    }

    /// The retry policy of the S3 client.
    pub(super) fn retry(&self) -> RetryConfig {
        RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(200),
                max_backoff: LONGEST_PAUSE,
                base: BACKOFF,
            },
            max_retries: self.options.max_retries(),
            retry_timeout: RETRY_FOR,
        }
    }

    /// The HTTP client for services that issue credentials.
    fn aws_http(&self, settings: &ResolvedSettings) -> Result<AwsHttp, StoreError> {
        let connector = Connector {
            stats: Arc::default(),
            timeout: self.options.timeout(),
            connect_timeout: self.options.connect_timeout(),
            // Credential services on this machine use http. The SDK knows which URLs are allowed.
            plain: true,
            direct: false,
            roots: ca_certificates::extra_roots(settings.bundle.as_ref())?,
        };
        let failed = |error: reqwest::Error| StoreError::BadOption {
            option: "the HTTP client for credentials",
            value: "TLS".to_owned(),
            reason: with_causes(&error),
        };
        let direct = Connector { direct: true, ..connector.clone() }.client().map_err(failed)?;
        Ok(AwsHttp { proxied: connector.client().map_err(failed)?, direct })
    }

    /// Options of the HTTP client for a server; `bundle` is the certificate file of the profile.
    pub(super) fn connector(
        &self,
        server: &Url,
        bundle: Option<&Bundle>,
    ) -> Result<Connector, StoreError> {
        Ok(Connector {
            stats: Arc::clone(&self.stats),
            timeout: self.options.timeout(),
            connect_timeout: self.options.connect_timeout(),
            plain: server.scheme() == "http",
            direct: is_loopback(server),
            roots: ca_certificates::extra_roots(bundle)?,
        })
    }
}

/// One bucket. Its client is created on first use.
pub(super) struct Bucket {
    pub name: String,
    pub session: Arc<Session>,
    client: OnceCell<Arc<AmazonS3>>,
}

impl Bucket {
    pub(super) fn new(name: String, session: Arc<Session>) -> Self {
        Self { name, session, client: OnceCell::new() }
    }

    /// The client of the bucket.
    pub(super) async fn client(&self) -> Result<Arc<AmazonS3>, StoreError> {
        self.client.get_or_try_init(|| self.connect()).await.cloned()
    }

    /// The endpoint of the bucket, and the advice on how to renew the credentials, for messages.
    pub(super) fn endpoint_and_advice(&self) -> (&str, &str) {
        self.session.settings.get().map_or(("AWS", ""), |settings| {
            (
                settings.endpoint.as_ref().map_or("AWS", |(url, _)| url.as_str()),
                settings.advice.as_str(),
            )
        })
    }

    /// Whether the service is Source Cooperative, where a bucket is an account. False until the settings
    /// have been resolved.
    pub(super) fn is_source_coop(&self) -> bool {
        self.session.settings.get().is_some_and(ResolvedSettings::is_source_coop)
    }

    /// The URL of the bucket itself and the region that requests are signed for.
    pub(super) async fn url_and_region(&self) -> Result<(String, String), StoreError> {
        let settings = self.session.settings().await?;
        let path_style = self.is_path_style(settings);
        let region = settings.region.0.clone();
        let url = match &settings.endpoint {
            Some((text, _)) => endpoint_for(text, &self.name, path_style)?,
            None if path_style => format!("https://s3.{region}.amazonaws.com"),
            None => format!("https://{}.s3.{region}.amazonaws.com", self.name),
        };
        let url = if path_style { format!("{url}/{}", self.name) } else { url };
        Ok((url, region))
    }

    /// Options of the HTTP client for the bucket's server.
    pub(super) async fn connector(&self) -> Result<Connector, StoreError> {
        let settings = self.session.settings().await?;
        let (url, _) = self.url_and_region().await?;
        let url = Url::parse(&url).map_err(|error| StoreError::BadOption {
            option: "endpoint_url",
            value: without_user(&url),
            reason: error.to_string(),
        })?;
        self.session.connector(&url, settings.bundle.as_ref())
    }

    fn is_path_style(&self, settings: &ResolvedSettings) -> bool {
        settings.addressing.0 == Addressing::Path || self.name.contains('.')
    }

    /// Drops credentials that were loaded before `time`, after a server has reported them as expired.
    /// Returns whether the request is worth repeating.
    pub(super) fn renew_if_older(&self, time: SystemTime) -> bool {
        let credentials = self.session.credentials.get();
        credentials.is_some_and(|credentials| credentials.renew_if_older(time))
    }

    async fn connect(&self) -> Result<Arc<AmazonS3>, StoreError> {
        let settings = self.session.settings().await?;
        let path_style = self.is_path_style(settings);
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&self.name)
            .with_region(&settings.region.0)
            .with_virtual_hosted_style_request(!path_style)
            .with_retry(self.session.retry())
            // Content-MD5 protects the body. A signed SHA-256 of the body would take more time.
            .with_unsigned_payload(true)
            // Source Cooperative answers DeleteObjects with 404.
            .with_disable_bulk_delete(true);
        if let Some((text, _)) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint_for(text, &self.name, path_style)?);
        }
        builder = builder.with_http_connector(self.connector().await?);
        builder = match self.session.credentials().await? {
            Some(credentials) => builder.with_credentials(Arc::clone(credentials) as _),
            None => builder.with_skip_signature(true),
        };
        let client = builder.build().map_err(|source| StoreError::Library {
            url: format!("s3://{}", self.name),
            action: "set up a client",
            source,
        })?;
        Ok(Arc::new(client))
    }
}

/// The endpoint URL in the form of `AmazonS3Builder`: for virtual-host style with the bucket in the host
/// name.
///
/// # Errors
/// [`StoreError::BadOption`] if the URL is invalid, has a user, or uses http to another machine.
fn endpoint_for(text: &str, bucket: &str, path_style: bool) -> Result<String, StoreError> {
    let bad = |reason: &str| StoreError::BadOption {
        option: "endpoint_url",
        value: without_user(text),
        reason: reason.to_owned(),
    };
    let mut url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
    if has_user(&url) {
        return Err(bad(
            "a URL with a user or password is not accepted: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ));
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err(bad("plain http is accepted only for this machine (localhost); use https://"));
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("it must start with https:// (or http:// for this machine)"));
    }
    if !path_style {
        if !matches!(url.host(), Some(Host::Domain(_))) {
            return Err(StoreError::BadOption {
                option: "addressing",
                value: "virtual".to_owned(),
                reason: format!(
                    "{text} has an IP address, which cannot take a bucket as a subdomain; use path (DOR_S3_ADDRESSING=path) or a host name"
                ),
            });
        }
        let host = format!("{bucket}.{}", url.host_str().unwrap_or_default());
        url.set_host(Some(&host)).map_err(|error| bad(&error.to_string()))?;
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_of_a_busy_server_last_at_least_a_minute() {
        let retry = Session::new(S3Options::default(), None).retry();
        assert_eq!((retry.max_retries, retry.retry_timeout), (10, RETRY_FOR));
        // The median of a pause is about half of its greatest value.
        let pauses =
            std::iter::successors(Some(0.2), |pause| Some((pause * BACKOFF / 2.0).min(15.0)));
        assert!(pauses.take(10).sum::<f64>() > 60.0);
        let options = S3Options { max_retries: Some(1), ..S3Options::default() };
        assert_eq!(Session::new(options, None).retry().max_retries, 1);
    }

    #[test]
    fn endpoint_by_style() {
        let of = |text, path_style| endpoint_for(text, "b", path_style).unwrap();
        assert_eq!(of("https://h:9/", true), "https://h:9");
        assert_eq!(of("https://h:9", false), "https://b.h:9");
        assert_eq!(of("http://127.0.0.1:9000", true), "http://127.0.0.1:9000");
        assert_eq!(of("http://localhost:9000", false), "http://b.localhost:9000");
        for address in ["http://127.0.0.1:9000", "https://[::1]:9000"] {
            let error = endpoint_for(address, "b", false).unwrap_err().to_string();
            assert!(error.contains(address) && error.contains("use path"), "{error}");
        }
        for (text, reason) in [
            ("http://minio.example:9000", "plain http"),
            ("h:9000", "https://"),
            ("h", "relative"),
            ("https://me:pass@h", "user or password"),
            ("https://:pass@h", "user or password"),
            ("https://me:pass@h:x", "port"),
        ] {
            let error = endpoint_for(text, "b", true).unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains("pass@"), "{error}");
        }
    }
}
