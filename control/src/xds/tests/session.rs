//! Each rule of the subscriptions.

use std::time::{Duration, Instant};

use mesh::Store;
use prost::Message;
use tokio::sync::oneshot;

use super::super::apply::{Applied, apply};
use super::super::kind::Kind;
use super::super::node::{Node, Parts};
use super::super::session::Session;
use crate::proto::discovery::{Any, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use crate::proto::{security, workload};

use Kind::{Address, Authorization};

fn node() -> Node {
    Node::new(Parts {
        name: "agent".to_owned(),
        namespace: "system".to_owned(),
        instance_ip: "10.0.0.5".parse().unwrap(),
        node_name: "node-a".to_owned(),
        cluster_id: "Kubernetes".to_owned(),
        service_account: None,
        network: None,
    })
    .unwrap()
}

fn any(kind: Kind, body: &impl Message) -> Option<Any> {
    Some(Any { type_url: kind.type_url().to_owned(), value: body.encode_to_vec().into() })
}

fn pod(uid: &str, ip: [u8; 4], version: &str) -> Resource {
    let body = workload::Workload {
        uid: uid.to_owned(),
        name: uid.to_owned(),
        namespace: "ns".to_owned(),
        addresses: vec![ip.to_vec().into()],
        ..Default::default()
    };
    let body = workload::Address { r#type: Some(workload::address::Type::Workload(body)) };
    Resource {
        name: uid.to_owned(),
        version: version.to_owned(),
        aliases: Vec::new(),
        resource: any(Address, &body),
    }
}

fn service(hostname: &str, version: &str) -> Resource {
    let body =
        workload::Service { namespace: "ns".to_owned(), hostname: hostname.to_owned(), ..Default::default() };
    let body = workload::Address { r#type: Some(workload::address::Type::Service(body)) };
    Resource {
        name: format!("ns/{hostname}"),
        version: version.to_owned(),
        aliases: Vec::new(),
        resource: any(Address, &body),
    }
}

fn policy(name: &str) -> Resource {
    let body = security::Authorization {
        name: name.to_owned(),
        namespace: "ns".to_owned(),
        scope: security::Scope::Namespace.into(),
        ..Default::default()
    };
    Resource { name: format!("ns/{name}"), resource: any(Authorization, &body), ..Default::default() }
}

fn broken(name: &str) -> Resource {
    let value = vec![0xff; 4].into();
    let resource = Some(Any { type_url: Address.type_url().to_owned(), value });
    Resource { name: name.to_owned(), version: "9".to_owned(), aliases: Vec::new(), resource }
}

/// An agent without a stream: what it would send, and its store.
struct Agent {
    store: Store,
    session: Session,
    now: Instant,
    nonce: u32,
}

impl Agent {
    fn new(on_demand: bool) -> Self {
        let now = Instant::now();
        Self { store: Store::new(), session: Session::new(node(), on_demand, now), now, nonce: 0 }
    }

    fn open(&mut self) -> [DeltaDiscoveryRequest; 2] {
        self.session.open(self.now).try_into().unwrap()
    }

    fn receive(
        &mut self,
        kind: Kind,
        resources: Vec<Resource>,
        removed: &[&str],
    ) -> (DeltaDiscoveryRequest, bool) {
        self.nonce += 1;
        let mut response = DeltaDiscoveryResponse {
            type_url: kind.type_url().to_owned(),
            nonce: self.nonce.to_string(),
            resources,
            removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        };
        self.session.complete(kind, &mut response);
        let Applied { mut outcomes, changed } = apply(&self.store, vec![(kind, response)]);
        let answer = self.session.settle(outcomes.pop().unwrap(), self.now).unwrap();
        assert_eq!(
            (answer.response_nonce.as_str(), answer.type_url.as_str()),
            (&*self.nonce.to_string(), kind.type_url())
        );
        assert!(answer.node.is_none(), "the node is told in the first request alone");
        assert!(answer.resource_names_subscribe.is_empty() && answer.resource_names_unsubscribe.is_empty());
        (answer, changed)
    }

    /// Whether the response was acknowledged.
    fn takes(&mut self, kind: Kind, resources: Vec<Resource>, removed: &[&str]) -> bool {
        self.receive(kind, resources, removed).0.error_detail.is_none()
    }

    fn demand(&mut self, key: &str) -> (Option<DeltaDiscoveryRequest>, oneshot::Receiver<bool>) {
        let (waiter, answer) = oneshot::channel();
        (self.session.demand(key, waiter, self.now), answer)
    }

    fn knows(&self, uid: &str) -> bool {
        self.store.load().workload(uid).is_some()
    }
}

fn versions(request: &DeltaDiscoveryRequest) -> Vec<(&str, &str)> {
    let versions = request.initial_resource_versions.iter();
    let mut versions: Vec<_> = versions.map(|(name, version)| (name.as_str(), version.as_str())).collect();
    versions.sort_unstable();
    versions
}

#[test]
fn wildcard_is_empty_lists_and_the_node_comes_with_the_first_request_of_each_type() {
    let mut agent = Agent::new(false);
    let requests = agent.open();
    for (request, kind) in requests.iter().zip(Kind::ALL) {
        assert_eq!(request.type_url, kind.type_url());
        assert_eq!(
            request.node.as_ref().unwrap().id,
            "ztunnel~10.0.0.5~agent.system~system.svc.cluster.local"
        );
        assert!(request.resource_names_subscribe.is_empty() && request.resource_names_unsubscribe.is_empty());
        assert!(request.initial_resource_versions.is_empty() && request.response_nonce.is_empty());
    }
}

#[test]
fn on_demand_begins_with_a_star_both_ways_and_is_of_addresses_alone() {
    let mut agent = Agent::new(true);
    let [address, authorization] = agent.open();
    assert_eq!(address.resource_names_subscribe, ["*"]);
    assert_eq!(address.resource_names_unsubscribe, ["*"]);
    assert!(authorization.resource_names_subscribe.is_empty());
    assert!(authorization.resource_names_unsubscribe.is_empty());
}

#[test]
fn a_reconnect_says_what_is_held() {
    let mut agent = Agent::new(false);
    agent.open();
    assert!(agent.takes(Address, vec![pod("a", [10, 0, 0, 1], "1"), pod("b", [10, 0, 0, 2], "x0")], &[]));
    assert!(agent.takes(Address, vec![pod("b", [10, 0, 0, 3], "0b"), service("web.example", "3")], &[]));
    assert!(agent.takes(Address, Vec::new(), &["a", "never there"]));
    assert!(agent.takes(Authorization, vec![policy("p")], &[]));
    let [address, authorization] = agent.open();
    assert_eq!(versions(&address), [("b", "0b"), ("ns/web.example", "3")]);
    assert_eq!(versions(&authorization), [("ns/p", "")]);
}

#[test]
fn a_refusal_names_the_resource_and_the_reason_and_the_rest_is_taken_over() {
    let mut agent = Agent::new(false);
    agent.open();
    let resources = vec![pod("a", [10, 0, 0, 1], "1"), broken("bad"), pod("b", [10, 0, 0, 2], "1")];
    let (answer, changed) = agent.receive(Address, resources, &[]);
    let status = answer.error_detail.unwrap();
    assert_eq!(status.code, 3);
    assert!(status.message.starts_with("bad: resource: "), "{}", status.message);
    assert!(changed && agent.knows("a") && agent.knows("b"));
    let [address, _] = agent.open();
    assert_eq!(versions(&address), [("a", "1"), ("b", "1")], "what was refused is not held");
}

#[test]
fn a_refused_version_leaves_the_one_before_it_in_force_and_held() {
    let mut agent = Agent::new(false);
    agent.open();
    assert!(agent.takes(Address, vec![pod("a", [10, 0, 0, 1], "1")], &[]));
    assert!(!agent.takes(Address, vec![broken("a")], &[]));
    assert!(agent.knows("a"));
    // Were it left out, the control plane would not tell when it is gone.
    assert_eq!(versions(&agent.open()[0]), [("a", "1")]);
    assert!(agent.takes(Address, Vec::new(), &["a"]));
    assert!(!agent.knows("a"));
}

#[test]
fn many_refusals_are_told_in_few_words() {
    let mut agent = Agent::new(false);
    agent.open();
    let resources = (0..500).map(|n| broken(&format!("{n}{}", "é".repeat(300)))).collect();
    let (answer, _) = agent.receive(Address, resources, &[]);
    let message = answer.error_detail.unwrap().message;
    assert!(message.len() < 4200 && message.ends_with("and 490 more"), "{}", message.len());
}

#[test]
fn what_equals_what_is_there_changes_nothing() {
    let mut agent = Agent::new(false);
    agent.open();
    let all = || vec![pod("a", [10, 0, 0, 1], "1"), service("web.example", "1")];
    assert!(agent.receive(Address, all(), &[]).1);
    assert!(agent.receive(Authorization, vec![policy("p")], &[]).1);
    let before = agent.store.load();
    agent.open();
    assert!(!agent.receive(Address, all(), &["gone"]).1);
    assert!(!agent.receive(Authorization, vec![policy("p")], &[]).1);
    assert!(std::sync::Arc::ptr_eq(&before, &agent.store.load()), "no new snapshot");
    assert!(agent.receive(Address, vec![pod("a", [10, 0, 0, 9], "2")], &[]).1);
    let after = agent.store.load();
    let key = "ns/web.example".parse().unwrap();
    assert!(std::sync::Arc::ptr_eq(before.service(&key).unwrap(), after.service(&key).unwrap()));
}

#[test]
fn a_batch_is_published_once() {
    let mut agent = Agent::new(false);
    agent.open();
    let published = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&published);
    agent.store.subscribe(Box::new(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }));
    let response = |kind: Kind, resources| DeltaDiscoveryResponse {
        type_url: kind.type_url().to_owned(),
        resources,
        ..Default::default()
    };
    let removal = DeltaDiscoveryResponse {
        removed_resources: vec!["a".to_owned()],
        ..response(Address, vec![pod("b", [10, 0, 0, 1], "1")])
    };
    let batch = vec![
        (Address, response(Address, vec![pod("a", [10, 0, 0, 1], "1")])),
        (Authorization, response(Authorization, vec![policy("p")])),
        (Address, removal),
    ];
    assert_eq!(apply(&agent.store, batch).outcomes.len(), 3);
    assert_eq!(published.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert!(!agent.knows("a") && agent.knows("b") && agent.store.load().policy("ns/p").is_some());
}

#[test]
fn a_removal_is_of_a_workload_first_else_of_a_service() {
    let mut agent = Agent::new(false);
    agent.open();
    let key = "ns/web.example".parse().unwrap();
    let both = vec![pod("ns/web.example", [10, 0, 0, 1], "1"), service("web.example", "1")];
    agent.takes(Address, both, &[]);
    agent.takes(Address, Vec::new(), &["ns/web.example"]);
    assert!(!agent.knows("ns/web.example") && agent.store.load().service(&key).is_some());
    agent.takes(Address, Vec::new(), &["ns/web.example"]);
    assert!(agent.store.load().service(&key).is_none());
}

#[test]
fn what_a_response_removes_and_brings_is_there() {
    let mut agent = Agent::new(false);
    agent.open();
    agent.takes(Address, vec![pod("a", [10, 0, 0, 1], "1")], &[]);
    agent.takes(Address, vec![pod("a", [10, 0, 0, 2], "2")], &["a"]);
    assert!(agent.knows("a"));
    assert_eq!(versions(&agent.open()[0]), [("a", "2")]);
}

#[test]
fn a_response_without_a_nonce_is_taken_over_and_not_answered() {
    let mut agent = Agent::new(false);
    agent.open();
    let response =
        DeltaDiscoveryResponse { resources: vec![pod("a", [10, 0, 0, 1], "1")], ..Default::default() };
    let outcome = apply(&agent.store, vec![(Address, response)]).outcomes.pop().unwrap();
    assert_eq!(agent.session.settle(outcome, agent.now), None);
    assert!(agent.knows("a"));
}

#[test]
fn synced_after_one_acknowledged_response_of_each_type() {
    let mut agent = Agent::new(false);
    agent.open();
    let state = |agent: &Agent| Kind::ALL.map(|kind| agent.session.is_synced(kind));
    assert_eq!(state(&agent), [false, false]);
    agent.takes(Address, vec![broken("bad")], &[]);
    assert_eq!(state(&agent), [false, false], "a refused one does not count");
    agent.takes(Authorization, Vec::new(), &[]);
    assert_eq!(state(&agent), [false, true], "an empty one does");
    agent.takes(Address, Vec::new(), &[]);
    agent.open();
    assert_eq!(state(&agent), [true, true], "and stays so");
    let mut keyed = Agent::new(true);
    keyed.open();
    assert_eq!(state(&keyed), [true, false], "what is asked for on demand is not waited for");
}

#[test]
fn each_stream_has_to_answer() {
    let mut agent = Agent::new(false);
    agent.open();
    let unanswered = |agent: &Agent| agent.session.unanswered().collect::<Vec<_>>();
    assert_eq!(unanswered(&agent), [Address, Authorization]);
    agent.takes(Address, Vec::new(), &[]);
    assert_eq!(unanswered(&agent), [Authorization]);
    agent.open();
    assert_eq!(unanswered(&agent), [Address, Authorization]);
    let mut keyed = Agent::new(true);
    keyed.open();
    assert_eq!(unanswered(&keyed), [Authorization]);
}

#[test]
fn an_alias_wakes_who_waits() {
    let mut agent = Agent::new(true);
    agent.open();
    let (request, mut answer) = agent.demand("/10.0.0.1");
    let request = request.unwrap();
    assert_eq!(
        (request.resource_names_subscribe.as_slice(), request.node),
        (&["/10.0.0.1".to_owned()][..], None)
    );
    assert_eq!(request.type_url, Address.type_url());
    let (again, mut other) = agent.demand("/10.0.0.1");
    assert_eq!(again, None, "it was asked for");
    let found = Resource { aliases: vec!["/10.0.0.1".to_owned()], ..pod("a", [10, 0, 0, 1], "1") };
    agent.takes(Address, vec![pod("b", [10, 0, 0, 2], "1")], &[]);
    assert!(answer.try_recv().is_err());
    agent.takes(Address, vec![found], &[]);
    assert_eq!((answer.try_recv(), other.try_recv()), (Ok(true), Ok(true)));
    assert!(agent.knows("a"), "it is in the store before anyone is told");
}

#[test]
fn a_key_that_nobody_has_is_told_and_asked_for_again_on_a_fresh_stream() {
    let mut agent = Agent::new(true);
    agent.open();
    let (_, mut answer) = agent.demand("/10.0.0.1");
    agent.takes(Address, Vec::new(), &["/10.0.0.1"]);
    assert_eq!(answer.try_recv(), Ok(true));
    assert_eq!(agent.session.fresh_at(), None);
    agent.now += Duration::from_secs(60);
    let (request, mut answer) = agent.demand("/10.0.0.1");
    assert_eq!(request, None, "this stream would not answer");
    assert_eq!(agent.session.fresh_at(), Some(agent.now));
    let [address, _] = agent.open();
    assert_eq!(versions(&address), [("/10.0.0.1", "")], "pending, so without a version");
    let found = Resource { aliases: vec!["/10.0.0.1".to_owned()], ..pod("a", [10, 0, 0, 1], "1") };
    agent.takes(Address, vec![found], &[]);
    assert_eq!(answer.try_recv(), Ok(true));
}

#[test]
fn a_key_whose_resource_is_refused_cannot_be_found_out() {
    let mut agent = Agent::new(true);
    agent.open();
    let (_, mut answer) = agent.demand("/10.0.0.1");
    agent.takes(Address, vec![Resource { aliases: vec!["/10.0.0.1".to_owned()], ..broken("a") }], &[]);
    assert_eq!(answer.try_recv(), Ok(false));
}

/// Names of 200 bytes and more, so many that they do not fit into one request.
fn many() -> Vec<Resource> {
    (0..20_000_u32).map(|n| pod(&format!("{n:0>200}"), n.to_be_bytes(), "1")).collect()
}

#[test]
fn a_reconnect_that_holds_more_than_a_request_can_tell_finds_out_what_is_gone() {
    let mut agent = Agent::new(false);
    agent.open();
    assert!(agent.takes(Address, many(), &[]));
    let [address, authorization] = agent.open();
    assert!((2 << 20..4 << 20).contains(&address.encoded_len()), "{}", address.encoded_len());
    assert!(authorization.initial_resource_versions.is_empty());
    let told = address.initial_resource_versions;
    // The control plane sends what it was not told of, but for the one that is gone, and nothing of the others.
    let mut untold = many();
    untold.retain(|resource| !told.contains_key(&resource.name));
    let gone = untold.pop().unwrap().name;
    let before = agent.store.load().workloads().count();
    assert!(agent.takes(Address, untold, &[]));
    assert!(!agent.knows(&gone));
    assert_eq!(agent.store.load().workloads().count(), before - 1);
    assert!(agent.takes(Address, Vec::new(), &[]), "only the first response says so");
    assert_eq!(agent.store.load().workloads().count(), before - 1);
    assert_eq!(agent.session.held(Address), before - 1);
}

#[test]
fn an_on_demand_agent_asks_for_what_does_not_fit_into_the_first_request() {
    let mut agent = Agent::new(true);
    agent.open();
    assert!(agent.takes(Address, many(), &[]));
    let requests = agent.session.open(agent.now);
    assert!(requests.len() > 2 && requests.iter().all(|request| request.encoded_len() < 4 << 20));
    let asked: usize = requests.iter().skip(2).map(|request| request.resource_names_subscribe.len()).sum();
    assert_eq!(requests[0].initial_resource_versions.len() + asked, 20_000);
    assert!(
        requests
            .iter()
            .skip(2)
            .all(|request| request.node.is_none() && request.type_url == Address.type_url())
    );
    assert!(agent.takes(Address, Vec::new(), &[]));
    assert_eq!(agent.store.load().workloads().count(), 20_000, "nothing is taken for gone");
}
