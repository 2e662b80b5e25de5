//! Exit codes: one table in the docs, with the meanings of the code, and each code from two commands.

use std::io::Read;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use clap::CommandFactory;
use dor_atlas::cli::{Cli, Exit};
use rustix::process::{Pid, Signal, kill_process};

use super::support::case::Workspace;
use super::support::dor::{dor, fails};

/// The page with the table.
const PAGE: &str = include_str!("../../docs/command-line.md");

#[test]
fn the_table_of_the_docs_and_the_help_have_the_meanings_of_the_code() {
    let (_, section) = PAGE.split_once("\n## Exit codes\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows: Vec<(&str, &str)> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "))
        .filter(|(code, _)| code.bytes().all(|byte| byte.is_ascii_digit()))
        .collect();
    let codes = Exit::ALL.map(|exit| (exit as u8).to_string());
    let expected: Vec<(&str, &str)> =
        codes.iter().map(String::as_str).zip(Exit::ALL.map(Exit::meaning)).collect();
    assert_eq!(rows, expected);
    let help = Cli::command().render_help().to_string();
    assert!(expected.iter().all(|(code, _)| help.contains(&format!("\n  {code:<2}  "))), "{help}");
}

#[test]
fn every_code_but_that_of_a_stop_comes_from_two_commands() {
    let work = Workspace::empty(b"");
    let raw = ["demo", "raw", ".", "--shape", "8x9x3", "--months", "1"];
    dor(work.folder()).args(raw).assert().success();
    std::fs::create_dir(work.path("results")).unwrap();
    std::fs::create_dir(work.path("full")).unwrap();
    std::fs::write(work.path("full/notes.txt"), "mine").unwrap();
    std::fs::create_dir(work.path("store")).unwrap();
    std::fs::write(work.path("store/.zgroup"), "{}").unwrap();
    std::fs::write(work.path("bad.toml"), "outputdir = 'x'\n").unwrap();
    let plan =
        "plan -o plan.json -d archive --output-dir results --products research --allow-missing";
    let provoked = [
        (Exit::Done, plan),
        (Exit::Done, "config show"),
        (Exit::SomeFailed, "man bad.toml/man"),
        (Exit::SomeFailed, "slurm submit --plan plan.json --nodes 1"),
        (Exit::Usage, "research-data list-cases --polygon-range 9 3"),
        (Exit::Usage, "slurm script --plan plan.json --nodes 2 --start 9 --end 3"),
        (Exit::Usage, "slurm script --plan plan.json --nodes 2 --array 0-2"),
        (Exit::Usage, "run --plan plan.json --shards 2 --shard 2"),
        (Exit::Usage, "vis plot s2 --variable PH --step 1 -p 112 -o map.png"),
        (Exit::Usage, "vis plot s1 --series -o curves.png"),
        (Exit::Usage, "vis plot s1 --series -p 112 -o s3://bucket.png"),
        (Exit::Usage, "vis remove s1"),
        (Exit::Usage, "vis finalize --publish-to there"),
        (Exit::Usage, "vis create-template-store2 -o s2 --variables DICSURF"),
        (Exit::Usage, "research-data check -i https://example.org/research"),
        (Exit::Incomplete, "finalize --plan plan.json"),
        (Exit::Incomplete, "finalize --plan plan.json --dry-run"),
        (Exit::BadData, "research-data process-case 5-01 -d archive -o results"),
        (Exit::BadData, "plan -o p2 -d archive --output-dir results --products research -p 5"),
        (Exit::Usage, "run --plan plan.json --shards 2"),
        (Exit::Configuration, "slurm script --plan plan.json --nodes 2 -o store"),
        (Exit::Configuration, "run"),
        (Exit::Configuration, "run --plan plan.json --case 113-04"),
        (Exit::Configuration, "run --plan plan.json -p 200-299 --dry-run"),
        (Exit::Configuration, "vis create-template-store1 -o full"),
        (Exit::Configuration, "config show --config bad.toml"),
    ];
    for (exit, line) in provoked {
        let words: Vec<&str> = line.split(' ').collect();
        fails(dor(work.folder()).args(&words), exit as i32);
    }
    for exit in Exit::ALL.into_iter().filter(|exit| *exit != Exit::Interrupted) {
        assert!(provoked.iter().filter(|(provoked, _)| *provoked == exit).count() >= 2, "{exit:?}");
    }
}

#[test]
fn a_stopped_command_ends_with_its_code() {
    for words in [&["research-data", "check", "112-04", "-i"][..], &["vis", "check"]] {
        // A server that takes a request and never answers.
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/data", server.local_addr().unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_dor"));
        command.env_clear().args(words).arg(&url).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child: Child = command.spawn().unwrap();
        let (mut request, _) = server.accept().unwrap();
        request.read_exact(&mut [0; 1]).unwrap();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(Exit::Interrupted as i32), "{words:?}");
    }
}
