//! Converts the header of an open NetCDF file to [`Header`] and checks it.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use netcdf_reader::{NcAttrValue, NcAttribute, NcFile, NcType};

use super::{ReadError, types};
use crate::model::dataset::{Attribute, AttributeValue, DataType, Dimension, Header, Variable};

/// The header of an open file, after checks of its names and dimensions.
pub(super) fn header_of(file: &NcFile, url: &str) -> Result<Header, ReadError> {
    let mut variables = Vec::new();
    for variable in file.variables().map_err(|e| ReadError::damaged(url, e))? {
        let dtype = match variable.dtype() {
            NcType::Char => DataType::Char,
            NcType::Byte => DataType::I8,
            NcType::Short => DataType::I16,
            NcType::Int => DataType::I32,
            NcType::Int64 => DataType::I64,
            NcType::UByte => DataType::U8,
            NcType::UShort => DataType::U16,
            NcType::UInt => DataType::U32,
            NcType::UInt64 => DataType::U64,
            NcType::Float => DataType::F32,
            NcType::Double => DataType::F64,
            other => return Err(types::unsupported_nc_type(url, variable.name(), other)),
        };
        let dims = variable
            .dimensions()
            .iter()
            .map(|d| Ok(Dimension { name: valid_name(&d.name, url)?, len: d.size as usize }))
            .collect::<Result<_, ReadError>>()?;
        variables.push(Variable {
            name: valid_name(variable.name(), url)?,
            dtype,
            dims,
            attributes: attributes_of(variable.attributes(), url)?,
        });
    }
    let attributes = file.global_attributes().map_err(|e| ReadError::damaged(url, e))?;
    let attributes = attributes_of(attributes, url)?;
    let header = Header { variables, attributes };
    check_header(&header, url)?;
    Ok(header)
}

/// Checks a name by the rules of netCDF-C: another name is a sign of damage.
fn valid_name(name: &str, url: &str) -> Result<String, ReadError> {
    if name.is_empty() || name.contains(|c: char| c.is_control() || c == '/') {
        return Err(ReadError::Name { url: url.to_owned(), name: name.to_owned() });
    }
    Ok(name.to_owned())
}

fn attributes_of(attributes: &[NcAttribute], url: &str) -> Result<Vec<Attribute>, ReadError> {
    attributes.iter().map(|a| attribute_of(a, url)).collect()
}

fn attribute_of(attribute: &NcAttribute, url: &str) -> Result<Attribute, ReadError> {
    let value = match &attribute.value {
        NcAttrValue::Chars(text) => AttributeValue::Text(text.clone()),
        NcAttrValue::Strings(texts) => AttributeValue::Texts(texts.clone()),
        NcAttrValue::Bytes(v) => AttributeValue::I8(v.clone()),
        NcAttrValue::Shorts(v) => AttributeValue::I16(v.clone()),
        NcAttrValue::Ints(v) => AttributeValue::I32(v.clone()),
        NcAttrValue::Int64s(v) => AttributeValue::I64(v.clone()),
        NcAttrValue::UBytes(v) => AttributeValue::U8(v.clone()),
        NcAttrValue::UShorts(v) => AttributeValue::U16(v.clone()),
        NcAttrValue::UInts(v) => AttributeValue::U32(v.clone()),
        NcAttrValue::UInt64s(v) => AttributeValue::U64(v.clone()),
        NcAttrValue::Floats(v) => AttributeValue::F32(v.clone()),
        NcAttrValue::Doubles(v) => AttributeValue::F64(v.clone()),
        NcAttrValue::UserDefined { dtype, .. } => {
            return Err(types::unsupported_nc_type(url, &attribute.name, dtype));
        }
    };
    Ok(Attribute { name: valid_name(&attribute.name, url)?, value })
}

/// Rejects a header with two variables of one name, or two lengths of one dimension.
fn check_header(header: &Header, url: &str) -> Result<(), ReadError> {
    let (mut names, mut lengths) = (HashSet::new(), HashMap::new());
    for variable in &header.variables {
        let contradiction = |problem: String| {
            let (url, variable) = (url.to_owned(), variable.name.clone());
            Err(ReadError::Contradiction { url, variable, problem })
        };
        if !names.insert(&variable.name) {
            return contradiction("is in its header twice".to_owned());
        }
        for dim in &variable.dims {
            let other = *lengths.entry(&dim.name).or_insert(dim.len);
            if other != dim.len {
                let Dimension { name, len } = dim;
                return contradiction(format!(
                    "has the dimension `{name}` of length {len}, which has length {other} in \
                     another variable"
                ));
            }
        }
    }
    Ok(())
}

/// The byte range of each variable's data in a classic file; of a record variable, of its first
/// record.
///
/// The data must lie inside the file and must not overlap. The order is that of the format: fixed
/// variables before record variables, each in the order of the header ("NetCDF classic format
/// specification", note on `begin`).
pub(super) fn positions(
    file: &NcFile,
    header: &Header,
    url: &str,
    len: u64,
) -> Result<Vec<Range<u64>>, ReadError> {
    let variables = file.variables().map_err(|e| ReadError::damaged(url, e))?;
    let mut positions = Vec::new();
    let mut in_order = Vec::new();
    for (variable, own) in variables.iter().zip(&header.variables) {
        let is_record = variable.dimensions().first().is_some_and(|d| d.is_unlimited);
        // The size of one record: a history file has one, or is rejected elsewhere.
        let size = match own.dims.first().filter(|_| is_record).map(|time| time.len) {
            Some(0) => 0,
            Some(times) => (own.bytes() / times) as u64,
            None => own.bytes() as u64,
        };
        let start = variable.data_offset;
        let position = start..start.saturating_add(size);
        in_order.push((is_record, position.clone(), own));
        positions.push(position);
    }
    in_order.sort_by_key(|(is_record, ..)| *is_record);
    if let Some(pair) = in_order.windows(2).find(|pair| pair[1].1.start < pair[0].1.end) {
        let between = pair.iter().map(|(_, _, variable)| variable.name.clone()).collect();
        return Err(ReadError::Overlap { url: url.to_owned(), between });
    }
    let is_beyond = |position: &Range<u64>| !position.is_empty() && position.end > len;
    match in_order.iter().find(|(_, position, _)| is_beyond(position)) {
        None => Ok(positions),
        Some((_, position, variable)) => Err(ReadError::Truncated {
            url: url.to_owned(),
            variable: variable.name.clone(),
            needs: position.end,
            has: len,
        }),
    }
}
