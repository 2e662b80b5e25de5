//! Error messages on standard error.

use std::error::Error;
use std::io::{self, Write};

use super::escape::printable;
use super::exit::Exit;
use crate::executor::Stopped;
use crate::store::error_chain;

/// Prints an error and its causes to standard error. For an error of a stopped command, prints only that the
/// command was stopped.
pub fn report(error: &(dyn Error + 'static)) {
    let mut to = io::stderr().lock();
    let mut causes = error_chain(error);
    if Exit::stopped(error) {
        causes = vec![Stopped.to_string()];
    }
    let contains = |text: &str| causes.iter().any(|cause| cause.contains(text));
    let too_many = TOO_MANY_FILES.into_iter().any(contains) && !contains("ulimit -n");
    // A failure to write to standard error cannot be reported.
    for (n, cause) in causes.iter().map(|cause| printable(cause)).enumerate() {
        let _ = writeln!(to, "{} {cause}", if n == 0 { "error:" } else { "  caused by:" });
    }
    if too_many {
        let _ = writeln!(to, "  raise the limit (ulimit -n 4096) or use fewer workers (--workers)");
    }
}

/// Texts in the messages of `EMFILE` and `ENFILE`: too many open files of the process and of the machine.
const TOO_MANY_FILES: [&str; 2] = ["(os error 24)", "(os error 23)"];
