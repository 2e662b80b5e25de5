//! `dor`: parse, run, exit code.

use std::process::ExitCode;
use std::time::Duration;

use dor_atlas::cli::{self, Exit, Stdout};

/// How long threads that a stop has cut short are waited for.
const GRACE: Duration = Duration::from_secs(20);

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
        .and_then(|runtime| {
            let done = runtime.block_on(cli.run(&mut out));
            // Only what a stop has cut short is still at work.
            runtime.shutdown_timeout(GRACE);
            done
        })
        .and_then(|exit| out.finish().map(|()| exit).map_err(anyhow::Error::from));
    done.unwrap_or_else(|error| {
        cli::report(error.as_ref());
        Exit::of(error.as_ref())
    })
    .into()
}
