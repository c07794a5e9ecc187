//! What became of a row, recorded or made here, in one form: flat objects, so that one way of comparing and of changing them does
//! for results, log lines and series alike.
//!
//! Invariant: nothing of a recorded object is left out on the way; what is chance is taken out later, on both sides alike.

use recordings::parity::Row;
use serde_json::{Map, Value};

use crate::series;

/// A result, a log line or a series that moved.
pub type Fields = Map<String, Value>;

/// All that a row is compared by. A part that was not recorded is not compared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// How it went for the client.
    pub results: Vec<Fields>,
    /// The lines of both nodes, each with its `node`.
    pub log: Option<Vec<Fields>>,
    /// The series that moved, each with its `node`, its `name`, its labels and by how much (`plus`).
    pub metrics: Option<Vec<Fields>>,
}

impl Outcome {
    /// What was recorded.
    pub fn recorded(row: &Row) -> Self {
        Self {
            results: row.results.iter().map(flat).collect(),
            log: row.access_log.clone(),
            metrics: row.metrics.as_ref().map(|moved| moved.iter().map(series::of_recorded).collect()),
        }
    }

    /// Without the parts that the other one has not.
    #[must_use]
    pub fn like(mut self, other: &Self) -> Self {
        self.log = self.log.filter(|_| other.log.is_some());
        self.metrics = self.metrics.filter(|_| other.metrics.is_some());
        self
    }

    /// Every object of every part.
    pub fn each(&mut self) -> impl Iterator<Item = &mut Fields> {
        self.results.iter_mut().chain(self.log.iter_mut().flatten()).chain(self.metrics.iter_mut().flatten())
    }

    /// In an order of its own, so that equal ones are equal.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        sort(&mut self.results);
        self.log.iter_mut().for_each(|lines| sort(lines));
        self.metrics.iter_mut().for_each(|series| sort(series));
        self
    }
}

/// An object with the objects in it laid open: `{"by": {"pod": …}}` becomes `{"by.pod": …}`.
pub fn flat(value: &Value) -> Fields {
    let mut fields = Fields::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        match value {
            Value::Object(inner) => {
                fields.extend(inner.iter().map(|(name, value)| (format!("{key}.{name}"), value.clone())));
            }
            other => {
                fields.insert(key.clone(), other.clone());
            }
        }
    }
    fields
}

/// A field's text; empty if it has none.
pub fn text<'a>(fields: &'a Fields, key: &str) -> &'a str {
    fields.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn sort(all: &mut [Fields]) {
    all.sort_by_cached_key(|fields| Value::Object(fields.clone()).to_string());
}
