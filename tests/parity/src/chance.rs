//! What chance decides in a row, taken out of both what was recorded and what became of it here.
//!
//! Invariant: only what the recording's README calls chance: the client's port; for a connection by a pod's address, which of
//! the services that have it at this port is named; whether a refused connection is closed or reset; and, of a connection that is
//! open for a while, how long that was and how much was said on it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use recordings::Line;
use recordings::parity::Row;
use serde_json::Value;

use crate::outcome::{Fields, Outcome, text};
use crate::rows::target;

/// In place of what chance decides.
const ANY: &str = "(any)";
const SERVICE: &str = "destination_service";

/// The services that are to be had at an address and a port of a pod.
#[derive(Debug, Default)]
pub struct Chance {
    services: BTreeMap<SocketAddr, BTreeSet<String>>,
}

impl Chance {
    /// Of all that the control plane says of the pods.
    pub fn of(conversation: &[Line]) -> Self {
        let mut chance = Self::default();
        let responses = conversation.iter().filter_map(|line| line.received.as_ref());
        let resources = responses.filter_map(|response| response.get("resources")?.as_array()).flatten();
        for workload in resources.filter_map(|resource| resource.pointer("/body/workload")) {
            chance.learn(workload);
        }
        chance
    }

    fn learn(&mut self, workload: &Value) {
        let addresses = workload.get("addresses").and_then(Value::as_array).into_iter().flatten();
        let addresses: Vec<IpAddr> = addresses.filter_map(|ip| ip.as_str()?.parse().ok()).collect();
        for (name, service) in workload.get("services").and_then(Value::as_object).into_iter().flatten() {
            let Some((_, host)) = name.split_once('/') else { continue };
            for port in service.get("ports").and_then(Value::as_array).into_iter().flatten() {
                let Some(port) = port.get("target_port").and_then(Value::as_u64) else { continue };
                let Ok(port) = u16::try_from(port) else { continue };
                for ip in &addresses {
                    self.services.entry(SocketAddr::new(*ip, port)).or_default().insert(host.to_owned());
                }
            }
        }
    }

    /// An outcome of this row without what chance decided.
    pub fn out_of(&self, row: &Row, mut outcome: Outcome) -> Result<Outcome> {
        if let Some(services) = self.services.get(&target(row)?) {
            outcome.each().for_each(|fields| forget_guess(fields, services));
        }
        outcome.each().for_each(forget_port);
        if row.group.starts_with("live") {
            outcome.each().for_each(forget_length);
        }
        if is_refusal(row) {
            outcome.results.iter_mut().for_each(forget_ending);
        }
        Ok(outcome)
    }
}

/// Whether a row was refused: its lines say so, or there are none to say anything.
fn is_refusal(row: &Row) -> bool {
    let lines = row.access_log.as_deref();
    lines.is_none_or(|lines| lines.iter().any(|line| text(line, "level") != "info"))
}

/// Which of both depends on timing.
fn forget_ending(result: &mut Fields) {
    if ["closed", "reset"].contains(&text(result, "outcome")) && !result.contains_key("bytes") {
        result.insert("outcome".to_owned(), "refused".into());
    }
}

fn forget_port(fields: &mut Fields) {
    for (key, end) in [("src.addr", ""), ("by.forwarded", "\"")] {
        if let Some((before, _)) =
            fields.get(key).and_then(Value::as_str).and_then(|text| text.rsplit_once(':'))
        {
            let without = format!("{before}:*{end}");
            fields.insert(key.to_owned(), without.into());
        }
    }
}

fn forget_length(fields: &mut Fields) {
    fields.remove("ms");
    fields.remove("after_ms");
    for key in ["bytes_sent", "bytes_recv"] {
        if fields.get(key).and_then(Value::as_u64).is_some_and(|bytes| bytes > 0) {
            fields.insert(key.to_owned(), ANY.into());
        }
    }
}

/// A guess is the destination's to make, by the port alone; both the name and what belongs to it must be one service's.
fn forget_guess(fields: &mut Fields, services: &BTreeSet<String>) {
    if services.contains(text(fields, "dst.service")) {
        fields.insert("dst.service".to_owned(), ANY.into());
    }
    let service = text(fields, SERVICE);
    let (name, rest) = service.split_once('.').unwrap_or_default();
    let namespace = rest.split('.').next().unwrap_or_default();
    let own = [("_name", name), ("_namespace", namespace)];
    let consistent = own.iter().all(|(key, value)| text(fields, &format!("{SERVICE}{key}")) == *value);
    if services.contains(service) && consistent {
        for key in ["", "_name", "_namespace"] {
            fields.insert(format!("{SERVICE}{key}"), ANY.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(group: &str, level: &str) -> Row {
        serde_json::from_value(json!({
            "group": group, "about": "", "from": "sleep", "to": "10.1.1.11:9080", "results": [],
            "xds_before": 1, "xds_messages": 1, "access_log": [{ "level": level }],
        }))
        .unwrap()
    }

    fn without(row: &Row, fields: &Value) -> Value {
        let mut chance = Chance::default();
        chance.learn(&json!({
            "addresses": ["10.1.1.11"],
            "services": { "ns/web.ns.svc": { "ports": [{ "service_port": 80, "target_port": 9080 }] },
                "ns/web2.ns.svc": { "ports": [{ "service_port": 9080, "target_port": 9080 }] } },
        }));
        let outcome = Outcome { results: vec![crate::outcome::flat(fields)], ..Outcome::default() };
        let outcome = chance.out_of(row, outcome).unwrap();
        Value::Object(outcome.results[0].clone())
    }

    #[test]
    fn what_is_chance_is_forgotten_and_nothing_else() {
        let (fine, refused, live) =
            (row("routing", "info"), row("routing", "error"), row("live connections", "info"));
        for (row, before, after) in [
            (&fine, json!({ "src.addr": "10.1.0.30:55" }), json!({ "src.addr": "10.1.0.30:*" })),
            (
                &fine,
                json!({ "by": { "forwarded": "for=\"10.1.0.30:5\"" } }),
                json!({ "by.forwarded": "for=\"10.1.0.30:*\"" }),
            ),
            (&fine, json!({ "dst.service": "web.ns.svc" }), json!({ "dst.service": ANY })),
            (&fine, json!({ "dst.service": "other.ns.svc" }), json!({ "dst.service": "other.ns.svc" })),
            (
                &fine,
                json!({ "destination_service": "web2.ns.svc", "destination_service_name": "web2", "destination_service_namespace": "ns" }),
                json!({ "destination_service": ANY, "destination_service_name": ANY, "destination_service_namespace": ANY }),
            ),
            (
                &fine,
                json!({ "destination_service": "web2.ns.svc", "destination_service_name": "web", "destination_service_namespace": "ns" }),
                json!({ "destination_service": "web2.ns.svc", "destination_service_name": "web", "destination_service_namespace": "ns" }),
            ),
            (&fine, json!({ "outcome": "closed" }), json!({ "outcome": "closed" })),
            (&refused, json!({ "outcome": "closed" }), json!({ "outcome": "refused" })),
            (
                &refused,
                json!({ "outcome": "closed", "bytes": 1 }),
                json!({ "outcome": "closed", "bytes": 1 }),
            ),
            (&refused, json!({ "outcome": "no answer" }), json!({ "outcome": "no answer" })),
            (&fine, json!({ "bytes_sent": 3, "ms": 4 }), json!({ "bytes_sent": 3, "ms": 4 })),
            (
                &live,
                json!({ "bytes_sent": 3, "bytes_recv": 0, "ms": 4 }),
                json!({ "bytes_sent": ANY, "bytes_recv": 0 }),
            ),
        ] {
            assert_eq!(without(row, &before), after);
        }
    }
}
