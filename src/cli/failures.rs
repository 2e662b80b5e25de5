//! How failures are told: those with the same cause together.

use std::io::{self, Write};

use super::exit::Exit;
use super::output::printable;
use crate::batch::StageError;
use crate::model::calendar::ranges;
use crate::model::{Case, YearMonth};
use crate::pipeline::Stopped;
use crate::research::CaseError;
use crate::research::plan::month_in_name;
use crate::research::run::FileError;
use crate::store::{causes, with_causes};

/// Failures of one cause that are told in full.
const IN_FULL: usize = 3;

/// Prints an error and its causes; of what a stop cut short, only that it was stopped.
pub fn report(error: &anyhow::Error) {
    let mut to = io::stderr().lock();
    let mut causes = causes(error.as_ref());
    // A stop is no failure of what it has cut short.
    if Exit::stopped(error) {
        causes = vec![Stopped.to_string()];
    }
    let says = |words: &str| causes.iter().any(|said| said.contains(words));
    let too_many = TOO_MANY_FILES.into_iter().any(says) && !says("ulimit -n");
    // Nowhere is left to report to when this fails.
    for (n, said) in causes.iter().map(|said| printable(said)).enumerate() {
        let _ = writeln!(to, "{} {said}", if n == 0 { "error:" } else { "  caused by:" });
    }
    if too_many {
        let _ = writeln!(to, "  raise the limit (ulimit -n 4096) or use fewer workers (--workers)");
    }
}

/// How the system's errors of too many open files, of the process and of the machine, are told.
const TOO_MANY_FILES: [&str; 2] = ["(os error 24)", "(os error 23)"];

/// The case and the files of it that failed, where an error tells of such.
fn files(error: &anyhow::Error) -> Option<(Case, &[(String, FileError)])> {
    let of_stage = || match error.downcast_ref()? {
        StageError::Research(error) => Some(error),
        _ => None,
    };
    match error.downcast_ref().or_else(of_stage)? {
        CaseError::Files { case, failures, .. } => Some((*case, failures)),
        _ => None,
    }
}

/// The lines that tell which files of a case failed and why, if any did.
pub(super) fn lines(error: &anyhow::Error) -> Vec<String> {
    let Some((case, failures)) = files(error) else { return Vec::new() };
    let mut groups: Vec<(String, Vec<(YearMonth, String)>)> = Vec::new();
    let mut lines = Vec::new();
    for (key, failure) in failures {
        let text = one_line(failure);
        let Some(month) = month_in_name(case, key) else {
            lines.push(format!("failed: {text}"));
            continue;
        };
        let cause = without_name(&text, month);
        match groups.iter_mut().find(|(other, _)| *other == cause) {
            Some((_, files)) => files.push((month, text)),
            None => groups.push((cause, vec![(month, text)])),
        }
    }
    for (_, mut files) in groups {
        // Files end in any order.
        files.sort();
        let (shown, more) = files.split_at(files.len().min(IN_FULL));
        lines.extend(shown.iter().map(|(_, text)| format!("failed: {text}")));
        let months: Vec<YearMonth> = more.iter().map(|(month, _)| *month).collect();
        if !months.is_empty() {
            let (count, months) = (months.len(), ranges(&months));
            lines.push(format!("failed: and {count} more with the same cause: {months}"));
        }
    }
    lines
}

/// The cause of a failed case for a list: the first one, in one line.
pub(super) fn cause(error: &anyhow::Error) -> String {
    let more = |n: usize| if n > 1 { format!(" (and {} more)", n - 1) } else { String::new() };
    match files(error) {
        Some((_, failures)) => {
            let first = failures.iter().min_by_key(|(key, _)| key);
            let text = first.map_or_else(|| error.to_string(), |(_, failure)| one_line(failure));
            text + &more(failures.len())
        }
        None => one_line(error.as_ref()),
    }
}

fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    with_causes(error).replace('\n', " ")
}

/// The text without the words that name the file of `month`, and without times that were measured.
fn without_name(text: &str, month: YearMonth) -> String {
    let month = month.to_string();
    let is_time = |word: &str, next: Option<&&str>| {
        word.parse::<f64>().is_ok() && next.is_some_and(|next| next.trim_end_matches(',') == "s")
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let kept = words
        .iter()
        .enumerate()
        .filter(|&(n, word)| !word.contains(&month) && !is_time(word, words.get(n + 1)));
    kept.map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
}
