//! The configuration that is in force, as it may be shown: every setting with its value and where that comes from.
//!
//! Invariant: what is secret is nowhere in it.

use serde::Serialize;
use serde_json::{Map, Value};

use super::given::{Given, Givens, Source};
use super::setting::Family;

/// Every setting, in the order of the documentation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Effective {
    /// The settings.
    pub(crate) rows: Vec<Row>,
}

/// A setting, or one of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// What it is about.
    pub(crate) section: &'static str,
    /// Its key in the configuration file.
    pub(crate) key: String,
    /// Its name, if it is one of a family.
    pub(crate) name: Option<String>,
    /// Its value; none if that is secret.
    pub(crate) value: Option<String>,
    /// Where that comes from.
    pub(crate) source: Source,
}

impl Effective {
    pub(super) fn of(givens: &Givens) -> Self {
        let mut rows = Vec::new();
        for section in super::SECTIONS {
            for face in section.settings.iter().map(|known| known.face()) {
                let (text, source) = match givens.settings.get(face.flag) {
                    Some(Given { text, source }) => (text.as_str(), source.clone()),
                    None => (face.default, Source::Default),
                };
                let value = face.shown(text).map(str::to_owned);
                rows.push(Row { section: section.title, key: face.key(), name: None, value, source });
            }
            for family in section.families {
                let of_it = givens.family(family.flag);
                rows.extend(of_it.map(|(name, given)| Row::named(section.title, family, name, given)));
            }
        }
        Self { rows }
    }
}

impl Row {
    fn named(section: &'static str, family: &Family, name: &str, given: &Given) -> Self {
        Self {
            section,
            key: family.key.to_owned(),
            name: Some(name.to_owned()),
            value: (!family.is_secret).then(|| given.text.clone()),
            source: given.source.clone(),
        }
    }

    fn shown(&self) -> Value {
        let value = self.value.clone().map_or(Value::Null, Value::String);
        let mut shown = Map::from_iter([
            ("value".to_owned(), value),
            ("source".to_owned(), self.source.to_string().into()),
        ]);
        if self.value.is_none() {
            shown.insert("secret".to_owned(), Value::Bool(true));
        }
        Value::Object(shown)
    }
}

/// As `{key: {value, source}}`, those of a family under their names once more. A secret has no value.
impl Serialize for Effective {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut all = Map::new();
        for row in &self.rows {
            match &row.name {
                None => drop(all.insert(row.key.clone(), row.shown())),
                Some(name) => {
                    let family = all.entry(row.key.clone()).or_insert_with(|| Value::Object(Map::new()));
                    if let Some(family) = family.as_object_mut() {
                        family.insert(name.clone(), row.shown());
                    }
                }
            }
        }
        all.serialize(serializer)
    }
}
