//! How a pod's annotations change its capture.

use control::file::Enrollment;
use redirect::PodOptions;

/// `true` or `false`: whether the pod's DNS queries go to the agent, whatever the node's default.
const DNS_CAPTURE: &str = "ambient.istio.io/dns-capture";
/// `true`: what does not come through the tunnel goes to the application as it comes.
const BYPASS_INBOUND: &str = "ambient.istio.io/bypass-inbound-capture";
/// All of them.
pub(crate) const CAPTURE_ANNOTATIONS: [&str; 2] = [DNS_CAPTURE, BYPASS_INBOUND];

/// What the agent was told of all pods.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PodDefaults {
    /// Whether DNS queries of pods that do not say otherwise go to the agent.
    pub(crate) dns: bool,
    /// Whether pods have an egress guard; none of them can do without it.
    pub(crate) guard: bool,
}

/// The options of a pod. A value that is neither `true` nor `false` counts as none, and is told.
pub(super) fn of(entry: &Enrollment, defaults: PodDefaults) -> PodOptions {
    PodOptions {
        dns: flag(entry, DNS_CAPTURE).unwrap_or(defaults.dns),
        bypass_inbound: flag(entry, BYPASS_INBOUND).unwrap_or(false),
        guard: defaults.guard,
    }
}

fn flag(entry: &Enrollment, name: &str) -> Option<bool> {
    let value = entry.annotations.get(name)?;
    let parsed = value.parse().ok();
    if parsed.is_none() {
        let pod = format!("{}/{}", entry.namespace, entry.name);
        tracing::warn!(
            pod,
            annotation = name,
            value,
            "the annotation is neither true nor false and counts as absent"
        );
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, value: &str) -> Enrollment {
        Enrollment {
            name: "p".into(),
            namespace: "n".into(),
            service_account: None,
            netns: None,
            container: None,
            annotations: [(name.to_owned(), value.to_owned())].into(),
        }
    }

    #[test]
    fn annotations_override_the_default_and_nonsense_does_not() {
        let defaults = |dns| PodDefaults { dns, guard: false };
        let dns = |value: &str, default: bool| of(&entry(DNS_CAPTURE, value), defaults(default)).dns;
        assert!(dns("true", false) && !dns("false", true));
        assert!(dns("maybe", true) && !dns("maybe", false));
        assert!(of(&entry(BYPASS_INBOUND, "true"), defaults(true)).bypass_inbound);
        assert!(!of(&entry(BYPASS_INBOUND, "TRUE!"), defaults(true)).bypass_inbound);
    }
}
