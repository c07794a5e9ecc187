//! Field and label selectors of queries: `a=b`, `a==b`, `a!=b`, joined by commas; of labels also a key alone and `!key`.

use serde_json::Value;

use crate::error::Refusal;

/// Which objects a query asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    fields: Vec<Term>,
    labels: Vec<Term>,
}

#[derive(Clone, Debug)]
enum Term {
    Is(String, String),
    IsNot(String, String),
    Has(String),
    HasNot(String),
}

impl Selector {
    pub(crate) fn parse(fields: &str, labels: &str) -> Result<Self, Refusal> {
        let (fields, labels) = (terms(fields)?, terms(labels)?);
        for field in &fields {
            let name = match field {
                Term::Is(name, _) | Term::IsNot(name, _) | Term::Has(name) | Term::HasNot(name) => name,
            };
            if !["metadata.name", "metadata.namespace", "spec.nodeName", "status.phase"]
                .contains(&name.as_str())
            {
                return Err(Refusal::bad(format!("field label not supported: {name}")));
            }
        }
        Ok(Self { fields, labels })
    }

    /// The only name that objects may have, if there is one.
    pub(crate) fn name(&self) -> Option<&str> {
        self.fields.iter().find_map(|term| match term {
            Term::Is(field, name) if field == "metadata.name" => Some(name.as_str()),
            _ => None,
        })
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let field =
            |name: &str| object.pointer(&format!("/{}", name.replace('.', "/"))).and_then(Value::as_str);
        let labels = object.pointer("/metadata/labels");
        let label = |name: &str| labels.and_then(|labels| labels.get(name)).and_then(Value::as_str);
        self.fields.iter().all(|term| term.holds(|name| Some(field(name).unwrap_or_default())))
            && self.labels.iter().all(|term| term.holds(label))
    }
}

impl Term {
    fn holds<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Self::Is(name, wanted) => value(name) == Some(wanted),
            Self::IsNot(name, wanted) => value(name) != Some(wanted),
            Self::Has(name) => value(name).is_some(),
            Self::HasNot(name) => value(name).is_none(),
        }
    }
}

fn terms(text: &str) -> Result<Vec<Term>, Refusal> {
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    let own = |text: &str| text.trim().to_owned();
    words
        .map(|word| {
            if word.contains(['(', ')', ' ']) {
                return Err(Refusal::bad(format!("the stand-in does not know the selector {word:?}")));
            }
            Ok(if let Some((name, value)) = word.split_once("!=") {
                Term::IsNot(own(name), own(value))
            } else if let Some((name, value)) = word.split_once("==").or_else(|| word.split_once('=')) {
                Term::Is(own(name), own(value))
            } else if let Some(name) = word.strip_prefix('!') {
                Term::HasNot(own(name))
            } else {
                Term::Has(own(word))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn terms_hold_as_the_api_has_them() {
        let object = json!({
            "metadata": {"name": "a", "labels": {"app": "web"}}, "spec": {"nodeName": "n1"},
        });
        let matches = |fields: &str, labels: &str| Selector::parse(fields, labels).unwrap().matches(&object);
        assert!(matches("spec.nodeName=n1", "app=web") && matches("metadata.name==a,spec.nodeName!=n2", ""));
        assert!(!matches("spec.nodeName=n2", "") && !matches("", "app!=web") && !matches("", "!app"));
        assert!(matches("", "app,!other"));
        assert!(Selector::parse("spec.unknown=1", "").is_err() && Selector::parse("", "a in (b)").is_err());
    }
}
