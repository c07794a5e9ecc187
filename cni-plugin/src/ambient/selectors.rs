//! Label selectors, and which pods a mesh selects by them: `ambient.enablementSelectors`, a list of pairs of a pod selector and a namespace
//! selector, of which one pair has to match.
//!
//! The words and their meaning are those of Kubernetes (`LabelSelector` of meta/v1): all requirements of a selector must hold, an
//! empty one matches everything, and `NotIn` holds of what lacks the label. Invariant: what could mean nothing is refused when it is read.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{AMBIENT, DATAPLANE_MODE, Map, NONE};

/// Which pods are in the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Selectors {
    pairs: Vec<Pair>,
}

/// One way to be in the mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Pair {
    #[serde(default, skip_serializing_if = "LabelSelector::is_empty")]
    pod_selector: LabelSelector,
    #[serde(default, skip_serializing_if = "LabelSelector::is_empty")]
    namespace_selector: LabelSelector,
}

/// Requirements of labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels that must have these values.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub match_labels: Map,
    /// Requirements of other kinds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Expression>,
}

/// A requirement of one label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expression {
    /// The label.
    pub key: String,
    /// What is required of it.
    pub operator: Operator,
    /// Of `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// What is required of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    /// It has one of the values.
    In,
    /// It has none of the values, or is not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

/// Selectors that mean nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SelectorsError {
    /// `In` or `NotIn` of nothing.
    #[error("the requirement {operator:?} of the label {key:?} has no values; give it some")]
    NoValues {
        /// The label.
        key: String,
        /// The operator.
        operator: Operator,
    },
    /// Values that nothing is done with.
    #[error("the requirement {operator:?} of the label {key:?} has values; it takes none")]
    Values {
        /// The label.
        key: String,
        /// The operator.
        operator: Operator,
    },
}

impl Default for Selectors {
    /// The labels alone: a pod that asks for it, and a pod of a namespace that does unless the pod itself declines.
    fn default() -> Self {
        let asks = || LabelSelector {
            match_labels: Map::from([(DATAPLANE_MODE.to_owned(), AMBIENT.to_owned())]),
            match_expressions: Vec::new(),
        };
        let declines = Expression {
            key: DATAPLANE_MODE.to_owned(),
            operator: Operator::NotIn,
            values: vec![NONE.to_owned()],
        };
        let not_declining = LabelSelector { match_labels: Map::new(), match_expressions: vec![declines] };
        let pairs = vec![
            Pair { pod_selector: asks(), namespace_selector: LabelSelector::default() },
            Pair { pod_selector: not_declining, namespace_selector: asks() },
        ];
        Self { pairs }
    }
}

impl Selectors {
    /// Refuses what means nothing; whoever reads selectors calls this.
    ///
    /// # Errors
    /// The first requirement that is wrong.
    pub fn check(&self) -> Result<(), SelectorsError> {
        let selectors = self.pairs.iter().flat_map(|pair| [&pair.pod_selector, &pair.namespace_selector]);
        for expression in selectors.flat_map(|selector| &selector.match_expressions) {
            let Expression { key, operator, values } = expression;
            let takes_values = matches!(operator, Operator::In | Operator::NotIn);
            let (key, operator) = (key.clone(), *operator);
            match (takes_values, values.is_empty()) {
                (true, true) => return Err(SelectorsError::NoValues { key, operator }),
                (false, false) => return Err(SelectorsError::Values { key, operator }),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether a pod with these labels, in a namespace with those, is in the mesh.
    pub fn select(&self, pod: &Map, namespace: &Map) -> bool {
        let matches =
            |pair: &Pair| pair.pod_selector.matches(pod) && pair.namespace_selector.matches(namespace);
        self.pairs.iter().any(matches)
    }

    /// Whether a pod with these labels is in the mesh, in a namespace of which nothing is known but that some pair selects it. One that
    /// selects the pod counts, whatever it says of namespaces: so a pod is taken for one of the mesh rather than for none.
    pub fn may_select(&self, pod: &Map) -> bool {
        self.pairs.iter().any(|pair| pair.pod_selector.matches(pod))
    }

    /// Whether pods of a namespace with these labels are in the mesh by its labels, unless their own say otherwise.
    ///
    /// A pair that says nothing of namespaces counts only if it says nothing of pods either: else the pod alone decides.
    pub fn select_namespace(&self, namespace: &Map) -> bool {
        let says = |pair: &Pair| !pair.namespace_selector.is_empty() || pair.pod_selector.is_empty();
        self.pairs.iter().any(|pair| says(pair) && pair.namespace_selector.matches(namespace))
    }
}

impl LabelSelector {
    /// Whether labels fulfil all requirements.
    pub fn matches(&self, labels: &Map) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|expression| expression.matches(labels))
    }

    fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

impl Expression {
    fn matches(&self, labels: &Map) -> bool {
        let value = labels.get(&self.key);
        let is_listed = value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            Operator::In => is_listed,
            Operator::NotIn => !is_listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}
