//! Headers with a wrong byte: what netCDF-C does not open is refused here too.

use std::fs;
use std::ops::Range;

use bytes::Bytes;
use dor_atlas::read::{Source, SourceError};
use dor_atlas::research::check;

use super::support::case::{Workspace, case};
use super::support::netcdf::{Form, contents, copy};

/// A file in memory.
struct Memory(Bytes);

impl Source for Memory {
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
                if check::check(Box::new(source), of, None, false).is_err() {
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
