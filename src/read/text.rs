//! Decodes attributes whose text is not UTF-8 as Latin-1, in classic and NetCDF-4 files.
//!
//! The reading library replaces invalid UTF-8 in classic files and rejects it in NetCDF-4 files. This
//! module takes the bytes from the file itself: from the header ("NetCDF classic format
//! specification") or from the HDF5 attributes.

use std::sync::Once;

use hdf5_reader::global_heap::GlobalHeapCollection;
use hdf5_reader::group::Group;
use hdf5_reader::messages::datatype::{Datatype, StringSize, VarLenKind};
use hdf5_reader::storage::DynStorage;
use hdf5_reader::{Dataset, Hdf5File};
use netcdf_reader::{NcFile, NcMetadataMode, NcOpenOptions};

use super::header::header_of;
use super::{ReadError, classic};
use crate::model::dataset::{Attribute, AttributeValue, Header};

/// Decodes UTF-8; decodes invalid bytes as Latin-1, with a warning once per process.
fn decode(bytes: &[u8], object: &str, url: &str) -> String {
    static WARNED: Once = Once::new();
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|&byte| char::from(byte)));
        if !chunk.invalid().is_empty() {
            WARNED.call_once(|| {
                tracing::warn!(
                    "{url}: the text of `{object}` is not UTF-8; this and other such texts are taken \
                     for Latin-1 and written as UTF-8"
                );
            });
        }
    }
    text
}

/// Decodes the attributes of a classic file that contain replacement characters, from the bytes of
/// the file: `start` contains at least its header.
pub(super) fn recode_classic(header: &mut Header, start: &[u8], url: &str) {
    let Some(texts) = classic::texts(start) else { return };
    let of_variables = header.variables.iter_mut().flat_map(|v| &mut v.attributes);
    let attributes = header.attributes.iter_mut().chain(of_variables);
    let text_attributes = attributes.filter(|a| matches!(a.value, AttributeValue::Text(_)));
    for (attribute, bytes) in text_attributes.zip(texts) {
        if attribute.value.as_text().is_some_and(|text| text.contains('\u{fffd}')) {
            let text = decode(bytes, &attribute.name, url);
            attribute.value = AttributeValue::Text(text.trim_end_matches('\0').to_owned());
        }
    }
}

/// Whether an attribute contains the character by which the library replaces invalid UTF-8.
pub(super) fn has_replacement_characters(header: &Header) -> bool {
    let of_variables = header.variables.iter().flat_map(|v| &v.attributes);
    let mut attributes = of_variables.chain(&header.attributes);
    attributes.any(|a| matches!(&a.value, AttributeValue::Text(text) if text.contains('\u{fffd}')))
}

/// Opens a file and returns its header, with the attributes whose text is not UTF-8.
pub(super) fn open(
    storage: DynStorage,
    options: impl Fn() -> NcOpenOptions,
    url: &str,
) -> Result<(NcFile, Header), ReadError> {
    let file = NcFile::from_storage_with_options(storage.clone(), options());
    let file = file.map_err(|e| ReadError::damaged(url, e))?;
    let error = match header_of(&file, url) {
        Ok(mut header) => {
            if file.as_classic().is_some() && has_replacement_characters(&header) {
                recode_classic(&mut header, &classic_header(&file, &storage), url);
            }
            return Ok((file, header));
        }
        Err(error) => error,
    };
    if file.as_classic().is_some() {
        return Err(error);
    }
    // One invalid text makes the library reject the file; in lossy mode it drops the attribute.
    match non_utf8_attributes(&storage, url) {
        Some(texts) if !texts.is_empty() => {
            let lenient = NcOpenOptions { metadata_mode: NcMetadataMode::Lossy, ..options() };
            let file = NcFile::from_storage_with_options(storage.clone(), lenient);
            let file = file.map_err(|e| ReadError::damaged(url, e))?;
            let mut header = header_of(&file, url)?;
            insert(&mut header, texts);
            let is_complete = is_complete(&header, &storage) == Some(true);
            if is_complete { Ok((file, header)) } else { Err(error) }
        }
        _ => Err(error),
    }
}

/// The bytes of a classic file up to the data of its first variable; empty when they cannot be read.
fn classic_header(file: &NcFile, storage: &DynStorage) -> Vec<u8> {
    let variables = file.variables().unwrap_or_default();
    let end = variables.iter().map(|v| v.data_offset).min().unwrap_or(storage.len());
    let len = usize::try_from(end.min(storage.len())).unwrap_or(0);
    storage.read_range(0, len).map(|bytes| bytes.to_vec()).unwrap_or_default()
}

/// An attribute whose text is not UTF-8: its variable (`None` for a global attribute), its index
/// among the attributes that NetCDF shows, and its decoded value.
type NonUtf8Attribute = (Option<String>, usize, Attribute);

/// The attributes of an HDF5 file whose text is not UTF-8.
fn non_utf8_attributes(storage: &DynStorage, url: &str) -> Option<Vec<NonUtf8Attribute>> {
    let file = Hdf5File::from_storage(storage.clone()).ok()?;
    let root = file.root_group().ok()?;
    let mut found = Vec::new();
    let mut search = |of: Option<&str>, attributes: Vec<hdf5_reader::Attribute>| -> Option<()> {
        let visible = attributes.iter().filter(|attribute| is_visible(&attribute.name));
        for (index, attribute) in visible.enumerate() {
            let Some(texts) = text_bytes(attribute, storage, &file) else { continue };
            if texts.iter().all(|bytes| std::str::from_utf8(bytes).is_ok()) {
                continue;
            }
            let name = attribute.name.clone();
            let object = format!("{}:{name}", of.unwrap_or_default());
            let mut texts = texts.iter().map(|bytes| decode(bytes, &object, url));
            let value = match is_array(attribute) {
                true => AttributeValue::Texts(texts.collect()),
                false => AttributeValue::Text(texts.next()?),
            };
            found.push((of.map(str::to_owned), index, Attribute { name, value }));
        }
        Some(())
    };
    search(None, root.attributes().ok()?)?;
    for dataset in root.datasets().ok()? {
        search(Some(variable_name(&dataset)), dataset.attributes())?;
    }
    Some(found)
}

/// Restores attributes of fixed-length text that contain NUL: the library cuts them at the first NUL,
/// which is an ordinary character in NetCDF.
pub(super) fn restore_nul_texts<'a>(
    header: &mut Header,
    root: &Group,
    datasets: impl Iterator<Item = &'a Dataset>,
    url: &str,
) {
    let mut restore = |of: Option<&str>, attributes: Vec<hdf5_reader::Attribute>| {
        for attribute in &attributes {
            let Some(texts) = fixed_texts(attribute) else { continue };
            if !texts.iter().any(|text| text.contains(&0)) {
                continue;
            }
            let targets = match of {
                None => &mut header.attributes,
                Some(name) => match header.variables.iter_mut().find(|v| v.name == name) {
                    Some(variable) => &mut variable.attributes,
                    None => continue,
                },
            };
            let Some(target) = targets.iter_mut().find(|a| a.name == attribute.name) else {
                continue;
            };
            let object = format!("{}:{}", of.unwrap_or_default(), attribute.name);
            let mut texts = texts.iter().map(|bytes| decode(bytes, &object, url));
            target.value = match (is_array(attribute), texts.next()) {
                (false, Some(text)) => AttributeValue::Text(text),
                (_, first) => AttributeValue::Texts(first.into_iter().chain(texts).collect()),
            };
        }
    };
    restore(None, root.attributes().unwrap_or_default());
    for dataset in datasets {
        restore(Some(variable_name(dataset)), dataset.attributes());
    }
}

/// The bytes of each text of a fixed-length text attribute, without padding; `None` for other types.
fn fixed_texts(attribute: &hdf5_reader::Attribute) -> Option<Vec<&[u8]>> {
    let Datatype::String { size: StringSize::Fixed(len), .. } = &attribute.datatype else {
        return None;
    };
    let len = usize::try_from(*len).ok().filter(|&len| len > 0)?;
    let count = usize::try_from(attribute.num_elements().ok()?).ok()?;
    let texts = attribute.raw_data.chunks(len).take(count);
    let padding = |text: &&[u8]| text.iter().rev().take_while(|&&byte| byte == 0).count();
    Some(texts.map(|text| &text[..text.len() - padding(&text)]).collect())
}

/// Whether NetCDF shows an HDF5 attribute of this name.
pub(super) fn is_visible(name: &str) -> bool {
    const HIDDEN: [&str; 8] = [
        "_NCProperties",
        "_Netcdf4Dimid",
        "_Netcdf4Coordinates",
        "_nc3_strict",
        "DIMENSION_LIST",
        "REFERENCE_LIST",
        "CLASS",
        "NAME",
    ];
    !HIDDEN.contains(&name)
}

/// Whether NetCDF shows a text attribute as an array, of the type NC_STRING.
fn is_array(attribute: &hdf5_reader::Attribute) -> bool {
    let is_fixed =
        matches!(attribute.datatype, Datatype::String { size: StringSize::Fixed(_), .. });
    !is_fixed || !attribute.shape.is_empty()
}

/// The NetCDF name of a dataset.
fn variable_name(dataset: &Dataset) -> &str {
    let name = dataset.name();
    name.strip_prefix("_nc4_non_coord_").unwrap_or(name)
}

/// The bytes of each text of an attribute, without padding; `None` when it is not text.
fn text_bytes(
    attribute: &hdf5_reader::Attribute,
    storage: &DynStorage,
    file: &Hdf5File,
) -> Option<Vec<Vec<u8>>> {
    let until_nul = |bytes: &[u8]| bytes.split(|&b| b == 0).next().unwrap_or_default().to_vec();
    let count = usize::try_from(attribute.num_elements().ok()?).ok()?;
    match &attribute.datatype {
        Datatype::String { size: StringSize::Fixed(_), .. } => {
            Some(fixed_texts(attribute)?.into_iter().map(<[u8]>::to_vec).collect())
        }
        Datatype::String { size: StringSize::Variable, .. }
        | Datatype::VarLen { kind: VarLenKind::String, .. } => {
            let offset_size = file.superblock().offset_size;
            let size = 4 + usize::from(offset_size) + 4;
            if let Some(texts) = &attribute.decoded_strings {
                return Some(texts.iter().map(|text| text.clone().into_bytes()).collect());
            }
            // A value that is not a reference into the global heap is the text itself.
            if attribute.shape.is_empty() && attribute.raw_data.len() != size {
                return Some(vec![until_nul(&attribute.raw_data)]);
            }
            let references = attribute.raw_data.chunks_exact(size).take(count);
            references.map(|reference| heap_text(reference, storage, file)).collect()
        }
        _ => None,
    }
}

/// The text to which a reference into the global heap points ("HDF5 file format", III.E).
fn heap_text(reference: &[u8], storage: &DynStorage, file: &Hdf5File) -> Option<Vec<u8>> {
    let superblock = file.superblock();
    let address = match superblock.offset_size {
        4 => u64::from(u32::from_le_bytes(*reference.get(4..)?.first_chunk()?)),
        8 => u64::from_le_bytes(*reference.get(4..)?.first_chunk()?),
        _ => return None,
    };
    let index = reference.get(4 + usize::from(superblock.offset_size)..)?.first_chunk()?;
    let index = u16::try_from(u32::from_le_bytes(*index)).ok()?;
    if index == 0 {
        return Some(Vec::new());
    }
    let heap = GlobalHeapCollection::parse_at_storage(
        storage.as_ref(),
        address,
        superblock.offset_size,
        superblock.length_size,
    );
    let bytes = heap.ok()?.get_object(index)?.data.clone();
    Some(bytes.split(|&b| b == 0).next().unwrap_or_default().to_vec())
}

/// Inserts attributes at their indexes.
fn insert(header: &mut Header, texts: Vec<NonUtf8Attribute>) {
    for (of, index, attribute) in texts {
        let attributes = match &of {
            None => Some(&mut header.attributes),
            Some(name) => {
                let variable = header.variables.iter_mut().find(|v| v.name == *name);
                variable.map(|variable| &mut variable.attributes)
            }
        };
        if let Some(attributes) = attributes {
            attributes.insert(index.min(attributes.len()), attribute);
        }
    }
}

/// Whether a header that was read in lossy mode has every variable and attribute of its file, and
/// names all dimensions of each variable.
fn is_complete(header: &Header, storage: &DynStorage) -> Option<bool> {
    let file = Hdf5File::from_storage(storage.clone()).ok()?;
    let root = file.root_group().ok()?;
    let visible = |attributes: &[hdf5_reader::Attribute]| {
        attributes.iter().filter(|attribute| is_visible(&attribute.name)).count()
    };
    if visible(&root.attributes().ok()?) != header.attributes.len() {
        return Some(false);
    }
    let mut variables = 0;
    for dataset in root.datasets().ok()? {
        let Some(variable) = header.variable(variable_name(&dataset)) else {
            // netCDF-C stores a dimension without a variable as a dataset, too.
            let name = dataset.attribute("NAME").ok().and_then(|name| name.read_string().ok());
            if name.is_some_and(|name| name.starts_with("This is a netCDF dimension")) {
                continue;
            }
            return Some(false);
        };
        variables += 1;
        let names = ["DIMENSION_LIST", "CLASS"];
        let has_dimensions = names.iter().any(|name| dataset.attribute(name).is_ok());
        if visible(&dataset.attributes()) != variable.attributes.len()
            || dataset.shape().len() != variable.dims.len()
            || !(has_dimensions || variable.dims.is_empty())
        {
            return Some(false);
        }
    }
    Some(variables == header.variables.len())
}
