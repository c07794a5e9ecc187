//! An Envoy as ingress gateway: plain HTTP from outside, tunnels into the mesh.

use std::net::SocketAddr;

use serde_json::json;

use super::{Bootstrap, http, listener, tunnel};
use crate::Credentials;

/// Requests on one connection to a destination, so that connections come and go.
const REQUESTS: u32 = 20;

/// A gateway.
#[derive(Debug)]
pub struct Ingress<'a> {
    /// Where it is reached.
    pub on: [SocketAddr; 2],
    /// What it shows in the mesh.
    pub own: &'a Credentials,
    /// Prefixes of paths, and where they lead.
    pub routes: Vec<(&'a str, SocketAddr)>,
    /// What those show.
    pub destinations: Vec<String>,
}

impl Ingress<'_> {
    /// The configuration.
    pub fn bootstrap(&self) -> Bootstrap {
        let routes: Vec<_> = self
            .routes
            .iter()
            .map(|(prefix, to)| json!({ "match": { "prefix": prefix }, "route": { "cluster": to.to_string() } }))
            .collect();
        let manager = http::manager("ingress", json!(routes), Vec::new());
        let (originate, originated) = tunnel::originate(self.own, &self.destinations);
        let mut clusters = vec![originated];
        for (_, to) in &self.routes {
            let mut cluster = tunnel::tunnelled(&to.to_string(), *to);
            if let Some(fields) = cluster.as_object_mut() {
                fields.insert("typed_extension_protocol_options".to_owned(), http::few_requests(REQUESTS));
            }
            clusters.push(cluster);
        }
        let listeners = vec![listener("ingress", &self.on, json!([{ "filters": [manager] }])), originate];
        Bootstrap { listeners, clusters }
    }
}
