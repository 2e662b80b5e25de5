//! Writes an HDF5 file in memory from chunks that are already compressed.
//!
//! netCDF-C defines the file; this module opens the definition with the `core` driver of the HDF5
//! library and writes the chunks with `H5Dwrite_chunk`. This call bypasses the filter pipeline, which
//! runs on one core under the lock of the library. The position of a chunk in the file is final at
//! once: parts of the file that contain only chunks can be uploaded before the rest is computed.
//! Specification: "HDF5 file format", version 3.0. Readers of HDF5 1.8 and later read the result.

use std::ffi::{CString, c_void};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use hdf5_metno_sys::{h5, h5a, h5d, h5e, h5f, h5i, h5p, h5s, h5t};

/// The error of a file that cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// netCDF-C rejected a definition or a value.
    #[error("netCDF-C cannot define `{object}`")]
    Define {
        /// Variable, dimension or attribute.
        object: String,
        /// Error of netCDF-C.
        source: netcdf::Error,
    },
    /// A call of the HDF5 library failed.
    #[error("the HDF5 library failed in {call} for `{object}`")]
    Hdf5 {
        /// Name of the library function.
        call: &'static str,
        /// Variable or file.
        object: String,
    },
    /// The scratch file with the definition cannot be written.
    #[error(
        "cannot write the definition of the output file to {place}: {source}; free space there, \
         raise the limit of file sizes (ulimit -f), or set TMPDIR to a writable folder"
    )]
    Scratch {
        /// Folder of the scratch file, in words.
        place: String,
        /// Error that caused this one.
        source: std::io::Error,
    },
    /// The data of a variable does not have the length of its shape.
    #[error("`{variable}` has {found} bytes of data where its shape needs {expected}")]
    Length {
        /// Name of the variable.
        variable: String,
        /// Length of the data in bytes.
        found: usize,
        /// Length by the shape of the variable in bytes.
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

/// An HDF5 identifier with the function that closes it on drop; used under the library's lock only.
struct Hdf5Id(h5i::hid_t, unsafe extern "C" fn(h5i::hid_t) -> h5::herr_t);

impl Drop for Hdf5Id {
    fn drop(&mut self) {
        let _lock = hdf5_metno_sys::LOCK.lock();
        // SAFETY: the identifier came from the library, is closed once, and the lock is held.
        unsafe { (self.1)(self.0) };
    }
}

/// An HDF5 file that is being written in memory.
pub struct InMemoryHdf5 {
    file: Hdf5Id,
    /// The file access property list.
    access: Hdf5Id,
}

/// Disables the exit handler of the HDF5 library.
///
/// The handler fails on files that could not be written, and this program leaves no open files.
pub fn disable_exit_handler() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _lock = hdf5_metno_sys::LOCK.lock();
        // SAFETY: the lock is held, and the call takes nothing.
        unsafe { h5::H5dont_atexit() };
    });
}

/// Tries to append to the scratch file; returns the error if that fails.
pub(super) fn scratch_error(scratch: &File) -> Option<EncodeError> {
    let zeros = [0; 64 << 10];
    let written =
        scratch.metadata().and_then(|metadata| scratch.write_all_at(&zeros, metadata.len()));
    let source = written.err()?;
    Some(EncodeError::Scratch { place: "memory (/dev/shm) or TMPDIR".to_owned(), source })
}

impl InMemoryHdf5 {
    /// Opens `definition`, the bytes of a file without chunks, in memory.
    ///
    /// `growth` is the step in bytes by which the memory grows. `metadata` is the size of the chunk
    /// indexes in bytes: it is reserved in one block before the chunks, so that no metadata lies
    /// between chunks.
    ///
    /// # Errors
    /// [`EncodeError::Hdf5`].
    pub fn open(definition: &mut [u8], growth: usize, metadata: u64) -> Result<Self, EncodeError> {
        let file = "file in memory";
        // The core driver identifies files by name: two open files need two names.
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

    /// Writes the only chunk of a variable with `rank` dimensions, already compressed by the filters of
    /// the variable; returns its byte range in the file.
    ///
    /// # Errors
    /// [`EncodeError::Hdf5`].
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

    /// Replaces the text of a global attribute by a text of the same length.
    ///
    /// # Errors
    /// [`EncodeError::Hdf5`], or [`EncodeError::Length`] for another length.
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

    /// Copies bytes of the file that are final: inside ranges that [`Self::write_chunk`] has returned.
    ///
    /// # Errors
    /// [`EncodeError::Hdf5`].
    pub fn copy(&self, range: Range<u64>) -> Result<Vec<u8>, EncodeError> {
        let _lock = hdf5_metno_sys::LOCK.lock();
        let bytes = self.memory()?.get(range.start as usize..range.end as usize);
        bytes.map(<[u8]>::to_vec).ok_or(EncodeError::Hdf5 {
            call: "H5Fget_vfd_handle",
            object: format!("bytes {range:?}"),
        })
    }

    /// Writes all metadata and returns the finished file.
    ///
    /// # Errors
    /// [`EncodeError::Hdf5`].
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

    /// The memory of the file; valid until the next call that changes the file.
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

/// A finished file in the memory of the HDF5 library.
pub struct FileImage {
    start: *const u8,
    len: usize,
    _file: Hdf5Id,
}

// SAFETY: the memory belongs to the open file, which only FileImage can access. Dropping FileImage
// closes the file, under the lock; until then the memory is only read.
unsafe impl Send for FileImage {}
// SAFETY: as above.
unsafe impl Sync for FileImage {}

impl AsRef<[u8]> for FileImage {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: start and len describe the file's memory, which lives as long as `_file`.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}
