//! The harness itself, on real namespaces: needs root, iproute2 and the reference CNI plugins.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside #[test] functions")]

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use harness::{CniError, Pod, Run, Wire, netfilter};

fn two_pods() -> (Arc<Run>, Arc<Wire>, Pod, Pod) {
    let run = Run::start().unwrap();
    let wire = Wire::new(&run).unwrap();
    let node1 = wire.add_node("n1").unwrap();
    let node2 = wire.add_node("n2").unwrap();
    let client = node1.add_plain_pod("sleep", "default").unwrap();
    let server = node2.add_plain_pod("productpage", "default").unwrap();
    (run, wire, client, server)
}

#[test]
fn pods_of_two_nodes_reach_each_other_and_the_tap_reads_it() {
    let (_run, wire, client, server) = two_pods();
    assert_eq!((client.ipv4(), client.ipv6()), client.node().pod_addresses(1));
    let _app = server.serve_http(8080).unwrap();
    let tap = wire.tap().unwrap();
    for (own, to) in client.addresses().into_iter().zip(server.addresses()) {
        let marker = format!("/plain-{}", if own.is_ipv4() { 4 } else { 6 });
        let reply = client.get(SocketAddr::new(to, 8080), &marker).unwrap();
        assert_eq!((reply.status, reply.peer().unwrap().ip()), (200, own));
        assert!(tap.contains(marker.as_bytes()).unwrap());
    }
    assert_eq!(tap.ports().unwrap().into_iter().collect::<Vec<_>>(), [8080]);
    assert!(tap.segments_of_port(8080).unwrap() > 4);
    assert!(!tap.contains(b"never sent").unwrap());
    tap.clear().unwrap();
    assert!(!tap.contains(b"/plain-4").unwrap());
    assert_eq!(netfilter::conntrack_count(client.netns()).unwrap(), 0);
    assert_eq!(netfilter::rules(client.netns()).unwrap(), "");
}

#[test]
fn a_closed_port_is_refused_at_once_and_connections_are_kept() {
    let (_run, _wire, client, server) = two_pods();
    let app = server.serve_http(8080).unwrap();
    let closed = SocketAddr::new(server.ipv4().into(), 9);
    assert!(client.attempt(closed, "/").unwrap().is_refused());
    let error = server.serve_http(8080).unwrap_err().to_string();
    assert!(error.contains("in use already"), "{error}");
    let mut kept = client.open_http(SocketAddr::new(server.ipv6().into(), 8080)).unwrap();
    let first = kept.get("/a").unwrap().peer().unwrap();
    assert_eq!(kept.get("/b").unwrap().peer().unwrap(), first);
    drop(app);
    kept.wait_until_cut(std::time::Duration::from_secs(5)).unwrap();
}

#[test]
fn check_and_del_run_and_del_repeats() {
    let (_run, _wire, client, server) = two_pods();
    client.check().unwrap();
    client.remove().unwrap();
    server.delete_netns().unwrap();
    assert!(!client.netns().exists());
}

#[test]
fn a_failing_plugin_is_told_and_leaves_no_pod() {
    let run = Run::start().unwrap();
    let node = Wire::new(&run).unwrap().add_node("n1").unwrap();
    let mut list = node.plain_conflist();
    list.plugins.push(serde_json::json!({ "type": "tuning", "sysctl": { "no.such.setting": "1" } }));
    let error = node.add_pod_with("sleep", "default", list).unwrap_err();
    assert!(matches!(&error, CniError::Plugin { plugin, .. } if plugin == "tuning"), "{error}");
    let list = harness::cni::Conflist {
        plugins: vec![serde_json::json!({ "type": "absent" })],
        ..node.plain_conflist()
    };
    let error = node.add_pod_with("sleep", "default", list).unwrap_err().to_string();
    assert!(error.contains("containernetworking-plugins"), "{error}");
    // Both addresses were given back, and the name is free.
    assert_eq!(node.add_plain_pod("sleep", "default").unwrap().addresses().len(), 2);
}

#[test]
fn teardown_leaves_nothing() {
    let (run, wire, client, server) = two_pods();
    let _app = server.start(&["hold"]).unwrap();
    let paths = [wire.netns().to_owned(), client.netns().to_owned(), run.dir(), run.bpffs()];
    let standing = harness::run::standing();
    assert!(paths.iter().all(|path| path.exists() && standing.contains(path)), "{standing:?}");
    harness::run::teardown(run.id());
    assert!(!paths.iter().any(|path| path.exists()), "{paths:?}");
}

#[test]
fn leftovers_of_a_dead_run_are_swept() {
    // No process has the number that pid_max of any kernel excludes.
    let leftover = Path::new("/run/culvert-harness/cv4194305x0");
    // Made in one step: the runs of the tests beside this one sweep as well, and may not meet it half-made.
    std::fs::create_dir_all(leftover).unwrap();
    let _run = Run::start().unwrap();
    assert!(!leftover.exists());
}

#[test]
fn a_host_beside_the_mesh_reaches_pods() {
    let (_run, wire, _client, server) = two_pods();
    let _app = server.serve_http(8080).unwrap();
    let host = wire.add_host("outside").unwrap();
    let to = SocketAddr::new(server.ipv4().into(), 8080);
    let connected =
        harness::inside::in_netns(&host.netns, || harness::client::connect(to, harness::client::LIMIT));
    let reply = harness::Http::new(connected.unwrap().unwrap()).unwrap().get("/").unwrap();
    assert_eq!(reply.peer().unwrap().ip(), IpAddr::from(host.addresses().0));
}
