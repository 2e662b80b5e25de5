//! Resolution of the S3 settings from the options, the AWS environment, the AWS files and the built-in
//! profiles.

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
use crate::model::similar::{did_you_mean, nearest};

/// Region if no setting names one.
const DEFAULT_REGION: &str = "us-east-1";
/// Timeout of a request for instance metadata. It is short, because most machines have no such service.
const METADATA_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

/// A built-in profile, which needs no AWS files.
struct BuiltInProfile {
    name: &'static str,
    endpoint: &'static str,
    /// Whether `AWS_ENDPOINT_URL`, `AWS_REGION` and the AWS files take precedence over the profile.
    is_overridable: bool,
    /// How to renew the credentials.
    advice: &'static str,
}

const BUILT_IN: [BuiltInProfile; 2] = [
    BuiltInProfile {
        name: "minio",
        endpoint: "http://127.0.0.1:9000",
        is_overridable: true,
        advice: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to a key of the MinIO server",
    },
    BuiltInProfile {
        name: "source-coop",
        endpoint: "https://data.source.coop",
        is_overridable: false,
        advice: "log in with `source-coop login`, put `credential_process = source-coop creds` \
                 in the AWS profile source-coop, or set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY \
                 and AWS_SESSION_TOKEN to new values",
    },
];

/// The source of the value of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingSource {
    /// The options: a flag, `DOR_` variable or `dor.toml`.
    Options,
    /// A standard AWS environment variable or file.
    Aws,
    /// The built-in profile of this name.
    Profile(&'static str),
    /// The default.
    Default,
}

/// The effective values of the S3 settings that have other sources than the options, with their source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveSettings {
    /// URL of the server; `None` for AWS.
    pub endpoint_url: (Option<String>, SettingSource),
    /// Region for which requests are signed.
    pub region: (String, SettingSource),
    /// Where a request names the bucket.
    pub addressing: (Addressing, SettingSource),
}

impl EffectiveSettings {
    /// Resolves the options with the AWS environment, the AWS files and the built-in profiles.
    ///
    /// # Errors
    /// [`StoreError::BadOption`] if the profile does not exist, or a setting or an AWS file is invalid.
    pub async fn of(options: &S3Options) -> Result<Self, StoreError> {
        let ResolvedSettings { endpoint, region, addressing, .. } =
            ResolvedSettings::resolve(options).await?;
        let endpoint_url = match endpoint {
            Some((url, source)) => (Some(url), source),
            None => (None, SettingSource::Default),
        };
        Ok(Self { endpoint_url, region, addressing })
    }
}

/// All resolved settings of an S3 session.
pub(super) struct ResolvedSettings {
    /// URL of the server and its source; `None` for AWS.
    pub endpoint: Option<(String, SettingSource)>,
    pub region: (String, SettingSource),
    pub addressing: (Addressing, SettingSource),
    /// How to renew the credentials.
    pub advice: String,
    /// `ca_bundle` of the profile; `None` if it has none.
    pub bundle: Option<Bundle>,
    /// Name of the profile if it was created by `aws login`; `None` otherwise.
    login: Option<String>,
    built_in: Option<&'static BuiltInProfile>,
    profile: Option<String>,
}

impl ResolvedSettings {
    /// Resolves the settings.
    ///
    /// # Errors
    /// As [`EffectiveSettings::of`].
    pub(super) async fn resolve(options: &S3Options) -> Result<Self, StoreError> {
        FILES.into_iter().try_for_each(check_aws_file)?;
        let from_environment = || variable("AWS_PROFILE");
        let profile = options.profile.clone().or_else(from_environment);
        let built_in = BUILT_IN.iter().find(|built_in| Some(built_in.name) == profile.as_deref());
        let unavailable = match (built_in, &profile) {
            (None, Some(name)) => why_unavailable(name).await,
            _ => None,
        };
        if let (Some(reason), Some(name)) = (&unavailable, &options.profile) {
            let (value, reason) = (name.clone(), reason.clone());
            return Err(StoreError::BadOption { option: "profile", value, reason });
        }
        let sdk = match built_in {
            Some(BuiltInProfile { is_overridable: false, .. }) => None,
            _ => Some(shared_settings(profile.as_deref()).await),
        };
        let profile_source = built_in.map(|built_in| SettingSource::Profile(built_in.name));
        let from_options = |value: &String| (value.clone(), SettingSource::Options);
        let from_aws = |value: String| (value, SettingSource::Aws);
        let endpoint = options
            .endpoint_url
            .as_ref()
            .map(from_options)
            .or_else(|| sdk.as_ref().and_then(shared_endpoint).map(from_aws))
            .or_else(|| Some((built_in?.endpoint.to_owned(), profile_source?)));
        let shared_region = || sdk.as_ref().and_then(SdkConfig::region).map(ToString::to_string);
        let region = options
            .region
            .as_ref()
            .map(from_options)
            .or_else(|| shared_region().map(from_aws))
            .unwrap_or_else(|| (DEFAULT_REGION.to_owned(), SettingSource::Default));
        // The region becomes part of a header.
        if region.0.chars().any(char::is_control) {
            let reason = "it contains a control character".to_owned();
            return Err(StoreError::BadOption { option: "region", value: region.0, reason });
        }
        let addressing = match (options.addressing, &endpoint) {
            (Some(addressing), _) => (addressing, SettingSource::Options),
            (None, Some(_)) => (Addressing::Path, profile_source.unwrap_or(SettingSource::Default)),
            (None, None) => (Addressing::Virtual, SettingSource::Default),
        };
        let advice = match (built_in, &profile) {
            (Some(built_in), _) => built_in.advice.to_owned(),
            (None, Some(name)) => match unavailable {
                Some(reason) => format!("AWS_PROFILE is `{name}`, but {reason}"),
                None => format!(
                    "renew the credentials of the AWS profile {name}, for example with `aws sso login --profile {name}`"
                ),
            },
            (None, None) => "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and \
                             AWS_SESSION_TOKEN, if they are temporary), name a profile, or read a \
                             public bucket with --no-sign-request"
                .to_owned(),
        };
        let files = load_files().await.ok();
        let file_profile = files.as_ref().and_then(|files| {
            files.get_profile(profile.as_deref().unwrap_or_else(|| files.selected_profile()))
        });
        let file_setting = |key: &str| file_profile?.get(key).filter(|value| !value.is_empty());
        let bundle = file_setting("ca_bundle");
        let bundle = bundle.map(|path| Bundle { named_by: "ca_bundle", path: path.into() });
        let login = file_setting("login_session").and(file_profile);
        let login = login.map(|profile| profile.name().to_owned());
        let advice = match &login {
            Some(name) => format!(
                "dor cannot read the credentials of `aws login`: run `eval \"$(aws configure export-credentials --profile {name} \
                 --format env)\"`, or name a profile with the line `credential_process = aws configure \
                 export-credentials --profile {name} --format process`"
            ),
            None => advice,
        };
        let profile = options.profile.clone();
        Ok(Self { endpoint, region, addressing, advice, bundle, login, built_in, profile })
    }

    /// Whether the service is Source Cooperative, by its profile or its endpoint.
    pub(super) fn is_source_coop(&self) -> bool {
        self.built_in.is_some_and(|built_in| built_in.name == "source-coop")
            || self.endpoint.as_ref().is_some_and(|(url, _)| url.contains("data.source.coop"))
    }

    /// The provider of the credentials. It uses `http` for requests to credential services.
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
            (Some(built_in), _) => SharedCredentialsProvider::new(
                CredentialsProviderChain::first_try("Profile", from_files(built_in.name))
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

/// Provider for a profile of `aws login`. It always fails, because only the AWS tools can read these
/// credentials.
#[derive(Debug)]
struct LoginProfile(String);

impl ProvideCredentials for LoginProfile {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let problem = format!("the AWS profile {} uses `aws login`", self.0);
        future::ProvideCredentials::ready(Err(CredentialsError::not_loaded(problem)))
    }
}

/// The value of an environment variable; `None` if it is unset or empty.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Variables that name the AWS files.
const FILES: [&str; 2] = ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"];
/// Largest accepted AWS file, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// Checks that the AWS file that a variable names is a regular file of limited size. The AWS SDK would read
/// a device without end.
fn check_aws_file(name: &'static str) -> Result<(), StoreError> {
    let Some(path) = variable(name).filter(|path| path != "/dev/null") else { return Ok(()) };
    let is_rejected = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
    };
    // The SDK reports other errors, such as an absent file.
    match read_file(Path::new(&path), MAX_FILE).err().filter(is_rejected) {
        Some(error) => {
            Err(StoreError::BadOption { option: name, value: path, reason: error.to_string() })
        }
        None => Ok(()),
    }
}

/// Loads the profiles of the AWS files.
async fn load_files() -> Result<ProfileSet, ProfileFileLoadError> {
    profile::load(&Fs::real(), &Env::real(), &Default::default(), None).await
}

/// The reason why a profile cannot be used; `None` if the AWS files have it.
async fn why_unavailable(name: &str) -> Option<String> {
    let profiles = match load_files().await {
        Ok(profiles) => profiles,
        Err(error) => return Some(with_causes(&error)),
    };
    if profiles.get_profile(name).is_some() {
        return None;
    }
    let file = |name: &str, default: &str| variable(name).unwrap_or(default.to_owned());
    let names = names(&profiles);
    let all = format!("available profiles: {}", names.join(", "));
    Some(format!(
        "there is no such profile in {} or {}; {}",
        file("AWS_CONFIG_FILE", "~/.aws/config"),
        file("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
        did_you_mean(nearest(name, names).as_deref(), &all)
    ))
}

/// The names of the built-in profiles and those of the AWS files, in alphabetical order.
fn names(profiles: &ProfileSet) -> Vec<String> {
    let built_in = BUILT_IN.iter().map(|built_in| built_in.name);
    let mut names: Vec<_> = profiles.profiles().chain(built_in).map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The names of all profiles, in alphabetical order: only the built-in ones if the AWS files cannot be read.
pub async fn profile_names() -> Vec<String> {
    let no_files = || BUILT_IN.iter().map(|built_in| built_in.name.to_owned()).collect();
    load_files().await.map_or_else(|_| no_files(), |profiles| names(&profiles))
}

/// Loads the settings of the environment and the AWS files, without a request to instance metadata for the
/// region.
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
