//! Creation of a plan: selects cases, counts their raw files and takes fingerprints of the other inputs.

use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::open_plan::open_folder;
use super::{CampaignPlan, InputFingerprints, Locations, PlanFileError, PlannedCase, Product};
use crate::executor::{Pool, until};
use crate::model::Case;
use crate::model::atlas::MapVariable;
use crate::read::centers::Centers;
use crate::research::GridFile;
use crate::research::plan::{missing_months, raw_files};
use crate::store::{Location, Store, StoreRegistry};
use crate::vis::cases::{CaseChoice, ChosenCases};
use crate::vis::input::CaseSource;
use crate::vis::store3::center;
use crate::vis::{StoreKind, VisError, centers, create, ssh, store2};

/// Cases whose files are listed at the same time.
const CONCURRENT_LISTINGS: usize = 16;

/// What the user asks of a plan, before cases and fingerprints are known.
#[derive(Clone, Debug)]
pub struct PlanDraft {
    /// Products to make, each once, in order.
    pub products: Vec<Product>,
    /// Inputs and outputs, as absolute locations.
    pub locations: Locations,
    /// The grid file with the setting that names it.
    pub grid: Option<GridFile>,
    /// Accept cases with missing months.
    pub allow_missing: bool,
    /// Reproduce the known defects of the published atlas.
    pub reference_compat: bool,
}

impl PlanDraft {
    /// Selects cases of the archive.
    ///
    /// # Errors
    /// Output locations overlap, store 2 lacks an input, or a selected case has no files.
    pub async fn cases(
        &self,
        choice: &CaseChoice,
        stores: &StoreRegistry,
    ) -> Result<ChosenCases, VisError> {
        self.refuse_overlaps()?;
        self.refuse_without_ssh(stores).await?;
        let input = CaseSource::Raw(self.archive(stores)?);
        choice.select(input.cases().await?, &input.url())
    }

    /// Creates the plan of `cases` for the file `output`, without writing it.
    ///
    /// # Errors
    /// A case has missing months that are not allowed, or an input cannot be read.
    pub async fn plan(
        self,
        cases: Vec<Case>,
        output: &Location,
        stores: &StoreRegistry,
        stop: &CancellationToken,
    ) -> Result<CampaignPlan, PlanFileError> {
        let centers = match &self.locations.centers {
            Some(at) => Some((centers::load(stores, at).await?, at.to_string())),
            None => None,
        };
        let fingerprints = self.fingerprints(stores, stop).await?;
        let planned = self.count(&self.archive(stores)?, cases, centers.as_ref()).await?;
        let (store, _) = open_folder(stores, output)?;
        let locations = self.locations.relative_to(store.location());
        Ok(CampaignPlan::new(self.products, locations, planned)
            .with_fingerprints(fingerprints)
            .with_rules(self.allow_missing, self.reference_compat))
    }

    /// Opens the archive of raw history.
    ///
    /// # Errors
    /// The draft has no archive, or the store cannot be opened.
    pub fn archive(&self, stores: &StoreRegistry) -> Result<Store, VisError> {
        let absent = || {
            VisError::Settings(
                "a plan needs the archive of raw history: give --data-dir".to_owned(),
            )
        };
        Ok(stores.open(self.locations.data_dir.as_ref().ok_or_else(absent)?)?)
    }

    /// Refuses output locations that are equal or lie within each other.
    fn refuse_overlaps(&self) -> Result<(), VisError> {
        let outputs = Product::ALL.iter().filter_map(|product| self.locations.of(*product));
        let all: Vec<&Location> = outputs.collect();
        for (n, one) in all.iter().enumerate() {
            for other in all.iter().skip(n + 1) {
                if one.overlaps(other) {
                    return Err(VisError::Settings(format!(
                        "{one} and {other} are the same location, or one lies within the other: \
                         give each product a separate location"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Refuses a store 2 with vertically integrated carbon (`DIC`) without a series of sea surface height.
    async fn refuse_without_ssh(&self, stores: &StoreRegistry) -> Result<(), VisError> {
        if let (Some(at), None) = (&self.locations.store2, &self.locations.ssh)
            && let Ok(opened) = create::open(&stores.open(at)?, "store2").await
            && matches!(&opened.kind, StoreKind::Store2(maps) if maps.variables.contains(&MapVariable::Dic))
        {
            return Err(VisError::Settings(store2::NEEDS_SSH.to_owned()));
        }
        Ok(())
    }

    /// Takes the fingerprints of the inputs other than the archive.
    async fn fingerprints(
        &self,
        stores: &StoreRegistry,
        stop: &CancellationToken,
    ) -> Result<InputFingerprints, VisError> {
        let mut fingerprints = InputFingerprints::default();
        if let Some(file) = &self.grid {
            fingerprints.grid_sha256 = Some(file.load(stores).await?.1);
        }
        if let Some(at) = &self.locations.ssh {
            let (stores, pool) = (until(stop, stores), Pool::new(1, u64::MAX));
            fingerprints.ssh = Some(ssh::load(&stores, at, (&pool, stop)).await?.1);
        }
        Ok(fingerprints)
    }

    /// Counts the raw files of each case and finds the center of its polygon.
    async fn count(
        &self,
        raw: &Store,
        cases: Vec<Case>,
        centers: Option<&(Centers, String)>,
    ) -> Result<Vec<PlannedCase>, VisError> {
        let count = async |case: Case| {
            let center = centers.map(|(centers, url)| center(centers, url, case)).transpose()?;
            let files = raw_files(raw, case).await?;
            missing_months(case, &files, self.allow_missing)?;
            let bytes = files.values().map(|info| info.size).sum();
            Ok(PlannedCase { case: case.short(), files: files.len(), bytes, center })
        };
        stream::iter(cases).map(count).buffered(CONCURRENT_LISTINGS).try_collect().await
    }
}

/// Writes a plan, and creates the local folder for research-grade files. With `dry_run` it writes nothing.
///
/// # Errors
/// Those of [`CampaignPlan::save`].
pub async fn write(
    plan: &CampaignPlan,
    output: &Location,
    stores: &StoreRegistry,
    dry_run: bool,
) -> Result<(), PlanFileError> {
    let (store, key) = open_folder(stores, output)?;
    if dry_run {
        return plan.check_free(&store, &key).await;
    }
    plan.locations.clone().seen_from(store.location()).prepare(stores).await?;
    plan.save(&store, &key).await
}
