//! Configurations of Envoy, put together from parts as a control plane would.
//!
//! [`tls`], [`http`] and [`tunnel`] make parts; [`Waypoint`], [`Client`], [`Server`], [`Gateway`] and [`Ingress`] make a
//! whole of them.
//! The words are those of Envoy's v3 API. A waypoint has the shape that waypoints of an ambient mesh have: CONNECT is
//! terminated, the stream goes to an internal listener with what is known of its two ends in the filter state, is handled
//! there by its original destination, and leaves through another internal listener that puts it into a tunnel again.

mod client;
mod gateway;
mod http;
mod ingress;
mod server;
mod tls;
mod tunnel;
mod waypoint;

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

pub use client::Client;
pub use gateway::Gateway;
pub use ingress::Ingress;
pub use server::Server;
pub use waypoint::{Fronted, Waypoint};

/// For TCP and TLS together; a busy machine takes its time.
const CONNECT_TIMEOUT: &str = "30s";

/// Listeners and clusters of one Envoy.
#[derive(Clone, Debug, Default)]
pub struct Bootstrap {
    /// Where it is reached.
    pub listeners: Vec<Value>,
    /// Where it goes.
    pub clusters: Vec<Value>,
}

impl Bootstrap {
    /// The file's contents.
    pub fn to_json(&self, name: &str, admin: SocketAddr) -> Value {
        json!({
            "node": { "id": name, "cluster": "interop" },
            "admin": { "address": address(admin) },
            "bootstrap_extensions": [extension(
                "envoy.bootstrap.internal_listener",
                "envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
                json!({}),
            )],
            "static_resources": { "listeners": self.listeners, "clusters": self.clusters },
        })
    }
}

/// An extension by its name and type, with its settings.
fn extension(name: &str, kind: &str, settings: Value) -> Value {
    json!({ "name": name, "typed_config": typed(kind, settings) })
}

/// Settings that say what they are.
fn typed(kind: &str, mut settings: Value) -> Value {
    if let Some(fields) = settings.as_object_mut() {
        fields.insert("@type".to_owned(), format!("type.googleapis.com/{kind}").into());
    }
    settings
}

fn address(at: SocketAddr) -> Value {
    json!({ "socket_address": { "address": at.ip().to_string(), "port_value": at.port() } })
}

/// A listener on the same port of several addresses.
fn listener(name: &str, on: &[SocketAddr], chains: Value) -> Value {
    let mut addresses = on.iter().map(|at| address(*at));
    let mut listener = json!({ "name": name, "stat_prefix": name, "filter_chains": chains });
    if let Some(fields) = listener.as_object_mut() {
        fields.insert("address".to_owned(), addresses.next().unwrap_or_default());
        let more: Vec<_> = addresses.map(|address| json!({ "address": address })).collect();
        fields.insert("additional_addresses".to_owned(), more.into());
    }
    listener
}

/// A cluster of one endpoint.
fn cluster(name: &str, endpoint: &Value, more: Value) -> Value {
    let mut cluster = json!({
        "name": name, "type": "STATIC", "connect_timeout": CONNECT_TIMEOUT,
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }] },
    });
    if let (Some(fields), Value::Object(more)) = (cluster.as_object_mut(), more) {
        fields.extend(more);
    }
    cluster
}

/// An endpoint that is dialled.
fn endpoint(at: SocketAddr) -> Value {
    json!({ "endpoint": { "address": address(at) } })
}

/// Writes to stdout how each connection or request ended.
fn access_log(tag: &str) -> Value {
    let fields = [
        "%REQ(:METHOD)% %REQ(:AUTHORITY)% %REQ(:PATH)% code=%RESPONSE_CODE% flags=%RESPONSE_FLAGS%",
        "details=%RESPONSE_CODE_DETAILS% peer=%DOWNSTREAM_PEER_URI_SAN% from=%DOWNSTREAM_REMOTE_ADDRESS%",
        "to=%DOWNSTREAM_LOCAL_ADDRESS% upstream=%UPSTREAM_HOST% failure=%UPSTREAM_TRANSPORT_FAILURE_REASON%",
        "baggage=%REQ(BAGGAGE)% forwarded=%REQ(FORWARDED)%",
        "traceparent=%REQ(TRACEPARENT)%",
    ];
    let line = format!("access {tag} {}\n", fields.join(" "));
    json!([extension(
        "envoy.access_loggers.stdout",
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
        json!({ "log_format": { "text_format_source": { "inline_string": line } } }),
    )])
}

/// The same port of several addresses.
fn at(addresses: [IpAddr; 2], port: u16) -> [SocketAddr; 2] {
    addresses.map(|ip| SocketAddr::new(ip, port))
}
