//! Recorded conversations of another client with a real istiod (1.32-dev, August 2026), replayed: what we would send is
//! compared with what that client sent, what istiod sent is taken over, and facts are looked up after each step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use mesh::workload::{Health, NetworkMode, Protocol};
use mesh::{NetworkAddress, Store};
use prost::Message;
use tokio::sync::oneshot;

use super::super::apply::apply;
use super::super::kind::Kind;
use super::super::node::{Node, Parts};
use super::super::session::{Accepted, Outcome, Session};
use super::super::version::Version;
use crate::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

enum Line {
    Step(String),
    Sent(DeltaDiscoveryRequest),
    Received(DeltaDiscoveryResponse),
    Other,
}

fn lines(recording: &str) -> Vec<Line> {
    let read = |line: recordings::Line| {
        let raw = line.raw.as_slice();
        match line.step {
            Some(step) => Line::Step(step),
            None if line.sent.is_some() => Line::Sent(DeltaDiscoveryRequest::decode(raw).unwrap()),
            None if line.received.is_some() => Line::Received(DeltaDiscoveryResponse::decode(raw).unwrap()),
            None => Line::Other,
        }
    };
    recordings::conversation(&format!("istiod/{recording}")).unwrap().into_iter().map(read).collect()
}

/// A request in a form that does not depend on the order of names.
#[derive(Debug, PartialEq)]
struct Semantics {
    node: Option<(String, BTreeMap<String, prost_types::Value>)>,
    type_url: String,
    subscribe: BTreeSet<String>,
    unsubscribe: BTreeSet<String>,
    versions: BTreeMap<String, String>,
    nonce: String,
    refused: bool,
}

fn semantics(request: DeltaDiscoveryRequest) -> Semantics {
    Semantics {
        node: request.node.map(|node| (node.id, node.metadata.unwrap().fields)),
        type_url: request.type_url,
        subscribe: request.resource_names_subscribe.into_iter().collect(),
        unsubscribe: request.resource_names_unsubscribe.into_iter().collect(),
        versions: request.initial_resource_versions.into_iter().collect(),
        nonce: request.response_nonce,
        refused: request.error_detail.is_some(),
    }
}

/// The agent that the recorded client was: on node-a with everything, on node-b on demand.
struct Agent {
    store: Store,
    session: Session,
    unsent: VecDeque<DeltaDiscoveryRequest>,
    waiting: Vec<(String, oneshot::Receiver<bool>)>,
}

impl Agent {
    fn new(letter: &str, network: Option<&str>) -> Self {
        let on_demand = letter == "b";
        let node = Node::new(Parts {
            name: format!("ztunnel-{letter}"),
            namespace: "istio-system".to_owned(),
            instance_ip: if on_demand { "10.1.1.5" } else { "10.1.0.5" }.parse().unwrap(),
            node_name: format!("node-{letter}"),
            cluster_id: "Kubernetes".to_owned(),
            service_account: Some("ztunnel".to_owned()),
            network: network.map(str::to_owned),
        });
        Self {
            store: Store::new(),
            session: Session::new(node.unwrap(), on_demand, Instant::now()),
            unsent: VecDeque::new(),
            waiting: Vec::new(),
        }
    }

    /// Replays a recording. `after` is called when a step is over, with its text.
    fn replay(&mut self, recording: &str, mut after: impl FnMut(&str, &mut Self)) {
        let lines = lines(recording);
        let (mut step, mut compared) = (String::new(), 0);
        for (index, line) in lines.iter().enumerate() {
            match line {
                Line::Step(next) => {
                    after(&step, self);
                    step.clone_from(next);
                }
                Line::Sent(sent) => {
                    if sent.node.is_some() {
                        self.expect_first(sent);
                    } else if !sent.resource_names_unsubscribe.is_empty() {
                        // What follows is what comes of doing this, which we never do.
                        return;
                    } else if !sent.resource_names_subscribe.is_empty() {
                        self.ask(sent);
                    } else {
                        let ours =
                            self.unsent.pop_front().unwrap_or_else(|| panic!("{step}: nothing to send"));
                        assert_eq!(semantics(ours), semantics(sent.clone()), "{step}");
                    }
                    compared += 1;
                }
                Line::Received(received) => {
                    assert!(self.unsent.is_empty(), "{step}: {:?}", self.unsent);
                    let refused = lines[index..].iter().find_map(|line| match line {
                        Line::Sent(sent) => Some(sent.error_detail.is_some()),
                        _ => None,
                    });
                    self.receive(received.clone(), refused == Some(true));
                }
                Line::Other => {}
            }
        }
        after(&step, self);
        assert!(compared > 3, "something was compared");
    }

    fn expect_first(&mut self, sent: &DeltaDiscoveryRequest) {
        if self.unsent.is_empty() {
            self.unsent.extend(self.session.open(Instant::now()));
        }
        let ours = self.unsent.pop_front().unwrap();
        assert_eq!(semantics(ours), semantics(sent.clone()));
    }

    /// What the recorded client asked for, we ask for one at a time and only if it is not there.
    fn ask(&mut self, sent: &DeltaDiscoveryRequest) {
        for key in &sent.resource_names_subscribe {
            let mesh = self.store.load();
            let known = |address: NetworkAddress| mesh.workload_by_address(&address).is_some();
            if key.parse().is_ok_and(known) {
                continue;
            }
            let (waiter, answer) = oneshot::channel();
            self.waiting.push((key.clone(), answer));
            if let Some(request) = self.session.demand(key, waiter, Instant::now()) {
                assert_eq!(request.resource_names_subscribe, [key.as_str()]);
                assert!(request.node.is_none() && request.response_nonce.is_empty());
            }
        }
    }

    fn receive(&mut self, mut response: DeltaDiscoveryResponse, refused: bool) {
        let kind = Kind::of(&response.type_url).unwrap();
        if refused {
            // That client refused for the sake of it; we need a reason.
            for body in response.resources.iter_mut().filter_map(|resource| resource.resource.as_mut()) {
                body.value = vec![0xff; 3].into();
            }
        }
        for outcome in apply(&self.store, vec![(kind, response)]).outcomes {
            let reasons: Vec<_> = outcome.rejected.iter().map(|rejected| &rejected.reason).collect();
            assert_eq!(!reasons.is_empty(), refused, "{reasons:?}");
            self.unsent.extend(self.session.settle(outcome, Instant::now()));
        }
    }

    /// Holds what a first request says is held.
    fn hold(&mut self, recording: &str) {
        for line in lines(recording) {
            if let Line::Sent(sent) = line
                && sent.node.is_some()
            {
                let held = sent.initial_resource_versions.iter();
                let accepted =
                    held.filter(|(name, _)| !name.starts_with('/')).map(|(name, version)| Accepted {
                        name: name.as_str().into(),
                        version: Version::from(version.as_str()),
                        aliases: Vec::new(),
                    });
                let outcome = Outcome {
                    kind: Kind::of(&sent.type_url).unwrap(),
                    nonce: String::new(),
                    accepted: accepted.collect(),
                    rejected: Vec::new(),
                    removed: Vec::new(),
                };
                assert_eq!(self.session.settle(outcome, Instant::now()), None);
            }
        }
    }

    fn uid(&self, address: &str) -> Option<String> {
        let mesh = self.store.load();
        let address: NetworkAddress = address.parse().unwrap();
        mesh.workload_by_address(&address).map(|workload| workload.uid.to_string())
    }

    fn workload(&self, uid: &str) -> std::sync::Arc<mesh::Workload> {
        let mesh = self.store.load();
        std::sync::Arc::clone(mesh.workload(uid).unwrap_or_else(|| panic!("{uid}")))
    }

    fn service(&self, key: &str) -> Option<std::sync::Arc<mesh::Service>> {
        self.store.load().service(&key.parse().unwrap()).map(std::sync::Arc::clone)
    }

    fn endpoints(&self, key: &str) -> usize {
        self.store.load().endpoints(&key.parse().unwrap()).count()
    }

    fn policy(&self, key: &str) -> Option<std::sync::Arc<mesh::Policy>> {
        self.store.load().policy(key).map(std::sync::Arc::clone)
    }

    fn counts(&self) -> (usize, usize, usize) {
        let mesh = self.store.load();
        (mesh.workloads().count(), mesh.services().count(), mesh.policies().count())
    }
}

const RATINGS: &str = "bookinfo/ratings.bookinfo.svc.cluster.local";
const RATINGS_POD: &str = "Kubernetes//Pod/bookinfo/ratings-v1-6cbd7b5d9c-12xyz";
const REVIEWS: &str = "bookinfo/reviews.bookinfo.svc.cluster.local";
const LATE: &str = "/10.1.1.70";

/// The state after a step of the wildcard recording. Returns whether something was looked at.
fn after_wildcard(step: &str, agent: &Agent) -> bool {
    let waypoint = || agent.service(RATINGS).unwrap().waypoint.clone().map(|at| at.destination.to_string());
    let listed = |uid: &str| {
        let workload = agent.workload(uid);
        workload.authorization_policies.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let pod = |name: &str| format!("Kubernetes//Pod/bookinfo/{name}");
    match step {
        "subscribe to all addresses and all policies" => {
            let (workloads, services, policies) = agent.counts();
            assert_eq!((workloads + services, policies), (45, 18));
            assert_eq!(agent.endpoints(REVIEWS), 3);
            assert_eq!(agent.workload(&pod("hostnet")).network_mode, NetworkMode::HostNetwork);
            let wild = agent.service("vm/*.wild.example").unwrap();
            assert_eq!(wild.cidr_vips[0].to_string(), "/240.0.1.0/24");
            let mysql = agent.service("vm/mysql.corp.example").unwrap();
            assert_eq!(&*mysql.subject_alt_names[0], "spiffe://cluster.local/ns/vm/sa/mysql");
            assert!(agent.policy("bookinfo/allow-nothing").unwrap().rules.is_empty());
            assert_eq!(agent.store.load().staged().count(), 0);
        }
        "pod added: bookinfo/late on node-b, 10.1.1.70" => {
            assert_eq!(agent.uid(LATE), Some(pod("late")));
            let late = agent.workload(&pod("late"));
            assert_eq!(late.identity().to_string(), "spiffe://cluster.local/ns/bookinfo/sa/sleep");
            assert_eq!((late.protocol, late.status), (Protocol::Hbone, Health::Healthy));
        }
        "pod bookinfo/late stops being ready" => {
            assert_eq!(agent.workload(&pod("late")).status, Health::Unhealthy);
        }
        "pod bookinfo/late is deleted" | "it finishes (phase Succeeded)" => assert_eq!(agent.uid(LATE), None),
        "pod with the same IP but another name appears (IP reuse)" => {
            assert_eq!(agent.uid(LATE), Some(pod("late2")));
        }
        "pod bookinfo/sleep leaves the mesh (annotation removed)" => {
            assert_eq!(agent.workload(&pod("sleep")).protocol, Protocol::Tcp);
        }
        "and comes back" => assert_eq!(agent.workload(&pod("sleep")).protocol, Protocol::Hbone),
        "the waypoint allows all namespaces" => {
            assert_eq!(waypoint().as_deref(), Some("shop/shop-waypoint.shop.svc.cluster.local"));
        }
        "a second waypoint, and a canary share of 20 for service bookinfo/ratings" => {
            let ratings = agent.service(RATINGS).unwrap();
            let shares: Vec<u32> = ratings.weighted_waypoints.iter().map(|share| share.weight).collect();
            assert!(shares.len() == 2 && shares.contains(&20), "{shares:?}");
        }
        "the canary ends" => assert!(agent.service(RATINGS).unwrap().weighted_waypoints.is_empty()),
        "service bookinfo/ratings leaves its waypoint" => assert_eq!(waypoint(), None),
        "service bookinfo/zonal changes port and selector" => {
            let zonal = agent.service("bookinfo/zonal.bookinfo.svc.cluster.local").unwrap();
            assert_eq!(zonal.ports, [(9090, 9080)].into());
        }
        "service bookinfo/nodal is deleted" => {
            assert!(agent.service("bookinfo/nodal.bookinfo.svc.cluster.local").is_none());
            assert_eq!(agent.endpoints("bookinfo/nodal.bookinfo.svc.cluster.local"), 0);
        }
        "endpoint slice manual-1 loses an endpoint" => {
            assert_eq!(agent.endpoints("bookinfo/manual.bookinfo.svc.cluster.local"), 1);
        }
        "endpoint slice manual-1 is deleted" => {
            assert_eq!(agent.endpoints("bookinfo/manual.bookinfo.svc.cluster.local"), 0);
        }
        "workload entry vm/mysql-vm2 is deleted" => assert_eq!(agent.endpoints("vm/mysql.corp.example"), 1),
        "service entry vm/inline is deleted" => {
            assert!(agent.service("vm/inline.corp.example").is_none());
            assert!(agent.service("vm/alias.corp.example").is_none());
            assert_eq!(agent.uid("/203.0.113.31"), None);
        }
        "a DENY policy that selects bookinfo/ratings appears" => {
            assert!(listed(RATINGS_POD).contains(&"bookinfo/new-deny".to_owned()));
            let policy = agent.policy("bookinfo/new-deny").unwrap();
            assert_eq!(policy.action, mesh::policy::Action::Deny);
            assert_eq!(policy.scope, mesh::policy::Scope::WorkloadSelector);
        }
        "policy bookinfo/by-namespace changes" => {
            let matches = &agent.policy("bookinfo/by-namespace").unwrap().rules[0].clauses[0].matches;
            assert_eq!(matches[0].namespaces, [mesh::policy::StringMatch::Exact("only-this".into())]);
        }
        "policy bookinfo/by-ip is deleted" => assert!(agent.policy("bookinfo/by-ip").is_none()),
        "policy bookinfo/by-principal drops its selector (scope changes)" => {
            assert!(listed("Kubernetes//Pod/bookinfo/reviews-v1-6cbd7b5d9c-20xyz").is_empty());
            let policy = agent.policy("bookinfo/by-principal").unwrap();
            assert_eq!(policy.scope, mesh::policy::Scope::Namespace);
        }
        "policy bookinfo/dry loses its dry-run annotation" => {
            assert!(!agent.policy("bookinfo/dry").unwrap().dry_run);
        }
        "peer authentication bookinfo/default becomes STRICT" => {
            assert!(listed(RATINGS_POD).contains(&"istio-system/istio_converted_static_strict".to_owned()));
        }
        "all peer authentications are deleted" => {
            assert_eq!(listed(RATINGS_POD), ["bookinfo/by-not-principal"]);
            assert!(agent.policy("istio-system/istio_converted_static_strict").is_none());
        }
        "the client refuses (NACK) the next address response: a pod is added" | "and is deleted" => {
            assert_eq!(agent.uid("/10.1.1.71"), None);
        }
        "the refused pod changes" => assert_eq!(agent.uid("/10.1.1.71"), Some(pod("refused"))),
        _ => return false,
    }
    true
}

#[test]
fn everything_and_then_one_change_after_the_other() {
    let mut agent = Agent::new("a", None);
    let mut looked = 0;
    agent.replay("wildcard", |step, agent| {
        looked += usize::from(after_wildcard(step, agent));
    });
    assert_eq!(looked, 28);
    // The same two names mean two steps; what the second did is seen at the end.
    assert!(agent.policy("bookinfo/new-deny").is_none());
    let mesh = agent.store.load();
    let known =
        |workload: &mesh::Workload| mesh::authorize::unknown_policies(&mesh, workload).next().is_none();
    assert!(mesh.workloads().all(|workload| known(workload)), "no workload lists a policy that is not there");
}

#[test]
fn it_comes_back_with_what_it_holds() {
    let mut agent = Agent::new("a", None);
    agent.replay("wildcard", |_, _| {});
    let before = agent.store.load();
    let details = "Kubernetes//Pod/bookinfo/details-v1-6cbd7b5d9c-11xyz";
    let recording = "reconnect";
    // What that client held is what we hold by now, but for the three entries that were made up.
    let mut first = None;
    for line in lines(recording) {
        if let Line::Sent(sent) = line
            && sent.node.is_some()
        {
            first.get_or_insert(sent.initial_resource_versions);
        }
    }
    let mut ours = agent.session.open(Instant::now()).remove(0).initial_resource_versions;
    let mut theirs = first.unwrap();
    theirs.remove("Kubernetes//Pod/bookinfo/gone-while-away").unwrap();
    assert_ne!(ours.remove(details).unwrap(), theirs.remove(details).unwrap());
    assert_eq!(ours, theirs);
    agent.hold(recording);
    let mut looked = 0;
    agent.replay(recording, |step, agent| match step {
        "policy bookinfo/deny-nothing is deleted" => {
            assert!(agent.policy("bookinfo/deny-nothing").is_none());
            looked += 1;
        }
        step if step.starts_with("subscribe with") => {
            assert!(
                std::sync::Arc::ptr_eq(&before, &agent.store.load()),
                "nothing changed, so there is no new snapshot"
            );
            looked += 1;
        }
        _ => {}
    });
    assert_eq!(looked, 2);
    let [address, authorization]: [_; 2] = agent.session.open(Instant::now()).try_into().unwrap();
    assert!(!address.initial_resource_versions.contains_key("Kubernetes//Pod/bookinfo/gone-while-away"));
    assert!(!authorization.initial_resource_versions.contains_key("bookinfo/no-such-policy"));
}

#[test]
fn key_by_key() {
    let mut agent = Agent::new("b", None);
    let mut looked = 0;
    agent.replay("on_demand", |step, agent| {
        for (key, answer) in &mut agent.waiting {
            assert_eq!(answer.try_recv(), Ok(true), "{step}: {key}");
        }
        agent.waiting.clear();
        looked += 1;
        match step {
            "start: '*' subscribed and unsubscribed at once" => {
                assert_eq!(agent.counts(), (11, 0, 14));
                assert_eq!(agent.session.held(Kind::Address), 11);
                assert!(agent.session.is_synced(Kind::Authorization));
            }
            "ask for a pod's IP on another node: /10.1.0.10" => assert!(agent.uid("/10.1.0.10").is_some()),
            "ask for a service's VIP: /10.96.215.70" => assert_eq!(agent.endpoints(REVIEWS), 3),
            "ask for an address nobody has: /203.0.113.250" => assert_eq!(agent.uid("/203.0.113.250"), None),
            "the pod asked for by IP (productpage) is deleted" => assert_eq!(agent.uid("/10.1.0.10"), None),
            "a pod appears on this agent's own node" => {
                assert_eq!(agent.uid("/10.1.1.91").as_deref(), Some("Kubernetes//Pod/bookinfo/mine"));
            }
            _ => looked -= 1,
        }
    });
    assert_eq!(looked, 6);
}

#[test]
fn key_by_key_it_comes_back_with_what_is_pending() {
    let recording = "on_demand_reconnect";
    let mut agent = Agent::new("b", None);
    agent.hold(recording);
    let (waiter, mut answer) = oneshot::channel();
    assert!(agent.session.demand("/203.0.113.251", waiter, Instant::now()).is_some());
    agent.replay(recording, |_, _| {});
    assert_eq!(answer.try_recv(), Ok(true), "nobody has it");
    let held = agent.session.open(Instant::now()).remove(0).initial_resource_versions;
    assert!(!held.contains_key("Kubernetes//Pod/bookinfo/sleep"), "it went away meanwhile");
    assert!(held.contains_key(RATINGS) && !held.contains_key("/203.0.113.251"));
    assert_eq!(agent.endpoints(RATINGS), 1, "it changed after the reconnect");
}

#[test]
fn two_networks() {
    let mut agent = Agent::new("a", Some("net-a"));
    agent.replay("networks", |_, _| {});
    let far = agent.uid("net-b/10.1.0.10").unwrap();
    assert_eq!(far, "Kubernetes/networking.istio.io/WorkloadEntry/vm/far");
    assert!(agent.uid("net-a/10.1.0.10").unwrap().contains("productpage"));
    assert_eq!(agent.uid("/10.1.0.10"), None);
    let gateway = agent.workload(&far).network_gateway.clone().unwrap();
    assert_eq!(
        (gateway.destination.to_string().as_str(), gateway.hbone_mtls_port),
        ("net-b/203.0.113.200", 15008)
    );
    assert_eq!(agent.uid("net-b/203.0.113.200").as_deref(), Some("NetworkGateway/net-b/203.0.113.200/15008"));
}

#[test]
fn two_networks_key_by_key() {
    let mut agent = Agent::new("b", Some("net-a"));
    agent.replay("networks_on_demand", |step, agent| {
        for (key, answer) in &mut agent.waiting {
            assert_eq!(answer.try_recv(), Ok(true), "{step}: {key}");
        }
        agent.waiting.clear();
    });
    assert!(agent.uid("net-a/10.1.0.10").unwrap().contains("productpage"));
    assert!(agent.uid("net-b/10.1.0.10").unwrap().contains("WorkloadEntry"));
    assert_eq!(agent.uid("/10.1.0.10"), None);
    assert_eq!(agent.endpoints("vm/far.corp.example"), 1);
}
