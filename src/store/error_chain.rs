//! Error texts with their causes. The top-level errors of the libraries rarely name the cause.

/// The texts of an error and its causes, outermost first. A cause whose text the previous one contains
/// is left out.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> Vec<String> {
    let mut texts: Vec<String> = vec![error.to_string().trim_end().to_owned()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string().trim_end().to_owned();
        if texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
        next = cause.source();
    }
    texts
}

/// The texts of an error and its causes on one line, separated by `: `.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    error_chain(error).join(": ")
}

#[cfg(test)]
mod tests {
    use super::error_chain;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct TestError(&'static str, #[source] Option<Box<TestError>>);

    #[test]
    fn a_cause_is_named_once() {
        let all = ["a file", "cannot open: no space", "no space", "other"];
        let error =
            all.into_iter().rev().fold(None, |below, text| Some(Box::new(TestError(text, below))));
        assert_eq!(error_chain(&*error.unwrap()), ["a file", "cannot open: no space", "other"]);
    }
}
