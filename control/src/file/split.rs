//! Takes a large file apart, so that several threads read it.
//!
//! Only the list of workloads is taken apart, between two of its items, and only in a file where it is plain to see that
//! nothing else goes over the end of a line: whatever might (a quoted text that is not closed, a block of text, a list in brackets)
//! or might mean something elsewhere (an anchor, a tag, a second document) leaves the file whole. Invariant: if every piece is
//! good, the file is, and the pieces say together what the file says. If one is not, the file is to be read whole, for that
//! tells what is wrong, and where.

/// The key of the list.
const LIST: &str = "workloads:";
/// A piece is not smaller than this, in bytes.
pub(super) const PIECE: usize = if cfg!(test) { 40 } else { 64 << 10 };

/// The pieces of a file.
#[derive(Debug)]
pub(super) struct Pieces<'a> {
    /// The file without the list.
    pub(super) rest: String,
    /// Parts of the list, in order.
    items: Vec<&'a str>,
}

impl<'a> Pieces<'a> {
    /// Files with the list alone.
    pub(super) fn lists(&self) -> impl ExactSizeIterator<Item = String> {
        self.items.iter().map(|items| format!("{LIST}\n{items}"))
    }

    /// Takes a file apart, if that is of use and safe, into pieces of at least this many bytes.
    pub(super) fn of(text: &'a str, least: usize) -> Option<Self> {
        let after_key = list(text)?;
        let (items, end) = items(text, after_key, least)?;
        let rest: String =
            [text.get(..after_key)?.strip_suffix('\n')?.strip_suffix(LIST)?, text.get(end..)?].concat();
        // A second list of the name would be an error.
        let only = !rest.contains("workloads") && rest.lines().all(is_plain);
        (only && items.len() > 1).then_some(Self { rest, items })
    }
}

/// Where the items of the list begin.
fn list(text: &str) -> Option<usize> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        at += line.len();
        if line.strip_suffix('\n') == Some(LIST) {
            return Some(at);
        }
    }
    None
}

/// The items in pieces, and where they end. All begin in the same column.
fn items(text: &str, begin: usize, least: usize) -> Option<(Vec<&str>, usize)> {
    let (mut pieces, mut from, mut at, mut column) = (Vec::new(), begin, begin, None);
    for line in text.get(begin..)?.split_inclusive('\n') {
        let content = line.trim_start_matches(' ');
        let indent = line.len() - content.len();
        let is_item = content.starts_with("- ");
        if !is_plain(line.trim_end_matches('\n')) {
            return None;
        }
        match column {
            _ if content.trim_end().is_empty() || content.starts_with('#') => {}
            None if is_item => column = Some(indent),
            None => return None,
            Some(column) if indent > column => {}
            Some(column) if indent == column && is_item => {
                if at - from >= least {
                    pieces.push(text.get(from..at)?);
                    from = at;
                }
            }
            // The next key of the file.
            Some(_) if indent == 0 && !content.starts_with('-') => break,
            Some(_) => return None,
        }
        at += line.len();
    }
    pieces.push(text.get(from..at)?);
    Some((pieces, at))
}

/// Whether nothing in a line goes over its end, or means something in other lines.
fn is_plain(line: &str) -> bool {
    if line.trim_start_matches(' ').starts_with('#') {
        return !line.contains(BREAKS);
    }
    let (mut open, mut left) = (Vec::new(), line.as_bytes());
    while let Some((&byte, behind)) = left.split_first() {
        left = behind;
        match byte {
            b'"' | b'\'' => {
                match left.iter().position(|other| *other == byte).and_then(|end| left.split_at_checked(end))
                {
                    Some((quoted, behind)) if quoted.iter().copied().all(is_harmless) => {
                        left = behind.get(1..).unwrap_or_default();
                    }
                    _ => return false,
                }
            }
            b'[' => open.push(b']'),
            b'{' => open.push(b'}'),
            b']' | b'}' if open.pop() == Some(byte) => {}
            other if is_harmless(other) => {}
            _ => return false,
        }
    }
    open.is_empty() && !["---", "..."].iter().any(|marker| line.starts_with(marker))
}

/// What some take for the end of a line.
const BREAKS: [char; 4] = ['\r', '\u{85}', '\u{2028}', '\u{2029}'];

/// Whether a byte is a character that means nothing of its own within a word or between quotes.
pub(super) fn is_harmless(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b' ' | b'_' | b'-' | b'.' | b':' | b'/' | b',' | b'@' | b'+' | b'=' | b'~')
}

#[cfg(test)]
mod tests;
