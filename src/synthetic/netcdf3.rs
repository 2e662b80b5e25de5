//! Writes the NetCDF classic formats: CDF-1, CDF-2 (64-bit offset) and CDF-5 (64-bit data).
//!
//! The model writes CDF-2. The specification is the "NetCDF Classic Format Specification" of
//! Unidata's NUG, Appendix B; netCDF-C and netcdf-reader read what is written here. The header is
//! made at once, the data is streamed, so that a file may be larger than memory.

use std::io::{self, Write};

/// Variant of the classic format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassicFormat {
    /// `CDF\x01`: 32-bit offsets, files up to 2 GiB.
    Cdf1,
    /// `CDF\x02`: 64-bit offsets; what the model writes.
    Cdf2,
    /// `CDF\x05`: 64-bit offsets and sizes.
    Cdf5,
}

/// Type of a variable.
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
    /// `char` text.
    Text(String),
    /// One `float`.
    Float(f32),
    /// One `double`.
    Double(f64),
}

/// A named value of a variable or of the file.
pub type AttributeDef = (String, Value);

/// A variable as the header describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct VariableDef {
    /// Name.
    pub name: String,
    /// Type.
    pub kind: NcType,
    /// Positions of the dimensions in [`FileHeader::dimensions`], slowest first.
    pub dimensions: Vec<usize>,
    /// Attributes, in order.
    pub attributes: Vec<AttributeDef>,
}

/// Everything that comes before the data.
#[derive(Clone, Debug, PartialEq)]
pub struct FileHeader {
    /// Variant of the format.
    pub format: ClassicFormat,
    /// Name and length of each dimension; length `None` is the record dimension.
    pub dimensions: Vec<(String, Option<u64>)>,
    /// Current length of the record dimension.
    pub records: u64,
    /// Attributes of the file.
    pub attributes: Vec<AttributeDef>,
    /// Variables, in the order of the file.
    pub variables: Vec<VariableDef>,
}

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
    /// Bytes of one variable: of one record for a record variable, of the whole for another.
    pub fn variable_size(&self, variable: &VariableDef) -> u64 {
        let lengths = variable.dimensions.iter().filter_map(|&d| self.dimensions[d].1);
        lengths.product::<u64>() * variable.kind.size()
    }

    /// Size of the whole file in bytes.
    pub fn file_size(&self) -> u64 {
        self.header_size() + self.total(false) + self.total(true) * self.records
    }

    /// Writes the file; `fill` is given each variable, the record, and the (zeroed) room for its
    /// big-endian values, in the order of the file.
    pub fn write<W: Write>(
        &self,
        out: &mut W,
        mut fill: impl FnMut(&VariableDef, u64, &mut [u8]),
    ) -> io::Result<()> {
        out.write_all(&self.encode()?)?;
        let mut room = Vec::new();
        let rounds = std::iter::once((false, 0)).chain((0..self.records).map(|r| (true, r)));
        for (of_records, record) in rounds {
            for variable in self.variables.iter().filter(|v| self.is_record(v) == of_records) {
                let size = usize::try_from(self.variable_size(variable)).map_err(|_| too_big())?;
                room.clear();
                room.resize(size, 0);
                fill(variable, record, &mut room);
                out.write_all(&room)?;
            }
        }
        Ok(())
    }

    /// The header's bytes.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let mut fixed = self.header_size();
        let mut record = fixed + self.total(false);
        if self.format == ClassicFormat::Cdf1 && record + self.total(true) > i32::MAX as u64 {
            return Err(too_big());
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

    fn total(&self, of_records: bool) -> u64 {
        let chosen = self.variables.iter().filter(|v| self.is_record(v) == of_records);
        chosen.map(|v| self.variable_size(v)).sum()
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

    /// A count or size: 8 bytes in CDF-5, else 4, where sizes beyond 32 bits are saturated
    /// (readers then take the size from the shape).
    fn put_size(&self, bytes: &mut Vec<u8>, value: u64) {
        match self.format {
            ClassicFormat::Cdf5 => bytes.extend(value.to_be_bytes()),
            ClassicFormat::Cdf1 | ClassicFormat::Cdf2 => {
                put_u32(bytes, value.try_into().unwrap_or(u32::MAX))
            }
        }
    }

    /// Tag and length of a list; both are zero for an empty one.
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

fn too_big() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "the variables do not fit into this NetCDF format: use Cdf2 or Cdf5",
    )
}

/// Puts `values` into `room` as big-endian floats.
pub fn put_floats(room: &mut [u8], values: impl IntoIterator<Item = f32>) {
    for (bytes, value) in room.as_chunks_mut::<4>().0.iter_mut().zip(values) {
        *bytes = value.to_be_bytes();
    }
}

/// Puts `values` into `room` as big-endian doubles.
pub fn put_doubles(room: &mut [u8], values: impl IntoIterator<Item = f64>) {
    for (bytes, value) in room.as_chunks_mut::<8>().0.iter_mut().zip(values) {
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
    fn the_size_is_known_before_writing_and_readers_find_every_record() {
        for format in [ClassicFormat::Cdf1, ClassicFormat::Cdf2, ClassicFormat::Cdf5] {
            let (header, mut bytes) = (header(format), Vec::new());
            let fill = |v: &VariableDef, record: u64, room: &mut [u8]| match v.name.as_str() {
                "a" => put_floats(room, (0..3).map(|i| i as f32 + 10.0 * record as f32)),
                _ => put_doubles(room, [7.25]),
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
    fn what_does_not_fit_into_cdf1_is_refused() {
        let mut header = header(ClassicFormat::Cdf1);
        header.dimensions[1].1 = Some(1 << 30);
        assert!(header.encode().is_err());
        header.format = ClassicFormat::Cdf2;
        assert!(header.encode().is_ok());
    }
}
