//! Making a plan: which cases there are, what there is to read of each, and what results depend on.

use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::open_plan::place;
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

/// Cases whose files are counted at the same time.
const LISTINGS: usize = 16;

/// What a plan is to be of.
#[derive(Clone, Debug)]
pub struct PlanDraft {
    /// The products, each once, in order.
    pub stages: Vec<Product>,
    /// Where everything is, absolute.
    pub places: Locations,
    /// The grid file, and who names it.
    pub grid: Option<GridFile>,
    /// Use the months that are there when others are missing.
    pub allow_missing: bool,
    /// Reproduce the known defects of the published atlas.
    pub reference_compat: bool,
}

impl PlanDraft {
    /// The cases of the archive that a plan is for.
    ///
    /// # Errors
    /// Products would lie within each other, store 2 would lack an input, or a case has no files.
    pub async fn cases(
        &self,
        choice: &CaseChoice,
        stores: &StoreRegistry,
    ) -> Result<ChosenCases, VisError> {
        self.refuse_shared()?;
        self.refuse_without_ssh(stores).await?;
        let input = CaseSource::Raw(self.archive(stores)?);
        choice.among(input.cases().await?, &input.url())
    }

    /// The plan of these cases; nothing is written. `output` is where it is to be.
    ///
    /// # Errors
    /// Months are missing, or an input cannot be read.
    pub async fn plan(
        self,
        cases: Vec<Case>,
        output: &Location,
        stores: &StoreRegistry,
        stop: &CancellationToken,
    ) -> Result<CampaignPlan, PlanFileError> {
        let centers = match &self.places.centers {
            Some(at) => Some((centers::load(stores, at).await?, at.to_string())),
            None => None,
        };
        let givens = self.givens(stores, stop).await?;
        let planned = self.count(&self.archive(stores)?, cases, centers.as_ref()).await?;
        let (store, _) = place(stores, output)?;
        let places = self.places.relative_to(store.location());
        Ok(CampaignPlan::new(self.stages, places, planned)
            .with_givens(givens)
            .with_rules(self.allow_missing, self.reference_compat))
    }

    /// The archive of raw history.
    pub fn archive(&self, stores: &StoreRegistry) -> Result<Store, VisError> {
        let needed = || VisError::Needs("a plan needs the archive of raw history".to_owned());
        Ok(stores.open(self.places.data_dir.as_ref().ok_or_else(needed)?)?)
    }

    /// Refuses products that would lie within each other.
    fn refuse_shared(&self) -> Result<(), VisError> {
        let places = Product::ALL.iter().filter_map(|stage| self.places.of(*stage));
        let all: Vec<&Location> = places.collect();
        for (n, one) in all.iter().enumerate() {
            for other in all.iter().skip(n + 1) {
                if one.overlaps(other) {
                    return Err(VisError::Needs(format!(
                        "{one} and {other} are the same place, or one lies within the other: give each product a place of its own"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Refuses a store 2 with columns of carbon when there is no series of sea surface height.
    async fn refuse_without_ssh(&self, stores: &StoreRegistry) -> Result<(), VisError> {
        if let (Some(at), None) = (&self.places.store2, &self.places.ssh)
            && let Ok(opened) = create::open(&stores.open(at)?, "store2").await
            && matches!(&opened.kind, StoreKind::Store2(maps) if maps.variables.contains(&MapVariable::Dic))
        {
            return Err(VisError::Needs(store2::NEEDS_SSH.to_owned()));
        }
        Ok(())
    }

    /// What the results depend on besides the archive, as it is now.
    async fn givens(
        &self,
        stores: &StoreRegistry,
        stop: &CancellationToken,
    ) -> Result<InputFingerprints, VisError> {
        let mut givens = InputFingerprints::default();
        if let Some(file) = &self.grid {
            givens.grid_sha256 = Some(file.load(stores).await?.1);
        }
        if let Some(at) = &self.places.ssh {
            let (stores, pool) = (until(stop, stores), Pool::new(1, u64::MAX));
            givens.ssh = Some(ssh::load(&stores, at, (&pool, stop)).await?.1);
        }
        Ok(givens)
    }

    /// What there is to read of each case.
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
        stream::iter(cases).map(count).buffered(LISTINGS).try_collect().await
    }
}

/// Writes a plan, unless there is another, and makes the local folder for research-grade files.
///
/// # Errors
/// Those of [`CampaignPlan::save`].
pub async fn write(
    plan: &CampaignPlan,
    output: &Location,
    stores: &StoreRegistry,
) -> Result<(), PlanFileError> {
    let (store, key) = place(stores, output)?;
    plan.places.clone().seen_from(store.location()).prepare(stores).await?;
    plan.save(&store, &key).await
}
