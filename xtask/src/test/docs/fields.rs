//! docs/logs.md has every field of the code's log statements, and no other.
//!
//! The statements are read as text: the fields stand before the message, as `name = value`, `%name`, `?name` or `name`; those that
//! the access log's macro is given stand after it.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};

use super::collect;
use crate::shell;

const DOCUMENT: &str = "docs/logs.md";
/// What logs.
pub(super) const SOURCES: [&str; 5] =
    ["tunnel/src", "control/src", "node-agent/src", "redirect-ebpf/loader/src", "linux/src"];
const MACROS: [&str; 7] = ["trace!", "debug!", "info!", "warn!", "error!", "level!", ACCESS];
/// The access log's own.
const ACCESS: &str = "access!";

/// Fails if one lacks, or is nowhere logged.
pub(super) fn check() -> Result<()> {
    let mut files = Vec::new();
    for directory in SOURCES {
        collect(&shell::root().join(directory), true, "rs", &mut files)?;
    }
    let mut logged = BTreeSet::new();
    for file in files.iter().filter(|file| !file.to_string_lossy().contains("tests")) {
        let source = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        logged.extend(fields(&source));
    }
    let text = std::fs::read_to_string(shell::root().join(DOCUMENT)).context(DOCUMENT)?;
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let documented: BTreeSet<String> =
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect();
    let lacking: Vec<_> = logged.difference(&documented).collect();
    let superfluous: Vec<_> = documented.difference(&logged).collect();
    if !lacking.is_empty() || !superfluous.is_empty() {
        bail!("{DOCUMENT} lacks the fields {lacking:?}, and has {superfluous:?}, which nothing logs");
    }
    println!("  {} log fields are documented", logged.len());
    Ok(())
}

/// The fields of all statements in a source.
fn fields(source: &str) -> BTreeSet<String> {
    let mut fields = BTreeSet::new();
    let code: String = source.lines().map(|line| line.split("//").next().unwrap_or(line)).fold(
        String::new(),
        |mut code, line| {
            code.push_str(line);
            code.push('\n');
            code
        },
    );
    for name in MACROS {
        for (_, after) in
            code.match_indices(name).filter_map(|(at, _)| code.split_at_checked(at + name.len()))
        {
            if let Some(arguments) = after.trim_start().strip_prefix('(') {
                fields.extend(of_arguments(arguments, name == ACCESS));
            }
        }
    }
    fields
}

/// The fields of one statement.
fn of_arguments(arguments: &str, is_access: bool) -> Vec<String> {
    let mut fields = Vec::new();
    let (mut depth, mut string, mut begin) = (0_usize, false, 0);
    let mut previous = ' ';
    for (at, next) in arguments.char_indices() {
        let escaped = std::mem::replace(&mut previous, next) == '\\';
        match next {
            '"' if !escaped => string = !string,
            _ if string => {}
            '(' | '[' => depth += 1,
            ')' | ']' if depth > 0 => depth -= 1,
            // Fields may stand in braces of their own.
            ',' | ')' | '{' | '}' if depth == 0 => {
                let part = arguments.get(begin..at).unwrap_or_default().trim();
                begin = at + 1;
                if part.starts_with('"') && !is_access {
                    return fields;
                }
                // In the macro's arguments level and record have no names.
                fields.extend(field(part).filter(|_| !is_access || part.contains('=')));
                if next == ')' {
                    return fields;
                }
            }
            _ => {}
        }
    }
    fields
}

/// The name of a field, if it is one.
fn field(part: &str) -> Option<String> {
    let name = match part.split_once('=') {
        // The macro's repetition may stand before it.
        Some((name, value)) if !value.starts_with('=') => name.split_whitespace().last()?,
        Some(_) => return None,
        None => part.strip_prefix(['%', '?']).unwrap_or(part),
    };
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.');
    (!name.is_empty() && name.chars().all(is_name)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_told_from_messages_and_targets() {
        let source = r#"
            warn!(target: ACCESS, { src.addr = %source, error = reason.to_string(), }, "failed");
            info!(pod = %pod, ?pending, %error, count = lines(&[a, b]), "so, it = is"); // debug!(not = 1)
            debug!("{count} of {limit} are = there");
            error!(%error, bytes, "a {thing}", thing = 1);
            access!(info, self, "connection complete", duration = duration);
        "#;
        let expected = ["bytes", "count", "duration", "error", "pending", "pod", "src.addr"];
        assert_eq!(fields(source).iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }
}
