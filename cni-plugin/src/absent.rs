//! What becomes of a pod whose agent is not there to say whether it is in the mesh.
//!
//! Two sources are left: the list of the mesh's namespaces that the agent keeps on disk, and, for a pod that it does not settle (its own
//! labels may say otherwise than its namespace), one question to the Kubernetes API. Invariant: a pod starts only if one of them says that it is not in the mesh; whatever
//! cannot be read, reached or understood holds it back, with the reason. So a node without its agent delays the pods of the
//! mesh and no others, and starts none of them in plaintext.

use crate::ambient::{self, AmbientList, Decision, Listed, Map, PodFacts};
use crate::api::{self, Metadata};
use crate::config::Config;
use crate::kubeconfig::Kubeconfig;
use crate::protocol::PodName;

/// What is to become of the pod, each with its reason in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is not in the mesh.
    MayStart(String),
    /// It is in the mesh, or nobody can tell.
    MustWait(String),
}

/// Decides without the agent.
pub fn decide(config: &Config, pod: &PodName) -> Fate {
    let annotations = config.annotations();
    if annotations.get(ambient::SIDECAR_STATUS).is_some_and(|status| !status.is_empty()) {
        return Fate::MayStart("it has a sidecar".to_owned());
    }
    let list = match AmbientList::read(&config.ambient_list) {
        Ok(list) => list,
        Err(error) => return unknown(&error.to_string()),
    };
    match list.find(&pod.namespace, &pod.name) {
        Listed::Yes => Fate::MustWait("it is in the mesh".to_owned()),
        Listed::No => Fate::MayStart("it is not in the mesh, as the agent last knew it".to_owned()),
        listed => match ask(config, pod) {
            Ok(found) => by_labels(config, &list, pod, &found, listed == Listed::Namespace),
            Err(why) if listed == Listed::Namespace => Fate::MustWait(format!(
                "its namespace is in the mesh, and nobody can tell whether its own labels say otherwise: {why}"
            )),
            Err(why) => unknown(&why),
        },
    }
}

fn ask(config: &Config, pod: &PodName) -> Result<Metadata, String> {
    let path = config
        .kubeconfig
        .as_ref()
        .ok_or("the conflist entry names no kubeconfig to ask the Kubernetes API with")?;
    let server = Kubeconfig::read(path).map_err(|error| error.to_string())?;
    api::pod(&server, pod, api::LIMIT).map_err(|error| error.to_string())
}

/// A namespace that is not on the list brings nobody into the mesh by its labels.
fn by_labels(config: &Config, list: &AmbientList, pod: &PodName, found: &Metadata, is_within: bool) -> Fate {
    let facts = PodFacts {
        namespace: &pod.namespace,
        name: &pod.name,
        labels: &found.labels,
        annotations: &found.annotations,
        // Such a pod has no network namespace that a plugin would be called for.
        host_network: false,
    };
    let (selectors, excluded) = (&list.selectors, &config.exclude_namespaces);
    let decision = if is_within {
        ambient::decide_within(facts, selectors, excluded)
    } else {
        ambient::decide(facts, &Map::new(), selectors, excluded)
    };
    match decision {
        Decision::Ambient => Fate::MustWait("its labels say that it is in the mesh".to_owned()),
        Decision::No(reason) => Fate::MayStart(format!("{reason}, says the Kubernetes API")),
    }
}

fn unknown(why: &str) -> Fate {
    Fate::MustWait(format!("nobody can tell whether it is in the mesh: {why}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::ambient::Selectors;

    fn pod(namespace: &str, name: &str) -> PodName {
        PodName { name: name.to_owned(), namespace: namespace.to_owned(), uid: None }
    }

    fn config(list: &Path, more: &str) -> Config {
        Config::parse(format!(r#"{{"cniVersion":"1.0.0","ambientList":{list:?}{more}}}"#).as_bytes()).unwrap()
    }

    fn list(dir: &Path, complete: bool) -> std::path::PathBuf {
        let path = dir.join("ambient.json");
        let names = |name: &str| [name.to_owned()].into();
        let list = AmbientList::new(names("demo"), names("other/by-name"), complete, Selectors::default());
        list.write(&path).unwrap();
        path
    }

    fn may_start(fate: &Fate) -> bool {
        matches!(fate, Fate::MayStart(_))
    }

    #[test]
    fn without_a_list_every_pod_waits() {
        let Fate::MustWait(why) = decide(&config(Path::new("/nonexistent/ambient.json"), ""), &pod("a", "b"))
        else {
            panic!("a pod starts of which nothing is known");
        };
        assert!(why.contains("nobody can tell") && why.contains("/nonexistent/ambient.json"), "{why}");
    }

    #[test]
    fn the_list_settles_what_it_can() {
        let dir = tempfile::tempdir().unwrap();
        for complete in [true, false] {
            let config = config(&list(dir.path(), complete), "");
            assert!(!may_start(&decide(&config, &pod("demo", "any"))));
            assert!(!may_start(&decide(&config, &pod("other", "by-name"))));
            // With an incomplete list and nobody to ask, another pod waits as well.
            assert_eq!(may_start(&decide(&config, &pod("other", "another"))), complete);
        }
    }

    #[test]
    fn a_pod_with_a_sidecar_is_told_by_the_runtime_already() {
        let more =
            r#","runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"sidecar.istio.io/status":"{}"}}"#;
        assert!(may_start(&decide(&config(Path::new("/nonexistent"), more), &pod("demo", "a"))));
        let emptied = more.replace("{}\"", "\"");
        assert!(!may_start(&decide(&config(Path::new("/nonexistent"), &emptied), &pod("demo", "a"))));
    }

    #[test]
    fn labels_decide_of_what_is_not_listed() {
        let dir = tempfile::tempdir().unwrap();
        let path = list(dir.path(), false);
        let (config, list) = (config(&path, ""), AmbientList::read(&path).unwrap());
        let judge = |labels: &str, is_within: bool| {
            let found: Metadata = serde_json::from_str(labels).unwrap();
            may_start(&by_labels(&config, &list, &pod("other", "a"), &found, is_within))
        };
        let fate = |labels: &str| judge(labels, false);
        assert!(fate("{}"));
        assert!(!fate(r#"{"labels":{"istio.io/dataplane-mode":"ambient"}}"#));
        assert!(fate(
            r#"{"labels":{"istio.io/dataplane-mode":"ambient"},"annotations":{"sidecar.istio.io/status":"{}"}}"#
        ));
        // Within a namespace of the mesh only a pod that declines is out of it, and one with a sidecar.
        assert!(!judge("{}", true));
        assert!(judge(r#"{"labels":{"istio.io/dataplane-mode":"none"}}"#, true));
        assert!(judge(r#"{"annotations":{"sidecar.istio.io/status":"{}"}}"#, true));
    }
}
