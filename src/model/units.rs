//! Parses and converts units of physical quantities, in the UDUNITS spellings of model output.
//!
//! A unit is a product of powers: `mmol/m^3 cm/s`, `mmol m-3 cm s-1`, `nmol/(cm**2 s)`. As in
//! UDUNITS, a division applies to the next factor only. A year has 365 days, as in the calendar of
//! the model.

/// A unit: a factor and powers of the base units meter, kilogram, second, mole and degree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unit {
    factor: f64,
    powers: [i32; 5],
}

const DIMENSIONLESS: Unit = Unit { factor: 1.0, powers: [0; 5] };
const LENGTH: [i32; 5] = [1, 0, 0, 0, 0];
const VOLUME: [i32; 5] = [3, 0, 0, 0, 0];
const MASS: [i32; 5] = [0, 1, 0, 0, 0];
const TIME: [i32; 5] = [0, 0, 1, 0, 0];
const AMOUNT: [i32; 5] = [0, 0, 0, 1, 0];
const ANGLE: [i32; 5] = [0, 0, 0, 0, 1];

/// Units of latitude, in the spellings of CF.
const NORTH: [&str; 6] =
    ["degree_north", "degree_N", "degreeN", "degrees_north", "degrees_N", "degreesN"];
/// Units of longitude, in the spellings of CF.
const EAST: [&str; 6] =
    ["degree_east", "degree_E", "degreeE", "degrees_east", "degrees_E", "degreesE"];

/// Units without prefixes: names in the singular, factor and powers of the base units.
const UNITS: [(&[&str], f64, [i32; 5]); 16] = [
    (&["m", "meter", "metre"], 1.0, LENGTH),
    (&["l", "L", "liter", "litre"], 1e-3, VOLUME),
    (&["g", "gram", "gramme"], 1e-3, MASS),
    (&["s", "sec", "second"], 1.0, TIME),
    (&["min", "minute"], 60.0, TIME),
    (&["h", "hr", "hour"], 3600.0, TIME),
    (&["d", "day"], 86_400.0, TIME),
    (&["yr", "year"], 31_536_000.0, TIME),
    (&["mol", "mole"], 1.0, AMOUNT),
    (&["deg", "degree"], 1.0, ANGLE),
    (&NORTH, 1.0, ANGLE),
    (&EAST, 1.0, ANGLE),
    (&["%", "percent"], 1e-2, [0; 5]),
    (&["ppm", "ppmv"], 1e-6, [0; 5]),
    (&["ppb", "ppbv"], 1e-9, [0; 5]),
    (&["unitless", "dimensionless", "none", "pH", "ph"], 1.0, [0; 5]),
];

/// Prefixes: symbol, name and factor.
const PREFIXES: [(&str, &str, f64); 9] = [
    ("p", "pico", 1e-12),
    ("n", "nano", 1e-9),
    ("u", "micro", 1e-6),
    ("m", "milli", 1e-3),
    ("c", "centi", 1e-2),
    ("d", "deci", 1e-1),
    ("h", "hecto", 1e2),
    ("k", "kilo", 1e3),
    ("M", "mega", 1e6),
];

/// Whether one unit is a unit of latitude and the other a unit of longitude: both are degrees, but
/// are not convertible.
pub fn are_different_axes(one: &str, other: &str) -> bool {
    let axis = |text: &str| {
        let is_equal = |name: &&str| name.eq_ignore_ascii_case(text.trim());
        [NORTH, EAST].iter().position(|names| names.iter().any(is_equal))
    };
    axis(one).zip(axis(other)).is_some_and(|(one, other)| one != other)
}

impl Unit {
    /// Parses a unit; `None` when the text is not a unit or contains unknown names.
    pub fn parse(text: &str) -> Option<Self> {
        let ascii: String = text.chars().map(to_ascii).collect();
        let mut parser = Parser(ascii.trim());
        let unit = parser.product()?;
        parser.0.is_empty().then_some(unit)
    }

    /// The factor that converts a number in this unit to `other`; `None` when the units are not
    /// convertible.
    ///
    /// ```
    /// use dor_atlas::model::units::Unit;
    ///
    /// let unit = |text: &str| Unit::parse(text).unwrap();
    /// assert_eq!(unit("cm^2").to(unit("m2")), Some(1e-4));
    /// assert_eq!(unit("mmol/m^3 cm/s").to(unit("mol m-2 yr-1")), Some(315.36));
    /// assert_eq!(unit("cm").to(unit("mol")), None);
    /// ```
    pub fn to(self, other: Self) -> Option<f64> {
        // Factors such as 1e-2 are not exact in binary: rounding makes equal units give exactly 1.
        let factor = self.factor / other.factor;
        let rounded: f64 = format!("{factor:.12e}").parse().ok()?;
        (self.powers == other.powers && rounded.is_normal()).then_some(rounded)
    }

    /// The product of this unit and a power of `other`.
    fn times(self, other: Self, power: i32) -> Self {
        let mut powers = self.powers;
        powers.iter_mut().zip(other.powers).for_each(|(own, power_of)| *own += power_of * power);
        Self { factor: self.factor * other.factor.powi(power), powers }
    }

    fn is_amount(self) -> bool {
        self.powers == AMOUNT
    }
}

/// The ASCII form of superscripts and signs.
fn to_ascii(c: char) -> char {
    match c {
        '⁻' | '−' | '–' => '-',
        '¹' => '1',
        '²' => '2',
        '³' => '3',
        '⁴' => '4',
        '·' | '⋅' | '×' => '*',
        'µ' | 'μ' => 'u',
        '\t' | '\u{a0}' => ' ',
        _ => c,
    }
}

/// A parser with the rest of the text.
struct Parser<'a>(&'a str);

impl<'a> Parser<'a> {
    /// Consumes `start` if the rest begins with it.
    fn take(&mut self, start: &str) -> bool {
        let rest = self.0.strip_prefix(start);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn take_while(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|c| !is_part(c)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn product(&mut self) -> Option<Unit> {
        let mut unit = DIMENSIONLESS;
        let mut last = DIMENSIONLESS;
        loop {
            let mut sign = 1;
            loop {
                match () {
                    () if self.take("/") || self.take("per ") => sign = -sign,
                    // `power` has consumed a `**` after a unit.
                    () if self.take("*") || self.take(".") || self.take(" ") => {}
                    () => break,
                }
            }
            if self.0.is_empty() || self.0.starts_with(')') {
                return (sign == 1).then_some(unit);
            }
            // A substance after a mole, as in `mol C`, does not change the factor.
            if last.is_amount() && self.take_substance() {
                continue;
            }
            last = self.factor()?;
            unit = unit.times(last, sign);
        }
    }

    fn take_substance(&mut self) -> bool {
        let end = self.0.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(self.0.len());
        let (name, rest) = self.0.split_at(end);
        let is_substance = ["C", "CO2", "DIC"].contains(&name);
        if is_substance {
            self.0 = rest;
        }
        is_substance
    }

    fn factor(&mut self) -> Option<Unit> {
        if self.take("(") {
            let unit = self.product()?;
            return self.take(")").then(|| self.power(unit)).flatten();
        }
        if self.0.starts_with(|c: char| c.is_ascii_digit()) {
            return self.number();
        }
        let mut power = 1;
        for (name, exponent) in
            [("square ", 2), ("square_", 2), ("sq ", 2), ("cubic ", 3), ("cubic_", 3)]
        {
            if self.take(name) {
                power = exponent;
            }
        }
        let name = self.take_while(|c| c.is_alphabetic() || c == '_' || c == '%');
        let unit = DIMENSIONLESS.times(named(name)?, power);
        for (name, exponent) in [(" squared", 2), ("_squared", 2), (" cubed", 3)] {
            if self.take(name) {
                return Some(DIMENSIONLESS.times(unit, exponent));
            }
        }
        self.power(unit)
    }

    /// Parses a number such as `1e-6` or `10^-6`.
    fn number(&mut self) -> Option<Unit> {
        let is_number = |text: &str| text.parse::<f64>().is_ok_and(f64::is_normal);
        let mut ends = (1..=self.0.len()).filter(|&end| self.0.is_char_boundary(end));
        let end = ends.rfind(|&end| is_number(&self.0[..end]))?;
        let (number, rest) = self.0.split_at(end);
        let factor = number.parse().ok()?;
        self.0 = rest;
        self.power(Unit { factor, ..DIMENSIONLESS })
    }

    /// Applies the power that follows a unit: `^2`, `**2`, `2`, `-2`.
    fn power(&mut self, unit: Unit) -> Option<Unit> {
        let has_operator = self.take("^") || self.take("**");
        let is_negative = self.take("-");
        let has_sign = is_negative || self.take("+");
        let digits = self.take_while(|c| c.is_ascii_digit());
        if digits.is_empty() {
            return (!has_operator && !has_sign).then_some(unit);
        }
        let power = digits.parse::<i32>().ok().filter(|power| *power <= 20)?;
        Some(DIMENSIONLESS.times(unit, if is_negative { -power } else { power }))
    }
}

/// The unit of a name, with or without a prefix, in singular or plural.
fn named(name: &str) -> Option<Unit> {
    // Symbols are case-sensitive, words are not.
    let word = if name.len() > 3 { name.to_ascii_lowercase() } else { name.to_owned() };
    unprefixed(name).or_else(|| unprefixed(&word)).or_else(|| {
        PREFIXES.iter().find_map(|(symbol, long, factor)| {
            let by_word = word.strip_prefix(long).filter(|rest| rest.len() > 2);
            let by_symbol = name.strip_prefix(symbol);
            let by_symbol =
                by_symbol.filter(|rest| ["m", "g", "s", "mol", "L", "l"].contains(rest));
            let unit = unprefixed(by_word.or(by_symbol)?)?;
            Some(Unit { factor: unit.factor * factor, ..unit })
        })
    })
}

fn unprefixed(name: &str) -> Option<Unit> {
    let singular = name.strip_suffix('s').filter(|singular| singular.len() > 1);
    let is_equal = |known: &&str| *known == name || Some(*known) == singular;
    let (_, factor, powers) = UNITS.iter().find(|(names, ..)| names.iter().any(&is_equal))?;
    Some(Unit { factor: *factor, powers: *powers })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factor(from: &str, to: &str) -> Option<f64> {
        Unit::parse(from)?.to(Unit::parse(to)?)
    }

    #[test]
    fn one_unit_has_many_spellings() {
        for spelling in [
            "cm^2",
            "cm2",
            "cm**2",
            "centimeter^2",
            "centimeters^2",
            "centimetres2",
            "cm cm",
            "cm.cm",
            "cm*cm",
            "cm²",
            "square centimeters",
            "square_centimeter",
            "sq cm",
            "centimeters squared",
            "1e-4 m^2",
            "100 mm2",
            "Centimeter^2",
            "(cm)^2",
            " cm^2 ",
        ] {
            assert_eq!(factor(spelling, "cm^2"), Some(1.0), "{spelling}");
        }
        for spelling in [
            "mmol/m^3 cm/s",
            "mmol/m3*cm/s",
            "mmol m-3 cm s-1",
            "nmol/cm^2/s",
            "nmol cm-2 s-1",
            "nmol/(cm^2 s)",
            "mmol/m^3*cm/s",
            "1e-2 mmol/m^2/s",
            "(mmol/m^3)(cm/s)",
            "mmol m^-3 cm s^-1",
            "nmol.cm-2.s-1",
            "mmol C/m^3 cm/s",
            "mmol m⁻³ cm s⁻¹",
        ] {
            assert_eq!(factor(spelling, "mmol/m^3 cm/s"), Some(1.0), "{spelling}");
        }
        for spelling in ["mmol/m^3", "umol/L", "µmol/l", "nmol/cm^3", "micromol/liter", "mmol m-3"]
        {
            assert_eq!(factor(spelling, "mmol/m^3"), Some(1.0), "{spelling}");
        }
    }

    #[test]
    fn factors_between_units_are_correct() {
        for (from, to, expected) in [
            ("m^2", "cm^2", 1e4),
            ("km2", "cm^2", 1e10),
            ("m", "cm", 100.0),
            ("meters", "centimeters", 100.0),
            ("mol/m^3", "mmol/m^3", 1000.0),
            ("mol/L", "mmol/m^3", 1e6),
            ("mmol/m^2/s", "mmol/m^3 cm/s", 100.0),
            ("mol/m^2/s", "mmol/m^3 cm/s", 1e5),
            ("1", "ppmv", 1e6),
            ("umol/mol", "ppmv", 1.0),
            ("hours", "days", 1.0 / 24.0),
        ] {
            let found = factor(from, to).unwrap_or_else(|| panic!("{from}"));
            assert!((found / expected - 1.0).abs() < 1e-12, "{from}: {found}");
        }
        let yearly = factor("mol/m^2/yr", "mmol/m^3 cm/s").unwrap();
        assert!((yearly / (1e5 / 31_536_000.0) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn units_of_latitude_and_longitude_are_different() {
        for (one, other) in [("degrees_north", "degrees_east"), (" Degrees_East", "degreeN")] {
            assert!(
                are_different_axes(one, other) && are_different_axes(other, one),
                "{one} {other}"
            );
        }
        for other in ["degrees_north", "degrees", "deg", "", "cm"] {
            assert!(!are_different_axes("degree_N", other), "{other}");
        }
        assert_eq!(factor("degreesN", "degrees_north"), Some(1.0));
    }

    #[test]
    fn other_quantities_and_unknown_units_have_no_factor() {
        for text in [
            "m",
            "kg/m^3",
            "umol/kg",
            "furlong^2",
            "cm^",
            "cm2)",
            "(cm2",
            "cm-",
            "m^99",
            "cm2/",
            "°",
            "uatm",
        ] {
            assert_eq!(factor(text, "cm^2"), None, "{text}");
        }
        assert_eq!(Unit::parse("").unwrap().to(DIMENSIONLESS), Some(1.0));
        assert_eq!(Unit::parse("m^999999999999"), None);
    }
}
