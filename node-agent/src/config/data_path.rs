//! The data path: threads, tunnels, HTTP/2, addresses, and which TLS is good enough.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tunnel::SameNode;

use super::kinds::{COUNT, DURATION, OPTIONAL_PATH, SWITCH, number};
use super::node::Node;
use super::reader::Reader;
use super::setting::{Kind, Known as _, Section, Setting};

/// The windows that HTTP/2 allows (RFC 9113, 6.9.1), from what every peer assumes at first.
const WINDOWS: std::ops::RangeInclusive<u32> = 65_535..=0x7fff_ffff;
/// The frames that HTTP/2 allows (RFC 9113, 6.5.2).
const FRAMES: std::ops::RangeInclusive<u32> = 16_384..=16_777_215;

const WORKERS: Kind<NonZeroUsize> = Kind {
    value: "NUMBER|PERCENT",
    allowed: "a whole number, a share of the CPUs such as 50%, or 0 for all",
    parse: workers,
};
const SAME_NODE: Kind<SameNode> =
    Kind { value: "hbone|direct", allowed: "hbone or direct", parse: same_node };
const WINDOW: Kind<u32> =
    Kind { value: "BYTES", allowed: "bytes, from 65535 to 2147483647", parse: |text| within(text, &WINDOWS) };
const FRAME: Kind<u32> =
    Kind { value: "BYTES", allowed: "bytes, from 16384 to 16777215", parse: |text| within(text, &FRAMES) };
const COMPLIANCE: Kind<bool> = Kind { value: "pqc", allowed: "pqc; empty for none", parse: compliance };

static THREADS: Setting<NonZeroUsize> = Setting::new(
    ("workers", "ZTUNNEL_WORKER_THREADS"),
    "0",
    WORKERS,
    "Threads of the data path, and as many for crowds of connections; 0 for one a CPU, and a percentage is rounded up.",
);
static SAME_NODE_TRANSPORT: Setting<SameNode> = Setting::new(
    ("same-node-transport", "SAME_NODE_TRANSPORT"),
    "hbone",
    SAME_NODE,
    "How two pods of this node are connected: `direct` leaves TLS out and vouches for both ends itself; see \
     docs/design/same-node.md.",
);
static TUNNEL_STREAMS: Setting<NonZeroUsize> = Setting::new(
    ("tunnel-streams", "POOL_MAX_STREAMS_PER_CONNECTION"),
    "100",
    COUNT,
    "Connections that one tunnel carries at most; the peer may allow fewer.",
);
static TUNNELS_PER_PEER: Setting<NonZeroUsize> = Setting::new(
    ("tunnels-per-peer", "CULVERT_TUNNELS_PER_PEER"),
    "4",
    COUNT,
    "Tunnels that a busy peer gets on each thread before any of them is full.",
);
static TUNNEL_RELEASE: Setting<Duration> = Setting::new(
    ("pool-unused-release-timeout", "POOL_UNUSED_RELEASE_TIMEOUT"),
    "5m",
    DURATION,
    "After how long a tunnel to a peer that carries nothing is closed.",
);
static STREAM_WINDOW: Setting<u32> = Setting::new(
    ("http2-stream-window-size", "HTTP2_STREAM_WINDOW_SIZE"),
    "4194304",
    WINDOW,
    "Bytes of one connection that may be under way towards us in a tunnel.",
);
static CONNECTION_WINDOW: Setting<u32> = Setting::new(
    ("http2-connection-window-size", "HTTP2_CONNECTION_WINDOW_SIZE"),
    "16777216",
    WINDOW,
    "Bytes of all connections of a tunnel together that may be under way towards us; more than for one, or one that does not \
     read would stop all others.",
);
static FRAME_SIZE: Setting<u32> = Setting::new(
    ("http2-frame-size", "HTTP2_FRAME_SIZE"),
    "1048576",
    FRAME,
    "The largest HTTP/2 frame that is accepted.",
);
static ORIGINAL_SOURCE: Setting<bool> = Setting::new(
    ("enable-orig-src", "ENABLE_ORIG_SRC"),
    "true",
    SWITCH,
    "Whether applications see the address of the client as their peer's. Else they see their own pod's.",
);
static IPV6: Setting<bool> = Setting::new(
    ("ipv6", "IPV6_ENABLED"),
    "true",
    SWITCH,
    "Whether names of the mesh are answered with IPv6 addresses, too.",
);
static COMPLIANCE_POLICY: Setting<bool> = Setting::new(
    ("compliance-policy", "COMPLIANCE_POLICY"),
    "",
    COMPLIANCE,
    "Rules that TLS must obey: with `pqc` keys are agreed on by X25519MLKEM768 alone.",
);
static TLS12: Setting<bool> = Setting::new(
    ("tls12", "TLS12_ENABLED"),
    "false",
    SWITCH,
    "Whether peers may speak TLS 1.2 (ECDHE with AES-GCM alone), too.",
);
static CRL: Setting<Option<PathBuf>> = Setting::new(
    ("crl-path", "CRL_PATH"),
    "",
    OPTIONAL_PATH,
    "File with lists of revoked certificates; peers with one of them are refused. Read again on each change.",
);

pub(super) static SECTION: Section = Section {
    title: "Data path",
    settings: &[
        &THREADS,
        &SAME_NODE_TRANSPORT,
        &TUNNEL_STREAMS,
        &TUNNELS_PER_PEER,
        &TUNNEL_RELEASE,
        &STREAM_WINDOW,
        &CONNECTION_WINDOW,
        &FRAME_SIZE,
        &ORIGINAL_SOURCE,
        &IPV6,
        &COMPLIANCE_POLICY,
        &TLS12,
        &CRL,
    ],
    families: &[],
};

/// Which TLS is good enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tls {
    /// Whether keys are agreed on by X25519MLKEM768 alone.
    pub(crate) post_quantum: bool,
    /// Whether peers may speak TLS 1.2.
    pub(crate) tls12: bool,
    /// The lists of revoked certificates.
    pub(crate) crl: Option<PathBuf>,
}

/// Reads the configuration of the data path, its limits included, and which TLS it takes.
pub(super) fn read(reader: &mut Reader<'_>, node: Option<&Node>) -> Option<(tunnel::Config, Tls)> {
    let mut config = tunnel::Config::default();
    let (workers, same_node) = (reader.read(&THREADS), reader.read(&SAME_NODE_TRANSPORT));
    let [streams, tunnels] = [&TUNNEL_STREAMS, &TUNNELS_PER_PEER].map(|one| reader.read(one));
    let release = reader.read(&TUNNEL_RELEASE);
    let [stream, connection, frame] =
        [&STREAM_WINDOW, &CONNECTION_WINDOW, &FRAME_SIZE].map(|one| reader.read(one));
    let [original_source, ipv6, post_quantum, tls12] =
        [&ORIGINAL_SOURCE, &IPV6, &COMPLIANCE_POLICY, &TLS12].map(|one| reader.read(one));
    let crl = reader.read(&CRL);
    config = super::limits::read(reader, config)?;
    (config.workers, config.same_node) = (workers?, same_node?);
    config.original_source = original_source?;
    config.pool.max_streams = streams?.get();
    config.pool.connections = tunnels?.get();
    config.pool.idle_release = release?;
    config.http2.stream_window = stream?;
    config.http2.connection_window = connection?;
    config.http2.frame_size = frame?;
    let windows_are_good = reader.are_good(&[CONNECTION_WINDOW.face(), STREAM_WINDOW.face()]);
    if windows_are_good && config.http2.connection_window <= config.http2.stream_window {
        reader.problem(format!(
            "{} and {}: the window of a tunnel must be larger than that of one connection in it; else one that does not read \
             stops all others",
            reader.quote(CONNECTION_WINDOW.face()),
            reader.quote(STREAM_WINDOW.face()),
        ));
    }
    if let Some(node) = node {
        config.network = Arc::from(node.network.as_str());
        config.dns.cluster_domain = Arc::from(node.cluster_domain.as_str());
    }
    config.dns.ipv6 = ipv6?;
    let (post_quantum, tls12) = (post_quantum?, tls12?);
    if post_quantum && tls12 {
        reader.problem(format!(
            "{} and {}: TLS 1.2 cannot agree on keys by X25519MLKEM768; allow one of the two",
            reader.quote(COMPLIANCE_POLICY.face()),
            reader.quote(TLS12.face()),
        ));
    }
    Some((config, Tls { post_quantum, tls12, crl: crl? }))
}

fn workers(text: &str) -> Result<NonZeroUsize, String> {
    let cpus = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let wanted = match text.strip_suffix('%') {
        Some(percent) => {
            let percent: usize = number(percent.trim_end())?;
            if !(1..=100).contains(&percent) {
                return Err("no share of the CPUs".to_owned());
            }
            cpus.get().saturating_mul(percent).div_ceil(100)
        }
        None => number::<u16>(text)?.into(),
    };
    Ok(NonZeroUsize::new(wanted).unwrap_or(cpus))
}

fn same_node(text: &str) -> Result<SameNode, String> {
    match text {
        "hbone" => Ok(SameNode::Hbone),
        "direct" => Ok(SameNode::Direct),
        _ => Err("no such transport".to_owned()),
    }
}

fn within(text: &str, range: &std::ops::RangeInclusive<u32>) -> Result<u32, String> {
    let bytes = number(text)?;
    if range.contains(&bytes) { Ok(bytes) } else { Err("HTTP/2 does not allow that".to_owned()) }
}

fn compliance(text: &str) -> Result<bool, String> {
    match text {
        "" => Ok(false),
        "pqc" => Ok(true),
        _ => Err("no such policy".to_owned()),
    }
}
