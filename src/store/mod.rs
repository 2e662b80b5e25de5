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

mod addressable;
mod answer;
mod aws_http;
mod check;
mod connect;
mod credentials;
mod error;
mod failure;
mod folders;
mod limit;
mod list;
mod location;
mod obstacle;
mod open;
mod options;
mod pages;
mod part;
mod passed;
mod pieces;
mod process;
mod profile;
mod read;
mod roots;
mod s3;
mod send;
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
pub use limit::{Lines, SMALL_OBJECT, open_file, read_text};
pub(crate) use location::{HIDDEN, without_user};
pub use location::{Location, LocationError};
pub use obstacle::Obstacles;
pub use open::{Store, Stores};
pub use options::{Addressing, Number, S3Options};
pub use part::Body;
pub use passed::PassedOver;
pub use process::{Life, Process};
pub use profile::{Decider, InForce};
pub use read::{Object, ObjectInfo};
pub use send::{Condition, Sending};
pub use survey::{Surveyed, is_public};
pub use write::Upload;

/// Filter for logs of requests that are sent again.
pub const RESENT: &str = "object_store::client::retry=info";

/// What an error and its causes say, without those that the one before has quoted.
pub(crate) fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let mut told: Vec<String> = vec![error.to_string().trim_end().to_owned()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string().trim_end().to_owned();
        if told.last().is_none_or(|last| !last.contains(&text)) {
            told.push(text);
        }
        next = cause.source();
    }
    told
}

/// All of that on one line: the errors of the AWS SDK say nothing by themselves.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    causes(error).join(": ")
}

#[cfg(test)]
mod tests {
    use super::causes;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Says(&'static str, #[source] Option<Box<Says>>);

    #[test]
    fn a_cause_is_told_once() {
        let all = ["a file", "cannot open: no space", "no space", "other"];
        let error =
            all.into_iter().rev().fold(None, |below, text| Some(Box::new(Says(text, below))));
        assert_eq!(causes(&*error.unwrap()), ["a file", "cannot open: no space", "other"]);
    }
}
