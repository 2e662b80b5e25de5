//! Locations of data, in the form in which a user writes them.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// A location of data: a path, `file://`, `s3://bucket/prefix` or `https://` (read-only; `http://` only
/// for this machine). It displays in the form that it is parsed from; `file://` displays as a path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Location(Address);

/// The parsed form of a [`Location`]. A prefix has no slash at its ends; `""` is the root.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Address {
    Memory { prefix: String },
    Local { path: PathBuf },
    S3 { bucket: String, prefix: String },
    Http { url: Url },
}

/// The error for a text that is not a location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a location: {reason}; give a path, file://, s3://bucket/prefix or https://"
)]
pub struct LocationError {
    /// The text, without credentials.
    pub text: String,
    /// Why it is not a location.
    pub reason: String,
}

impl Location {
    /// The root of a store in memory.
    pub(super) fn memory() -> Self {
        Self(Address::Memory { prefix: String::new() })
    }

    /// The parsed form.
    pub(super) fn address(&self) -> &Address {
        &self.0
    }

    /// The location at the path `relative` (`/`-separated) below this one.
    #[must_use]
    pub fn join(&self, relative: &str) -> Self {
        let relative = relative.trim_matches('/');
        if relative.is_empty() {
            return self.clone();
        }
        let join = |prefix: &str| match prefix {
            "" => relative.to_owned(),
            prefix => format!("{prefix}/{relative}"),
        };
        Self(match &self.0 {
            Address::Memory { prefix } => Address::Memory { prefix: join(prefix) },
            Address::Local { path } => Address::Local { path: path.join(relative) },
            Address::S3 { bucket, prefix } => {
                Address::S3 { bucket: bucket.clone(), prefix: join(prefix) }
            }
            Address::Http { url } => {
                let mut url = url.clone();
                if let Ok(mut segments) = url.path_segments_mut() {
                    segments.pop_if_empty().extend(relative.split('/'));
                }
                Address::Http { url }
            }
        })
    }

    /// Whether the location is on a local disk.
    pub fn is_local(&self) -> bool {
        self.local_path().is_some()
    }

    /// The path of a location on a local disk; `None` for any other.
    pub fn local_path(&self) -> Option<&Path> {
        match &self.0 {
            Address::Local { path } => Some(path),
            _ => None,
        }
    }

    /// The canonical text of the location, without a slash at the end. On disk, symbolic links are
    /// resolved; the path need not exist.
    pub fn canonical(&self) -> String {
        let text = match &self.0 {
            Address::Local { path } => canonical(path).display().to_string(),
            _ => self.to_string(),
        };
        text.trim_end_matches('/').to_owned()
    }

    /// The location with an absolute path, which does not depend on the working directory.
    #[must_use]
    pub fn absolute(&self) -> Self {
        match &self.0 {
            Address::Local { path } => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                Self(Address::Local { path })
            }
            _ => self.clone(),
        }
    }

    /// The path from `folder` to this location, `/`-separated; `None` if this location is not below
    /// `folder`, or is neither on disk nor on S3. On disk, symbolic links are resolved.
    pub fn below(&self, folder: &Self) -> Option<String> {
        let relative = match (&self.0, &folder.0) {
            (Address::Local { path }, Address::Local { path: folder }) => {
                canonical(path).strip_prefix(canonical(folder)).ok()?.to_str()?.to_owned()
            }
            (Address::S3 { bucket, prefix }, Address::S3 { bucket: other, prefix: folder })
                if bucket == other =>
            {
                let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
                prefix.strip_prefix(&folder)?.to_owned()
            }
            _ => return None,
        };
        Some(relative).filter(|relative| !relative.is_empty())
    }

    /// Whether two locations are the same, or one is below the other. On disk, symbolic links are resolved.
    pub fn overlaps(&self, other: &Self) -> bool {
        let [a, b] = [self, other].map(|location| format!("{}/", location.canonical()));
        a.starts_with(&b) || b.starts_with(&a)
    }

    /// Resolves a relative path against `folder`; any other location stays unchanged.
    #[must_use]
    pub fn seen_from(&self, folder: &Self) -> Self {
        match &self.0 {
            Address::Local { path } if path.is_relative() => {
                folder.join(&path.display().to_string())
            }
            _ => self.clone(),
        }
    }

    /// The last segment of the path; `None` for a root, a whole bucket or a whole host.
    pub fn file_name(&self) -> Option<&str> {
        match &self.0 {
            Address::Memory { prefix } | Address::S3 { prefix, .. } => prefix.rsplit('/').next(),
            Address::Local { path } => path.file_name().and_then(|name| name.to_str()),
            Address::Http { url } => {
                url.path_segments().and_then(|mut segments| segments.next_back())
            }
        }
        .filter(|name| !name.is_empty())
    }

    /// The parent location; `None` for a root, a whole bucket or a whole host.
    pub fn parent(&self) -> Option<Self> {
        self.file_name()?;
        let parent =
            |prefix: &str| prefix.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
        Some(Self(match &self.0 {
            Address::Memory { prefix } => Address::Memory { prefix: parent(prefix) },
            Address::Local { path } => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                Address::Local { path: parent.unwrap_or(Path::new(".")).to_owned() }
            }
            Address::S3 { bucket, prefix } => {
                Address::S3 { bucket: bucket.clone(), prefix: parent(prefix) }
            }
            Address::Http { url } => {
                let mut url = url.clone();
                if let Ok(mut segments) = url.path_segments_mut() {
                    segments.pop();
                }
                Address::Http { url }
            }
        }))
    }
}

/// The absolute path with symbolic links and `..` resolved. The path need not exist.
fn canonical(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut resolved = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::ParentDir => _ = resolved.pop(),
            other => resolved.push(other),
        }
        resolved = resolved.canonicalize().unwrap_or(resolved);
    }
    resolved
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        parse(text).map(Self).map_err(|reason| {
            let text = without_user(text);
            LocationError { text, reason }
        })
    }
}

/// Parses a location. The error is the reason why the text is not one.
fn parse(text: &str) -> Result<Address, String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return match text.split_once(':') {
            Some((scheme @ ("s3" | "file" | "http" | "https"), _)) => {
                Err(format!("`//` is missing after `{scheme}:`"))
            }
            _ => local(PathBuf::from(text)),
        };
    };
    match scheme {
        "s3" => parse_s3(rest),
        "file" => Url::parse(text)
            .map_err(|error| error.to_string())?
            .to_file_path()
            .map_err(|()| "file:// needs an absolute path on this machine: file:///data".into())
            .and_then(local),
        "http" | "https" => parse_http(text),
        _ => Err(format!("{scheme}:// is not supported")),
    }
}

/// Checks a local path. The root of the disk is rejected, because `file://$FOLDER` with an unset variable
/// names it.
fn local(path: PathBuf) -> Result<Address, String> {
    if path.is_absolute() && !path.components().any(|part| matches!(part, Component::Normal(_))) {
        return Err("it is the root of the disk, not a folder on it".into());
    }
    Ok(Address::Local { path })
}

/// Parses the text after `s3://`.
fn parse_s3(rest: &str) -> Result<Address, String> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if bucket.is_empty() || !bucket.chars().all(is_allowed) {
        let bucket = bucket.rsplit_once('@').map_or(bucket, |(_, bucket)| bucket);
        return Err(format!("`{bucket}` cannot be the name of a bucket"));
    }
    let prefix = prefix.trim_end_matches('/');
    if prefix.split('/').any(|part| matches!(part, "." | ".."))
        || (!prefix.is_empty() && prefix.split('/').any(str::is_empty))
    {
        return Err("a prefix must not have empty, `.` or `..` segments".into());
    }
    Ok(Address::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

/// Parses an `http://` or `https://` URL.
fn parse_http(text: &str) -> Result<Address, String> {
    let mut url = Url::parse(text).map_err(|error| error.to_string())?;
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err("plain http is accepted only for this machine (localhost); use https://".into());
    }
    if url.query().is_some() || url.fragment().is_some() || has_user(&url) {
        return Err("a URL with a user, password, query or fragment is not accepted".into());
    }
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty();
    }
    Ok(Address::Http { url })
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Address::Memory { prefix } => write!(f, "memory:{prefix}"),
            Address::Local { path } => path.display().fmt(f),
            Address::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Address::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Address::Http { url } => url.fmt(f),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({self})")
    }
}

impl TryFrom<String> for Location {
    type Error = LocationError;

    fn try_from(text: String) -> Result<Self, LocationError> {
        text.parse()
    }
}

impl From<Location> for String {
    fn from(location: Location) -> Self {
        location.to_string()
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Self(Address::Local { path })
    }
}

/// Whether a URL has a user or a password.
pub(super) fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// The text that replaces a secret.
pub(crate) const HIDDEN: &str = "***";

/// Replaces user, password and query of each URL in a text by [`HIDDEN`], because they may contain
/// credentials. It also recognizes `USER:PASSWORD@HOST` without `://`.
pub(crate) fn without_user(text: &str) -> String {
    // A URL ends at white space, a control character, a quote or an angle bracket. Other brackets may be
    // part of a password.
    let is_end = |c: char| c.is_whitespace() || c.is_control() || "`'\"<>".contains(c);
    let redact = |word: &str| match (word.split_once("://"), word.rsplit_once('@')) {
        // Several URLs in one word: hides everything up to the last host.
        (Some((scheme, urls)), Some((_, host))) if urls.contains("://") => {
            format!("{scheme}://{HIDDEN}@{host}")
        }
        (Some((scheme, url)), _) => format!("{scheme}://{}", url_without_user(url)),
        (None, Some((user, host))) if user.contains(':') => format!("{HIDDEN}@{host}"),
        (None, _) => word.to_owned(),
    };
    let mut redacted = String::with_capacity(text.len());
    for piece in text.split_inclusive(is_end) {
        let end = piece.chars().next_back().filter(|c| is_end(*c)).map_or(0, char::len_utf8);
        let (word, end) = piece.split_at(piece.len() - end);
        redacted.push_str(&redact(word));
        redacted.push_str(end);
    }
    redacted
}

/// Redacts the part of a URL after `://`.
fn url_without_user(url: &str) -> String {
    let authority = url.find(['/', '?', '#']).unwrap_or(url.len());
    let (host, path) = url.split_at(authority);
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    // Text after a colon that is not a port is the beginning of a password that contains a slash.
    let may_be_user = host.rsplit_once(':').is_some_and(|(_, port)| !is_port(port));
    let user = match host.rfind('@') {
        None if may_be_user && !host.starts_with('[') => url.rfind('@'),
        user => user,
    };
    let (host, path) = match user {
        Some(user) => (format!("{HIDDEN}@"), &url[user + 1..]),
        None => (host.to_owned(), path),
    };
    match path.split_once('?') {
        // A final `?` without a query is the punctuation of a sentence.
        Some((path, query)) if !query.is_empty() => format!("{host}{path}?{HIDDEN}"),
        _ => host + path,
    }
}

/// Whether the host of a URL is this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Location {
        text.parse().unwrap()
    }

    #[test]
    fn displays_as_written() {
        for text in ["data/raw", "/data/my case/x.nc", ".", "s3://b", "s3://b/p/q", "https://h/a/b"]
        {
            assert_eq!(at(text).to_string(), text);
            let json = serde_json::to_string(&at(text)).unwrap();
            assert_eq!(serde_json::from_str::<Location>(&json).unwrap(), at(text));
        }
        assert_eq!(at("file:///data/my%20case").to_string(), "/data/my case");
        assert_eq!(at("s3://b/p/"), at("s3://b/p"));
    }

    #[test]
    fn has_the_same_canonical_text_in_all_spellings() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(real.join("a/b")).unwrap();
        std::os::unix::fs::symlink("a", real.join("link")).unwrap();
        let canonical = real.join("a/b").display().to_string();
        for text in ["a/b", "a/b/", "a/b//", "link/b", "link/b/../b", "./a/./b"] {
            assert_eq!(at(&format!("{}/{text}", real.display())).canonical(), canonical, "{text}");
        }
        assert_eq!(
            at(&format!("{}/link/absent", real.display())).canonical(),
            canonical[..canonical.len() - 1].to_owned() + "absent"
        );
        assert_eq!(at("s3://b/p/").canonical(), "s3://b/p");
    }

    #[test]
    fn joins_and_splits() {
        for root in ["/data", "rel", "s3://b", "s3://b/p", "https://h/d", "http://127.0.0.1:9/d"] {
            let file = at(root).join("a b/c.nc");
            assert_eq!(file.file_name(), Some("c.nc"));
            assert_eq!(file.parent().unwrap().parent().unwrap(), at(root), "{root}");
        }
        assert_eq!(at("s3://b/p").join("x/").to_string(), "s3://b/p/x");
        assert_eq!(at("https://h/d").join("a b").to_string(), "https://h/d/a%20b");
        assert_eq!(at("file.nc").parent().unwrap(), at("."));
        for root in ["s3://b", "https://h"] {
            assert_eq!((at(root).file_name(), at(root).parent()), (None, None), "{root}");
        }
    }

    #[test]
    fn a_relative_path_leads_to_the_same_file_in_a_moved_folder() {
        let folder = tempfile::tempdir().unwrap();
        let here = at(folder.path().to_str().unwrap());
        for (inner, outer) in [(here.join("a/b"), here), (at("s3://b/p/a/b"), at("s3://b/p"))] {
            let relative = inner.below(&outer).unwrap();
            assert_eq!(relative, "a/b");
            let moved = at("s3://other/place");
            assert_eq!(at(&relative).seen_from(&moved), moved.join("a/b"));
            assert_eq!(inner.seen_from(&moved), inner, "it is not relative");
            assert_eq!(outer.below(&inner), None);
            assert_eq!(outer.below(&outer), None);
        }
        assert_eq!(at("s3://b/pq").below(&at("s3://b/p")), None);
        assert_eq!(at("s3://c/p/a").below(&at("s3://b/p")), None);
        assert_eq!(at("s3://b/p/a").below(&at("s3://b")).as_deref(), Some("p/a"));
    }

    #[test]
    fn rejects_invalid_locations() {
        for (text, reason) in [
            ("", "empty"),
            ("gs://b/p", "gs://"),
            ("s3:/b/p", "`//`"),
            ("s3://", "bucket"),
            ("s3://key:secret@b/p", "`b` cannot"),
            ("https://me:secret@h/x", "a user"),
            ("https://:secret@h/x", "password"),
            ("https://me:sec/secret@h/x", "port"),
            ("https://me:secret@h /x", "domain"),
            ("http://me:secret@example.org/x", "plain http"),
            ("gs://me:secret@b", "gs://"),
            ("s3://b/p//q", "segments"),
            ("s3://b/../q", "segments"),
            ("http://example.org/x", "plain http"),
            ("https://h/x?sig=1", "query"),
            ("file://host/x", "this machine"),
            ("file://", "root of the disk"),
            ("file:///", "root of the disk"),
            ("/", "root of the disk"),
            ("//./..", "root of the disk"),
        ] {
            let error = text.parse::<Location>().unwrap_err();
            assert!(error.to_string().contains(reason), "{text}: {error}");
            assert!(!error.to_string().contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn users_passwords_and_queries_are_hidden_wherever_a_url_stands() {
        for (text, expected) in [
            ("https://me:pw@host/a", "https://***@host/a"),
            ("`https://:pw@host:9/a` is none", "`https://***@host:9/a` is none"),
            ("https://host/a?X-Amz-Signature=f00", "https://host/a?***"),
            ("https://me:p@w@ho st/a", "https://***@ho st/a"),
            ("https://me:p/w@host/a", "https://***@host/a"),
            ("a s3://me@b/x and https://u:p@h", "a s3://***@b/x and https://***@h"),
            ("s3://bucket/a@b", "s3://bucket/a@b"),
            ("https://host:80/a@b", "https://host:80/a@b"),
            ("https://[::1]:80/a", "https://[::1]:80/a"),
            ("is it https://host/a?", "is it https://host/a?"),
            ("no URL: a@b", "no URL: a@b"),
            ("me:pw@127.0.0.1:9", "***@127.0.0.1:9"),
            ("value 'http:/me:pw@h' for", "value '***@h' for"),
            ("https:me:pw@h", "***@h"),
            ("me@host:place", "me@host:place"),
            ("a=https://me:pw@h,b=https://me:pw@k", "a=https://***@k"),
        ] {
            assert_eq!(without_user(text), expected);
        }
    }
}
