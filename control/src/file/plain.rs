//! Plain YAML as JSON, of which a reader is many times as fast.
//!
//! What people and tools write is blocks of keys, lists and words, with a bracket here and there. That much is taken here, and
//! anything else is left to the YAML reader: quoted texts with escapes, texts of several lines, anchors, tags, numbers written in an
//! unusual way, keys without a value, a key that is there twice. Invariant: the JSON means what the YAML means; whether it
//! means anything to the mesh, and where the fault is, is for others to say.

use std::collections::HashSet;
use std::iter::Peekable;

use foldhash::fast::RandomState;

use super::split::is_harmless;

/// Blocks within blocks.
const DEEPEST: usize = 32;

/// A text as JSON, if it is plain.
pub(super) fn as_json(text: &str) -> Option<String> {
    let lines = text.lines().filter_map(Line::of).peekable();
    let mut block = Block { lines, json: String::with_capacity(text.len()) };
    let first = block.lines.peek()?.indent;
    block.any(first, DEEPEST)?;
    block.lines.next().is_none().then_some(block.json)
}

/// A line that says something.
#[derive(Clone, Copy, Debug)]
struct Line<'a> {
    /// In which column it begins.
    indent: usize,
    content: &'a str,
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let content = line.trim_start_matches(' ');
        let indent = line.len() - content.len();
        let content = content.trim_end_matches(' ');
        (!content.is_empty() && !content.starts_with('#')).then_some(Self { indent, content })
    }

    /// What stands behind the dash of a list's item, as a line of its own.
    fn item(self) -> Option<Self> {
        let behind = self.content.strip_prefix("- ")?;
        let content = behind.trim_start_matches(' ');
        Some(Self { indent: self.indent + self.content.len() - content.len(), content })
    }

    fn is_item(self) -> bool {
        self.content.starts_with("- ")
    }
}

/// The keys of a map so far.
type Keys<'a> = HashSet<&'a str, RandomState>;

/// Lines that are read, and what they say.
struct Block<'a, I: Iterator<Item = Line<'a>>> {
    lines: Peekable<I>,
    json: String,
}

impl<'a, I: Iterator<Item = Line<'a>>> Block<'a, I> {
    /// A list or a map whose lines begin in this column.
    fn any(&mut self, indent: usize, depth: usize) -> Option<()> {
        let first = *self.lines.peek()?;
        if first.is_item() {
            self.list(indent, depth.checked_sub(1)?)
        } else {
            self.map(None, indent, depth.checked_sub(1)?)
        }
    }

    fn list(&mut self, indent: usize, depth: usize) -> Option<()> {
        let mut before = '[';
        while let Some(line) = self.lines.next_if(|line| line.indent == indent && line.is_item()) {
            self.json.push(before);
            before = ',';
            let item = line.item()?;
            if item.is_item() {
                return None;
            }
            match key(item.content) {
                Some(_) => self.map(Some(item), item.indent, depth.checked_sub(1)?)?,
                None => self.value(item, indent)?,
            }
        }
        self.json.push(']');
        Some(())
    }

    /// A map; its first line may have been taken already.
    fn map(&mut self, mut first: Option<Line<'a>>, indent: usize, depth: usize) -> Option<()> {
        let (mut before, mut keys) = ('{', Keys::default());
        while let Some(line) =
            first.take().or_else(|| self.lines.next_if(|line| line.indent == indent && !line.is_item()))
        {
            let (key, value) = key(line.content)?;
            self.json.push(before);
            before = ',';
            self.key(key, &mut keys)?;
            if !value.is_empty() {
                self.value(Line { indent, content: value }, indent)?;
                continue;
            }
            let next = *self.lines.peek()?;
            if next.indent > indent || (next.indent == indent && next.is_item()) {
                self.any(next.indent, depth.checked_sub(1)?)?;
            } else {
                return None;
            }
        }
        self.json.push('}');
        Some(())
    }

    fn key(&mut self, key: &'a str, keys: &mut Keys<'a>) -> Option<()> {
        self.text(key);
        self.json.push(':');
        keys.insert(key).then_some(())
    }

    /// A value that ends with its line: what comes next stands no deeper than `indent`.
    fn value(&mut self, line: Line<'a>, indent: usize) -> Option<()> {
        if self.lines.peek().is_some_and(|next| next.indent > indent) {
            return None;
        }
        let left = self.flow(line.content, "", DEEPEST)?;
        left.is_empty().then_some(())
    }

    /// A value that begins a text; what is left of the text, after spaces. A word ends before one of `ends`.
    fn flow(&mut self, text: &'a str, ends: &str, depth: usize) -> Option<&'a str> {
        let left = if let Some(inside) = text.strip_prefix('[') {
            self.brackets(inside, depth.checked_sub(1)?)?
        } else if let Some(inside) = text.strip_prefix('{') {
            self.braces(inside, depth.checked_sub(1)?)?
        } else if text.starts_with(QUOTES) {
            let (quoted, left) = quoted(text)?;
            self.text(quoted);
            left
        } else {
            let (word, left) = text.split_at(text.find(|c| ends.contains(c)).unwrap_or(text.len()));
            self.word(word.trim_end_matches(' '))?;
            left
        };
        Some(left.trim_start_matches(' '))
    }

    fn brackets(&mut self, inside: &'a str, depth: usize) -> Option<&'a str> {
        self.json.push('[');
        let mut left = inside.trim_start_matches(' ');
        if let Some(left) = left.strip_prefix(']') {
            self.json.push(']');
            return Some(left);
        }
        loop {
            left = self.flow(left, ",]", depth)?;
            match left.split_at_checked(1)? {
                (",", behind) => left = behind.trim_start_matches(' '),
                ("]", behind) => {
                    self.json.push(']');
                    return Some(behind);
                }
                _ => return None,
            }
            self.json.push(',');
        }
    }

    fn braces(&mut self, inside: &'a str, depth: usize) -> Option<&'a str> {
        self.json.push('{');
        let (mut left, mut keys) = (inside.trim_start_matches(' '), Keys::default());
        if let Some(left) = left.strip_prefix('}') {
            self.json.push('}');
            return Some(left);
        }
        loop {
            let (key, value) = key(left).filter(|(_, value)| !value.is_empty())?;
            self.key(key, &mut keys)?;
            left = self.flow(value, ",}", depth)?;
            match left.split_at_checked(1)? {
                (",", behind) => left = behind.trim_start_matches(' '),
                ("}", behind) => {
                    self.json.push('}');
                    return Some(behind);
                }
                _ => return None,
            }
            self.json.push(',');
        }
    }

    /// A word without quotes.
    fn word(&mut self, word: &str) -> Option<()> {
        if !is_plain(word) || is_null(word) {
            return None;
        }
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        // Other numbers of that many digits may mean something else than they look.
        if is_number && (word.len() > 9 || (word.starts_with('0') && word != "0")) {
            return None;
        }
        if is_number || ["true", "false"].contains(&word) {
            self.json.push_str(word);
        } else {
            self.text(word);
        }
        Some(())
    }

    /// A text in which nothing has to be escaped.
    fn text(&mut self, text: &str) {
        self.json.push('"');
        self.json.push_str(text);
        self.json.push('"');
    }
}

const QUOTES: [char; 2] = ['"', '\''];

/// A key and what stands behind its colon, if a text begins with such.
fn key(text: &str) -> Option<(&str, &str)> {
    let (key, left) = if text.starts_with(QUOTES) {
        quoted(text)?
    } else {
        let ends = |at: &usize| matches!(text.as_bytes().get(at + 1), None | Some(b' '));
        let colon = text.match_indices(':').map(|(at, _)| at).find(ends)?;
        text.split_at_checked(colon)
            .filter(|(key, _)| is_plain(key) && !key.contains(',') && !is_null(key))?
    };
    let left = left.strip_prefix(':')?;
    let value = left.trim_start_matches(' ');
    // Behind a quoted key there need not be a space; that is left to others.
    (left.is_empty() || value.len() < left.len()).then_some((key, value))
}

/// A text in quotes, and what stands behind it; none where something in it would have to be understood first.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|first| QUOTES.contains(first))?;
    let (quoted, left) = text.get(1..)?.split_once(quote)?;
    (!left.starts_with(quote) && quoted.bytes().all(is_harmless)).then_some((quoted, left))
}

/// Whether a word without quotes is what it looks like.
fn is_plain(word: &str) -> bool {
    let begins = word.starts_with(|first: char| first.is_ascii_alphanumeric() || "/_.".contains(first));
    begins && word.bytes().all(is_harmless) && !word.contains(": ") && !word.ends_with([':', ' '])
}

fn is_null(word: &str) -> bool {
    ["null", "Null", "NULL"].contains(&word)
}

#[cfg(test)]
mod tests;
