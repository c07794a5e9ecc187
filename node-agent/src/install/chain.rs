//! A network configuration of the container runtime as text, and our plugin's entry in it.
//!
//! An entry is put into the text, or cut out of it; nothing else of it is written anew. So what somebody else wrote stays as it
//! was, byte for byte, and removal leaves what was there before. Invariant: what comes out has our entry once, as the last one.

use std::borrow::Cow;
use std::fmt::Write as _;

use cni::config::SUPPORTED_VERSIONS;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::entry::{Entry, PLUGIN};

/// Versions that a single plugin may name although ours does not speak them: its list gets the next one.
const TOO_OLD: [&str; 4] = ["", "0.1.0", "0.2.0", "0.3.0"];
const NEXT: &str = "0.3.1";
/// Another mesh's plugin, which our entry may take the place of.
const REPLACED: &str = "istio-cni";

/// How a file holds its configuration, by the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A list of plugins.
    List,
    /// One plugin.
    Single,
}

impl Form {
    /// The form of a file of this name; none if the runtime does not read it.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let (stem, end) = name.rsplit_once('.')?;
        match end {
            "conflist" if !stem.is_empty() => Some(Self::List),
            "conf" | "json" if !stem.is_empty() => Some(Self::Single),
            _ => None,
        }
    }
}

/// Why a text is no configuration that a plugin can be added to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChainError {
    /// No JSON, or not of the shape that it should have.
    #[error("it is no network configuration: {0}")]
    Malformed(String),
    /// A list in a file that is to have one plugin, or a plugin without a name.
    #[error("it has no `type`; a list of plugins belongs into a file that ends in .conflist")]
    NoType,
    /// The specification wants one.
    #[error("it has no `name`")]
    NoName,
    /// Nothing is in the list.
    #[error("it has no plugin in it")]
    Empty,
    /// Of a version that our plugin does not speak.
    #[error("its cniVersion is {0:?}, which culvert-cni does not speak: set it to one of {known}", known = SUPPORTED_VERSIONS.join(", "))]
    Version(String),
}

/// A configuration, as it was read.
#[derive(Debug)]
pub(crate) struct Chain<'a> {
    /// What is before and after the entries.
    around: (Cow<'a, str>, Cow<'a, str>),
    entries: Vec<Part<'a>>,
}

/// An entry with the blanks around it.
#[derive(Clone, Debug)]
struct Part<'a> {
    before: Cow<'a, str>,
    text: Cow<'a, str>,
    after: Cow<'a, str>,
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    #[serde(default)]
    cni_version: String,
    #[serde(default)]
    name: String,
    #[serde(borrow)]
    plugins: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Single {
    #[serde(default)]
    cni_version: String,
    #[serde(default)]
    name: String,
    #[serde(default, rename = "type")]
    kind: String,
}

impl<'a> Chain<'a> {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// A [`ChainError`] if the runtime could not use it, or our plugin not be in it.
    pub(crate) fn read(text: &'a str, form: Form) -> Result<Self, ChainError> {
        match form {
            Form::List => Self::list(text),
            Form::Single => Self::single(text),
        }
    }

    fn list(text: &'a str) -> Result<Self, ChainError> {
        let list: List<'a> = parse(text)?;
        if list.name.is_empty() {
            return Err(ChainError::NoName);
        }
        check_version(&list.cni_version)?;
        let array = list.plugins.get();
        let raw: Vec<&'a RawValue> = parse(array)?;
        let entries = parts(array, &raw)?;
        let start = offset(text, array).ok_or(ChainError::Empty)? + 1;
        let end = start + array.len().saturating_sub(2);
        let (Some(head), Some(tail)) = (text.get(..start), text.get(end..)) else {
            return Err(ChainError::Empty);
        };
        if entries.iter().all(Part::is_ours) {
            return Err(ChainError::Empty);
        }
        Ok(Self { around: (Cow::Borrowed(head), Cow::Borrowed(tail)), entries })
    }

    /// One plugin becomes a list that has its whole text in it.
    fn single(text: &'a str) -> Result<Self, ChainError> {
        let single: Single = parse(text)?;
        if single.kind.is_empty() {
            return Err(ChainError::NoType);
        }
        if single.name.is_empty() {
            return Err(ChainError::NoName);
        }
        let version = match TOO_OLD.contains(&single.cni_version.as_str()) {
            true => NEXT.to_owned(),
            false => single.cni_version,
        };
        check_version(&version)?;
        let head = format!(
            "{{\"cniVersion\":{},\"name\":{},\"plugins\":[",
            Value::from(version.as_str()),
            Value::from(single.name.as_str())
        );
        let inner = text.trim();
        let before = text.len() - text.trim_start().len();
        let entry = Part {
            before: Cow::Owned(format!("\n{}", text.get(..before).unwrap_or_default())),
            text: Cow::Borrowed(inner),
            after: Cow::Borrowed(text.get(before + inner.len()..).unwrap_or_default()),
            kind: single.kind,
        };
        let around = (Cow::Owned(head), Cow::Borrowed("]}\n"));
        Ok(Self { around, entries: vec![entry] })
    }

    /// The names of the plugins, in order, without ours.
    pub(crate) fn plugins(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|part| !part.is_ours()).map(|part| part.kind.as_str())
    }

    /// Whether another mesh's plugin is in it.
    pub(crate) fn has_other_mesh(&self) -> bool {
        self.plugins().any(|kind| kind == REPLACED)
    }

    /// Whether our plugin is in it.
    pub(crate) fn has_ours(&self) -> bool {
        self.entries.iter().any(Part::is_ours)
    }

    /// Our entry, if it is there.
    pub(crate) fn ours(&self) -> Option<Entry> {
        let part = self.entries.iter().rfind(|part| part.is_ours())?;
        serde_json::from_str(&part.text).ok()
    }

    /// The text with an entry of ours as the last one; none if it is there already, and nowhere else.
    ///
    /// What an entry of ours that was there says of what it has replaced or wrapped, the new one says as well.
    pub(crate) fn with(&self, entry: &Entry, replace: bool) -> Option<String> {
        let mut entry = entry.clone();
        let known = self.ours().unwrap_or_default();
        entry.wraps = entry.wraps.or(known.wraps);
        let mut entries: Vec<_> = self.entries.iter().filter(|part| !part.is_ours()).cloned().collect();
        entry.replaces = known.replaces;
        if replace {
            let replaced = |part: &Part<'_>| part.kind == REPLACED;
            let raw = entries.iter().filter(|part| replaced(part));
            // A newer one of it is the one to be put back.
            let raw: Vec<_> = raw.map(|part| part.text.to_string()).collect();
            if !raw.is_empty() {
                entry.replaces = raw;
            }
            let end = entries.last().map(|part| part.after.clone());
            entries.retain(|part| !replaced(part));
            hand_over_end(&mut entries, end);
        }
        let text = entry.to_json();
        let is_there = self.entries.last().is_some_and(|last| last.is_ours() && is_same(&last.text, &text));
        if is_there && entries.len() + 1 == self.entries.len() {
            return None;
        }
        let end = self.entries.last().map(|part| part.after.clone());
        hand_over_end(&mut entries, end);
        let last = entries.last_mut()?;
        let end = std::mem::replace(&mut last.after, self.inner_end());
        let before = self.indent();
        entries.push(Part { before, text: Cow::Owned(text), after: end, kind: PLUGIN.to_owned() });
        Some(self.assemble(&entries))
    }

    /// The text without our entry, and with what that had replaced; none if ours is not in it.
    pub(crate) fn without(&self) -> Option<String> {
        if !self.has_ours() {
            return None;
        }
        let end = self.entries.last().map(|part| part.after.clone());
        let mut entries: Vec<_> = self.entries.iter().filter(|part| !part.is_ours()).cloned().collect();
        hand_over_end(&mut entries, end);
        for text in self.ours().unwrap_or_default().replaces {
            // Whoever edited it by hand does not get a broken file for it.
            if parse::<Single>(&text).is_err() {
                continue;
            }
            let after = entries.last_mut().map(|last| std::mem::take(&mut last.after)).unwrap_or_default();
            let kind = REPLACED.to_owned();
            entries.push(Part { before: self.indent(), text: Cow::Owned(text), after, kind });
        }
        Some(self.assemble(&entries))
    }

    /// The file that was wrapped into this list, and the text that it had; none if it is no such list any more.
    pub(crate) fn unwrapped(&self) -> Option<(String, String)> {
        let name =
            self.ours()?.wraps.filter(|name| is_file_name(name) && Form::of(name) == Some(Form::Single))?;
        let mut others = self.entries.iter().filter(|part| !part.is_ours());
        let (only, None) = (others.next()?, others.next()) else { return None };
        let before = only.before.strip_prefix('\n').unwrap_or(&only.before);
        Some((name, format!("{before}{}{}", only.text, only.after)))
    }

    /// The blanks before an entry: those before the last of the others.
    fn indent(&self) -> Cow<'a, str> {
        let last = self.entries.iter().rfind(|part| !part.is_ours());
        match last {
            // A wrapped one has its own blanks in it.
            Some(_) if self.is_wrapped() => Cow::Borrowed("\n"),
            Some(part) => part.before.clone(),
            None => Cow::Borrowed(""),
        }
    }

    /// What stands between a wrapped text and the comma after it belongs to that text.
    fn inner_end(&self) -> Cow<'a, str> {
        let last = self.entries.iter().rfind(|part| !part.is_ours());
        last.filter(|_| self.is_wrapped()).map(|part| part.after.clone()).unwrap_or_default()
    }

    fn is_wrapped(&self) -> bool {
        matches!(self.around.0, Cow::Owned(_)) || self.ours().is_some_and(|entry| entry.wraps.is_some())
    }

    fn assemble(&self, entries: &[Part<'_>]) -> String {
        let mut text = self.around.0.to_string();
        for (position, part) in entries.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            // Writing to a String cannot fail.
            let _ = write!(text, "{comma}{}{}{}", part.before, part.text, part.after);
        }
        text.push_str(&self.around.1);
        text
    }
}

impl Part<'_> {
    fn is_ours(&self) -> bool {
        self.kind == PLUGIN
    }
}

/// Gives the blanks before the closing bracket to what has become the last entry.
fn hand_over_end<'a>(entries: &mut [Part<'a>], end: Option<Cow<'a, str>>) {
    if let (Some(last), Some(end)) = (entries.last_mut(), end)
        && last.after.is_empty()
    {
        last.after = end;
    }
}

/// The entries of an array with the blanks around each.
fn parts<'a>(array: &'a str, raw: &[&'a RawValue]) -> Result<Vec<Part<'a>>, ChainError> {
    let mut found = Vec::new();
    let mut at = 1;
    let end = array.len().saturating_sub(1);
    for (position, value) in raw.iter().enumerate() {
        let text = value.get();
        let start = offset(array, text).ok_or(ChainError::Empty)?;
        let kind: Single = parse(text)?;
        if kind.kind.is_empty() {
            return Err(ChainError::NoType);
        }
        let before = array.get(at..start).unwrap_or_default();
        let rest = match raw.get(position + 1) {
            Some(next) => array.get(start + text.len()..offset(array, next.get()).unwrap_or(end)),
            None => array.get(start + text.len()..end),
        };
        let after = rest.unwrap_or_default().split(',').next().unwrap_or_default();
        at = start + text.len() + after.len() + 1;
        found.push(Part {
            before: Cow::Borrowed(before),
            text: Cow::Borrowed(text),
            after: Cow::Borrowed(after),
            kind: kind.kind,
        });
    }
    Ok(found)
}

fn check_version(version: &str) -> Result<(), ChainError> {
    if SUPPORTED_VERSIONS.contains(&version) {
        return Ok(());
    }
    Err(ChainError::Version(version.to_owned()))
}

/// Where a part of a text begins.
fn offset(text: &str, part: &str) -> Option<usize> {
    part.as_ptr().addr().checked_sub(text.as_ptr().addr()).filter(|at| *at <= text.len())
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, ChainError> {
    serde_json::from_str(text).map_err(|error| ChainError::Malformed(error.to_string()))
}

/// Whether two entries say the same, however they are written.
fn is_same(one: &str, other: &str) -> bool {
    match (serde_json::from_str::<Value>(one), serde_json::from_str::<Value>(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

/// Nothing that leads out of the directory.
fn is_file_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != ".."
}

#[cfg(test)]
mod tests;
