//! Filter for the pages of an S3 listing (`ListObjectsV2`), applied before `object_store` parses them.
//!
//! `object_store` fails the whole listing for one key that it cannot address, and returns folder
//! markers as objects. The filter removes these entries and records them as skipped.

use futures::future::poll_fn;
use http_body::Body;
use object_store::client::{HttpError, HttpErrorKind, HttpResponse, HttpResponseBody};
use object_store::path::Path as ObjectPath;
use quick_xml::Reader;
use quick_xml::events::Event;

use super::skipped::{SkipLog, SkipReason, escape_control, record_skipped};

/// Longest accepted page, in bytes. A page has 1000 keys of up to 1024 bytes; each has about 300
/// bytes of markup, and escapes lengthen a key.
const PAGE_BYTES: usize = 16 << 20;

/// Whether a request asks for a page of a listing.
pub(super) fn is_listing(uri: &http::Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "list-type=2"))
}

/// Removes the entries that `object_store` cannot address from a listing response, and records them.
///
/// # Errors
/// The body cannot be read, or has more than [`PAGE_BYTES`] bytes.
pub(super) async fn remove_unaddressable(
    response: HttpResponse,
) -> Result<HttpResponse, HttpError> {
    let (head, body) = response.into_parts();
    let mut body = std::pin::pin!(body);
    let mut page = Vec::new();
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        page.extend_from_slice(frame?.data_ref().map_or(&[][..], |data| data));
        if page.len() > PAGE_BYTES {
            let text = format!("a page of the listing is larger than {} MiB", PAGE_BYTES >> 20);
            return Err(HttpError::new(HttpErrorKind::Unknown, std::io::Error::other(text)));
        }
    }
    // `object_store` reports a page that is not valid XML.
    if let Ok((kept, skipped)) = split_page(&page)
        && !skipped.is_empty()
    {
        record_skipped(skipped);
        page = kept;
    }
    Ok(HttpResponse::from_parts(head, HttpResponseBody::from(bytes::Bytes::from(page))))
}

/// Returns the page without the entries that cannot be addressed, and the names of these entries.
fn split_page(page: &[u8]) -> Result<(Vec<u8>, SkipLog), quick_xml::Error> {
    let mut reader = Reader::from_reader(page);
    let (mut kept, mut skipped) = (Vec::with_capacity(page.len()), SkipLog::new());
    let (mut kept_to, mut entry_start, mut depth) = (0, 0, 0_usize);
    let mut name: Option<String> = None;
    let mut is_name = false;
    loop {
        let before = position(&reader);
        match reader.read_event()? {
            Event::Start(tag) => {
                depth += 1;
                match (depth, tag.local_name().as_ref()) {
                    (2, _) => (entry_start, name) = (before, None),
                    (3, b"Key" | b"Prefix") => (is_name, name) = (true, Some(String::new())),
                    _ => {}
                }
            }
            Event::Text(text) if is_name => {
                let text = text.decode().map_err(quick_xml::Error::from)?;
                name.get_or_insert_default().push_str(&text);
            }
            Event::GeneralRef(reference) if is_name => {
                let resolved = match reference.resolve_char_ref()? {
                    Some(c) => Some(c.to_string()),
                    None => {
                        let entity = reference.decode().map_err(quick_xml::Error::from)?;
                        quick_xml::escape::resolve_predefined_entity(&entity).map(str::to_owned)
                    }
                };
                name.get_or_insert_default().push_str(&resolved.unwrap_or_default());
            }
            Event::CData(text) if is_name => {
                name.get_or_insert_default().push_str(&String::from_utf8_lossy(&text));
            }
            Event::End(tag) => {
                is_name &= depth != 3;
                let entry = tag.local_name();
                let is_object = entry.as_ref() == b"Contents";
                if depth == 2
                    && (is_object || entry.as_ref() == b"CommonPrefixes")
                    && let Some(name) = name.take()
                    && let Some(reason) = skip_reason(&name, is_object)
                {
                    skipped.push((escape_control(&name), reason));
                    kept.extend_from_slice(page.get(kept_to..entry_start).unwrap_or_default());
                    kept_to = position(&reader);
                }
                depth = depth.saturating_sub(1);
            }
            Event::Eof => break,
            _ => {}
        }
    }
    kept.extend_from_slice(page.get(kept_to..).unwrap_or_default());
    Ok((kept, skipped))
}

/// Bytes of the page that the reader has consumed.
fn position(reader: &Reader<&[u8]>) -> usize {
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}

/// The reason to skip a key or a common prefix; `None` if `object_store` can address it.
fn skip_reason(name: &str, is_object: bool) -> Option<SkipReason> {
    // A leading slash, or two trailing ones, make an empty path segment.
    let inner = name.strip_suffix('/').unwrap_or(name);
    let is_invalid = inner.is_empty()
        || name.starts_with('/')
        || inner.ends_with('/')
        || ObjectPath::parse(inner).is_err();
    match is_invalid {
        true => Some(SkipReason::Name),
        false if is_object && name.ends_with('/') => Some(SkipReason::FolderMarker),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_are_not_objects_are_removed_from_a_page() {
        let entry = |key: &str| {
            format!(
                "<Contents><Key>{key}</Key><Size>1</Size><Owner><ID>x//y</ID></Owner></Contents>"
            )
        };
        let folder = |key: &str| format!("<CommonPrefixes><Prefix>{key}</Prefix></CommonPrefixes>");
        let page = |parts: &[String]| {
            format!(
                "<?xml version='1.0'?><ListBucketResult><Prefix>a//</Prefix>{}<KeyCount>9</KeyCount></ListBucketResult>",
                parts.concat()
            )
        };
        let valid = [entry("a/b &amp; c&#38;.nc"), folder("a/d/"), entry("ä")];
        let invalid = [
            (entry("a//b"), "a//b", SkipReason::Name),
            (entry("a/../b"), "a/../b", SkipReason::Name),
            (entry("/a"), "/a", SkipReason::Name),
            (entry("a&#10;b"), "a\\nb", SkipReason::Name),
            (entry("src/"), "src/", SkipReason::FolderMarker),
            (folder("a//"), "a//", SkipReason::Name),
            (folder("/"), "/", SkipReason::Name),
        ];
        let mut parts = valid.to_vec();
        for (n, (part, ..)) in invalid.iter().enumerate() {
            parts.insert(n, part.clone());
        }
        let (kept, skipped) = split_page(page(&parts).as_bytes()).unwrap();
        assert_eq!(String::from_utf8(kept).unwrap(), page(&valid));
        let expected = invalid.map(|(_, name, reason)| (name.to_owned(), reason));
        assert_eq!(skipped, expected);
        assert!(split_page(b"no xml <").is_err() || split_page(b"no xml").unwrap().1.is_empty());
    }
}
