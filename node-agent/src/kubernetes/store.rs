//! Pods and namespaces as they were last told, and what that comes to.
//!
//! Pure. Invariant: a pod's standing follows from the pod, its namespace and the rules alone, whatever the order in which they came; and a
//! deletion of a pod that has been replaced by another of its name deletes nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cni::ambient::{self, Map, PodFacts};
use control::file::Enrollment;

use super::follow::Change;
use super::object::{Namespace, Pod};
use super::view::{Known, Standing, View};
use crate::config::Membership;
use crate::enrollment::PodKey;

/// All that is known.
pub(super) struct Store {
    rules: Membership,
    /// None before they were listed.
    namespaces: Option<HashMap<String, Map>>,
    are_pods_listed: bool,
    pods: HashMap<PodKey, Pod>,
    /// What the pods come to, by the same keys.
    known: HashMap<PodKey, Arc<Known>>,
    ambient: Arc<BTreeSet<String>>,
}

impl Store {
    pub(super) fn new(rules: Membership) -> Self {
        Self {
            rules,
            namespaces: None,
            are_pods_listed: false,
            pods: HashMap::new(),
            known: HashMap::new(),
            ambient: Arc::default(),
        }
    }

    /// Takes what was told of pods.
    pub(super) fn pods(&mut self, change: Change<Pod>) {
        match change {
            Change::Applied(pod) => self.put(pod),
            Change::Deleted(pod) => {
                if self.pods.get(&pod.key).is_some_and(|known| known.uid == pod.uid) {
                    self.pods.remove(&pod.key);
                    self.known.remove(&pod.key);
                }
            }
            Change::Replaced(pods) => {
                self.are_pods_listed = true;
                self.pods.clear();
                self.known.clear();
                pods.into_iter().for_each(|pod| self.put(pod));
            }
        }
    }

    /// Takes what was told of namespaces.
    pub(super) fn namespaces(&mut self, change: Change<Namespace>) {
        let known = self.namespaces.get_or_insert_default();
        match change {
            Change::Applied(Namespace { name, labels }) => {
                // Most changes are of something else.
                if known.get(&name) == Some(&labels) {
                    return;
                }
                known.insert(name, labels);
            }
            Change::Deleted(Namespace { name, .. }) => drop(known.remove(&name)),
            Change::Replaced(all) => {
                *known = all.into_iter().map(|Namespace { name, labels }| (name, labels)).collect();
            }
        }
        let is_excluded = |name: &String| self.rules.excluded.contains(name);
        let is_in = |labels: &Map| self.rules.selectors.select_namespace(labels);
        let ambient = known.iter().filter(|(name, labels)| is_in(labels) && !is_excluded(name));
        self.ambient = Arc::new(ambient.map(|(name, _)| name.clone()).collect());
        self.known = self.pods.values().map(|pod| (pod.key.clone(), Arc::new(self.judge(pod)))).collect();
    }

    /// What it comes to.
    pub(super) fn view(&self) -> View {
        View {
            is_complete: self.are_pods_listed && self.namespaces.is_some(),
            pods: self.known.clone(),
            namespaces: Arc::clone(&self.ambient),
        }
    }

    fn put(&mut self, pod: Pod) {
        self.known.insert(pod.key.clone(), Arc::new(self.judge(&pod)));
        self.pods.insert(pod.key.clone(), pod);
    }

    fn judge(&self, pod: &Pod) -> Known {
        Known {
            uid: Arc::clone(&pod.uid),
            runtime_uid: Arc::clone(&pod.runtime_uid),
            standing: self.standing(pod),
            ips: pod.ips.clone(),
            says: pod.says,
            version: pod.version,
        }
    }

    fn standing(&self, pod: &Pod) -> Standing {
        if pod.is_terminal {
            return Standing::Out;
        }
        let PodKey { namespace, name } = &pod.key;
        let Some(of_namespace) = self.namespaces.as_ref().and_then(|known| known.get(namespace)) else {
            return Standing::Undecided;
        };
        let facts = PodFacts {
            namespace,
            name,
            labels: &pod.labels,
            annotations: &pod.annotations,
            host_network: pod.host_network,
        };
        let Membership { selectors, excluded } = &self.rules;
        if !ambient::decide(facts, of_namespace, selectors, excluded).is_ambient() {
            return Standing::Out;
        }
        let mut annotations = pod.annotations.clone();
        annotations.remove(ambient::SIDECAR_STATUS);
        Standing::In(Enrollment {
            name: name.clone(),
            namespace: namespace.clone(),
            service_account: pod.service_account.clone(),
            netns: None,
            container: None,
            annotations,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKS: (&str, &str) = (ambient::DATAPLANE_MODE, ambient::AMBIENT);

    fn map(pairs: &[(&str, &str)]) -> Map {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn pod(name: &str, uid: &str, labels: &[(&str, &str)]) -> Pod {
        Pod {
            key: PodKey { namespace: "demo".into(), name: name.into() },
            uid: uid.into(),
            runtime_uid: uid.into(),
            labels: map(labels),
            annotations: Map::new(),
            host_network: false,
            service_account: Some("default".into()),
            ips: Vec::new(),
            is_terminal: false,
            says: None,
            version: 1,
        }
    }

    fn namespace(labels: &[(&str, &str)]) -> Namespace {
        Namespace { name: "demo".into(), labels: map(labels) }
    }

    fn store() -> Store {
        Store::new(Membership { excluded: vec!["kube-system".into()], ..Membership::default() })
    }

    fn is_in(store: &Store, name: &str) -> Option<bool> {
        let key = PodKey { namespace: "demo".into(), name: name.into() };
        match store.view().pods.get(&key)?.standing {
            Standing::In(_) => Some(true),
            Standing::Out => Some(false),
            Standing::Undecided => None,
        }
    }

    #[test]
    fn the_order_in_which_things_are_told_does_not_matter() {
        let mut first = store();
        first.pods(Change::Replaced(vec![pod("a", "1", &[])]));
        assert_eq!(is_in(&first, "a"), None);
        assert!(!first.view().is_complete);
        first.namespaces(Change::Replaced(vec![namespace(&[ASKS])]));
        let mut second = store();
        second.namespaces(Change::Replaced(vec![namespace(&[ASKS])]));
        second.pods(Change::Replaced(vec![pod("a", "1", &[])]));
        for store in [first, second] {
            assert_eq!(is_in(&store, "a"), Some(true));
            assert!(store.view().is_complete && store.view().namespaces.contains("demo"));
        }
    }

    #[test]
    fn labels_of_pods_and_namespaces_bring_pods_in_and_out() {
        let mut store = store();
        store.namespaces(Change::Replaced(vec![namespace(&[])]));
        store.pods(Change::Replaced(vec![pod("a", "1", &[])]));
        assert_eq!(is_in(&store, "a"), Some(false));
        store.pods(Change::Applied(pod("a", "1", &[ASKS])));
        assert_eq!(is_in(&store, "a"), Some(true));
        store.pods(Change::Applied(pod("a", "1", &[])));
        store.namespaces(Change::Applied(namespace(&[ASKS])));
        assert_eq!(is_in(&store, "a"), Some(true));
        store.namespaces(Change::Applied(namespace(&[])));
        assert_eq!(is_in(&store, "a"), Some(false));
        store.namespaces(Change::Deleted(namespace(&[])));
        assert_eq!(is_in(&store, "a"), None);
    }

    #[test]
    fn a_terminal_pod_is_out_whatever_its_labels_say() {
        let mut store = store();
        store.namespaces(Change::Replaced(vec![namespace(&[ASKS])]));
        store.pods(Change::Applied(Pod { is_terminal: true, ..pod("a", "1", &[ASKS]) }));
        assert_eq!(is_in(&store, "a"), Some(false));
    }

    #[test]
    fn a_late_deletion_does_not_delete_the_next_pod_of_the_name_and_a_list_deletes_what_is_not_in_it() {
        let mut store = store();
        store.pods(Change::Replaced(vec![pod("a", "1", &[]), pod("b", "1", &[])]));
        store.pods(Change::Applied(pod("a", "2", &[])));
        store.pods(Change::Deleted(pod("a", "1", &[])));
        assert_eq!(store.view().pods.len(), 2);
        store.pods(Change::Deleted(pod("a", "2", &[])));
        assert_eq!(store.view().pods.len(), 1);
        store.pods(Change::Replaced(Vec::new()));
        assert!(store.view().pods.is_empty());
    }
}
