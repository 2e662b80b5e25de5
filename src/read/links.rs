//! Walks the groups and links of an HDF5 file and collects what a conversion drops.
//!
//! Specification: "HDF5 file format", version 3.0, III.A to III.G (groups) and IV.A.2.c, g (links).

use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};

use hdf5_reader::error::Error as Hdf5Error;
use hdf5_reader::fractal_heap::FractalHeap;
use hdf5_reader::group::Group;
use hdf5_reader::io::Cursor;
use hdf5_reader::local_heap::LocalHeap;
use hdf5_reader::messages::HdfMessage;
use hdf5_reader::messages::link::{self, LinkTarget};
use hdf5_reader::messages::link_info::LinkInfoMessage;
use hdf5_reader::messages::symbol_table_msg::SymbolTableMessage;
use hdf5_reader::symbol_table::SymbolTableNode;
use hdf5_reader::{Dataset, Hdf5File, btree_v1, btree_v2};

use super::types::leaf;
use super::{ReadError, abbreviated, text};

/// Largest depth of nested groups.
const DEEPEST_GROUP: usize = 32;
/// Largest number of groups.
const MOST_GROUPS: usize = 1 << 16;
/// The layout class of a virtual dataset ("HDF5 file format", IV.A.2.i).
const VIRTUAL: u8 = 3;
/// The cache type of a symbol table entry that is a soft link ("HDF5 file format", III.C).
const SOFT: u32 = 2;

/// Objects of a file that are not variables or attributes of its root group.
#[derive(Default)]
pub(super) struct UnreadableLinks {
    /// Paths of datasets in other groups, and of groups with attributes only.
    pub in_groups: Vec<String>,
    /// Number of groups without datasets and attributes.
    empty_groups: usize,
    /// Named types, and links without a readable target, in words.
    dropped: Vec<String>,
}

impl UnreadableLinks {
    /// Warns of all that a conversion drops or changes; one warning for files with equal lists.
    pub(super) fn warn<'a>(
        &self,
        root: &Group,
        datasets: impl Iterator<Item = &'a Dataset>,
        url: &str,
    ) {
        static WARNED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        let mut dropped = self.dropped.clone();
        match self.empty_groups {
            0 => {}
            1 => dropped.push("1 group without variables".to_owned()),
            groups => dropped.push(format!("{groups} groups without variables")),
        }
        dropped.sort_unstable();
        let mut flattened = Vec::new();
        let mut collect_arrays = |of: &str, attributes: Vec<hdf5_reader::Attribute>| {
            let arrays = attributes.iter().filter(|a| a.shape.len() > 1);
            let visible = arrays.filter(|a| text::is_visible(&a.name));
            flattened.extend(visible.map(|a| format!("`{of}:{}` of shape {:?}", a.name, a.shape)));
        };
        collect_arrays("", root.attributes().unwrap_or_default());
        datasets.for_each(|dataset| collect_arrays(leaf(dataset.name()), dataset.attributes()));
        flattened.sort_unstable();
        let dropped = (!dropped.is_empty()).then(|| format!("left out: {}", abbreviated(dropped)));
        let prefix = "attributes that are written as lists, because NetCDF has no \
                      multidimensional attributes: ";
        let flattened =
            (!flattened.is_empty()).then(|| format!("{prefix}{}", abbreviated(flattened)));
        let losses: Vec<String> = dropped.into_iter().chain(flattened).collect();
        let losses = losses.join("; ");
        let mut warned = WARNED.lock().unwrap_or_else(PoisonError::into_inner);
        if !losses.is_empty() && warned.insert(losses.clone()) {
            tracing::warn!("{url}, and other files with the same content: {losses}");
        }
    }
}

/// The datasets of the root group, and all other objects of the file.
///
/// # Errors
/// A group is reached twice, groups are too many or too deep, or the file is damaged.
pub(super) fn walk(
    file: &Hdf5File,
    root: &Group,
    url: &str,
) -> Result<(Vec<Dataset>, UnreadableLinks), ReadError> {
    let broken = |e: Hdf5Error| ReadError::damaged(url, e.into());
    let mut unreadable = UnreadableLinks::default();
    let mut visited = HashSet::from([root.address()]);
    let (groups, datasets) = members(file, root, "", url, &mut unreadable)?;
    let with_paths = |groups: Vec<Group>, parent: &str, depth| {
        let with_path = move |group: Group| {
            let path = format!("{parent}{}", leaf(group.name()));
            (group, path, depth)
        };
        groups.into_iter().map(with_path).collect::<Vec<_>>()
    };
    let beyond = |what: String, most: usize| ReadError::Beyond { url: url.to_owned(), what, most };
    let mut queue = with_paths(groups, "", 1);
    while let Some((group, path, depth)) = queue.pop() {
        if !visited.insert(group.address()) {
            let what = "is another name of a group".to_owned();
            return Err(ReadError::Foreign { url: url.to_owned(), object: path, what });
        }
        if depth > DEEPEST_GROUP {
            let what = format!("more than {DEEPEST_GROUP} levels of nested groups, as in `{path}`");
            return Err(beyond(what, DEEPEST_GROUP));
        }
        if visited.len() > MOST_GROUPS {
            return Err(beyond(format!("more than {MOST_GROUPS} groups"), MOST_GROUPS));
        }
        let (groups, datasets) = members(file, &group, &format!("{path}/"), url, &mut unreadable)?;
        let paths = datasets.iter().map(|d| format!("{path}/{}", leaf(d.name())));
        unreadable.in_groups.extend(paths);
        if datasets.is_empty() {
            match group.attributes().map_err(broken)?.is_empty() {
                true => unreadable.empty_groups += 1,
                false => unreadable.in_groups.push(path.clone()),
            }
        }
        queue.extend(with_paths(groups, &format!("{path}/"), depth + 1));
    }
    unreadable.in_groups.sort_unstable();
    Ok((datasets, unreadable))
}

/// The groups and datasets in a group; adds its other links to `unreadable`.
fn members(
    file: &Hdf5File,
    group: &Group,
    path: &str,
    url: &str,
    unreadable: &mut UnreadableLinks,
) -> Result<(Vec<Group>, Vec<Dataset>), ReadError> {
    let broken = |e: Hdf5Error| ReadError::damaged(url, e.into());
    let links = links(file, group).map_err(broken)?;
    for (name, target) in &links {
        // With a virtual dataset in the group, every call of the library on the group fails.
        if let LinkTarget::Hard { address } = target
            && file.get_or_parse_header(*address).is_err_and(|error| is_virtual(&error))
        {
            let object = format!("{path}{}", leaf(name));
            return Err(ReadError::Virtual { url: url.to_owned(), object });
        }
    }
    let (groups, datasets) = group.members().map_err(broken)?;
    let names: HashSet<&str> =
        groups.iter().map(Group::name).chain(datasets.iter().map(Dataset::name)).collect();
    for (name, target) in links.iter().filter(|(name, _)| !names.contains(name.as_str())) {
        let name = format!("{path}{}", leaf(name));
        unreadable.dropped.push(match target {
            LinkTarget::Hard { .. } => format!("the type `{name}`"),
            LinkTarget::Soft { path } => {
                format!("the link `{name}` to `{path}`, which is no variable")
            }
            LinkTarget::External { filename, .. } => {
                format!("the link `{name}` to another file, `{filename}`")
            }
        });
    }
    Ok((groups, datasets))
}

fn is_virtual(error: &Hdf5Error) -> bool {
    match error {
        Hdf5Error::UnsupportedLayoutClass(class) => *class == VIRTUAL,
        Hdf5Error::Context { source, .. } => is_virtual(source),
        _ => false,
    }
}

type Links = Vec<(String, LinkTarget)>;

/// All links of a group, including links without a target.
fn links(file: &Hdf5File, group: &Group) -> Result<Links, Hdf5Error> {
    let mut links = Vec::new();
    for message in &file.get_or_parse_header(group.address())?.messages {
        match message {
            HdfMessage::Link(link) => links.push((link.name.clone(), link.target.clone())),
            HdfMessage::LinkInfo(info)
                if !Cursor::is_undefined_offset(info.fractal_heap_address, group.offset_size()) =>
            {
                links.extend(dense_links(group, info)?);
            }
            HdfMessage::SymbolTable(table) => links.extend(symbol_table_links(group, table)?),
            _ => {}
        }
    }
    Ok(links)
}

/// The links in dense storage, outside the header of the group.
fn dense_links(group: &Group, info: &LinkInfoMessage) -> Result<Links, Hdf5Error> {
    let (storage, offsets, lengths) = (group.storage(), group.offset_size(), group.length_size());
    let heap = FractalHeap::parse_at_storage(storage, info.fractal_heap_address, offsets, lengths)?;
    let index = info.btree_name_index_address;
    let tree = btree_v2::BTreeV2Header::parse_at_storage(storage, index, offsets, lengths)?;
    let records = btree_v2::collect_btree_v2_records_storage(
        storage,
        &tree,
        offsets,
        lengths,
        None,
        &[],
        None,
    )?;
    let mut blocks = Default::default();
    let mut links = Vec::new();
    for record in &records {
        let btree_v2::BTreeV2Record::LinkNameHash { heap_id, .. } = record else { continue };
        let bytes =
            heap.get_object_storage_cached(heap_id, storage, offsets, lengths, &mut blocks)?;
        let link = link::parse(&mut Cursor::new(&bytes), offsets, lengths, bytes.len())?;
        links.push((link.name, link.target));
    }
    Ok(links)
}

/// The links of a group in the first version of the format.
fn symbol_table_links(group: &Group, table: &SymbolTableMessage) -> Result<Links, Hdf5Error> {
    let (storage, offsets, lengths) = (group.storage(), group.offset_size(), group.length_size());
    let heap = LocalHeap::parse_at_storage(storage, table.heap_address, offsets, lengths)?;
    let leaves = btree_v1::collect_btree_v1_leaves_storage(
        storage,
        table.btree_address,
        offsets,
        lengths,
        None,
        &[],
        None,
    )?;
    let mut links = Vec::new();
    for (_, at) in leaves {
        // A node begins with a signature, a version and the number of entries.
        let head = storage.read_range(at, 8)?;
        let count = head.get(6..).and_then(|bytes| bytes.first_chunk()).copied();
        let count = usize::from(u16::from_le_bytes(count.unwrap_or_default()));
        let bytes = storage.read_range(at, 8 + count * (2 * usize::from(offsets) + 24))?;
        let node = SymbolTableNode::parse(&mut Cursor::new(&bytes), offsets, lengths)?;
        for entry in node.entries {
            let name = heap.get_string_storage(entry.link_name_offset, storage)?;
            let target = if entry.cache_type == SOFT {
                let at = entry.scratch.first_chunk().copied().unwrap_or_default();
                let at = u64::from(u32::from_le_bytes(at));
                LinkTarget::Soft { path: heap.get_string_storage(at, storage)? }
            } else {
                LinkTarget::Hard { address: entry.object_header_address }
            };
            links.push((name, target));
        }
    }
    Ok(links)
}
