//! Limits of storage services, about which the plan warns before anything is sent.

use super::ObjectEntry;
use crate::store::Store;

/// Warnings about what the service of a destination does not store or support, given the objects
/// to send and the size in bytes of the parts of large ones.
pub(super) fn warnings(
    destination: &Store,
    (entries, part_size): (&[ObjectEntry], u64),
    cache_control: Option<&str>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if !destination.is_source_coop() {
        return warnings;
    }
    let objects = |number: usize| format!("{number} object{}", if number == 1 { "" } else { "s" });
    let large = entries.iter().filter(|entry| entry.etag.is_multipart()).count();
    if cache_control.is_some() && large > 0 {
        warnings.push(format!(
            "Source Cooperative drops the header Cache-Control of {}, sent in parts of {part_size} bytes",
            objects(large)
        ));
    }
    if large > 0 {
        warnings.push(
            "Source Cooperative does not list unfinished uploads by parts: the parts that a killed publish \
             leaves stay there, and the next publish sends their object again from its start"
                .to_owned(),
        );
    }
    let mut with_percent = entries.iter().filter(|entry| entry.key.contains('%'));
    if let Some(first) = with_percent.next() {
        warnings.push(format!(
            "Source Cooperative cannot list folders with a % in their name ({}, such as {}): --audit \
             reports their objects as missing; rename these folders",
            objects(1 + with_percent.count()),
            first.key
        ));
    }
    warnings
}
