//! What a NetCDF file says of itself: dimensions, variables and attributes, without their data.

use std::fmt;

/// A named length.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dimension {
    /// Name, such as `nlat`.
    pub name: String,
    /// Length; of a record dimension, the number of records present.
    pub len: usize,
}

/// Type of the elements of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    /// Text, one byte an element.
    Char,
    /// 8-bit signed integer.
    I8,
    /// 16-bit signed integer.
    I16,
    /// 32-bit signed integer.
    I32,
    /// 64-bit signed integer.
    I64,
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
}

impl DataType {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::Char | Self::I8 => 1,
            Self::I16 => 2,
            Self::I32 | Self::F32 => 4,
            Self::I64 | Self::F64 => 8,
        }
    }

    /// Whether the elements are floating-point numbers.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64)
    }
}

impl fmt::Display for DataType {
    /// In the short form of NumPy and CF: `f4` is a float of 4 bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Char => return f.write_str("char"),
            _ if self.is_float() => 'f',
            _ => 'i',
        };
        write!(f, "{kind}{}", self.size())
    }
}

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum AttributeValue {
    /// Text.
    Text(String),
    /// 8-bit signed integers.
    I8(Vec<i8>),
    /// 16-bit signed integers.
    I16(Vec<i16>),
    /// 32-bit signed integers.
    I32(Vec<i32>),
    /// 64-bit signed integers.
    I64(Vec<i64>),
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 64-bit floats.
    F64(Vec<f64>),
}

/// A named value that describes a variable or a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    /// Name, such as `units`.
    pub name: String,
    /// Value.
    pub value: AttributeValue,
}

impl Attribute {
    /// An attribute that holds text.
    pub fn text(name: &str, value: impl Into<String>) -> Self {
        Self { name: name.to_owned(), value: AttributeValue::Text(value.into()) }
    }
}

/// A variable without its data.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    /// Name, such as `DIC`.
    pub name: String,
    /// Type of the elements.
    pub dtype: DataType,
    /// Dimensions, slowest first.
    pub dims: Vec<Dimension>,
    /// Attributes, in the order of the file.
    pub attributes: Vec<Attribute>,
}

impl Variable {
    /// Number of elements; the largest number when a damaged header claims more.
    pub fn len(&self) -> usize {
        self.dims.iter().fold(1, |len, d| len.saturating_mul(d.len))
    }

    /// Whether the variable has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the data, uncompressed.
    pub fn bytes(&self) -> usize {
        self.len().saturating_mul(self.dtype.size())
    }

    /// The attribute of this name.
    pub fn attribute(&self, name: &str) -> Option<&AttributeValue> {
        self.attributes.iter().find(|a| a.name == name).map(|a| &a.value)
    }

    /// The text of an attribute; empty when it has none.
    pub fn text(&self, name: &str) -> &str {
        match self.attribute(name) {
            Some(AttributeValue::Text(text)) => text,
            _ => "",
        }
    }

    /// The values that stand for none: `_FillValue` and `missing_value`.
    pub fn fill_values(&self) -> Vec<f64> {
        ["_FillValue", "missing_value"]
            .iter()
            .filter_map(|name| match self.attribute(name)? {
                AttributeValue::F64(v) => v.first().copied(),
                AttributeValue::F32(v) => v.first().map(|&v| f64::from(v)),
                AttributeValue::I32(v) => v.first().map(|&v| f64::from(v)),
                _ => None,
            })
            .collect()
    }

    /// Whether the first dimension is `name`.
    pub fn leads_with(&self, name: &str) -> bool {
        self.dims.first().is_some_and(|d| d.name == name)
    }
}

/// All that a file says of itself.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Header {
    /// Variables, in the order of the file.
    pub variables: Vec<Variable>,
    /// Attributes of the file.
    pub attributes: Vec<Attribute>,
}

impl Header {
    /// The variable of this name.
    pub fn variable(&self, name: &str) -> Option<&Variable> {
        self.variables.iter().find(|v| v.name == name)
    }
}

/// Order of the bytes of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// Most significant byte first: the classic NetCDF formats.
    Big,
    /// Least significant byte first: what this program writes.
    Little,
}
