//! Headers with a wrong byte: what netCDF-C does not open is refused here too, and what contradicts
//! itself, which netCDF-C opens.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;

use bytes::Bytes;
use dor_atlas::read::{ByteSource, SourceError};
use dor_atlas::research::validate;

use super::support::case::{Workspace, case};
use super::support::dor::fails;
use super::support::netcdf::{Contents, Form, contents, copy};
use super::vis::support::{runs, vis, workspace};

/// Exit code for bad data.
const BAD_DATA: i32 = 65;
/// A map store of one variable that needs all of a raw file.
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
        // A sample of the places: all of them take a minute.
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

/// The header of a classic file, and where the numbers are that a test changes.
struct Raw {
    bytes: Vec<u8>,
    at: usize,
    /// Bytes of a count and of an offset.
    sizes: (usize, usize),
    /// Place of the length, and number, of each dimension.
    dims: HashMap<String, (usize, u64)>,
    variables: HashMap<String, Places>,
}

/// Of a variable.
struct Places {
    dims: Vec<usize>,
    kind: usize,
    vsize: usize,
}

impl Raw {
    fn of(bytes: Vec<u8>) -> Self {
        let sizes = match bytes[3] {
            1 => (4, 4),
            2 => (4, 8),
            _ => (8, 8),
        };
        let (dims, variables) = Default::default();
        let mut this = Self { bytes, at: 4, sizes, dims, variables };
        this.count();
        for id in 0..this.list() {
            let name = this.name();
            this.dims.insert(name, (this.at, id));
            this.count();
        }
        this.attributes();
        for _ in 0..this.list() {
            let name = this.name();
            let dims = (0..this.count()).map(|_| this.passed(sizes.0)).collect();
            this.attributes();
            let places = Places { dims, kind: this.passed(4), vsize: this.passed(sizes.0) };
            this.passed(sizes.1);
            this.variables.insert(name, places);
        }
        this
    }

    /// Where the next bytes are.
    fn passed(&mut self, len: usize) -> usize {
        self.at += len;
        self.at - len
    }

    fn number(&mut self, len: usize) -> u64 {
        let at = self.passed(len);
        self.bytes[at..at + len].iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
    }

    fn count(&mut self) -> u64 {
        self.number(self.sizes.0)
    }

    fn list(&mut self) -> u64 {
        self.passed(4);
        self.count()
    }

    fn name(&mut self) -> String {
        let len = self.count() as usize;
        let at = self.passed(len.next_multiple_of(4));
        String::from_utf8(self.bytes[at..at + len].to_vec()).unwrap()
    }

    fn attributes(&mut self) {
        for _ in 0..self.list() {
            self.name();
            let size = [1, 1, 2, 4, 4, 8][self.number(4) as usize - 1];
            let len = self.count() as usize * size;
            self.passed(len.next_multiple_of(4));
        }
    }

    /// The bytes with another number in one place.
    fn with(&self, at: usize, len: usize, number: u64) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[at..at + len].copy_from_slice(&number.to_be_bytes()[8 - len..]);
        bytes
    }

    fn dim(&self, name: &str, len: u64) -> Vec<u8> {
        self.with(self.dims[name].0, self.sizes.0, len)
    }

    fn dim_of(&self, variable: &str, place: usize, dim: &str) -> Vec<u8> {
        self.with(self.variables[variable].dims[place], self.sizes.0, self.dims[dim].1)
    }

    fn kind(&self, variable: &str, kind: u64) -> Vec<u8> {
        self.with(self.variables[variable].kind, 4, kind)
    }

    fn vsize(&self, variable: &str, vsize: u64) -> Vec<u8> {
        self.with(self.variables[variable].vsize, self.sizes.0, vsize)
    }
}

#[test]
fn a_shape_or_type_that_contradicts_size_and_place_is_refused_by_every_command() {
    let work = workspace(1);
    runs(work.folder(), TEMPLATE);
    let original = contents(&work.raw(0));
    for form in [Form::Cdf1, Form::Cdf2, Form::Cdf5] {
        copy(&original, &work.raw(0), form, true, |_| {});
        let raw = Raw::of(fs::read(work.raw(0)).unwrap());
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
            // The last of the file, of its records, and of what has none.
            (raw.dim_of("ALK_FLUX", 2, "nlat"), "ALK_FLUX"),
            (raw.kind("nsurface_u", 5), "nsurface_u"),
        ] {
            fs::write(work.raw(0), bytes).unwrap();
            let words = [&format!("damaged: `{variable}` has"), "by its dimensions and type"];
            for said in [
                fails(&mut work.process(&[]), BAD_DATA),
                fails(&mut work.process(&["--dry-run"]), BAD_DATA),
                fails(&mut vis(work.folder(), POPULATE), BAD_DATA),
            ] {
                let has_all = words.iter().all(|word| said.contains(*word));
                assert!(has_all, "{form:?}, {variable}: {said}");
            }
        }
        assert!(!work.output(0).exists());
    }
}

#[test]
fn a_size_that_alone_is_wrong_is_no_damage() {
    let work = workspace(1);
    for form in [Form::Cdf1, Form::Cdf2, Form::Cdf5] {
        copy(&contents(&work.raw(0)), &work.raw(0), form, true, |_| {});
        let raw = Raw::of(fs::read(work.raw(0)).unwrap());
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
fn fields_that_do_not_lie_on_the_grid_of_their_file_are_refused() {
    let work = workspace(1);
    runs(work.folder(), TEMPLATE);
    let original = contents(&work.raw(0));
    // Of dimensions that the file has, in another place: a whole file without contradiction.
    let on = |name: &str, place: usize, dim: (&str, usize)| {
        let mut changed: Contents = original.clone();
        let variable = changed.variables.get_mut(name).unwrap();
        let values = variable.bytes.len() / variable.dims[place].1 * dim.1;
        variable.bytes.resize(values, 0);
        variable.dims[place] = (dim.0.to_owned(), dim.1);
        changed
    };
    for (changed, words) in [
        (
            on("FG_CO2", 2, ("nlat", 8)),
            ["`FG_CO2` is on", "its coordinate `TLONG` on (nlat = 8, nlon = 9)"],
        ),
        (
            on("DIC", 1, ("d2", 2)),
            ["`DIC` is on (time = 1, d2 = 2", "its counterpart `DIC_ALT_CO2`"],
        ),
    ] {
        for form in [Form::Cdf2, Form::Deflated(1)] {
            copy(&changed, &work.raw(0), form, true, |_| {});
            for said in [
                fails(&mut work.process(&[]), BAD_DATA),
                fails(&mut work.process(&["--dry-run"]), BAD_DATA),
                fails(&mut vis(work.folder(), POPULATE), BAD_DATA),
            ] {
                assert!(words.iter().all(|word| said.contains(word)), "{form:?}: {said}");
            }
        }
    }
    // An integer takes as many bytes as a float: the header has no contradiction.
    copy(&original, &work.raw(0), Form::Cdf2, true, |_| {});
    let raw = Raw::of(fs::read(work.raw(0)).unwrap());
    fs::write(work.raw(0), raw.kind("dz", 4)).unwrap();
    for mut command in [work.process(&[]), vis(work.folder(), POPULATE)] {
        let said = fails(&mut command, BAD_DATA);
        assert!(said.contains("`dz` has a type that POP history does not use (i4)"), "{said}");
    }
}
