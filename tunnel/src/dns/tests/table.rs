//! One row a question: what it is, who asks what, and what becomes of it.

use hickory_proto::rr::RecordType;

use super::world::World;
use crate::dns::host::Host;
use crate::dns::resolve::{Answer, Data, Resolution};

/// The outcome as text, in an order of its own: `ALIAS: ADDRESS ...`, `none in ZONE`, `forward`, `forward (ZONE)`.
fn outcome(world: &World, asked: &str, kind: RecordType) -> String {
    let asked = Host::parse(asked).unwrap_or_else(|| panic!("{asked} is no name"));
    match world.asker(7).resolve(&asked, kind) {
        Resolution::Forward { known: None } => "forward".to_owned(),
        Resolution::Forward { known: Some(zone) } => format!("forward ({zone})"),
        Resolution::Answer(Answer { alias, data, glue, zone }) => {
            let alias = alias.map(|alias| format!("{alias}: ")).unwrap_or_default();
            let mut records: Vec<_> = data.iter().map(text).collect();
            records.sort();
            let mut glue: Vec<_> = glue.iter().map(|(host, address)| format!("{host}={address}")).collect();
            glue.sort();
            if records.is_empty() {
                return format!("{alias}none in {zone}");
            }
            records.extend(glue);
            format!("{alias}{}", records.join(" "))
        }
    }
}

fn text(data: &Data) -> String {
    match data {
        Data::Address(address) => address.to_string(),
        Data::Port { port, weight, target } => format!("{port}*{weight}@{target}"),
    }
}

fn check(world: &World, rows: &[(&str, &str, RecordType, &str)]) {
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|(what, asked, kind, expected)| {
            let found = outcome(world, asked, *kind);
            (found != *expected)
                .then(|| format!("{what}: {asked} {kind}\n  expected {expected}\n  found    {found}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

use RecordType::{A, AAAA, ANY, CAA, HTTPS, MX, PTR, SRV, SVCB, TXT};

#[test]
fn addresses_of_services() {
    check(
        &World::new(),
        &[
            ("a service by its full name", "reviews.bookinfo.svc.cluster.local", A, "10.96.213.85"),
            ("with the final dot", "reviews.bookinfo.svc.cluster.local.", A, "10.96.213.85"),
            ("in capitals", "REVIEWS.Bookinfo.svc.cluster.local", A, "10.96.213.85"),
            ("a family it has not", "reviews.bookinfo.svc.cluster.local", AAAA, "none in cluster.local"),
            ("a service of two families, the first", "dual.bookinfo.svc.cluster.local", A, "10.96.84.41"),
            (
                "a service of two families, the second",
                "dual.bookinfo.svc.cluster.local",
                AAAA,
                "fd00:96::ce36",
            ),
            ("both families", "dual.bookinfo.svc.cluster.local", ANY, "10.96.84.41 fd00:96::ce36"),
            ("of another namespace", "cart.shop.svc.cluster.local", A, "10.96.132.90"),
            ("a ServiceEntry", "mysql.corp.example", A, "240.0.0.9"),
            ("a ServiceEntry, a family it has not", "mysql.corp.example", AAAA, "none in mysql.corp.example"),
            ("automatic addresses", "api.external.example", AAAA, "2001:2::1"),
            ("a host that the mesh writes in capitals", "mixed.case.example", A, "240.240.0.2"),
            ("only addresses on the client's network", "split.example", A, "240.240.4.1"),
            (
                "a service of another network alone",
                "remote.bookinfo.svc.cluster.local",
                A,
                "none in cluster.local",
            ),
        ],
    );
}

#[test]
fn addresses_of_endpoints_and_workloads() {
    check(
        &World::new(),
        &[
            (
                "ready endpoints here, of the service's family",
                "headless.bookinfo.svc.cluster.local",
                A,
                "10.1.0.20 10.1.1.21",
            ),
            (
                "none of the other family",
                "headless.bookinfo.svc.cluster.local",
                AAAA,
                "none in cluster.local",
            ),
            (
                "endpoints that are not ready, where the service wants them",
                "eager.bookinfo.svc.cluster.local",
                A,
                "10.1.0.31",
            ),
            (
                "endpoints that are not ready, otherwise",
                "strict.bookinfo.svc.cluster.local",
                A,
                "none in cluster.local",
            ),
            ("no endpoints at all", "empty.bookinfo.svc.cluster.local", A, "none in cluster.local"),
            ("endpoints outside of Kubernetes", "bare.corp.example", A, "203.0.113.31 203.0.113.32"),
            ("one endpoint by its address", "203-0-113-31.bare.corp.example", A, "203.0.113.31"),
            (
                "one endpoint of the other family",
                "2001-db8-0-0-0-0-0-32.bare.corp.example",
                AAAA,
                "2001:db8::32",
            ),
            ("an address that is no endpoint", "203-0-113-99.bare.corp.example", A, "forward"),
            (
                "one endpoint of a headless service",
                "10-1-0-20.headless.bookinfo.svc.cluster.local",
                A,
                "10.1.0.20",
            ),
            (
                "a pod by its hostname, which the mesh does not know",
                "web-0.headless.bookinfo.svc.cluster.local",
                A,
                "forward",
            ),
            ("endpoints that have names only", "byname.corp.example", A, "forward"),
            ("a workload's hostname", "vm.hosts.example", A, "203.0.113.41 203.0.113.42"),
            ("a workload's hostname, IPv6", "vm.hosts.example", AAAA, "fd00:9::2"),
            ("a workload that has a name only", "edge.external.example", A, "forward"),
            ("a workload of another network", "far.hosts.example", A, "forward"),
            ("a workload that is not ready", "down.hosts.example", A, "none in down.hosts.example"),
        ],
    );
}

#[test]
fn hosts_with_a_wildcard() {
    check(
        &World::new(),
        &[
            ("a name that the pattern covers", "a.example.org", A, "240.240.1.1"),
            ("at any depth", "a.b.c.example.org", A, "240.240.1.1"),
            ("the longest pattern", "a.deep.example.org", A, "240.240.1.2"),
            ("the exact name before any pattern", "exact.example.org", A, "240.240.1.3"),
            ("a pattern covers what is below an exact name", "a.exact.example.org", A, "240.240.1.1"),
            ("not the domain itself", "example.org", A, "forward"),
            ("a family it has not", "a.example.org", AAAA, "none in example.org"),
            ("services that are passed through have real addresses", "a.wild.example", A, "forward"),
            ("and real hints", "a.wild.example", HTTPS, "forward"),
            ("an address of a virtual range", "a.static.example", A, "240.0.2.1"),
            ("an address of a virtual range, IPv6", "a.static.example", AAAA, "fd02::"),
            ("below an exact name without a pattern", "www.mysql.corp.example", A, "forward"),
        ],
    );
}

#[test]
fn who_asks() {
    for (what, namespace, asked, expected) in [
        ("the client's namespace before others", "bookinfo", "twice.example", "240.240.2.1"),
        ("the canonical one for all others", "shop", "twice.example", "240.240.2.2"),
        ("a private name, from its namespace", "vm", "secret.example", "240.240.3.1"),
        ("a private name, from outside", "bookinfo", "secret.example", "forward"),
        ("a short name in its namespace", "bookinfo", "reviews", "10.96.213.85"),
        ("a short name in another namespace", "shop", "reviews", "forward"),
    ] {
        check(&World::of(namespace), &[(what, asked, A, expected)]);
    }
    let elsewhere = World { network: "east", ..World::new() };
    check(
        &elsewhere,
        &[
            ("the addresses of the client's network", "split.example", A, "240.240.4.2"),
            ("its endpoints", "headless.bookinfo.svc.cluster.local", A, "10.1.0.99"),
            ("its workloads", "far.hosts.example", A, "203.0.113.43"),
        ],
    );
    let only_ipv4 = World { ipv6: false, ..World::new() };
    check(
        &only_ipv4,
        &[
            ("IPv6 off", "dual.bookinfo.svc.cluster.local", AAAA, "none in cluster.local"),
            ("IPv6 off, all there is", "dual.bookinfo.svc.cluster.local", ANY, "10.96.84.41"),
            ("IPv6 off, unknown names", "unknown.example", AAAA, "forward"),
            (
                "IPv6 off, beside ports",
                "api.external.example",
                SRV,
                "443*100@api.external.example api.external.example=240.240.0.1",
            ),
        ],
    );
}

#[test]
fn short_names_and_search_lists() {
    check(
        &World::new(),
        &[
            ("a name without dots", "reviews", A, "10.96.213.85"),
            ("name and namespace", "reviews.bookinfo", A, "10.96.213.85"),
            ("with svc", "reviews.bookinfo.svc", A, "10.96.213.85"),
            ("a short name of another namespace", "cart.shop", A, "10.96.132.90"),
            ("a short name without that type", "reviews", AAAA, "none in cluster.local"),
            (
                "the first attempt of a library for name and namespace",
                "cart.shop.bookinfo.svc.cluster.local",
                A,
                "cart.shop.svc.cluster.local: 10.96.132.90",
            ),
            (
                "its first attempt for a name outside of Kubernetes",
                "api.external.example.bookinfo.svc.cluster.local",
                AAAA,
                "api.external.example: 2001:2::1",
            ),
            ("its second", "api.external.example.svc.cluster.local", A, "api.external.example: 240.240.0.1"),
            ("its third", "api.external.example.cluster.local", A, "api.external.example: 240.240.0.1"),
            (
                "its attempt for a family that is not there",
                "mysql.corp.example.bookinfo.svc.cluster.local",
                AAAA,
                "mysql.corp.example: none in mysql.corp.example",
            ),
            (
                "its attempt under a pattern",
                "a.example.org.svc.cluster.local",
                A,
                "a.example.org: 240.240.1.1",
            ),
            ("its attempt for what is passed through", "a.wild.example.svc.cluster.local", A, "forward"),
            (
                "its attempt for a name with as many dots as ndots",
                "a.b.c.d.e.example.org.svc.cluster.local",
                A,
                "forward",
            ),
            ("its attempt for mail", "mysql.corp.example.bookinfo.svc.cluster.local", MX, "forward"),
            (
                // The cluster's DNS knows pods by their hostnames; `web-0.nginx` is a service, too, but a later attempt.
                "a pod's hostname is not overtaken by a service of like name",
                "web-0.nginx.bookinfo.svc.cluster.local",
                A,
                "forward",
            ),
            ("not even as a short name", "web-0.nginx", A, "forward"),
            ("nobody", "nobody.bookinfo.svc.cluster.local", A, "forward"),
            ("nobody, as a library tries", "nobody.svc.cluster.local", A, "forward"),
        ],
    );
    check(
        &World::with("search corp.example\noptions ndots:2\n"),
        &[
            ("the pod's own list", "mysql", A, "240.0.0.9"),
            ("not the one of Kubernetes", "reviews", A, "forward"),
            ("nor its suffixes", "api.external.example.svc.cluster.local", A, "forward"),
            ("its own suffix", "twice.example.corp.example", A, "twice.example: 240.240.2.1"),
            ("its own ndots", "api.external.example.corp.example", A, "forward"),
            ("full names all the same", "reviews.bookinfo.svc.cluster.local", A, "10.96.213.85"),
        ],
    );
    check(
        &World::with("nameserver 10.0.0.1\n"),
        &[("no search list", "reviews", A, "forward"), ("full names", "mysql.corp.example", A, "240.0.0.9")],
    );
}

#[test]
fn ports_and_other_types() {
    check(
        &World::new(),
        &[
            (
                "all ports of a service",
                "cart.shop.svc.cluster.local",
                SRV,
                "443*50@cart.shop.svc.cluster.local 80*50@cart.shop.svc.cluster.local cart.shop.svc.cluster.local=10.96.132.90",
            ),
            (
                "one by its number",
                "_80._tcp.cart.shop.svc.cluster.local",
                SRV,
                "80*100@cart.shop.svc.cluster.local cart.shop.svc.cluster.local=10.96.132.90",
            ),
            ("a number that it has not", "_81._tcp.cart.shop.svc.cluster.local", SRV, "forward"),
            (
                "one by its name, which the cluster's DNS knows",
                "_http._tcp.cart.shop.svc.cluster.local",
                SRV,
                "forward",
            ),
            ("datagrams", "_80._udp.cart.shop.svc.cluster.local", SRV, "forward"),
            (
                "pods by their hostnames, likewise",
                "headless.bookinfo.svc.cluster.local",
                SRV,
                "forward (cluster.local)",
            ),
            (
                "endpoints outside of Kubernetes, each with its port",
                "bare.corp.example",
                SRV,
                "8080*50@203-0-113-31.bare.corp.example 8081*50@203-0-113-32.bare.corp.example \
                 203-0-113-31.bare.corp.example=203.0.113.31 203-0-113-32.bare.corp.example=203.0.113.32",
            ),
            ("a service without ports", "exact.example.org", SRV, "none in exact.example.org"),
            (
                "ports of a short name",
                "mysql.corp.example.bookinfo.svc.cluster.local",
                SRV,
                "mysql.corp.example: 3306*100@mysql.corp.example mysql.corp.example=240.0.0.9",
            ),
            ("services that are passed through", "a.wild.example", SRV, "forward"),
            ("a name of somebody else's service", "_sip._tcp.example.com", SRV, "forward"),
            (
                "text of a name of Kubernetes",
                "reviews.bookinfo.svc.cluster.local",
                TXT,
                "none in cluster.local",
            ),
            (
                "mail of a name of Kubernetes",
                "headless.bookinfo.svc.cluster.local",
                MX,
                "none in cluster.local",
            ),
            ("mail of a host that others know", "mysql.corp.example", MX, "forward (mysql.corp.example)"),
            ("certificates of a pattern's host", "a.example.org", CAA, "forward (example.org)"),
            ("text of a workload's hostname", "vm.hosts.example", TXT, "forward (vm.hosts.example)"),
            ("ports of a workload's hostname", "vm.hosts.example", SRV, "forward (vm.hosts.example)"),
            ("no hints past the mesh", "api.external.example", HTTPS, "none in api.external.example"),
            ("nor of the other kind", "api.external.example", SVCB, "none in api.external.example"),
            ("reverse names", "10.0.1.10.in-addr.arpa", PTR, "forward"),
            ("an unknown name", "example.com", A, "forward"),
            (
                "an unknown type of a known name",
                "reviews.bookinfo.svc.cluster.local",
                RecordType::Unknown(4711),
                "none in cluster.local",
            ),
        ],
    );
}

#[test]
fn several_answers_come_in_random_order() {
    let world = World::new();
    let host = Host::parse("headless.bookinfo.svc.cluster.local").unwrap();
    let first = |seed| match world.asker(seed).resolve(&host, A) {
        Resolution::Answer(answer) => answer.data.first().cloned(),
        Resolution::Forward { .. } => None,
    };
    let firsts: std::collections::HashSet<String> = (0..64).map(|seed| text(&first(seed).unwrap())).collect();
    assert_eq!(firsts.len(), 2);
    assert_eq!(first(3), first(3));
}
