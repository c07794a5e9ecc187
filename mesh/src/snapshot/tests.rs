use super::*;
use crate::address::NetworkAddress;
use crate::policy::{Action, Scope};
use crate::service::Visibility;
use crate::testing::{key, pod, ports, service, snapshot, tcp_pod};
use crate::workload::NetworkMode;

fn address(text: &str) -> NetworkAddress {
    text.parse().unwrap()
}

fn policy(namespace: &str, name: &str, scope: Scope) -> Policy {
    Policy {
        name: name.into(),
        namespace: namespace.into(),
        scope,
        action: Action::Deny,
        dry_run: false,
        rules: Vec::new(),
    }
}

#[test]
fn endpoints_are_staged_until_their_service_comes() {
    let before = snapshot([pod("a", &["10.0.0.1"]).serving("web", [(80, 8080)])], [], []);
    assert_eq!(before.staged().collect::<Vec<_>>(), [(&key("web"), 1)]);
    assert!(before.service(&key("web")).is_none());
    let mut editor = before.edit();
    editor.insert_service(service("web", &["/10.1.0.1"]));
    let after = editor.finish();
    assert_eq!(after.staged().count(), 0);
    let endpoint = after.endpoints(&key("web")).next().unwrap();
    assert_eq!((&*endpoint.workload.name, endpoint.ports), ("a", &ports([(80, 8080)])));
    let mut editor = after.edit();
    assert!(editor.remove_service(&key("web")));
    let removed = editor.finish();
    assert_eq!(removed.staged().count(), 1);
    assert!(removed.service_by_vip(&address("/10.1.0.1"), "default").is_none());
}

#[test]
fn of_several_workloads_with_one_address_a_pod_that_speaks_hbone_is_preferred() {
    let entry = |name: &str, protocol| Workload {
        uid: format!("Kubernetes/networking.istio.io/WorkloadEntry/default/{name}").into(),
        protocol,
        ..pod(name, &["10.0.0.1"])
    };
    use crate::workload::Protocol::{Hbone, Tcp};
    let in_order = [
        pod("z-hbone-pod", &["10.0.0.1"]),
        tcp_pod("a-tcp-pod", &["10.0.0.1"]),
        entry("z-hbone-entry", Hbone),
        entry("a-tcp-entry", Tcp),
    ];
    for reversed in [false, true] {
        let mut arrivals = in_order.to_vec();
        if reversed {
            arrivals.reverse();
        }
        let mut current = snapshot(arrivals, [], []);
        for expected in &in_order {
            let found = current.workload_by_address(&address("/10.0.0.1")).unwrap();
            assert_eq!(found.name, expected.name);
            let mut editor = current.edit();
            editor.remove_workload(&expected.uid);
            current = editor.finish();
        }
        assert!(current.workload_by_address(&address("/10.0.0.1")).is_none());
    }
}

#[test]
fn host_network_workloads_are_never_found_by_address() {
    let workload = Workload { network_mode: NetworkMode::HostNetwork, ..pod("a", &["192.0.2.1"]) };
    let current = snapshot([workload.serving("web", [(80, 80)])], [service("web", &[])], []);
    assert!(current.workload_by_address(&address("/192.0.2.1")).is_none());
    assert_eq!(current.endpoints(&key("web")).count(), 1);
    assert!(current.workload_of_pod("default", "a").is_some());
}

#[test]
fn networks_are_apart() {
    let remote = Workload { network: "east".into(), ..pod("a", &["10.0.0.1"]) };
    let current = snapshot([remote], [], []);
    assert!(current.workload_by_address(&address("/10.0.0.1")).is_none());
    assert!(current.workload_by_address(&address("east/10.0.0.1")).is_some());
}

#[test]
fn replacing_a_resource_takes_out_what_it_had_put_in() {
    let before = snapshot(
        [pod("a", &["10.0.0.1"]).serving("web", [(80, 1)])],
        [service("web", &["/10.1.0.1"])],
        [policy("default", "p", Scope::Namespace)],
    );
    let mut editor = before.edit();
    editor.insert_workload(pod("a", &["10.0.0.2"]).serving("api", [(80, 2)]));
    editor.insert_service(service("web", &["/10.1.0.2"]));
    editor.insert_policy(policy("default", "p", Scope::Global));
    let after = editor.finish();
    assert!(after.workload_by_address(&address("/10.0.0.1")).is_none());
    assert!(after.workload_by_address(&address("/10.0.0.2")).is_some());
    assert_eq!(after.endpoints(&key("web")).count(), 0);
    assert_eq!(after.endpoints(&key("api")).count(), 1);
    assert!(after.service_by_vip(&address("/10.1.0.1"), "").is_none());
    assert!(after.service_by_vip(&address("/10.1.0.2"), "").is_some());
    assert_eq!(after.policies_for_namespace("other").count(), 1);
    assert_eq!(after.policies_for_namespace("default").count(), 1);
    // What it was made from is as it was.
    assert!(before.workload_by_address(&address("/10.0.0.1")).is_some());
    assert_eq!(before.endpoints(&key("web")).count(), 1);
    assert_eq!(before.policies_for_namespace("other").count(), 0);
}

#[test]
fn removing_everything_leaves_nothing() {
    let full = snapshot(
        [Workload {
            hostname: "A.example".into(),
            ..pod("a", &["10.0.0.1", "fd00::1"]).serving("web", [(80, 1)])
        }],
        [Service {
            cidr_vips: vec!["/10.2.0.0/16".parse().unwrap(), "/fd01::/64".parse().unwrap()],
            ..service("web", &["/10.1.0.1"])
        }],
        [policy("default", "n", Scope::Namespace), policy("root", "g", Scope::Global)],
    );
    let mut editor = full.edit();
    assert!(editor.remove_workload("Kubernetes//Pod/default/a"));
    assert!(editor.remove_service(&key("web")));
    assert!(editor.remove_policy("default/n"));
    assert!(editor.remove_policy("root/g"));
    assert!(!editor.remove_workload("Kubernetes//Pod/default/a"));
    assert!(!editor.remove_service(&key("web")));
    assert!(!editor.remove_policy("root/g"));
    let empty = editor.finish();
    assert!(empty.workloads.is_empty() && empty.by_address.is_empty() && empty.by_pod.is_empty());
    assert!(empty.by_workload_hostname.is_empty());
    assert!(
        empty.cidr_vips.is_empty()
            && empty.services.is_empty()
            && empty.by_vip.is_empty()
            && empty.by_hostname.is_empty()
    );
    assert!(empty.endpoints.is_empty() && empty.policies.is_empty());
    assert!(empty.global_policies.is_empty() && empty.namespace_policies.is_empty());
    assert!(empty.service_by_vip(&address("/10.2.0.1"), "").is_none());
}

#[test]
fn who_a_virtual_address_means() {
    let named = |namespace: &str, name: &str, vip: &str, canonical| Service {
        namespace: namespace.into(),
        canonical,
        ..service(name, &[vip])
    };
    let ranged = |namespace: &str, name: &str, cidr: &str, canonical| Service {
        namespace: namespace.into(),
        canonical,
        cidr_vips: vec![cidr.parse().unwrap()],
        ..service(name, &[])
    };
    let private =
        Service { visibility: Visibility::Namespace, ..named("hidden", "private", "/10.1.0.1", true) };
    let current = snapshot(
        [],
        [
            named("a", "plain", "/10.1.0.1", false),
            named("b", "canonical", "/10.1.0.1", true),
            named("c", "own", "/10.1.0.1", false),
            private,
            ranged("a", "wide", "/10.0.0.0/8", true),
            ranged("b", "narrow", "/10.1.0.0/16", false),
            ranged("c", "narrow-canonical", "/10.1.0.0/16", true),
            ranged("d", "own-wide", "/10.0.0.0/8", false),
            Service { visibility: Visibility::Namespace, ..ranged("e", "secret", "/10.1.2.0/24", true) },
            ranged("a", "six", "/fd00::/16", false),
        ],
        [],
    );
    for (vip, client, expected) in [
        ("/10.1.0.1", "x", Some("canonical")),
        ("/10.1.0.1", "c", Some("own")),
        ("/10.1.0.1", "a", Some("plain")),
        ("/10.1.0.1", "hidden", Some("private")),
        ("/10.1.2.3", "x", Some("narrow-canonical")),
        ("/10.1.2.3", "b", Some("narrow")),
        ("/10.1.2.3", "d", Some("own-wide")),
        ("/10.1.2.3", "e", Some("secret")),
        ("/10.9.0.1", "x", Some("wide")),
        ("/fd00::9", "x", Some("six")),
        ("/192.0.2.1", "x", None),
        ("east/10.1.0.1", "x", None),
        ("east/10.1.2.3", "x", None),
    ] {
        let found = current.service_by_vip(&address(vip), client).map(|service| &*service.name);
        assert_eq!(found, expected, "{vip} from {client}");
    }
}

#[test]
fn who_a_hostname_means() {
    let named = |namespace: &str, hostname: &str, canonical, visibility| Service {
        namespace: namespace.into(),
        hostname: hostname.into(),
        canonical,
        visibility,
        ..service(namespace, &[])
    };
    let workload = |name: &str, hostname: &str| Workload { hostname: hostname.into(), ..pod(name, &[]) };
    let current = snapshot(
        [workload("one", "DB.example"), workload("two", "db.example"), pod("none", &[])],
        [
            named("a", "api.example", false, Visibility::Public),
            named("b", "Api.Example", true, Visibility::Public),
            named("c", "api.example", false, Visibility::Namespace),
            named("a", "*.wild.example", true, Visibility::Public),
        ],
        [],
    );
    for (hostname, client, expected) in [
        ("api.example", "x", Some("b")),
        ("API.example", "a", Some("a")),
        ("api.example", "c", Some("c")),
        ("*.wild.example", "x", Some("a")),
        ("a.wild.example", "x", None),
        ("example", "x", None),
    ] {
        let found = current.service_by_hostname(hostname, client).map(|service| &*service.name);
        assert_eq!(found, expected, "{hostname} from {client}");
    }
    let names = |hostname| current.workloads_by_hostname(hostname).map(|w| &*w.name).collect::<Vec<_>>();
    assert_eq!(names("db.EXAMPLE"), ["one", "two"]);
    assert!(names("").is_empty());
    let mut editor = current.edit();
    editor.insert_workload(workload("one", "other.example"));
    let after = editor.finish();
    assert_eq!(after.workloads_by_hostname("db.example").count(), 1);
    assert_eq!(after.workloads_by_hostname("other.example").count(), 1);
}

#[test]
fn an_edit_shares_what_it_does_not_change() {
    let many = (0..20_000_u32).map(|n| {
        let [a, b, c, d] = (0x0a00_0000 + n).to_be_bytes();
        pod(&format!("p{n}"), &[&format!("{a}.{b}.{c}.{d}")]).serving("web", [(80, 8080)])
    });
    let ranged = Service { cidr_vips: vec!["/240.0.0.0/8".parse().unwrap()], ..service("wild", &[]) };
    let before = snapshot(many, [service("web", &["/10.255.0.1"]), ranged], []);
    let mut editor = before.edit();
    editor.insert_workload(pod("p7", &["10.200.0.7"]).serving("web", [(80, 8080)]));
    editor.insert_service(service("web", &["/10.255.0.2"]));
    let after = editor.finish();
    let (mut shared, mut other) = (0, 0);
    for workload in before.workloads() {
        let now = after.workload(&workload.uid).unwrap();
        *(if Arc::ptr_eq(workload, now) { &mut shared } else { &mut other }) += 1;
    }
    assert_eq!((shared, other), (19_999, 1));
}

#[test]
fn a_thousand_edits_of_a_large_mesh_cost_little() {
    let many = (0..50_000_u32).map(|n| {
        let [a, b, c, d] = (0x0a00_0000 + n).to_be_bytes();
        pod(&format!("p{n}"), &[&format!("{a}.{b}.{c}.{d}")]).serving("web", [(80, 8080)])
    });
    let mut current = snapshot(many, [service("web", &[])], []);
    let started = std::time::Instant::now();
    for n in 0..1000 {
        let mut editor = current.edit();
        editor.insert_workload(pod(&format!("q{n}"), &["10.250.0.1"]).serving("web", [(80, 8080)]));
        current = editor.finish();
    }
    // Copying 50,000 entries a thousand times would take many times this.
    assert!(started.elapsed() < std::time::Duration::from_secs(10), "{:?}", started.elapsed());
}
