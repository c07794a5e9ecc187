//! Answers of an agent whose mesh is real and whose node is made up: a real one needs a kernel.

use std::cell::Cell;
use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::certificates::State;
use control::file::MeshFile;
use mesh::{Identity, Store};
use prometheus_client::registry::Registry;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, reload};
use tunnel::{Certificate, CertificateError, CertificateProvider, ConnectionInfo, Direction, Tunnel};

use super::protocol::{Answer, Command, MAX_MESSAGE, Request};
use super::{Subjects, tell, until};
use crate::admin::Node;
use crate::enrollment::{PodKey, PodState};
use crate::events::{Events, Recorder};
use crate::feed::Source;
use crate::logging::Levels;
use crate::readiness::Readiness;

const MESH: &str = "
workloads:
- {uid: sleep, name: sleep, namespace: bookinfo, serviceAccount: sleep, workloadIps: [10.1.0.30, 'fd00:1::30'], protocol: HBONE}
- uid: reviews
  name: reviews
  namespace: bookinfo
  serviceAccount: reviews
  workloadIps: [10.1.0.31]
  protocol: HBONE
  waypoint: {destination: bookinfo/waypoint.bookinfo.example, hboneMtlsPort: 15008}
  services: {bookinfo/reviews.bookinfo.example: {9080: 9080}}
- {uid: ratings, name: ratings, namespace: bookinfo, serviceAccount: ratings, workloadIps: [10.1.0.33], protocol: HBONE, services: {bookinfo/ratings.bookinfo.example: {80: 80}}}
- {uid: ratings-2, name: ratings-2, namespace: bookinfo, serviceAccount: ratings, workloadIps: [10.1.0.34], protocol: HBONE, services: {bookinfo/ratings.bookinfo.example: {80: 80}}}
services:
- {name: ratings, namespace: bookinfo, hostname: ratings.bookinfo.example, vips: [/10.96.0.20], ports: {80: 80}}
- {name: reviews, namespace: bookinfo, hostname: reviews.bookinfo.example, vips: [/10.96.0.10], ports: {9080: 9080}}
policies:
- {name: only-sleep, namespace: bookinfo, scope: Namespace, action: Allow, rules: [[[{principals: [{Exact: cluster.local/ns/bookinfo/sa/sleep}]}]]]}
";

/// A node of three pods, one of which has a connection in and one out.
struct MadeUp(Vec<(Identity, State)>);

impl Node for MadeUp {
    fn pods(&self) -> Vec<(PodKey, PodState)> {
        let pod = |name: &str| PodKey { namespace: "bookinfo".into(), name: name.into() };
        vec![
            (pod("reviews"), PodState::Degraded("the route is gone".into())),
            (pod("sleep"), PodState::Enrolled),
            (pod("unknown"), PodState::Pending("it is to be enrolled".into())),
        ]
    }

    fn connections(&self) -> Vec<ConnectionInfo> {
        let outbound = ConnectionInfo {
            workload: "sleep".into(),
            direction: Direction::Outbound,
            source: "10.1.0.30:47498".parse().unwrap(),
            original_destination: Some("10.96.0.10:9080".parse().unwrap()),
            destination: "10.1.0.31:15008".parse().unwrap(),
            hbone: true,
            identity: None,
        };
        let inbound = ConnectionInfo {
            direction: Direction::Inbound,
            source: "[fd00:1::9]:16328".parse().unwrap(),
            original_destination: None,
            destination: "[fd00:1::30]:8080".parse().unwrap(),
            identity: Some(Identity::new("cluster.local", "bookinfo", "gateway")),
            ..outbound.clone()
        };
        vec![outbound, inbound]
    }

    fn certificates(&self) -> Vec<(Identity, State)> {
        self.0.clone()
    }

    fn overdue_renewals(&self) -> usize {
        0
    }
}

/// No certificate is needed to decide where a connection would go.
struct Nobody;

impl CertificateProvider for Nobody {
    fn certificate<'a>(
        &'a self,
        identity: &'a Identity,
    ) -> Pin<Box<dyn Future<Output = Result<Arc<Certificate>, CertificateError>> + Send + 'a>> {
        let error = CertificateError { identity: identity.clone(), reason: Arc::from("nobody signs") };
        Box::pin(std::future::ready(Err(error)))
    }

    fn warm(&self, _: &Identity) {}

    fn release(&self, _: &Identity) {}
}

/// An agent that can be asked.
pub(crate) struct World {
    subjects: Subjects,
    _log: tracing::subscriber::DefaultGuard,
}

impl World {
    /// Of the node above.
    pub(crate) fn new() -> Self {
        Self::of(MadeUp(Vec::new()))
    }

    /// The same, with three certificates: one that is there, one that is awaited, one that cannot be had.
    pub(crate) async fn with_certificates() -> Self {
        Self::of(MadeUp(crate::admin::tests::certificates().await))
    }

    /// The node.
    pub(crate) fn node(&self) -> &dyn Node {
        &*self.subjects.node
    }

    /// What it waits for.
    pub(crate) fn readiness(&self) -> &Readiness {
        &self.subjects.readiness
    }

    fn of(node: MadeUp) -> Self {
        let store = Arc::new(Store::new());
        let file = MeshFile::parse(MESH).unwrap();
        store.update(|current| {
            let mut editor = current.edit();
            file.workloads.iter().for_each(|workload| editor.insert_workload(workload.clone()));
            file.services.iter().for_each(|service| editor.insert_service(service.clone()));
            file.policies.iter().for_each(|policy| editor.insert_policy(policy.clone()));
            Some(editor.finish())
        });
        let mut registry = Registry::default();
        let config = tunnel::Config { workers: NonZeroUsize::MIN, ..tunnel::Config::default() };
        let tunnel = Tunnel::new(config, Arc::clone(&store), Arc::new(Nobody), None, &mut registry).unwrap();
        let (filter, handle) = reload::Layer::new(EnvFilter::new("info"));
        let events = Events::default();
        let log = tracing_subscriber::registry().with(filter).with(Recorder(events.clone()));
        let log = tracing::subscriber::set_default(log);
        tracing::info!(target: "culvert::enrollment", pod = "bookinfo/sleep", "pod enrolled");
        tracing::warn!(target: "culvert::enrollment::watch", pod = "bookinfo/reviews", "capture lost");
        tracing::error!(target: "access", error = "refused", "connection failed");
        let subjects = Subjects {
            node: Arc::new(node),
            store,
            tunnel: Arc::new(tunnel),
            levels: Levels::new("info", handle),
            events,
            config: serde_json::json!({"node": {"value": "node-a"}}),
            registry: Arc::new(registry),
            readiness: Readiness::default(),
            source: Source::File { path: "/etc/mesh.yaml".into(), counters: Arc::default() },
        };
        Self { subjects, _log: log }
    }

    /// What it says to a command, as it arrives.
    pub(crate) fn ask(&self, request: &Request) -> Vec<Answer> {
        let request = Request::decode(&request.encode().unwrap()).unwrap();
        let mut answers = Vec::new();
        tell(&self.subjects, &request, &mut |answer| {
            let bytes = answer.encode()?;
            assert!(bytes.len() <= MAX_MESSAGE);
            answers.push(Answer::decode(&bytes).unwrap());
            Ok(())
        })
        .unwrap();
        answers
    }

    /// The parts of an answer that are wanted.
    pub(crate) fn rows<T>(&self, command: Command, wanted: impl Fn(Answer) -> Option<T>) -> Vec<T> {
        self.ask(&Request::new(command, None)).into_iter().filter_map(wanted).collect()
    }
}

#[test]
fn a_pod_is_asked_for_by_its_name_with_its_namespace_or_without() {
    let world = World::new();
    for (name, count) in [("sleep", 1), ("bookinfo/sleep", 1), ("other/sleep", 0), ("slee", 0)] {
        assert_eq!(world.ask(&Request::new(Command::Pods, Some(name.into()))).len(), count, "{name}");
    }
}

#[test]
fn who_takes_an_answer_too_slowly_is_left() {
    let taken = Cell::new(0);
    let take = |_| {
        taken.set(taken.get() + 1);
        Ok(())
    };
    let now = Instant::now();
    until(now + Duration::from_secs(3600), take)(Answer::End).unwrap();
    let late = until(now.checked_sub(Duration::from_secs(1)).unwrap(), take)(Answer::End);
    assert_eq!(late.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(taken.get(), 1);
}

#[test]
fn what_is_too_long_for_a_message_is_told_and_not_sent() {
    let bytes = Answer::Refused { why: "x".repeat(MAX_MESSAGE) }.encode().unwrap();
    assert!(bytes.len() < 200);
    assert!(matches!(Answer::decode(&bytes), Ok(Answer::Refused { why }) if why.contains("longer than")));
}
