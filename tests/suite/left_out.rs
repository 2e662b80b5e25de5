//! HDF5 content that a conversion leaves out or refuses: messages name it and do not call it damage.

use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::ptr;

use hdf5_metno_sys::h5i::hid_t;
use hdf5_metno_sys::{h5, h5a, h5d, h5f, h5g, h5l, h5p, h5s, h5t};
use netcdf::AttributeValue;
use netcdf::types::{FloatType, NcVariableType};

use super::support::case::{Workspace, set_age};
use super::support::dor::fails;
use super::support::netcdf::{Form, contents, copy, put_all};

const BAD_DATA: i32 = 65;
const DEFAULT: hid_t = h5p::H5P_DEFAULT;
const FLOAT: NcVariableType = NcVariableType::Float(FloatType::F32);

/// A string that ends in NUL.
fn c_string(text: &str) -> CString {
    CString::new(text).unwrap()
}

/// A workspace of two NetCDF-4 months, each changed through the HDF5 library.
fn with_hdf5_change(change: impl Fn(hid_t)) -> Workspace {
    let work = Workspace::new(2);
    for n in 0..2 {
        copy(&contents(&work.raw(n)), &work.raw(n), Form::Deflated(1), true, |_| {});
        // A process that another test starts may keep the lock that HDF5 took on a file, so each copy has
        // its own name.
        let other = work.path(&format!("other{n}.nc"));
        fs::copy(work.raw(n), &other).unwrap();
        edit_hdf5(&other, &change);
        fs::copy(&other, work.raw(n)).unwrap();
        set_age(&work.raw(n), 0);
    }
    work
}

/// Opens an HDF5 file and calls `change` with it.
fn edit_hdf5(path: &Path, change: impl Fn(hid_t)) {
    let path = c_string(path.to_str().unwrap());
    let _lock = hdf5_metno_sys::LOCK.lock();
    // SAFETY: the lock is held, the text ends in NUL, and the file is closed once.
    unsafe {
        h5::H5open();
        let file = h5f::H5Fopen(path.as_ptr(), h5f::H5F_ACC_RDWR, DEFAULT);
        assert!(file >= 0);
        change(file);
        assert!(h5f::H5Fclose(file) >= 0);
    }
}

/// Adds a link to another file.
fn add_external_link(file: hid_t, name: &str, to: &str) {
    let (name, to, object) = (c_string(name), c_string(to), c_string("/x"));
    // SAFETY: called by `edit_hdf5`; the texts end in NUL.
    let made = unsafe {
        let [name, to, object] = [&name, &to, &object].map(|text| text.as_ptr());
        h5l::H5Lcreate_external(to, object, file, name, DEFAULT, DEFAULT)
    };
    assert!(made >= 0);
}

/// Adds a soft link to a path of the same file.
fn add_soft_link(file: hid_t, name: &str, path: &str) {
    let (name, path) = (c_string(name), c_string(path));
    // SAFETY: called by `edit_hdf5`; the texts end in NUL.
    let made = unsafe { h5l::H5Lcreate_soft(path.as_ptr(), file, name.as_ptr(), DEFAULT, DEFAULT) };
    assert!(made >= 0);
}

/// Adds a named datatype that no dataset has.
fn add_named_type(file: hid_t, name: &str) {
    let name = c_string(name);
    // SAFETY: called by `edit_hdf5`; the text ends in NUL, and the type is closed once.
    unsafe {
        let kind = h5t::H5Tcopy(*h5t::H5T_NATIVE_INT);
        assert!(h5t::H5Tcommit2(file, name.as_ptr(), kind, DEFAULT, DEFAULT, DEFAULT) >= 0);
        assert!(h5t::H5Tclose(kind) >= 0);
    }
}

/// Adds an attribute of shape 2 x 3.
fn add_2d_attribute(file: hid_t, of: &str, name: &str) {
    let (of, name, values) = (c_string(of), c_string(name), [1, 2, 3, 4, 5, 6]);
    // SAFETY: called by `edit_hdf5`; the texts end in NUL, and there are as many values as the space has.
    unsafe {
        let space = h5s::H5Screate_simple(2, [2, 3].as_ptr(), ptr::null());
        let kind = *h5t::H5T_NATIVE_INT;
        let [of, name] = [&of, &name].map(|text| text.as_ptr());
        let made = h5a::H5Acreate_by_name(file, of, name, kind, space, DEFAULT, DEFAULT, DEFAULT);
        assert!(h5a::H5Awrite(made, kind, values.as_ptr().cast()) >= 0);
        assert!(h5a::H5Aclose(made) >= 0 && h5s::H5Sclose(space) >= 0);
    }
}

#[test]
fn links_types_and_attribute_shapes_that_are_left_out_are_named_once() {
    let work = with_hdf5_change(|file| {
        add_external_link(file, "elsewhere", "other_case.nc");
        add_soft_link(file, "nowhere", "/gone");
        add_named_type(file, "kind_t");
        add_2d_attribute(file, "DIC", "matrix");
        add_2d_attribute(file, "/", "all");
    });
    let output = work.process(&[]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    for words in [
        "the link `elsewhere` to another file, `other_case.nc`",
        "the link `nowhere` to `/gone`, which is no variable",
        "the type `kind_t`",
        "`DIC:matrix` of shape [2, 3]",
        "`:all` of shape [2, 3]",
    ] {
        assert_eq!(stderr.matches(words).count(), 1, "`{words}` in: {stderr}");
    }
    let out = contents(&work.path("out").join(super::support::case::output_key(0)));
    let found = out.variables["DIC"].attribute("matrix");
    assert_eq!(found, Some(&AttributeValue::Ints(vec![1, 2, 3, 4, 5, 6])));
}

#[test]
fn many_groups_are_counted_in_the_message() {
    let group = |file: hid_t, name: &str| {
        let name = c_string(name);
        // SAFETY: called by `edit_hdf5`; the text ends in NUL, and the group is closed once.
        unsafe {
            let made = h5g::H5Gcreate2(file, name.as_ptr(), DEFAULT, DEFAULT, DEFAULT);
            assert!(h5g::H5Gclose(made) >= 0);
        }
    };
    let work = with_hdf5_change(|file| (0..3_000).for_each(|n| group(file, &format!("g{n}"))));
    let output = work.process(&[]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stderr.matches("3000 groups without variables").count(), 1, "{stderr}");

    let work = Workspace::new(1);
    copy(&contents(&work.raw(0)), &work.raw(0), Form::Deflated(1), true, |file| {
        for n in 0..1_500 {
            let mut group = file.add_group(&format!("g{n}")).unwrap();
            group.add_dimension("x", 2).unwrap();
            let mut variable = group.add_variable_with_type("CHL", &["x"], &FLOAT).unwrap();
            put_all(&mut variable, &[1.0f32, 2.0], &[2]);
        }
    });
    let stderr = fails(&mut work.process(&[]), BAD_DATA);
    assert!(stderr.contains("in groups") && stderr.contains("more"), "{stderr}");
    assert!(!stderr.contains("damaged"), "{stderr}");
}

#[test]
fn types_and_names_that_netcdf_does_not_support_are_refused() {
    let dataset = |file: hid_t, kind: hid_t| {
        let name = c_string("X");
        // SAFETY: called by `edit_hdf5`; the text ends in NUL, and all is closed once.
        unsafe {
            let space = h5s::H5Screate_simple(1, [4].as_ptr(), ptr::null());
            let made = h5d::H5Dcreate2(file, name.as_ptr(), kind, space, DEFAULT, DEFAULT, DEFAULT);
            assert!(made >= 0 && h5d::H5Dclose(made) >= 0 && h5s::H5Sclose(space) >= 0);
        }
    };
    let long = |file: hid_t| dataset(file, *h5t::H5T_NATIVE_LDOUBLE);
    let reference = |file: hid_t| dataset(file, *h5t::H5T_STD_REF_OBJ);
    let slash = |file: hid_t| add_2d_attribute(file, "DIC", "a/b");
    let latin = |file: hid_t| {
        let (of, name) = (c_string("DIC"), CString::new(&b"caf\xe9"[..]).unwrap());
        // SAFETY: called by `edit_hdf5`; the texts end in NUL, and all is closed once.
        unsafe {
            let space = h5s::H5Screate(h5s::H5S_SCALAR);
            let kind = *h5t::H5T_NATIVE_INT;
            let [of, name] = [&of, &name].map(|text| text.as_ptr());
            let made =
                h5a::H5Acreate_by_name(file, of, name, kind, space, DEFAULT, DEFAULT, DEFAULT);
            assert!(h5a::H5Awrite(made, kind, [1].as_ptr().cast()) >= 0);
            assert!(h5a::H5Aclose(made) >= 0 && h5s::H5Sclose(space) >= 0);
        }
    };
    let changes: [(&dyn Fn(hid_t), &str); 4] = [
        (&long, "`X` has a type that POP history does not use (long double"),
        (&reference, "`X` has a type that POP history does not use (a reference to an object)"),
        (&slash, "has the name \"a/b\", which NetCDF does not allow"),
        (&latin, "has a name or a text that is not UTF-8"),
    ];
    for (change, words) in changes {
        let stderr = fails(&mut with_hdf5_change(change).process(&[]), BAD_DATA);
        assert!(stderr.contains(words) && !stderr.contains("damaged"), "{stderr}");
    }
}

#[test]
fn a_virtual_dataset_is_refused_and_named() {
    let work = with_hdf5_change(|file| {
        let (name, from, of) = (c_string("VDS"), c_string("parts.nc"), c_string("/x"));
        // SAFETY: called by `edit_hdf5`; the texts end in NUL, and all is closed once.
        unsafe {
            let space = h5s::H5Screate_simple(1, [4].as_ptr(), ptr::null());
            let list = h5p::H5Pcreate(*h5p::H5P_CLS_DATASET_CREATE);
            assert!(h5p::H5Pset_virtual(list, space, from.as_ptr(), of.as_ptr(), space) >= 0);
            let kind = *h5t::H5T_NATIVE_INT;
            let made = h5d::H5Dcreate2(file, name.as_ptr(), kind, space, DEFAULT, list, DEFAULT);
            assert!(made >= 0 && h5d::H5Dclose(made) >= 0);
            assert!(h5p::H5Pclose(list) >= 0 && h5s::H5Sclose(space) >= 0);
        }
    });
    for more in [&["--dry-run"][..], &[]] {
        let stderr = fails(&mut work.process(more), BAD_DATA);
        assert!(stderr.contains("`VDS` is a virtual dataset"), "{stderr}");
        assert!(!stderr.contains("damaged"), "{stderr}");
    }
}

#[test]
fn an_hdf5_file_with_a_user_block_is_converted() {
    let work = Workspace::new(1);
    work.convert();
    let classic = contents(&work.path("out").join(super::support::case::output_key(0)));
    for block in [512, 4096] {
        copy(&contents(&work.raw(0)), &work.raw(0), Form::Deflated(1), true, |_| {});
        let bytes = fs::read(work.raw(0)).unwrap();
        fs::write(work.raw(0), [vec![b' '; block], bytes].concat()).unwrap();
        set_age(&work.raw(0), 0);
        work.process(&["--force"]).assert().success();
        let found = contents(&work.path("out").join(super::support::case::output_key(0)));
        assert_eq!(found.variables["DIC"], classic.variables["DIC"]);
        fs::write(work.raw(0), &fs::read(work.raw(0)).unwrap()[block..]).unwrap();
    }
}
