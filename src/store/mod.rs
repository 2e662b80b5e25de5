//! Storage: the one module that knows `object_store`.
//!
//! A [`Location`] says where (a path, `file://`, `s3://`, `https://`), [`Stores`] opens it, and a
//! [`Store`] lists, reads and writes below it. Reads go through an [`Object`], which notices when
//! the object is replaced while it is read. Large writes go through an [`Upload`], whose parts may
//! come in any order; nothing is visible under the final name before `complete`. What a disk, S3, https and
//! memory do each in a way of its own is behind one trait, `Backend`, with a file for each.
//!
//! ```text
//! Location --Stores::open--> Store --object--> Object   range, ranges, pieces
//!                              |------create--> Upload   part, part, ..., complete
//!                              '------list, list_dirs, read, put, delete, sweep, check
//! ```

mod addressable;
mod answer;
mod aws_http;
mod backend;
mod base;
mod blocking;
mod bucket;
mod check;
mod connect;
mod credentials;
mod error;
mod error_chain;
mod failure;
mod file_kind;
mod folders;
mod http;
mod limit;
mod list;
mod local;
mod location;
mod memory;
mod object;
mod object_info;
mod obstacle;
mod open;
mod options;
mod part;
mod passed;
mod pieces;
mod process;
mod profile;
mod put;
mod read;
mod roots;
mod s3;
mod send;
mod sink;
mod staged;
mod streamed;
mod survey;
mod taken;
mod uploads;
mod walk;
mod write;
mod zarr;

pub use check::Check;
pub use connect::count_failures;
pub use error::{CredentialsProblem, StoreError};
pub(crate) use error_chain::{causes, with_causes};
pub use limit::{Lines, SMALL_OBJECT, open_file, read_text};
pub(crate) use location::{HIDDEN, without_user};
pub use location::{Location, LocationError};
pub use object::Object;
pub use object_info::ObjectInfo;
pub use obstacle::Obstacles;
pub use open::{Store, Stores};
pub use options::{Addressing, Number, S3Options};
pub use part::Body;
pub use passed::PassedOver;
pub use process::{Life, Process};
pub use profile::{Decider, InForce};
pub use send::{Condition, Sending};
pub use survey::{Surveyed, is_public};
pub use write::Upload;

/// Filter for logs of requests that are sent again.
pub const RESENT: &str = "object_store::client::retry=info";
