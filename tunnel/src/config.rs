//! What can be set about the data path, with the defaults peers have.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use crate::hbone::Http2Config;
use crate::same_node::SameNode;
use crate::telemetry::Spans;
use crate::tls::TlsOptions;

/// Settings of a [`crate::Tunnel`].
#[derive(Debug, Clone)]
pub struct Config {
    /// Worker threads, beside each of which there is one for crowds of connections. Default: one for each CPU.
    pub workers: NonZeroUsize,
    /// The network this node is on. Default: the unnamed one.
    pub network: Arc<str>,
    /// Limits of waiting.
    pub timeouts: Timeouts,
    /// HTTP/2 settings of both ends.
    pub http2: Http2Config,
    /// Sharing of tunnels.
    pub pool: PoolConfig,
    /// What is demanded of TLS.
    pub tls: TlsOptions,
    /// How dead peers are noticed.
    pub keepalive: Keepalive,
    /// How two pods of this node are connected. Default: in a tunnel, as any two pods.
    pub same_node: SameNode,
    /// Who collects the spans of connections. Default: nobody, and there are none.
    pub spans: Option<Arc<dyn Spans>>,
    /// Whether a pod's application sees the client's address as its peer's; else it sees its own. Default: it does.
    pub original_source: bool,
    /// TLS handshakes of clients under way at once, on all workers together; a pod gets a quarter of them at most.
    /// Default 1024.
    pub max_handshakes: usize,
    /// Connections and tunnelled streams that one pod may have at once. Default 20,000, which is most of what one
    /// client's ports (28,232 by default) allow towards one destination; never more than a quarter of the limit of
    /// open files, since each takes up to two.
    pub max_connections_per_pod: usize,
    /// Tunnels that one pod may take at once; never more than half of its connections. Default 10,000.
    pub max_tunnels_per_pod: usize,
    /// Label sets of the traffic metrics; connections beyond are counted under labels that say `unknown`. Default
    /// 10,000, some 40 MB of text a scrape at most.
    pub max_label_sets: usize,
    /// How long the label sets of a workload that is gone stay after they were used last. Default 10 minutes, so that what
    /// was counted last is scraped.
    pub label_release: Duration,
    /// Answering DNS queries.
    pub dns: DnsConfig,
}

/// How DNS queries of pods are answered.
#[derive(Debug, Clone)]
pub struct DnsConfig {
    /// The domain that names of Kubernetes end with. Default `cluster.local`.
    pub cluster_domain: Arc<str>,
    /// Whether names of the mesh have IPv6 addresses. Default: they do.
    pub ipv6: bool,
}

/// How long each step of a connection may take.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// A TCP connection being accepted. Default 10 s.
    pub connect: Duration,
    /// An endpoint of a service taking the connection (for a tunnel that includes its own dial) while there is another
    /// endpoint that may be tried instead. Default 3 s, enough for a SYN that is lost once.
    pub endpoint: Duration,
    /// Other endpoints being tried for one connection; the last one gets the time that its steps may take. Default 15 s.
    pub retry: Duration,
    /// A certificate being issued while a connection waits for it. Default 10 s.
    pub certificate: Duration,
    /// A client of a tunnel beginning to speak. Default 5 s.
    pub first_bytes: Duration,
    /// A TLS handshake. Default 10 s.
    pub tls_handshake: Duration,
    /// The HTTP/2 preface. Default 10 s.
    pub http2_handshake: Duration,
    /// The answer to a CONNECT; it includes the peer's own dial. Default 20 s.
    pub answer: Duration,
    /// The control plane making the pod's own workload known. Default 5 s.
    pub own_workload: Duration,
    /// A policy that a workload lists becoming known. Default 2 s.
    pub unknown_policy: Duration,
    /// The control plane telling what is asked of it for a connection, where it is not told everything. Default 5 s.
    pub demand: Duration,
    /// A hostname-only destination being resolved. Default 5 s.
    pub resolve: Duration,
    /// The first CONNECT on a tunnel that has arrived. Default 60 s.
    pub first_request: Duration,
    /// A tunnel that has arrived being unused. Default 10 minutes: the pools of peers give theirs up after 5.
    pub unused_tunnel: Duration,
    /// Nothing moving in either direction of a connection. Default none: that a connection is idle is no fault, and dead
    /// peers are noticed by [`Keepalive`] and by the tunnel's PING.
    pub idle: Option<Duration>,
    /// Nothing moving in one direction after the other has ended. Default 1 hour, what kube-proxy gives such connections.
    pub half_close: Option<Duration>,
    /// An end not reading what is sent to it. Default 15 minutes.
    pub stalled: Option<Duration>,
}

/// How tunnels are shared between connections.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// Streams on one connection at most; the peer may allow fewer. Default 100.
    pub max_streams: usize,
    /// Streams on one connection with which the next stream is to get another, if [`Self::connections`] allows. Default 25.
    pub crowded: usize,
    /// Connections of one worker that a peer gets for being busy, before any of them is full. Default 4.
    pub connections: usize,
    /// When an unused connection is closed. Default 5 minutes.
    pub idle_release: Duration,
    /// The same for one that is not the last to its peer: a burst is over, and what it took is given back. Default 2 s.
    pub spare_release: Duration,
}

/// How dead peers are noticed: TCP keepalive (`TCP_KEEPIDLE`, `TCP_KEEPINTVL`, `TCP_KEEPCNT`) and `TCP_USER_TIMEOUT`, on
/// every socket of the data path.
#[derive(Debug, Clone, Copy)]
pub struct Keepalive {
    /// Whether idle connections are probed. Default yes.
    pub enabled: bool,
    /// Idle time before the first probe. Default 180 s.
    pub time: Duration,
    /// Time between probes. Default 180 s.
    pub interval: Duration,
    /// Unanswered probes before the connection is dead. Default 9.
    pub retries: u32,
    /// How long what was sent may stay unacknowledged before the connection is dead, whatever the probes say; a peer that
    /// acknowledges but does not read is given as long. Default 15 minutes, what the kernel comes to by itself.
    pub unacknowledged: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            network: Arc::from(""),
            timeouts: Timeouts::default(),
            http2: Http2Config::default(),
            pool: PoolConfig::default(),
            tls: TlsOptions::default(),
            keepalive: Keepalive::default(),
            same_node: SameNode::default(),
            spans: None,
            original_source: true,
            max_handshakes: 1024,
            max_connections_per_pod: 20_000,
            max_tunnels_per_pod: 10_000,
            max_label_sets: 10_000,
            label_release: Duration::from_secs(600),
            dns: DnsConfig::default(),
        }
    }
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self { cluster_domain: Arc::from("cluster.local"), ipv6: true }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            endpoint: Duration::from_secs(3),
            retry: Duration::from_secs(15),
            certificate: Duration::from_secs(10),
            first_bytes: Duration::from_secs(5),
            tls_handshake: Duration::from_secs(10),
            http2_handshake: Duration::from_secs(10),
            answer: Duration::from_secs(20),
            own_workload: Duration::from_secs(5),
            unknown_policy: Duration::from_secs(2),
            demand: Duration::from_secs(5),
            resolve: Duration::from_secs(5),
            first_request: Duration::from_secs(60),
            unused_tunnel: Duration::from_secs(600),
            idle: None,
            half_close: Some(Duration::from_secs(3600)),
            stalled: Some(Duration::from_secs(900)),
        }
    }
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            max_streams: 100,
            crowded: 25,
            connections: 4,
            idle_release: Duration::from_secs(300),
            spare_release: Duration::from_secs(2),
        }
    }
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            enabled: true,
            time: Duration::from_secs(180),
            interval: Duration::from_secs(180),
            retries: 9,
            unacknowledged: Some(Duration::from_secs(900)),
        }
    }
}
