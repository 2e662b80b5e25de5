//! Options of every command.

use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueHint};

use url::Url;

use crate::config::Overrides;
use crate::store::{Addressing, S3Options};

/// Options of every command.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Configuration file [default: $DOR_CONFIG, ./dor.toml, ~/.config/dor/dor.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Profile for S3: `minio`, `source-coop`, or a profile of the AWS configuration file
    #[arg(long, global = true, value_name = "NAME")]
    profile: Option<String>,
    /// URL of the S3 service; not needed for AWS
    #[arg(long, global = true, value_name = "URL", value_hint = ValueHint::Url, value_parser = service)]
    endpoint_url: Option<String>,
    /// Region of the S3 service
    #[arg(long, global = true, value_name = "NAME")]
    region: Option<String>,
    /// Whether S3 requests name the bucket in the path or in the host name
    #[arg(long, global = true, value_name = "STYLE", value_parser = addressing())]
    addressing: Option<Addressing>,
    /// Send S3 requests without credentials, for public buckets
    #[arg(long, global = true)]
    no_sign_request: bool,
    /// Log more to standard error: -v files and retried requests, -vv details, -vvv everything (RUST_LOG takes precedence)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl GlobalArgs {
    /// Number of `-v` flags.
    pub(super) fn verbosity(&self) -> u8 {
        self.verbose
    }

    /// Returns the options as arguments of a command line, for a job script.
    pub(super) fn words(&self) -> Vec<String> {
        let addressing = self.addressing.and_then(|style| serde_json::to_value(style).ok());
        let options = [
            ("--config", self.config.as_ref().map(|path| absolute(path).display().to_string())),
            ("--profile", self.profile.clone()),
            ("--endpoint-url", self.endpoint_url.clone()),
            ("--region", self.region.clone()),
            ("--addressing", addressing.and_then(|style| Some(style.as_str()?.to_owned()))),
        ];
        let options =
            options.into_iter().filter_map(|(flag, value)| Some([flag.to_owned(), value?]));
        let unsigned = self.no_sign_request.then(|| "--no-sign-request".to_owned());
        let verbose = std::iter::repeat_n("--verbose".to_owned(), self.verbosity().into());
        options.flatten().chain(unsigned).chain(verbose).collect()
    }

    /// Returns the options as the top layer of the configuration. Each command adds its own options.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            config: self.config.clone(),
            s3: S3Options {
                profile: self.profile.clone(),
                endpoint_url: self.endpoint_url.clone(),
                region: self.region.clone(),
                addressing: self.addressing,
                no_sign_request: self.no_sign_request.then_some(true),
                ..S3Options::default()
            },
            ..Overrides::default()
        }
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Parses the URL of an S3 service. The storage layer checks the rest, which depends on other settings.
fn service(text: &str) -> Result<String, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match url.scheme() {
        _ if !url.username().is_empty() || url.password().is_some() => {
            Err("a user or password in the URL is not used; set AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY"
                .to_owned())
        }
        "http" | "https" => Ok(text.to_owned()),
        _ => Err("give the http:// or https:// URL of the service".to_owned()),
    }
}

fn addressing() -> impl TypedValueParser<Value = Addressing> {
    PossibleValuesParser::new(["path", "virtual"]).map(|style| match style.as_str() {
        "path" => Addressing::Path,
        _ => Addressing::Virtual,
    })
}
