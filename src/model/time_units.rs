//! Decodes CF times such as `days since 0000-01-01` in the noleap calendar of the model runs.

use super::YearMonth;
use super::cf::CfError;
use super::dataset::{Header, Variable};

/// Attributes of a time variable that must be text.
const TEXTS: [&str; 3] = ["calendar", "units", "bounds"];

/// The variable with the time bounds: the target of `time:bounds`, or one of the common names.
pub fn time_bounds(header: &Header) -> Option<&Variable> {
    let named = header.variable("time").map_or("", |time| time.text("bounds")).trim();
    [named, "time_bound", "time_bnds", "time_bounds"].iter().find_map(|name| header.variable(name))
}

/// The units of a time variable, for the conversion to days since 0000-01-01, noleap calendar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeUnits {
    /// Number of units in a day.
    per_day: f64,
    /// Reference time, days since 0000-01-01.
    epoch: f64,
}

impl TimeUnits {
    /// The units of a time variable or its bounds, which by CF share units and calendar.
    ///
    /// Missing units are days since 0000-01-01, and a missing calendar is noleap, as in POP: callers
    /// check that the result is whole months.
    ///
    /// # Errors
    /// The calendar is not noleap, the units are not times, or time and bounds have different units.
    pub fn of(header: &Header, variable: &Variable) -> Result<Self, CfError> {
        let time = header.variable("time").unwrap_or(variable);
        for (of, name) in [variable, time].into_iter().flat_map(|v| TEXTS.map(|name| (v, name))) {
            if of.attribute(name).is_some_and(|value| value.as_text().is_none()) {
                return Err(CfError::of(of, name, "one text"));
            }
        }
        let owner_of = |name: &str| {
            let has = |of: &&Variable| of.attribute(name).is_some();
            [variable, time].into_iter().find(has)
        };
        if let Some(of) = owner_of("calendar")
            && !["", "noleap", "365_day"]
                .contains(&&*of.text("calendar").trim().to_ascii_lowercase())
        {
            return Err(CfError::of(of, "calendar", "noleap"));
        }
        let Some(of) = owner_of("units") else { return Ok(Self { per_day: 1.0, epoch: 0.0 }) };
        let expected = "a time of the noleap calendar such as `days since 0000-01-01 00:00:00`";
        let units = Self::parse(of.text("units"));
        let units = units.ok_or_else(|| CfError::of(of, "units", expected))?;
        if time.attribute("units").is_some() && Self::parse(time.text("units")) != Some(units) {
            let expected = format!("the value of `{}:units`", of.name);
            return Err(CfError::of(time, "units", expected));
        }
        Ok(units)
    }

    /// Parses units such as `hours since 1999-1-1 12:00`, in the spellings that cftime accepts.
    fn parse(units: &str) -> Option<Self> {
        let units = units.trim().to_ascii_lowercase();
        let (unit, since) = units.split_once(" since ")?;
        let per_day = match unit.trim() {
            "days" | "day" | "d" => 1.0,
            "hours" | "hour" | "hrs" | "hr" | "h" => 24.0,
            "minutes" | "minute" | "mins" | "min" => 1440.0,
            "seconds" | "second" | "secs" | "sec" | "s" => 86_400.0,
            "milliseconds" | "millisecond" | "millisecs" | "millisec" | "msecs" | "msec" | "ms" => {
                86_400e3
            }
            _ => return None,
        };
        let since = since.trim();
        let end = since.find([' ', 't']).unwrap_or(since.len());
        let (date, rest) = since.split_at(end);
        let epoch = noleap_day(date)? + time_of_day(rest.trim_start_matches([' ', 't']))?;
        Some(Self { per_day, epoch })
    }

    /// Converts a number in these units to days since 0000-01-01.
    pub fn days(&self, value: f64) -> f64 {
        value / self.per_day + self.epoch
    }

    /// Whether the units are days since 0000-01-01.
    pub fn is_plain(&self) -> bool {
        (self.per_day, self.epoch) == (1.0, 0.0)
    }
}

/// Days from 0000-01-01 to a date such as `-5-1-31` or `0001-01-01` in the noleap calendar.
fn noleap_day(date: &str) -> Option<f64> {
    let (sign, digits) = match date.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, date.strip_prefix('+').unwrap_or(date)),
    };
    let mut parts = digits.split('-');
    let mut number = |max_digits: usize, default: i32| match parts.next() {
        None => Some(default),
        Some(text) if text.len() <= max_digits && text.bytes().all(|b| b.is_ascii_digit()) => {
            text.parse::<i32>().ok()
        }
        Some(_) => None,
    };
    let (year, month, day) = (number(6, 0)?, number(2, 1)?, number(2, 1)?);
    if parts.next().is_some() {
        return None;
    }
    let month = YearMonth::new(sign * year, u8::try_from(month).ok()?)?;
    let is_day = u32::try_from(day).is_ok_and(|day| (1..=month.days()).contains(&day));
    is_day.then(|| month.first_day() as f64 + f64::from(day - 1))
}

/// The fraction of a day of a time such as `12:30:00.0`, with or without a time zone.
fn time_of_day(text: &str) -> Option<f64> {
    let (clock, zone) = match text.find(['z', 'u', ' ', '+', '-']) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let zone = zone.trim();
    let zone = match zone {
        "" | "z" | "utc" | "+0" => 0.0,
        _ => {
            let (sign, digits) = match zone.strip_prefix('-') {
                Some(digits) => (-1.0, digits),
                None => (1.0, zone.strip_prefix('+').unwrap_or(zone)),
            };
            let colon = digits.contains(':') || digits.len() <= 2;
            let zone = if colon {
                digits.to_owned()
            } else {
                format!("{}:{}", digits.get(..2)?, digits.get(2..)?)
            };
            sign * hours(&zone)?
        }
    };
    Some((hours(clock)? - zone) / 24.0)
}

/// Hours of a time such as `12`, `12:30` or `12:30:15.5`.
fn hours(text: &str) -> Option<f64> {
    let mut sum = 0.0;
    let limits = [24.0, 60.0, 60.0];
    let parts: Vec<&str> = if text.is_empty() { Vec::new() } else { text.split(':').collect() };
    if parts.len() > limits.len() {
        return None;
    }
    for ((part, limit), seconds) in parts.iter().zip(limits).zip([3600.0, 60.0, 1.0]) {
        let is_number = part.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let value = part.parse::<f64>().ok().filter(|v| is_number && *v < limit)?;
        sum += value * seconds;
    }
    Some(sum / 3600.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_units_are_parsed_as_by_cftime() {
        let days = |units: &str, value: f64| TimeUnits::parse(units).map(|units| units.days(value));
        for units in [
            "days since 0000-01-01 00:00:00",
            "days since 0-1-1 00:00:00",
            "days since 0000-01-01 00:00:00.0",
            "Days Since 0000-01-01T00:00:00Z",
            "days since 0000-01-01",
            "day since 0-1-1 0:0:0 UTC",
            "days since 0000-01-01 00:00:00 +00:00",
        ] {
            assert_eq!(days(units, 126_745.0), Some(126_745.0), "{units}");
        }
        assert_eq!(days("hours since 0000-01-01", 24.0), Some(1.0));
        assert_eq!(days("seconds since 0001-03-01", 86_400.0), Some(365.0 + 60.0));
        assert_eq!(days("days since -1-12-31 12:00", 0.5), Some(0.0));
        assert_eq!(days("days since 1-1-1 12:00 +12:00", 0.0), Some(365.0));
        for units in [
            "",
            "days",
            "months since 0000-01-01",
            "days since 0000-13-01",
            "days since yesterday",
            "days since 0000-02-29",
            "days since 0000-01-01 25:00",
            "days since 0000-01-01-01",
        ] {
            assert_eq!(days(units, 1.0), None, "{units}");
        }
    }
}
