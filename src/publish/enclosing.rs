//! Refusal of destinations that are a part of another published folder.

use futures::{StreamExt, stream};

use super::PublishError;
use super::manifest::Manifest;
use crate::store::{Location, Store};

/// Refuses a destination with objects that a publish to a folder around it has sent, was sending or has deleted,
/// and one inside a product of such a publish. The manifest around it would not show what this publish
/// changes. A folder that cannot be read is passed over.
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
        let is_part = lists.iter().flatten().any(|list| {
            let is_in =
                |product: &String| product.is_empty() || below.starts_with(&format!("{product}/"));
            list.entries.iter().any(|entry| entry.key.starts_with(&below))
                || list.results.keys().any(|key| key.starts_with(&below))
                || list.header.recipes.keys().any(is_in)
        });
        is_part.then(|| folder.clone())
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
