//! Refusal of destinations that are a part of another published folder.

use futures::{StreamExt, stream};

use super::PublishError;
use super::manifest::Manifest;
use crate::store::{Location, Store};

/// Refuses a destination with objects that a publish to a folder around it has sent, or was sending. Its manifest would
/// not show what this publish changes. A folder that cannot be read is passed over.
///
/// # Errors
/// [`PublishError::PartOfAnother`].
pub(super) async fn refuse_part_of_another(destination: &Store) -> Result<(), PublishError> {
    let folders = std::iter::successors(destination.parent(), Store::parent);
    let own = destination.location();
    let around = stream::iter(folders).map(async |store| {
        let folder = store.location();
        let below = format!("{}/", own.below(folder)?);
        let (manifest, intent) =
            tokio::join!(Manifest::load(&store), Manifest::load_intent(&store));
        let lists = [manifest.ok().flatten(), intent.ok().flatten()];
        let mut entries = lists.iter().flatten().flat_map(|list| &list.entries);
        entries.any(|entry| entry.key.starts_with(&below)).then(|| folder.clone())
    });
    let around: Vec<Option<Location>> = around.buffered(FOLDERS).collect().await;
    match around.into_iter().flatten().next() {
        None => Ok(()),
        Some(folder) => {
            Err(PublishError::PartOfAnother { url: own.to_string(), folder: folder.to_string() })
        }
    }
}

/// Folders that are read at the same time.
const FOLDERS: usize = 16;
