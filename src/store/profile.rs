//! Where S3 is and who asks: the options, the AWS environment and files, and the profiles that
//! are built in, as one.

use std::path::Path;
use std::{env, io};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::environment::{
    EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider,
};
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{
    self, ProfileFileCredentialsProvider, ProfileFileLoadError, ProfileFileRegionProvider,
    ProfileSet,
};
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig, imds};
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_types::os_shim_internal::{Env, Fs};
use aws_types::service_config::ServiceConfigKey;

use super::aws_http::AwsHttp;
use super::ca_certificates::Bundle;
use super::error::StoreError;
use super::error_chain::with_causes;
use super::limit::read_file;
use super::options::{Addressing, S3Options};

const DEFAULT_REGION: &str = "us-east-1";
/// A laptop has no instance metadata: asking for it must not look like a hang.
const METADATA_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

/// A profile that needs no AWS files.
struct BuiltInProfile {
    name: &'static str,
    endpoint: &'static str,
    /// Whether `AWS_ENDPOINT_URL`, `AWS_REGION` and the AWS files may say otherwise.
    yields: bool,
    advice: &'static str,
}

const BUILT_IN: [BuiltInProfile; 2] = [
    BuiltInProfile {
        name: "minio",
        endpoint: "http://127.0.0.1:9000",
        yields: true,
        advice: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to a key of the MinIO server",
    },
    BuiltInProfile {
        name: "source-coop",
        endpoint: "https://data.source.coop",
        yields: false,
        advice: "log in with `source-coop login`, put `credential_process = source-coop creds` \
                 in the AWS profile source-coop, or set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY \
                 and AWS_SESSION_TOKEN anew",
    },
];

/// Who decides on a setting that the options leave open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingSource {
    /// The options do not leave it open.
    Options,
    /// A standard AWS variable or file.
    Aws,
    /// A profile that is built in.
    Profile(&'static str),
    /// Nobody: the default.
    Default,
}

/// The settings of S3 that others than the options can decide on, as they are in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveSettings {
    /// Endpoint; `None` for that of AWS.
    pub endpoint_url: (Option<String>, SettingSource),
    /// Region.
    pub region: (String, SettingSource),
    /// Addressing.
    pub addressing: (Addressing, SettingSource),
}

impl EffectiveSettings {
    /// Resolves the options with the AWS environment, the AWS files and the built-in profiles.
    pub async fn of(options: &S3Options) -> Result<Self, StoreError> {
        let ResolvedSettings { endpoint, region, addressing, .. } =
            ResolvedSettings::resolve(options).await?;
        let endpoint_url = match endpoint {
            Some((url, decider)) => (Some(url), decider),
            None => (None, SettingSource::Default),
        };
        Ok(Self { endpoint_url, region, addressing })
    }
}

/// S3 as it will be spoken to.
pub(super) struct ResolvedSettings {
    /// Endpoint, region and addressing, and who decided on them.
    pub endpoint: Option<(String, SettingSource)>,
    pub region: (String, SettingSource),
    pub addressing: (Addressing, SettingSource),
    /// How to renew the credentials.
    pub advice: String,
    /// `ca_bundle` of the profile.
    pub bundle: Option<Bundle>,
    /// Name of the profile, if it is one of `aws login`.
    login: Option<String>,
    built_in: Option<&'static BuiltInProfile>,
    profile: Option<String>,
}

impl ResolvedSettings {
    pub(super) async fn resolve(options: &S3Options) -> Result<Self, StoreError> {
        FILES.into_iter().try_for_each(refuse_endless)?;
        let of_environment = || variable("AWS_PROFILE");
        let profile = options.profile.clone().or_else(of_environment);
        let built_in = BUILT_IN.iter().find(|known| Some(known.name) == profile.as_deref());
        let absent = match (built_in, &profile) {
            (None, Some(name)) => absent(name).await,
            _ => None,
        };
        if let (Some(reason), Some(name)) = (&absent, &options.profile) {
            let (value, reason) = (name.clone(), reason.clone());
            return Err(StoreError::BadOption { option: "profile", value, reason });
        }
        let sdk = match built_in {
            Some(BuiltInProfile { yields: false, .. }) => None,
            _ => Some(shared_settings(profile.as_deref()).await),
        };
        let of_profile = built_in.map(|known| SettingSource::Profile(known.name));
        let by_options = |url: &String| (url.clone(), SettingSource::Options);
        let by_aws = |value: String| (value, SettingSource::Aws);
        let endpoint = options
            .endpoint_url
            .as_ref()
            .map(by_options)
            .or_else(|| sdk.as_ref().and_then(shared_endpoint).map(by_aws))
            .or_else(|| Some((built_in?.endpoint.to_owned(), of_profile?)));
        let shared_region = || sdk.as_ref().and_then(SdkConfig::region).map(ToString::to_string);
        let region = options
            .region
            .as_ref()
            .map(by_options)
            .or_else(|| shared_region().map(by_aws))
            .unwrap_or_else(|| (DEFAULT_REGION.to_owned(), SettingSource::Default));
        // It becomes a part of a header.
        if region.0.chars().any(char::is_control) {
            let reason = "it has a control character".to_owned();
            return Err(StoreError::BadOption { option: "region", value: region.0, reason });
        }
        let addressing = match (options.addressing, &endpoint) {
            (Some(addressing), _) => (addressing, SettingSource::Options),
            (None, Some(_)) => (Addressing::Path, of_profile.unwrap_or(SettingSource::Default)),
            (None, None) => (Addressing::Virtual, SettingSource::Default),
        };
        let advice = match (built_in, &profile) {
            (Some(known), _) => known.advice.to_owned(),
            (None, Some(name)) => match absent {
                Some(absent) => format!("AWS_PROFILE is `{name}`, but {absent}"),
                None => format!(
                    "renew those of the AWS profile {name}, e.g. `aws sso login --profile {name}`"
                ),
            },
            (None, None) => "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and \
                             AWS_SESSION_TOKEN, if they are temporary), name a profile, or read a \
                             public bucket with --no-sign-request"
                .to_owned(),
        };
        let files = load_files().await.ok();
        let known = files.as_ref().and_then(|files| {
            files.get_profile(profile.as_deref().unwrap_or_else(|| files.selected_profile()))
        });
        let of_file = |key: &str| known?.get(key).filter(|value| !value.is_empty());
        let bundle = of_file("ca_bundle");
        let bundle = bundle.map(|path| Bundle { named_by: "ca_bundle", path: path.into() });
        let login = of_file("login_session").and(known).map(|known| known.name().to_owned());
        let advice = match &login {
            Some(name) => format!(
                "dor cannot read what `aws login` keeps: run `eval \"$(aws configure export-credentials --profile {name} \
                 --format env)\"`, or name a profile with the line `credential_process = aws configure \
                 export-credentials --profile {name} --format process`"
            ),
            None => advice,
        };
        let profile = options.profile.clone();
        Ok(Self { endpoint, region, addressing, advice, bundle, login, built_in, profile })
    }

    /// Whether the service is Source Cooperative, by its profile or its address.
    pub(super) fn is_source_coop(&self) -> bool {
        self.built_in.is_some_and(|known| known.name == "source-coop")
            || self.endpoint.as_ref().is_some_and(|(url, _)| url.contains("data.source.coop"))
    }

    /// Where credentials come from; what has to be asked for is asked for through `http`.
    pub(super) async fn credentials(&self, http: AwsHttp) -> SharedCredentialsProvider {
        let region = Region::new(self.region.0.clone());
        let config = ProviderConfig::without_region()
            .with_region(Some(region.clone()))
            .with_http_client(http);
        let from_files = |name: &str| {
            ProfileFileCredentialsProvider::builder().configure(&config).profile_name(name).build()
        };
        if let Some(name) = &self.login {
            let environment = EnvironmentVariableCredentialsProvider::new();
            let login = LoginProfile(name.clone());
            return match self.profile {
                Some(_) => SharedCredentialsProvider::new(login),
                None => SharedCredentialsProvider::new(
                    CredentialsProviderChain::first_try("Environment", environment)
                        .or_else("Profile", login),
                ),
            };
        }
        match (self.built_in, &self.profile) {
            (Some(known), _) => SharedCredentialsProvider::new(
                CredentialsProviderChain::first_try("Profile", from_files(known.name))
                    .or_else("Environment", EnvironmentVariableCredentialsProvider::new()),
            ),
            (None, Some(name)) => SharedCredentialsProvider::new(from_files(name)),
            (None, None) => {
                let metadata = imds::Client::builder()
                    .configure(&config)
                    .connect_timeout(METADATA_WAIT)
                    .read_timeout(METADATA_WAIT)
                    .max_attempts(2)
                    .build();
                let chain = DefaultCredentialsChain::builder().configure(config);
                let chain = chain.region(region).imds_client(metadata);
                SharedCredentialsProvider::new(chain.build().await)
            }
        }
    }
}

/// A profile of `aws login`, whose credentials only the AWS tools read.
#[derive(Debug)]
struct LoginProfile(String);

impl ProvideCredentials for LoginProfile {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let problem = format!("the AWS profile {} is one of `aws login`", self.0);
        future::ProvideCredentials::ready(Err(CredentialsError::not_loaded(problem)))
    }
}

/// What a variable says; an empty one says nothing.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Variables that name the AWS files.
const FILES: [&str; 2] = ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"];
/// Bytes of the longest AWS file.
const LONGEST: u64 = 16 << 20;

/// Refuses what the AWS SDK would read without end in place of one of its files.
fn refuse_endless(name: &'static str) -> Result<(), StoreError> {
    let Some(path) = variable(name).filter(|path| path != "/dev/null") else { return Ok(()) };
    let is_odd = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
    };
    // The SDK says what else is wrong.
    match read_file(Path::new(&path), LONGEST).err().filter(is_odd) {
        Some(error) => {
            Err(StoreError::BadOption { option: name, value: path, reason: error.to_string() })
        }
        None => Ok(()),
    }
}

async fn load_files() -> Result<ProfileSet, ProfileFileLoadError> {
    profile::load(&Fs::real(), &Env::real(), &Default::default(), None).await
}

/// Why a profile that is not built in cannot be used: `None` when the AWS files have it.
async fn absent(name: &str) -> Option<String> {
    let known = match load_files().await {
        Ok(known) => known,
        Err(error) => return Some(with_causes(&error)),
    };
    if known.get_profile(name).is_some() {
        return None;
    }
    let file = |name: &str, default: &str| variable(name).unwrap_or(default.to_owned());
    let mut names: Vec<_> = known.profiles().chain(BUILT_IN.iter().map(|b| b.name)).collect();
    names.sort_unstable();
    names.dedup();
    Some(format!(
        "there is no such profile in {} or {}; there are {}",
        file("AWS_CONFIG_FILE", "~/.aws/config"),
        file("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
        names.join(", ")
    ))
}

/// The environment and the AWS files, without asking instance metadata for the region.
async fn shared_settings(profile: Option<&str>) -> SdkConfig {
    let mut files = ProfileFileRegionProvider::builder();
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).no_credentials();
    if let Some(name) = profile {
        files = files.profile_name(name);
        loader = loader.profile_name(name);
    }
    let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(files.build());
    loader.region(region).load().await
}

/// `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, and `endpoint_url` of the profile or its services.
fn shared_endpoint(sdk: &SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id("S3")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok()?;
    sdk.service_config()?.load_config(key).filter(|url| !url.is_empty())
}
