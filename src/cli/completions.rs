//! `dor completions`: prints completion scripts for shells.

use std::io::Write;

use clap::Args;
use clap_complete::Shell;

use super::Exit;

/// Print the completion script of a shell
///
/// For bash: `dor completions bash > ~/.local/share/bash-completion/completions/dor`
#[derive(Args, Debug)]
pub(super) struct Command {
    /// Shell that the script is for
    shell: Shell,
}

impl Command {
    pub fn run(self, mut program: clap::Command, out: &mut dyn Write) -> anyhow::Result<Exit> {
        // clap_complete panics when its writer fails, so it writes to memory first.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, "dor", &mut script);
        out.write_all(&script)?;
        Ok(Exit::Done)
    }
}
