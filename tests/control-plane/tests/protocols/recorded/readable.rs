//! The readable view of a recording as what a mesh is made of.
//!
//! Written from the words of the recordings alone: it shares nothing with the client's decoding. A word that is not known
//! here is an error, so that nothing of a view is overlooked.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use mesh::policy::{self, Action, Clause, Match, Rule, ServiceAccount, StringMatch};
use mesh::service::{
    HealthPolicy, IpFamilies, LoadBalancer, LoadBalancerMode, Scope, Visibility, WeightedWaypoint,
};
use mesh::workload::{
    GatewayAddress, GatewayDestination, Health, Locality, NetworkMode, PortMap, Protocol, WorkloadType,
};
use mesh::{NamespacedHostname, NetworkAddress, NetworkCidr, Policy, Service, Workload};
use serde_json::{Map, Value};

/// The members of an object, which must all be taken.
struct Fields(Map<String, Value>);

impl Fields {
    fn of(value: Value) -> Result<Self> {
        match value {
            Value::Object(fields) => Ok(Self(fields)),
            other => bail!("no object: {other}"),
        }
    }

    fn text(&mut self, key: &str) -> Result<Arc<str>> {
        self.text_or(key, "")
    }

    fn text_or(&mut self, key: &str, default: &str) -> Result<Arc<str>> {
        match self.0.remove(key) {
            None => Ok(default.into()),
            Some(Value::String(text)) => Ok(text.into()),
            Some(other) => bail!("{key}: no text: {other}"),
        }
    }

    fn number<N: TryFrom<u64>>(&mut self, key: &str, default: u64) -> Result<N> {
        let number = match self.0.remove(key) {
            None => default,
            Some(value) => value.as_u64().with_context(|| format!("{key}: no number"))?,
        };
        N::try_from(number).ok().with_context(|| format!("{key}: {number}"))
    }

    fn list<T>(&mut self, key: &str, read: impl Fn(Value) -> Result<T>) -> Result<Vec<T>> {
        match self.0.remove(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) => {
                values.into_iter().map(read).collect::<Result<_>>().with_context(|| key.to_owned())
            }
            Some(other) => bail!("{key}: no list: {other}"),
        }
    }

    fn maybe<T>(&mut self, key: &str, read: impl Fn(Value) -> Result<T>) -> Result<Option<T>> {
        self.0.remove(key).map(read).transpose().with_context(|| key.to_owned())
    }

    fn end(self) -> Result<()> {
        ensure!(self.0.is_empty(), "not known: {:?}", self.0);
        Ok(())
    }
}

fn text(value: Value) -> Result<Arc<str>> {
    value.as_str().map(Arc::from).with_context(|| format!("no text: {value}"))
}

/// A word of a list, of which the first is the default.
fn word<T: Copy>(fields: &mut Fields, key: &str, words: &[(&str, T)]) -> Result<T> {
    let given = fields.text(key)?;
    let found = words.iter().find(|(word, _)| *word == &*given);
    found.map(|(_, meaning)| *meaning).with_context(|| format!("{key}: {given}"))
}

pub(super) fn workload(value: Value) -> Result<Workload> {
    let mut f = Fields::of(value)?;
    let address = |value: Value| -> Result<std::net::IpAddr> { Ok(text(value)?.parse()?) };
    let workload = Workload {
        uid: f.text("uid")?,
        name: f.text("name")?,
        namespace: f.text("namespace")?,
        trust_domain: f.text_or("trust_domain", "cluster.local")?,
        service_account: f.text_or("service_account", "default")?,
        network: f.text("network")?,
        addresses: f.list("addresses", address)?.into(),
        protocol: word(&mut f, "tunnel_protocol", &[("", Protocol::Tcp), ("HBONE", Protocol::Hbone)])?,
        network_mode: word(
            &mut f,
            "network_mode",
            &[("", NetworkMode::Standard), ("HOST_NETWORK", NetworkMode::HostNetwork)],
        )?,
        waypoint: f.maybe("waypoint", gateway)?.map(Arc::new),
        network_gateway: f.maybe("network_gateway", gateway)?.map(Arc::new),
        node: f.text("node")?,
        canonical_name: f.text("canonical_name")?,
        canonical_revision: f.text("canonical_revision")?,
        workload_type: word(
            &mut f,
            "workload_type",
            &[("", WorkloadType::Deployment), ("POD", WorkloadType::Pod)],
        )?,
        workload_name: f.text("workload_name")?,
        authorization_policies: f.list("authorization_policies", text)?,
        status: word(&mut f, "status", &[("", Health::Healthy), ("UNHEALTHY", Health::Unhealthy)])?,
        cluster_id: f.text_or("cluster_id", "Kubernetes")?,
        hostname: f.text("hostname")?,
        application_tunnel: None,
        locality: f.maybe("locality", locality)?.unwrap_or_default().into(),
        capacity: f.number("capacity", 1)?,
        services: f.maybe("services", served)?.unwrap_or_default().into_iter().collect(),
    };
    f.end()?;
    Ok(workload)
}

fn served(value: Value) -> Result<Vec<(NamespacedHostname, PortMap)>> {
    let services = Fields::of(value)?.0.into_iter();
    let one = |(key, value): (String, Value)| -> Result<_> {
        let mut f = Fields::of(value)?;
        let ports = f.list("ports", port)?.into_iter().collect();
        f.end()?;
        Ok((key.parse()?, ports))
    };
    services.map(one).collect()
}

/// The protocol of a port is nothing that the mesh has.
fn port(value: Value) -> Result<(u16, u16)> {
    let mut f = Fields::of(value)?;
    let port = (f.number("service_port", 0)?, f.number("target_port", 0)?);
    f.text("app_protocol")?;
    f.end()?;
    Ok(port)
}

fn locality(value: Value) -> Result<Locality> {
    let mut f = Fields::of(value)?;
    let locality = Locality { region: f.text("region")?, zone: f.text("zone")?, subzone: f.text("subzone")? };
    f.end()?;
    Ok(locality)
}

fn hostname(value: Value) -> Result<NamespacedHostname> {
    let mut f = Fields::of(value)?;
    let name = NamespacedHostname::new(f.text("namespace")?, f.text("hostname")?);
    f.end()?;
    Ok(name)
}

fn gateway(value: Value) -> Result<GatewayAddress> {
    let mut f = Fields::of(value)?;
    let address = |value: Value| -> Result<_> {
        let mut f = Fields::of(value)?;
        let address =
            NetworkAddress::new(f.text("network")?, f.text("address")?.parse::<std::net::IpAddr>()?);
        f.end()?;
        Ok(address)
    };
    let destination = match (f.maybe("hostname", hostname)?, f.maybe("address", address)?) {
        (Some(name), None) => GatewayDestination::Hostname(name),
        (None, Some(address)) => GatewayDestination::Address(address),
        other => bail!("a gateway at {other:?}"),
    };
    let gateway = GatewayAddress { destination, hbone_mtls_port: f.number("hbone_mtls_port", 0)? };
    f.end()?;
    Ok(gateway)
}

pub(super) fn service(value: Value) -> Result<Service> {
    let mut f = Fields::of(value)?;
    let place = |value: Value| -> Result<_> {
        let mut f = Fields::of(value)?;
        let place = format!("{}/{}", f.text("network")?, f.text("address")?);
        let length = f.maybe("length", Ok)?;
        f.end()?;
        Ok((place, length))
    };
    let (mut vips, mut cidr_vips): (Vec<NetworkAddress>, Vec<NetworkCidr>) = Default::default();
    for (place, length) in f.list("addresses", place)? {
        match length {
            None => vips.push(place.parse()?),
            Some(length) => cidr_vips.push(format!("{place}/{length}").parse()?),
        }
    }
    let service = Service {
        name: f.text("name")?,
        namespace: f.text("namespace")?,
        hostname: f.text("hostname")?,
        vips,
        cidr_vips,
        ports: f.list("ports", port)?.into_iter().collect(),
        subject_alt_names: f.list("subject_alt_names", text)?,
        waypoint: f.maybe("waypoint", gateway)?.map(Arc::new),
        weighted_waypoints: f.list("weighted_waypoints", weighted)?,
        load_balancer: f.maybe("load_balancing", load_balancer)?.unwrap_or_default(),
        ip_families: word(
            &mut f,
            "ip_families",
            &[("", IpFamilies::Automatic), ("IPV4_ONLY", IpFamilies::Ipv4Only), ("DUAL", IpFamilies::Dual)],
        )?,
        canonical: f.maybe("canonical", Ok)? == Some(Value::Bool(true)),
        visibility: Visibility::Public,
    };
    f.end()?;
    Ok(service)
}

fn weighted(value: Value) -> Result<WeightedWaypoint> {
    let mut f = Fields::of(value)?;
    let destination = f.maybe("destination", gateway)?.context("no destination")?;
    let weighted = WeightedWaypoint { destination, weight: f.number("weight", 0)? };
    f.end()?;
    Ok(weighted)
}

fn load_balancer(value: Value) -> Result<LoadBalancer> {
    let mut f = Fields::of(value)?;
    let scope = |value: Value| -> Result<_> {
        match value.as_str() {
            Some("NETWORK") => Ok(Scope::Network),
            Some("REGION") => Ok(Scope::Region),
            Some("ZONE") => Ok(Scope::Zone),
            Some("SUBZONE") => Ok(Scope::Subzone),
            Some("NODE") => Ok(Scope::Node),
            _ => bail!("a preference of {value}"),
        }
    };
    let balancer = LoadBalancer {
        preferences: f.list("routing_preference", scope)?,
        mode: word(
            &mut f,
            "mode",
            &[
                ("", LoadBalancerMode::Standard),
                ("FAILOVER", LoadBalancerMode::Failover),
                ("PASSTHROUGH", LoadBalancerMode::Passthrough),
            ],
        )?,
        health_policy: word(
            &mut f,
            "health_policy",
            &[("", HealthPolicy::OnlyHealthy), ("ALLOW_ALL", HealthPolicy::AllowAll)],
        )?,
    };
    f.end()?;
    Ok(balancer)
}

pub(super) fn policy(value: Value) -> Result<Policy> {
    let mut f = Fields::of(value)?;
    let policy = Policy {
        name: f.text("name")?,
        namespace: f.text("namespace")?,
        scope: word(
            &mut f,
            "scope",
            &[
                ("", policy::Scope::Global),
                ("NS", policy::Scope::Namespace),
                ("WORKLOAD_SELECTOR", policy::Scope::WorkloadSelector),
            ],
        )?,
        action: word(&mut f, "action", &[("", Action::Allow), ("DENY", Action::Deny)])?,
        dry_run: false,
        rules: f.list("rules", rule)?,
    };
    f.end()?;
    Ok(policy)
}

fn rule(value: Value) -> Result<Rule> {
    let mut f = Fields::of(value)?;
    let rule = Rule { clauses: f.list("clauses", clause)? };
    f.end()?;
    Ok(rule)
}

fn clause(value: Value) -> Result<Clause> {
    let mut f = Fields::of(value)?;
    let clause = Clause { matches: f.list("matches", condition)? };
    f.end()?;
    Ok(clause)
}

fn condition(value: Value) -> Result<Match> {
    let mut f = Fields::of(value)?;
    let range = |value: Value| -> Result<_> {
        let mut f = Fields::of(value)?;
        let (address, length) = (f.text("address")?, f.number::<u8>("length", 0)?);
        f.end()?;
        Ok(format!("{address}/{length}").parse()?)
    };
    let port = |value: Value| -> Result<_> { Ok(u16::try_from(value.as_u64().context("no port")?)?) };
    let condition = Match {
        namespaces: f.list("namespaces", string)?,
        not_namespaces: f.list("not_namespaces", string)?,
        service_accounts: f.list("service_accounts", account)?,
        not_service_accounts: f.list("not_service_accounts", account)?,
        principals: f.list("principals", string)?,
        not_principals: f.list("not_principals", string)?,
        source_ips: f.list("source_ips", range)?,
        not_source_ips: f.list("not_source_ips", range)?,
        destination_ips: f.list("destination_ips", range)?,
        not_destination_ips: f.list("not_destination_ips", range)?,
        destination_ports: f.list("destination_ports", port)?,
        not_destination_ports: f.list("not_destination_ports", port)?,
    };
    f.end()?;
    Ok(condition)
}

fn string(value: Value) -> Result<StringMatch> {
    let mut f = Fields::of(value)?;
    let mut said = Vec::new();
    if let Some(exact) = f.maybe("exact", text)? {
        said.push(StringMatch::Exact(exact));
    }
    if let Some(prefix) = f.maybe("prefix", text)? {
        said.push(StringMatch::Prefix(prefix));
    }
    if let Some(suffix) = f.maybe("suffix", text)? {
        said.push(StringMatch::Suffix(suffix));
    }
    if f.maybe("presence", Ok)?.is_some() {
        said.push(StringMatch::Presence);
    }
    f.end()?;
    match said.pop() {
        Some(one) if said.is_empty() => Ok(one),
        _ => bail!("not one comparison: {said:?}"),
    }
}

fn account(value: Value) -> Result<ServiceAccount> {
    let mut f = Fields::of(value)?;
    let account = ServiceAccount { namespace: f.text("namespace")?, name: f.text("serviceAccount")? };
    f.end()?;
    Ok(account)
}
