//! How errors are printed.

use std::error::Error;
use std::io::{self, Write};

use super::exit::Exit;
use super::output::printable;
use crate::executor::Stopped;
use crate::store::causes;

/// Prints an error and its causes; of what a stop cut short, only that it was stopped.
pub fn report(error: &(dyn Error + 'static)) {
    let mut to = io::stderr().lock();
    let mut causes = causes(error);
    // A stop is no failure of what it has cut short.
    if Exit::stopped(error) {
        causes = vec![Stopped.to_string()];
    }
    let says = |words: &str| causes.iter().any(|said| said.contains(words));
    let too_many = TOO_MANY_FILES.into_iter().any(says) && !says("ulimit -n");
    // Nowhere is left to report to when this fails.
    for (n, said) in causes.iter().map(|said| printable(said)).enumerate() {
        let _ = writeln!(to, "{} {said}", if n == 0 { "error:" } else { "  caused by:" });
    }
    if too_many {
        let _ = writeln!(to, "  raise the limit (ulimit -n 4096) or use fewer workers (--workers)");
    }
}

/// How the system's errors of too many open files, of the process and of the machine, are told.
const TOO_MANY_FILES: [&str; 2] = ["(os error 24)", "(os error 23)"];
