//! Storage. This is the only module that uses `object_store`.
//!
//! A [`Location`] names where data is (a path, `file://`, `s3://`, `https://`). A [`StoreRegistry`] opens
//! it as a [`Store`], which lists, reads and writes the objects below it. An [`Object`] reads ranges and
//! detects changes of the object between reads. An [`Upload`] writes a large object in parts, in any
//! order; the object becomes visible when the upload is completed. The trait `Backend` has one
//! implementation each for local disk, S3, https and memory.
//!
//! ```text
//! Location --StoreRegistry::open--> Store --open----> Object   range, ranges, pieces
//!                                     |---create--> Upload   part, part, ..., complete
//!                                     '---list, list_folders, get, put, delete, check
//! ```

mod addressable;
mod atomic_file;
mod aws_http;
mod backend;
mod base;
mod blocking;
mod bucket;
mod byte_stream;
mod ca_certificates;
mod change_detection;
mod credentials;
mod error;
mod error_chain;
mod file_body;
mod file_kind;
mod folder_walk;
mod folders;
mod http;
mod http_client;
mod limit;
mod list;
mod local;
mod location;
mod memory;
mod multipart;
mod multipart_cleanup;
mod object;
mod object_meta;
mod options;
mod part;
mod path_conflicts;
mod probe;
mod process;
mod profile;
mod put;
mod put_options;
mod read;
mod registry;
mod response;
mod s3;
mod sink;
mod skipped;
mod translate;
mod tree_walk;
mod zarr;

pub use error::{CredentialsProblem, StoreError};
pub(crate) use error_chain::{error_chain, with_causes};
pub use http_client::count_failures;
pub use limit::{Lines, SMALL_OBJECT, open_file, read_text};
pub(crate) use location::{HIDDEN, without_user};
pub use location::{Location, LocationError};
pub use multipart::Upload;
pub use object::Object;
pub use object_meta::ObjectMeta;
pub use options::{Addressing, NumericOption, S3Options};
pub use part::PartBody;
pub use path_conflicts::PathConflicts;
pub use probe::ProbeReport;
pub use process::{Liveness, Process};
pub use profile::{EffectiveSettings, SettingSource, profile_names};
pub use put_options::{PutMode, PutOptions};
pub use registry::{Store, StoreRegistry};
pub use skipped::SkipReason;
pub use tree_walk::{SourceFile, is_public};

/// Log filter that shows retried requests.
pub const RETRY_LOG_FILTER: &str = "object_store::client::retry=info";
