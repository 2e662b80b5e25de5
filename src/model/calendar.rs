//! The noleap (365-day) calendar of the model runs.

use std::fmt;
use std::str::FromStr;

/// Days in each month of the noleap calendar, January first.
pub const MONTH_LENGTHS: [u32; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// Model year of 1999 in every run of the atlas.
pub const MODEL_YEAR_OF_1999: i32 = 347;

/// A month of the noleap calendar, such as `0347-04`.
///
/// The year is the one in the file: in history files, the model year (347 is 1999).
///
/// ```
/// use dor_atlas::model::YearMonth;
///
/// let february: YearMonth = "0348-02".parse()?;
/// assert_eq!(february.days(), 28, "no year is a leap year");
/// assert_eq!(february.plus(11).to_string(), "0349-01");
/// assert_eq!(YearMonth::containing(347.0 * 365.0 + 31.0), YearMonth::new(347, 2));
/// # Ok::<(), dor_atlas::model::calendar::YearMonthError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct YearMonth {
    /// Year, in history files the model year.
    pub year: i32,
    /// Month, 1 to 12.
    pub month: u8,
}

/// The error of a text that is not a month in the form `YYYY-MM`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a month in the form YYYY-MM")]
pub struct YearMonthError(String);

impl YearMonth {
    /// The month `month` (1 to 12) of `year`; `None` for another number.
    pub fn new(year: i32, month: u8) -> Option<Self> {
        (1..=12).contains(&month).then_some(Self { year, month })
    }

    /// The month that is `months` later (earlier when negative).
    pub fn plus(self, months: i32) -> Self {
        let index = self.index() + months;
        Self { year: index.div_euclid(12), month: (index.rem_euclid(12) + 1) as u8 }
    }

    /// Number of months from `earlier` to `self`.
    pub fn months_since(self, earlier: Self) -> i32 {
        self.index() - earlier.index()
    }

    /// Length of the month in days.
    pub fn days(self) -> u32 {
        MONTH_LENGTHS[usize::from(self.month - 1) % 12]
    }

    /// Days from 0000-01-01 to the first day of the month, noleap calendar.
    pub fn first_day(self) -> i64 {
        let before: u32 = MONTH_LENGTHS.iter().take(usize::from(self.month - 1)).sum();
        i64::from(self.year) * 365 + i64::from(before)
    }

    /// The month that contains the time `days` after 0000-01-01, noleap calendar.
    ///
    /// `None` for a number that is not finite or is outside the years -99999 to 99999.
    pub fn containing(days: f64) -> Option<Self> {
        let year = (days / 365.0).floor();
        if !year.is_finite() || year.abs() > 99_999.0 {
            return None;
        }
        let mut rest = days - year * 365.0;
        for (month, length) in (1..).zip(MONTH_LENGTHS) {
            if rest < f64::from(length) {
                return Self::new(year as i32, month);
            }
            rest -= f64::from(length);
        }
        None
    }

    fn index(self) -> i32 {
        self.year * 12 + i32::from(self.month) - 1
    }
}

impl fmt::Display for YearMonth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl FromStr for YearMonth {
    type Err = YearMonthError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let month = || {
            let (year, month) = text.split_once('-')?;
            if year.len() != 4 || month.len() != 2 {
                return None;
            }
            if !text.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
                return None;
            }
            Self::new(year.parse().ok()?, month.parse().ok()?)
        };
        month().ok_or_else(|| YearMonthError(text.to_owned()))
    }
}

/// A list of months in words, such as `0347-05, 0348-01 to 0348-12`.
pub fn describe_months(months: &[YearMonth]) -> String {
    let mut ranges: Vec<(YearMonth, YearMonth)> = Vec::new();
    for &month in months {
        match ranges.last_mut() {
            Some((_, last)) if last.plus(1) == month => *last = month,
            _ => ranges.push((month, month)),
        }
    }
    let text = |(first, last): &(YearMonth, YearMonth)| match first == last {
        true => first.to_string(),
        false => format!("{first} to {last}"),
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_has_365_days() {
        assert_eq!(MONTH_LENGTHS.iter().sum::<u32>(), 365);
    }

    #[test]
    fn month_ends_belong_to_the_next_month_and_middles_to_their_own() {
        let april = YearMonth::new(347, 4).unwrap();
        let first = april.first_day() as f64;
        assert_eq!(YearMonth::containing(first), Some(april));
        assert_eq!(YearMonth::containing(first + 15.0), Some(april));
        assert_eq!(YearMonth::containing(first + 30.0), Some(april.plus(1)));
        assert_eq!(YearMonth::containing(f64::NAN), None);
        assert_eq!(YearMonth::containing(9.97e36), None);
    }

    #[test]
    fn adding_months_crosses_years_both_ways() {
        let october: YearMonth = "0347-10".parse().unwrap();
        assert_eq!(october.plus(3).to_string(), "0348-01");
        assert_eq!(october.plus(-10).to_string(), "0346-12");
        assert_eq!(october.plus(179).months_since(october), 179);
    }

    #[test]
    fn text_that_is_not_a_month_is_rejected() {
        for bad in ["0347", "0347-13", "0347-00", "347-04", "0347-4", "+347-04", "abcd-ef", ""] {
            assert!(bad.parse::<YearMonth>().is_err(), "{bad}");
        }
    }

    #[test]
    fn consecutive_months_are_one_range() {
        let months = ["0347-05", "0348-01", "0348-02", "0348-03"].map(|m| m.parse().unwrap());
        assert_eq!(describe_months(&months), "0347-05, 0348-01 to 0348-03");
    }
}
