//! `dor`: parse, run, exit code.

use std::process::ExitCode;

use dor_atlas::cli::{self, Exit, Stdout};

fn main() -> ExitCode {
    let mut out = Stdout::new();
    let cli = match cli::parse(&mut out) {
        Ok(cli) => cli,
        Err(exit) => return exit.into(),
    };
    cli.manage_memory();
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(cli.run(&mut out)))
        .and_then(|exit| out.finish().map(|()| exit).map_err(anyhow::Error::from));
    done.unwrap_or_else(|error| {
        cli::report(&error);
        Exit::of(&error)
    })
    .into()
}
