//! What is published is not replaced by something worse unless that is asked for by name.

use std::collections::BTreeSet;

use super::inventory::{Inventory, Record, read_record};
use super::plan::{Plan, Why};
use super::prepare::{Options, names};
use super::published::Published;
use super::{Digest, PublishError};
use crate::ledger::{CASES, COMPLETE, SHARED};
use crate::model::Case;
use crate::model::case::in_short;
use crate::store::Store;

/// How to publish without what is no longer in the source, and how to replace what is better.
const DELETE: &str = "add --delete to publish without it";
const REPLACE: &str = "replace what is published with --overwrite";

/// What a publish would do to what is published.
pub(super) struct Change<'a> {
    pub source: &'a Store,
    pub destination: &'a Store,
    pub inventory: &'a Inventory,
    pub plan: &'a Plan,
    /// What the last publish left, if it has ended.
    pub published: Option<&'a Published>,
}

impl Change<'_> {
    /// Refuses to replace map stores by such with fewer cases, or that were extended where they are
    /// published, and research-grade files by such without a grid file or of fewer months.
    pub async fn refuse_worse(&self, options: &Options) -> Result<(), PublishError> {
        // Of a store that nobody has put together, only objects of single cases go out.
        if !options.selection.unfinished {
            for root in self.stores() {
                if options.selection.has(&format!("{root}{CASES}/{SHARED}")) {
                    self.refuse_worse_store(&root, options.delete).await?;
                }
            }
        }
        let is_changed = |why: &Why| *why == Why::Changed;
        let changed = self.plan.send.iter().filter(|(_, why)| is_changed(why));
        let records = changed.map(|(entry, _)| &*entry.key);
        for key in records.filter(|key| key.rsplit('/').next() == Some(COMPLETE)) {
            self.refuse_worse_case(key, options.delete).await?;
        }
        Ok(())
    }

    /// Roots of map stores in the source or published, each empty or with a slash, of which something
    /// is to be sent.
    fn stores(&self) -> BTreeSet<String> {
        let shared = format!("{CASES}/{SHARED}");
        let published = self.published.map_or(&[][..], |published| &published.entries);
        let keys = self.inventory.entries.iter().chain(published).map(|entry| &*entry.key);
        let roots = keys.filter_map(|key| key.strip_suffix(&shared));
        let is_sent =
            |root: &&str| self.plan.send.iter().any(|(entry, _)| entry.key.starts_with(*root));
        roots.filter(is_sent).map(str::to_owned).collect()
    }

    async fn refuse_worse_store(&self, root: &str, delete: bool) -> Result<(), PublishError> {
        let key = format!("{root}{CASES}/{SHARED}");
        let Some((bytes, _)) = self.destination.read(&key).await? else { return Ok(()) };
        let url = self.destination.location().join(root.trim_end_matches('/')).to_string();
        let Ok(there) = serde_json::from_slice::<Record>(&bytes) else { return Ok(()) };
        let own = match self.inventory.has(&key) {
            true => read_record(self.source, &key).await?,
            false => None,
        };
        let Some((own, entry)) = own else {
            let what = "the records of its cases (.cases)".to_owned();
            return Err(PublishError::Loses { url, what, advice: REPLACE });
        };
        let cases = |record: &Record| -> BTreeSet<Case> {
            record.cases.iter().filter_map(|case| case.parse().ok()).collect()
        };
        let [there, own] = [&there, &own].map(cases);
        let lost: Vec<Case> = there.difference(&own).copied().collect();
        let found = Digest::of(&bytes);
        let before = names(self.published, &key).map(|before| before.md5);
        if before.is_some_and(|before| before != found) && found != entry.md5 {
            let lacks: Vec<Case> = own.difference(&there).copied().collect();
            let difference = match (lost.is_empty(), lacks.is_empty()) {
                (true, true) => "it has the same cases, made anew".to_owned(),
                (false, true) => format!("it has {}, which the source lacks", in_short(&lost)),
                (true, false) => format!("it lacks {}, which the source has", in_short(&lacks)),
                (false, false) => {
                    let [lost, lacks] = [&lost, &lacks].map(|cases| in_short(cases));
                    format!("it has {lost}, which the source lacks, and lacks {lacks}")
                }
            };
            return Err(PublishError::Extended { url, difference });
        }
        match lost.is_empty() || delete {
            true => Ok(()),
            false => Err(PublishError::Loses { url, what: in_short(&lost), advice: DELETE }),
        }
    }

    async fn refuse_worse_case(&self, key: &str, delete: bool) -> Result<(), PublishError> {
        let Some((bytes, _)) = self.destination.read(key).await? else { return Ok(()) };
        let Ok(there) = serde_json::from_slice::<Record>(&bytes) else { return Ok(()) };
        let Some((own, _)) = read_record(self.source, key).await? else { return Ok(()) };
        let url = self.destination.location().join(key).to_string();
        let has_grid = |record: &Record| record.recipe["grid_sha256"].is_string();
        if has_grid(&there) && !has_grid(&own) {
            let what = "the full grid (it was converted with --grid)".to_owned();
            return Err(PublishError::Loses { url, what, advice: REPLACE });
        }
        let kept: BTreeSet<&str> = own.files.iter().map(|file| file.key.as_str()).collect();
        let lost = there.files.iter().filter(|file| !kept.contains(file.key.as_str())).count();
        match lost == 0 || delete {
            true => Ok(()),
            false => {
                Err(PublishError::Loses { url, what: format!("{lost} more files"), advice: DELETE })
            }
        }
    }
}
