//! What gets lost on the way to a destination, told beforehand.

use super::ObjectEntry;
use crate::store::Store;

/// What the service of a destination does not keep of these objects, or cannot do: a sentence for each. Large
/// ones go in parts of `part_size`.
pub(super) fn losses(
    destination: &Store,
    (entries, part_size): (&[ObjectEntry], u64),
    cache_control: Option<&str>,
) -> Vec<String> {
    let mut told = Vec::new();
    if !destination.is_source_coop() {
        return told;
    }
    let counted = |number: usize| format!("{number} object{}", if number == 1 { "" } else { "s" });
    let large = entries.iter().filter(|entry| entry.etag.is_of_parts()).count();
    if cache_control.is_some() && large > 0 {
        told.push(format!(
            "Source Cooperative drops Cache-Control of {}, which go in parts of {part_size} bytes",
            counted(large)
        ));
    }
    if large > 0 {
        told.push(
            "Source Cooperative does not tell of unfinished uploads: the parts that a killed publish leaves \
             stay, and their object is sent again from its start"
                .to_owned(),
        );
    }
    let mut odd = entries.iter().filter(|entry| entry.key.contains('%'));
    if let Some(first) = odd.next() {
        told.push(format!(
            "Source Cooperative cannot list folders with a % in their name ({}, such as {}): --audit takes \
             what is there for absent; give them another name",
            counted(1 + odd.count()),
            first.key
        ));
    }
    told
}
