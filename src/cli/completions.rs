//! `dor completions`: what a shell needs to complete command lines.

use std::io::Write;

use clap::Args;
use clap_complete::Shell;

use super::Exit;

/// Print the completions for a shell
///
/// For bash: `dor completions bash > ~/.local/share/bash-completion/completions/dor`
#[derive(Args, Debug)]
pub(super) struct Command {
    /// The shell
    shell: Shell,
}

impl Command {
    pub fn run(self, mut program: clap::Command, out: &mut dyn Write) -> anyhow::Result<Exit> {
        // In memory first: clap_complete panics when its writer fails.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, "dor", &mut script);
        out.write_all(&script)?;
        Ok(Exit::Done)
    }
}
