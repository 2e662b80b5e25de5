//! Authorities whose word is taken for a server: those of the system, and those that somebody names for
//! servers of their own. A name adds to what there is; it replaces nothing.

use std::env;
use std::path::{Path, PathBuf};

use reqwest::{Certificate, Client};

use super::error::StoreError;
use super::error_chain::with_causes;
use super::limit::read_file;

/// Where systems keep theirs.
const OF_SYSTEM: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Bytes of the longest file of certificates.
const LONGEST: u64 = 16 << 20;

/// A file with certificates, and who names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bundle {
    pub named_by: &'static str,
    pub path: PathBuf,
}

impl Bundle {
    /// What a variable names; an empty one names nothing.
    fn of_variable(named_by: &'static str) -> Option<Self> {
        let path = env::var_os(named_by).filter(|path| !path.is_empty())?;
        Some(Self { named_by, path: path.into() })
    }

    fn read(&self) -> Result<Vec<Certificate>, StoreError> {
        let bad = |reason: String| StoreError::BadOption {
            option: self.named_by,
            value: self.path.display().to_string(),
            reason: format!("{reason}; it names a file with certificates (PEM)"),
        };
        let found = read(&self.path).map_err(&bad)?;
        if found.is_empty() {
            return Err(bad("there is no certificate in it".to_owned()));
        }
        // What is inside is looked at when a client is made.
        let client = Client::builder().tls_certs_only(found.clone()).build();
        client.map_err(|error| bad(with_causes(&error)))?;
        Ok(found)
    }
}

fn read(path: &Path) -> Result<Vec<Certificate>, String> {
    let text = read_file(path, LONGEST).map_err(|error| error.to_string())?;
    Certificate::from_pem_bundle(&text).map_err(|error| with_causes(&error))
}

/// Authorities that are trusted beside those of the system: `SSL_CERT_FILE`, and `AWS_CA_BUNDLE`, which goes
/// before that of a profile.
pub(super) fn named(of_profile: Option<&Bundle>) -> Result<Vec<Certificate>, StoreError> {
    let of_aws = Bundle::of_variable("AWS_CA_BUNDLE").or_else(|| of_profile.cloned());
    let bundles = [Bundle::of_variable("SSL_CERT_FILE"), of_aws];
    let mut roots = Vec::new();
    for bundle in bundles.into_iter().flatten() {
        roots.extend(bundle.read()?);
    }
    // The client below takes what these name in place of what the system has.
    if ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| env::var_os(name).is_some()) {
        let of_system = OF_SYSTEM.iter().find_map(|path| read(Path::new(path)).ok());
        roots.extend(of_system.unwrap_or_default());
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_bundle_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            Bundle { named_by: "AWS_CA_BUNDLE", path }
        };
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let absent = Bundle { named_by: "AWS_CA_BUNDLE", path: folder.path().join("absent") };
        let zeros = Bundle { named_by: "AWS_CA_BUNDLE", path: "/dev/zero".into() };
        let huge = at("huge", "");
        fs::File::options().write(true).open(&huge.path).unwrap().set_len(1 << 40).unwrap();
        for bundle in
            [absent, zeros, huge, at("text", "none"), at("empty", ""), at("broken", broken)]
        {
            let error = bundle.read().unwrap_err().to_string();
            let name = bundle.path.display().to_string();
            assert!(error.contains("AWS_CA_BUNDLE") && error.contains(&name), "{error}");
        }
    }
}
