//! The plugin's entry in the conflist, as the runtime hands it over on stdin with `name`, `cniVersion` and `prevResult`.
//!
//! prevResult is kept as the bytes that came, because it goes on unchanged; only the addresses are read out of it, in
//! both shapes that exist (0.3.x and 0.4.0 have a `version` beside each address, 1.x has not).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{Code, SpecError};
use crate::protocol::PodName;

/// CNI versions that the plugin speaks, oldest first.
pub const SUPPORTED_VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// The one stated when the runtime's own is not known.
pub const LATEST_VERSION: &str = "1.1.0";

const DEFAULT_TIMEOUT_SECONDS: u64 = 20;
/// The kubelet gives up on a sandbox after four minutes; CRI runtimes after two.
const MAX_TIMEOUT_SECONDS: u64 = 100;
/// What a DaemonSet's controller appends to a pod's name.
const SUFFIX_LENGTH: usize = 5;

/// What the conflist says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Version in which the runtime wants its answer.
    #[serde(default)]
    pub cni_version: String,
    /// The network, which is the conflist's name.
    #[serde(default)]
    pub name: String,
    /// Socket of the agent.
    #[serde(default = "default_socket")]
    pub socket: PathBuf,
    /// Namespaces whose pods never wait for the agent.
    #[serde(default = "default_exclusions")]
    pub exclude_namespaces: Vec<String>,
    /// What the agent leaves for when it is not there: which namespaces are in the mesh.
    #[serde(default = "default_list")]
    pub ambient_list: PathBuf,
    /// How the Kubernetes API is asked when that list does not settle it; without one it is not asked.
    #[serde(default)]
    pub kubeconfig: Option<PathBuf>,
    /// The agent's own pods, which must start without an agent.
    #[serde(default)]
    agent_pod: Option<AgentPod>,
    /// How long the whole conversation with the agent may take.
    #[serde(default = "default_timeout")]
    timeout_seconds: u64,
    /// What the plugins before this one made, byte for byte.
    #[serde(default)]
    pub prev_result: Option<Box<RawValue>>,
    /// What the runtime adds for the entry's `capabilities`.
    #[serde(default)]
    runtime_config: Option<RuntimeConfig>,
    /// Of GC: what is in use; without it nothing is known to be unused.
    #[serde(rename = "cni.dev/valid-attachments", default)]
    valid_attachments: Option<Vec<Attachment>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AgentPod {
    namespace: String,
    name_prefix: String,
}

#[derive(Debug, Default, Deserialize)]
struct RuntimeConfig {
    #[serde(rename = "io.kubernetes.cri.pod-annotations", default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
struct Attachment {
    #[serde(rename = "containerID")]
    container_id: String,
}

fn default_list() -> PathBuf {
    PathBuf::from("/run/culvert/ambient.json")
}

fn default_socket() -> PathBuf {
    PathBuf::from("/run/culvert/cni.sock")
}

fn default_exclusions() -> Vec<String> {
    vec!["kube-system".to_owned()]
}

fn default_timeout() -> u64 {
    DEFAULT_TIMEOUT_SECONDS
}

impl Config {
    /// Reads stdin; what cannot be used is an error naming it.
    pub fn parse(stdin: &[u8]) -> Result<Self, SpecError> {
        let config: Self = serde_json::from_slice(stdin).map_err(|error| {
            let what =
                "network configuration on stdin is not what culvert-cni takes; correct its conflist entry";
            let code = if error.is_data() { Code::InvalidConfig } else { Code::Decoding };
            SpecError::new(code, what, error.to_string())
        })?;
        if !(1..=MAX_TIMEOUT_SECONDS).contains(&config.timeout_seconds) {
            let details = format!("timeoutSeconds is {}", config.timeout_seconds);
            let msg =
                format!("set timeoutSeconds in the conflist to a value from 1 to {MAX_TIMEOUT_SECONDS}");
            return Err(SpecError::new(Code::InvalidConfig, msg, details));
        }
        let paths = [
            ("socket", Some(&config.socket)),
            ("ambientList", Some(&config.ambient_list)),
            ("kubeconfig", config.kubeconfig.as_ref()),
        ];
        for (key, path) in paths {
            if let Some(path) = path.filter(|path| !path.is_absolute()) {
                let details = format!("{key} is {path:?}");
                return Err(SpecError::new(
                    Code::InvalidConfig,
                    format!("give {key} as an absolute path"),
                    details,
                ));
            }
        }
        Ok(config)
    }

    /// Whether a pod is one of the agent's own: its namespace, its prefix, and what a DaemonSet's controller appends to that.
    pub fn is_agent(&self, pod: &PodName) -> bool {
        let is_suffix = |suffix: &str| {
            suffix.len() == SUFFIX_LENGTH
                && suffix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        self.agent_pod.as_ref().is_some_and(|agent| {
            !agent.name_prefix.is_empty()
                && pod.namespace == agent.namespace
                && pod.name.strip_prefix(&agent.name_prefix).is_some_and(is_suffix)
        })
    }

    /// The pod's annotations, where the runtime tells them.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.runtime_config.as_ref().and_then(|config| config.annotations.clone()).unwrap_or_default()
    }

    /// The sandboxes that are in use, where GC says so.
    pub fn valid_containers(&self) -> Option<Vec<String>> {
        let ids = |all: &Vec<Attachment>| all.iter().map(|one| one.container_id.clone()).collect();
        self.valid_attachments.as_ref().map(ids)
    }

    /// What ADD answers: the result of the plugins before this one as it came. Where there was none, or an empty one, which
    /// Multus sends, it states at least the version, as every result must.
    pub fn result(&self) -> String {
        let previous = self.prev_result.as_ref().map_or("{}", |raw| raw.get()).trim();
        if serde_json::from_str::<BTreeMap<String, &RawValue>>(previous).is_ok_and(|all| all.is_empty()) {
            return serde_json::json!({ "cniVersion": self.cni_version }).to_string();
        }
        previous.to_owned()
    }

    /// How long the conversation with the agent may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    /// Is this version one of ours? The error lists them.
    pub fn check_version(&self) -> Result<(), SpecError> {
        if SUPPORTED_VERSIONS.contains(&self.cni_version.as_str()) {
            return Ok(());
        }
        let msg = format!("set cniVersion in the conflist to one of {}", SUPPORTED_VERSIONS.join(", "));
        let details = format!("cniVersion is {:?}", self.cni_version);
        Err(SpecError::new(Code::IncompatibleVersion, msg, details))
    }

    /// The addresses that the plugins before this one gave the pod.
    ///
    /// Addresses that belong to an interface of the host (a bridge's gateway address) are left out.
    pub fn pod_ips(&self) -> Result<Vec<IpAddr>, SpecError> {
        let Some(raw) = &self.prev_result else { return Ok(Vec::new()) };
        let unusable = |details: String| {
            SpecError::new(
                Code::InvalidConfig,
                "correct the plugin before culvert-cni in the conflist",
                details,
            )
        };
        let result: PrevResult =
            serde_json::from_str(raw.get()).map_err(|error| unusable(format!("prevResult: {error}")))?;
        let of_pod = |ip: &&PrevIp| {
            let Some(interface) = ip.interface.and_then(|index| result.interfaces.get(index)) else {
                return true;
            };
            !interface.sandbox.is_empty()
        };
        result
            .ips
            .iter()
            .filter(of_pod)
            .map(|ip| {
                let address = ip.address.split('/').next().unwrap_or_default();
                address.parse().map_err(|_| unusable(format!("prevResult has the address {:?}", ip.address)))
            })
            .collect()
    }
}

#[derive(Deserialize)]
struct PrevResult {
    #[serde(default)]
    interfaces: Vec<PrevInterface>,
    #[serde(default)]
    ips: Vec<PrevIp>,
}

#[derive(Deserialize)]
struct PrevInterface {
    #[serde(default)]
    sandbox: String,
}

#[derive(Deserialize)]
struct PrevIp {
    address: String,
    #[serde(default)]
    interface: Option<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_prev(prev: &str) -> Config {
        Config::parse(
            format!(r#"{{"cniVersion":"1.0.0","type":"culvert-cni","prevResult":{prev}}}"#).as_bytes(),
        )
        .unwrap()
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let config = Config::parse(br#"{"cniVersion":"1.0.0","type":"culvert-cni"}"#).unwrap();
        assert_eq!(config.socket, PathBuf::from("/run/culvert/cni.sock"));
        assert_eq!(config.exclude_namespaces, ["kube-system"]);
        assert_eq!(config.ambient_list, PathBuf::from("/run/culvert/ambient.json"));
        assert_eq!((config.kubeconfig.as_ref(), config.valid_containers()), (None, None));
        assert!(config.annotations().is_empty());
        assert_eq!(config.timeout(), Duration::from_secs(20));
        assert!(config.pod_ips().unwrap().is_empty());
    }

    #[test]
    fn addresses_are_read_in_both_shapes() {
        let old = with_prev(
            r#"{"interfaces":[{"name":"br"},{"name":"eth0","sandbox":"/run/netns/x"}],
               "ips":[{"version":"4","address":"10.1.1.2/24","gateway":"10.1.1.1","interface":1},
                      {"version":"6","address":"2001:db8::2/64","interface":1}]}"#,
        );
        assert_eq!(
            old.pod_ips().unwrap(),
            ["10.1.1.2".parse::<IpAddr>().unwrap(), "2001:db8::2".parse().unwrap()]
        );
        let new = with_prev(r#"{"ips":[{"address":"10.1.1.2/24"}],"dns":{}}"#);
        assert_eq!(new.pod_ips().unwrap(), ["10.1.1.2".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn addresses_of_the_host_are_not_the_pods() {
        let config = with_prev(
            r#"{"interfaces":[{"name":"br"},{"name":"eth0","sandbox":"/n"}],
               "ips":[{"address":"10.1.1.1/24","interface":0},{"address":"10.1.1.2/24","interface":1}]}"#,
        );
        assert_eq!(config.pod_ips().unwrap(), ["10.1.1.2".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn unusable_configurations_are_told() {
        let told = |stdin: &str| Config::parse(stdin.as_bytes()).unwrap_err();
        assert_eq!(told("not json").code, Code::Decoding);
        assert_eq!(told(r#"{"socket":7}"#).code, Code::InvalidConfig);
        assert!(told(r#"{"socket":"culvert.sock"}"#).msg.contains("absolute"));
        assert!(told(r#"{"kubeconfig":"admin.conf"}"#).msg.contains("kubeconfig as an absolute path"));
        assert!(told(r#"{"timeoutSeconds":0}"#).msg.contains("from 1 to 100"));
        let error = with_prev(r#"{"ips":[{"address":"somewhere"}]}"#).pod_ips().unwrap_err();
        assert!(error.details.contains("somewhere"), "{error}");
        let error = Config::parse(br#"{"cniVersion":"0.2.0"}"#).unwrap().check_version().unwrap_err();
        assert!(error.msg.contains("0.3.1, 0.4.0, 1.0.0, 1.1.0"), "{error}");
    }

    #[test]
    fn the_agents_own_pods_are_told_from_those_that_look_like_them() {
        let text = r#"{"agentPod":{"namespace":"istio-system","namePrefix":"ztunnel-"}}"#;
        let config = Config::parse(text.as_bytes()).unwrap();
        let is_agent = |namespace: &str, name: &str| {
            config.is_agent(&PodName { name: name.into(), namespace: namespace.into(), uid: None })
        };
        assert!(is_agent("istio-system", "ztunnel-x7k2p"));
        for (namespace, name) in [
            ("default", "ztunnel-x7k2p"),
            ("istio-system", "ztunnel-"),
            ("istio-system", "ztunnel-waypoint-x7k2p"),
            ("istio-system", "ztunnel-X7K2P"),
            ("istio-system", "istiod-x7k2p"),
        ] {
            assert!(!is_agent(namespace, name), "{namespace}/{name}");
        }
        let none = Config::parse(br#"{"agentPod":{"namespace":"istio-system","namePrefix":""}}"#).unwrap();
        assert!(!none.is_agent(&PodName {
            name: "x7k2p".into(),
            namespace: "istio-system".into(),
            uid: None
        }));
    }

    #[test]
    fn what_the_runtime_adds_is_read_where_it_is_there() {
        let text = r#"{"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"a":"b"},"portMappings":[{}]},
                      "cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]}"#;
        let config = Config::parse(text.as_bytes()).unwrap();
        assert_eq!(config.annotations(), BTreeMap::from([("a".to_owned(), "b".to_owned())]));
        assert_eq!(config.valid_containers(), Some(vec!["c1".to_owned()]));
        let nothing =
            br#"{"runtimeConfig":{"io.kubernetes.cri.pod-annotations":null},"cni.dev/valid-attachments":[]}"#;
        let config = Config::parse(nothing).unwrap();
        assert_eq!((config.annotations().len(), config.valid_containers()), (0, Some(Vec::new())));
    }

    #[test]
    fn an_empty_result_states_its_version() {
        assert_eq!(with_prev("{ }").result(), r#"{"cniVersion":"1.0.0"}"#);
        assert_eq!(with_prev("null").result(), r#"{"cniVersion":"1.0.0"}"#);
        assert_eq!(with_prev(r#"{"ips": [],  "b":1.50}"#).result(), r#"{"ips": [],  "b":1.50}"#);
    }
}
