//! MD5 as S3 tells it: an object's ETag, where it was sent whole.

use std::fmt;
use std::str::FromStr;

use md5::{Digest as _, Md5};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An MD5; 32 hexadecimal digits when written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// Of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Md5::digest(bytes).into())
    }

    /// The ETag of an object that was sent by parts with these digests.
    pub fn etag_of_parts(parts: &[Self]) -> String {
        let mut digest = Md5::new();
        parts.iter().for_each(|part| digest.update(part.0));
        format!("{}-{}", Self(digest.finalize().into()), parts.len())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Not 32 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no MD5")]
pub struct NoDigest(String);

impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, NoDigest> {
        let mut digest = [0; 16];
        let pairs = text.as_bytes().as_chunks::<2>();
        if pairs.0.len() != digest.len() || !pairs.1.is_empty() {
            return Err(NoDigest(text.to_owned()));
        }
        for (byte, pair) in digest.iter_mut().zip(pairs.0) {
            let value = |c: u8| char::from(c).to_digit(16).map(|v| v as u8);
            let digits = value(pair[0]).zip(value(pair[1]));
            let (high, low) = digits.ok_or_else(|| NoDigest(text.to_owned()))?;
            *byte = high << 4 | low;
        }
        Ok(Self(digest))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_told_as_s3_tells_them() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_string(), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!("900150983CD24FB0D6963F7D28E17F72".parse::<Digest>().unwrap(), digest);
        for bad in ["", "90", "900150983cd24fb0d6963f7d28e17f7g", "é"] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        // Of an upload of the parts `abc` and `abc`.
        let parts = Digest::etag_of_parts(&[digest, digest]);
        assert!(parts.ends_with("-2") && parts.len() == 34);
    }
}
