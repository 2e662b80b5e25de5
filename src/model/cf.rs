//! Decodes the numbers of a NetCDF variable: packing, fill values, valid range and units, by the CF
//! conventions and the NetCDF User Guide, with the results of xarray and netCDF4-python.
//! An attribute that cannot be interpreted is an error; nothing is assumed.

use super::dataset::{DataType, Variable};
use super::units::{self, Unit};

/// The error of an attribute that is missing or invalid, so that a variable cannot be decoded.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "`{variable}:{attribute}` is {found} where {expected} is expected; correct the attribute if it is wrong (ncatted); otherwise convert the values too"
)]
pub struct CfError {
    /// Name of the variable.
    pub variable: String,
    /// Name of the attribute.
    pub attribute: String,
    /// Value of the attribute, in words.
    pub found: String,
    /// Expected value, in words.
    pub expected: String,
}

impl CfError {
    /// The error for the present value of an attribute.
    pub fn of(variable: &Variable, attribute: &str, expected: impl Into<String>) -> Self {
        let found = variable.attribute(attribute);
        Self {
            variable: variable.name.clone(),
            attribute: attribute.to_owned(),
            found: found.map_or_else(|| "missing".to_owned(), ToString::to_string),
            expected: expected.into(),
        }
    }
}

/// The units in which this program computes with a variable. By CF, a dimensionless variable (`1`)
/// needs no `units`. `None` for variables that this program does not compute with.
fn expected_units(variable: &str) -> Option<&'static str> {
    Some(match variable {
        "TAREA" => "cm^2",
        "dz" | "SSH" => "cm",
        "DIC" | "DIC_ALT_CO2" => "mmol/m^3",
        "FG_CO2" | "FG_ALT_CO2" | "DIC_FLUX" => "mmol/m^3 cm/s",
        "pCO2SURF" | "pCO2SURF_ALT_CO2" => "ppmv",
        "TLAT" | "ULAT" => "degrees_north",
        "TLONG" | "ULONG" => "degrees_east",
        "time_delta" => "days",
        "PH" | "PH_ALT_CO2" | "KMT" => "1",
        _ => return None,
    })
}

/// The conversion of the stored numbers of a variable to values.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoding {
    wrap: Option<Wrap>,
    /// Stored numbers that mark a missing value.
    missing: Vec<f64>,
    /// Smallest and largest valid stored number.
    valid: [f64; 2],
    scale: f64,
    offset: f64,
    /// Factor from the units of the file to the units of the result.
    factor: f64,
}

/// The conversion of integers by the attribute `_Unsigned`; holds 2 to the number of bits.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrap {
    /// From a signed type to unsigned values.
    Unsigned(f64),
    /// From an unsigned type to signed values.
    Signed(f64),
}

impl Wrap {
    fn apply(self, value: f64) -> f64 {
        match self {
            Self::Unsigned(values) if value < 0.0 => value + values,
            Self::Signed(values) if value >= values / 2.0 => value - values,
            _ => value,
        }
    }
}

impl Decoding {
    /// The decoding of a variable, to the units in which this program computes with it.
    pub fn of(variable: &Variable) -> Result<Self, CfError> {
        match expected_units(&variable.name) {
            Some(expected) => Self::to_units(variable, expected),
            None => Self::without_units(variable),
        }
    }

    /// The decoding of a variable to the units `expected`; a variable without units counts as
    /// dimensionless.
    pub fn to_units(variable: &Variable, expected: &str) -> Result<Self, CfError> {
        let mut decoding = Self::without_units(variable)?;
        let refuse = || CfError::of(variable, "units", format!("a unit of {expected}"));
        let text = variable.text("units").trim();
        let is_text = variable.attribute("units").is_none_or(|units| units.as_text().is_some());
        let is_other_axis = units::are_different_axes(text, expected);
        if !is_text || is_other_axis || text.is_empty() && expected != "1" {
            return Err(refuse());
        }
        let [from, to] = [text, expected].map(Unit::parse);
        let factor = from.zip(to).and_then(|(from, to)| from.to(to));
        decoding.factor = factor.ok_or_else(refuse)?;
        Ok(decoding)
    }

    /// The decoding of a variable without a conversion of units.
    pub fn without_units(variable: &Variable) -> Result<Self, CfError> {
        if variable.dtype == DataType::Char {
            return Err(CfError {
                variable: variable.name.clone(),
                attribute: "type".to_owned(),
                found: "text".to_owned(),
                expected: "a number".to_owned(),
            });
        }
        let wrap = wrap_of(variable)?;
        let [scale, offset] = [("scale_factor", 1.0), ("add_offset", 0.0)]
            .map(|(name, default)| single(variable, name).map(|value| value.unwrap_or(default)));
        let (scale, offset) = (scale?, offset?);
        if scale == 0.0 {
            return Err(CfError::of(variable, "scale_factor", "a number other than 0"));
        }
        let missing = missing_of(variable, wrap)?;
        let valid = valid_of(variable, wrap)?;
        Ok(Self { wrap, missing, valid, scale, offset, factor: 1.0 })
    }

    /// Whether values equal stored numbers, except for missing values.
    pub fn is_plain(&self) -> bool {
        self.wrap.is_none() && (self.scale, self.offset, self.factor) == (1.0, 0.0, 1.0)
    }

    /// Whether values differ from stored numbers by packing or `_Unsigned`.
    pub fn is_packed(&self) -> bool {
        self.wrap.is_some() || (self.scale, self.offset) != (1.0, 0.0)
    }

    /// Whether a stored number marks a missing value.
    pub fn is_missing(&self, stored: f64) -> bool {
        self.missing.contains(&stored)
    }

    /// A stored number that marks a missing value; `None` when all numbers are valid.
    pub fn fill(&self) -> Option<f64> {
        self.missing.first().copied()
    }

    /// Whether one of the numbers is outside the valid range for stored numbers.
    pub fn excludes_any(&self, numbers: &[f64]) -> bool {
        let [least, largest] = self.valid;
        numbers.iter().any(|&v| v < least || v > largest)
    }

    /// The value of a stored number; NaN for a missing value.
    pub fn value(&self, stored: f64) -> f64 {
        let stored = self.wrap.map_or(stored, |wrap| wrap.apply(stored));
        if !self.is_valid(stored) {
            return f64::NAN;
        }
        match self.is_plain() {
            true => stored,
            false => (stored * self.scale + self.offset) * self.factor,
        }
    }

    /// Whether a number, after the conversion by `_Unsigned`, is valid and not missing.
    fn is_valid(&self, value: f64) -> bool {
        let [least, largest] = self.valid;
        value >= least && value <= largest && !self.missing.contains(&value)
    }

    /// The values of stored numbers, each as with [`Self::value`].
    pub fn values(&self, mut stored: Vec<f64>) -> Vec<f64> {
        stored.iter_mut().for_each(|value| *value = self.value(*value));
        stored
    }

    /// Replaces missing values by NaN in numbers of a variable for which [`Self::is_plain`] holds.
    pub fn mask(&self, stored: &mut [f32]) {
        let [least, largest] = self.valid.map(|limit| limit as f32);
        if self.valid != [f64::NEG_INFINITY, f64::INFINITY] {
            let is_invalid = |v: &&mut f32| !(**v >= least && **v <= largest);
            stored.iter_mut().filter(is_invalid).for_each(|v| *v = f32::NAN);
        }
        for missing in self.missing.iter().map(|&missing| missing as f32) {
            stored.iter_mut().for_each(|v| *v = if *v == missing { f32::NAN } else { *v });
        }
    }
}

/// Attributes that describe stored numbers: they do not apply to decoded values.
pub const STORAGE_ATTRIBUTES: [&str; 8] = [
    "scale_factor",
    "add_offset",
    "_Unsigned",
    "_FillValue",
    "missing_value",
    "valid_min",
    "valid_max",
    "valid_range",
];

/// The value of an attribute that must be one finite number; `None` when it is missing.
fn single(variable: &Variable, name: &str) -> Result<Option<f64>, CfError> {
    let Some(value) = variable.attribute(name) else { return Ok(None) };
    match value.numbers().as_deref() {
        Some(&[number]) if number.is_finite() => Ok(Some(number)),
        _ => Err(CfError::of(variable, name, "one number")),
    }
}

fn wrap_of(variable: &Variable) -> Result<Option<Wrap>, CfError> {
    let values = 2f64.powi(8 * variable.dtype.size() as i32);
    let is_integer = !variable.dtype.is_float();
    if variable.attribute("_Unsigned").is_none() || !is_integer {
        return Ok(None);
    }
    let text = variable.text("_Unsigned").trim().to_ascii_lowercase();
    match (text.as_str(), variable.dtype.is_unsigned()) {
        ("true", false) => Ok(Some(Wrap::Unsigned(values))),
        ("false", true) => Ok(Some(Wrap::Signed(values))),
        ("true" | "false", _) => Ok(None),
        _ => Err(CfError::of(variable, "_Unsigned", "`true` or `false`")),
    }
}

/// A number of an attribute as the variable stores it; `None` when its type cannot represent it.
/// Rounds to 4-byte floats, as the program that wrote the data did.
fn as_stored(variable: &Variable, wrap: Option<Wrap>, number: f64) -> Option<f64> {
    if variable.dtype == DataType::F32 {
        let rounded = f64::from(number as f32);
        return (rounded.is_finite() || !number.is_finite()).then_some(rounded);
    }
    if variable.dtype.is_float() {
        return Some(number);
    }
    let number = wrap.map_or(number, |wrap| wrap.apply(number));
    let values = 2f64.powi(8 * variable.dtype.size() as i32);
    let is_unsigned = match wrap {
        Some(Wrap::Unsigned(_)) => true,
        Some(Wrap::Signed(_)) => false,
        None => variable.dtype.is_unsigned(),
    };
    let least = if is_unsigned { 0.0 } else { -values / 2.0 };
    (number.fract() == 0.0 && number >= least && number <= least + values).then_some(number)
}

fn missing_of(variable: &Variable, wrap: Option<Wrap>) -> Result<Vec<f64>, CfError> {
    let mut missing = Vec::new();
    for name in ["_FillValue", "missing_value"] {
        let Some(value) = variable.attribute(name) else { continue };
        let refuse = || {
            let expected = format!("a number of the variable's type {}", variable.dtype);
            CfError::of(variable, name, expected)
        };
        let numbers = value.numbers().ok_or_else(refuse)?;
        if name == "_FillValue" && numbers.len() != 1 {
            return Err(CfError::of(variable, name, "one number"));
        }
        for number in numbers {
            let stored = match number.is_nan() && variable.dtype.is_float() {
                true => continue,
                false => as_stored(variable, wrap, number).ok_or_else(refuse)?,
            };
            if !missing.contains(&stored) {
                missing.push(stored);
            }
        }
    }
    if variable.attribute("_FillValue").is_none()
        && let Some(default) = default_fill(variable.dtype)
    {
        let default = wrap.map_or(default, |wrap| wrap.apply(default));
        if !missing.contains(&default) {
            missing.push(default);
        }
    }
    Ok(missing)
}

/// The default fill value of NetCDF ("NetCDF User Guide", appendix on the attribute conventions);
/// `None` for bytes and text.
fn default_fill(dtype: DataType) -> Option<f64> {
    Some(match dtype {
        DataType::Char | DataType::I8 | DataType::U8 => return None,
        DataType::I16 => -32_767.0,
        DataType::U16 => 65_535.0,
        DataType::I32 => -2_147_483_647.0,
        DataType::U32 => 4_294_967_295.0,
        DataType::I64 => -9_223_372_036_854_775_806.0,
        DataType::U64 => 18_446_744_073_709_551_614.0,
        DataType::F32 | DataType::F64 => 9.969_209_968_386_869e36,
    })
}

/// Whether a type represents a number exactly.
fn holds(dtype: DataType, number: f64) -> bool {
    let values = 2f64.powi(8 * dtype.size() as i32);
    match dtype {
        DataType::F32 => f64::from(number as f32) == number,
        DataType::F64 => true,
        _ if number.fract() != 0.0 => false,
        _ if dtype.is_unsigned() => (0.0..values).contains(&number),
        _ => (-values / 2.0..values / 2.0).contains(&number),
    }
}

fn valid_of(variable: &Variable, wrap: Option<Wrap>) -> Result<[f64; 2], CfError> {
    let is_packed = ["scale_factor", "add_offset"].iter().any(|n| variable.attribute(n).is_some());
    let limits = |name: &str, count: usize| -> Result<Option<Vec<f64>>, CfError> {
        let Some(value) = variable.attribute(name) else { return Ok(None) };
        let numbers = value.numbers().filter(|numbers| numbers.len() == count);
        let numbers = numbers.filter(|numbers| !numbers.iter().any(|n| n.is_nan()));
        let refuse = || CfError::of(variable, name, format!("{count} number(s)"));
        let numbers = numbers.ok_or_else(refuse)?;
        // A float limit of packed integers can refer to unpacked values.
        if is_packed && value.is_float() && !variable.dtype.is_float() {
            let expected = format!("a range of packed numbers, of type {}", variable.dtype);
            return Err(CfError::of(variable, name, expected));
        }
        // netCDF4-python ignores limits that the variable's type cannot represent.
        if !numbers.iter().all(|&number| holds(variable.dtype, number)) {
            return Ok(None);
        }
        let stored = |&n: &f64| wrap.map_or(n, |wrap| wrap.apply(n));
        Ok(Some(numbers.iter().map(stored).collect()))
    };
    if let Some([least, largest]) = limits("valid_range", 2)?.as_deref() {
        return Ok([*least, *largest]);
    }
    let first = |numbers: Option<Vec<f64>>| numbers.and_then(|numbers| numbers.first().copied());
    let least = first(limits("valid_min", 1)?).unwrap_or(f64::NEG_INFINITY);
    let largest = first(limits("valid_max", 1)?).unwrap_or(f64::INFINITY);
    Ok([least, largest])
}

#[cfg(test)]
mod tests {
    use super::super::dataset::{Attribute, AttributeValue};
    use super::*;

    fn variable(name: &str, dtype: DataType, attributes: &[(&str, AttributeValue)]) -> Variable {
        let attribute = |(name, value): &(&str, AttributeValue)| Attribute {
            name: (*name).to_owned(),
            value: value.clone(),
        };
        let attributes = attributes.iter().map(attribute).collect();
        Variable { name: name.to_owned(), dtype, dims: Vec::new(), attributes }
    }

    fn text(text: &str) -> AttributeValue {
        AttributeValue::Text(text.to_owned())
    }

    fn decode(of: &Variable, stored: &[f64]) -> Vec<f64> {
        let values = Decoding::of(of).unwrap().values(stored.to_vec());
        values.into_iter().map(|v| if v.is_nan() { -999.0 } else { v }).collect()
    }

    #[test]
    fn packed_numbers_are_masked_and_then_unpacked() {
        use AttributeValue::{F32, F64, I16};
        let ph = variable(
            "PH",
            DataType::I16,
            &[
                ("scale_factor", F64(vec![0.5])),
                ("add_offset", F32(vec![8.0])),
                ("_FillValue", I16(vec![-32768])),
                ("missing_value", I16(vec![7, 9])),
                ("valid_range", I16(vec![-100, 100])),
            ],
        );
        assert_eq!(
            decode(&ph, &[-32768.0, 7.0, 9.0, -101.0, 101.0, -100.0, 2.0]),
            [-999.0, -999.0, -999.0, -999.0, -999.0, -42.0, 9.0]
        );
        // xarray and netCDF4-python take -32767 for fill where there is no `_FillValue`.
        assert_eq!(decode(&variable("PH", DataType::I16, &[]), &[-32767.0, 3.0]), [-999.0, 3.0]);
    }

    #[test]
    fn limits_that_the_type_cannot_represent_mask_nothing() {
        use AttributeValue::{F32, F64, I32, Text};
        let of = |dtype, name, value| variable("PH", dtype, &[(name, value)]);
        let low = f64::from(0.05_f32);
        for limited in [
            of(DataType::F32, "valid_min", F64(vec![0.1])),
            of(DataType::F32, "valid_range", F64(vec![0.1, 1.0])),
            of(DataType::F32, "valid_max", F64(vec![-1e300])),
            of(DataType::I16, "valid_min", F32(vec![1.5])),
            of(DataType::I16, "valid_min", I32(vec![70_000])),
            of(DataType::I8, "valid_max", I32(vec![-200])),
        ] {
            let stored = if limited.dtype.is_float() { low } else { 1.0 };
            assert_eq!(decode(&limited, &[stored]), [stored]);
        }
        let exact = of(DataType::F32, "valid_range", F64(vec![0.125, 1.0]));
        assert_eq!(decode(&exact, &[low, 0.5, 5.0]), [-999.0, 0.5, -999.0]);
        assert_eq!(decode(&of(DataType::F32, "valid_min", F32(vec![0.1])), &[low]), [-999.0]);
        // `valid_max` applies when `valid_range` is ignored.
        let both = [("valid_range", F64(vec![0.1, 1.0])), ("valid_max", F32(vec![1.0]))];
        assert_eq!(decode(&variable("PH", DataType::F32, &both), &[low, 5.0]), [low, -999.0]);
        let unsigned = [("_Unsigned", Text("true".to_owned())), ("valid_max", I32(vec![200]))];
        assert_eq!(decode(&variable("PH", DataType::I8, &unsigned), &[-2.0]), [254.0]);
    }

    #[test]
    fn the_unsigned_attribute_applies_before_masking_and_unpacking() {
        use AttributeValue::{F64, I8};
        let attributes = [
            ("_Unsigned", text("true")),
            ("_FillValue", I8(vec![-1])),
            ("valid_max", I8(vec![-2])),
            ("scale_factor", F64(vec![0.1])),
        ];
        let bytes = variable("PH", DataType::I8, &attributes);
        let found = decode(&bytes, &[-1.0, -2.0, 0.0, 127.0]);
        assert_eq!(found, [-999.0, 25.400_000_000_000_002, 0.0, 12.700_000_000_000_001]);
        let signed = variable("PH", DataType::U8, &[("_Unsigned", text("false"))]);
        assert_eq!(decode(&signed, &[255.0, 127.0]), [-1.0, 127.0]);
    }

    #[test]
    fn fill_of_another_type_applies_when_the_type_can_represent_it() {
        use AttributeValue::{F32, F64, I64, Text};
        let fill = |dtype, value| variable("PH", dtype, &[("_FillValue", value)]);
        let rounded = fill(DataType::F32, F64(vec![1e30]));
        assert_eq!(decode(&rounded, &[f64::from(1e30_f32), 8.0]), [-999.0, 8.0]);
        assert_eq!(decode(&fill(DataType::I16, F32(vec![-5.0])), &[-5.0]), [-999.0]);
        for (dtype, value) in [
            (DataType::I16, F64(vec![1e30])),
            (DataType::I16, F64(vec![0.5])),
            (DataType::I8, I64(vec![-129])),
            (DataType::F32, F64(vec![1e300])),
            (DataType::F32, Text("-999".to_owned())),
            (DataType::F32, F32(vec![])),
        ] {
            let error = Decoding::of(&fill(dtype, value)).unwrap_err();
            assert_eq!((&*error.variable, &*error.attribute), ("PH", "_FillValue"));
        }
    }

    #[test]
    fn units_are_converted_or_rejected() {
        let of = |name: &str, units: &str| {
            Decoding::of(&variable(name, DataType::F64, &[("units", text(units))]))
                .map(|decoding| decoding.value(2.0))
        };
        assert_eq!(of("TAREA", "m^2"), Ok(20_000.0));
        assert_eq!(of("TAREA", "centimeter^2"), Ok(2.0));
        assert_eq!(of("dz", "m"), Ok(200.0));
        assert_eq!(of("DIC", "mol/m^3"), Ok(2000.0));
        for (name, units) in [
            ("TAREA", "m"),
            ("TAREA", ""),
            ("dz", "acres"),
            ("TLAT", "radians"),
            ("TLAT", "degrees_east"),
            ("ULONG", "degrees_N"),
        ] {
            let error = of(name, units).unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}:units`")), "{error}");
        }
        let missing = Decoding::of(&variable("TAREA", DataType::F64, &[])).unwrap_err();
        assert!(missing.to_string().contains("is missing where a unit of cm^2"), "{missing}");
        assert!(Decoding::of(&variable("PH", DataType::F32, &[])).unwrap().is_plain());
    }

    #[test]
    fn invalid_attributes_are_rejected() {
        use AttributeValue::{F32, F64};
        for (name, value) in [
            ("scale_factor", text("0.1")),
            ("scale_factor", F64(vec![0.1, 0.2])),
            ("scale_factor", F64(vec![0.0])),
            ("add_offset", F64(vec![f64::NAN])),
            ("_Unsigned", text("maybe")),
            ("valid_range", F32(vec![1.0])),
            ("valid_min", text("0")),
        ] {
            let error =
                Decoding::of(&variable("KMT", DataType::I32, &[(name, value)])).unwrap_err();
            assert_eq!(error.attribute, name);
        }
        let packed = [("scale_factor", F64(vec![0.1])), ("valid_max", F64(vec![14.0]))];
        assert!(Decoding::of(&variable("PH", DataType::I16, &packed)).is_err());
        assert!(Decoding::of(&variable("PH", DataType::Char, &[])).is_err());
    }
}
