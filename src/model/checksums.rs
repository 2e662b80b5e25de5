//! Checksums of an object, taken once, when it is made: the SHA-256 of the whole, as `sha256sum`
//! prints it, and the MD5 of each part that it has when it is sent to S3 in parts. From these follow
//! `Content-MD5` of each part and the ETag that S3 gives the object.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use md5::{Digest as _, Md5};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;

use super::hex;

/// An MD5; 32 hexadecimal digits when written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Md5Digest(pub [u8; 16]);

impl Md5Digest {
    /// Of bytes.
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

/// Not an MD5, or not an ETag made of MD5s.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no MD5")]
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

/// What S3 calls a version of an object: the MD5 of its bytes, or, where it went in parts, the MD5 of
/// their MD5s and their number (`…-3`).
/// [Source](https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ETag {
    digest: Md5Digest,
    /// 0 where the object went whole.
    parts: u32,
}

impl ETag {
    /// The MD5 of the object, where it went whole.
    pub fn whole(&self) -> Option<Md5Digest> {
        (self.parts == 0).then_some(self.digest)
    }

    /// Whether the object went in parts.
    pub fn is_of_parts(&self) -> bool {
        self.parts > 0
    }

    /// Whether both are of objects that were sent alike, whole or in as many parts, so that another ETag
    /// means other bytes.
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

/// Written and read as text.
macro_rules! text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Text(PhantomData))
            }
        }
    };
}

text!(Md5Digest);
text!(ETag);

/// Reads text without a copy of it: manifests have millions.
struct Text<T>(PhantomData<T>);

impl<T: FromStr<Err = ParseDigestError>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an MD5")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// Bytes of a part of an object of `size`, where parts usually have `usual`: whole MiB where there would
/// be more than the 10,000 that S3 takes.
pub fn part_size(usual: u64, size: u64) -> u64 {
    const MOST: u64 = 10_000;
    usual.max(size.div_ceil(MOST).next_multiple_of(1 << 20))
}

/// Whether an object of `size` has the same parts under both sizes of parts.
pub fn has_same_parts(size: u64, one: u64, other: u64) -> bool {
    let (one, other) = (part_size(one, size), part_size(other, size));
    one == other || size <= one.min(other)
}

/// MD5 of each part of an object; text where there is one, which is then the MD5 of the whole, and else
/// a list.
///
/// ```
/// use dor_atlas::model::{Md5Digest, Parts};
///
/// const MIB: usize = 1 << 20;
/// let parts = Parts::of(&vec![0; 12 * MIB], 5 * MIB as u64);
/// assert_eq!(parts.digests().len(), 3);
/// assert!(parts.etag().to_string().ends_with("-3"));
/// // What is no larger than a part goes whole, and its ETag is its MD5.
/// let small = Parts::of(b"a", 5 * MIB as u64);
/// assert_eq!(small.etag().whole(), Some(Md5Digest::of(b"a")));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parts {
    /// Of an object that is no larger than a part.
    One(Md5Digest),
    /// In order.
    Several(Arc<[Md5Digest]>),
}

impl Parts {
    /// Of bytes, in parts that usually have `usual` bytes.
    pub fn of(bytes: &[u8], usual: u64) -> Self {
        let mut hasher = PartHasher::new(usual, bytes.len() as u64);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Of each part.
    pub fn digests(&self) -> &[Md5Digest] {
        match self {
            Self::One(digest) => std::slice::from_ref(digest),
            Self::Several(digests) => digests,
        }
    }

    /// Whether these can be those of an object of `size` whose parts usually have `usual` bytes.
    pub fn fit(&self, usual: u64, size: u64) -> bool {
        let number = size.div_ceil(part_size(usual, size).max(1)).max(1);
        usual > 0 && self.digests().len() as u64 == number
    }

    /// The ETag of the object.
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
                f.write_str("an MD5, or a list of those of several parts")
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

/// Takes the MD5 of each part of an object that comes piece by piece.
pub struct PartHasher {
    part_size: u64,
    /// Of the part that is under way, and what it lacks.
    md5: Md5,
    left: u64,
    ended: Vec<Md5Digest>,
}

impl PartHasher {
    /// For an object of `size` whose parts usually have `usual` bytes.
    pub fn new(usual: u64, size: u64) -> Self {
        let part_size = part_size(usual, size).max(1);
        Self { part_size, md5: Md5::new(), left: part_size, ended: Vec::new() }
    }

    /// The next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left == 0 {
                self.ended.push(std::mem::take(&mut self.md5).into());
                self.left = self.part_size;
            }
            let taken =
                usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            let (own, rest) = bytes.split_at(taken);
            self.md5.update(own);
            self.left -= taken as u64;
            bytes = rest;
        }
    }

    /// Of all that has come.
    pub fn finish(self) -> Parts {
        let Self { md5, ended, .. } = self;
        ended.into_iter().chain([md5.into()]).collect()
    }
}

/// What is known of an object's bytes. The size of its parts stands once in the record that has these.
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
    /// SHA-256 of the whole, in hexadecimal.
    pub sha256: String,
    /// MD5 of each part.
    pub md5: Parts,
}

impl Checksums {
    /// Of bytes, in parts that usually have `usual` bytes.
    pub fn of(bytes: &[u8], usual: u64) -> Self {
        Self::with_parts(bytes, Parts::of(bytes, usual))
    }

    /// Of bytes of whose parts the MD5s are known.
    pub fn with_parts(bytes: &[u8], md5: Parts) -> Self {
        Self { size: bytes.len() as u64, sha256: hex(&Sha256::digest(bytes)), md5 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_told_as_s3_tells_them() {
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
    fn the_etag_of_parts_is_that_of_s3() {
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
                // Parts are not smaller than this.
                let mut hasher = PartHasher { part_size: 64, left: 64, ..PartHasher::new(mib, 0) };
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
    fn parts_are_no_more_than_s3_takes() {
        let usual = 16 << 20;
        assert_eq!(part_size(usual, 0), usual);
        assert_eq!(part_size(usual, 10_000 * usual), usual);
        for size in [10_000 * usual + 1, 5 << 40] {
            let part = part_size(usual, size);
            assert!(part > usual && part.is_multiple_of(1 << 20), "{part}");
            assert!(size.div_ceil(part) <= 10_000, "{part}");
        }
        assert!(has_same_parts(3, 4, 5) && !has_same_parts(5 << 20, 4 << 20, 6 << 20));
        assert!(has_same_parts(5 << 40, 5 << 20, 16 << 20), "both have larger ones");
    }
}
