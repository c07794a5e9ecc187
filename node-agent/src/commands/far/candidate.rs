//! A pod of the agents as the API tells of it: what says whether it can be asked, and nothing else. The client's own type reads every
//! field that a pod can have, which takes half a megabyte of code.

use std::borrow::Cow;

use kube::Resource;
use kube::api::Portforward;
use kube::core::{NamespaceResourceScope, ObjectMeta};
use serde::Deserialize;

/// A pod that may have the agent in it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Candidate {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    phase: Option<String>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

impl Candidate {
    /// One that runs and is ready before one that runs, and that before others: while an agent takes over there are two.
    pub(super) fn best(pods: Vec<Self>) -> Option<Self> {
        pods.into_iter().max_by_key(|pod| {
            let is_leaving = pod.metadata.deletion_timestamp.is_some();
            (pod.phase() == "Running", pod.is_ready(), !is_leaving)
        })
    }

    pub(super) fn name(&self) -> String {
        self.metadata.name.clone().unwrap_or_default()
    }

    pub(super) fn phase(&self) -> &str {
        self.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Unknown")
    }

    pub(super) fn is_ready(&self) -> bool {
        let conditions = self.status.as_ref().and_then(|status| status.conditions.as_ref());
        let mut ready = conditions.into_iter().flatten().filter(|condition| condition.r#type == "Ready");
        ready.any(|condition| condition.status == "True")
    }
}

impl Portforward for Candidate {}

impl Resource for Candidate {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, phase: &str, ready: &str) -> Candidate {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "ztunnel"}]},
            "status": {"phase": phase, "conditions": [
                {"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": ready, "reason": "x"},
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn the_agent_that_is_ready_is_asked() {
        let pods = vec![
            pod("old", "Succeeded", "False"),
            pod("new", "Running", "True"),
            pod("late", "Running", "False"),
        ];
        assert_eq!(Candidate::best(pods).unwrap().name(), "new");
        let pods = vec![pod("a", "Pending", "False"), pod("b", "Running", "False")];
        assert_eq!(Candidate::best(pods).unwrap().name(), "b");
        assert!(Candidate::best(Vec::new()).is_none());
        for bare in ["{}", r#"{"metadata": {}, "status": null}"#, r#"{"status": {"conditions": null}}"#] {
            let bare: Candidate = serde_json::from_str(bare).unwrap();
            assert_eq!((bare.phase(), bare.is_ready()), ("Unknown", false));
        }
    }

    #[test]
    fn of_two_that_are_ready_the_one_that_stays_is_asked() {
        let mut leaving = pod("leaving", "Running", "True");
        leaving.metadata =
            serde_json::from_value(json!({"name": "leaving", "deletionTimestamp": "2026-01-01T00:00:00Z"}))
                .unwrap();
        let stays = pod("stays", "Running", "True");
        for pods in [vec![leaving.clone(), stays.clone()], vec![stays, leaving]] {
            assert_eq!(Candidate::best(pods).unwrap().name(), "stays");
        }
    }
}
