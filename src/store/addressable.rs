//! Pages of a bucket's listing, before `object_store` reads them: it fails a whole listing for one
//! key that it cannot address, and takes the marks of folders for objects.

use futures::future::poll_fn;
use http_body::Body;
use object_store::client::{HttpError, HttpErrorKind, HttpResponse, HttpResponseBody};
use object_store::path::Path as ObjectPath;
use quick_xml::Reader;
use quick_xml::events::Event;

use super::skipped::{SkipLog, SkipReason, note, shown};

/// A page has 1000 keys of up to 1024 bytes, each in 300 bytes of markup.
const PAGE_BYTES: usize = 16 << 20;

/// Whether a request asks for a page of a listing.
pub(super) fn is_listing(uri: &http::Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "list-type=2"))
}

/// The answer without entries that are no objects of ours. What it is without is noted.
pub(super) async fn without_others(answer: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (head, body) = answer.into_parts();
    let mut body = std::pin::pin!(body);
    let mut page = Vec::new();
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        page.extend_from_slice(frame?.data_ref().map_or(&[][..], |data| data));
        if page.len() > PAGE_BYTES {
            let text = format!("a page of the listing has more than {} MiB", PAGE_BYTES >> 20);
            return Err(HttpError::new(HttpErrorKind::Unknown, std::io::Error::other(text)));
        }
    }
    // What is no listing is told by who reads it.
    if let Ok((kept, cut)) = cut(&page)
        && !cut.is_empty()
    {
        note(cut);
        page = kept;
    }
    Ok(HttpResponse::from_parts(head, HttpResponseBody::from(bytes::Bytes::from(page))))
}

/// The page without what cannot be addressed, and what that is.
fn cut(page: &[u8]) -> Result<(Vec<u8>, SkipLog), quick_xml::Error> {
    let mut reader = Reader::from_reader(page);
    let (mut kept, mut cut) = (Vec::with_capacity(page.len()), SkipLog::new());
    let (mut from, mut start, mut depth) = (0, 0, 0_usize);
    let mut name: Option<String> = None;
    let mut is_name = false;
    loop {
        let before = at(&reader);
        match reader.read_event()? {
            Event::Start(tag) => {
                depth += 1;
                match (depth, tag.local_name().as_ref()) {
                    (2, _) => (start, name) = (before, None),
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
                    && let Some(why) = why(&name, is_object)
                {
                    cut.push((shown(&name), why));
                    kept.extend_from_slice(page.get(from..start).unwrap_or_default());
                    from = at(&reader);
                }
                depth = depth.saturating_sub(1);
            }
            Event::Eof => break,
            _ => {}
        }
    }
    kept.extend_from_slice(page.get(from..).unwrap_or_default());
    Ok((kept, cut))
}

fn at(reader: &Reader<&[u8]>) -> usize {
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}

/// Why a key, or the prefix of a folder, is no object's.
fn why(name: &str, is_object: bool) -> Option<SkipReason> {
    // A leading slash, or two at the end, is an empty segment.
    let inner = name.strip_suffix('/').unwrap_or(name);
    let is_odd = inner.is_empty()
        || name.starts_with('/')
        || inner.ends_with('/')
        || ObjectPath::parse(inner).is_err();
    match is_odd {
        true => Some(SkipReason::Name),
        false if is_object && name.ends_with('/') => Some(SkipReason::FolderMarker),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_are_no_objects_are_cut_from_a_page() {
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
        let good = [entry("a/b &amp; c&#38;.nc"), folder("a/d/"), entry("ä")];
        let odd = [
            (entry("a//b"), "a//b", SkipReason::Name),
            (entry("a/../b"), "a/../b", SkipReason::Name),
            (entry("/a"), "/a", SkipReason::Name),
            (entry("a&#10;b"), "a\\nb", SkipReason::Name),
            (entry("src/"), "src/", SkipReason::FolderMarker),
            (folder("a//"), "a//", SkipReason::Name),
            (folder("/"), "/", SkipReason::Name),
        ];
        let mut parts = good.to_vec();
        for (n, (part, ..)) in odd.iter().enumerate() {
            parts.insert(n, part.clone());
        }
        let (kept, cut) = cut(page(&parts).as_bytes()).unwrap();
        assert_eq!(String::from_utf8(kept).unwrap(), page(&good));
        let expected = odd.map(|(_, name, why)| (name.to_owned(), why));
        assert_eq!(cut, expected);
        assert!(super::cut(b"no xml <").is_err() || super::cut(b"no xml").unwrap().1.is_empty());
    }
}
