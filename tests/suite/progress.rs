//! The line of progress in a terminal.

use super::support::case::Workspace;
use super::support::dor::dor;
use super::support::tmux::Terminal;

/// A workspace with a case whose conversion takes some seconds.
fn workspace() -> Workspace {
    let work = Workspace::empty(b"");
    let mut raw = dor(work.folder());
    raw.args(["demo", "raw", ".", "--case", "112-04", "--shape", "96x120x20", "--months", "6"]);
    raw.assert().success();
    work
}

/// Whether a line has a bar.
fn has_bar(line: &str) -> bool {
    line.contains(" [=") || line.contains(" [>")
}

/// Runs a command in terminals of 80 and 60 columns, each in a new workspace. Its progress must be one line,
/// of these things, and nothing of it may be left at the end.
fn shows_one_line(things: &str, words: &str, new: impl Fn() -> Workspace) {
    let label = format!("{things} [");
    for columns in [80, 60] {
        let work = new();
        let Some(terminal) = Terminal::start(columns, work.folder(), words) else { return };
        let mut seen = 0;
        let last = terminal.wait_for(|lines| {
            let Some(n) = lines.iter().position(|line| line.contains(&label)) else {
                return lines.iter().any(|line| line.starts_with("ended with"));
            };
            let line = &lines[n];
            assert_eq!(n + 1, lines.len(), "it is not the last line: {lines:#?}");
            assert!(line.len() <= usize::from(columns) && line.contains("/"), "{line}");
            assert!(["B", "%", "left"].iter().any(|end| line.ends_with(end)), "{line}");
            assert!(!line.contains("/0 ") && !line.contains("of 0 B"), "{line}");
            seen += 1;
            false
        });
        assert!(seen > 0, "no progress of {words} was seen: {last:#?}");
        assert_eq!(last.last().map(String::as_str), Some("ended with 0"), "{last:#?}");
        assert!(!last.iter().any(|line| has_bar(line)), "{last:#?}");
    }
}

#[test]
fn a_conversion_shows_its_progress_in_one_line() {
    let convert = "research-data process-case 112-04 -d archive -o out --grid grid.nc -w 1";
    shows_one_line("files", &format!("{convert} --allow-missing"), workspace);
}

#[test]
fn filling_a_map_store_shows_its_progress_in_one_line() {
    let populate = "vis populate-store2 -o s2 -d archive -p 112 -w 1 --allow-missing";
    let levels = "--levels 2 --variables FG,pCO2SURF";
    let create = format!("vis create-template-store2 -o s2 {levels}");
    let template = || {
        let work = workspace();
        dor(work.folder()).args(create.split(' ')).assert().success();
        work
    };
    shows_one_line("files", populate, template);
}

#[test]
fn ctrl_c_leaves_no_progress_behind() {
    let work = workspace();
    let convert = "research-data process-case 112-04 -d archive -o out --allow-missing -w 1";
    let Some(terminal) = Terminal::start(80, work.folder(), convert) else { return };
    terminal.wait_for(|lines| lines.last().is_some_and(|line| has_bar(line)));
    terminal.press("C-c");
    let last = terminal.wait_for(|lines| lines.last().is_some_and(|line| line == "ended with 75"));
    assert!(!last.iter().any(|line| has_bar(line)), "{last:#?}");
}

#[test]
fn a_publish_shows_its_progress_in_one_line() {
    let new = || {
        let work = Workspace::new(12);
        work.convert();
        work
    };
    shows_one_line("objects", "publish out published --bwlimit 400k", new);
}
