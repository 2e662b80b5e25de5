//! Storage: the one module that knows `object_store`.
//!
//! A [`Location`] says where (a path, `file://`, `s3://`, `https://`), [`Stores`] opens it, and a
//! [`Store`] lists, reads and writes below it. Reads go through an [`Object`], which notices when
//! the object is replaced while it is read. Large writes go through an [`Upload`], whose parts may
//! come in any order; nothing is visible under the final name before `complete`.
//!
//! ```text
//! Location --Stores::open--> Store --object--> Object   range, ranges, pieces
//!                              |------create--> Upload   part, part, ..., complete
//!                              '------list, list_dirs, read, put, delete, sweep, check
//! ```

mod check;
mod credentials;
mod error;
mod failure;
mod list;
mod location;
mod open;
mod options;
mod profile;
mod read;
mod s3;
mod staged;
mod write;

pub use check::Check;
pub use error::{CredentialsProblem, StoreError};
pub use location::{Location, LocationError};
pub use open::{Store, Stores};
pub use options::{Addressing, Number, S3Options};
pub use profile::{Decider, InForce};
pub use read::{Object, ObjectInfo};
pub use write::Upload;

/// An error with all its causes on one line: those of the AWS SDK say nothing by themselves.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
