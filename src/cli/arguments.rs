//! Arguments that several commands take, and how they are parsed.

use std::num::NonZeroUsize;

use clap::Args;

use crate::model::case::POLYGONS;
use crate::model::{Case, InterventionMonth};
use crate::vis::VisError;

/// Which cases.
#[derive(Args, Debug, Default)]
pub(super) struct Cases {
    /// Polygons, 0 to 689 [default: all that there are files of]
    #[arg(short, long, value_name = "ID", num_args = 1.., value_parser = polygon)]
    pub polygon_ids: Vec<u16>,
    /// Intervention months, of 1, 4, 7 and 10 [default: all that there are files of]
    #[arg(short = 'm', long, visible_alias = "month", value_name = "M", num_args = 1..)]
    pub intervention_months: Vec<InterventionMonth>,
}

impl Cases {
    /// The cases that were asked for by polygon and month; none when any polygon will do.
    pub fn asked(&self, range: Option<&[u16]>) -> Vec<Case> {
        let in_range = |polygon: u16| matches!(range, Some([a, b]) if (*a..=*b).contains(&polygon));
        let chosen = |case: &Case| {
            (self.polygon_ids.contains(&case.polygon()) || in_range(case.polygon()))
                && self.has_month(*case)
        };
        Case::all().filter(chosen).collect()
    }

    /// Whether the case's month was asked for.
    pub fn has_month(&self, case: Case) -> bool {
        self.intervention_months.is_empty() || self.intervention_months.contains(&case.month())
    }

    /// Whether both were given, so that each case must be there.
    pub fn is_exact(&self) -> bool {
        !self.intervention_months.is_empty()
    }
}

/// The ends of a range of polygons.
pub(super) fn polygon(text: &str) -> Result<u16, String> {
    let polygon = text.parse().ok().filter(|polygon| *polygon < POLYGONS);
    polygon.ok_or_else(|| "polygons are 0 to 689".to_owned())
}

/// Refuses a range of polygons that ends before it begins.
pub(super) fn in_order(range: Option<&[u16]>) -> Result<(), VisError> {
    match range {
        Some([a, b]) if a > b => {
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
