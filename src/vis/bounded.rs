//! The codecs that compress a chunk of a Zarr array, bounded: what they make is not longer than the
//! chunk is. The library's own make what the compressed bytes claim, or go on to their end.

use std::any::Any;
use std::borrow::Cow;
use std::io::{Cursor, Read};
use std::sync::{Arc, Once};

use zarrs::array::codec::api::{
    BytesToBytesCodecTraits, Codec, CodecError, CodecMetadataOptions, CodecOptions,
    CodecRuntimePluginV2, CodecRuntimePluginV3, CodecTraits, CodecTraitsV2, CodecTraitsV3,
    PartialDecoderCapability, PartialEncoderCapability, RecommendedConcurrency, register_codec_v2,
    register_codec_v3,
};
use zarrs::array::codec::{BloscCodec, GzipCodec, ZlibCodec, ZstdCodec};
use zarrs::array::{ArrayBytesRaw, BytesRepresentation};
use zarrs::metadata::Configuration;
use zarrs::plugin::{ExtensionName, ZarrVersion};

/// The longest chunk of an array that tells no size: none of those that are read here.
const LONGEST: u64 = 256 << 20;

/// How the compressed bytes are undone.
#[derive(Clone, Copy, Debug)]
enum CompressionMethod {
    Gzip,
    Zlib,
    Zstd,
    Blosc,
}

/// A codec that is undone up to the size of the chunk.
#[derive(Debug)]
struct BoundedCodec {
    inner: Arc<dyn BytesToBytesCodecTraits>,
    method: CompressionMethod,
}

/// Puts the bounded codecs before the library's own, for all arrays that are opened from then on.
pub(super) fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        fn both<T: CodecTraitsV2 + CodecTraitsV3>(name: &'static str, method: CompressionMethod) {
            let wrap = move |codec| match codec {
                Codec::BytesToBytes(inner) => {
                    Codec::BytesToBytes(Arc::new(BoundedCodec { inner, method }))
                }
                other => other,
            };
            let is_it =
                move |asked: &str| asked.strip_prefix("numcodecs.").unwrap_or(asked) == name;
            let v2 = move |metadata: &_| <T as CodecTraitsV2>::create(metadata).map(wrap);
            let v3 = move |metadata: &_| <T as CodecTraitsV3>::create(metadata).map(wrap);
            register_codec_v2(CodecRuntimePluginV2::new(is_it, v2));
            register_codec_v3(CodecRuntimePluginV3::new(is_it, v3));
        }
        both::<GzipCodec>("gzip", CompressionMethod::Gzip);
        both::<ZlibCodec>("zlib", CompressionMethod::Zlib);
        both::<ZstdCodec>("zstd", CompressionMethod::Zstd);
        both::<BloscCodec>("blosc", CompressionMethod::Blosc);
    });
}

impl BoundedCodec {
    /// The decoded bytes; an error when they are more than `most`.
    fn undo(&self, encoded: &[u8], most: u64) -> Result<Vec<u8>, CodecError> {
        let too_long = || CodecError::Other(format!("a chunk has more than its {most} bytes"));
        let bytes = Cursor::new(encoded);
        let mut reader: Box<dyn Read> = match self.method {
            CompressionMethod::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
            CompressionMethod::Zlib => Box::new(flate2::read::ZlibDecoder::new(bytes)),
            CompressionMethod::Zstd => Box::new(zstd::Decoder::with_buffer(bytes)?),
            CompressionMethod::Blosc => {
                return Err(CodecError::Other("a chunk is not of blosc, or too long".to_owned()));
            }
        };
        let mut out = Vec::new();
        reader.by_ref().take(most.saturating_add(1)).read_to_end(&mut out)?;
        if out.len() as u64 > most { Err(too_long()) } else { Ok(out) }
    }
}

/// Size of what was compressed, as the frame of blosc has it ("Blosc chunk format", nbytes).
fn blosc_size(encoded: &[u8]) -> Option<u64> {
    Some(u64::from(u32::from_le_bytes(*encoded.get(4..)?.first_chunk()?)))
}

impl BytesToBytesCodecTraits for BoundedCodec {
    fn into_dyn(self: Arc<Self>) -> Arc<dyn BytesToBytesCodecTraits> {
        self
    }

    fn recommended_concurrency(
        &self,
        decoded: &BytesRepresentation,
    ) -> Result<RecommendedConcurrency, CodecError> {
        self.inner.recommended_concurrency(decoded)
    }

    fn encoded_representation(&self, decoded: &BytesRepresentation) -> BytesRepresentation {
        self.inner.encoded_representation(decoded)
    }

    fn encode<'a>(
        &self,
        decoded: ArrayBytesRaw<'a>,
        options: &CodecOptions,
    ) -> Result<ArrayBytesRaw<'a>, CodecError> {
        self.inner.encode(decoded, options)
    }

    fn decode<'a>(
        &self,
        encoded: ArrayBytesRaw<'a>,
        decoded: &BytesRepresentation,
        options: &CodecOptions,
    ) -> Result<ArrayBytesRaw<'a>, CodecError> {
        let most = decoded.size().unwrap_or(LONGEST).min(LONGEST);
        match self.method {
            CompressionMethod::Blosc if blosc_size(&encoded).is_some_and(|size| size <= most) => {
                self.inner.decode(encoded, decoded, options)
            }
            _ => self.undo(&encoded, most).map(Cow::Owned),
        }
    }
}

impl CodecTraits for BoundedCodec {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn configuration(
        &self,
        version: ZarrVersion,
        options: &CodecMetadataOptions,
    ) -> Option<Configuration> {
        self.inner.configuration(version, options)
    }

    fn partial_decoder_capability(&self) -> PartialDecoderCapability {
        PartialDecoderCapability { partial_read: false, partial_decode: false }
    }

    fn partial_encoder_capability(&self) -> PartialEncoderCapability {
        PartialEncoderCapability { partial_encode: false }
    }
}

impl ExtensionName for BoundedCodec {
    fn name(&self, version: ZarrVersion) -> Option<Cow<'static, str>> {
        self.inner.name(version)
    }
}
