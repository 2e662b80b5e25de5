//! Writes the NetCDF classic formats: CDF-1, CDF-2 (64-bit offset) and CDF-5 (64-bit data).
//!
//! The model writes CDF-2. Specification: "NetCDF Classic Format Specification" in the NetCDF User
//! Guide, Appendix B. The data is streamed, so that a file can be larger than memory.

use std::io::{self, Write};

/// A variant of the classic format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassicFormat {
    /// `CDF\x01`: 32-bit offsets, files up to 2 GiB.
    Cdf1,
    /// `CDF\x02`: 64-bit offsets; the format of the model.
    Cdf2,
    /// `CDF\x05`: 64-bit offsets and sizes.
    Cdf5,
}

/// Data type of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NcType {
    /// `float`, 4 bytes.
    Float,
    /// `double`, 8 bytes.
    Double,
}

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text of type `char`.
    Text(String),
    /// One number of type `float`.
    Float(f32),
    /// One number of type `double`.
    Double(f64),
}

/// The name and value of an attribute.
pub type AttributeDef = (String, Value);

/// A variable in the header.
#[derive(Clone, Debug, PartialEq)]
pub struct VariableDef {
    /// Name, such as `DIC`.
    pub name: String,
    /// Data type of the elements.
    pub kind: NcType,
    /// Indexes of the dimensions in [`FileHeader::dimensions`], the slowest first.
    pub dimensions: Vec<usize>,
    /// Attributes, in the order of the file.
    pub attributes: Vec<AttributeDef>,
}

/// The header of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct FileHeader {
    /// Variant of the classic format.
    pub format: ClassicFormat,
    /// Name and length of each dimension; length `None` is the record dimension.
    pub dimensions: Vec<(String, Option<u64>)>,
    /// Number of records.
    pub records: u64,
    /// Global attributes.
    pub attributes: Vec<AttributeDef>,
    /// Variables, in the order of the file.
    pub variables: Vec<VariableDef>,
}

// Tags of the lists in the header.
const DIMENSION: u32 = 10;
const VARIABLE: u32 = 11;
const ATTRIBUTE: u32 = 12;

impl NcType {
    fn size(self) -> u64 {
        match self {
            Self::Float => 4,
            Self::Double => 8,
        }
    }

    fn code(self) -> u32 {
        match self {
            Self::Float => 5,
            Self::Double => 6,
        }
    }
}

impl FileHeader {
    /// Size of a variable in bytes; of a record variable, the size of one record.
    pub fn variable_size(&self, variable: &VariableDef) -> u64 {
        let lengths = variable.dimensions.iter().filter_map(|&d| self.dimensions[d].1);
        lengths.product::<u64>() * variable.kind.size()
    }

    /// Size of the whole file in bytes.
    pub fn file_size(&self) -> u64 {
        self.header_size() + self.total(false) + self.total(true) * self.records
    }

    /// Writes the file.
    ///
    /// The function calls `fill` for each variable and record in the order of the file, with a zeroed
    /// buffer for the big-endian values.
    ///
    /// # Errors
    /// `out` cannot be written, or the file is too large for its format.
    pub fn write<W: Write>(
        &self,
        out: &mut W,
        mut fill: impl FnMut(&VariableDef, u64, &mut [u8]),
    ) -> io::Result<()> {
        out.write_all(&self.encode()?)?;
        let mut values = Vec::new();
        let passes = std::iter::once((false, 0)).chain((0..self.records).map(|r| (true, r)));
        for (of_records, record) in passes {
            for variable in self.variables.iter().filter(|v| self.is_record(v) == of_records) {
                let size =
                    usize::try_from(self.variable_size(variable)).map_err(|_| too_large())?;
                values.clear();
                values.resize(size, 0);
                fill(variable, record, &mut values);
                out.write_all(&values)?;
            }
        }
        Ok(())
    }

    /// Encodes the header.
    ///
    /// # Errors
    /// The file is too large for its format.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let mut fixed = self.header_size();
        let mut record = fixed + self.total(false);
        if self.format == ClassicFormat::Cdf1 && record + self.total(true) > i32::MAX as u64 {
            return Err(too_large());
        }
        let mut bytes = match self.format {
            ClassicFormat::Cdf1 => b"CDF\x01".to_vec(),
            ClassicFormat::Cdf2 => b"CDF\x02".to_vec(),
            ClassicFormat::Cdf5 => b"CDF\x05".to_vec(),
        };
        self.put_size(&mut bytes, self.records);
        self.put_list(&mut bytes, DIMENSION, self.dimensions.len());
        for (name, length) in &self.dimensions {
            self.put_text(&mut bytes, name);
            self.put_size(&mut bytes, length.unwrap_or(0));
        }
        self.put_attributes(&mut bytes, &self.attributes);
        self.put_list(&mut bytes, VARIABLE, self.variables.len());
        for variable in &self.variables {
            self.put_text(&mut bytes, &variable.name);
            self.put_size(&mut bytes, variable.dimensions.len() as u64);
            for &dimension in &variable.dimensions {
                self.put_size(&mut bytes, dimension as u64);
            }
            self.put_attributes(&mut bytes, &variable.attributes);
            put_u32(&mut bytes, variable.kind.code());
            let size = self.variable_size(variable);
            self.put_size(&mut bytes, size);
            let offset = if self.is_record(variable) { &mut record } else { &mut fixed };
            match self.format {
                ClassicFormat::Cdf1 => put_u32(&mut bytes, *offset as u32),
                ClassicFormat::Cdf2 | ClassicFormat::Cdf5 => bytes.extend(offset.to_be_bytes()),
            }
            *offset += size;
        }
        Ok(bytes)
    }

    fn is_record(&self, variable: &VariableDef) -> bool {
        variable.dimensions.first().is_some_and(|&d| self.dimensions[d].1.is_none())
    }

    /// Size in bytes of one record, or of all fixed variables.
    fn total(&self, of_records: bool) -> u64 {
        let variables = self.variables.iter().filter(|v| self.is_record(v) == of_records);
        variables.map(|v| self.variable_size(v)).sum()
    }

    fn header_size(&self) -> u64 {
        let word = if self.format == ClassicFormat::Cdf5 { 8 } else { 4 };
        let text = |s: &str| word + (s.len() as u64).next_multiple_of(4);
        let attributes = |list: &[AttributeDef]| {
            let one = |(name, value): &AttributeDef| {
                text(name)
                    + 4
                    + match value {
                        Value::Text(s) => text(s),
                        Value::Float(_) => word + 4,
                        Value::Double(_) => word + 8,
                    }
            };
            4 + word + list.iter().map(one).sum::<u64>()
        };
        let offset = if self.format == ClassicFormat::Cdf1 { 4 } else { 8 };
        let dimensions: u64 = self.dimensions.iter().map(|(name, _)| text(name) + word).sum();
        let variable = |v: &VariableDef| {
            text(&v.name)
                + word * (1 + v.dimensions.len() as u64)
                + attributes(&v.attributes)
                + 4
                + word
                + offset
        };
        let variables: u64 = self.variables.iter().map(variable).sum();
        4 + word + 2 * (4 + word) + dimensions + attributes(&self.attributes) + variables
    }

    /// Writes a count or size: 8 bytes in CDF-5, otherwise 4 bytes, with saturation. Readers compute
    /// a saturated size from the shape.
    fn put_size(&self, bytes: &mut Vec<u8>, value: u64) {
        match self.format {
            ClassicFormat::Cdf5 => bytes.extend(value.to_be_bytes()),
            ClassicFormat::Cdf1 | ClassicFormat::Cdf2 => {
                put_u32(bytes, value.try_into().unwrap_or(u32::MAX))
            }
        }
    }

    /// Writes the tag and length of a list; both are 0 for an empty list.
    fn put_list(&self, bytes: &mut Vec<u8>, tag: u32, length: usize) {
        put_u32(bytes, if length == 0 { 0 } else { tag });
        self.put_size(bytes, length as u64);
    }

    fn put_text(&self, bytes: &mut Vec<u8>, text: &str) {
        self.put_size(bytes, text.len() as u64);
        bytes.extend(text.as_bytes());
        bytes.resize(bytes.len() + text.len().next_multiple_of(4) - text.len(), 0);
    }

    fn put_attributes(&self, bytes: &mut Vec<u8>, attributes: &[AttributeDef]) {
        self.put_list(bytes, ATTRIBUTE, attributes.len());
        for (name, value) in attributes {
            self.put_text(bytes, name);
            match value {
                Value::Text(text) => {
                    put_u32(bytes, 2);
                    self.put_text(bytes, text);
                }
                Value::Float(number) => {
                    put_u32(bytes, NcType::Float.code());
                    self.put_size(bytes, 1);
                    bytes.extend(number.to_be_bytes());
                }
                Value::Double(number) => {
                    put_u32(bytes, NcType::Double.code());
                    self.put_size(bytes, 1);
                    bytes.extend(number.to_be_bytes());
                }
            }
        }
    }
}

fn put_u32(bytes: &mut Vec<u8>, value: u32) {
    bytes.extend(value.to_be_bytes());
}

fn too_large() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "the variables do not fit into this NetCDF format: use Cdf2 or Cdf5",
    )
}

/// Writes `values` to `out` as big-endian floats.
pub fn put_floats(out: &mut [u8], values: impl IntoIterator<Item = f32>) {
    for (bytes, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
        *bytes = value.to_be_bytes();
    }
}

/// Writes `values` to `out` as big-endian doubles.
pub fn put_doubles(out: &mut [u8], values: impl IntoIterator<Item = f64>) {
    for (bytes, value) in out.as_chunks_mut::<8>().0.iter_mut().zip(values) {
        *bytes = value.to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(format: ClassicFormat) -> FileHeader {
        FileHeader {
            format,
            dimensions: vec![("time".into(), None), ("x".into(), Some(3))],
            records: 2,
            attributes: vec![("title".into(), Value::Text("odd".into()))],
            variables: vec![
                VariableDef {
                    name: "a".into(),
                    kind: NcType::Float,
                    dimensions: vec![0, 1],
                    attributes: vec![("f".into(), Value::Float(1.5))],
                },
                VariableDef {
                    name: "b".into(),
                    kind: NcType::Double,
                    dimensions: vec![],
                    attributes: vec![("d".into(), Value::Double(2.5))],
                },
            ],
        }
    }

    #[test]
    fn the_file_has_the_computed_size_and_readers_find_every_record() {
        for format in [ClassicFormat::Cdf1, ClassicFormat::Cdf2, ClassicFormat::Cdf5] {
            let (header, mut bytes) = (header(format), Vec::new());
            let fill = |v: &VariableDef, record: u64, out: &mut [u8]| match v.name.as_str() {
                "a" => put_floats(out, (0..3).map(|i| i as f32 + 10.0 * record as f32)),
                _ => put_doubles(out, [7.25]),
            };
            header.write(&mut bytes, fill).unwrap();
            assert_eq!(bytes.len() as u64, header.file_size(), "{format:?}");
            let file = netcdf_reader::NcFile::from_vec(bytes).unwrap();
            let a = file.read_variable::<f32>("a").unwrap();
            assert_eq!(a.shape(), [2, 3]);
            assert_eq!(a.iter().copied().collect::<Vec<_>>(), [0., 1., 2., 10., 11., 12.]);
            assert_eq!(file.read_variable_as_f64("b").unwrap().iter().next(), Some(&7.25));
        }
    }

    #[test]
    fn a_file_too_large_for_cdf1_is_rejected() {
        let mut header = header(ClassicFormat::Cdf1);
        header.dimensions[1].1 = Some(1 << 30);
        assert!(header.encode().is_err());
        header.format = ClassicFormat::Cdf2;
        assert!(header.encode().is_ok());
    }
}
