//! The plugin's entry in the conflist, as the runtime hands it over on stdin with `name`, `cniVersion` and `prevResult`.
//!
//! prevResult is kept as the bytes that came, because it goes on unchanged; only the addresses are read out of it, in
//! both shapes that exist (0.3.x and 0.4.0 have a `version` beside each address, 1.x has not).

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{Code, SpecError};

/// CNI versions that the plugin speaks, oldest first.
pub const SUPPORTED_VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// The one stated when the runtime's own is not known.
pub const LATEST_VERSION: &str = "1.1.0";

const DEFAULT_TIMEOUT_SECONDS: u64 = 20;
/// The kubelet gives up on a sandbox after four minutes; CRI runtimes after two.
const MAX_TIMEOUT_SECONDS: u64 = 100;

/// What the conflist says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Version in which the runtime wants its answer.
    #[serde(default)]
    pub cni_version: String,
    /// Socket of the agent.
    #[serde(default = "default_socket")]
    pub socket: PathBuf,
    /// Namespaces whose pods never wait for the agent.
    #[serde(default = "default_exclusions")]
    pub exclude_namespaces: Vec<String>,
    /// How long the whole conversation with the agent may take.
    #[serde(default = "default_timeout")]
    timeout_seconds: u64,
    /// What the plugins before this one made, byte for byte.
    #[serde(default)]
    pub prev_result: Option<Box<RawValue>>,
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
        if !config.socket.is_absolute() {
            let details = format!("socket is {:?}", config.socket);
            return Err(SpecError::new(Code::InvalidConfig, "give socket as an absolute path", details));
        }
        Ok(config)
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
        assert!(told(r#"{"timeoutSeconds":0}"#).msg.contains("from 1 to 100"));
        let error = with_prev(r#"{"ips":[{"address":"somewhere"}]}"#).pod_ips().unwrap_err();
        assert!(error.details.contains("somewhere"), "{error}");
        let error = Config::parse(br#"{"cniVersion":"0.2.0"}"#).unwrap().check_version().unwrap_err();
        assert!(error.msg.contains("0.3.1, 0.4.0, 1.0.0, 1.1.0"), "{error}");
    }
}
