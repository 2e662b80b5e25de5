//! Arguments that several commands share, and their value parsers.

use std::error::Error;
use std::num::NonZeroUsize;
use std::str::FromStr;

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap_complete::engine::ArgValueCompleter;

use super::completions;
use super::exit::UsageError;
use crate::campaign::Product;
use crate::model::atlas::{Band, MapVariable};
use crate::model::case::POLYGONS;
use crate::model::{Case, CaseNameError, InterventionMonth};
use crate::vis::cases::CaseChoice;
use crate::vis::schema::MAX_LEVELS;

/// Options that choose cases.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct CaseArgs {
    /// Polygons, 0 to 689: 112, 112,113 or 200-299; may be repeated [default: all]
    #[arg(short, long = "polygon", alias = "polygon-ids", value_name = "IDS", num_args = 1.., value_delimiter = ',', value_parser = polygons, add = ArgValueCompleter::new(completions::polygons))]
    polygons: Vec<(u16, u16)>,
    /// Polygons A to B
    #[arg(long, hide = true, num_args = 2, value_names = ["A", "B"], value_parser = polygon)]
    polygon_range: Option<Vec<u16>>,
    /// Intervention months of these polygons; may be repeated [default: all]
    #[arg(short, long = "month", alias = "intervention-months", value_name = "M", num_args = 1.., value_delimiter = ',', value_parser = months())]
    months: Vec<InterventionMonth>,
    /// Cases by name: polygon and month (112-04), index (449 or 00449), or the full name; may be repeated
    #[arg(long = "case", value_name = "CASE", num_args = 1.., value_delimiter = ',', value_parser = case)]
    cases: Vec<Case>,
}

impl CaseArgs {
    /// Returns the choice of cases.
    ///
    /// # Errors
    /// The first polygon of `--polygon-range` is larger than the last.
    pub fn choice(&self) -> Result<CaseChoice, UsageError> {
        let (single, ranges): (Vec<_>, Vec<_>) =
            self.polygons.iter().copied().partition(|(first, last)| first == last);
        let range = match self.polygon_range.as_deref() {
            Some(&[first, last]) => Some((first, last)),
            _ => None,
        };
        in_order(range)?;
        Ok(CaseChoice {
            polygons: single.into_iter().map(|(polygon, _)| polygon).collect(),
            ranges: ranges.into_iter().chain(range).collect(),
            months: self.months.clone(),
            cases: self.cases.clone(),
        })
    }
}

/// Returns a choice of cases as arguments of a command line, for a job script.
pub(super) fn words(choice: &CaseChoice) -> Vec<String> {
    let join = |values: &[String]| values.join(",");
    let polygons = choice.polygons.iter().map(u16::to_string);
    let ranges = choice.ranges.iter().map(|(first, last)| format!("{first}-{last}"));
    let options = [
        ("--polygon", join(&polygons.chain(ranges).collect::<Vec<_>>())),
        (
            "--month",
            join(&choice.months.iter().map(|m| m.number().to_string()).collect::<Vec<_>>()),
        ),
        ("--case", join(&choice.cases.iter().map(|case| case.short()).collect::<Vec<_>>())),
    ];
    let options = options.into_iter().filter(|(_, values)| !values.is_empty());
    options.flat_map(|(name, values)| [name.to_owned(), values]).collect()
}

/// Parses the name of a case. The index may be written without leading zeros.
pub(super) fn case(text: &str) -> Result<Case, CaseNameError> {
    match text.len() < 5 && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => format!("{text:0>5}").parse(),
        false => text.parse(),
    }
}

/// Parses one of a few names. `--help` lists the names, shells complete them, and clap suggests a similar one.
fn one_of<T, N>(names: impl IntoIterator<Item = N>) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: Into<Box<dyn Error + Send + Sync>>> + Clone + Send + Sync + 'static,
    N: Into<PossibleValue>,
{
    PossibleValuesParser::new(names.into_iter().map(Into::into).collect::<Vec<PossibleValue>>())
        .try_map(|name| name.parse::<T>())
}

/// Parses an intervention month. It may have a leading zero.
fn months() -> impl TypedValueParser<Value = InterventionMonth> {
    let name = |month: InterventionMonth| {
        let number = month.number();
        PossibleValue::new(number.to_string()).alias(format!("{number:02}"))
    };
    one_of(InterventionMonth::ALL.map(name))
}

/// Parses a product.
pub(super) fn product() -> impl TypedValueParser<Value = Product> {
    one_of(Product::ALL.map(Product::name))
}

/// Parses a variable of the maps.
pub(super) fn variable() -> impl TypedValueParser<Value = MapVariable> {
    one_of(MapVariable::ALL.map(MapVariable::name))
}

/// Parses a band of the maps.
pub(super) fn band() -> impl TypedValueParser<Value = Band> {
    one_of(Band::ALL.map(Band::name))
}

/// Parses a number of levels of the pyramid.
pub(super) fn levels() -> impl TypedValueParser<Value = u8> {
    one_of((1..=MAX_LEVELS).map(|levels| PossibleValue::new(levels.to_string())))
}

/// Parses the ID of a polygon.
pub(super) fn polygon(text: &str) -> Result<u16, String> {
    let polygon = text.parse().ok().filter(|polygon| *polygon < POLYGONS);
    polygon.ok_or_else(|| "give the ID of a polygon; polygons are 0 to 689".to_owned())
}

/// Parses a polygon, such as 112, or a range, such as 200-299. Returns the first and the last polygon.
fn polygons(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (polygon(first)?, polygon(last)?);
    match first <= last {
        true => Ok((first, last)),
        false => Err(format!("the range is empty; give {last}-{first}")),
    }
}

/// Checks that the first polygon of a range is not larger than the last.
pub(super) fn in_order(range: Option<(u16, u16)>) -> Result<(), UsageError> {
    match range {
        Some((a, b)) if a > b => {
            Err(UsageError(format!("the range of polygons {a} {b} is empty; give {b} {a}")))
        }
        _ => Ok(()),
    }
}

/// Parses a number of workers, at least 1.
pub(super) fn workers(text: &str) -> Result<NonZeroUsize, String> {
    from_one(text).map_err(|error| match text.contains(|c: char| c == '/' || c.is_alphabetic()) {
        true => format!("{error}; give the regridding weights with --weights-store"),
        false => error,
    })
}

/// Parses a whole number, at least 1.
pub(super) fn from_one(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "give a whole number, at least 1".to_owned())
}

/// Parses a number of bytes with an optional unit, such as 500k, 50M, 1Gi or 400GB. `None`: not a valid number,
/// or 0.
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

/// Parses an amount of memory, in bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    bytes_of(text).ok_or_else(|| "give a number of bytes, such as 2GB or 400GB".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Selection {
        #[command(flatten)]
        cases: CaseArgs,
    }

    fn choice(line: &str) -> CaseChoice {
        let words = line.split_whitespace();
        Selection::try_parse_from(["dor"].into_iter().chain(words)).unwrap().cases.choice().unwrap()
    }

    #[test]
    fn polygons_are_repeated_listed_and_given_as_ranges() {
        let expected = choice("-p 112 -p 113 -p 200-299 -m 4 -m 7");
        for line in [
            "-p 112,113 -p 200-299 -m 4,7",
            "-p 112 113 200-299 -m 4 7",
            "--polygon-ids 112 113 --polygon-range 200 299 --intervention-months 4 7",
        ] {
            let choice = choice(line);
            assert_eq!(choice.of_catalogue(), expected.of_catalogue(), "{line}");
            assert_eq!(choice.of_catalogue().len(), 2 * 102, "{line}");
        }
        assert_eq!(choice("").of_catalogue().len(), 2760);
        assert_eq!(choice("-m 1").of_catalogue().len(), 690);
    }

    #[test]
    fn cases_have_four_names_and_join_the_polygons() {
        let full = "smyle.cdr-atlas-v0.glb-dor_North_Atlantic_basin_112_1999-04-01_00449.001";
        for name in ["112-04", "449", "00449", full] {
            let cases = choice(&format!("--case {name}")).of_catalogue();
            assert_eq!(cases.iter().map(Case::to_string).collect::<Vec<_>>(), [full], "{name}");
        }
        assert_eq!(choice("-p 5 -m 1 --case 112-04,500-01").of_catalogue().len(), 3);
    }

    #[test]
    fn words_of_a_choice_are_the_same_choice() {
        let all = choice("-p 1,7-9 -m 4 --case 112-04");
        assert_eq!(choice(&words(&all).join(" ")).of_catalogue(), all.of_catalogue());
        assert!(words(&choice("")).is_empty());
    }

    #[test]
    fn a_path_in_place_of_workers_points_to_the_weights() {
        assert_eq!(workers("3").map(NonZeroUsize::get), Ok(3));
        assert!(workers("w/weights.nc").unwrap_err().contains("--weights-store"));
        assert!(!workers("0").unwrap_err().contains("--weights-store"));
    }
}
