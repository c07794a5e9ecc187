//! Takes out of a text whatever looks like a secret: private keys, bearer tokens, JSON web tokens.
//!
//! Invariant: what is taken out leaves a word in its place, so that whoever reads sees that something was there. Text that looks like none of
//! these stays as it is, byte for byte.

/// What stands in the place of a secret.
const REDACTED: &str = "(redacted)";
/// What every JSON web token begins with: `{"` in base64url (RFC 7515, section 7.1).
const JWT: &str = "eyJ";
/// Shorter words that begin so are names.
const SHORTEST_JWT: usize = 20;

/// A text without secrets.
pub(super) fn text(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut in_key = false;
    for line in text.split_inclusive('\n') {
        let is_marker = |word: &str| line.contains(word) && line.contains("PRIVATE KEY-----");
        if is_marker("-----BEGIN") {
            // A key in one line, as in JSON, begins and ends there.
            in_key = !line.contains("-----END");
            let before = line.split("-----BEGIN").next().unwrap_or_default();
            clean.push_str(before);
            clean.push_str(REDACTED);
            clean.push('\n');
        } else if in_key {
            in_key = !is_marker("-----END");
        } else {
            push_line(&mut clean, line);
        }
    }
    clean
}

fn push_line(clean: &mut String, line: &str) {
    let mut after_bearer = false;
    for word in line.split_inclusive(|c: char| !is_of_token(c)) {
        let end = word.trim_end_matches(|c: char| !is_of_token(c)).len();
        let (token, rest) = word.split_at_checked(end).unwrap_or((word, ""));
        let is_jwt = token.starts_with(JWT) && token.len() >= SHORTEST_JWT;
        if is_jwt || (after_bearer && !token.is_empty()) {
            clean.push_str(REDACTED);
        } else {
            clean.push_str(token);
        }
        clean.push_str(rest);
        if !token.is_empty() {
            after_bearer = token.eq_ignore_ascii_case("bearer");
        }
    }
}

/// The characters of a token (RFC 6750, section 2.1), but for the padding at its end, which tells nothing.
fn is_of_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~+/".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out_and_nothing_else() {
        let jwt = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl";
        let key = "a\n-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIA\nx==\n-----END EC PRIVATE KEY-----\nb\n";
        for (before, after) in [
            ("nothing here: 10.0.0.1:80, a/b\n", "nothing here: 10.0.0.1:80, a/b\n".to_owned()),
            (&*format!("token={jwt}, and more"), format!("token={REDACTED}, and more")),
            (&*format!("\"{jwt}\""), format!("\"{REDACTED}\"")),
            ("Authorization: Bearer abc.def\n", format!("Authorization: Bearer {REDACTED}\n")),
            ("eyJones is a name", "eyJones is a name".to_owned()),
            (key, format!("a\n{REDACTED}\nb\n")),
            ("-----BEGIN CERTIFICATE-----\nMII\n", "-----BEGIN CERTIFICATE-----\nMII\n".to_owned()),
        ] {
            assert_eq!(text(before), after);
        }
    }
}
