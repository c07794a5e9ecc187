//! An Envoy as the gateway of a network: it ends the outer tunnel and hands on what is inside, which it cannot read.

use std::net::{IpAddr, SocketAddr};

use serde_json::json;

use super::tunnel::Terminate;
use super::{Bootstrap, at, cluster, endpoint};
use crate::{Credentials, HBONE};

const ONWARD: &str = "onward";

/// The gateway in front of one workload.
#[derive(Debug)]
pub struct Gateway<'a> {
    /// Its addresses.
    pub addresses: [IpAddr; 2],
    /// What it shows.
    pub own: &'a Credentials,
    /// Who may send it tunnels.
    pub clients: Vec<String>,
    /// Where the workload takes tunnels.
    pub onward: SocketAddr,
}

impl Gateway<'_> {
    /// The configuration. Whichever host is asked for, what comes goes to the workload.
    pub fn bootstrap(&self) -> Bootstrap {
        let terminate = Terminate {
            on: at(self.addresses, HBONE),
            own: self.own,
            accepted: &self.clients,
            streams: 100,
            then: ONWARD,
            filters: Vec::new(),
        };
        Bootstrap {
            listeners: vec![terminate.listener()],
            clusters: vec![cluster(ONWARD, &endpoint(self.onward), json!({}))],
        }
    }
}
