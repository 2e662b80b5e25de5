//! The `dor` program. The library does all of it, so that its code is compiled once.

use std::process::ExitCode;

fn main() -> ExitCode {
    dor_atlas::cli::main()
}
