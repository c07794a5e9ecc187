//! An Envoy as client of tunnels: each plain listener on loopback leads through a CONNECT of its own kind.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::json;

use super::{Bootstrap, cluster, endpoint, listener, tls, tunnel};
use crate::Credentials;

/// One way through a tunnel.
#[derive(Debug)]
pub struct Client<'a> {
    /// Its name in statistics and log.
    pub name: &'a str,
    /// Port on loopback.
    pub port: u16,
    /// What it shows.
    pub own: &'a Credentials,
    /// Where it dials.
    pub peer: SocketAddr,
    /// What the peer must show.
    pub accepted: String,
    /// What it asks the peer for.
    pub authority: SocketAddr,
}

impl Client<'_> {
    /// Where an application of the same pod connects to.
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.port)
    }

    /// The configuration of an Envoy with all these ways.
    pub fn bootstrap(ways: &[Self]) -> Bootstrap {
        let listeners = ways.iter().map(|way| {
            let proxy = tunnel::tcp_proxy(way.name, way.name, Some(&way.authority.to_string()));
            listener(way.name, &[way.local()], json!([{ "filters": [proxy] }]))
        });
        let clusters = ways.iter().map(|way| {
            let more = json!({
                "typed_extension_protocol_options": tunnel::http2(),
                "transport_socket": tls::upstream(way.own, std::slice::from_ref(&way.accepted)),
            });
            cluster(way.name, &endpoint(way.peer), more)
        });
        Bootstrap { listeners: listeners.collect(), clusters: clusters.collect() }
    }
}
