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
            match options.is_audit() {
                true => Manifest::load_or_empty(destination).await,
                false => Manifest::load(destination).await,
            }
        };
        let intent = Manifest::load_intent(destination);
        let (manifest, intent) = tokio::try_join!(manifest, intent)?;
        Ok(Self { manifest, intent, is_dirty: false })
    }

    /// Adds the objects that publishes to a single product of the destination have sent, unless a publish of
    /// the whole has sent that product.
    pub async fn add_parts(
        &mut self,
        destination: &Store,
        folders: impl Iterator<Item = &String>,
        part_size: u64,
    ) -> Result<(), PublishError> {
        for folder in folders.filter(|folder| !folder.is_empty()) {
            let below = format!("{folder}/");
            let known = entries(self.manifest.as_ref()).iter().chain(entries(self.intent.as_ref()));
            if known.into_iter().any(|entry| entry.key.starts_with(&below)) {
                continue;
            }
            let part = Manifest::load_part(destination, folder, part_size).await?;
            let Some(part) = part else { continue };
            let whole = self.manifest.get_or_insert_with(|| Manifest::none(part_size));
            whole.entries.extend(part.entries);
            whole.entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
            whole.replaced.extend(part.replaced);
            whole.replaced.sort_by(|a, b| a.key.cmp(&b.key));
        }
        Ok(())
    }

    /// Objects of the last complete publish, and of one that is not complete its own and other versions
    /// of them.
    pub fn versions(&self) -> [&[ObjectEntry]; 3] {
        let replaced = self.intent.as_ref().map_or(&[][..], |intent| &intent.replaced);
        [entries(self.manifest.as_ref()), entries(self.intent.as_ref()), replaced]
    }

    /// Whether a publish has sent an object with this key, or may have. A damaged manifest may have had
    /// any object.
    pub fn has(&self, key: &str) -> bool {
        let mut both = self.manifest.iter().chain(&self.intent);
        both.any(|manifest| manifest.is_damaged || manifest.entry(key).is_some())
    }
}
