//! How a pod's annotations change its capture.

use control::file::Enrollment;
use redirect::PodOptions;

/// `true` or `false`: whether the pod's DNS queries go to the agent, whatever the node's default.
const DNS_CAPTURE: &str = "ambient.istio.io/dns-capture";
/// `true`: what does not come through the tunnel goes to the application as it comes.
const BYPASS_INBOUND: &str = "ambient.istio.io/bypass-inbound-capture";
/// Names of interfaces with commas between: what comes in there, from a virtual machine in the pod, counts as the application's.
const REROUTE: &str = "istio.io/reroute-virtual-interfaces";
/// All of them.
pub(crate) const CAPTURE_ANNOTATIONS: [&str; 3] = [DNS_CAPTURE, BYPASS_INBOUND, REROUTE];
/// The longest name of an interface (`IFNAMSIZ`, without the end of the string).
const LONGEST_NAME: usize = 15;

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
        entrances: interfaces(entry),
    }
}

/// The interfaces of virtual machines. What is none, or one too many, is told and left out: its traffic is not captured then.
fn interfaces(entry: &Enrollment) -> Vec<String> {
    let Some(value) = entry.annotations.get(REROUTE) else { return Vec::new() };
    let is_one = |name: &str| {
        name.len() <= LONGEST_NAME
            && !matches!(name, "." | ".." | "lo")
            && name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':'))
    };
    let mut found: Vec<String> = Vec::new();
    for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if found.iter().any(|known| known == name) {
            continue;
        }
        if is_one(name) && found.len() < redirect::MAX_ENTRANCES {
            found.push(name.to_owned());
            continue;
        }
        let (pod, most) = (format!("{}/{}", entry.namespace, entry.name), redirect::MAX_ENTRANCES);
        tracing::warn!(
            pod,
            annotation = REROUTE,
            name,
            most,
            "it is no interface of a virtual machine, or one too many, and is left out: what comes in there is not captured"
        );
    }
    found
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

    #[test]
    fn interfaces_of_virtual_machines_are_named_with_commas_between() {
        let defaults = PodDefaults { dns: false, guard: false };
        let names = |value: &str| of(&entry(REROUTE, value), defaults).entrances;
        assert_eq!(names("k6t-eth0"), ["k6t-eth0"]);
        assert_eq!(names(" k6t-eth0, tap1 ,,k6t-eth0"), ["k6t-eth0", "tap1"]);
        assert_eq!(names("a b,lo,..,net/0,interface-too-long,ok"), ["ok"]);
        assert_eq!(names("a,b,c,d,e").len(), redirect::MAX_ENTRANCES);
        assert!(names("").is_empty());
    }
}
