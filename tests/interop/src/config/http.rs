//! HTTP connection managers, routes, and the filters on the way.

use serde_json::{Value, json};

use super::{access_log, extension};

/// Handles HTTP by these routes and filters.
pub(super) fn manager(name: &str, routes: Value, filters: Vec<Value>) -> Value {
    connections(name, routes, filters, json!({}))
}

/// As [`manager`], with more settings.
pub(super) fn connections(name: &str, routes: Value, mut filters: Vec<Value>, more: Value) -> Value {
    filters.push(extension(
        "envoy.filters.http.router",
        "envoy.extensions.filters.http.router.v3.Router",
        json!({}),
    ));
    let mut settings = json!({
        "stat_prefix": name,
        "access_log": access_log(name),
        "drain_timeout": "1s",
        "route_config": {
            "name": name, "virtual_hosts": [{ "name": name, "domains": ["*"], "routes": routes }],
        },
        "http_filters": filters,
    });
    if let (Some(fields), Value::Object(more)) = (settings.as_object_mut(), more) {
        fields.extend(more);
    }
    extension(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        settings,
    )
}

/// For clusters whose connections are given up after so many requests, and soon when they are idle.
pub(super) fn few_requests(requests: u32) -> Value {
    let kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let options = json!({
        "common_http_protocol_options": { "max_requests_per_connection": requests, "idle_timeout": "1s" },
        "explicit_http_config": { "http_protocol_options": {} },
    });
    json!({ kind: super::typed(kind, options) })
}

/// Allows what one of these policies allows.
pub(super) fn allow(policies: Value) -> Value {
    extension(
        "envoy.filters.http.rbac",
        "envoy.extensions.filters.http.rbac.v3.RBAC",
        json!({ "rules": { "action": "ALLOW", "policies": policies } }),
    )
}

/// Delays what routes say is to be delayed.
pub(super) fn fault() -> Value {
    extension(FAULT, FAULT_TYPE, json!({}))
}

/// For a route: delays half of its requests by two seconds.
pub(super) fn half_delayed() -> Value {
    let delay = json!({ "fixed_delay": "2s", "percentage": { "numerator": 50, "denominator": "HUNDRED" } });
    json!({ FAULT: super::typed(FAULT_TYPE, json!({ "delay": delay })) })
}

const FAULT: &str = "envoy.filters.http.fault";
const FAULT_TYPE: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";
