//! Finalization of a campaign: completes the stores of all products when every case is done.

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;

use super::status::{Missing, missing, open_archive, open_outputs};
use super::{OpenPlan, PlanFileError, Product, ProductError};
use crate::executor::{Stopped, unless_stopped};
use crate::model::{ErrorKind, WithErrorKind};
use crate::store::{Store, StoreError};
use crate::vis::finalize::{Completeness, finalize as finalize_store, preview};
use crate::vis::{StoreKind, VisError};

/// A campaign could not be finalized.
#[derive(Debug, thiserror::Error)]
pub enum FinalizeError {
    /// A location of the plan cannot be used.
    #[error(transparent)]
    Plan(#[from] PlanFileError),
    /// A product could not be compared with the plan.
    #[error(transparent)]
    Status(#[from] ProductError),
    /// A map store could not be finalized.
    #[error(transparent)]
    Vis(#[from] VisError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The user stopped the run.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl WithErrorKind for FinalizeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Plan(error) => error.kind(),
            Self::Status(error) => error.kind(),
            Self::Vis(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Stopped(error) => error.kind(),
        }
    }
}

/// Contents of a finalized product.
pub enum FinalizedProduct {
    /// Research-grade files, with the number of their cases.
    Research(usize),
    /// A map store, with its kind and the state of its cases.
    Maps(StoreKind, Completeness),
}

/// Result of a finalization.
pub enum FinalizeResult {
    /// Every product was finalized, in these stores.
    Finalized(Vec<Store>),
    /// Nothing was written, because these products are missing or not as planned.
    Missing(Vec<Missing>),
}

/// Finalizes the products of a plan, unless a product is missing, and reports each to `on_product`. With `dry_run`
/// it writes nothing.
///
/// # Errors
/// A location of the plan is absent, a store cannot be finalized, the user stops the run, or `on_product`
/// fails.
pub async fn finalize<E: From<FinalizeError>>(
    opened: &OpenPlan,
    dry_run: bool,
    stop: &CancellationToken,
    mut on_product: impl FnMut(&Store, FinalizedProduct) -> Result<(), E>,
) -> Result<FinalizeResult, E> {
    let compared = unless_stopped(stop, find_missing(opened)).await.map_err(FinalizeError::from)?;
    let (outputs, missing) = compared?;
    if !missing.is_empty() {
        return Ok(FinalizeResult::Missing(missing));
    }
    for (product, store) in &outputs {
        let work = finalize_product(*product, store, opened.plan.cases.len(), dry_run);
        let finalized = unless_stopped(stop, work).await.map_err(FinalizeError::from)?;
        on_product(store, finalized?)?;
    }
    Ok(FinalizeResult::Finalized(outputs.into_iter().map(|(_, store)| store).collect()))
}

/// Opens the stores of all products, and finds the products that are missing or not as planned.
async fn find_missing(
    OpenPlan { stores, plan, .. }: &OpenPlan,
) -> Result<(Vec<(Product, Store)>, Vec<Missing>), FinalizeError> {
    plan.locations.ensure_present(&plan.products, stores).await?;
    let (raw, outputs) = (open_archive(plan, stores)?, open_outputs(plan, stores)?);
    let missing = missing(plan, &raw, &outputs, &mut BTreeSet::new()).await?;
    Ok((outputs, missing))
}

/// Finalizes the store of one product, which has `cases` cases.
async fn finalize_product(
    product: Product,
    store: &Store,
    cases: usize,
    dry_run: bool,
) -> Result<FinalizedProduct, FinalizeError> {
    if product == Product::Research {
        // A killed process leaves temporary files also in cases that another process completes.
        if !dry_run {
            store.remove_stale_temp_files("").await?;
        }
        return Ok(FinalizedProduct::Research(cases));
    }
    let (kind, completeness) = match dry_run {
        true => preview(store).await?,
        false => finalize_store(store).await?,
    };
    Ok(FinalizedProduct::Maps(kind, completeness))
}
