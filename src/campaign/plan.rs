//! What a campaign is to do: an object that never changes, so that every node goes by the same.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Locations, PlanFileError, Product};
use crate::case_manifest::InputRecord;
use crate::model::{Case, LatLon, hex};
use crate::read::centers::Centers;
use crate::store::{PutMode, PutOptions, Store, StoreError};
use crate::vis::StoreRecipe;

/// Version of a plan's form.
const FORMAT: u32 = 2;

/// Files that results depend on besides the archive, as they were when the plan was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputFingerprints {
    /// SHA-256 of the grid file, in hexadecimal.
    pub grid_sha256: Option<String>,
    /// The series of sea surface height.
    pub ssh: Option<InputRecord>,
}

/// A case of a plan, and what there is to read of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedCase {
    /// The case in short, `PPP-MM`.
    pub case: String,
    /// Raw files.
    pub files: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// Centre of its polygon, for store 3.
    pub center: Option<LatLon>,
}

/// What a campaign is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CampaignPlan {
    format: u32,
    /// SHA-256 of the plan without this entry, in hexadecimal.
    pub sha256: String,
    /// The products.
    pub stages: Vec<Product>,
    /// Where they come from and go to; in the file, what lies below the plan's folder is relative to it.
    pub places: Locations,
    /// What results depend on besides the archive.
    #[serde(default)]
    pub givens: InputFingerprints,
    /// Use the months that are there when others are missing.
    pub allow_missing: bool,
    /// Reproduce the known defects of the published atlas.
    pub reference_compat: bool,
    /// The cases, each of which belongs to one shard.
    pub cases: Vec<PlannedCase>,
}

impl CampaignPlan {
    /// A plan of these cases.
    pub fn new(stages: Vec<Product>, places: Locations, cases: Vec<PlannedCase>) -> Self {
        let (sha256, givens) = (String::new(), InputFingerprints::default());
        let (allow_missing, reference_compat) = (false, false);
        Self {
            format: FORMAT,
            sha256,
            stages,
            places,
            givens,
            allow_missing,
            reference_compat,
            cases,
        }
        .signed()
    }

    /// The same with files that results depend on.
    pub fn with_givens(self, givens: InputFingerprints) -> Self {
        Self { givens, ..self }.signed()
    }

    /// The same under other rules.
    pub fn with_rules(self, allow_missing: bool, reference_compat: bool) -> Self {
        Self { allow_missing, reference_compat, ..self }.signed()
    }

    fn signed(self) -> Self {
        Self { sha256: self.digest(), ..self }
    }

    fn digest(&self) -> String {
        let bare = Self { sha256: String::new(), ..self.clone() };
        // Text, numbers and lists: this does not fail.
        hex(&Sha256::digest(serde_json::to_vec(&bare).unwrap_or_default()))
    }

    /// The rules that a map store is filled under.
    pub fn recipe(&self, stage: Product) -> StoreRecipe {
        // Efficiencies have none of the defects.
        StoreRecipe::new(self.reference_compat && stage != Product::Store1)
    }

    /// The centres of its polygons.
    pub fn centers(&self) -> Centers {
        let cases = self.cases().zip(&self.cases);
        cases.filter_map(|((_, case), planned)| Some((case.polygon(), planned.center?))).collect()
    }

    /// Bytes to read for all cases.
    pub fn bytes(&self) -> u64 {
        self.cases.iter().map(|planned| planned.bytes).sum()
    }

    /// The cases, by number.
    pub fn cases(&self) -> impl Iterator<Item = (usize, Case)> {
        self.cases
            .iter()
            .enumerate()
            .filter_map(|(n, planned)| Some((n, planned.case.parse().ok()?)))
    }

    /// Writes the plan, unless there is one; the same plan may be there.
    pub async fn save(&self, store: &Store, key: &str) -> Result<(), PlanFileError> {
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        let sending = PutOptions { condition: PutMode::Absent, ..PutOptions::default() };
        match store.send(key, Bytes::from(text), &sending).await {
            Ok(_) => Ok(()),
            Err(error @ StoreError::PreconditionFailed { .. }) => {
                match Self::load(store, key).await {
                    Ok(found) if found == *self => Ok(()),
                    Err(PlanFileError::Absent { .. }) => Err(error.into()),
                    _ => Err(PlanFileError::Exists { url: store.location().join(key).to_string() }),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a plan, and checks that it is what was written.
    pub async fn load(store: &Store, key: &str) -> Result<Self, PlanFileError> {
        let url = || store.location().join(key).to_string();
        let damaged = |problem: String| PlanFileError::Damaged { url: url(), problem };
        let found = store.get(key).await?;
        let (bytes, _) = found.ok_or_else(|| PlanFileError::Absent { url: url() })?;
        let plan: Self = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if plan.format != FORMAT {
            return Err(damaged(format!("it is of form {}, not {FORMAT}", plan.format)));
        }
        if plan.sha256 != plan.digest() {
            return Err(damaged("its hash is not that of its contents".to_owned()));
        }
        if let Some(planned) = plan.cases.iter().find(|p| p.case.parse::<Case>().is_err()) {
            return Err(damaged(format!("there is no case {:?}", planned.case)));
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{S3Options, StoreRegistry};

    fn plan(bytes: u64) -> CampaignPlan {
        let center = Some(LatLon { lat: 0.1 + 0.2, lon: 1.0 / 3.0 });
        let case = PlannedCase { case: "112-04".to_owned(), files: 180, bytes, center };
        CampaignPlan::new(Product::ALL.to_vec(), Locations::default(), vec![case])
    }

    #[tokio::test]
    async fn a_plan_is_written_once() {
        let store = Store::memory();
        plan(1).save(&store, "plan.json").await.unwrap();
        plan(1).save(&store, "plan.json").await.unwrap();
        let other = plan(2).save(&store, "plan.json").await;
        assert!(matches!(other, Err(PlanFileError::Exists { .. })), "{other:?}");
        assert_eq!(CampaignPlan::load(&store, "plan.json").await.unwrap(), plan(1));
    }

    #[tokio::test]
    async fn a_folder_is_no_place_for_a_plan() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("plans")).unwrap();
        let location = folder.path().to_str().unwrap().parse().unwrap();
        let store = StoreRegistry::new(S3Options::default()).open(&location).unwrap();
        let found = plan(1).save(&store, "plans").await;
        assert!(
            matches!(found, Err(PlanFileError::Store(StoreError::UnsupportedFileType { .. }))),
            "{found:?}"
        );
    }

    #[tokio::test]
    async fn a_plan_that_was_altered_is_refused() {
        let store = Store::memory();
        let text = serde_json::to_string(&plan(1)).unwrap().replace("180", "181");
        store.put("plan.json", text.into()).await.unwrap();
        let found = CampaignPlan::load(&store, "plan.json").await;
        assert!(found.unwrap_err().to_string().contains("hash"));
        let absent = CampaignPlan::load(&store, "other.json").await;
        assert!(matches!(absent, Err(PlanFileError::Absent { .. })));
    }
}
