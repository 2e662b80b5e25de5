//! Decompression codecs for Zarr chunks with a bound on the decoded size.
//!
//! The codecs of the zarrs library allocate as many bytes as the compressed data claims, or decode to
//! the end of the data. The codecs of this module fail when the data is longer than the chunk.

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

/// Bound on the decoded bytes of any chunk; no array that this program reads has larger chunks.
const MAX_DECODED: u64 = 256 << 20;

/// Compression method of a chunk.
#[derive(Clone, Copy, Debug)]
enum CompressionMethod {
    Gzip,
    Zlib,
    Zstd,
    Blosc,
}

/// A codec of the library whose decoding stops at the size of the chunk.
#[derive(Debug)]
struct BoundedCodec {
    inner: Arc<dyn BytesToBytesCodecTraits>,
    method: CompressionMethod,
}

/// Registers the bounded codecs in place of those of the library, for all arrays that are opened
/// afterwards. Only the first call has an effect.
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
            let has_name =
                move |codec: &str| codec.strip_prefix("numcodecs.").unwrap_or(codec) == name;
            let v2 = move |metadata: &_| <T as CodecTraitsV2>::create(metadata).map(wrap);
            let v3 = move |metadata: &_| <T as CodecTraitsV3>::create(metadata).map(wrap);
            register_codec_v2(CodecRuntimePluginV2::new(has_name, v2));
            register_codec_v3(CodecRuntimePluginV3::new(has_name, v3));
        }
        both::<GzipCodec>("gzip", CompressionMethod::Gzip);
        both::<ZlibCodec>("zlib", CompressionMethod::Zlib);
        both::<ZstdCodec>("zstd", CompressionMethod::Zstd);
        both::<BloscCodec>("blosc", CompressionMethod::Blosc);
    });
}

impl BoundedCodec {
    /// Decodes the bytes of a chunk; an error when they are more than `most` bytes.
    fn decode_bounded(&self, encoded: &[u8], most: u64) -> Result<Vec<u8>, CodecError> {
        let too_long = || CodecError::Other(format!("a chunk has more than its {most} bytes"));
        let bytes = Cursor::new(encoded);
        let mut reader: Box<dyn Read> = match self.method {
            CompressionMethod::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
            CompressionMethod::Zlib => Box::new(flate2::read::ZlibDecoder::new(bytes)),
            CompressionMethod::Zstd => Box::new(zstd::Decoder::with_buffer(bytes)?),
            CompressionMethod::Blosc => {
                return Err(CodecError::Other(
                    "a chunk is not a Blosc frame, or decodes to too many bytes".to_owned(),
                ));
            }
        };
        let mut out = Vec::new();
        reader.by_ref().take(most.saturating_add(1)).read_to_end(&mut out)?;
        if out.len() as u64 > most { Err(too_long()) } else { Ok(out) }
    }
}

/// Decoded size that the header of a Blosc frame states (Blosc chunk format, field `nbytes`).
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
        let most = decoded.size().unwrap_or(MAX_DECODED).min(MAX_DECODED);
        match self.method {
            CompressionMethod::Blosc if blosc_size(&encoded).is_some_and(|size| size <= most) => {
                self.inner.decode(encoded, decoded, options)
            }
            _ => self.decode_bounded(&encoded, most).map(Cow::Owned),
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
