//! From what is written to what is meant.

use std::collections::{HashMap, HashSet};
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use foldhash::fast::RandomState;

use mesh::policy::{Clause, Match, Policy, Rule, ServiceAccount, StringMatch};
use mesh::service::{LoadBalancer, Service, WeightedWaypoint};
use mesh::workload::{ApplicationTunnel, GatewayAddress, Locality, Workload};
use mesh::{HBONE_PORT, NetworkCidr};
use serde_saphyr::{Location, Spanned};

use super::raw::{
    Item, RawAccount, RawCa, RawEnrollment, RawFile, RawGateway, RawLoadBalancer, RawMatch, RawPolicy,
    RawService, RawString, RawTunnel, RawWorkload,
};
use super::split::{PIECE, Pieces};
use super::texts;
use super::words::{As, Text};
use super::{CaConfig, Enrollment, FileError, MeshFile, plain};

const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
const DEFAULT_CLUSTER: &str = "Kubernetes";
const DEFAULT_ACCOUNT: &str = "default";
/// A file is read by this many threads at most.
const MOST_THREADS: usize = 4;
/// What is said of a file without content.
const EMPTY: &str = "the file is empty; write `workloads: []` if the mesh is to have nothing in it";
const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);

/// Every JSON text is a YAML text, and read as such it means the same; a JSON reader is many times as fast, and large files
/// (dumps of other agents) are JSON. What it does not take is left to the YAML reader, which knows where the fault is; so is
/// what is not good in pieces.
pub(super) fn parse(text: &str) -> Result<MeshFile, FileError> {
    let raw = if text.trim_start().starts_with('{') {
        texts::remembering(|| serde_json::from_str(text).ok())
    } else {
        in_pieces(text)
    };
    if let Some(Ok(file)) = raw.map(meant) {
        return Ok(file);
    }
    whole(text)
}

pub(super) fn whole(text: &str) -> Result<MeshFile, FileError> {
    let raw: Option<RawFile> = texts::remembering(|| yaml(text))?;
    // Whoever cut the file short (a full disk, an editor) did not mean to empty the mesh.
    meant(raw.ok_or_else(|| FileError { line: 1, column: 1, message: EMPTY.to_owned() })?)
}

/// A large file, read by several threads; none where that is not possible, or something is wrong.
pub(super) fn in_pieces(text: &str) -> Option<RawFile> {
    in_pieces_of(text, PIECE)
}

/// The same in pieces of at least this many bytes.
pub(super) fn in_pieces_of(text: &str, least: usize) -> Option<RawFile> {
    let pieces = Pieces::of(text, least)?;
    let lists = pieces.lists().collect::<Vec<_>>();
    let (next, threads) = (AtomicUsize::new(0), thread::available_parallelism().map_or(1, NonZero::get));
    let work = || {
        texts::remembering(|| {
            let mut read = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(list) = lists.get(number) else { return Some(read) };
                let raw = quickly(list).or_else(|| yaml(list).ok()?)?;
                if !raw.is_list_of_workloads() {
                    return None;
                }
                read.push((number, raw.workloads));
            }
        })
    };
    thread::scope(|scope| {
        // The caller is one of them. Where no thread is to be had, it does all.
        let helpers = (1..threads.min(MOST_THREADS).min(lists.len()))
            .map_while(|_| thread::Builder::new().spawn_scoped(scope, work).ok());
        let helpers: Vec<_> = helpers.collect();
        let rest = || quickly(&pieces.rest).map(Some).or_else(|| yaml(&pieces.rest).ok());
        let mut rest = texts::remembering(rest)?.unwrap_or_default();
        let mut read = work()?;
        for helper in helpers {
            read.extend(helper.join().ok()??);
        }
        read.sort_unstable_by_key(|(number, _)| *number);
        rest.workloads = read.into_iter().flat_map(|(_, workloads)| workloads).collect();
        Some(rest)
    })
}

/// What a text says that is plain enough for a quick look; none where it is not, or something is wrong.
fn quickly(text: &str) -> Option<RawFile> {
    serde_json::from_str(&plain::as_json(text)?).ok()
}

fn yaml(text: &str) -> Result<Option<RawFile>, FileError> {
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| from_yaml(&error))
}

pub(super) fn meant(raw: RawFile) -> Result<MeshFile, FileError> {
    let trust_domain = raw.trust_domain.map_or_else(|| DEFAULT_TRUST_DOMAIN.into(), |As(name)| name.0);
    let (mut workloads, mut uids) =
        (Vec::with_capacity(raw.workloads.len()), HashSet::with_hasher(RandomState::default()));
    for Item { place, mut workload } in raw.workloads {
        if workload.trust_domain.is_empty() {
            workload.trust_domain = Arc::clone(&trust_domain);
        }
        if !uids.insert(Arc::clone(&workload.uid)) {
            return Err(at(place, format!("workload {} is there twice", workload.uid)));
        }
        workloads.push(workload);
    }
    let services = services(raw.services, &mut workloads)?;
    let (mut policies, mut keys) = (Vec::new(), HashSet::new());
    for raw in raw.policies {
        let policy = policy(raw.value);
        if !keys.insert(policy.key()) {
            return Err(at(raw.referenced, format!("policy {} is there twice", policy.key())));
        }
        policies.push(policy);
    }
    let enroll = enrollments(raw.enroll)?;
    Ok(MeshFile { workloads, services, policies, enroll, ca: raw.ca.map(ca), trust_domain })
}

/// Room for a mesh of 100,000 workloads. Aliases are of no use in such a file and stay at their low limits.
fn options() -> serde_saphyr::Options {
    let budget = serde_saphyr::budget! {
        max_events: 50_000_000,
        max_nodes: 25_000_000,
        max_documents: 1,
    };
    serde_saphyr::options! { budget: budget, with_snippet: false }
}

fn from_yaml(error: &serde_saphyr::Error) -> FileError {
    let place = error.location();
    let text = error.without_snippet().to_string();
    // The place is told by the fields of the error, once is enough.
    let message = text.split_once(" at line ").map_or(text.as_str(), |(message, _)| message).to_owned();
    FileError { line: place.map_or(0, |p| p.line()), column: place.map_or(0, |p| p.column()), message }
}

fn at(place: Location, message: String) -> FileError {
    FileError { line: place.line(), column: place.column(), message }
}

/// A workload. Without a trust domain of its own it has none, to be given that of the file.
pub(super) fn workload(raw: RawWorkload) -> Workload {
    let (name, namespace) = (raw.name.0.0, raw.namespace.0.0);
    let text = |given: Option<As<Text>>| given.map_or_else(|| texts::text(""), |As(text)| text.0);
    let cluster_id = raw.cluster_id.map_or_else(|| texts::text(DEFAULT_CLUSTER), |As(id)| id.0);
    let uid = raw.uid.unwrap_or_else(|| format!("{cluster_id}//Pod/{namespace}/{name}").into());
    Workload {
        uid,
        trust_domain: raw.trust_domain.map_or_else(|| texts::text(""), |As(domain)| domain.0),
        service_account: raw
            .service_account
            .map_or_else(|| texts::text(DEFAULT_ACCOUNT), |As(account)| account.0),
        network: text(raw.network),
        addresses: raw.workload_ips.into_iter().map(|As(address)| address).collect(),
        protocol: raw.protocol.0,
        network_mode: raw.network_mode.0,
        waypoint: raw.waypoint.map(|raw| Arc::new(gateway(raw))),
        network_gateway: raw.network_gateway.map(|raw| Arc::new(gateway(raw))),
        node: text(raw.node),
        canonical_name: text(raw.canonical_name),
        canonical_revision: text(raw.canonical_revision),
        workload_type: raw.workload_type.0,
        workload_name: text(raw.workload_name),
        authorization_policies: raw.authorization_policies.into_iter().map(|As(key)| key.0).collect(),
        status: raw.status.0,
        cluster_id,
        hostname: text(raw.hostname),
        application_tunnel: raw.application_tunnel.map(|RawTunnel { protocol, port }| ApplicationTunnel {
            protocol: protocol.0,
            port: port.map(|As(port)| port.0),
        }),
        locality: Arc::new(Locality {
            region: raw.locality.region.0.0,
            zone: raw.locality.zone.0.0,
            subzone: raw.locality.subzone.0.0,
        }),
        capacity: raw.capacity.unwrap_or(1),
        services: raw.services.0,
        name,
        namespace,
    }
}

/// The services. Endpoints that they list themselves are added to what their workloads say they serve.
fn services(raw: Vec<Spanned<RawService>>, workloads: &mut [Workload]) -> Result<Vec<Service>, FileError> {
    let (mut services, mut keys) = (Vec::new(), HashSet::new());
    // Dumps list endpoints here; what people write does not.
    let listed = raw.iter().any(|service| !service.value.endpoints.is_empty());
    let uids =
        workloads.iter().map(|workload| Arc::clone(&workload.uid)).take(if listed { usize::MAX } else { 0 });
    let by_uid: HashMap<Arc<str>, usize> = uids.zip(0..).collect();
    for Spanned { value: mut raw, referenced: place, .. } in raw {
        let endpoints = std::mem::take(&mut raw.endpoints);
        let service = service(raw);
        let key = service.key();
        for (uid, endpoint) in endpoints {
            let uid = endpoint.workload_uid.unwrap_or(uid);
            // The workload of an endpoint may be missing: it could not be reached anyway.
            let Some(workload) = by_uid.get(&uid).and_then(|index| workloads.get_mut(*index)) else {
                continue;
            };
            workload.services.update(key.clone(), |of| of.extend(endpoint.port.0));
        }
        if !keys.insert(key.clone()) {
            return Err(at(place, format!("service {key} is there twice")));
        }
        services.push(service);
    }
    Ok(services)
}

fn service(raw: RawService) -> Service {
    let cidr = |raw: super::raw::RawCidr| NetworkCidr { network: raw.network, cidr: raw.cidr.0.trunc() };
    Service {
        name: raw.name,
        namespace: raw.namespace.0.0,
        hostname: raw.hostname.0.0,
        vips: values(raw.vips),
        cidr_vips: raw.cidr_vips.into_iter().map(cidr).collect(),
        ports: raw.ports.0,
        subject_alt_names: raw.subject_alt_names.into_iter().map(|As(name)| name.0).collect(),
        waypoint: raw.waypoint.map(|raw| Arc::new(gateway(raw))),
        weighted_waypoints: raw
            .weighted_waypoints
            .into_iter()
            .map(|waypoint| WeightedWaypoint {
                destination: gateway(RawGateway {
                    destination: waypoint.destination,
                    hbone_mtls_port: waypoint.hbone_mtls_port,
                }),
                weight: waypoint.weight,
            })
            .collect(),
        load_balancer: raw.load_balancer.map_or_else(LoadBalancer::default, load_balancer),
        ip_families: raw.ip_families.0,
        canonical: raw.canonical,
        visibility: raw.visibility.0,
    }
}

fn load_balancer(raw: RawLoadBalancer) -> LoadBalancer {
    LoadBalancer {
        preferences: values(raw.routing_preferences),
        mode: raw.mode.0,
        health_policy: raw.health_policy.0,
    }
}

fn policy(raw: RawPolicy) -> Policy {
    let clause = |matches: Vec<RawMatch>| Clause { matches: matches.into_iter().map(condition).collect() };
    let rule = |clauses: Vec<Vec<RawMatch>>| Rule { clauses: clauses.into_iter().map(clause).collect() };
    Policy {
        name: raw.name.0.0,
        namespace: raw.namespace.0.0,
        scope: raw.scope.0,
        action: raw.action.0,
        dry_run: raw.dry_run,
        rules: raw.rules.into_iter().map(rule).collect(),
    }
}

fn condition(raw: RawMatch) -> Match {
    let strings = |raw: Vec<RawString>| raw.into_iter().map(string).collect();
    let accounts = |raw: Vec<RawAccount>| {
        raw.into_iter()
            .map(|raw| ServiceAccount { namespace: raw.namespace.0.0, name: raw.service_account.0.0 })
            .collect()
    };
    let ports = |raw: Vec<As<super::words::Port>>| raw.into_iter().map(|As(port)| port.0).collect();
    Match {
        namespaces: strings(raw.namespaces),
        not_namespaces: strings(raw.not_namespaces),
        service_accounts: accounts(raw.service_accounts),
        not_service_accounts: accounts(raw.not_service_accounts),
        principals: strings(raw.principals),
        not_principals: strings(raw.not_principals),
        source_ips: values(raw.source_ips),
        not_source_ips: values(raw.not_source_ips),
        destination_ips: values(raw.destination_ips),
        not_destination_ips: values(raw.not_destination_ips),
        destination_ports: ports(raw.destination_ports),
        not_destination_ports: ports(raw.not_destination_ports),
    }
}

fn string(raw: RawString) -> StringMatch {
    match raw {
        RawString::Exact(text) => StringMatch::Exact(text),
        RawString::Prefix(text) => StringMatch::Prefix(text),
        RawString::Suffix(text) => StringMatch::Suffix(text),
        RawString::Presence(_) => StringMatch::Presence,
    }
}

fn enrollments(raw: Vec<Spanned<RawEnrollment>>) -> Result<Vec<Enrollment>, FileError> {
    let (mut enrollments, mut seen) = (Vec::new(), HashSet::new());
    for Spanned { value: raw, referenced: place, .. } in raw {
        let (name, namespace) = (raw.name.0.0.to_string(), raw.namespace.0.0.to_string());
        if raw.netns.is_some() && raw.container.is_some() {
            return Err(at(place, format!("pod {namespace}/{name} has both netns and container: give one")));
        }
        if !seen.insert((namespace.clone(), name.clone())) {
            return Err(at(place, format!("pod {namespace}/{name} is enrolled twice")));
        }
        enrollments.push(Enrollment {
            name,
            namespace,
            service_account: raw.service_account.map(|As(account)| account.0.to_string()),
            netns: raw.netns,
            container: raw.container,
            annotations: raw.annotations,
        });
    }
    Ok(enrollments)
}

fn ca(raw: RawCa) -> CaConfig {
    CaConfig { dir: raw.dir, ttl: raw.ttl.map_or(DEFAULT_TTL, |As(ttl)| ttl) }
}

fn gateway(raw: RawGateway) -> GatewayAddress {
    GatewayAddress {
        destination: raw.destination.0,
        hbone_mtls_port: raw.hbone_mtls_port.map_or(HBONE_PORT, |As(port)| port.0),
    }
}

fn values<T>(raw: Vec<As<T>>) -> Vec<T> {
    raw.into_iter().map(|As(value)| value).collect()
}
