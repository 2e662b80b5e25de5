//! `dor man`: writes the manual pages, for packagers.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::Exit;

/// Write the manual pages to a folder
#[derive(Args, Debug)]
pub(super) struct Command {
    /// Folder of the pages; created if it does not exist
    folder: PathBuf,
}

impl Command {
    pub fn run(self, program: clap::Command) -> anyhow::Result<Exit> {
        std::fs::create_dir_all(&self.folder)
            .and_then(|()| clap_mangen::generate_to(program, &self.folder))
            .with_context(|| format!("cannot write manual pages to {}", self.folder.display()))?;
        Ok(Exit::Done)
    }
}
