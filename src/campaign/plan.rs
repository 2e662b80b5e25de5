//! The plan of a campaign: an object that never changes, so that all nodes work from equal plans.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Locations, PlanFileError, Product};
use crate::case_manifest::InputRecord;
use crate::model::{Case, LatLon, hex};
use crate::read::centers::Centers;
use crate::store::{PutMode, PutOptions, Store, StoreError};
use crate::vis::StoreRecipe;

/// Version of the JSON format.
const FORMAT: u32 = 3;

/// Fingerprints of the inputs other than the archive when the plan was made. An absent one is not used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputFingerprints {
    /// SHA-256 of the grid file, in hexadecimal.
    pub grid_sha256: Option<String>,
    /// File with the series of sea surface height.
    pub ssh: Option<InputRecord>,
}

/// A case of a plan, with the size of its input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedCase {
    /// Short name of the case, `PPP-MM`.
    pub case: String,
    /// Number of raw files.
    pub files: usize,
    /// Bytes of all raw files.
    pub bytes: u64,
    /// Center of the polygon, for store 3; `None` without a file of centers.
    pub center: Option<LatLon>,
}

/// The plan of a campaign: products, cases, locations and rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CampaignPlan {
    format: u32,
    /// SHA-256 of the plan with this entry empty, in hexadecimal.
    pub sha256: String,
    /// Products to make, each once, in order.
    pub products: Vec<Product>,
    /// Inputs and outputs. In the file, locations below the plan's folder are relative to it.
    pub locations: Locations,
    /// Fingerprints of the inputs other than the archive.
    #[serde(default)]
    pub fingerprints: InputFingerprints,
    /// Accept cases with missing months.
    pub allow_missing: bool,
    /// Reproduce the known defects of the published atlas.
    pub reference_compat: bool,
    /// Cases to process; case `i` belongs to shard `i mod N`.
    pub cases: Vec<PlannedCase>,
}

impl CampaignPlan {
    /// Creates a plan without fingerprints, with the default rules.
    pub fn new(products: Vec<Product>, locations: Locations, cases: Vec<PlannedCase>) -> Self {
        let (sha256, fingerprints) = (String::new(), InputFingerprints::default());
        let (allow_missing, reference_compat) = (false, false);
        Self {
            format: FORMAT,
            sha256,
            products,
            locations,
            fingerprints,
            allow_missing,
            reference_compat,
            cases,
        }
        .signed()
    }

    /// Sets the fingerprints of the inputs other than the archive.
    pub fn with_fingerprints(self, fingerprints: InputFingerprints) -> Self {
        Self { fingerprints, ..self }.signed()
    }

    /// Sets the rules: whether months may be missing, and whether the known defects of the published atlas
    /// are reproduced.
    pub fn with_rules(self, allow_missing: bool, reference_compat: bool) -> Self {
        Self { allow_missing, reference_compat, ..self }.signed()
    }

    /// Sets the SHA-256.
    fn signed(self) -> Self {
        Self { sha256: self.digest(), ..self }
    }

    fn digest(&self) -> String {
        let bare = Self { sha256: String::new(), ..self.clone() };
        // Text, numbers and lists always have a JSON form.
        hex(&Sha256::digest(serde_json::to_vec(&bare).unwrap_or_default()))
    }

    /// The rules for a map store.
    pub fn recipe(&self, product: Product) -> StoreRecipe {
        // The published efficiencies have no known defects.
        StoreRecipe::new(self.reference_compat && product != Product::Store1)
    }

    /// Centers of the polygons of all cases.
    pub fn centers(&self) -> Centers {
        let cases = self.cases().zip(&self.cases);
        cases.filter_map(|((_, case), planned)| Some((case.polygon(), planned.center?))).collect()
    }

    /// Bytes of the raw files of all cases.
    pub fn bytes(&self) -> u64 {
        self.cases.iter().map(|planned| planned.bytes).sum()
    }

    /// The cases with their positions in the plan, from 0.
    pub fn cases(&self) -> impl Iterator<Item = (usize, Case)> {
        self.cases
            .iter()
            .enumerate()
            .filter_map(|(n, planned)| Some((n, planned.case.parse().ok()?)))
    }

    /// Writes the plan, unless the key holds the same plan already.
    ///
    /// # Errors
    /// [`PlanFileError::Exists`] when the key holds another object, or the store's error.
    pub async fn save(&self, store: &Store, key: &str) -> Result<(), PlanFileError> {
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        let options = PutOptions { condition: PutMode::Absent, ..PutOptions::default() };
        match store.send(key, Bytes::from(text), &options).await {
            Ok(_) => Ok(()),
            Err(error @ StoreError::PreconditionFailed { .. }) => {
                match Self::load(store, key).await {
                    Ok(existing) if existing == *self => Ok(()),
                    Err(PlanFileError::Absent { .. }) => Err(error.into()),
                    _ => Err(PlanFileError::Exists { url: store.location().join(key).to_string() }),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Checks that [`Self::save`] would write the plan, or find it written.
    ///
    /// # Errors
    /// [`PlanFileError::Exists`] when the key holds another object, or the store's error.
    pub async fn check_free(&self, store: &Store, key: &str) -> Result<(), PlanFileError> {
        match Self::load(store, key).await {
            Ok(existing) if existing == *self => Ok(()),
            Err(PlanFileError::Absent { .. }) => Ok(()),
            Err(error @ PlanFileError::Store(_)) => Err(error),
            _ => Err(PlanFileError::Exists { url: store.location().join(key).to_string() }),
        }
    }

    /// Reads a plan and checks its SHA-256.
    ///
    /// # Errors
    /// The object is absent, or not an unaltered plan of this format.
    pub async fn load(store: &Store, key: &str) -> Result<Self, PlanFileError> {
        let url = || store.location().join(key).to_string();
        let damaged = |problem: String| PlanFileError::Damaged { url: url(), problem };
        let object = store.get(key).await?;
        let (bytes, _) = object.ok_or_else(|| PlanFileError::Absent { url: url() })?;
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let invalid = |error: serde_json::Error| damaged(error.to_string());
        let Format { format } = serde_json::from_slice(&bytes).map_err(invalid)?;
        if format != FORMAT {
            return Err(damaged(format!("it has format {format}, this program reads {FORMAT}")));
        }
        let plan: Self = serde_json::from_slice(&bytes).map_err(invalid)?;
        if plan.sha256 != plan.digest() {
            return Err(damaged("its SHA-256 hash does not match its contents".to_owned()));
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
    async fn a_plan_is_not_written_over_a_folder() {
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
