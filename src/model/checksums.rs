//! Checksums of an object, computed once when the program creates it.
//!
//! They are the SHA-256 of the object, as printed by `sha256sum`, and the MD5 of each part of a
//! multipart upload. The MD5s give `Content-MD5` of each part and the ETag of the object on S3.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use md5::{Digest as _, Md5};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;

use super::hex;

/// An MD5 digest; its text form has 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Md5Digest(pub [u8; 16]);

impl Md5Digest {
    /// The digest of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Md5::digest(bytes).into())
    }
}

impl From<Md5> for Md5Digest {
    fn from(md5: Md5) -> Self {
        Self(md5.finalize().into())
    }
}

impl fmt::Display for Md5Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The error of a text that is not an MD5, or not an ETag that consists of MD5s.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not an MD5")]
pub struct ParseDigestError(String);

impl FromStr for Md5Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let mut digest = [0; 16];
        let pairs = text.as_bytes().as_chunks::<2>();
        if pairs.0.len() != digest.len() || !pairs.1.is_empty() {
            return Err(ParseDigestError(text.to_owned()));
        }
        for (byte, pair) in digest.iter_mut().zip(pairs.0) {
            let value = |c: u8| char::from(c).to_digit(16).map(|v| v as u8);
            let digits = value(pair[0]).zip(value(pair[1]));
            let (high, low) = digits.ok_or_else(|| ParseDigestError(text.to_owned()))?;
            *byte = high << 4 | low;
        }
        Ok(Self(digest))
    }
}

/// The ETag of an object on S3.
///
/// After an upload in one request, it is the MD5 of the object; after a multipart upload, it is the
/// MD5 of the MD5s of the parts, with their number (`…-3`).
/// [Source](https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ETag {
    digest: Md5Digest,
    /// Number of parts of a multipart upload; 0 after an upload in one request.
    parts: u32,
}

impl ETag {
    /// The MD5 of the object; `None` after a multipart upload.
    pub fn whole(&self) -> Option<Md5Digest> {
        (self.parts == 0).then_some(self.digest)
    }

    /// Whether the object was uploaded in parts.
    pub fn is_multipart(&self) -> bool {
        self.parts > 0
    }

    /// Whether both objects were uploaded in the same number of parts, so that different ETags mean
    /// different bytes.
    pub fn is_comparable(&self, other: &Self) -> bool {
        self.parts == other.parts
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts {
            0 => self.digest.fmt(f),
            parts => write!(f, "{}-{parts}", self.digest),
        }
    }
}

impl FromStr for ETag {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let Some((digest, parts)) = text.split_once('-') else {
            return Ok(Self { digest: text.parse()?, parts: 0 });
        };
        match parts.parse() {
            Ok(parts @ 1..) => Ok(Self { digest: digest.parse()?, parts }),
            _ => Err(ParseDigestError(text.to_owned())),
        }
    }
}

/// Implements serde for a type with a text form.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(TextVisitor(PhantomData))
            }
        }
    };
}

serde_as_text!(Md5Digest);
serde_as_text!(ETag);

/// Parses text without an allocation: a manifest has millions of digests.
struct TextVisitor<T>(PhantomData<T>);

impl<T: FromStr<Err = ParseDigestError>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an MD5")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// The part size in bytes for an object of `size` bytes, with the configured part size `usual`.
///
/// S3 allows 10,000 parts: for an object that would need more, the result is the smallest sufficient
/// number of whole MiB.
pub fn part_size(usual: u64, size: u64) -> u64 {
    const MOST: u64 = 10_000;
    usual.max(size.div_ceil(MOST).next_multiple_of(1 << 20))
}

/// Whether an object of `size` bytes is divided into the same parts with both configured part sizes.
pub fn has_same_parts(size: u64, one: u64, other: u64) -> bool {
    let (one, other) = (part_size(one, size), part_size(other, size));
    one == other || size <= one.min(other)
}

/// The MD5 of each part of an object.
///
/// JSON has a text for one part, whose MD5 is that of the object, and a list for several parts.
///
/// ```
/// use dor_atlas::model::{Md5Digest, Parts};
///
/// const MIB: usize = 1 << 20;
/// let parts = Parts::of(&vec![0; 12 * MIB], 5 * MIB as u64);
/// assert_eq!(parts.digests().len(), 3);
/// assert!(parts.etag().to_string().ends_with("-3"));
/// // The ETag of an object with one part is its MD5.
/// let small = Parts::of(b"a", 5 * MIB as u64);
/// assert_eq!(small.etag().whole(), Some(Md5Digest::of(b"a")));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parts {
    /// The MD5 of an object that is not larger than a part.
    One(Md5Digest),
    /// The MD5s of the parts, in their order.
    Several(Arc<[Md5Digest]>),
}

impl Parts {
    /// The MD5s of the parts of `bytes`, with the configured part size `usual`.
    pub fn of(bytes: &[u8], usual: u64) -> Self {
        let mut hasher = PartHasher::new(usual, bytes.len() as u64);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The MD5s of the parts, in their order.
    pub fn digests(&self) -> &[Md5Digest] {
        match self {
            Self::One(digest) => std::slice::from_ref(digest),
            Self::Several(digests) => digests,
        }
    }

    /// Whether the number of parts is that of an object of `size` bytes with the configured part size
    /// `usual`.
    pub fn fit(&self, usual: u64, size: u64) -> bool {
        let number = size.div_ceil(part_size(usual, size).max(1)).max(1);
        usual > 0 && self.digests().len() as u64 == number
    }

    /// The ETag of the object after an upload with these parts.
    pub fn etag(&self) -> ETag {
        match self {
            Self::One(digest) => ETag { digest: *digest, parts: 0 },
            Self::Several(digests) => {
                let mut md5 = Md5::new();
                digests.iter().for_each(|part| md5.update(part.0));
                ETag { digest: md5.into(), parts: u32::try_from(digests.len()).unwrap_or(u32::MAX) }
            }
        }
    }
}

impl Serialize for Parts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(digest) => digest.serialize(serializer),
            Self::Several(digests) => serializer.collect_seq(digests.iter()),
        }
    }
}

impl<'de> Deserialize<'de> for Parts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrSeveral;

        impl<'de> Visitor<'de> for OneOrSeveral {
            type Value = Parts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an MD5, or a list of the MD5s of several parts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Parts, E> {
                text.parse().map(Parts::One).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Parts, A::Error> {
                let mut digests = Vec::with_capacity(list.size_hint().unwrap_or_default().min(64));
                while let Some(digest) = list.next_element()? {
                    digests.push(digest);
                }
                Ok(Parts::Several(digests.into()))
            }
        }

        deserializer.deserialize_any(OneOrSeveral)
    }
}

impl FromIterator<Md5Digest> for Parts {
    fn from_iter<I: IntoIterator<Item = Md5Digest>>(digests: I) -> Self {
        let digests: Vec<Md5Digest> = digests.into_iter().collect();
        match digests[..] {
            [] => Self::One(Md5Digest::of(&[])),
            [one] => Self::One(one),
            _ => Self::Several(digests.into()),
        }
    }
}

/// Computes the MD5 of each part of an object from a stream of bytes.
pub struct PartHasher {
    part_size: u64,
    /// State of the current part.
    md5: Md5,
    /// Bytes that the current part lacks.
    remaining: u64,
    /// MD5s of the previous parts.
    finished: Vec<Md5Digest>,
}

impl PartHasher {
    /// Creates a hasher for an object of `size` bytes with the configured part size `usual`.
    pub fn new(usual: u64, size: u64) -> Self {
        let part_size = part_size(usual, size).max(1);
        Self { part_size, md5: Md5::new(), remaining: part_size, finished: Vec::new() }
    }

    /// Adds the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.remaining == 0 {
                self.finished.push(std::mem::take(&mut self.md5).into());
                self.remaining = self.part_size;
            }
            let len = usize::try_from(self.remaining).map_or(bytes.len(), |n| n.min(bytes.len()));
            let (part, rest) = bytes.split_at(len);
            self.md5.update(part);
            self.remaining -= len as u64;
            bytes = rest;
        }
    }

    /// The MD5s of all parts.
    pub fn finish(self) -> Parts {
        let Self { md5, finished, .. } = self;
        finished.into_iter().chain([md5.into()]).collect()
    }
}

/// Size and checksums of an object. The manifest that contains them states the part size once.
///
/// ```
/// use dor_atlas::model::Checksums;
///
/// let checksums = Checksums::of(b"abc", 5 << 20);
/// assert_eq!(checksums.size, 3);
/// assert!(checksums.sha256.starts_with("ba7816bf"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksums {
    /// Size of the object in bytes.
    pub size: u64,
    /// SHA-256 of the object, in hexadecimal.
    pub sha256: String,
    /// MD5 of each part.
    pub md5: Parts,
}

impl Checksums {
    /// The checksums of bytes, with the configured part size `usual`.
    pub fn of(bytes: &[u8], usual: u64) -> Self {
        Self::with_parts(bytes, Parts::of(bytes, usual))
    }

    /// The checksums of bytes whose parts are already hashed.
    pub fn with_parts(bytes: &[u8], md5: Parts) -> Self {
        Self { size: bytes.len() as u64, sha256: hex(&Sha256::digest(bytes)), md5 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_and_etags_have_the_text_form_of_s3() {
        let digest = Md5Digest::of(b"abc");
        assert_eq!(digest.to_string(), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!("900150983CD24FB0D6963F7D28E17F72".parse::<Md5Digest>().unwrap(), digest);
        for bad in ["", "90", "900150983cd24fb0d6963f7d28e17f7g", "é"] {
            assert!(bad.parse::<Md5Digest>().is_err(), "{bad}");
        }
        for bad in
            ["-2", "900150983cd24fb0d6963f7d28e17f72-0", "900150983cd24fb0d6963f7d28e17f72-x"]
        {
            assert!(bad.parse::<ETag>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_etag_of_parts_equals_that_of_s3() {
        let zeros = vec![0; 12 << 20];
        for (size, etag) in [
            (12 << 20, "4e982d58b6c2ce178ae042c23f9bca6e-3"),
            (5 << 20, "5f363e0e58a95f06cbe9bbc662c5dfb6"),
            (0, "d41d8cd98f00b204e9800998ecf8427e"),
        ] {
            let parts = Parts::of(&zeros[..size], 5 << 20);
            assert_eq!(parts.etag().to_string(), etag);
            assert_eq!(etag.parse::<ETag>().unwrap(), parts.etag());
            assert!(parts.fit(5 << 20, size as u64));
            assert_eq!(parts.fit(1 << 20, size as u64), size == 0);
        }
    }

    #[test]
    fn pieces_of_any_length_give_the_parts() {
        let data: Vec<u8> = (0..1000_u32).map(|n| ((n * n) >> 3) as u8).collect();
        let mib = 1 << 20;
        for size in [0, 1, 63, 64, 65, 500, 1000] {
            for piece in [1, 7, 64, 1000] {
                // `PartHasher::new` gives parts of at least 1 MiB.
                let mut hasher =
                    PartHasher { part_size: 64, remaining: 64, ..PartHasher::new(mib, 0) };
                data[..size].chunks(piece).for_each(|piece| hasher.update(piece));
                let parts: Parts = data[..size].chunks(64).map(Md5Digest::of).collect();
                assert_eq!(hasher.finish(), parts, "{size} {piece}");
            }
        }
    }

    #[test]
    fn records_have_text_for_one_part_and_a_list_for_several() {
        let read = |json: &str| serde_json::from_str::<Checksums>(json).unwrap();
        let one = Checksums::of(b"abc", 1 << 20);
        let json = serde_json::to_value(&one).unwrap();
        assert_eq!(json["md5"], "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(
            json["sha256"],
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(read(&json.to_string()), one);
        let several = Checksums::of(&vec![0; (2 << 20) + 1], 1 << 20);
        let json = serde_json::to_value(&several).unwrap();
        assert_eq!(json["md5"].as_array().unwrap().len(), 3);
        assert_eq!(read(&json.to_string()), several);
    }

    #[test]
    fn an_object_has_at_most_the_parts_that_s3_allows() {
        let usual = 16 << 20;
        assert_eq!(part_size(usual, 0), usual);
        assert_eq!(part_size(usual, 10_000 * usual), usual);
        for size in [10_000 * usual + 1, 5 << 40] {
            let part = part_size(usual, size);
            assert!(part > usual && part.is_multiple_of(1 << 20), "{part}");
            assert!(size.div_ceil(part) <= 10_000, "{part}");
        }
        assert!(has_same_parts(3, 4, 5) && !has_same_parts(5 << 20, 4 << 20, 6 << 20));
        assert!(has_same_parts(5 << 40, 5 << 20, 16 << 20), "both part sizes are raised");
    }
}
