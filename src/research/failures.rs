//! Texts about the failed files of a case, grouped by cause.

use super::CaseError;
use super::plan::month_in_name;
use crate::model::YearMonth;
use crate::model::calendar::describe_months;
use crate::store::with_causes;

/// Failures of one cause that get a line each; the others share one line.
const LINES_PER_CAUSE: usize = 3;

/// One line for each failed file with its cause, and for further files of the same cause one line. Empty when
/// the error is not one of files.
pub fn lines(error: &CaseError) -> Vec<String> {
    let CaseError::Files { case, failures, .. } = error else { return Vec::new() };
    let mut groups: Vec<(String, Vec<(YearMonth, String)>)> = Vec::new();
    let mut lines = Vec::new();
    for (key, failure) in failures {
        let text = one_line(failure);
        let Some(month) = month_in_name(*case, key) else {
            lines.push(format!("failed: {text}"));
            continue;
        };
        let cause = without_name(&text, month);
        match groups.iter_mut().find(|(other, _)| *other == cause) {
            Some((_, same)) => same.push((month, text)),
            None => groups.push((cause, vec![(month, text)])),
        }
    }
    for (_, mut files) in groups {
        // Files fail in any order.
        files.sort();
        let (shown, rest) = files.split_at(files.len().min(LINES_PER_CAUSE));
        lines.extend(shown.iter().map(|(_, text)| format!("failed: {text}")));
        let months: Vec<YearMonth> = rest.iter().map(|(month, _)| *month).collect();
        if !months.is_empty() {
            let (count, months) = (months.len(), describe_months(&months));
            lines.push(format!("failed: and {count} more with the same cause: {months}"));
        }
    }
    lines
}

/// The cause of the first failure of a case in one line, for a list.
pub fn cause(error: &CaseError) -> String {
    let more = |n: usize| if n > 1 { format!(" (and {} more)", n - 1) } else { String::new() };
    match error {
        CaseError::Files { failures, .. } => {
            let first = failures.iter().min_by_key(|(key, _)| key);
            let text = first.map_or_else(|| error.to_string(), |(_, failure)| one_line(failure));
            text + &more(failures.len())
        }
        _ => one_line(error),
    }
}

/// An error with its causes, in one line.
pub fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    with_causes(error).replace('\n', " ")
}

/// The text without words that contain `month` and without measured times, so that failures of one cause have
/// equal texts.
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
