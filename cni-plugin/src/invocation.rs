//! The environment of a call: `CNI_COMMAND`, `CNI_CONTAINERID`, `CNI_NETNS`, `CNI_IFNAME`, `CNI_ARGS`.
//!
//! Runtimes send `CNI_ARGS` in any order, and each its own selection: containerd five keys, podman one, `ctr` none.
//! Which variables a command needs follows the CNI specification 1.1, section "Parameters".

use std::ffi::OsString;

use crate::error::{Code, SpecError};
use crate::protocol::PodName;

/// Looks a variable up; a function so that tests need not touch the process's environment.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Which command was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Connect a pod.
    Add,
    /// Disconnect a pod.
    Del,
    /// Is the pod's connection as ADD made it?
    Check,
    /// Remove what belongs to no pod.
    Gc,
    /// Could ADD work now?
    Status,
    /// Which versions are spoken?
    Version,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// Sandbox.
    pub container_id: String,
    /// Path of the network namespace; empty if DEL came without one.
    pub netns: String,
    /// Interface in the pod.
    pub ifname: String,
    /// The Kubernetes pod; none if the runtime named no pod or no namespace, which podman does.
    pub pod: Option<PodName>,
}

impl Verb {
    /// Reads `CNI_COMMAND`.
    pub fn read(env: Environment<'_>) -> Result<Self, SpecError> {
        match text(env, "CNI_COMMAND")?.as_str() {
            "ADD" => Ok(Self::Add),
            "DEL" => Ok(Self::Del),
            "CHECK" => Ok(Self::Check),
            "GC" => Ok(Self::Gc),
            "STATUS" => Ok(Self::Status),
            "VERSION" => Ok(Self::Version),
            "" => Err(invalid(
                "CNI_COMMAND is not set; culvert-cni is started by a container runtime, not by hand",
            )),
            other => Err(invalid(format!("CNI_COMMAND is {other:?}"))),
        }
    }
}

impl Invocation {
    /// Reads what ADD, DEL and CHECK need.
    pub fn read(env: Environment<'_>, verb: Verb) -> Result<Self, SpecError> {
        let needed = |name: &str| {
            let value = text(env, name)?;
            if value.is_empty() { Err(invalid(format!("{name} is not set"))) } else { Ok(value) }
        };
        let netns = if verb == Verb::Del { text(env, "CNI_NETNS")? } else { needed("CNI_NETNS")? };
        Ok(Self {
            container_id: needed("CNI_CONTAINERID")?,
            netns,
            ifname: needed("CNI_IFNAME")?,
            pod: parse_args(&text(env, "CNI_ARGS")?)?,
        })
    }
}

/// Reads `KEY=value;KEY=value`. Keys that are not ours are an error unless `IgnoreUnknown` is set, as the CNI
/// conventions have it.
fn parse_args(args: &str) -> Result<Option<PodName>, SpecError> {
    let (mut name, mut namespace, mut uid) = (None, None, None);
    let (mut ignore_unknown, mut unknown) = (false, None);
    for pair in args.split(';').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(invalid(format!("CNI_ARGS has {pair:?}, which is no KEY=value")));
        };
        match key {
            "K8S_POD_NAME" => name = Some(value),
            "K8S_POD_NAMESPACE" => namespace = Some(value),
            "K8S_POD_UID" => uid = Some(value),
            "K8S_POD_INFRA_CONTAINER_ID" => {}
            "IgnoreUnknown" => ignore_unknown = matches!(value, "1" | "true" | "True" | "TRUE"),
            other => unknown = Some(other),
        }
    }
    if let (Some(key), false) = (unknown, ignore_unknown) {
        return Err(invalid(format!("CNI_ARGS has the unknown key {key:?} and no IgnoreUnknown=1")));
    }
    let set = |value: Option<&str>| value.filter(|v| !v.is_empty()).map(str::to_owned);
    Ok(match (set(name), set(namespace)) {
        (Some(name), Some(namespace)) => Some(PodName { name, namespace, uid: set(uid) }),
        _ => None,
    })
}

fn text(env: Environment<'_>, name: &str) -> Result<String, SpecError> {
    match env(name).map(OsString::into_string) {
        None => Ok(String::new()),
        Some(Ok(text)) => Ok(text),
        Some(Err(_)) => Err(invalid(format!("{name} is not UTF-8"))),
    }
}

fn invalid(details: impl Into<String>) -> SpecError {
    SpecError::new(Code::InvalidEnvironment, "correct the variables that the container runtime sets", details)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(verb: Verb, pairs: &[(&str, &str)]) -> Result<Invocation, SpecError> {
        let env = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
        Invocation::read(&env, verb)
    }

    const CONTAINERD: &str = "K8S_POD_UID=u1;IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=sleep;\
                              K8S_POD_INFRA_CONTAINER_ID=abc;SOMETHING=else";

    #[test]
    fn args_are_read_in_any_order() {
        let expected = PodName { name: "sleep".into(), namespace: "default".into(), uid: Some("u1".into()) };
        let mut pairs: Vec<&str> = CONTAINERD.split(';').collect();
        for _ in 0..pairs.len() {
            pairs.rotate_left(1);
            assert_eq!(parse_args(&pairs.join(";")).unwrap(), Some(expected.clone()));
        }
    }

    #[test]
    fn what_is_not_a_kubernetes_pod_is_none() {
        assert_eq!(parse_args("").unwrap(), None);
        assert_eq!(parse_args("IgnoreUnknown=1;K8S_POD_NAME=web").unwrap(), None);
        assert_eq!(parse_args("IgnoreUnknown=1;K8S_POD_NAME=;K8S_POD_NAMESPACE=x").unwrap(), None);
    }

    #[test]
    fn malformed_args_are_told() {
        assert!(parse_args("nonsense").unwrap_err().details.contains("nonsense"));
        assert!(parse_args("A=b").unwrap_err().details.contains("unknown key \"A\""));
        assert!(parse_args("IgnoreUnknown=0;A=b").is_err());
    }

    #[test]
    fn only_del_goes_without_a_netns() {
        let pairs = [("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "")];
        assert_eq!(call(Verb::Del, &pairs).unwrap().netns, "");
        let error = call(Verb::Add, &pairs).unwrap_err();
        assert_eq!((error.code, error.details.as_str()), (Code::InvalidEnvironment, "CNI_NETNS is not set"));
        assert!(call(Verb::Del, &[]).unwrap_err().details.contains("CNI_CONTAINERID"));
    }
}
