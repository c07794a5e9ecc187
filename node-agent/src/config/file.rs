//! The configuration file: a YAML mapping from keys to single values, and for families to mappings of such.
//!
//! It is read as events rather than into a structure, since a value counts as it was written (`1.10` is a name, `3600` may be
//! a duration) and everything that is wrong is to be told at once, each with its line. Invariant: nothing in it is ignored.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use super::given::{Given, Givens, Source};
use super::setting::{Face, Family};

/// More than any configuration has; a device or a log by mistake has more.
const LARGEST: u64 = 1 << 20;

/// Reads a file.
pub(super) fn enter(path: &Path, givens: &mut Givens, problems: &mut Vec<String>) {
    match read(path) {
        Ok(text) => parse(path, &text, givens, problems),
        Err(reason) => problems.push(format!("the configuration file {}: {reason}", path.display())),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is no file".to_owned());
    }
    if metadata.len() > LARGEST {
        return Err(format!("it has {} bytes; a configuration has {LARGEST} at most", metadata.len()));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| "it is no text in UTF-8".to_owned())
}

/// Reads the text of a file.
pub(super) fn parse(path: &Path, text: &str, givens: &mut Givens, problems: &mut Vec<String>) {
    let path = Arc::new(path.to_owned());
    let mut reading = Reading { path: Arc::clone(&path), seen: HashMap::new(), givens, problems };
    if let Err(error) = reading.document(Parser::new_from_str(text)) {
        let (line, reason) = (error.marker().line(), error.info());
        problems.push(format!("{}:{line}: no YAML: {reason}", path.display()));
    }
}

type Next<'a> = Result<(Event<'a>, Span), ScanError>;

/// A value as the file has it.
enum Node {
    /// A single one, and its line.
    Text(String, usize),
    /// Single ones in a row, and the line of the first.
    List(Vec<String>, usize),
    /// Names and values, each with its line.
    Mapping(Vec<(String, usize, Node)>),
    /// What no setting takes, and its line.
    Other(&'static str, usize),
}

struct Reading<'a> {
    path: Arc<PathBuf>,
    seen: HashMap<String, usize>,
    givens: &'a mut Givens,
    problems: &'a mut Vec<String>,
}

impl Reading<'_> {
    fn document<'a>(&mut self, mut events: impl Iterator<Item = Next<'a>>) -> Result<(), ScanError> {
        let mut documents = 0;
        while let Some(next) = events.next() {
            let (event, span) = next?;
            match event {
                Event::DocumentStart(..) => documents += 1,
                Event::MappingStart(..) if documents == 1 => {
                    if let Node::Mapping(entries) = mapping(&mut events)? {
                        entries.into_iter().for_each(|(key, line, node)| self.entry(&key, line, node));
                    }
                }
                // An empty file, or one with comments only.
                Event::Scalar(text, ScalarStyle::Plain, ..) if is_nothing(&text) => {}
                Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..) | Event::Alias(..) => {
                    self.problem(
                        span.start.line(),
                        "one mapping from keys to values is expected, and no more",
                    );
                    return Ok(());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn problem(&mut self, line: usize, reason: &str) {
        self.problems.push(format!("{}:{line}: {reason}", self.path.display()));
    }

    fn entry(&mut self, key: &str, line: usize, node: Node) {
        if let Some(first) = self.seen.insert(key.to_owned(), line) {
            return self.problem(line, &format!("{key} is there twice, first in line {first}"));
        }
        let setting = super::settings().map(super::Known::face).find(|face| face.key() == key);
        let family = super::families().find(|family| family.key == key);
        match (setting, family) {
            (Some(face), _) => self.setting(face, node),
            (None, Some(family)) => self.family(family, line, node),
            (None, None) => {
                self.problem(line, &format!("unknown key {key:?}; every key is in docs/configuration.md"))
            }
        }
    }

    fn source(&self, line: usize, key: String) -> Source {
        Source::File { path: Arc::clone(&self.path), line, key }
    }

    fn setting(&mut self, face: &Face, node: Node) {
        let (text, line) = match node {
            Node::Text(text, line) => (text, line),
            Node::List(texts, line) if face.is_list() => (texts.join(","), line),
            Node::List(_, line) => return self.no_value(face, line, "a list"),
            Node::Mapping(entries) => {
                let line = entries.first().map_or(0, |(_, line, _)| *line);
                return self.no_value(face, line, "a mapping");
            }
            Node::Other(what, line) => return self.no_value(face, line, what),
        };
        let source = self.source(line, face.key());
        self.givens.enter(face.flag, Given { text, source });
    }

    fn no_value(&mut self, face: &Face, line: usize, what: &str) {
        self.problem(line, &format!("{}: {what} is no value of it; allowed: {}", face.key(), face.allowed));
    }

    fn family(&mut self, family: &Family, line: usize, node: Node) {
        let entries = match node {
            Node::Mapping(entries) => entries,
            Node::Text(text, _) if text.is_empty() => return,
            _ => {
                return self
                    .problem(line, &format!("{}: a mapping from names to values is expected", family.key));
            }
        };
        for (name, line, node) in entries {
            let key = format!("{}.{name}", family.key);
            match node {
                Node::Text(text, line) => {
                    let source = self.source(line, key);
                    self.givens.enter_named(family.flag, family.canonical(&name), Given { text, source });
                }
                _ => self.problem(line, &format!("{key}: one value is expected, {}", family.allowed)),
            }
        }
    }
}

/// What a mapping has in it, after its start.
fn mapping<'a>(events: &mut impl Iterator<Item = Next<'a>>) -> Result<Node, ScanError> {
    let mut entries = Vec::new();
    while let Some(next) = events.next() {
        let (event, span) = next?;
        let line = span.start.line();
        let key = match event {
            Event::MappingEnd => break,
            Event::Scalar(key, ..) => key.into_owned(),
            Event::MappingStart(..) | Event::SequenceStart(..) | Event::Alias(..) => {
                node(event, line, events)?;
                String::from("(no text)")
            }
            _ => continue,
        };
        let value = loop {
            match events.next().transpose()? {
                None => return Ok(Node::Mapping(entries)),
                Some((
                    event @ (Event::Scalar(..)
                    | Event::MappingStart(..)
                    | Event::SequenceStart(..)
                    | Event::Alias(..)),
                    span,
                )) => break node(event, span.start.line(), events)?,
                Some(_) => {}
            }
        };
        entries.push((key, line, value));
    }
    Ok(Node::Mapping(entries))
}

/// The value that begins with an event.
fn node<'a>(
    first: Event<'a>,
    line: usize,
    events: &mut impl Iterator<Item = Next<'a>>,
) -> Result<Node, ScanError> {
    match first {
        Event::Scalar(text, style, ..) if style == ScalarStyle::Plain && is_nothing(&text) => {
            Ok(Node::Text(String::new(), line))
        }
        Event::Scalar(text, ..) => Ok(Node::Text(text.into_owned(), line)),
        // The parser limits the depth.
        Event::MappingStart(..) => mapping(events),
        Event::SequenceStart(..) => sequence(line, events),
        _ => Ok(Node::Other("an alias", line)),
    }
}

fn sequence<'a>(line: usize, events: &mut impl Iterator<Item = Next<'a>>) -> Result<Node, ScanError> {
    let (mut texts, mut is_flat) = (Vec::new(), true);
    let mut depth = 0_usize;
    for next in events {
        match next?.0 {
            Event::SequenceEnd if depth == 0 => break,
            Event::Scalar(text, ..) if depth == 0 => texts.push(text.into_owned()),
            Event::MappingStart(..) | Event::SequenceStart(..) => (depth, is_flat) = (depth + 1, false),
            Event::MappingEnd | Event::SequenceEnd => depth = depth.saturating_sub(1),
            Event::Alias(..) => is_flat = false,
            _ => {}
        }
    }
    Ok(if is_flat { Node::List(texts, line) } else { Node::Other("a nested list", line) })
}

fn is_nothing(text: &str) -> bool {
    matches!(text, "" | "~" | "null")
}
