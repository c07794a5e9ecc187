//! HBONE on both sides of an Envoy: terminating CONNECT and asking for it.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{CONNECT_TIMEOUT, access_log, cluster, extension, http, listener, tls, typed};
use crate::{Credentials, HBONE};

/// Key of the original destination, in filter state and metadata.
const ORIGINAL_DESTINATION: &str = "envoy.filters.listener.original_dst";
/// Key of the client's identity in the filter state.
pub(super) const PEER: &str = "io.istio.peer_principal";
/// The internal listener that puts connections into tunnels.
pub(super) const ORIGINATE: &str = "connect_originate";
/// The listener that takes tunnels; its statistics are those of the tunnels that arrive.
pub(super) const TERMINATE: &str = "connect_terminate";

/// What a tunnel's end offers.
pub(super) struct Terminate<'a> {
    pub(super) on: [SocketAddr; 2],
    pub(super) own: &'a Credentials,
    /// Identities of clients.
    pub(super) accepted: &'a [String],
    /// Streams in one connection.
    pub(super) streams: u32,
    /// The cluster that streams are handed to.
    pub(super) then: &'a str,
    /// What happens to requests on the way.
    pub(super) filters: Vec<Value>,
}

impl Terminate<'_> {
    /// The listener.
    pub(super) fn listener(self) -> Value {
        let connect = json!([{
            "match": { "connect_matcher": {} },
            "route": {
                "cluster": self.then,
                "timeout": "0s",
                "upgrade_configs": [{ "upgrade_type": "CONNECT", "connect_config": {} }],
            },
        }]);
        let more = json!({
            "codec_type": "HTTP2",
            "upgrade_configs": [{ "upgrade_type": "CONNECT" }],
            "http2_protocol_options": {
                "allow_connect": true,
                "max_concurrent_streams": self.streams,
                "connection_keepalive": { "interval": "10s", "timeout": "20s" },
            },
            "stream_idle_timeout": "0s",
        });
        let manager = http::connections(TERMINATE, connect, self.filters, more);
        let chain =
            json!({ "transport_socket": tls::downstream(self.own, self.accepted), "filters": [manager] });
        listener(TERMINATE, &self.on, json!([chain]))
    }
}

/// Remembers for the internal listener where the stream is to go, from where it comes, and who sent it.
pub(super) fn remember_ends() -> Value {
    let remembered = |key: &str, value: &str| {
        json!({
            "object_key": key,
            "format_string": { "text_format_source": { "inline_string": value } },
            "shared_with_upstream": "ONCE",
        })
    };
    let mut peer = remembered(PEER, "%DOWNSTREAM_PEER_URI_SAN%");
    if let Some(fields) = peer.as_object_mut() {
        fields.insert("factory_key".to_owned(), "envoy.string".into());
    }
    extension(
        "connect_authority",
        "envoy.extensions.filters.http.set_filter_state.v3.Config",
        json!({ "on_request_headers": [
            remembered(&format!("{ORIGINAL_DESTINATION}.local_ip"), "%REQ(:AUTHORITY)%"),
            remembered(&format!("{ORIGINAL_DESTINATION}.remote_ip"), "%DOWNSTREAM_REMOTE_ADDRESS%"),
            peer,
        ] }),
    )
}

/// Restores in an internal listener what was remembered.
pub(super) fn original_destination() -> Value {
    let kind = "envoy.extensions.filters.listener.original_dst.v3.OriginalDst";
    json!([extension(ORIGINAL_DESTINATION, kind, json!({}))])
}

/// An internal listener with these chains.
pub(super) fn internal_listener(name: &str, chains: Value) -> Value {
    json!({
        "name": name, "internal_listener": {},
        "listener_filters": original_destination(), "filter_chains": chains,
    })
}

/// The cluster that leads to an internal listener of the same name.
pub(super) fn to_internal(name: &str) -> Value {
    let address = json!({ "envoy_internal_address": { "server_listener_name": name } });
    let endpoint = json!({ "endpoint": { "address": address } });
    cluster(name, &endpoint, json!({ "transport_socket": internal_transport(&json!([])) }))
}

/// A cluster whose one endpoint is reached through a tunnel.
pub(super) fn tunnelled(name: &str, endpoint: SocketAddr) -> Value {
    let address = json!({ "envoy_internal_address": {
        "server_listener_name": ORIGINATE, "endpoint_id": endpoint.to_string(),
    } });
    let place = json!({
        "endpoint": { "address": address },
        "metadata": { "filter_metadata": { ORIGINAL_DESTINATION: { "local": endpoint.to_string() } } },
    });
    let passed = json!([{ "kind": { "host": {} }, "name": ORIGINAL_DESTINATION }]);
    cluster(name, &place, json!({ "transport_socket": internal_transport(&passed) }))
}

fn internal_transport(passed: &Value) -> Value {
    let raw = extension(
        "envoy.transport_sockets.raw_buffer",
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
        json!({}),
    );
    extension(
        "envoy.transport_sockets.internal_upstream",
        "envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
        json!({ "transport_socket": raw, "passthrough_metadata": passed }),
    )
}

/// The internal listener and the cluster that take what [`tunnelled`] clusters send to its endpoint, whatever that is, as
/// `own`; the endpoint shows one of `accepted`.
pub(super) fn originate(own: &Credentials, accepted: &[String]) -> (Value, Value) {
    let proxy = tcp_proxy(ORIGINATE, ORIGINATE, Some("%DOWNSTREAM_LOCAL_ADDRESS%"));
    let listener = internal_listener(ORIGINATE, json!([{ "filters": [proxy] }]));
    let cluster = json!({
        "name": ORIGINATE, "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": CONNECT_TIMEOUT,
        "original_dst_lb_config": { "upstream_port_override": HBONE },
        "typed_extension_protocol_options": http2(),
        "transport_socket": tls::upstream(own, accepted),
    });
    (listener, cluster)
}

/// Passes bytes to a cluster: as they are, or through a CONNECT for an authority.
pub(super) fn tcp_proxy(name: &str, cluster: &str, authority: Option<&str>) -> Value {
    let mut settings = json!({ "stat_prefix": name, "cluster": cluster, "access_log": access_log(name) });
    if let (Some(fields), Some(authority)) = (settings.as_object_mut(), authority) {
        fields.insert("tunneling_config".to_owned(), json!({ "hostname": authority }));
    }
    extension(
        "envoy.filters.network.tcp_proxy",
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        settings,
    )
}

/// For clusters that are asked for CONNECT.
pub(super) fn http2() -> Value {
    let kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let explicit = json!({ "http2_protocol_options": { "allow_connect": true } });
    json!({ kind: typed(kind, json!({ "explicit_http_config": explicit })) })
}
