//! Classic NetCDF headers with wrong bytes. Headers that netCDF-C refuses are refused, and so are
//! headers that contradict themselves, although netCDF-C opens them.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;

use bytes::Bytes;
use dor_atlas::read::{ByteSource, SourceError};
use dor_atlas::research::validate;

use super::support::case::{Workspace, case};
use super::support::dor::fails;
use super::support::netcdf::{Contents, Form, contents, copy};
use super::vis::support::{run_vis, vis_command, workspace};

const BAD_DATA: i32 = 65;
/// A map store with the variables DIC and FG.
const TEMPLATE: &str = "create-template-store2 -o s2 -l 1 --variables DIC FG";
const POPULATE: &str = "populate-store2 -o s2 -p 112 -m 4 --data-dir archive --allow-missing \
                        --ssh ssh.nc --grid grid.nc";

/// A file in memory.
struct Memory(Bytes);

impl ByteSource for Memory {
    fn url(&self) -> &str {
        "memory"
    }

    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        let whole = std::mem::take(&mut self.0);
        Ok((!whole.is_empty()).then_some(whole))
    }

    fn range(&mut self, range: Range<u64>) -> Result<Bytes, SourceError> {
        Ok(self.0.slice(range.start as usize..range.end as usize))
    }
}

#[test]
fn a_header_that_netcdf_c_refuses_is_refused() {
    let (mut checked, mut refused) = (0, 0);
    for form in [Form::Cdf1, Form::Cdf2, Form::Cdf5] {
        let work = Workspace::new(1);
        copy(&contents(&work.raw(0)), &work.raw(0), form, true, |_| {});
        let (bytes, other) = (fs::read(work.raw(0)).unwrap(), work.path("other.nc"));
        // A sample of the offsets: all of them take a minute.
        for at in (3..8_000).step_by(17) {
            for bits in [0x01, 0x80, 0xFF] {
                let mut changed = bytes.clone();
                changed[at] ^= bits;
                checked += 1;
                let source = Memory(changed.clone().into());
                let of = (case(), case().first_month());
                if validate::check(Box::new(source), of, None, false).is_err() {
                    refused += 1;
                    continue;
                }
                fs::write(&other, &changed).unwrap();
                let opened = netcdf::open(&other);
                assert!(opened.is_ok(), "{form:?}, byte {at} ^ {bits:#x}: {:?}", opened.err());
            }
        }
    }
    assert!(refused > checked / 50, "{refused} of {checked}");
}

/// A classic file and the offsets of the numbers in its header that tests change.
struct ClassicFile {
    bytes: Vec<u8>,
    /// Offset of the next byte to parse.
    at: usize,
    /// Bytes of a count and of a data offset.
    sizes: (usize, usize),
    /// Offset of the length, and index, of each dimension.
    dims: HashMap<String, (usize, u64)>,
    variables: HashMap<String, VariableOffsets>,
}

/// Offsets of the dimension indices, type and `vsize` of a variable in the header.
struct VariableOffsets {
    dims: Vec<usize>,
    kind: usize,
    vsize: usize,
}

impl ClassicFile {
    fn parse(bytes: Vec<u8>) -> Self {
        let sizes = match bytes[3] {
            1 => (4, 4),
            2 => (4, 8),
            _ => (8, 8),
        };
        let (dims, variables) = Default::default();
        let mut this = Self { bytes, at: 4, sizes, dims, variables };
        this.read_count();
        for id in 0..this.read_list_length() {
            let name = this.read_name();
            this.dims.insert(name, (this.at, id));
            this.read_count();
        }
        this.skip_attributes();
        for _ in 0..this.read_list_length() {
            let name = this.read_name();
            let dims = (0..this.read_count()).map(|_| this.skip(sizes.0)).collect();
            this.skip_attributes();
            let offsets = VariableOffsets { dims, kind: this.skip(4), vsize: this.skip(sizes.0) };
            this.skip(sizes.1);
            this.variables.insert(name, offsets);
        }
        this
    }

    /// Skips `len` bytes; returns the offset of the first.
    fn skip(&mut self, len: usize) -> usize {
        self.at += len;
        self.at - len
    }

    fn read_number(&mut self, len: usize) -> u64 {
        let at = self.skip(len);
        self.bytes[at..at + len].iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
    }

    fn read_count(&mut self) -> u64 {
        self.read_number(self.sizes.0)
    }

    fn read_list_length(&mut self) -> u64 {
        self.skip(4);
        self.read_count()
    }

    fn read_name(&mut self) -> String {
        let len = self.read_count() as usize;
        let at = self.skip(len.next_multiple_of(4));
        String::from_utf8(self.bytes[at..at + len].to_vec()).unwrap()
    }

    fn skip_attributes(&mut self) {
        for _ in 0..self.read_list_length() {
            self.read_name();
            let size = [1, 1, 2, 4, 4, 8][self.read_number(4) as usize - 1];
            let len = self.read_count() as usize * size;
            self.skip(len.next_multiple_of(4));
        }
    }

    /// The bytes with another number at one offset.
    fn with(&self, at: usize, len: usize, number: u64) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[at..at + len].copy_from_slice(&number.to_be_bytes()[8 - len..]);
        bytes
    }

    /// The bytes with another length of a dimension.
    fn dim(&self, name: &str, len: u64) -> Vec<u8> {
        self.with(self.dims[name].0, self.sizes.0, len)
    }

    /// The bytes with another dimension of a variable, at `index` of its dimensions.
    fn dim_of(&self, variable: &str, index: usize, dim: &str) -> Vec<u8> {
        self.with(self.variables[variable].dims[index], self.sizes.0, self.dims[dim].1)
    }

    /// The bytes with another type of a variable.
    fn kind(&self, variable: &str, kind: u64) -> Vec<u8> {
        self.with(self.variables[variable].kind, 4, kind)
    }

    /// The bytes with another `vsize` of a variable.
    fn vsize(&self, variable: &str, vsize: u64) -> Vec<u8> {
        self.with(self.variables[variable].vsize, self.sizes.0, vsize)
    }
}

#[test]
fn a_shape_or_type_that_contradicts_size_and_offset_is_refused_by_every_command() {
    let work = workspace(1);
    run_vis(work.folder(), TEMPLATE);
    let original = contents(&work.raw(0));
    for form in [Form::Cdf1, Form::Cdf2, Form::Cdf5] {
        copy(&original, &work.raw(0), form, true, |_| {});
        let raw = ClassicFile::parse(fs::read(work.raw(0)).unwrap());
        for (bytes, variable) in [
            (raw.dim("z_t", 2), "z_t"),
            (raw.dim("nlon", 8), "ULONG"),
            (raw.kind("dz", 3), "dz"),
            (raw.kind("TAREA", 4), "TAREA"),
            (raw.kind("time_bound", 5), "time_bound"),
            (raw.dim_of("dz", 0, "d2"), "dz"),
            (raw.dim_of("DIC_ALT_CO2", 1, "d2"), "DIC_ALT_CO2"),
            (raw.dim_of("ALK", 1, "d2"), "ALK"),
            (raw.dim_of("FG_CO2", 2, "nlat"), "FG_CO2"),
            // The last record variable and the last variable without records.
            (raw.dim_of("ALK_FLUX", 2, "nlat"), "ALK_FLUX"),
            (raw.kind("nsurface_u", 5), "nsurface_u"),
        ] {
            fs::write(work.raw(0), bytes).unwrap();
            let words = [&format!("damaged: `{variable}` has"), "by its dimensions and type"];
            for error in [
                fails(&mut work.process(&[]), BAD_DATA),
                fails(&mut work.process(&["--dry-run"]), BAD_DATA),
                fails(&mut vis_command(work.folder(), POPULATE), BAD_DATA),
            ] {
                let has_all = words.iter().all(|word| error.contains(*word));
                assert!(has_all, "{form:?}, {variable}: {error}");
            }
        }
        assert!(!work.output(0).exists());
    }
}

#[test]
fn a_wrong_vsize_alone_is_accepted() {
    let work = workspace(1);
    for form in [Form::Cdf1, Form::Cdf2, Form::Cdf5] {
        copy(&contents(&work.raw(0)), &work.raw(0), form, true, |_| {});
        let raw = ClassicFile::parse(fs::read(work.raw(0)).unwrap());
        for variable in ["DIC", "dz", "nsurface_u", "ALK_FLUX"] {
            for vsize in [0, 4, 868, u64::from(u32::MAX)] {
                let source = Memory(raw.vsize(variable, vsize).into());
                let of = (case(), case().first_month());
                validate::check(Box::new(source), of, None, false).unwrap();
            }
        }
    }
}

#[test]
fn fields_on_other_dimensions_than_their_coordinates_are_refused() {
    let work = workspace(1);
    run_vis(work.folder(), TEMPLATE);
    let original = contents(&work.raw(0));
    // A consistent file in which one dimension of a variable is replaced by another one of the file.
    let with_dimension = |name: &str, index: usize, dim: (&str, usize)| {
        let mut changed: Contents = original.clone();
        let variable = changed.variables.get_mut(name).unwrap();
        let values = variable.bytes.len() / variable.dims[index].1 * dim.1;
        variable.bytes.resize(values, 0);
        variable.dims[index] = (dim.0.to_owned(), dim.1);
        changed
    };
    for (changed, words) in [
        (
            with_dimension("FG_CO2", 2, ("nlat", 8)),
            ["`FG_CO2` is on", "its coordinate `TLONG` on (nlat = 8, nlon = 9)"],
        ),
        (
            with_dimension("DIC", 1, ("d2", 2)),
            ["`DIC` is on (time = 1, d2 = 2", "its counterpart `DIC_ALT_CO2`"],
        ),
    ] {
        for form in [Form::Cdf2, Form::Deflated(1)] {
            copy(&changed, &work.raw(0), form, true, |_| {});
            for error in [
                fails(&mut work.process(&[]), BAD_DATA),
                fails(&mut work.process(&["--dry-run"]), BAD_DATA),
                fails(&mut vis_command(work.folder(), POPULATE), BAD_DATA),
            ] {
                assert!(words.iter().all(|word| error.contains(word)), "{form:?}: {error}");
            }
        }
    }
    // An integer has as many bytes as a float, so the header is consistent.
    copy(&original, &work.raw(0), Form::Cdf2, true, |_| {});
    let raw = ClassicFile::parse(fs::read(work.raw(0)).unwrap());
    fs::write(work.raw(0), raw.kind("dz", 4)).unwrap();
    for mut command in [work.process(&[]), vis_command(work.folder(), POPULATE)] {
        let error = fails(&mut command, BAD_DATA);
        assert!(error.contains("`dz` has a type that POP history does not use (i4)"), "{error}");
    }
}
