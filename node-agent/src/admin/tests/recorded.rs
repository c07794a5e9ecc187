//! What the peer's ports were asked, asked of ours; and what a control plane said, as our dump shows it.

use std::collections::BTreeMap;

use control::proto::discovery::DeltaDiscoveryResponse;
use control::xds::decode::{self, Address};
use control::xds::{ADDRESS, AUTHORIZATION};
use prometheus_client::registry::Registry;
use prost::Message as _;

use super::super::ports::{serve_metrics, serve_readiness};
use super::document::{problems, schema};
use super::*;
use crate::readiness::Readiness;

/// What the peer refuses and we do not: it says in its help that this is how levels are written.
const BETTER: (&str, &str, u16) = ("POST", "/logging?level=xds:debug,proxy:info", 200);

async fn port(serve: impl FnOnce(TcpListener)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    serve(listener);
    address
}

#[tokio::test]
async fn the_peers_ports_and_ours_answer_alike() {
    let world = World::start("workloads: []").await;
    let readiness = port(|it| drop(tokio::spawn(serve_readiness(it, Readiness::default())))).await;
    let metrics = port(|it| drop(tokio::spawn(serve_metrics(it, Arc::new(Registry::default()))))).await;
    let mut asked = 0;
    for recorded in recordings::agent::admin().unwrap() {
        let (place, path) = recorded.url.strip_prefix("http://127.0.0.1:").unwrap().split_once('/').unwrap();
        let address = match place {
            "15000" => world.address,
            "15020" => metrics,
            "15021" => readiness,
            other => panic!("port {other}"),
        };
        let (method, path) = (recorded.method.as_str(), format!("/{path}"));
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let (status, head, body) = ask(address, &request).await;
        let is_better = (method, path.as_str()) == (BETTER.0, BETTER.1);
        let expected = if is_better { BETTER.2 } else { recorded.status };
        assert_eq!(status, expected, "{method} {path}");
        if let (Some(kind), false) = (recorded.headers.get("content-type"), is_better) {
            let kind = kind.split(';').next().unwrap();
            assert!(head.contains(&format!("content-type: {kind}")), "{method} {path}: {head}");
        }
        // Long bodies were recorded with their first words; levels begin with a scope of the peer's own.
        let body = String::from_utf8(body).unwrap();
        let words = recorded.body.split(" ...").next().unwrap();
        let words = words.replace("hickory_server::server=off,", "");
        if path.starts_with("/logging") && !is_better {
            // Levels are what was asked for, whatever came before: the one that the peer refused changed ours.
            let words = words.trim_end_matches(|c: char| c.is_ascii_lowercase() || c == '\n');
            assert!(body.starts_with(words), "{method} {path}: {body}");
        } else if body.is_empty() || path == "/healthz/ready" {
            assert_eq!(body, words, "{method} {path}");
        }
        asked += 1;
    }
    assert_eq!(asked, 20);
}

/// What the first responses of a conversation make of an empty store.
fn told(name: &str) -> Arc<Store> {
    let store = Arc::new(Store::new());
    let lines = recordings::conversation(name).unwrap();
    for line in lines.iter().filter(|line| line.received.is_some()).take(2) {
        let response = DeltaDiscoveryResponse::decode(line.raw.as_slice()).unwrap();
        store.update(|current| {
            let mut editor = current.edit();
            for resource in &response.resources {
                if response.type_url == ADDRESS {
                    match decode::address(resource).unwrap() {
                        Address::Workload(workload) => editor.insert_workload(workload),
                        Address::Service(service) => editor.insert_service(service),
                    }
                } else {
                    assert_eq!(response.type_url, AUTHORIZATION);
                    editor.insert_policy(decode::authorization(resource).unwrap());
                }
            }
            Some(editor.finish())
        });
    }
    store
}

/// The members of a list by what names them.
fn by_name(list: &Value) -> BTreeMap<String, BTreeMap<String, Value>> {
    let named = |one: &Value| {
        let name = ["uid", "namespace", "hostname", "name"].map(|key| one[key].as_str().unwrap_or(""));
        let mut one: BTreeMap<String, Value> = serde_json::from_value(one.clone()).unwrap();
        // A set, and what differs from one run of the cluster to the next.
        one.entry("services".to_owned())
            .and_modify(|it| it.as_array_mut().unwrap().sort_by_key(Value::to_string));
        one.remove("vips");
        (name.join("|"), one)
    };
    list.as_array().unwrap().iter().map(named).collect()
}

/// The same cluster was recorded in two runs: what its control plane sends, and what the peer shows of that.
#[tokio::test]
async fn what_a_control_plane_sends_is_shown_as_the_peer_shows_it() {
    let world = World::of(told("istiod/wildcard")).await;
    let ours = world.dump().await;
    assert_eq!(problems(&schema(), &ours), [""; 0]);
    let theirs: Value =
        serde_json::from_str(&recordings::text("istiod/agent/config_dump.json").unwrap()).unwrap();
    for (kind, count) in [("workloads", 24), ("services", 21), ("policies", 18)] {
        let (ours, theirs) = (by_name(&ours[kind]), by_name(&theirs[kind]));
        assert_eq!((ours.len(), theirs.len()), (count, count), "{kind}");
        for (name, theirs) in theirs {
            assert_eq!(ours.get(&name), Some(&theirs), "{kind}: {name}");
        }
    }
}
