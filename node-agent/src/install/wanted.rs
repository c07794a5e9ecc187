//! Whether this node is to have an agent after the one that ends: an upgrade, or the end of the installation.
//!
//! Kubernetes ends the agent's pod in both cases. What tells them apart is the agent's DaemonSet: whether it is there, and still
//! has a place for this node. Invariant: only what is known for sure ends an installation. Where the Kubernetes API does not
//! answer everything stays, and pods of the mesh wait for the next agent rather than leak.

use std::future::Future;
use std::pin::Pin;

use serde_json::{Map, Value};

/// What becomes of the installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There will be a next agent.
    Stays,
    /// There will be none, for this reason.
    Ends(String),
    /// It cannot be told, for this reason.
    Unknown(String),
}

/// What the Kubernetes API says of who wants an agent here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The agent's DaemonSet; none if there is no such thing.
    pub(crate) daemon_set: Option<Value>,
    /// The labels of this node; none if they are not known.
    pub(crate) labels: Option<Map<String, Value>>,
}

/// Who can ask the Kubernetes API.
pub(crate) trait Owner: Send + Sync {
    /// Asks once, within a limit; the error says why there is no answer.
    fn look(&self) -> Pin<Box<dyn Future<Output = Result<Seen, String>> + Send + '_>>;
}

/// What follows for the node of this name.
pub(crate) fn verdict(seen: Result<&Seen, &String>, node: &str) -> Verdict {
    let seen = match seen {
        Ok(seen) => seen,
        Err(reason) => return Verdict::Unknown(reason.clone()),
    };
    let Some(daemon_set) = &seen.daemon_set else {
        return Verdict::Ends("the agent's DaemonSet is gone".to_owned());
    };
    if daemon_set.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null()) {
        return Verdict::Ends("the agent's DaemonSet is being deleted".to_owned());
    }
    let Some(labels) = &seen.labels else {
        return Verdict::Unknown("the labels of this node are not known".to_owned());
    };
    let Some(pod) = daemon_set.pointer("/spec/template/spec") else {
        return Verdict::Unknown("the agent's DaemonSet has no pod in it".to_owned());
    };
    if selects(pod, labels, node) == Some(false) {
        return Verdict::Ends("the agent's DaemonSet does not want this node any more".to_owned());
    }
    Verdict::Stays
}

/// Whether a pod may be on a node; none if that cannot be told.
fn selects(pod: &Value, labels: &Map<String, Value>, node: &str) -> Option<bool> {
    if let Some(selector) = pod.get("nodeSelector").and_then(Value::as_object)
        && selector.iter().any(|(key, value)| labels.get(key) != Some(value))
    {
        return Some(false);
    }
    let terms = "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let Some(terms) = pod.pointer(terms).and_then(Value::as_array) else { return Some(true) };
    let mut unknown = false;
    for term in terms {
        match fits(term, labels, node) {
            Some(true) => return Some(true),
            Some(false) => {}
            None => unknown = true,
        }
    }
    (!unknown && !terms.is_empty()).then_some(false)
}

/// Whether all requirements of a term are met.
fn fits(term: &Value, labels: &Map<String, Value>, node: &str) -> Option<bool> {
    let list = |key| term.get(key).and_then(Value::as_array).into_iter().flatten();
    let mut whole = Some(true);
    for requirement in list("matchExpressions") {
        let key = requirement.get("key").and_then(Value::as_str)?;
        match is_met(requirement, labels.get(key).and_then(Value::as_str)) {
            Some(true) => {}
            Some(false) => return Some(false),
            None => whole = None,
        }
    }
    for requirement in list("matchFields") {
        // metadata.name is the only field that there is.
        match is_met(requirement, Some(node)) {
            Some(true) => {}
            Some(false) => return Some(false),
            None => whole = None,
        }
    }
    whole
}

/// Whether a label is as it is required; none for a word that is not known.
fn is_met(requirement: &Value, label: Option<&str>) -> Option<bool> {
    let mut values = requirement.get("values").and_then(Value::as_array).into_iter().flatten();
    let mut number = || values.next().and_then(Value::as_str).and_then(|value| value.parse::<i64>().ok());
    match requirement.get("operator").and_then(Value::as_str)? {
        "In" => Some(values.any(|value| label.is_some() && value.as_str() == label)),
        "NotIn" => Some(!values.any(|value| label.is_some() && value.as_str() == label)),
        "Exists" => Some(label.is_some()),
        "DoesNotExist" => Some(label.is_none()),
        "Gt" => {
            Some(label.and_then(|label| label.parse::<i64>().ok()).zip(number()).is_some_and(|(l, v)| l > v))
        }
        "Lt" => {
            Some(label.and_then(|label| label.parse::<i64>().ok()).zip(number()).is_some_and(|(l, v)| l < v))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(daemon_set: Value, labels: Value) -> Verdict {
        let seen = Seen { daemon_set: Some(daemon_set), labels: labels.as_object().cloned() };
        verdict(Ok(&seen), "n1")
    }

    #[test]
    fn what_is_there_stays_and_what_is_not_ends() {
        assert_eq!(of(json!({ "spec": { "template": { "spec": {} } } }), json!({})), Verdict::Stays);
        assert!(matches!(verdict(Ok(&Seen::default()), "n1"), Verdict::Ends(_)));
        let going = json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" }, "spec": { "template": { "spec": {} } } });
        assert!(matches!(of(going, json!({})), Verdict::Ends(_)));
    }

    #[test]
    fn what_is_not_known_stays() {
        assert_eq!(
            verdict(Err(&"it is silent".to_owned()), "n1"),
            Verdict::Unknown("it is silent".to_owned())
        );
        assert!(matches!(
            of(json!({ "spec": { "template": { "spec": {} } } }), json!(null)),
            Verdict::Unknown(_)
        ));
        assert!(matches!(of(json!({}), json!({})), Verdict::Unknown(_)));
        let odd = json!({ "key": "a", "operator": "Sounds", "values": ["b"] });
        let spec = json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{ "matchExpressions": [odd] }] } } } });
        assert_eq!(of(json!({ "spec": { "template": { "spec": spec } } }), json!({})), Verdict::Stays);
    }

    #[test]
    fn a_node_that_is_no_longer_selected_ends() {
        let with =
            |spec: Value, labels: Value| of(json!({ "spec": { "template": { "spec": spec } } }), labels);
        let selector = json!({ "nodeSelector": { "mesh": "culvert" } });
        assert_eq!(with(selector.clone(), json!({ "mesh": "culvert", "other": "x" })), Verdict::Stays);
        for labels in [json!({ "mesh": "ztunnel" }), json!({})] {
            assert!(matches!(with(selector.clone(), labels), Verdict::Ends(_)));
        }
        let affinity = |requirement: Value| {
            json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{ "matchExpressions": [requirement] }] } } } })
        };
        let labels = json!({ "zone": "a", "size": "4" });
        for (operator, key, values, stays) in [
            ("In", "zone", json!(["a", "b"]), true),
            ("In", "zone", json!(["b"]), false),
            ("In", "none", json!(["b"]), false),
            ("NotIn", "zone", json!(["a"]), false),
            ("NotIn", "none", json!(["a"]), true),
            ("Exists", "zone", json!(null), true),
            ("Exists", "none", json!(null), false),
            ("DoesNotExist", "zone", json!(null), false),
            ("Gt", "size", json!(["3"]), true),
            ("Gt", "zone", json!(["3"]), false),
            ("Lt", "size", json!(["4"]), false),
        ] {
            let required = affinity(json!({ "key": key, "operator": operator, "values": values }));
            let is = with(required, labels.clone());
            assert_eq!(is == Verdict::Stays, stays, "{operator} {key} {values}: {is:?}");
        }
        let terms = json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [
                { "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["n2"] }] },
                { "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["n1"] }] },
            ] } } } });
        assert_eq!(with(terms, json!({})), Verdict::Stays, "one of several is enough");
    }
}
