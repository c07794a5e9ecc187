//! Unsafe code: where it is, and why it is sound.
//!
//! `docs/unsafe.md` lists every use of `unsafe` with its SAFETY comment, as it stands in the sources. A use without one, one
//! outside of the rooms that may have any, and a list that is not what the sources say fail the check; `cargo xtask test
//! --write-unsafe` writes the list anew. Lines are read, not syntax: the word in a comment or in a text on one line does not count.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Who may.
const ROOMS: [&str; 2] = ["linux", "redirect-ebpf"];
/// Where it is listed.
const LIST: &str = "docs/unsafe.md";
/// What of a statement may stand between the comment and the word.
const REACH: usize = 8;
const COMMENT: &str = "SAFETY:";
/// What the declaration of an unsafe trait or function says to its users instead.
const CONTRACT: &str = "# Safety";

/// One use.
#[derive(Debug, PartialEq, Eq)]
struct Use {
    /// The function or item that it is in.
    within: String,
    /// `block`, `impl`, `attribute`, or `declaration`.
    kind: &'static str,
    /// What the comment says.
    reason: String,
}

/// Compares the list with the sources.
pub(super) fn check() -> Result<()> {
    println!("  checking unsafe code and {LIST}");
    let list = list(&shell::root())?;
    if fs::read_to_string(shell::root().join(LIST)).ok() != Some(list) {
        bail!(
            "{LIST} is not what the sources say: run cargo xtask test --write-unsafe and read what changed"
        );
    }
    Ok(())
}

/// Writes it.
pub(super) fn write() -> Result<()> {
    let path = shell::root().join(LIST);
    fs::write(&path, list(&shell::root())?).with_context(|| path.display().to_string())
}

/// The list as the sources have it.
fn list(root: &Path) -> Result<String> {
    let mut files = Vec::new();
    sources(root, &mut files)?;
    files.sort();
    let (mut list, mut wrong) = (String::from(HEAD), Vec::new());
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        match uses(&text) {
            Err(lines) => {
                wrong.extend(lines.iter().map(|line| format!("{name}:{line} has no SAFETY comment")))
            }
            Ok(found) if found.is_empty() => {}
            Ok(_) if !ROOMS.iter().any(|room| name.starts_with(&format!("{room}/"))) => {
                wrong.push(format!("{name} has unsafe code; only {} may", ROOMS.join(" and ")));
            }
            Ok(found) => section(&mut list, &name, &found)?,
        }
    }
    if wrong.is_empty() {
        return Ok(list);
    }
    bail!("unsafe code (xtask/src/test/unsafe_code.rs):\n  {}", wrong.join("\n  "))
}

const HEAD: &str = concat!(
    "# Unsafe code\n\n",
    "Every use of `unsafe` in the project, with the reason that its SAFETY comment gives. `cargo xtask test unit` fails when\n",
    "this list is not what the sources say, when a use has no reason, and when one is outside of `linux/` and\n",
    "`redirect-ebpf/`; `cargo xtask test --write-unsafe` writes it anew.\n\n",
    "Almost all of it is system calls and what the kernel gives back, or runs in the kernel: the suites run it on real kernels. Miri,\n",
    "which knows neither, runs the tests of `redirect-ebpf/abi`, in the workflow `.github/workflows/checks.yaml` only: it needs a\n",
    "nightly compiler.\n",
);

fn section(list: &mut String, file: &str, found: &[Use]) -> Result<()> {
    write!(list, "\n## {file}\n\n| Within | What | Why it is sound |\n|---|---|---|\n")?;
    for Use { within, kind, reason } in found {
        writeln!(list, "| `{within}` | {kind} | {} |", reason.replace('|', "\\|"))?;
    }
    Ok(())
}

/// All Rust sources but what was built.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            if name != "target" && !name.starts_with('.') {
                sources(&path, found)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// The uses in a source, or the numbers of the lines that lack a comment.
fn uses(text: &str) -> std::result::Result<Vec<Use>, Vec<usize>> {
    let lines: Vec<&str> = text.lines().collect();
    let (mut found, mut bare) = (Vec::new(), Vec::new());
    for (number, line) in lines.iter().enumerate() {
        let code = code_of(line);
        let Some(kind) = kind_of(&code) else { continue };
        let before = lines.get(..number).unwrap_or_default();
        match reason(before) {
            Some(reason) => found.push(Use { within: within(&lines, number, kind), kind, reason }),
            None => bare.push(number + 1),
        }
    }
    if bare.is_empty() { Ok(found) } else { Err(bare) }
}

/// A line without comments and texts.
fn code_of(line: &str) -> String {
    let (mut code, mut in_text, mut escaped) = (String::new(), false, false);
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            _ if escaped => escaped = false,
            '\\' if in_text => escaped = true,
            '"' => in_text = !in_text,
            _ if in_text => {}
            // A quote as a character would look like the beginning of a text.
            '\'' if characters.peek() == Some(&'"') => {
                characters.next();
            }
            '/' if characters.peek() == Some(&'/') => break,
            other => code.push(other),
        }
    }
    code
}

fn kind_of(code: &str) -> Option<&'static str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let at = code.match_indices("unsafe").find(|(at, word)| {
        let (before, after) =
            (code.get(..*at).unwrap_or_default(), code.get(at + word.len()..).unwrap_or_default());
        !before.ends_with(is_word) && !after.starts_with(is_word)
    });
    let after = code.get(at?.0 + "unsafe".len()..)?.trim_start();
    Some(match after {
        _ if after.starts_with('(') => "attribute",
        _ if after.starts_with("impl") => "impl",
        _ if ["fn", "trait", "extern"].iter().any(|word| after.starts_with(word)) => "declaration",
        _ => "block",
    })
}

/// What the comment says that belongs to the line after these.
fn reason(before: &[&str]) -> Option<String> {
    let mut above = before.iter().rev().map(|line| line.trim()).enumerate().peekable();
    // The beginning of the statement, or an attribute of the item.
    while let Some((distance, line)) = above.peek() {
        if line.starts_with("//") {
            break;
        }
        let ends_another = !line.starts_with("#[") && line.ends_with([';', '{', '}']) || line.is_empty();
        if ends_another || *distance >= REACH {
            return None;
        }
        above.next();
    }
    let mut comment: Vec<&str> = above.map_while(|(_, line)| line.strip_prefix("//")).collect();
    comment.reverse();
    let text = comment.iter().map(|line| line.trim_start_matches('/').trim()).collect::<Vec<_>>().join(" ");
    let (_, said) = text.split_once(COMMENT).or_else(|| text.split_once(CONTRACT))?;
    Some(said.trim().to_owned()).filter(|said| !said.is_empty())
}

/// The function that a line is in, or the item that it begins.
fn within(lines: &[&str], number: usize, kind: &str) -> String {
    if kind == "impl" || kind == "declaration" {
        let line = lines.get(number).map_or("", |line| line.trim());
        return line.trim_end_matches(['{', '}', ' ']).to_owned();
    }
    let name = |line: &str, word: &str| {
        let code = code_of(line);
        let (before, rest) = code.split_once(word)?;
        let is_item = before
            .split_whitespace()
            .all(|part| part.starts_with("pub") || ["const", "unsafe", "async"].contains(&part));
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        is_item.then(|| rest.get(..end).unwrap_or_default().to_owned())
    };
    if kind == "attribute" {
        let after = lines.get(number..).unwrap_or_default().iter();
        return after.copied().find_map(|line| name(line, "static ")).unwrap_or_default();
    }
    let before = lines.get(..=number).unwrap_or_default().iter().rev();
    before.copied().find_map(|line| name(line, "fn ")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str]) -> std::result::Result<Vec<Use>, Vec<usize>> {
        uses(&lines.join("\n"))
    }

    #[test]
    fn a_use_is_found_with_its_reason_wherever_the_comment_stands() {
        let found = of(&[
            "pub(crate) fn call() -> i32 {",
            "    // SAFETY: it takes numbers",
            "    // only.",
            "    let done =",
            "        unsafe { call() };",
            "    done",
            "}",
            "/// # Safety",
            "///",
            "/// It must be one.",
            "unsafe trait Plain {}",
            "// SAFETY: as above.",
            "unsafe impl Plain for u8 {}",
            "// SAFETY: nobody else's.",
            "#[unsafe(no_mangle)]",
            "static NAME: u8 = 0;",
        ]);
        let found: Vec<_> =
            found.unwrap().into_iter().map(|one| (one.within, one.kind, one.reason)).collect();
        let expected = [
            ("call", "block", "it takes numbers only."),
            ("unsafe trait Plain", "declaration", "It must be one."),
            ("unsafe impl Plain for u8", "impl", "as above."),
            ("NAME", "attribute", "nobody else's."),
        ];
        assert_eq!(found, expected.map(|(a, b, c)| (a.to_owned(), b, c.to_owned())));
    }

    #[test]
    fn a_use_without_a_reason_is_named_by_its_line() {
        let bare = of(&["fn a() {", "    // It is fine.", "    unsafe { b() }", "}"]);
        assert_eq!(bare, Err(vec![3]));
        // Somebody else's comment does not count.
        let other =
            of(&["// SAFETY: of this.", "let a = unsafe { b() };", "let c = 1;", "let d = unsafe { e() };"]);
        assert_eq!(other, Err(vec![4]));
        assert_eq!(of(&["// SAFETY:", "unsafe { b() }"]), Err(vec![2]));
    }

    #[test]
    fn the_word_alone_is_no_use() {
        let none = of(&[
            "#![forbid(unsafe_code)]",
            "// unsafe { }",
            r#"let text = "an \"unsafe\" thing";"#,
            "let quote = '\"'; let unsafe_code = 1;",
        ]);
        assert_eq!(none, Ok(Vec::new()));
    }
}
