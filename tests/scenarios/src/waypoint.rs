//! The stage of the walk-throughs about waypoints: two versions of the reviews, whose service has an Envoy in front of it, and the ratings.
//!
//! What the waypoint does with a request is its own configuration, as a control plane would write it; that requests go there and nowhere
//! else is the agents' doing.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use harness::mesh_file::{Gateway, Service};
use harness::{Narrator, Reply};
use interop_tests::config::{Fronted, Waypoint};
use interop_tests::{Envoy, HBONE, NAMESPACE, identity};
use serde_json::json;

use crate::books::{Book, PORT, PRODUCTPAGE, REVIEWS, perform};
use crate::look::culvert;
use crate::stage::{Stage, at};

/// The account of the waypoint, and what its pod and service are called.
pub(crate) const WAYPOINT: &str = "waypoint";
/// Streams that it takes in one connection, as Envoys of a mesh are set up.
const STREAMS: u32 = 100;
/// The policy of the pods behind it.
pub(crate) const ONLY_WAYPOINT: &str = "only-waypoint";

/// Two nodes with clients on the first and reviews on the second. `clients` are pods and their accounts.
pub(crate) fn set(clients: &[(&str, &str)]) -> Result<Stage> {
    let mut stage = Stage::new(2)?;
    for (name, account) in clients {
        stage.member(name, account, 1)?;
    }
    let front = stage.service(WAYPOINT, 30, HBONE);
    let own = stage.outsider(WAYPOINT, WAYPOINT, 1)?;
    own.services.insert(front.key(), front.ports);
    let front = Gateway::of(&known(&stage, WAYPOINT)?);
    let reviews = Book::Reviews.announce(&mut stage);
    stage.mesh.service(Book::Reviews.name()).waypoint = Some(front);
    for version in ["v1", "v2"] {
        perform(&mut stage, &reviews, Book::Reviews, version, 2)?;
    }
    let ratings = Book::Ratings.announce(&mut stage);
    perform(&mut stage, &ratings, Book::Ratings, "v1", 2)?;
    Ok(stage)
}

fn known(stage: &Stage, name: &str) -> Result<Service> {
    let found = stage.mesh.services.iter().find(|service| service.name == name);
    Ok(found.with_context(|| format!("no service {name}"))?.clone())
}

/// Has the reviews take nothing but what comes from the waypoint.
pub(crate) fn guard(stage: &mut Stage) {
    let principal = format!("cluster.local/ns/{NAMESPACE}/sa/{WAYPOINT}");
    stage.mesh.policies.push(json!({
        "name": ONLY_WAYPOINT, "namespace": NAMESPACE, "scope": "WorkloadSelector", "action": "Allow",
        "rules": [[[{ "principals": [{ "Exact": principal }] }]]],
    }));
    let reviews = stage.mesh.workloads.iter_mut().filter(|workload| workload.service_account == REVIEWS);
    reviews
        .for_each(|workload| workload.authorization_policies = vec![format!("{NAMESPACE}/{ONLY_WAYPOINT}")]);
}

/// Starts the waypoint; with `readers`, these may GET over HTTP, and nobody may do anything else.
pub(crate) fn start(say: &mut Narrator, stage: &Stage, readers: Option<&[&str]>) -> Result<Envoy> {
    let pod = stage.pod(WAYPOINT)?;
    let versions = [stage.pod("reviews-v1")?.addresses(), stage.pod("reviews-v2")?.addresses()];
    let [[first4, first6], [second4, second6]] = versions.map(|addresses| at(addresses, PORT));
    let [v4, v6] = Book::Reviews.addresses();
    let own = stage.credentials(WAYPOINT)?;
    let waypoint = Waypoint {
        addresses: pod.addresses(),
        own: &own,
        clients: vec!["spiffe://cluster.local/".to_owned()],
        destinations: vec![identity(REVIEWS)],
        readers: readers.map(|readers| readers.iter().map(|account| identity(account)).collect()),
        streams: STREAMS,
        fronted: vec![
            Fronted::Http { destination: v4, versions: [first4, second4] },
            Fronted::Http { destination: v6, versions: [first6, second6] },
        ],
    };
    let envoy = Envoy::start(pod, &waypoint.bootstrap())?;
    say.saw(&format!("{WAYPOINT}: Envoy on {}, as {}", pod.ipv4(), identity(WAYPOINT)));
    Ok(envoy)
}

/// That the agent leads a client's connections to the reviews to the waypoint, in its own words.
pub(crate) fn leads_there(say: &mut Narrator, stage: &Stage) -> Result<()> {
    let [to, _] = Book::Reviews.addresses();
    let from = format!("{NAMESPACE}/productpage");
    let (code, text) = culvert(say, stage, "productpage", &["trace", &from, "--to", &to.to_string()])?;
    let by = at(stage.pod(WAYPOINT)?.addresses(), HBONE);
    let leads = text
        .lines()
        .any(|line| line.contains("=> CARRIED") && by.iter().any(|by| line.contains(&by.to_string())));
    say.check(
        "the agent carries it to the waypoint, asking for the service",
        expected(code == 0 && leads, by),
    );
    Ok(())
}

fn expected(is_so: bool, by: [SocketAddr; 2]) -> Result<()> {
    ensure!(is_so, "expected a tunnel to {by:?}");
    Ok(())
}

/// Which version of the reviews has answered.
pub(crate) fn version(reply: &Reply) -> Result<&'static str> {
    ensure!(reply.status == 200, "{} {}", reply.status, reply.body);
    match reply.field("app").as_str() {
        "reviews-v1" => Ok("v1"),
        "reviews-v2" => Ok("v2"),
        other => anyhow::bail!("{other:?} answered"),
    }
}

/// The account that asks for the reviews in Bookinfo, with its pod.
pub(crate) const CLIENT: (&str, &str) = ("productpage", PRODUCTPAGE);
