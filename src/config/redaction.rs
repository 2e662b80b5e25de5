//! Hiding the secrets in values that are shown.

use serde_json::Value;

use crate::store::{HIDDEN, without_user};

/// Replaces the users, passwords and queries of all URLs in `text`, which may have credentials.
pub fn redact(text: &str) -> String {
    without_user(text)
}

/// Replaces the secrets of the URL `text` in `message`, which may quote all or a part of it.
pub(super) fn redact_within(message: &str, text: &str) -> String {
    let after_scheme = text.split_once("://").map_or("", |(_, rest)| rest);
    let user = after_scheme.rsplit_once('@');
    let query = after_scheme.split_once('?').map(|(_, query)| query);
    [user.map(|(user, _)| user), query]
        .into_iter()
        .flatten()
        .flat_map(|part| [part, part.rsplit_once(':').map_or("", |(_, password)| password)])
        .filter(|part| !part.is_empty())
        .fold(message.to_owned(), |message, part| message.replace(part, HIDDEN))
}

/// The value of the environment variable `name`, with secrets hidden.
pub fn show_variable(name: &str, value: &str) -> String {
    if is_secret(name) { HIDDEN.to_owned() } else { redact(value) }
}

/// The value of a key of the configuration, with secrets hidden.
pub(super) fn show(key: &str, value: &Value) -> Value {
    match value {
        _ if is_secret(key) => HIDDEN.into(),
        Value::String(text) => redact(text).into(),
        other => other.clone(),
    }
}

/// Whether the value of a key or variable is a secret, by its name.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name != "aws_web_identity_token_file"
        && ["secret", "token", "password", "access_key"].iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_queries_of_urls_are_hidden() {
        assert_eq!(redact("https://me:pw@host/a"), "https://***@host/a");
        assert_eq!(redact("https://host/a?X-Amz-Signature=f00"), "https://host/a?***");
        assert_eq!(redact("s3://me:pw@bucket/a b"), "s3://***@bucket/a b");
        assert_eq!(redact("https://me:p@w@ho st/a"), "https://***@ho st/a");
    }

    #[test]
    fn parts_that_a_message_quotes_are_hidden() {
        let message = "`s3://me:pw@b/p?sig=1`: `me:pw@b` is no bucket, sig=1 is no prefix";
        assert_eq!(
            redact_within(message, "s3://me:pw@b/p?sig=1"),
            "`s3://***@b/p?***`: `***@b` is no bucket, *** is no prefix"
        );
        assert_eq!(redact_within("`/a@b` is wrong", "/a@b"), "`/a@b` is wrong");
    }

    #[test]
    fn locations_without_secrets_are_not_changed() {
        for text in ["/data/a b", "s3://bucket/a b", "https://host/a/", "relative@dir", ""] {
            assert_eq!(redact(text), text);
        }
    }

    #[test]
    fn secret_variables_are_hidden() {
        assert_eq!(show_variable("AWS_SECRET_ACCESS_KEY", "x"), "***");
        assert_eq!(show_variable("AWS_SESSION_TOKEN", "x"), "***");
        assert_eq!(show_variable("AWS_REGION", "eu-west-1"), "eu-west-1");
        assert_eq!(show_variable("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), "/t");
    }
}
