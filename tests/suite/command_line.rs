//! `--dry-run` and `--json` of all commands, against the table of the docs.

use std::collections::BTreeMap;

use clap::CommandFactory;
use dor_atlas::cli::Cli;
use serde_json::{Value, json};

use super::support::case::{Workspace, assert_same};
use super::support::dor::{dor, json};

/// The page with the table.
const PAGE: &str = include_str!("../../docs/command-line.md");

const READS: &str = "no: it only reads";
const SHOWS: &str = "no: it shows each command with its output, in a folder of its own";
const SYNTHETIC: &str = "no: it writes synthetic files to a folder of its own";
const SCRIPT: &str = "no: it only prints a script";
const PAGES: &str = "no: it writes the pages of a package";

/// Commands without an option, and why.
const EXCEPTIONS: [(&str, &str, &str); 11] = [
    (
        "setup-environment",
        "dry-run",
        "no: it is itself a check, and creates only configured output folders",
    ),
    ("research-data list-cases", "dry-run", READS),
    ("research-data check", "dry-run", READS),
    ("vis check", "dry-run", READS),
    ("publish status", "dry-run", READS),
    ("status", "dry-run", READS),
    ("config show", "dry-run", READS),
    ("demo", "dry-run json", SHOWS),
    ("demo raw", "dry-run json", SYNTHETIC),
    ("completions", "dry-run json", SCRIPT),
    ("man", "dry-run json", PAGES),
];

/// Commands that do something, with their words: those without subcommands, and those that need none.
fn commands<'c>(
    command: &'c clap::Command,
    words: &str,
    found: &mut BTreeMap<String, &'c clap::Command>,
) {
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        let words = format!("{words} {}", inner.get_name()).trim().to_owned();
        if !inner.is_subcommand_required_set() {
            found.insert(words.clone(), inner);
        }
        commands(inner, &words, found);
    }
}

#[test]
fn every_command_has_both_options_or_a_reason() {
    let program = Cli::command();
    let mut all = BTreeMap::new();
    commands(&program, "", &mut all);
    assert!(all.len() > 25, "{:?}", all.keys());
    let rows: BTreeMap<&str, (&str, &str)> = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("| `dor ")?.strip_suffix(" |")?.split_once("` | "))
        .filter_map(|(command, cells)| Some((command, cells.split_once(" | ")?)))
        .collect();
    for (words, command) in &all {
        let cell = |option: &str| {
            let has = command.get_arguments().any(|argument| argument.get_long() == Some(option));
            let reason = EXCEPTIONS
                .iter()
                .find(|(command, options, _)| command == words && options.contains(option))
                .map(|(_, _, reason)| *reason);
            assert!(has != reason.is_some(), "dor {words} --{option}: {has}, {reason:?}");
            reason.unwrap_or("yes")
        };
        let row = rows.get(words.as_str()).unwrap_or_else(|| panic!("dor {words} has no row"));
        assert_eq!(*row, (cell("dry-run"), cell("json")), "dor {words}");
    }
    assert_eq!(rows.len(), all.len(), "{:?} and {:?}", rows.keys(), all.keys());
}

/// What a command prints as JSON, which must succeed.
fn told(work: &Workspace, line: &str) -> Value {
    let mut command = dor(work.folder());
    json(command.args(line.split(' ')).arg("--json"))
}

#[test]
fn a_dry_run_writes_nothing_and_tells_what_the_command_then_does() {
    let work = Workspace::empty(b"");
    let mut raw = dor(work.folder());
    raw.args(["demo", "raw", ".", "--shape", "8x9x3", "--ssh", "--months", "2"]).assert().success();
    let research =
        "research-data process-case 112-04 -d archive -o out --grid grid.nc --allow-missing";
    let choice = "-d archive -p 112 -m 4 --grid grid.nc --allow-missing";
    let lines = [
        (research, "/cases/0/files_converted", json!(2)),
        (
            &research.replace("process-case 112-04", "process-all-cases"),
            "/cases/0/files_kept",
            json!(2),
        ),
        ("vis create-template-store1 -o s1", "/kind", json!("store1")),
        ("vis create-template-store2 -o s2", "/zarr_format", json!(2)),
        ("vis create-template-store3 -o s3", "/kind", json!("store3")),
        (
            "vis populate-store1 -o s1 -d archive -p 112 -m 4 --allow-missing",
            "/cases/0/case",
            json!("112-04"),
        ),
        (
            &format!("vis populate-store2 -o s2 {choice} --ssh ssh.nc"),
            "/cases/0/done_before",
            json!(false),
        ),
        (
            &format!("vis populate-store3 -o s3 {choice} --centers centers.csv"),
            "/failed",
            json!([]),
        ),
        ("vis finalize s1", "/stores/0/done", json!(["112-04"])),
        ("vis plot s1 --series -p 112 -m 4 -o curves.png", "/picture", json!("curves.png")),
        (
            "plan -o plan.json -d archive --output-dir made --products research --allow-missing",
            "/cases",
            json!(["112-04"]),
        ),
        ("run --plan plan.json", "/cases/0/case", json!("112-04")),
        ("finalize --plan plan.json", "/stores/0/cases", json!(1)),
        ("slurm script --plan plan.json --nodes 1 -o jobs", "/dry_run", json!(false)),
        ("vis remove s1 -p 112", "/removed", json!(["112-04"])),
    ];
    for (line, pointer, expected) in lines {
        let before = work.tree("");
        let dry = told(&work, &format!("{line} --dry-run"));
        assert_same(&before, &work.tree(""));
        assert_eq!(dry["dry_run"], true, "{line}");
        let done = told(&work, line);
        let found = |document: &Value| document.pointer(pointer).cloned();
        assert_eq!(found(&done), Some(expected.clone()), "{line}: {done:#}");
        if pointer != "/dry_run" {
            assert_eq!(found(&dry), Some(expected), "{line}: {dry:#}");
        }
    }
}
