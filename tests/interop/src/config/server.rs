//! An Envoy as server of tunnels, beside the application that they are for.

use std::net::IpAddr;

use serde_json::json;

use super::tunnel::Terminate;
use super::{Bootstrap, CONNECT_TIMEOUT, at};
use crate::{Credentials, HBONE};

const APPLICATION: &str = "application";

/// The tunnels' end of a workload.
#[derive(Debug)]
pub struct Server<'a> {
    /// Its addresses.
    pub addresses: [IpAddr; 2],
    /// What it shows.
    pub own: &'a Credentials,
    /// Who may send it tunnels.
    pub clients: Vec<String>,
    /// Streams that it takes in one connection.
    pub streams: u32,
}

impl Server<'_> {
    /// The configuration. What a tunnel asks for is dialled as it is.
    pub fn bootstrap(&self) -> Bootstrap {
        let terminate = Terminate {
            on: at(self.addresses, HBONE),
            own: self.own,
            accepted: &self.clients,
            streams: self.streams,
            then: APPLICATION,
            filters: Vec::new(),
        };
        let application = json!({
            "name": APPLICATION, "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": CONNECT_TIMEOUT,
            "original_dst_lb_config": { "use_http_header": true, "http_header_name": ":authority" },
        });
        Bootstrap { listeners: vec![terminate.listener()], clusters: vec![application] }
    }
}
