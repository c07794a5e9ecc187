//! What of the node's traffic is captured, and what is left alone.

use std::path::PathBuf;

use super::kinds::{OPTIONAL_PATH, SWITCH};
use super::reader::Reader;
use super::setting::{Kind, Section, Setting};

const NAMES: Kind<Vec<String>> = Kind {
    value: "NAME,…",
    allowed: "names of executables with commas between; empty for none",
    parse: names,
};
const MARK: Kind<u32> =
    Kind { value: "MARK", allowed: "a whole number of 32 bits, such as 1337 or 0x539", parse: mark };
const SOCKET: Kind<String> =
    Kind { value: "HOST:PORT", allowed: "a host with a port, such as localhost:15053", parse: socket };

static DNS_CAPTURE: Setting<bool> = Setting::new(
    ("dns-capture", "ISTIO_META_DNS_CAPTURE"),
    "true",
    SWITCH,
    "Whether DNS queries of pods go to the agent; the annotation ambient.istio.io/dns-capture overrides it for a pod.",
);
static DNS_PROXY: Setting<String> = Setting::new(
    ("dns-proxy-address", "ISTIO_META_DNS_PROXY_ADDR"),
    "localhost:15053",
    SOCKET,
    "Checked, and not used: queries are steered to a socket of the agent in each pod, whatever its port.",
);
static EGRESS_GUARD: Setting<bool> = Setting::new(
    ("egress-guard", "EGRESS_GUARD"),
    "false",
    SWITCH,
    "Drop TCP that a privileged application writes past capture, by raw and packet sockets or by forwarding. The only part of \
     capture that sees every packet.",
);
static PROBE_PROCESSES: Setting<Vec<String>> = Setting::new(
    ("probe-processes", "CULVERT_PROBE_PROCESSES"),
    "kubelet,k3s,kubelite",
    NAMES,
    "Executables whose connections to pods are health probes and reach them as they are.",
);
static HOST_NETNS: Setting<Option<PathBuf>> = Setting::new(
    ("host-netns", "CULVERT_HOST_NETNS"),
    "",
    OPTIONAL_PATH,
    "The host's network namespace, in which those processes run; by default that of process 1.",
);
static PACKET_MARK: Setting<u32> = Setting::new(
    ("packet-mark", "PACKET_MARK"),
    "1337",
    MARK,
    "The mark by which istio-cni's rules know a proxy's own packets; used with INPOD_UDS alone. This agent's own capture needs \
     no rules, and has marks of its own that nobody else may set.",
);
static ZDS_SOCKET: Setting<Option<PathBuf>> = Setting::new(
    ("zds-socket", "INPOD_UDS"),
    "",
    OPTIONAL_PATH,
    "Socket of an istio-cni that captures the pods of this node with its own rules, such as /var/run/ztunnel/ztunnel.sock. The \
     agent then captures nothing itself: pods come from there. See docs/zds.md.",
);

pub(super) static SECTION: Section = Section {
    title: "Capture",
    settings: &[
        &DNS_CAPTURE,
        &DNS_PROXY,
        &EGRESS_GUARD,
        &PROBE_PROCESSES,
        &HOST_NETNS,
        &PACKET_MARK,
        &ZDS_SOCKET,
    ],
    families: &[],
};

/// What is captured.
#[derive(Clone, Debug)]
pub(crate) struct Capture {
    /// Whether DNS queries are.
    pub(crate) dns: bool,
    /// Whether TCP that bypasses capture is dropped.
    pub(crate) egress_guard: bool,
    /// Whose connections to pods are left alone.
    pub(crate) probe_processes: Vec<String>,
    /// The namespace in which they run, if it is not that of process 1.
    pub(crate) host_netns: Option<PathBuf>,
    /// Who captures in place of this agent, if somebody does.
    pub(crate) by_others: Option<ByOthers>,
}

/// An istio-cni that captures pods with its own rules.
#[derive(Clone, Debug)]
pub(crate) struct ByOthers {
    /// Its socket.
    pub(crate) socket: PathBuf,
    /// What it leaves alone.
    pub(crate) mark: u32,
}

/// Reads what is captured.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Capture> {
    let [dns, egress_guard] = [&DNS_CAPTURE, &EGRESS_GUARD].map(|one| reader.read(one));
    let (probe_processes, host_netns) = (reader.read(&PROBE_PROCESSES), reader.read(&HOST_NETNS));
    // What other data planes need and this one does not is no less an error if it is wrong.
    reader.read(&DNS_PROXY)?;
    let (socket, mark) = (reader.read(&ZDS_SOCKET)?, reader.read(&PACKET_MARK)?);
    Some(Capture {
        dns: dns?,
        egress_guard: egress_guard?,
        probe_processes: probe_processes?,
        host_netns: host_netns?,
        by_others: socket.map(|socket| ByOthers { socket, mark }),
    })
}

fn names(text: &str) -> Result<Vec<String>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let name = |name: &str| match name.trim() {
        "" => Err("a name is missing between commas".to_owned()),
        path if path.contains('/') => {
            Err(format!("{path:?} is a path; the name of the executable is enough"))
        }
        name => Ok(name.to_owned()),
    };
    text.split(',').map(name).collect()
}

fn mark(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "no such number".to_owned())
}

fn socket(text: &str) -> Result<String, String> {
    let is_host = |host: &str| host.starts_with('[') || (super::kinds::DOMAIN.parse)(host).is_ok();
    match text.rsplit_once(':') {
        Some((host, port)) if is_host(host) && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        _ => Err("no host with a port".to_owned()),
    }
}
