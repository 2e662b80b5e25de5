//! Which of the cases that there are files of are worked on.

use std::collections::BTreeSet;

use super::VisError;
use crate::model::{Case, InterventionMonth};

/// Which cases were asked for.
#[derive(Clone, Debug, Default)]
pub struct CaseChoice {
    /// Polygons by name.
    pub polygons: Vec<u16>,
    /// A range of polygons, first and last.
    pub range: Option<(u16, u16)>,
    /// Intervention months; all when empty.
    pub months: Vec<InterventionMonth>,
}

/// The cases to work on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenCases {
    /// The cases, in order.
    pub cases: Vec<Case>,
    /// Polygons that were asked for.
    pub polygons: usize,
    /// How many of them have no files.
    pub without: usize,
}

impl CaseChoice {
    /// The cases that were asked for by polygon and month; none when any polygon will do.
    pub fn asked(&self) -> Vec<Case> {
        let in_range = |polygon: u16| {
            self.range.is_some_and(|(first, last)| (first..=last).contains(&polygon))
        };
        let chosen = |case: &Case| {
            (self.polygons.contains(&case.polygon()) || in_range(case.polygon()))
                && self.has_month(*case)
        };
        Case::all().filter(chosen).collect()
    }

    /// Whether the case's month was asked for.
    fn has_month(&self, case: Case) -> bool {
        self.months.is_empty() || self.months.contains(&case.month())
    }

    /// The cases to work on: those asked for by polygon, else those that are `there`; `url` is where.
    ///
    /// Polygons that were named must be there; of a range, and of the seasons where no month was named,
    /// those count that are there.
    ///
    /// # Errors
    /// A polygon that was named has no files, or no case has.
    pub fn among(&self, there: Vec<Case>, url: &str) -> Result<ChosenCases, VisError> {
        let asked = self.asked();
        let is_named = |case: &Case| self.polygons.contains(&case.polygon());
        // Where there is no listing, all that were asked for are tried.
        let by_name =
            |case: &&Case| !self.months.is_empty() && (is_named(case) || there.is_empty());
        let mut cases: BTreeSet<Case> = asked.iter().filter(by_name).copied().collect();
        let polygons: BTreeSet<u16> = asked.iter().map(|case| case.polygon()).collect();
        let wanted = |case: &Case| {
            self.has_month(*case) && (asked.is_empty() || polygons.contains(&case.polygon()))
        };
        cases.extend(there.into_iter().filter(wanted));
        let has = |polygon: &u16| cases.iter().any(|case| case.polygon() == *polygon);
        let absent = |what: &str| {
            let hint = "is it the right location?";
            VisError::Needs(format!("there are no files of {what} in {url}; {hint}"))
        };
        if let Some(polygon) = self.polygons.iter().find(|polygon| !has(polygon)) {
            return Err(absent(&format!("polygon {polygon}")));
        }
        if cases.is_empty() {
            let which = if asked.is_empty() { "any case" } else { "the cases that were asked for" };
            return Err(absent(which));
        }
        let without = polygons.iter().filter(|polygon| !has(polygon)).count();
        Ok(ChosenCases { cases: cases.into_iter().collect(), polygons: polygons.len(), without })
    }
}
