//! Arguments that several commands take, and how they are parsed.

use std::num::NonZeroUsize;

use clap::Args;

use crate::model::InterventionMonth;
use crate::model::case::POLYGONS;
use crate::vis::VisError;
use crate::vis::cases::CaseChoice;

/// Which cases.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct CaseArgs {
    /// Polygons, 0 to 689 [default: all that there are files of]
    #[arg(short, long, value_name = "ID", num_args = 1.., value_parser = polygon)]
    pub polygon_ids: Vec<u16>,
    /// Intervention months, of 1, 4, 7 and 10 [default: all that there are files of]
    #[arg(short = 'm', long, visible_alias = "month", value_name = "M", num_args = 1..)]
    pub intervention_months: Vec<InterventionMonth>,
}

impl CaseArgs {
    /// With a range of polygons, as a choice.
    pub fn choice(self, range: Option<(u16, u16)>) -> CaseChoice {
        CaseChoice { polygons: self.polygon_ids, range, months: self.intervention_months }
    }
}

/// A range of polygons.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct PolygonRange {
    /// Polygons from A to B
    #[arg(long, num_args = 2, value_names = ["A", "B"], value_parser = polygon)]
    polygon_range: Option<Vec<u16>>,
}

impl PolygonRange {
    /// Its ends, if it was given.
    pub fn ends(&self) -> Result<Option<(u16, u16)>, VisError> {
        let ends = match self.polygon_range.as_deref() {
            Some(&[first, last]) => Some((first, last)),
            _ => None,
        };
        in_order(ends)?;
        Ok(ends)
    }
}

/// The ends of a range of polygons.
pub(super) fn polygon(text: &str) -> Result<u16, String> {
    let polygon = text.parse().ok().filter(|polygon| *polygon < POLYGONS);
    polygon.ok_or_else(|| "polygons are 0 to 689".to_owned())
}

/// Refuses a range of polygons that ends before it begins.
pub(super) fn in_order(range: Option<(u16, u16)>) -> Result<(), VisError> {
    match range {
        Some((a, b)) if a > b => {
            Err(VisError::Needs(format!("--polygon-range {a} {b} holds no polygon: give {b} {a}")))
        }
        _ => Ok(()),
    }
}

/// Parses a number from 1 on.
pub(super) fn from_one(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "give a whole number from 1 on".to_owned())
}

/// Parses a number of bytes with its unit: 500k, 50M, 1Gi, 400GB.
pub(super) fn bytes_of(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let unit: f64 = match text[digits..].trim_end_matches(['B', 'b']) {
        "" => 1.0,
        "k" | "K" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "Ki" => 1024.0,
        "Mi" => 1048576.0,
        "Gi" => 1073741824.0,
        _ => return None,
    };
    Some((number * unit) as u64).filter(|bytes| *bytes > 0)
}

/// Parses an amount of memory.
pub(super) fn size(text: &str) -> Result<u64, String> {
    bytes_of(text).ok_or_else(|| "give bytes, such as 2GB or 400GB".to_owned())
}
