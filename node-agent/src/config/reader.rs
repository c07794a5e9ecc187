//! Reads values that were written, and notes everything that is wrong with them instead of stopping at the first.

use std::collections::BTreeSet;

use super::given::{Given, Givens};
use super::setting::{Face, Known as _, Setting};

/// Reads settings one by one.
pub(crate) struct Reader<'a> {
    givens: &'a Givens,
    problems: Vec<String>,
    bad: BTreeSet<&'static str>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(givens: &'a Givens, problems: Vec<String>) -> Self {
        Self { givens, problems, bad: BTreeSet::new() }
    }

    /// The value of a setting. A bad one is noted, and the default stands in for it so that the others are read, too.
    ///
    /// There is none only if the default is bad as well, which is noted like any other.
    pub(crate) fn read<T>(&mut self, setting: &Setting<T>) -> Option<T> {
        let face = setting.face();
        if let Some(given) = self.givens.settings.get(face.flag) {
            match setting.parse(&given.text) {
                Ok(value) => return Some(value),
                Err(reason) => {
                    self.problems.push(blame(face, given, &reason));
                    self.bad.insert(face.flag);
                }
            }
        }
        match setting.parse(face.default) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.problems.push(format!("--{}: the default {:?}: {reason}", face.flag, face.default));
                None
            }
        }
    }

    /// Whether the values that were read of these settings are what was written; else it is of no use to compare them.
    pub(crate) fn are_good(&self, faces: &[&Face]) -> bool {
        faces.iter().all(|face| !self.bad.contains(face.flag))
    }

    /// Everything that was written.
    pub(crate) fn givens(&self) -> &'a Givens {
        self.givens
    }

    /// Notes that settings do not go together.
    pub(crate) fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// A setting as its source has it.
    pub(crate) fn quote(&self, face: &Face) -> String {
        match self.givens.settings.get(face.flag) {
            Some(given) => given.source.quote(&shown(face, &given.text)),
            None => format!("--{}={} (default)", face.flag, face.default),
        }
    }

    /// Everything that was wrong.
    pub(crate) fn finish(self) -> Vec<String> {
        self.problems
    }
}

/// The value as a message may have it.
fn shown(face: &Face, text: &str) -> String {
    const LONGEST: usize = 200;
    let Some(text) = face.shown(text) else { return "(secret)".to_owned() };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default().escape_debug()),
        None => text.escape_debug().to_string(),
    }
}

/// A bad value, where it was written and what is allowed instead.
fn blame(face: &Face, given: &Given, reason: &str) -> String {
    format!("{}: {reason}; allowed: {}", given.source.quote(&shown(face, &given.text)), face.allowed)
}
