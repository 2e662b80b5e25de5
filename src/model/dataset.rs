//! The header of a NetCDF file: dimensions, variables and attributes, without data.

use std::fmt;

/// A dimension: a name and a length.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dimension {
    /// Name, such as `nlat`.
    pub name: String,
    /// Number of elements; of a record dimension, the number of records in the file.
    pub len: usize,
}

/// Type of the elements of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    /// Text: one byte for each element.
    Char,
    /// 8-bit signed integer.
    I8,
    /// 16-bit signed integer.
    I16,
    /// 32-bit signed integer.
    I32,
    /// 64-bit signed integer.
    I64,
    /// 8-bit unsigned integer.
    U8,
    /// 16-bit unsigned integer.
    U16,
    /// 32-bit unsigned integer.
    U32,
    /// 64-bit unsigned integer.
    U64,
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
}

impl DataType {
    /// Size of an element in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Char | Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    /// Whether the elements are floating-point numbers.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64)
    }

    /// Whether the elements are integers without a sign.
    pub fn is_unsigned(self) -> bool {
        matches!(self, Self::U8 | Self::U16 | Self::U32 | Self::U64)
    }
}

impl fmt::Display for DataType {
    /// Writes the short form of NumPy, such as `f4` for a float of 4 bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Char => return f.write_str("char"),
            _ if self.is_float() => 'f',
            _ if self.is_unsigned() => 'u',
            _ => 'i',
        };
        write!(f, "{kind}{}", self.size())
    }
}

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum AttributeValue {
    /// One text (the type NC_CHAR).
    Text(String),
    /// An array of texts, of any length (the type NC_STRING).
    Texts(Vec<String>),
    /// 8-bit signed integers.
    I8(Vec<i8>),
    /// 16-bit signed integers.
    I16(Vec<i16>),
    /// 32-bit signed integers.
    I32(Vec<i32>),
    /// 64-bit signed integers.
    I64(Vec<i64>),
    /// 8-bit unsigned integers.
    U8(Vec<u8>),
    /// 16-bit unsigned integers.
    U16(Vec<u16>),
    /// 32-bit unsigned integers.
    U32(Vec<u32>),
    /// 64-bit unsigned integers.
    U64(Vec<u64>),
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 64-bit floats.
    F64(Vec<f64>),
}

impl AttributeValue {
    /// The numbers as f64; `None` for text.
    pub fn numbers(&self) -> Option<Vec<f64>> {
        macro_rules! numbers {
            ($values:expr) => {
                $values.iter().map(|&v| v as f64).collect()
            };
        }
        Some(match self {
            Self::Text(_) | Self::Texts(_) => return None,
            Self::I8(v) => numbers!(v),
            Self::I16(v) => numbers!(v),
            Self::I32(v) => numbers!(v),
            Self::I64(v) => numbers!(v),
            Self::U8(v) => numbers!(v),
            Self::U16(v) => numbers!(v),
            Self::U32(v) => numbers!(v),
            Self::U64(v) => numbers!(v),
            Self::F32(v) => numbers!(v),
            Self::F64(v) => v.clone(),
        })
    }

    /// The text, or the only text of an array; `None` for other values.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Texts(texts) => match texts.as_slice() {
                [text] => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the value is exactly one number of this type.
    pub fn is_one_of(&self, dtype: DataType) -> bool {
        let (own_dtype, len) = match self {
            Self::Text(_) | Self::Texts(_) => return false,
            Self::I8(v) => (DataType::I8, v.len()),
            Self::I16(v) => (DataType::I16, v.len()),
            Self::I32(v) => (DataType::I32, v.len()),
            Self::I64(v) => (DataType::I64, v.len()),
            Self::U8(v) => (DataType::U8, v.len()),
            Self::U16(v) => (DataType::U16, v.len()),
            Self::U32(v) => (DataType::U32, v.len()),
            Self::U64(v) => (DataType::U64, v.len()),
            Self::F32(v) => (DataType::F32, v.len()),
            Self::F64(v) => (DataType::F64, v.len()),
        };
        (own_dtype, len) == (dtype, 1)
    }

    /// Whether the value consists of floating-point numbers.
    pub fn is_float(&self) -> bool {
        matches!(self, Self::F32(_) | Self::F64(_))
    }
}

impl fmt::Display for AttributeValue {
    /// Writes the value for messages: text in backticks, arrays in brackets, both abbreviated.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let quoted = |text: &str| {
            let short: String = text.chars().take(80).collect();
            format!("`{}`", short.escape_debug())
        };
        let mut parts: Vec<String> = match self {
            Self::Text(text) => return f.write_str(&quoted(text)),
            Self::Texts(texts) => texts.iter().take(SHOWN + 1).map(|text| quoted(text)).collect(),
            _ => {
                let numbers = self.numbers().unwrap_or_default();
                let shown = |n: &f64| if n.abs() < 1e6 { n.to_string() } else { format!("{n:e}") };
                numbers.iter().take(SHOWN + 1).map(shown).collect()
            }
        };
        if parts.len() > SHOWN {
            parts[SHOWN] = "...".to_owned();
        }
        match parts.as_slice() {
            [one] => f.write_str(one),
            _ => write!(f, "[{}]", parts.join(", ")),
        }
    }
}

/// An attribute of a variable or a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    /// Name, such as `units`.
    pub name: String,
    /// Text or numbers.
    pub value: AttributeValue,
}

impl Attribute {
    /// Creates a text attribute.
    pub fn text(name: &str, value: impl Into<String>) -> Self {
        Self { name: name.to_owned(), value: AttributeValue::Text(value.into()) }
    }
}

/// A variable, without its data.
///
/// ```
/// use dor_atlas::model::cf::Decoding;
/// use dor_atlas::model::dataset::{Attribute, AttributeValue, DataType, Variable};
///
/// // Layer thicknesses in meters, packed into 2-byte integers.
/// let number = |name: &str, value| Attribute { name: name.into(), value };
/// let variable = Variable {
///     name: "dz".into(),
///     dtype: DataType::I16,
///     dims: Vec::new(),
///     attributes: vec![
///         Attribute::text("units", "m"),
///         number("scale_factor", AttributeValue::F64(vec![0.5])),
///         number("_FillValue", AttributeValue::I16(vec![-1])),
///     ],
/// };
/// let decoding = Decoding::of(&variable)?;
/// assert_eq!(decoding.value(20.0), 1000.0, "20 is unpacked to 10 m, which are 1000 cm");
/// assert!(decoding.value(-1.0).is_nan());
/// # Ok::<(), dor_atlas::model::cf::CfError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    /// Name, such as `DIC`.
    pub name: String,
    /// Type of the elements.
    pub dtype: DataType,
    /// Dimensions, the slowest first.
    pub dims: Vec<Dimension>,
    /// Attributes, in the order of the file.
    pub attributes: Vec<Attribute>,
}

impl Variable {
    /// Number of elements; `usize::MAX` when a damaged header claims more.
    pub fn len(&self) -> usize {
        self.dims.iter().fold(1, |len, d| len.saturating_mul(d.len))
    }

    /// Whether the variable has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of the uncompressed data in bytes.
    pub fn bytes(&self) -> usize {
        self.len().saturating_mul(self.dtype.size())
    }

    /// The value of the attribute with this name.
    pub fn attribute(&self, name: &str) -> Option<&AttributeValue> {
        self.attributes.iter().find(|a| a.name == name).map(|a| &a.value)
    }

    /// The text of an attribute; empty when it is missing or not text.
    pub fn text(&self, name: &str) -> &str {
        self.attribute(name).and_then(AttributeValue::as_text).unwrap_or_default()
    }

    /// Whether the first dimension is `name`.
    pub fn has_leading_dim(&self, name: &str) -> bool {
        self.dims.first().is_some_and(|d| d.name == name)
    }
}

/// The header of a file: all variables and attributes.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Header {
    /// Variables, in the order of the file.
    pub variables: Vec<Variable>,
    /// Global attributes, in the order of the file.
    pub attributes: Vec<Attribute>,
}

impl Header {
    /// The variable with this name.
    pub fn variable(&self, name: &str) -> Option<&Variable> {
        self.variables.iter().find(|v| v.name == name)
    }
}

/// Byte order of the elements of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// Most significant byte first, as in the classic NetCDF formats.
    Big,
    /// Least significant byte first, as in the files that this program writes.
    Little,
}
