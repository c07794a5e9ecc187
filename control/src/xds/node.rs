//! Who the agent says it is.
//!
//! Invariant: the id has the four parts that the control plane reads, the third and fourth of the agent's own pod: the
//! control plane compares them with the token's.

use std::collections::BTreeMap;
use std::net::IpAddr;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

use crate::proto::discovery;

/// The first part of the id: what kind of proxy this is. The control plane knows node agents by this word alone.
const PROXY: &str = "ztunnel";

/// What the agent knows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The name of its pod.
    pub name: String,
    /// The namespace of its pod.
    pub namespace: String,
    /// Its address.
    pub instance_ip: IpAddr,
    /// The node it runs on. The control plane sends an agent that asks on demand what runs there.
    pub node_name: String,
    /// Its cluster.
    pub cluster_id: String,
    /// Its service account, if it is to be told.
    pub service_account: Option<String>,
    /// Its network, if that has a name.
    pub network: Option<String>,
}

/// Who the agent says it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    id: String,
    ours: BTreeMap<String, Value>,
    extra: BTreeMap<String, Value>,
}

/// What cannot be told of a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// A part of the id that cannot be one.
    #[error(
        "{what} `{value}` cannot be part of a node's id: it must not be empty nor contain `~`, `/`, `.` or white space"
    )]
    Part {
        /// Which.
        what: &'static str,
        /// As given.
        value: String,
    },
    /// Metadata that is not JSON.
    #[error("the metadata {name} is not JSON: {reason}")]
    Json {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// Metadata without a name.
    #[error("metadata needs a name after the prefix of its variable")]
    Nameless,
}

impl Node {
    /// A node of these parts.
    ///
    /// # Errors
    /// A [`NodeError::Part`] if one cannot be part of the id.
    pub fn new(parts: Parts) -> Result<Self, NodeError> {
        part("pod name", &parts.name, false)?;
        part("namespace", &parts.namespace, true)?;
        let (name, namespace, ip) = (&parts.name, &parts.namespace, parts.instance_ip.to_canonical());
        let id = format!("{PROXY}~{ip}~{name}.{namespace}~{namespace}.svc.cluster.local");
        let mut ours = BTreeMap::new();
        let mut tell = |name: &str, value: String| ours.insert(name.to_owned(), string(value));
        tell("INSTANCE_IPS", ip.to_string());
        tell("NAME", parts.name);
        tell("NAMESPACE", parts.namespace);
        tell("NODE_NAME", parts.node_name);
        tell("CLUSTER_ID", parts.cluster_id);
        if let Some(account) = parts.service_account {
            tell("SERVICE_ACCOUNT", account);
        }
        if let Some(network) = parts.network.filter(|network| !network.is_empty()) {
            tell("NETWORK", network);
        }
        Ok(Self { id, ours, extra: BTreeMap::new() })
    }

    /// Adds metadata of the user (`ISTIO_META_*`, without the prefix). What [`Parts`] say comes before it.
    ///
    /// # Errors
    /// [`NodeError::Nameless`] if the name is empty.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), NodeError> {
        self.insert(name, string(value.to_owned()))
    }

    /// Adds typed metadata of the user (`ISTIO_METAJSON_*`, without the prefix), given as JSON.
    ///
    /// # Errors
    /// A [`NodeError`] if the name is empty or the value is not JSON.
    pub fn add_json(&mut self, name: &str, json: &str) -> Result<(), NodeError> {
        let value: serde_json::Value = serde_json::from_str(json)
            .map_err(|error| NodeError::Json { name: name.to_owned(), reason: error.to_string() })?;
        self.insert(name, typed(value))
    }

    fn insert(&mut self, name: &str, value: Value) -> Result<(), NodeError> {
        if name.is_empty() {
            return Err(NodeError::Nameless);
        }
        self.extra.insert(name.to_owned(), value);
        Ok(())
    }

    pub(super) fn message(&self) -> discovery::Node {
        let mut fields = self.extra.clone();
        fields.extend(self.ours.clone());
        discovery::Node { id: self.id.clone(), metadata: Some(Struct { fields }), ..Default::default() }
    }
}

fn part(what: &'static str, value: &str, dotless: bool) -> Result<(), NodeError> {
    let unfit = |c: char| matches!(c, '~' | '/') || c.is_whitespace() || (dotless && c == '.');
    if value.is_empty() || value.contains(unfit) {
        return Err(NodeError::Part { what, value: value.to_owned() });
    }
    Ok(())
}

fn string(text: String) -> Value {
    Value { kind: Some(Kind::StringValue(text)) }
}

fn typed(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(values) => Kind::ListValue(ListValue { values: values.into_iter().map(typed).collect() }),
        Json::Object(fields) => Kind::StructValue(Struct {
            fields: fields.into_iter().map(|(name, value)| (name, typed(value))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts {
        Parts {
            name: "ztunnel-a".to_owned(),
            namespace: "istio-system".to_owned(),
            instance_ip: "10.1.0.5".parse().unwrap(),
            node_name: "node-a".to_owned(),
            cluster_id: "Kubernetes".to_owned(),
            service_account: None,
            network: Some(String::new()),
        }
    }

    #[test]
    fn the_id_and_the_metadata() {
        let mut node = Node::new(parts()).unwrap();
        node.add("LABEL", "x").unwrap();
        node.add("NAMESPACE", "other").unwrap();
        node.add_json("PORTS", r#"{"a": [1, true, null, "x"]}"#).unwrap();
        let message = node.message();
        assert_eq!(message.id, "ztunnel~10.1.0.5~ztunnel-a.istio-system~istio-system.svc.cluster.local");
        let fields = message.metadata.unwrap().fields;
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        let expected = ["CLUSTER_ID", "INSTANCE_IPS", "LABEL", "NAME", "NAMESPACE", "NODE_NAME", "PORTS"];
        assert_eq!(names, expected);
        assert_eq!(fields["NAMESPACE"], string("istio-system".to_owned()));
        let Some(Kind::StructValue(ports)) = &fields["PORTS"].kind else { panic!("{fields:?}") };
        let Some(Kind::ListValue(list)) = &ports.fields["a"].kind else { panic!("{ports:?}") };
        assert_eq!(list.values[0].kind, Some(Kind::NumberValue(1.0)));
        assert_eq!(list.values[1].kind, Some(Kind::BoolValue(true)));
        assert_eq!(list.values[2].kind, Some(Kind::NullValue(0)));
    }

    #[test]
    fn what_cannot_be_told() {
        for bad in ["", "a~b", "a/b", "a b"] {
            assert!(Node::new(Parts { name: bad.to_owned(), ..parts() }).is_err(), "{bad}");
            assert!(Node::new(Parts { namespace: bad.to_owned(), ..parts() }).is_err(), "{bad}");
        }
        assert!(Node::new(Parts { namespace: "a.b".to_owned(), ..parts() }).is_err());
        let mut node = Node::new(parts()).unwrap();
        assert_eq!(node.add("", "x"), Err(NodeError::Nameless));
        let error = node.add_json("PORTS", "{").unwrap_err().to_string();
        assert!(error.contains("PORTS"), "{error}");
        let v6 = Parts { instance_ip: "fd00::5".parse().unwrap(), ..parts() };
        assert!(Node::new(v6).unwrap().message().id.starts_with("ztunnel~fd00::5~"));
    }
}
