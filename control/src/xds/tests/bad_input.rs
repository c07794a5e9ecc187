//! Recorded conversations, spoiled: cut, dropped, doubled, reordered, with fields and values that are new to us.
//!
//! What must hold: nothing panics; the last good state stays; what is refused is refused by name; and access is not widened.
//! That is: of a fixed set of probes (every identity of the recorded mesh and nobody's, to each of its workloads, on three
//! ports) none that was denied is allowed afterwards, unless it would be after a part of the message that came whole.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use mesh::authorize::{authorize, unknown_policies};
use mesh::{Connection, Identity, Snapshot, Store, Verdict};
use prost::Message;

use super::super::apply::apply;
use super::super::kind::Kind;
use super::super::node::{Node, Parts};
use super::super::session::Session;
use super::super::{ADDRESS, AUTHORIZATION};
use crate::proto::discovery::{DeltaDiscoveryResponse, Resource};
use crate::proto::security::Authorization;
use crate::proto::workload::address::Type;
use crate::proto::workload::{Address, Service, Workload};

const PORTS: [u16; 3] = [8080, 9080, 8443];
/// In how many places each message is cut.
const CUTS: usize = 50;
/// A field of each form on the wire that no message has: a number, bytes, eight and four bytes.
const NEW_FIELDS: [u8; 25] = [
    0xc0, 0x3e, 7, 0xca, 0x3e, 3, b'n', b'e', b'w', 0xd1, 0x3e, 1, 2, 3, 4, 5, 6, 7, 8, 0xdd, 0x3e, 1, 2, 3,
    4,
];
/// A value that no enumeration has.
const NEW_VALUE: i32 = 99;
/// Conversations of every kind: everything and key by key, one network and two, from the start and coming back, and one that is
/// all about policies. Of each, what came before it, and how many responses it has.
const RECORDINGS: [(&str, Option<&str>, usize); 7] = [
    ("istiod/wildcard", None, 37),
    ("istiod/reconnect", Some("istiod/wildcard"), 3),
    ("istiod/on_demand", None, 14),
    ("istiod/on_demand_reconnect", Some("istiod/on_demand"), 5),
    ("istiod/networks", None, 2),
    ("istiod/networks_on_demand", None, 7),
    ("parity/live_xds", None, 22),
];

type Probe = (Arc<str>, usize, u16);

/// Who connects.
struct Probes(Vec<(Option<Identity>, IpAddr)>);

impl Probes {
    /// Of every workload that ever was.
    fn of(meshes: &[Arc<Snapshot>]) -> Self {
        let mut clients = BTreeMap::new();
        for workload in meshes.iter().flat_map(|mesh| mesh.workloads()) {
            if let Some(address) = workload.addresses.first() {
                clients.insert(workload.identity().to_string(), (Some(workload.identity()), *address));
            }
        }
        let nobody = (None, IpAddr::from([192, 0, 2, 1]));
        Self(clients.into_values().chain([nobody]).collect())
    }

    fn allowed(&self, mesh: &Snapshot) -> BTreeSet<Probe> {
        let mut allowed = BTreeSet::new();
        for workload in mesh.workloads() {
            let Some(address) = workload.addresses.first() else { continue };
            for (client, (identity, source_ip)) in self.0.iter().enumerate() {
                for port in PORTS {
                    let connection = Connection {
                        source_identity: identity.as_ref(),
                        source_ip: *source_ip,
                        destination: SocketAddr::new(*address, port),
                    };
                    if authorize(mesh, workload, &connection).verdict == Verdict::Allow {
                        allowed.insert((Arc::clone(&workload.uid), client, port));
                    }
                }
            }
        }
        allowed
    }

    /// Fails if a workload that was there is reached though it was not, and would not be after what came whole.
    fn expect_no_wider(&self, what: &str, before: &Snapshot, after: &Snapshot, fine: &BTreeSet<Probe>) {
        let was = self.allowed(before);
        let wider: Vec<Probe> = self
            .allowed(after)
            .into_iter()
            .filter(|probe| {
                before.workload(&probe.0).is_some() && !was.contains(probe) && !fine.contains(probe)
            })
            .collect();
        assert!(wider.is_empty(), "{what}: {wider:?}");
    }

    /// What may be reached after parts of a message that came whole: its first resources, and all of it.
    fn fine(&self, before: &Snapshot, response: &DeltaDiscoveryResponse) -> BTreeSet<Probe> {
        let mut fine = BTreeSet::new();
        for count in 0..=response.resources.len() {
            let mut part = response.clone();
            part.resources.truncate(count);
            part.removed_resources.clear();
            fine.extend(self.allowed(&taken(before, part).mesh));
        }
        fine.extend(self.allowed(&taken(before, response.clone()).mesh));
        fine
    }
}

/// What became of a message.
struct Taken {
    mesh: Arc<Snapshot>,
    changed: bool,
    refused: Vec<String>,
    /// The words of the refusal that is sent.
    told: Option<String>,
}

/// Takes a message over into a mesh.
fn taken(before: &Snapshot, response: DeltaDiscoveryResponse) -> Taken {
    let store = Store::new();
    store.publish(before.clone());
    let Some(kind) = Kind::of(&response.type_url) else {
        return Taken { mesh: store.load(), changed: false, refused: Vec::new(), told: None };
    };
    let applied = apply(&store, vec![(kind, response)]);
    let mut session = session();
    let (mut refused, mut told) = (Vec::new(), None);
    for outcome in applied.outcomes {
        refused.extend(outcome.rejected.iter().map(|resource| resource.name.clone()));
        let has_nonce = !outcome.nonce.is_empty();
        let answer = session.settle(outcome, Instant::now());
        assert_eq!(answer.is_some(), has_nonce, "every message is answered");
        told = answer.and_then(|answer| answer.error_detail).map(|detail| detail.message);
    }
    Taken { mesh: store.load(), changed: applied.changed, refused, told }
}

fn session() -> Session {
    let node = Node::new(Parts {
        name: "ztunnel-a".to_owned(),
        namespace: "istio-system".to_owned(),
        instance_ip: [10, 1, 0, 5].into(),
        node_name: "node-a".to_owned(),
        cluster_id: "Kubernetes".to_owned(),
        service_account: None,
        network: None,
    });
    Session::new(node.unwrap(), false, Instant::now())
}

/// A recording, and the mesh before each of its messages and after the last.
struct Recording {
    name: &'static str,
    messages: Vec<Vec<u8>>,
    meshes: Vec<Arc<Snapshot>>,
    probes: Probes,
}

impl Recording {
    fn read(name: &'static str, before: Option<&str>, count: usize) -> Self {
        let earlier = before.map_or_else(Vec::new, received);
        let start = earlier.iter().fold(Arc::default(), |mesh: Arc<Snapshot>, message| whole(&mesh, message));
        let messages = received(name);
        let mut meshes = vec![start];
        for message in &messages {
            meshes.push(whole(meshes.last().unwrap(), message));
        }
        let probes = Probes::of(&meshes);
        assert!(
            messages.len() == count && probes.0.len() > 4,
            "{name}: {}, {}",
            messages.len(),
            probes.0.len()
        );
        Self { name, messages, meshes, probes }
    }

    /// Each message with the mesh before it and after it.
    fn each(&self) -> impl Iterator<Item = (String, &Vec<u8>, &Snapshot, &Snapshot)> {
        self.messages.iter().zip(self.meshes.windows(2)).enumerate().map(move |(n, (message, meshes))| {
            (format!("{}, message {n}", self.name), message, &*meshes[0], &*meshes[1])
        })
    }

    /// Each resource of each message in a message of its own, with the mesh before it.
    fn each_resource(&self) -> impl Iterator<Item = (&Snapshot, DeltaDiscoveryResponse)> {
        self.each().flat_map(|(_, message, before, _)| {
            let whole = decoded(message);
            let alone = whole.resources.clone().into_iter().map(move |resource| {
                let mut alone = whole.clone();
                alone.removed_resources.clear();
                alone.resources = vec![resource];
                alone
            });
            alone.map(move |alone| (before, alone)).collect::<Vec<_>>()
        })
    }
}

/// What a control plane said.
fn received(name: &str) -> Vec<Vec<u8>> {
    let lines = recordings::conversation(name).unwrap();
    lines.into_iter().filter(|line| line.received.is_some()).map(|line| line.raw).collect()
}

/// The mesh after a message that is good.
fn whole(before: &Snapshot, message: &[u8]) -> Arc<Snapshot> {
    let after = taken(before, decoded(message));
    assert!(after.refused.is_empty() && after.told.is_none());
    after.mesh
}

fn decoded(message: &[u8]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse::decode(message).unwrap()
}

fn recorded() -> impl Iterator<Item = Recording> {
    RECORDINGS.into_iter().map(|(name, before, count)| Recording::read(name, before, count))
}

fn is_same(one: &Snapshot, other: &Snapshot) -> bool {
    one.workloads().count() == other.workloads().count()
        && one.services().count() == other.services().count()
        && one.policies().count() == other.policies().count()
        && one.workloads().all(|it| other.workload(&it.uid) == Some(it))
        && one.services().all(|it| other.service(&it.key()) == Some(it))
        && one.policies().all(|it| other.policy(&it.key()) == Some(it))
}

fn cuts(length: usize) -> BTreeSet<usize> {
    (0..CUTS).map(|n| length * n / CUTS).collect()
}

/// Whether bytes are fields, none of which is cut.
fn is_whole(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let Ok(key) = prost::encoding::decode_varint(&mut bytes) else { return false };
        let length = match key & 7 {
            0 => prost::encoding::decode_varint(&mut bytes).map(|_| 0),
            1 => Ok(8),
            2 => prost::encoding::decode_varint(&mut bytes),
            5 => Ok(4),
            _ => return false,
        };
        let Some(rest) = length.ok().and_then(|length| bytes.get(usize::try_from(length).unwrap()..)) else {
            return false;
        };
        bytes = rest;
    }
    true
}

#[test]
fn messages_that_are_cut() {
    let (mut read, mut broken) = (0, 0);
    for recording in recorded() {
        for (what, message, before, _) in recording.each() {
            let fine = recording.probes.fine(before, &decoded(message));
            for end in cuts(message.len()) {
                let cut = message.get(..end).unwrap();
                // What cannot be read ends the stream, and changes nothing.
                let Ok(response) = DeltaDiscoveryResponse::decode(cut) else {
                    broken += 1;
                    continue;
                };
                read += 1;
                assert!(is_whole(cut), "{what}");
                let after = taken(before, response);
                assert!(after.refused.is_empty(), "{what}: what came whole is good");
                if after.changed {
                    recording.probes.expect_no_wider(&what, before, &after.mesh, &fine);
                }
            }
        }
    }
    assert!(read > 10 && broken > 1000, "{read} and {broken}");
}

/// A policy that was cut between two of its fields cannot be told from one that is shorter. A workload can: its uid, with
/// which its name is compared, comes after its policies.
#[test]
fn resources_that_are_cut() {
    let (mut refused, mut whole) = (0, 0);
    for recording in recorded() {
        for (before, response) in recording.each_resource() {
            let name = response.resources[0].name.clone();
            let body = response.resources[0].resource.clone().unwrap().value;
            for end in cuts(body.len()) {
                let mut response = response.clone();
                let cut = body.slice(..end);
                response.resources[0].resource.as_mut().unwrap().value = cut.clone();
                let after = taken(before, response);
                if after.refused.is_empty() {
                    whole += 1;
                    assert!(is_whole(&cut), "{name} cut at {end}");
                    assert!(
                        after.mesh.workload(&name).is_none_or(|it| before.workload(&name) == Some(it)),
                        "{name}"
                    );
                } else {
                    refused += 1;
                    assert_eq!(after.refused, [name.as_str()]);
                    assert!(after.told.is_some_and(|told| told.contains(&name)), "{name}");
                    assert!(
                        !after.changed && is_same(before, &after.mesh),
                        "{name}: the last good one stays"
                    );
                }
            }
        }
    }
    assert!(refused > 1000, "{refused} and {whole}");
}

#[test]
fn messages_that_come_twice() {
    for recording in recorded() {
        for (what, message, _, after) in recording.each() {
            let again = taken(after, decoded(message));
            assert!(again.refused.is_empty() && !again.changed, "{what}");
        }
    }
}

#[test]
fn messages_that_are_lost() {
    for recording in recorded() {
        let mut ever = BTreeSet::new();
        recording.meshes.iter().for_each(|mesh| ever.extend(recording.probes.allowed(mesh)));
        for lost in 0..recording.messages.len() {
            let kept = recording.messages.iter().enumerate().filter(|(n, _)| *n != lost);
            let start = Arc::clone(recording.meshes.first().unwrap());
            let mesh = kept.fold(start, |mesh, (_, message)| whole(&mesh, message));
            let allowed = recording.probes.allowed(&mesh);
            let what = format!("{} without message {lost}", recording.name);
            for workload in mesh.workloads().filter(|it| unknown_policies(&mesh, it).next().is_some()) {
                assert!(allowed.iter().all(|probe| probe.0 != workload.uid), "{what}: {}", workload.uid);
            }
            let mut fine = ever.clone();
            let message = decoded(&recording.messages[lost]);
            if message.type_url == AUTHORIZATION {
                // A policy that nobody has told of is not judged by, nor is anything else.
                let removed_resources = message.resources.into_iter().map(|resource| resource.name).collect();
                let gone = DeltaDiscoveryResponse {
                    type_url: message.type_url,
                    removed_resources,
                    ..DeltaDiscoveryResponse::default()
                };
                for mesh in &recording.meshes {
                    fine.extend(recording.probes.allowed(&taken(mesh, gone.clone()).mesh));
                }
            }
            let wider: Vec<_> = allowed.difference(&fine).collect();
            assert!(wider.is_empty(), "{what}: {wider:?}");
        }
    }
}

#[test]
fn messages_that_change_places() {
    let names = |response: &DeltaDiscoveryResponse| {
        let there = response.resources.iter().map(|resource| resource.name.clone());
        there.chain(response.removed_resources.iter().cloned()).collect::<BTreeSet<_>>()
    };
    for recording in recorded() {
        for (n, pair) in recording.messages.windows(2).enumerate() {
            let what = format!("{}, messages {n} and the next", recording.name);
            let [first, second] = [decoded(&pair[0]), decoded(&pair[1])];
            let [before, between, after] = [0, 1, 2].map(|more| &*recording.meshes[n + more]);
            let apart = names(&first).is_disjoint(&names(&second));
            let mut fine = recording.probes.allowed(between);
            fine.extend(recording.probes.allowed(after));
            let swapped = taken(before, second);
            recording.probes.expect_no_wider(&what, before, &swapped.mesh, &fine);
            let end = taken(&swapped.mesh, first);
            assert!(swapped.refused.is_empty() && end.refused.is_empty(), "{what}");
            assert!(!apart || is_same(after, &end.mesh), "{what}");
        }
    }
}

/// A body with new fields inside of what it wraps.
fn with_new_fields(resource: &mut Resource) {
    let any = resource.resource.as_mut().unwrap();
    let new = NEW_FIELDS.as_slice();
    let inside = match Address::decode(any.value.clone()).ok().and_then(|address| address.r#type) {
        Some(wrapped) if any.type_url == ADDRESS => {
            let (tag, inner) = match wrapped {
                Type::Workload(workload) => (1_u8, workload.encode_to_vec()),
                Type::Service(service) => (2, service.encode_to_vec()),
            };
            let inner = [inner.as_slice(), new].concat();
            let mut bytes = vec![tag << 3 | 2];
            prost::encoding::encode_varint(u64::try_from(inner.len()).unwrap(), &mut bytes);
            [bytes, inner].concat()
        }
        _ => any.value.to_vec(),
    };
    any.value = [inside.as_slice(), new].concat().into();
}

#[test]
fn fields_that_are_new() {
    for recording in recorded() {
        for (what, message, before, after) in recording.each() {
            let mut response = decoded(message);
            response.resources.iter_mut().for_each(with_new_fields);
            let bytes = [response.encode_to_vec().as_slice(), &NEW_FIELDS].concat();
            let taken = taken(before, decoded(&bytes));
            assert!(taken.refused.is_empty() && is_same(after, &taken.mesh), "{what}");
        }
    }
}

/// The bodies of a resource, each with one value that is new.
fn with_new_values(resource: &Resource) -> Vec<Vec<u8>> {
    let any = resource.resource.as_ref().unwrap();
    if any.type_url == AUTHORIZATION {
        let policy = Authorization::decode(any.value.clone()).unwrap();
        let changes: [fn(&mut Authorization); 2] = [|it| it.scope = NEW_VALUE, |it| it.action = NEW_VALUE];
        return changed(&policy, &changes, |policy| policy.encode_to_vec());
    }
    let wrap = |wrapped| Address { r#type: Some(wrapped) }.encode_to_vec();
    match Address::decode(any.value.clone()).unwrap().r#type.unwrap() {
        Type::Workload(workload) => {
            let changes: [fn(&mut Workload); 4] = [
                |it| it.tunnel_protocol = NEW_VALUE,
                |it| it.network_mode = NEW_VALUE,
                |it| it.workload_type = NEW_VALUE,
                |it| it.status = NEW_VALUE,
            ];
            changed(&workload, &changes, |workload| wrap(Type::Workload(workload)))
        }
        Type::Service(service) => {
            let changes: [fn(&mut Service); 4] = [
                |it| it.ip_families = NEW_VALUE,
                |it| it.visibility = NEW_VALUE,
                |it| it.load_balancing.get_or_insert_default().mode = NEW_VALUE,
                |it| it.load_balancing.get_or_insert_default().routing_preference.push(NEW_VALUE),
            ];
            changed(&service, &changes, |service| wrap(Type::Service(service)))
        }
    }
}

fn changed<T: Clone>(of: &T, changes: &[fn(&mut T)], encode: impl Fn(T) -> Vec<u8>) -> Vec<Vec<u8>> {
    let one = |change: &fn(&mut T)| {
        let mut other = of.clone();
        change(&mut other);
        encode(other)
    };
    changes.iter().map(one).collect()
}

#[test]
fn values_that_are_new() {
    let (mut refused, mut taken_over) = (0, 0);
    for recording in recorded() {
        for (before, response) in recording.each_resource() {
            let name = response.resources[0].name.clone();
            for body in with_new_values(&response.resources[0]) {
                let mut other = response.clone();
                other.resources[0].resource.as_mut().unwrap().value = body.into();
                let after = taken(before, other);
                if after.refused.is_empty() {
                    // A service alone, to whom it is visible.
                    taken_over += 1;
                    assert!(before.workload(&name).is_none() && before.policy(&name).is_none(), "{name}");
                } else {
                    refused += 1;
                    assert!(after.told.is_some_and(|told| told.contains(&name)), "{name}");
                    assert!(
                        !after.changed && is_same(before, &after.mesh),
                        "{name}: the last good one stays"
                    );
                }
            }
        }
    }
    assert!(refused > 100 && taken_over > 10, "{refused} and {taken_over}");
}
