//! Snapshots of texts for users: every `--help`, tables and messages, in `tests/suite/snapshots`.
//! `INSTA_UPDATE=always cargo test --test suite snapshots` updates them after a change of wording.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use clap::CommandFactory;

use super::support::dor::dor;

/// Paths of all commands: the words before `--help`.
fn commands(command: &clap::Command, words: &[String], found: &mut Vec<Vec<String>>) {
    found.push(words.to_vec());
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        let words = [words, &[inner.get_name().to_owned()]].concat();
        commands(inner, &words, found);
    }
}

/// A log line without its leading time.
fn without_time(line: &str) -> &str {
    match line.split_once("Z ") {
        Some((time, rest)) if time.starts_with("20") && time.contains('T') => rest.trim_start(),
        _ => line,
    }
}

/// A command line, its output and its exit code, with the folder's path replaced by `[FOLDER]`.
fn transcript(folder: &Path, words: &[&str]) -> String {
    let output = dor(folder).args(words).env("DOR_WORKERS", "2").output().unwrap();
    let mut text = format!("$ dor {}\n", words.join(" "));
    for stream in [&output.stdout, &output.stderr] {
        let printed = String::from_utf8_lossy(stream);
        printed.lines().for_each(|line| text += &format!("{}\n", without_time(line)));
    }
    writeln!(text, "exit code {}\n", output.status.code().unwrap_or(-1)).unwrap();
    text.replace(folder.to_str().unwrap(), "[FOLDER]")
}

fn assert_snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[test]
fn help_of_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    commands(&dor_atlas::cli::Cli::command(), &[], &mut all);
    assert!(all.len() > 25, "{} commands", all.len());
    for words in all {
        let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        let name = format!("help-{}", [&["dor"], &arguments[..]].concat().join("-"));
        arguments.push("--help");
        assert_snapshot(&name, &transcript(folder.path(), &arguments));
    }
}

#[test]
fn settings_and_catalogue() {
    let folder = tempfile::tempdir().unwrap();
    let toml = "data_dir = 'raw'\nstore2 = 's3://bucket/store2.zarr'\n[s3]\nprofile = 'minio'\n";
    fs::write(folder.path().join("dor.toml"), toml).unwrap();
    let text: String = [
        &["config", "show"][..],
        &["config", "show", "--json"],
        &["research-data", "list-cases", "--data-dir", "absent", "-p", "112"],
    ]
    .iter()
    .map(|words| transcript(folder.path(), words))
    .collect();
    assert_snapshot("settings", &text);
    let empty = tempfile::tempdir().unwrap();
    let text: String = [
        &["research-data", "list-cases", "-p", "112,200-201", "-m", "4"][..],
        &["research-data", "list-cases", "--case", "449", "--json"],
        &["research-data", "list-cases", "--limit", "2"],
    ]
    .iter()
    .map(|words| transcript(empty.path(), words))
    .collect();
    assert_snapshot("catalogue", &text);
}

/// Commands that are refused.
const REFUSED: [&str; 64] = [
    "fly",
    "publsh a b",
    "research-data",
    "research-data list-case",
    "research-data list-cases -p 690",
    "research-data list-cases -p 5-2",
    "research-data list-cases -p x",
    "research-data list-cases -m 5",
    "research-data list-cases --state done",
    "research-data list-cases --case 690-04",
    "research-data list-cases --case 2760",
    "research-data list-cases --case nowhere",
    "research-data list-cases --polygon-range 9 3",
    "research-data process-case",
    "research-data process-case 112-05",
    "research-data process-case 112-04",
    "research-data process-case 112-04 -d raw -o out",
    "research-data process-case 112-04 -d raw -o raw",
    "research-data process-case 112-04 -d raw -o https://example.org/x",
    "research-data process-case 112-04 -d ftp://x/y -o out",
    "research-data process-case 112-04 -d raw -o out -w 0",
    "research-data process-case 112-04 -d raw -o out --grid absent.nc",
    "research-data process-all-cases -d raw -o out",
    "research-data process-all-cases -d file -o out",
    "research-data check",
    "research-data check -i absent",
    "research-data check -i empty",
    "vis create-template-store2 -o out --levels 0",
    "vis create-template-store2 -o out --variables SALT",
    "vis create-template-store1",
    "vis create-template-store1 -o full",
    "vis populate-store1",
    "vis populate-store1 -o absent -i empty",
    "vis populate-store2 -o absent -w weights.nc",
    "vis populate-store2 -o absent -i empty -d raw",
    "vis populate-store3 -o absent -i empty",
    "vis finalize absent",
    "vis finalize empty",
    "vis finalize",
    "vis check absent",
    "vis check empty",
    "vis check",
    "vis plot absent -o map.png",
    "vis plot absent --variable DIC --step 200 -p 112 -m 4 -o map.png",
    "vis plot absent --variable DIC --step 1 -p 112 -o map.png",
    "vis plot absent --variable DIC --step 1 -p 112 -m 4 -o map.jpg",
    "vis plot absent --variable DIC --step 1 -p 112 -m 4 -o map.png",
    "vis remove absent",
    "vis remove absent -p 112",
    "publish absent out",
    "publish empty out",
    "publish full full/inner",
    "publish full https://example.org/x",
    "publish full out --include [",
    "publish full out --max-delete 5",
    "publish full out --bwlimit fast",
    "publish full out --products store4",
    "publish status",
    "plan -o plans/ -d raw",
    "plan -o plan.json -d raw --products research",
    "plan -o plan.json -d raw --products maps",
    "run",
    "status --plan absent.json",
    "demo raw full",
];

#[test]
fn messages_of_refused_commands() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    ["empty", "raw", "full"].iter().for_each(|name| fs::create_dir(at(name)).unwrap());
    fs::write(at("full/data.txt"), "data").unwrap();
    fs::write(at("file"), "data").unwrap();
    let mut text = String::new();
    for line in REFUSED {
        let words: Vec<&str> = line.split(' ').collect();
        text += &transcript(folder.path(), &words);
    }
    assert!(!text.contains("exit code 0\n") && !text.contains("exit code -1"), "{text}");
    assert_snapshot("messages", &text);
}
