//! Refusal of folders of cases in a wrong place of the source.

use std::path::Path;

use super::{InventoryBuilder, is_number, join};
use crate::case_manifest::{CASE_MANIFEST, ManifestObject, ManifestSummary};
use crate::publish::PublishError;
use crate::publish::options::FolderKind;

impl InventoryBuilder<'_> {
    /// Refuses a folder with the record of a case that names files of another folder. Returns the record, if the
    /// folder has one.
    pub(super) async fn refuse_renamed(
        &self,
        folder: &str,
    ) -> Result<Option<ManifestSummary>, PublishError> {
        if !self.selection.has(&join(folder, CASE_MANIFEST)) {
            return Ok(None);
        }
        let found = self.source.get(&join(folder, CASE_MANIFEST)).await?;
        // Other programs write files of this name too.
        let record = found.and_then(|(bytes, _)| ManifestSummary::parse_any(&bytes));
        let Some(record) = record else { return Ok(None) };
        let Some(file) = record.files.first() else { return Ok(None) };
        // The product may lie in any folder, and the source may be a part of it.
        let own = file.key.rsplit_once('/').map_or("", |(own, _)| own);
        if Path::new(folder).ends_with(own) || Path::new(own).ends_with(folder) {
            return Ok(Some(record));
        }
        // A copy beside the folder of the case is no part of the product.
        for above in Path::new(folder).ancestors().skip(1) {
            let case = join(&join(&above.display().to_string(), own), CASE_MANIFEST);
            if self.source.head(&case).await?.is_some() {
                return Ok(None);
            }
        }
        let url = self.source.location().join(folder).to_string();
        Err(PublishError::Misplaced { url, key: file.key.clone() })
    }

    /// Refuses folders of cases beside a map store or beside another folder of cases.
    pub(super) async fn refuse_mixed(
        &self,
        root: &str,
        folders: &[String],
    ) -> Result<(), PublishError> {
        let name = |folder: &str| folder.rsplit('/').next().unwrap_or_default().to_owned();
        let is_other = |folder: &&String| !is_number(folder, 3) && !name(folder).starts_with('.');
        for other in folders.iter().filter(is_other) {
            if Box::pin(self.kind_of(other)).await? != FolderKind::Other {
                let url = self.source.location().join(root).to_string();
                return Err(PublishError::MixedSource { url, other: other.clone() });
            }
        }
        Ok(())
    }

    /// Refuses the record of a case in the folder of another case: a folder that was renamed.
    pub(super) fn refuse_misplaced(
        &self,
        root: &str,
        folder: &str,
        record: &ManifestSummary,
    ) -> Result<(), PublishError> {
        let folder_of = |object: &ManifestObject| join(root, &object.key);
        let below = format!("{folder}/");
        let mut keys = record.files.iter().map(folder_of);
        match keys.find(|key| !key.starts_with(&below)) {
            None => Ok(()),
            Some(key) => {
                let url = self.source.location().join(folder).to_string();
                Err(PublishError::Misplaced { url, key })
            }
        }
    }
}
