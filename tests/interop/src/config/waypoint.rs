//! An Envoy as waypoint: tunnels in, policy and routes by the original destination, tunnels out.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::tunnel::{self, PEER, Terminate};
use super::{Bootstrap, at, http};
use crate::{Credentials, HBONE};

/// The internal listener that handles streams by their destination.
const MAIN: &str = "main_internal";
/// Of the version that most requests go to, in percent.
const WEIGHT: u32 = 90;

/// A waypoint.
#[derive(Debug)]
pub struct Waypoint<'a> {
    /// Its own addresses.
    pub addresses: [IpAddr; 2],
    /// What it shows.
    pub own: &'a Credentials,
    /// Who may send it tunnels.
    pub clients: Vec<String>,
    /// What its destinations show.
    pub destinations: Vec<String>,
    /// Who may read (GET) over HTTP, and nobody may do anything else; everybody may do everything if it says nothing.
    pub readers: Option<Vec<String>>,
    /// Streams that it takes in one connection.
    pub streams: u32,
    /// What it stands in front of.
    pub fronted: Vec<Fronted>,
}

/// A destination behind a waypoint.
#[derive(Clone, Copy, Debug)]
pub enum Fronted {
    /// HTTP of two versions: 90 to 10 percent; `x-version: v2` goes to the second; `/slow` is half delayed.
    Http {
        /// What clients address.
        destination: SocketAddr,
        /// Where it leads.
        versions: [SocketAddr; 2],
    },
    /// TCP.
    Tcp {
        /// What clients address.
        destination: SocketAddr,
        /// Where it leads.
        endpoint: SocketAddr,
    },
}

impl Waypoint<'_> {
    /// The configuration.
    pub fn bootstrap(&self) -> Bootstrap {
        let terminate = Terminate {
            on: at(self.addresses, HBONE),
            own: self.own,
            accepted: &self.clients,
            streams: self.streams,
            then: MAIN,
            filters: vec![tunnel::remember_ends()],
        };
        let (originate, originated) = tunnel::originate(self.own, &self.destinations);
        let chains: Vec<_> = self.fronted.iter().map(|fronted| self.chain(fronted)).collect();
        let main = tunnel::internal_listener(MAIN, json!(chains));
        let mut clusters = vec![tunnel::to_internal(MAIN), originated];
        for endpoint in self.fronted.iter().flat_map(Fronted::endpoints) {
            let name = endpoint.to_string();
            if !clusters.iter().any(|known| known.get("name") == Some(&json!(name))) {
                clusters.push(tunnel::tunnelled(&name, endpoint));
            }
        }
        let listeners = vec![terminate.listener(), main, originate];
        Bootstrap { listeners, clusters }
    }

    fn chain(&self, fronted: &Fronted) -> Value {
        let (destination, filter) = match fronted {
            Fronted::Http { destination, versions } => {
                let filters =
                    self.readers.iter().map(|readers| policy(readers)).chain([http::fault()]).collect();
                (destination, http::manager("http", routes(versions), filters))
            }
            Fronted::Tcp { destination, endpoint } => {
                (destination, tunnel::tcp_proxy("tcp", &endpoint.to_string(), None))
            }
        };
        let length = if destination.is_ipv4() { 32 } else { 128 };
        let range = json!({ "address_prefix": destination.ip().to_string(), "prefix_len": length });
        let matched = json!({ "prefix_ranges": [range], "destination_port": destination.port() });
        json!({ "name": destination.to_string(), "filter_chain_match": matched, "filters": [filter] })
    }
}

/// Lets these read, and nobody do anything else.
fn policy(readers: &[String]) -> Value {
    let get = json!({ "header": { "name": ":method", "string_match": { "exact": "GET" } } });
    let principals: Vec<_> = readers
        .iter()
        .map(|reader| json!({ "filter_state": { "key": PEER, "string_match": { "exact": reader } } }))
        .collect();
    http::allow(json!({ "read": { "permissions": [get], "principals": principals } }))
}

impl Fronted {
    fn endpoints(&self) -> Vec<SocketAddr> {
        match self {
            Self::Http { versions, .. } => versions.to_vec(),
            Self::Tcp { endpoint, .. } => vec![*endpoint],
        }
    }
}

fn routes(versions: &[SocketAddr; 2]) -> Value {
    let [first, second] = versions.map(|endpoint| endpoint.to_string());
    let header = json!({ "name": "x-version", "string_match": { "exact": "v2" } });
    let weighted = json!([
        { "name": first, "weight": WEIGHT }, { "name": second, "weight": 100 - WEIGHT },
    ]);
    json!([
        {
            "match": { "prefix": "/slow" }, "route": { "cluster": first },
            "typed_per_filter_config": http::half_delayed(),
        },
        { "match": { "prefix": "/", "headers": [header] }, "route": { "cluster": second } },
        { "match": { "prefix": "/" }, "route": { "weighted_clusters": { "clusters": weighted } } },
    ])
}
