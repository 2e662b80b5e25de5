//! Certificate authorities that are trusted for TLS: those of the system, and those of the files that the
//! user names. A named file adds to the system's authorities and does not replace them.

use std::env;
use std::path::{Path, PathBuf};

use reqwest::{Certificate, Client};

use super::error::StoreError;
use super::error_chain::with_causes;
use super::limit::read_file;

/// Certificate bundles of common Linux distributions.
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Largest accepted certificate file, in bytes.
const MAX_BUNDLE: u64 = 16 << 20;

/// A file with certificates (PEM), and the setting that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bundle {
    pub named_by: &'static str,
    pub path: PathBuf,
}

impl Bundle {
    /// The file that an environment variable names; `None` if the variable is unset or empty.
    fn from_variable(named_by: &'static str) -> Option<Self> {
        let path = env::var_os(named_by).filter(|path| !path.is_empty())?;
        Some(Self { named_by, path: path.into() })
    }

    /// Reads and checks the certificates.
    ///
    /// # Errors
    /// [`StoreError::BadOption`] if the file has no valid certificate.
    fn read(&self) -> Result<Vec<Certificate>, StoreError> {
        let bad = |reason: String| StoreError::BadOption {
            option: self.named_by,
            value: self.path.display().to_string(),
            reason: format!("{reason}; set it to a file with certificates (PEM)"),
        };
        let certificates = read(&self.path).map_err(&bad)?;
        if certificates.is_empty() {
            return Err(bad("the file has no certificate".to_owned()));
        }
        // reqwest validates certificates when it builds a client.
        let client = Client::builder().tls_certs_only(certificates.clone()).build();
        client.map_err(|error| bad(with_causes(&error)))?;
        Ok(certificates)
    }
}

/// Reads the certificates of a PEM file.
fn read(path: &Path) -> Result<Vec<Certificate>, String> {
    let text = read_file(path, MAX_BUNDLE).map_err(|error| error.to_string())?;
    Certificate::from_pem_bundle(&text).map_err(|error| with_causes(&error))
}

/// The authorities that are trusted in addition to those of the system: from `SSL_CERT_FILE`, and from
/// `AWS_CA_BUNDLE` or, if it is unset, from the `ca_bundle` of the profile.
pub(super) fn extra_roots(profile_bundle: Option<&Bundle>) -> Result<Vec<Certificate>, StoreError> {
    let aws_bundle = Bundle::from_variable("AWS_CA_BUNDLE").or_else(|| profile_bundle.cloned());
    let bundles = [Bundle::from_variable("SSL_CERT_FILE"), aws_bundle];
    let mut roots = Vec::new();
    for bundle in bundles.into_iter().flatten() {
        roots.extend(bundle.read()?);
    }
    // With these variables set, the TLS library does not load the authorities of the system.
    if ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| env::var_os(name).is_some()) {
        let system = SYSTEM_BUNDLES.iter().find_map(|path| read(Path::new(path)).ok());
        roots.extend(system.unwrap_or_default());
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_invalid_bundle_is_named_in_the_error() {
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
