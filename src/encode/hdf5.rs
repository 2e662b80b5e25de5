//! An HDF5 file in memory whose chunks are put in place as they are, already compressed.
//!
//! netCDF-C defines the file; this module opens that definition again through the HDF5 library's
//! `core` driver and places the chunks with `H5Dwrite_chunk`, which passes by the filter pipeline
//! (one core, under the library's lock) and makes nothing but a copy. The chunk's place in the
//! file is final at once, so the parts of the file that hold only chunks can be sent while the
//! rest is still computed. Specification: "HDF5 file format", version 3.0; read by netCDF-C,
//! h5py and everything else that reads HDF5 1.8 and later.

use std::ffi::{CString, c_void};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use hdf5_metno_sys::{h5, h5a, h5d, h5e, h5f, h5i, h5p, h5s, h5t};

/// The file could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// netCDF-C refused a definition or a value.
    #[error("netCDF-C cannot define `{object}`")]
    Define {
        /// Variable, dimension or attribute.
        object: String,
        /// What netCDF-C says.
        source: netcdf::Error,
    },
    /// The HDF5 library refused a call.
    #[error("the HDF5 library failed in {call} for `{object}`")]
    Hdf5 {
        /// Function of the library.
        call: &'static str,
        /// Variable or file.
        object: String,
    },
    /// The definition could not be kept in memory.
    #[error(
        "cannot keep the file's definition in {place}: {source}; make room there, raise the limit of file sizes (ulimit -f), or set TMPDIR to a folder that can be written"
    )]
    Scratch {
        /// Where it was tried.
        place: String,
        /// Cause.
        source: std::io::Error,
    },
    /// Data of another length than the variable's shape.
    #[error("`{variable}` has {found} bytes of data where its shape needs {expected}")]
    Length {
        /// Variable.
        variable: String,
        /// Bytes that came.
        found: usize,
        /// Bytes that the shape needs.
        expected: usize,
    },
}

fn check<T: PartialOrd + Default>(
    status: T,
    call: &'static str,
    object: &str,
) -> Result<T, EncodeError> {
    if status < T::default() {
        return Err(EncodeError::Hdf5 { call, object: object.to_owned() });
    }
    Ok(status)
}

/// An HDF5 identifier that is closed by `close` when dropped; used under the library's lock only.
struct Hdf5Id(h5i::hid_t, unsafe extern "C" fn(h5i::hid_t) -> h5::herr_t);

impl Drop for Hdf5Id {
    fn drop(&mut self) {
        let _lock = hdf5_metno_sys::LOCK.lock();
        // SAFETY: the identifier came from the library, is closed once, and the lock is held.
        unsafe { (self.1)(self.0) };
    }
}

/// A file under construction.
pub struct InMemoryHdf5 {
    file: Hdf5Id,
    access: Hdf5Id,
}

/// Keeps the library from tidying up when the process ends: files that could not be written are
/// damaged in its memory, and it would fail on them. Nothing of ours is left for it to do.
pub fn leave_at_exit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _lock = hdf5_metno_sys::LOCK.lock();
        // SAFETY: the lock is held, and the call takes nothing.
        unsafe { h5::H5dont_atexit() };
    });
}

/// Why nothing more can be written to the scratch file, if that is so.
pub(super) fn no_room(scratch: &File) -> Option<EncodeError> {
    let room = [0; 64 << 10];
    let written = scratch.metadata().and_then(|found| scratch.write_all_at(&room, found.len()));
    let source = written.err()?;
    Some(EncodeError::Scratch { place: "memory (/dev/shm) or TMPDIR".to_owned(), source })
}

impl InMemoryHdf5 {
    /// Opens a defined file in memory.
    ///
    /// `growth` is the step in bytes by which the memory grows, `metadata` the bytes that the
    /// chunk indexes will need: reserved in one block ahead of the chunks, so that chunks follow
    /// one another without metadata between them.
    pub fn open(definition: &mut [u8], growth: usize, metadata: u64) -> Result<Self, EncodeError> {
        let file = "file in memory";
        // The library takes files of the core driver with one name for one file.
        static FILES: AtomicU64 = AtomicU64::new(0);
        let name = format!("research-grade-{}\0", FILES.fetch_add(1, Ordering::Relaxed));
        let _lock = hdf5_metno_sys::LOCK.lock();
        // SAFETY: the lock is held; the arguments are valid for the calls, and the library copies
        // the image before H5Pset_file_image returns.
        unsafe {
            check(h5::H5open(), "H5open", file)?;
            h5e::H5Eset_auto2(h5e::H5E_DEFAULT, None, ptr::null_mut());
            let access = check(h5p::H5Pcreate(*h5p::H5P_CLS_FILE_ACCESS), "H5Pcreate", file)?;
            let access = Hdf5Id(access, h5p::H5Pclose);
            check(h5p::H5Pset_fapl_core(access.0, growth, 0), "H5Pset_fapl_core", file)?;
            check(h5p::H5Pset_meta_block_size(access.0, metadata), "H5Pset_meta_block_size", file)?;
            let image = definition.as_mut_ptr().cast::<c_void>();
            check(
                h5p::H5Pset_file_image(access.0, image, definition.len()),
                "H5Pset_file_image",
                file,
            )?;
            let id = h5f::H5Fopen(name.as_ptr().cast(), h5f::H5F_ACC_RDWR, access.0);
            let file = Hdf5Id(check(id, "H5Fopen", file)?, h5f::H5Fclose);
            Ok(Self { file, access })
        }
    }

    /// Puts the only chunk of a variable with `rank` dimensions in its place, compressed as the
    /// variable's filters would; gives its position in the file.
    pub fn write_chunk(
        &mut self,
        variable: &str,
        rank: usize,
        chunk: &[u8],
    ) -> Result<Range<u64>, EncodeError> {
        let missing = || EncodeError::Hdf5 { call: "H5Dopen2", object: variable.to_owned() };
        let name = CString::new(variable).map_err(|_| missing())?;
        let origin = vec![0u64; rank];
        let _lock = hdf5_metno_sys::LOCK.lock();
        // SAFETY: the lock is held, `origin` has one entry for each dimension of the dataset
        // (checked), and `chunk` is valid for its length.
        unsafe {
            let dataset = h5d::H5Dopen2(self.file.0, name.as_ptr(), h5p::H5P_DEFAULT);
            let dataset = Hdf5Id(check(dataset, "H5Dopen2", variable)?, h5d::H5Dclose);
            let space = Hdf5Id(h5d::H5Dget_space(dataset.0), h5s::H5Sclose);
            let found = h5s::H5Sget_simple_extent_ndims(space.0);
            if usize::try_from(found).ok() != Some(rank) {
                return Err(EncodeError::Hdf5 {
                    call: "H5Sget_simple_extent_ndims",
                    object: variable.to_owned(),
                });
            }
            let status = h5d::H5Dwrite_chunk(
                dataset.0,
                h5p::H5P_DEFAULT,
                0,
                origin.as_ptr(),
                chunk.len(),
                chunk.as_ptr().cast(),
            );
            check(status, "H5Dwrite_chunk", variable)?;
            let (mut mask, mut address, mut size) = (0, 0, 0);
            let status = h5d::H5Dget_chunk_info_by_coord(
                dataset.0,
                origin.as_ptr(),
                &mut mask,
                &mut address,
                &mut size,
            );
            check(status, "H5Dget_chunk_info_by_coord", variable)?;
            Ok(address..address + size)
        }
    }

    /// Replaces the text of an attribute of the file by another of the same length.
    pub fn set_text(&mut self, attribute: &str, text: &str) -> Result<(), EncodeError> {
        let object = || attribute.to_owned();
        let name = CString::new(attribute)
            .map_err(|_| EncodeError::Hdf5 { call: "H5Aopen_by_name", object: object() })?;
        let _lock = hdf5_metno_sys::LOCK.lock();
        // SAFETY: the lock is held and the identifiers are live; H5Awrite reads as many bytes as
        // the attribute's type has, which is checked to be the length of the text.
        unsafe {
            let id = h5a::H5Aopen(self.file.0, name.as_ptr(), h5p::H5P_DEFAULT);
            let id = Hdf5Id(check(id, "H5Aopen", attribute)?, h5a::H5Aclose);
            let dtype =
                Hdf5Id(check(h5a::H5Aget_type(id.0), "H5Aget_type", attribute)?, h5t::H5Tclose);
            let found = h5t::H5Tget_size(dtype.0);
            if found != text.len() {
                let expected = found;
                return Err(EncodeError::Length {
                    variable: object(),
                    found: text.len(),
                    expected,
                });
            }
            check(h5a::H5Awrite(id.0, dtype.0, text.as_ptr().cast()), "H5Awrite", attribute)?;
        }
        Ok(())
    }

    /// A copy of bytes of the file that are final: inside what `write_chunk` gave.
    pub fn copy(&self, range: Range<u64>) -> Result<Vec<u8>, EncodeError> {
        let _lock = hdf5_metno_sys::LOCK.lock();
        let bytes = self.memory()?.get(range.start as usize..range.end as usize);
        bytes.map(<[u8]>::to_vec).ok_or(EncodeError::Hdf5 {
            call: "H5Fget_vfd_handle",
            object: format!("bytes {range:?}"),
        })
    }

    /// The file, finished.
    pub fn finish(self) -> Result<FileImage, EncodeError> {
        let _lock = hdf5_metno_sys::LOCK.lock();
        // SAFETY: the lock is held and the file is open.
        unsafe {
            let status = h5f::H5Fflush(self.file.0, h5f::H5F_scope_t::H5F_SCOPE_GLOBAL);
            check(status, "H5Fflush", "file in memory")?;
        }
        let bytes = self.memory()?;
        let (start, len) = (bytes.as_ptr(), bytes.len());
        Ok(FileImage { start, len, _file: self.file })
    }

    /// The file as it is in memory; valid until the next call that changes it.
    fn memory(&self) -> Result<&[u8], EncodeError> {
        let mut handle: *mut c_void = ptr::null_mut();
        // SAFETY: the callers hold the lock. For the core driver the handle points to the pointer
        // to the file's memory, which holds at least as many bytes as the file image is long.
        unsafe {
            let len = h5f::H5Fget_file_image(self.file.0, ptr::null_mut(), 0);
            let len = check(len, "H5Fget_file_image", "file in memory")?;
            let status = h5f::H5Fget_vfd_handle(self.file.0, self.access.0, &mut handle);
            check(status, "H5Fget_vfd_handle", "file in memory")?;
            let start = *handle.cast::<*const u8>();
            Ok(std::slice::from_raw_parts(start, usize::try_from(len).unwrap_or(0)))
        }
    }
}

/// A finished file, still in the memory in which the HDF5 library built it.
pub struct FileImage {
    start: *const u8,
    len: usize,
    _file: Hdf5Id,
}

// SAFETY: the memory belongs to the open file, which nothing but Image can reach any more and
// which is closed, under the lock, when Image is dropped; until then it is only read.
unsafe impl Send for FileImage {}
// SAFETY: as above.
unsafe impl Sync for FileImage {}

impl AsRef<[u8]> for FileImage {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: start and len describe the file's memory, which lives as long as `_file`.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}
