//! The catalogue of cases: 690 ocean polygons x 4 intervention months, fixed in the code.

use std::fmt;
use std::str::FromStr;

use super::calendar::{MODEL_YEAR_OF_1999, YearMonth};

/// Number of polygons of the atlas.
pub const POLYGONS: u16 = 690;
/// Number of cases of the atlas: every polygon with every intervention month.
pub const CASES: usize = POLYGONS as usize * InterventionMonth::ALL.len();
/// Number of monthly files of a case: 15 years.
pub const MONTHS: usize = 180;

/// Names of the basins with their number of polygons, in the order of the polygon ids.
pub const BASINS: [(&str, u16); 4] = [
    ("North_Atlantic_basin", 150),
    ("North_Pacific_basin", 200),
    ("South", 300),
    ("Southern_Ocean", 40),
];

/// Month of 1999 in which an intervention starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InterventionMonth {
    /// 1999-01-01.
    January,
    /// 1999-04-01.
    April,
    /// 1999-07-01.
    July,
    /// 1999-10-01.
    October,
}

impl InterventionMonth {
    /// All intervention months, in the order of the catalogue.
    pub const ALL: [Self; 4] = [Self::January, Self::April, Self::July, Self::October];

    /// Number of the month, 1 to 12.
    pub fn number(self) -> u8 {
        match self {
            Self::January => 1,
            Self::April => 4,
            Self::July => 7,
            Self::October => 10,
        }
    }

    /// The intervention month with this number; `None` unless it is 1, 4, 7 or 10.
    pub fn from_number(month: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.number() == month)
    }
}

impl FromStr for InterventionMonth {
    type Err = CaseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse()
            .ok()
            .and_then(Self::from_number)
            .ok_or_else(|| CaseNameError::Month { text: text.to_owned() })
    }
}

/// Start of the full name of every case.
pub const NAME_START: &str = "smyle.cdr-atlas-v0.glb-dor_";
/// End of the full name of every case: the member of the ensemble.
pub const NAME_END: &str = ".001";

/// One run of the model: an intervention in one polygon that starts in one month.
///
/// ```
/// use dor_atlas::model::{Case, InterventionMonth};
///
/// let case: Case = "112-04".parse()?;
/// assert_eq!(case.to_string(), "smyle.cdr-atlas-v0.glb-dor_North_Atlantic_basin_112_1999-04-01_00449.001");
/// assert_eq!(case, Case::new(112, InterventionMonth::April)?);
/// assert_eq!(case, "00449".parse()?);
/// assert!("690-04".parse::<Case>().is_err());
/// # Ok::<(), dor_atlas::model::CaseNameError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Case {
    polygon: u16,
    month: InterventionMonth,
}

/// The error of a text that is not the name of a case in the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaseNameError {
    /// The text is none of the three forms of a name.
    #[error(
        "`{text}` names no case: give the full name \
         (smyle.cdr-atlas-v0.glb-dor_BASIN_PPP_1999-MM-01_NNNNN.001), its five-digit index \
         (00000 to 02759) or polygon and month (112-04)"
    )]
    Form {
        /// Text of the user.
        text: String,
    },
    /// The parts of a full name contradict the catalogue.
    #[error("`{text}` is not in the catalogue: the case of that index is `{catalogue}`")]
    Contradiction {
        /// Text of the user.
        text: String,
        /// Full name of the case with this index in the catalogue.
        catalogue: String,
    },
    /// The polygon does not exist.
    #[error("there is no polygon {polygon}: polygons are 0 to 689")]
    Polygon {
        /// Polygon id of the user.
        polygon: u32,
    },
    /// The month is not an intervention month.
    #[error("`{text}` is not an intervention month: these are 1, 4, 7 and 10")]
    Month {
        /// Text of the user.
        text: String,
    },
}

impl Case {
    /// The case of a polygon (0 to 689) and an intervention month.
    ///
    /// # Errors
    /// [`CaseNameError::Polygon`].
    pub fn new(polygon: u16, month: InterventionMonth) -> Result<Self, CaseNameError> {
        if polygon >= POLYGONS {
            return Err(CaseNameError::Polygon { polygon: polygon.into() });
        }
        Ok(Self { polygon, month })
    }

    /// The case with this index (0 to 2759); `None` beyond the catalogue.
    pub fn from_index(index: usize) -> Option<Self> {
        let polygon = u16::try_from(index / 4).ok().filter(|&p| p < POLYGONS)?;
        Some(Self { polygon, month: *InterventionMonth::ALL.get(index % 4)? })
    }

    /// All cases of the catalogue, in the order of their indexes.
    pub fn all() -> impl ExactSizeIterator<Item = Self> + Clone {
        (0..CASES).map(|i| Self { polygon: (i / 4) as u16, month: InterventionMonth::ALL[i % 4] })
    }

    /// Polygon id, 0 to 689, counted across the basins.
    pub fn polygon(self) -> u16 {
        self.polygon
    }

    /// The month of 1999 in which the intervention starts.
    pub fn month(self) -> InterventionMonth {
        self.month
    }

    /// Position in the catalogue, 0 to 2759.
    pub fn index(self) -> usize {
        usize::from(self.polygon) * 4 + usize::from(self.month.number() / 3)
    }

    /// Name of the basin, and number of the polygon inside the basin, from 0.
    pub fn basin(self) -> (&'static str, u16) {
        let mut number = self.polygon;
        for (name, polygons) in BASINS {
            if number < polygons {
                return (name, number);
            }
            number -= polygons;
        }
        (BASINS[3].0, number)
    }

    /// First model month of the run.
    pub fn first_month(self) -> YearMonth {
        YearMonth { year: MODEL_YEAR_OF_1999, month: self.month.number() }
    }

    /// The 180 model months of the run.
    ///
    /// ```
    /// use dor_atlas::model::Case;
    ///
    /// let case: Case = "112-04".parse()?;
    /// let last = case.months().last().unwrap();
    /// assert_eq!((case.first_month().to_string(), last.to_string()), ("0347-04".into(), "0362-03".into()));
    /// # Ok::<(), dor_atlas::model::CaseNameError>(())
    /// ```
    pub fn months(self) -> impl ExactSizeIterator<Item = YearMonth> + Clone {
        let first = self.first_month();
        (0..MONTHS).map(move |n| first.plus(n as i32))
    }

    /// Polygon and month in the short form, `112-04`.
    pub fn short(self) -> String {
        format!("{:03}-{:02}", self.polygon, self.month.number())
    }
}

/// The full name, which is also the name of the folder with the raw files of the case.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (basin, number) = self.basin();
        write!(
            f,
            "smyle.cdr-atlas-v0.glb-dor_{basin}_{number:03}_1999-{:02}-01_{:05}.001",
            self.month.number(),
            self.index()
        )
    }
}

/// Full name, five-digit index (`00449`) or polygon and month (`112-04`).
impl FromStr for Case {
    type Err = CaseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || CaseNameError::Form { text: text.to_owned() };
        let is_number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if let Some(rest) = text.strip_suffix(NAME_END) {
            let index = rest.rsplit('_').next().filter(|s| s.len() == 5 && is_number(s));
            let case = index
                .and_then(|s| s.parse().ok())
                .and_then(Self::from_index)
                .filter(|_| text.starts_with(NAME_START))
                .ok_or_else(form)?;
            let catalogue = case.to_string();
            return if catalogue == text {
                Ok(case)
            } else {
                Err(CaseNameError::Contradiction { text: text.to_owned(), catalogue })
            };
        }
        if let Some((polygon, month)) = text.split_once('-') {
            if !is_number(polygon) || polygon.len() > 3 || !is_number(month) || month.len() > 2 {
                return Err(form());
            }
            return Self::new(polygon.parse().map_err(|_| form())?, month.parse()?);
        }
        if text.len() == 5 && is_number(text) {
            return text.parse().ok().and_then(Self::from_index).ok_or_else(form);
        }
        Err(form())
    }
}

/// A list of cases in words, such as `polygons 0 to 111, 112 (month 1, 7, 10), 113 to 689`.
pub fn describe_cases(cases: &[Case]) -> String {
    let mut parts: Vec<(u16, u16, Vec<u8>)> = Vec::new();
    for group in cases.chunk_by(|a, b| a.polygon() == b.polygon()) {
        let polygon = group.first().map_or(0, |case| case.polygon());
        let months: Vec<u8> = group.iter().map(|case| case.month().number()).collect();
        let whole = months.len() == InterventionMonth::ALL.len();
        match parts.last_mut() {
            Some((_, last, of)) if whole && of.is_empty() && *last + 1 == polygon => {
                *last = polygon
            }
            _ => parts.push((polygon, polygon, if whole { Vec::new() } else { months })),
        }
    }
    let text = |(first, last, months): &(u16, u16, Vec<u8>)| match months.as_slice() {
        [] if first == last => format!("{first}"),
        [] => format!("{first} to {last}"),
        months => {
            let months: Vec<String> = months.iter().map(u8::to_string).collect();
            format!("{first} (month {})", months.join(", "))
        }
    };
    let text = parts.iter().map(text).collect::<Vec<_>>().join(", ");
    format!("polygons {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_has_the_published_name() {
        let case: Case = "112-04".parse().unwrap();
        assert_eq!(
            case.to_string(),
            "smyle.cdr-atlas-v0.glb-dor_North_Atlantic_basin_112_1999-04-01_00449.001"
        );
        assert_eq!(case.basin(), ("North_Atlantic_basin", 112));
        assert_eq!(case.index(), 449);
    }

    #[test]
    fn each_name_of_a_case_parses_to_the_case() {
        assert_eq!(Case::all().len(), 2760);
        for (index, case) in Case::all().enumerate() {
            assert_eq!(case.index(), index);
            assert_eq!(Case::from_index(index), Some(case));
            assert_eq!(case.to_string().parse(), Ok(case));
            assert_eq!(case.short().parse(), Ok(case));
            assert_eq!(format!("{index:05}").parse(), Ok(case));
        }
        assert_eq!(Case::from_index(2760), None);
    }

    #[test]
    fn basins_begin_where_the_reference_says() {
        let basin = |p| Case::new(p, InterventionMonth::January).unwrap().basin();
        assert_eq!(basin(149), ("North_Atlantic_basin", 149));
        assert_eq!(basin(150), ("North_Pacific_basin", 0));
        assert_eq!(basin(350), ("South", 0));
        assert_eq!(basin(650), ("Southern_Ocean", 0));
        assert_eq!(basin(689), ("Southern_Ocean", 39));
    }

    #[test]
    fn names_outside_the_catalogue_are_rejected() {
        for bad in [
            "",
            "690-01",
            "112-02",
            "02760",
            "449",
            "112-4x",
            "-4",
            "112-",
            "smyle.cdr-atlas-v0.control.001",
            "smyle.cdr-atlas-v0.glb-dor_South_112_1999-04-01_00449.001",
            "x_00449.001",
        ] {
            assert!(bad.parse::<Case>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_case_spans_fifteen_years() {
        let months: Vec<_> = "112-04".parse::<Case>().unwrap().months().collect();
        assert_eq!(months.len(), 180);
        assert_eq!(months[0].to_string(), "0347-04");
        assert_eq!(months[179].to_string(), "0362-03");
    }

    #[test]
    fn whole_polygons_are_ranges() {
        let excluded: Case = "112-04".parse().unwrap();
        let cases: Vec<Case> = Case::all().filter(|case| *case != excluded).collect();
        let text = "polygons 0 to 111, 112 (month 1, 7, 10), 113 to 689";
        assert_eq!(describe_cases(&cases), text);
    }
}
