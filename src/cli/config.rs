//! `dor config`: shows the effective settings.

use std::io::Write;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::Table;
use super::report::JsonArgs;
use super::{Exit, GlobalArgs};
use crate::config::{AWS_VARIABLES, Config, SettingEntry, show_variable};

/// Show the effective settings
#[derive(Args, Debug)]
pub(super) struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Show(Show),
}

/// Print every setting with its value and its source
#[derive(Args, Debug)]
struct Show {
    #[command(flatten)]
    json: JsonArgs,
}

/// Output of `dor config show`.
#[derive(Serialize)]
struct SettingsReport<'a> {
    file: Option<String>,
    settings: &'a [SettingEntry],
    aws_environment: Vec<Variable>,
}

#[derive(Serialize)]
struct Variable {
    name: &'static str,
    value: String,
}

impl Command {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let Verb::Show(show) = self.verb;
        let config = Config::load(&global.overrides())?;
        let report = SettingsReport {
            file: config.file.as_ref().map(|path| path.display().to_string()),
            settings: &config.effective_entries().await?,
            aws_environment: aws_environment(),
        };
        show.json.print(out, &report, |out, report| report.write(out))?;
        Ok(Exit::Done)
    }
}

impl SettingsReport<'_> {
    fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        writeln!(out, "configuration file: {}\n", self.file.as_deref().unwrap_or("none found"))?;
        let mut table = Table::new(["KEY", "VALUE", "SOURCE"]);
        for entry in self.settings {
            let value = match &entry.value {
                Some(serde_json::Value::String(text)) => text.clone(),
                Some(value) => value.to_string(),
                None => "-".to_owned(),
            };
            let source = entry.source.as_ref().map_or("not set".to_owned(), ToString::to_string);
            table.row([entry.key.clone(), value, source]);
        }
        table.write(out)?;
        if self.aws_environment.is_empty() {
            return Ok(());
        }
        writeln!(out, "\nstandard AWS variables that the storage layer reads:")?;
        let mut table = Table::new(["VARIABLE", "VALUE"]);
        for variable in &self.aws_environment {
            table.row([variable.name.to_owned(), variable.value.clone()]);
        }
        table.write(out)
    }
}

/// Returns the AWS variables that are set, with secrets hidden.
fn aws_environment() -> Vec<Variable> {
    let variable = |name| {
        let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
        Some(Variable { name, value: show_variable(name, &value.to_string_lossy()) })
    };
    AWS_VARIABLES.into_iter().filter_map(variable).collect()
}
