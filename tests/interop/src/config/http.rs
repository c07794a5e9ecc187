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
