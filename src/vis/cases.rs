//! Selection of cases: the choice on the command line, applied to the cases that have input files.

use std::collections::BTreeSet;

use super::VisError;
use crate::model::{Case, InterventionMonth};

/// A choice of cases by polygon, intervention month or name.
#[derive(Clone, Debug, Default)]
pub struct CaseChoice {
    /// Single polygons.
    pub polygons: Vec<u16>,
    /// Ranges of polygons: first and last, both included.
    pub ranges: Vec<(u16, u16)>,
    /// Intervention months of these polygons; all when empty.
    pub months: Vec<InterventionMonth>,
    /// Single cases.
    pub cases: Vec<Case>,
}

/// The cases of a choice that a run works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenCases {
    /// The cases in ascending order.
    pub cases: Vec<Case>,
    /// Number of polygons in the choice; 0 when it names none.
    pub polygons: usize,
    /// Number of these polygons that have no files.
    pub without: usize,
}

impl CaseChoice {
    /// The cases of the catalogue that the choice names, by polygon and month or as single cases; empty when
    /// it names no polygon and no case.
    pub fn named_cases(&self) -> Vec<Case> {
        let is_asked = |case: &Case| {
            self.cases.contains(case) || self.has_polygon(*case) && self.has_month(*case)
        };
        Case::all().filter(is_asked).collect()
    }

    /// The cases of the catalogue that the choice includes: those it names, or every case of the chosen
    /// months when it names no polygon and no case.
    pub fn of_catalogue(&self) -> Vec<Case> {
        Case::all().filter(|case| self.allows(*case)).collect()
    }

    /// Whether the choice includes a case.
    pub fn allows(&self, case: Case) -> bool {
        self.cases.contains(&case)
            || (self.has_polygon(case) || self.is_any_polygon()) && self.has_month(case)
    }

    /// Whether the choice includes every case.
    pub fn is_all(&self) -> bool {
        self.is_any_polygon() && self.months.is_empty()
    }

    /// Whether the choice names no polygon and no case.
    fn is_any_polygon(&self) -> bool {
        self.polygons.is_empty() && self.ranges.is_empty() && self.cases.is_empty()
    }

    /// Whether the choice names the polygon of a case, as a single polygon or in a range.
    fn has_polygon(&self, case: Case) -> bool {
        let polygon = case.polygon();
        let is_within = |(first, last): &(u16, u16)| (*first..=*last).contains(&polygon);
        self.polygons.contains(&polygon) || self.ranges.iter().any(is_within)
    }

    /// Whether the choice includes the intervention month of a case.
    fn has_month(&self, case: Case) -> bool {
        self.months.is_empty() || self.months.contains(&case.month())
    }

    /// Applies the choice to the cases that are `listed` at the location `url`.
    ///
    /// Single polygons with chosen months, and single cases, are included even if they are not listed, so
    /// that the run reports their missing files. Of ranges, and without chosen months, only listed cases
    /// are included. Without a listing (https), every named case is included if months are chosen.
    ///
    /// # Errors
    /// A single polygon has no case, or the result is empty.
    pub fn select(&self, listed: Vec<Case>, url: &str) -> Result<ChosenCases, VisError> {
        let asked = self.named_cases();
        let is_single = |case: &Case| self.polygons.contains(&case.polygon());
        // Without a listing the run tries every named case.
        let is_required = |case: &&Case| {
            self.cases.contains(case)
                || !self.months.is_empty() && (is_single(case) || listed.is_empty())
        };
        let mut cases: BTreeSet<Case> = asked.iter().filter(is_required).copied().collect();
        let polygons: BTreeSet<u16> = asked.iter().map(|case| case.polygon()).collect();
        cases.extend(listed.into_iter().filter(|case| self.allows(*case)));
        let has = |polygon: &u16| cases.iter().any(|case| case.polygon() == *polygon);
        let absent = |what: &str| VisError::NoFiles { url: url.to_owned(), what: what.to_owned() };
        if let Some(polygon) = self.polygons.iter().find(|polygon| !has(polygon)) {
            return Err(absent(&format!("polygon {polygon}")));
        }
        if cases.is_empty() {
            let which = if asked.is_empty() { "any case" } else { "the chosen cases" };
            return Err(absent(which));
        }
        let without = polygons.iter().filter(|polygon| !has(polygon)).count();
        Ok(ChosenCases { cases: cases.into_iter().collect(), polygons: polygons.len(), without })
    }
}
