//! What an HDF5 file holds besides the variables and attributes that are read: the links of its groups
//! are followed, and what is left out is named.
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

use super::{ReadError, some_of, text};

/// Groups that are nested deeper, or are more, are not followed.
const DEEPEST_GROUP: usize = 32;
const MOST_GROUPS: usize = 1 << 16;
/// The layout class of a virtual dataset ("HDF5 file format", IV.A.2.i).
const VIRTUAL: u8 = 3;
/// What an entry of a symbol table keeps: a link to a path.
const SOFT: u32 = 2;

/// What a file has that is no variable or attribute of its root group.
#[derive(Default)]
pub(super) struct UnreadableLinks {
    /// Paths of datasets in other groups, and of groups with attributes only.
    pub in_groups: Vec<String>,
    /// Groups without either.
    empty: usize,
    /// Links and types, in words.
    others: Vec<String>,
}

impl UnreadableLinks {
    /// Warns of all that a conversion leaves out or changes, once for files that have the same.
    pub(super) fn tell<'a>(
        &self,
        root: &Group,
        datasets: impl Iterator<Item = &'a Dataset>,
        url: &str,
    ) {
        static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        let mut all = self.others.clone();
        match self.empty {
            0 => {}
            1 => all.push("1 group without variables".to_owned()),
            empty => all.push(format!("{empty} groups without variables")),
        }
        all.sort_unstable();
        let mut lists = Vec::new();
        let mut look = |of: &str, attributes: Vec<hdf5_reader::Attribute>| {
            let of_arrays = attributes.iter().filter(|a| a.shape.len() > 1);
            let named = of_arrays.filter(|a| text::is_seen(&a.name));
            lists.extend(named.map(|a| format!("`{of}:{}` of shape {:?}", a.name, a.shape)));
        };
        look("", root.attributes().unwrap_or_default());
        datasets.for_each(|dataset| look(leaf(dataset.name()), dataset.attributes()));
        lists.sort_unstable();
        let left_out = (!all.is_empty()).then(|| format!("left out: {}", some_of(all)));
        let flat = "attributes that are written as lists, for NetCDF has no others: ";
        let lists = (!lists.is_empty()).then(|| format!("{flat}{}", some_of(lists)));
        let said: Vec<String> = left_out.into_iter().chain(lists).collect();
        let said = said.join("; ");
        let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.is_empty() && told.insert(said.clone()) {
            tracing::warn!("{url}, and others that have the same: {said}");
        }
    }
}

/// The datasets of the root group, and what else there is.
pub(super) fn walk(
    file: &Hdf5File,
    root: &Group,
    url: &str,
) -> Result<(Vec<Dataset>, UnreadableLinks), ReadError> {
    let broken = |e: Hdf5Error| ReadError::damaged(url, e.into());
    let mut found = UnreadableLinks::default();
    let mut seen = HashSet::from([root.address()]);
    let (groups, datasets) = members(file, root, "", url, &mut found)?;
    let below = |groups: Vec<Group>, path: &str, depth| {
        let named = move |group: Group| {
            let path = format!("{path}{}", leaf(group.name()));
            (group, path, depth)
        };
        groups.into_iter().map(named).collect::<Vec<_>>()
    };
    let beyond = |what: String, most: usize| ReadError::Beyond { url: url.to_owned(), what, most };
    let mut left = below(groups, "", 1);
    while let Some((group, path, depth)) = left.pop() {
        if !seen.insert(group.address()) {
            let what = "is another name of a group".to_owned();
            return Err(ReadError::Foreign { url: url.to_owned(), object: path, what });
        }
        if depth > DEEPEST_GROUP {
            return Err(beyond(format!("groups in each other, such as `{path}`"), DEEPEST_GROUP));
        }
        if seen.len() > MOST_GROUPS {
            return Err(beyond(format!("more than {MOST_GROUPS} groups"), MOST_GROUPS));
        }
        let (groups, datasets) = members(file, &group, &format!("{path}/"), url, &mut found)?;
        found.in_groups.extend(datasets.iter().map(|d| format!("{path}/{}", leaf(d.name()))));
        if datasets.is_empty() {
            match group.attributes().map_err(broken)?.is_empty() {
                true => found.empty += 1,
                false => found.in_groups.push(path.clone()),
            }
        }
        left.extend(below(groups, &format!("{path}/"), depth + 1));
    }
    found.in_groups.sort_unstable();
    Ok((datasets, found))
}

/// The groups and datasets in a group; what else its links name goes to `found`.
fn members(
    file: &Hdf5File,
    group: &Group,
    path: &str,
    url: &str,
    found: &mut UnreadableLinks,
) -> Result<(Vec<Group>, Vec<Dataset>), ReadError> {
    let broken = |e: Hdf5Error| ReadError::damaged(url, e.into());
    let links = links(file, group).map_err(broken)?;
    for (name, target) in &links {
        // The reader fails at such a dataset, whatever is asked of the group.
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
        found.others.push(match target {
            LinkTarget::Hard { .. } => format!("the type `{name}`"),
            LinkTarget::Soft { path } => {
                format!("the link `{name}` to `{path}`, where no variable is")
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

/// The last part of an object's path.
pub(super) fn leaf(name: &str) -> &str {
    let name = name.rsplit('/').next().unwrap_or(name);
    // netCDF-C's name for a variable that only shares its name with a dimension.
    name.strip_prefix("_nc4_non_coord_").unwrap_or(name)
}

type Links = Vec<(String, LinkTarget)>;

/// All links of a group: those that lead nowhere, too.
fn links(file: &Hdf5File, group: &Group) -> Result<Links, Hdf5Error> {
    let mut links = Vec::new();
    for message in &file.get_or_parse_header(group.address())?.messages {
        match message {
            HdfMessage::Link(link) => links.push((link.name.clone(), link.target.clone())),
            HdfMessage::LinkInfo(info)
                if !Cursor::is_undefined_offset(info.fractal_heap_address, group.offset_size()) =>
            {
                links.extend(dense(group, info)?);
            }
            HdfMessage::SymbolTable(table) => links.extend(of_table(group, table)?),
            _ => {}
        }
    }
    Ok(links)
}

/// Links that are kept outside of the group's header.
fn dense(group: &Group, info: &LinkInfoMessage) -> Result<Links, Hdf5Error> {
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

/// Links of a group in the form of the first version of the format.
fn of_table(group: &Group, table: &SymbolTableMessage) -> Result<Links, Hdf5Error> {
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
        // A signature, a version and the number of entries come first.
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
