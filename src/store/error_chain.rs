//! What an error says with its causes: the errors of the libraries below say little by themselves.

/// What an error and its causes say, without those that the one before has quoted.
pub(crate) fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let mut told: Vec<String> = vec![error.to_string().trim_end().to_owned()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string().trim_end().to_owned();
        if told.last().is_none_or(|last| !last.contains(&text)) {
            told.push(text);
        }
        next = cause.source();
    }
    told
}

/// All of that on one line: the errors of the AWS SDK say nothing by themselves.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    causes(error).join(": ")
}

#[cfg(test)]
mod tests {
    use super::causes;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Says(&'static str, #[source] Option<Box<Says>>);

    #[test]
    fn a_cause_is_told_once() {
        let all = ["a file", "cannot open: no space", "no space", "other"];
        let error =
            all.into_iter().rev().fold(None, |below, text| Some(Box::new(Says(text, below))));
        assert_eq!(causes(&*error.unwrap()), ["a file", "cannot open: no space", "other"]);
    }
}
