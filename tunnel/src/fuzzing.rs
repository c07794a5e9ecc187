//! What fuzz tests reach of this crate: the places where bytes of strangers are read. Only with the feature `fuzzing`.

use std::net::{IpAddr, SocketAddr};

use hickory_proto::op::ResponseCode;
use mesh::{Identity, Snapshot};

use crate::dns::{Asker, DnsAction, Host, Settings, Transport, handle_packet, judge_connection};
use crate::hbone::Traceparent;
use crate::hbone::baggage::Baggage;
use crate::hbone::forwarded::Forwarded;

/// What the headers of a CONNECT request say.
#[derive(Debug, PartialEq, Eq)]
pub struct Headers {
    /// The values of `baggage` that are understood.
    pub baggage: [String; 7],
    /// The client that `forwarded` names.
    pub client: Option<SocketAddr>,
    /// The host that `forwarded` names.
    pub host: Option<String>,
    /// `traceparent`, written again.
    pub traceparent: Option<String>,
}

/// Reads the headers of a CONNECT request.
pub fn connect_headers(baggage: &str, forwarded: &str, traceparent: &str) -> Headers {
    let Baggage { cluster, namespace, workload, service, revision, region, zone } = Baggage::parse(baggage);
    let Forwarded { client, host } = Forwarded::parse(forwarded);
    let traceparent = traceparent.parse().ok().map(|traceparent: Traceparent| traceparent.to_string());
    Headers {
        baggage: [cluster, namespace, workload, service, revision, region, zone],
        client,
        host,
        traceparent,
    }
}

/// Writes a PROXY protocol header.
pub fn proxy_header(
    client: SocketAddr,
    target: SocketAddr,
    identity: &str,
    service: Option<&str>,
) -> Vec<u8> {
    crate::inbound::proxy_header(client, target, identity, service)
}

/// A pod that asks for names.
#[derive(Debug)]
pub struct DnsClient {
    snapshot: Snapshot,
    settings: Settings,
    cluster_domain: Host,
}

/// What becomes of a DNS packet.
#[derive(Debug)]
pub enum DnsOutcome {
    /// Nothing.
    Dropped,
    /// The mesh answers.
    Reply(Vec<u8>),
    /// The resolver is to answer.
    Forwarded {
        /// What the client gets if it does not.
        failure: Option<Vec<u8>>,
        /// What the client gets if the resolver says that there is no such name.
        passed: Vec<u8>,
    },
}

impl DnsClient {
    /// One in namespace `default`, with this `resolv.conf`.
    pub fn new(snapshot: Snapshot, resolv_conf: &str) -> Option<Self> {
        Some(Self {
            snapshot,
            settings: Settings::parse(resolv_conf),
            cluster_domain: Host::parse("cluster.local")?,
        })
    }

    /// Handles one packet, over a connection if `tcp`; `seed` is the random number.
    pub fn handle(&self, packet: &[u8], tcp: bool, seed: u64) -> DnsOutcome {
        let asker = Asker {
            snapshot: &self.snapshot,
            namespace: "default",
            network: "",
            settings: &self.settings,
            cluster_domain: &self.cluster_domain,
            ipv6: seed & 1 == 0,
            seed,
        };
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        match handle_packet(&asker, packet, transport).action {
            DnsAction::Drop => DnsOutcome::Dropped,
            DnsAction::Reply(reply) => DnsOutcome::Reply(reply),
            DnsAction::Forward(forward) => {
                let mut unknown = packet.to_vec();
                if let Some([_, _, flags, code, ..]) = unknown.first_chunk_mut::<4>() {
                    *flags |= 0x80;
                    *code = ResponseCode::NXDomain.low();
                }
                DnsOutcome::Forwarded { failure: forward.failed(packet), passed: forward.pass_on(unknown) }
            }
        }
    }
}

/// Whether a connection to port 53 that begins with these bytes asks a question; none if there are too few to tell.
pub fn begins_with_question(bytes: &[u8]) -> Option<bool> {
    judge_connection(bytes)
}

/// Whether `reply` counts as an answer to `query`.
pub fn is_dns_answer(reply: &[u8], query: &[u8]) -> bool {
    crate::dns::is_answer(reply, query)
}

/// How a pod's applications resolve names.
#[derive(Debug, PartialEq, Eq)]
pub struct Resolver {
    /// Domains that are appended, in order.
    pub search: Vec<String>,
    /// Names with fewer dots are searched for first.
    pub ndots: usize,
    /// Name servers, in order.
    pub nameservers: Vec<IpAddr>,
}

/// Reads a `resolv.conf`.
pub fn resolv_conf(text: &str) -> Resolver {
    let Settings { search, ndots, nameservers } = Settings::parse(text);
    Resolver { search: search.iter().map(Host::to_string).collect(), ndots, nameservers }
}

/// Who a peer's certificate is in this trust domain, and whether it is one of those that are `accepted`; its chain is not looked at.
pub fn peer_names(der: &[u8], trust_domain: &str, accepted: &[String]) -> (Option<Identity>, bool) {
    crate::tls::peer_names(der, trust_domain, accepted)
}
