//! Suggestions for names that are not known.

/// The known name that is most similar to `name`. `None`: no name is similar.
///
/// Case, and `-` for `_`, make no difference. A dot separates a table from a key: the key may be written without
/// its table, or in a wrong one.
pub fn nearest(name: &str, known: impl IntoIterator<Item = impl Into<String>>) -> Option<String> {
    let plain = |name: &str| name.to_ascii_lowercase().replace('-', "_");
    let last = |name: &str| name.rsplit('.').next().map(str::to_owned).unwrap_or_default();
    let written = plain(name);
    known
        .into_iter()
        .map(|known| {
            let known: String = known.into();
            let other = plain(&known);
            let whole = strsim::damerau_levenshtein(&written, &other);
            let inner = strsim::damerau_levenshtein(&last(&written), &last(&other));
            (whole.min(inner + 1), known)
        })
        .filter(|(distance, known)| *distance <= 2.max(known.len() / 4))
        .min()
        .map(|(_, known)| known)
}

/// The end of a message about an unknown name: the most similar known name, or else `otherwise`.
pub fn did_you_mean(suggestion: Option<&str>, otherwise: &str) -> String {
    match suggestion {
        Some(name) => format!("did you mean `{name}`?"),
        None => otherwise.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_found_and_others_are_not() {
        let known = ["DOR_GRID", "DOR_OUTPUT_DIR", "s3.region"];
        let cases = [
            ("DOR_GIRD", Some("DOR_GRID")),
            ("dor-output-dir", Some("DOR_OUTPUT_DIR")),
            ("DOR_OUPTUT", None),
            ("region", Some("s3.region")),
            ("DOR_SHARED", None),
        ];
        for (name, expected) in cases {
            assert_eq!(nearest(name, known).as_deref(), expected, "{name}");
        }
        assert_eq!(did_you_mean(Some("a"), "read b"), "did you mean `a`?");
        assert_eq!(did_you_mean(None, "read b"), "read b");
    }
}
