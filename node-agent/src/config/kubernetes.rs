//! The API of Kubernetes, and which of its pods are in the mesh.

use std::path::PathBuf;
use std::time::Duration;

use cni::ambient::Selectors;

use super::kinds::{DURATION, OPTIONAL_PATH};
use super::node::Node;
use super::reader::Reader;
use super::setting::{Kind, Known as _, Section, Setting};

const OPTIONAL_SWITCH: Kind<bool> = Kind {
    value: super::kinds::SWITCH.value,
    allowed: "true or false, 1 or 0, yes or no, on or off; empty for no",
    parse: |text| if text.is_empty() { Ok(false) } else { (super::kinds::SWITCH.parse)(text) },
};
const SELECTORS: Kind<Selectors> = Kind {
    value: "YAML",
    allowed: "a list of mappings with podSelector and namespaceSelector, each with matchLabels and matchExpressions as in \
              Kubernetes; empty for the labels istio.io/dataplane-mode",
    parse: selectors,
};

static KUBERNETES: Setting<bool> = Setting::new(
    ("kubernetes", "KUBERNETES"),
    "",
    OPTIONAL_SWITCH,
    "Whether the API of Kubernetes says which pods of this node are in the mesh, besides those that a mesh file enrols.",
)
.in_cluster("true");
static KUBECONFIG: Setting<Option<PathBuf>> = Setting::new(
    ("kubeconfig", "KUBECONFIG"),
    "",
    OPTIONAL_PATH,
    "Kubeconfig file that says where the API is and who asks. Empty: the service account of the agent's pod.",
);
static RESYNC: Setting<Duration> = Setting::new(
    ("kubernetes-resync", "KUBERNETES_RESYNC"),
    "10m",
    DURATION,
    "How often pods and namespaces are listed anew, in case that an event was lost.",
);
static SELECTORS_SETTING: Setting<Selectors> = Setting::new(
    ("enablement-selectors", "AMBIENT_ENABLEMENT_SELECTORS"),
    "",
    SELECTORS,
    "Which pods are in the mesh: those that one pair of selectors fits.",
);

pub(super) static SECTION: Section = Section {
    title: "Kubernetes",
    settings: &[&KUBERNETES, &KUBECONFIG, &RESYNC, &SELECTORS_SETTING],
    families: &[],
};

/// The API of Kubernetes.
#[derive(Clone, Debug)]
pub(crate) struct Kubernetes {
    /// The file that says where it is; none for the service account of the agent's pod.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Whose pods are watched.
    pub(crate) node: String,
    /// How often all are listed anew.
    pub(crate) resync: Duration,
}

/// Which pods are in the mesh.
#[derive(Clone, Debug, Default)]
pub(crate) struct Membership {
    /// By labels.
    pub(crate) selectors: Selectors,
    /// Namespaces of which none is.
    pub(crate) excluded: Vec<String>,
}

/// Reads where the API is, none if it is not to be asked, and which pods are in the mesh.
pub(super) fn read(reader: &mut Reader<'_>, node: Option<&Node>) -> Option<(Option<Kubernetes>, Selectors)> {
    let (is_on, kubeconfig, resync) =
        (reader.read(&KUBERNETES), reader.read(&KUBECONFIG), reader.read(&RESYNC));
    let selectors = reader.read(&SELECTORS_SETTING);
    let (is_on, kubeconfig, resync, node) = (is_on?, kubeconfig?, resync?, node?.name.clone());
    if is_on && node.is_empty() {
        let face = KUBERNETES.face();
        reader.problem(format!(
            "{}: which pods are this node's is not known; set NODE_NAME from the downward API, or --node",
            reader.quote(face)
        ));
    }
    Some((is_on.then_some(Kubernetes { kubeconfig, node, resync }), selectors?))
}

fn selectors(text: &str) -> Result<Selectors, String> {
    if text.trim().is_empty() {
        return Ok(Selectors::default());
    }
    let selectors: Selectors =
        serde_saphyr::from_str(text).map_err(|error| format!("no selectors: {error}"))?;
    selectors.check().map_err(|error| error.to_string())?;
    Ok(selectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_as_the_mesh_has_them() {
        let text = "- podSelector:\n    matchLabels: {tier: web}\n- namespaceSelector:\n    matchExpressions:\n    - {key: team, operator: In, values: [a]}\n";
        let read = selectors(text).unwrap();
        let map = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
        assert!(
            read.select(&map("tier", "web"), &map("x", "y"))
                && read.select(&map("x", "y"), &map("team", "a"))
        );
        assert!(!read.select(&map("tier", "db"), &map("team", "b")));
        assert_eq!(selectors(" ").unwrap(), Selectors::default());
    }

    #[test]
    fn what_selects_nothing_that_was_meant_is_told() {
        for (text, part) in [
            ("- podSelector: {matchLabel: {a: b}}", "matchLabel"),
            ("- podSelector: {matchExpressions: [{key: a, operator: In}]}", "give it some"),
            ("nonsense: [", "no selectors"),
        ] {
            let error = selectors(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
