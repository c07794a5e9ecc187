//! The environment as a source: the variables of settings and families.
//!
//! Variables that begin with `CULVERT_` are ours, so one that nobody knows is a mistake. All others are somebody else's, and
//! so are those that Kubernetes sets for a Service that happens to be called like us.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::given::{Given, Givens, Source};
use super::setting::{Face, Known};

/// Names the configuration file.
pub(crate) const CONFIG: &str = "CULVERT_CONFIG";
const OURS: &str = "CULVERT_";
/// Kubernetes sets it in every pod.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";

/// The variables of a process, by name.
pub(super) struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// From pairs as the system has them. What is no text is no name of ours.
    pub(super) fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let named = variables.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self(named.collect())
    }

    /// Whether this process is in a pod of a cluster.
    pub(super) fn is_in_cluster(&self) -> bool {
        self.0.get(IN_CLUSTER).is_some_and(|address| !address.is_empty())
    }

    /// The configuration file that is named here.
    pub(super) fn config_file(&self) -> Option<&OsString> {
        self.0.get(CONFIG).filter(|path| !path.is_empty())
    }

    /// Enters the values of settings and families.
    pub(super) fn enter(&self, givens: &mut Givens, problems: &mut Vec<String>) {
        let by_variable: BTreeMap<_, _> =
            super::settings().map(Known::face).flat_map(Face::by_variable).collect();
        for (name, value) in &self.0 {
            let setting = by_variable.get(name.as_str());
            let family =
                super::families().find_map(|family| Some((family, name.strip_prefix(family.prefix)?)));
            if setting.is_none() && family.is_none() {
                if name.starts_with(OURS) && name != CONFIG && !self.is_of_a_service(name) {
                    problems.push(format!("{name}: no such variable; every one is in docs/configuration.md"));
                }
                continue;
            }
            let Some(text) = value.to_str() else {
                problems.push(format!("{name}: the value is no text in UTF-8"));
                continue;
            };
            let given = Given { text: text.to_owned(), source: Source::Variable(name.clone()) };
            if let Some((family, own)) = family {
                givens.enter_named(family.flag, family.canonical(own), given.clone());
            }
            if let Some(face) = setting.filter(|face| !self.is_said_otherwise(face, name)) {
                givens.enter(face.flag, given);
            }
        }
    }

    /// Whether another variable of the same setting counts instead of this one.
    fn is_said_otherwise(&self, face: &Face, name: &str) -> bool {
        face.other_variable.is_some_and(|other| other != name && self.0.contains_key(other))
    }

    /// Whether Kubernetes has set it for a Service (`enableServiceLinks`, in the words of Docker's links).
    fn is_of_a_service(&self, name: &str) -> bool {
        let services = self.0.keys().filter_map(|known| known.strip_suffix("_SERVICE_HOST"));
        services.filter_map(|service| name.strip_prefix(service)).any(|rest| {
            rest == "_PORT"
                || ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT_"].iter().any(|own| rest.starts_with(own))
        })
    }
}
