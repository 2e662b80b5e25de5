//! What earlier publishes have left at a destination.

use super::manifest::{Manifest, entries};
use super::options::PublishOptions;
use super::{ObjectEntry, PublishError};
use crate::store::Store;

/// The manifest, the intent and the dirty mark of a destination.
pub(super) struct DestinationState {
    /// Objects of the last complete publish.
    pub manifest: Option<Manifest>,
    /// Objects of a publish that is not complete.
    pub intent: Option<Manifest>,
    /// Whether a publisher that had lost its lease may have changed objects.
    pub is_dirty: bool,
}

impl DestinationState {
    /// Loads manifest and intent. The caller sets `is_dirty` from the lease.
    pub async fn load(destination: &Store, options: &PublishOptions) -> Result<Self, PublishError> {
        let manifest = async {
            match options.lists_destination() {
                true => Manifest::load_or_empty(destination).await,
                false => Manifest::load(destination).await,
            }
        };
        let intent = Manifest::load_intent(destination);
        let (manifest, intent) = tokio::try_join!(manifest, intent)?;
        Ok(Self { manifest, intent, is_dirty: false })
    }

    /// Adds the objects that publishes to a single product of the destination have sent, unless a complete
    /// publish of the whole has sent that product.
    pub async fn add_products(
        &mut self,
        destination: &Store,
        folders: impl Iterator<Item = &String>,
        part_size: u64,
    ) -> Result<(), PublishError> {
        for folder in folders.filter(|folder| !folder.is_empty()) {
            let below = format!("{folder}/");
            // An intent of the whole may have these keys too, but not the objects that they have now.
            if entries(self.manifest.as_ref()).iter().any(|entry| entry.key.starts_with(&below)) {
                continue;
            }
            let part = Manifest::load_product(destination, folder, part_size).await?;
            let Some(part) = part else { continue };
            let whole = self.manifest.get_or_insert_with(|| Manifest::none(part_size));
            whole.entries.extend(part.entries);
            whole.entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
            whole.results.extend(part.results);
        }
        Ok(())
    }

    /// The objects of the last complete publish, those of the intent, and the other versions that the
    /// destination had when the intent was written.
    pub fn versions(&self) -> [&[ObjectEntry]; 3] {
        let found = self.intent.as_ref().map_or(&[][..], |intent| &intent.found_versions);
        [entries(self.manifest.as_ref()), entries(self.intent.as_ref()), found]
    }

    /// Whether a publish has sent an object with this key, or may have. A damaged manifest may have had
    /// any object.
    pub fn has(&self, key: &str) -> bool {
        let mut both = self.manifest.iter().chain(&self.intent);
        both.any(|manifest| manifest.is_damaged || manifest.entry(key).is_some())
    }
}
