//! `dor status --watch`, in a terminal and in a pipe.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chrono::NaiveDateTime;

use super::super::support::case::Workspace;
use super::super::support::tmux::Terminal;
use super::{make_plan, run_dor, workspace};

const WATCH: &str = "status --plan all.json --watch";
/// Columns of the counts.
const HEADER: &str = "done  running  failed  waiting";

fn planned() -> Workspace {
    let work = workspace(&["112-04", "113-04"], 2);
    make_plan(&work, "all");
    work
}

/// Waits for a reading that is not in `before`, which must be alone on the screen.
fn next(terminal: &Terminal, before: &[String]) -> Vec<String> {
    let is_next = |lines: &[String]| {
        let first = lines.first().map(String::as_str).unwrap_or_default();
        first.contains("next reading in") && before.iter().all(|line| line != first)
    };
    let lines = terminal.wait_for(is_next);
    let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!((count("next reading in"), count(HEADER)), (1, 1), "{lines:#?}");
    lines
}

/// The time of the first line, such as `2026-01-31 09:41:07`.
fn time(line: &str) -> NaiveDateTime {
    let time = line.get(..19).unwrap_or_default();
    NaiveDateTime::parse_from_str(time, "%Y-%m-%d %H:%M:%S").expect(line)
}

#[test]
fn a_terminal_shows_the_last_reading_in_place_of_the_one_before() {
    let work = planned();
    let Some(terminal) = Terminal::start(80, work.folder(), WATCH) else { return };
    let first = next(&terminal, &[]);
    let second = next(&terminal, &first);
    assert_eq!(time(&first[0]), time(&second[0]), "the clock goes on between two readings");
    assert_eq!(first[1..], second[1..]);
    assert!(first.iter().any(|line| line.starts_with("0 of 2 cases")), "{first:#?}");
    run_dor(&work, "run --plan all.json");
    let last = terminal.wait_for(|lines| lines.last().is_some_and(|line| line == "ended with 0"));
    assert!(time(&last[0]) > time(&first[0]));
    let count = |text: &str| last.iter().filter(|line| line.contains(text)).count();
    assert_eq!((count(HEADER), count("2 of 2 cases"), count("reading")), (1, 1, 0), "{last:#?}");
}

#[test]
fn a_narrow_terminal_shows_long_lines_in_place_and_keeps_the_last_reading_after_ctrl_c() {
    let work = workspace(&["112-04", "113-04"], 2);
    run_dor(
        &work,
        "plan -o all.json -d archive --output-dir out --products research --allow-missing",
    );
    std::fs::write(work.raw(0), b"no NetCDF").unwrap();
    let run = super::dor(work.folder()).args(["run", "--plan", "all.json"]).output().unwrap();
    assert_eq!(run.status.code(), Some(65));
    let Some(terminal) = Terminal::start(60, work.folder(), WATCH) else { return };
    let first = next(&terminal, &[]);
    assert!(first.iter().any(|line| line.len() == 60), "no line is folded: {first:#?}");
    let mut reading = next(&terminal, &first);
    while time(&reading[0]) == time(&first[0]) {
        reading = next(&terminal, &reading);
    }
    assert_eq!(first[1..], reading[1..]);
    terminal.press("C-c");
    let last = terminal.wait_for(|lines| lines.last().is_some_and(|line| line == "ended with 75"));
    let count = |text: &str| last.iter().filter(|line| line.contains(text)).count();
    assert_eq!((count(HEADER), count("next reading"), count("stopping: ")), (1, 0, 1), "{last:#?}");
}

#[test]
fn a_terminal_that_hangs_up_ends_it_with_0() {
    let work = planned();
    for start in [Terminal::start, Terminal::start_without_hangups] {
        let Some(terminal) = start(80, work.folder(), WATCH) else { return };
        next(&terminal, &[]);
        assert_eq!(terminal.hang_up(), 0);
    }
}

#[test]
fn a_pipe_gets_one_reading_after_another_until_its_reader_is_gone() {
    let work = planned();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dor"));
    command.env_clear().env("HOME", work.folder()).current_dir(work.folder());
    command.args(WATCH.split(' ')).stdin(Stdio::null());
    let mut watch = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut reading = || {
        let time = time(&lines.next().unwrap());
        let counts = lines.by_ref().take_while(|line| !line.starts_with("0 of 2 cases"));
        let counts: Vec<String> = counts.collect();
        assert!(counts[0].contains(HEADER) && counts.len() == 5, "{counts:?}");
        time
    };
    let first = reading();
    let apart = reading() - first;
    assert!((9..60).contains(&apart.num_seconds()), "{apart}");
    drop(lines);
    let began = Instant::now();
    let output = watch.wait_with_output().unwrap();
    assert!(began.elapsed() < Duration::from_secs(9), "it ended with the next reading only");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
