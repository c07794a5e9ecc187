use mesh::policy::{Action, Clause, Match, Rule, Scope, StringMatch};
use mesh::service::{HealthPolicy, IpFamilies, LoadBalancerMode};
use mesh::workload::{GatewayDestination, Health, NetworkMode, Protocol, WorkloadType};

use super::*;

mod watching;

const WHOLE: &str = r#"
trustDomain: example.org
workloads:
- uid: cluster1//v1/Pod/default/local
  name: local
  namespace: default
  serviceAccount: account
  workloadIps: ["127.0.0.9", "fd00::9"]
  protocol: HBONE
  node: node-a
  network: ""
  workloadType: cronjob
  networkMode: HostNetwork
  status: Unhealthy
  capacity: 7
  authorizationPolicies: [default/deny-9999]
  waypoint: {destination: default/waypoint.example, hboneMtlsPort: 15009}
  networkGateway: {destination: east/192.0.2.1}
  locality: {region: r1, zone: z1}
  applicationTunnel: {protocol: PROXY, port: 15088}
  services:
    default/example.com:
      80: 8080
      "12345": "9999"
- {name: bare, namespace: team}
services:
- name: example
  namespace: default
  hostname: example.com
  vips: [/127.10.0.1, east/127.10.0.2]
  cidrVips: [{network: "", cidr: 240.0.1.0/24}]
  ports: {80: 8080, 81: 0}
  subjectAltNames: ["spiffe://cluster.local/ns/default/sa/extra"]
  waypoint: {destination: /10.0.0.1, hboneMtlsPort: 15008}
  weightedWaypoints: [{destination: /10.0.0.2, weight: 3}]
  loadBalancer: {mode: Failover, routingPreferences: [Network, Zone], healthPolicy: AllowAll}
  ipFamilies: IPv4
  canonical: true
policies:
- action: Allow
  name: deny-9999
  namespace: default
  scope: WorkloadSelector
  dryRun: true
  rules:
  - - - notDestinationPorts: [9999]
        principals: [{Presence: []}, {Exact: cluster.local/ns/default/sa/a}]
        sourceIps: [10.0.0.0/8, 192.0.2.1]
        serviceAccounts: [{namespace: default, serviceAccount: sleep}]
enroll:
- {name: local, namespace: default, serviceAccount: account, netns: /run/netns/x}
- {name: bare, namespace: team}
ca: {dir: /var/lib/culvert/ca, ttl: 90m}
"#;

#[test]
fn every_word_is_understood() {
    let file = MeshFile::parse(WHOLE).unwrap();
    let [local, bare] = &file.workloads[..] else { panic!("{file:?}") };
    assert_eq!(&*local.uid, "cluster1//v1/Pod/default/local");
    assert_eq!(local.identity().to_string(), "spiffe://example.org/ns/default/sa/account");
    assert_eq!(local.addresses.len(), 2);
    assert_eq!((local.protocol, local.status), (Protocol::Hbone, Health::Unhealthy));
    assert_eq!((local.network_mode, local.workload_type), (NetworkMode::HostNetwork, WorkloadType::CronJob));
    assert_eq!((local.capacity, &*local.locality.zone, &*local.locality.subzone), (7, "z1", ""));
    let waypoint = local.waypoint.as_ref().unwrap();
    assert_eq!(waypoint.hbone_mtls_port, 15009);
    assert!(matches!(waypoint.destination, GatewayDestination::Hostname(_)));
    let gateway = local.network_gateway.as_ref().unwrap();
    assert_eq!(gateway.hbone_mtls_port, 15008);
    assert!(matches!(gateway.destination, GatewayDestination::Address(_)));
    assert_eq!(local.application_tunnel.unwrap().port, Some(15088));
    let served = &local.services[&"default/example.com".parse().unwrap()];
    assert_eq!(*served, mesh::SortedMap::from([(80, 8080), (12345, 9999)]));

    assert_eq!(&*bare.uid, "Kubernetes//Pod/team/bare");
    assert_eq!(bare.identity().to_string(), "spiffe://example.org/ns/team/sa/default");
    assert_eq!((bare.protocol, bare.capacity, &*bare.cluster_id), (Protocol::Tcp, 1, "Kubernetes"));

    let service = &file.services[0];
    assert_eq!((service.vips.len(), service.cidr_vips.len()), (2, 1));
    assert_eq!(service.ports, mesh::SortedMap::from([(80, 8080), (81, 0)]));
    assert_eq!(service.weighted_waypoints[0].weight, 3);
    assert_eq!(service.load_balancer.mode, LoadBalancerMode::Failover);
    assert_eq!(service.load_balancer.preferences.len(), 2);
    assert_eq!(service.load_balancer.health_policy, HealthPolicy::AllowAll);
    assert_eq!((service.ip_families, service.canonical), (IpFamilies::Ipv4Only, true));

    let policy = &file.policies[0];
    assert_eq!((policy.action, policy.scope, policy.dry_run), (Action::Allow, Scope::WorkloadSelector, true));
    let condition = &policy.rules[0].clauses[0].matches[0];
    assert_eq!(condition.not_destination_ports, [9999]);
    assert_eq!(condition.principals[0], StringMatch::Presence);
    assert_eq!(condition.source_ips[1].to_string(), "192.0.2.1/32");
    assert_eq!(&*condition.service_accounts[0].name, "sleep");

    assert_eq!(file.enroll[0].netns.as_deref(), Some("/run/netns/x".as_ref()));
    assert_eq!(file.enroll[1].netns, None);
    let ca = file.ca.unwrap();
    assert_eq!((ca.dir.to_str(), ca.ttl), (Some("/var/lib/culvert/ca"), Duration::from_secs(5400)));
    assert_eq!(&*file.trust_domain, "example.org");
}

#[test]
fn an_empty_mesh_is_said_so() {
    for text in ["{}", "workloads: []\n"] {
        let file = MeshFile::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!((file.workloads.len(), &*file.trust_domain), (0, "cluster.local"));
    }
}

#[test]
fn a_file_that_was_cut_short_is_not_an_empty_mesh() {
    for text in [
        "",
        "\n\n",
        "# nothing yet\n",
        "---\n",
        "null\n",
        "~",
        "workloads:\n",
        "enroll:\n",
        "policies: null\n",
    ] {
        let error = MeshFile::parse(text).expect_err(text);
        assert!(error.line == 1 && error.message.contains("[]"), "{text:?}: {error}");
    }
}

#[test]
fn rules_that_match_all_and_nothing() {
    let rules = |text: &str| {
        let file =
            format!("policies: [{{name: p, namespace: n, scope: Global, action: Deny, rules: {text}}}]");
        MeshFile::parse(&file).unwrap().policies[0].rules.clone()
    };
    assert_eq!(rules("[]"), []);
    assert_eq!(rules("[[]]"), [Rule::default()]);
    assert_eq!(rules("[[[]]]"), [Rule { clauses: vec![Clause::default()] }]);
    let empty = Clause { matches: vec![Match::default()] };
    assert_eq!(rules("[[[{}]]]"), [Rule { clauses: vec![empty] }]);
}

#[test]
fn a_dump_in_json_lists_endpoints_with_the_service() {
    let text = r#"{
      "workloads": [{"uid": "u1", "name": "w", "namespace": "n", "services": ["n/s.example"]}],
      "services": [{"name": "s", "namespace": "n", "hostname": "s.example", "ports": {"80": 8080},
        "endpoints": {"u1": {"workloadUid": "u1", "port": {"80": 9090}, "status": "Healthy"},
                      "gone": {"workloadUid": "gone", "port": {}, "status": "Healthy"}}}]}"#;
    let file = MeshFile::parse(text).unwrap();
    assert_eq!(
        file.workloads[0].services[&"n/s.example".parse().unwrap()],
        mesh::SortedMap::from([(80, 9090)])
    );
}

#[test]
fn errors_name_the_line_and_the_thing() {
    let workload = |field: &str| format!("workloads:\n- name: a\n  namespace: b\n  {field}\n");
    let policy = |rules: &str| {
        format!(
            "policies:\n- name: p\n  namespace: n\n  scope: Global\n  action: Deny\n  rules:\n  {rules}\n"
        )
    };
    let service = |field: &str| format!("services:\n- name: s\n  namespace: n\n  hostname: h\n  {field}\n");
    for (text, line, words) in [
        ("worloads: []\n".to_owned(), 1, "worloads"),
        ("workloads: [\n".to_owned(), 1, "unclosed"),
        ("workloads: 7\n".to_owned(), 1, "sequence"),
        (workload("adress: x"), 4, "adress"),
        (workload("workloadIps: [10.0.0.1, 10.0.0.256]"), 4, "`10.0.0.256` is not an IP address"),
        (workload("protocol: HBON"), 4, "`HBON` is not TCP or HBONE"),
        (workload("serviceAccount: a/b"), 4, "`a/b` is not a name"),
        (workload("serviceAccount: ''"), 4, "`` is not a name"),
        (workload("services: {n/h: {0: 80}}"), 4, "`0` is not a port"),
        (workload("services: {n/h: {80: 65536}}"), 4, "`65536` is not a target port"),
        (workload("services: {h: {80: 80}}"), 4, "`h` is not a hostname in a namespace"),
        (workload("waypoint: {destination: x}"), 4, "`x` is not the place of a gateway"),
        (workload("authorizationPolicies: [x]"), 4, "`x` is not a policy"),
        ("workloads:\n- namespace: b\n".to_owned(), 2, "name"),
        (
            "workloads:\n- {name: a, namespace: b}\n- {name: a, namespace: b}\n".to_owned(),
            3,
            "Kubernetes//Pod/b/a is there twice",
        ),
        (service("vips: [10.0.0.1]"), 5, "`10.0.0.1` is not an address on a network"),
        (service("subjectAltNames: [me]"), 5, "`me` is not an identity"),
        (service("loadBalancer: {mode: Best}"), 5, "`Best` is not Standard"),
        (policy("- - - destinationPorts: [0]"), 7, "`0` is not a port"),
        (policy("- - - principal: [{Exact: x}]"), 7, "principal"),
        (policy("- - - principals: [{Exactly: x}]"), 7, "Exactly"),
        (policy("- - - principals: []"), 7, "this list is empty"),
        (policy("- - - destinationPorts: [80]\n        principals:\n"), 8, "this list is empty"),
        (policy("- - - sourceIps: [10.0.0.0/33]"), 7, "`10.0.0.0/33` is not an IP address or a range"),
        (
            "policies:\n- {name: p, namespace: n, scope: Global, action: Audit}\n".to_owned(),
            2,
            "`Audit` is not Allow or Deny",
        ),
        (
            "enroll:\n- {name: p, namespace: n, netns: /x, container: y}\n".to_owned(),
            2,
            "both netns and container",
        ),
        (
            "enroll:\n- {name: p, namespace: n}\n- {name: p, namespace: n}\n".to_owned(),
            3,
            "n/p is enrolled twice",
        ),
        ("ca: {dir: /x, ttl: soon}\n".to_owned(), 1, "`soon` is not a length of time"),
        ("ca: {dir: /x, ttl: 0h}\n".to_owned(), 1, "`0h` is not a length of time"),
    ] {
        let error = MeshFile::parse(&text).expect_err(&text);
        assert!(error.message.contains(words), "{text}: {error}");
        assert_eq!(error.line, line, "{text}: {error}");
        assert!(!error.message.contains('\n'), "{text}: {error}");
    }
}

#[test]
fn a_large_mesh_is_read() {
    use std::fmt::Write;
    let mut text = String::from("workloads:\n");
    for n in 0..20_000 {
        writeln!(text, "- {{name: p{n}, namespace: d, workloadIps: [10.1.{}.{}], protocol: HBONE, services: {{d/h: {{80: 80}}}}}}", n / 256, n % 256).unwrap();
    }
    assert_eq!(MeshFile::parse(&text).unwrap().workloads.len(), 20_000);
}

#[test]
fn the_readme_shows_a_file_that_is_good() {
    let readme = include_str!("../../../README.md");
    let yaml = readme.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let file = MeshFile::parse(yaml).unwrap();
    assert_eq!(
        (file.enroll.len(), file.workloads.len(), file.services.len(), file.policies.len()),
        (2, 2, 1, 1)
    );
}

/// What the fast reader takes means the same to the other one, and what it does not take is told in the other one's words.
#[test]
fn a_file_in_json_means_what_it_means_in_yaml() {
    let json = r#"{"trustDomain": "td.example", "workloads": [
        {"uid": "c//Pod/n/a", "name": "a", "namespace": "n", "workloadIps": ["10.0.0.1", "2001:db8::1"], "protocol": "HBONE",
         "waypoint": {"destination": "/10.0.0.9", "hboneMtlsPort": 15008}, "services": {"n/s.example": {"80": 8080, "443": "0"}}}],
        "services": [{"name": "s", "namespace": "n", "hostname": "s.example", "vips": ["/10.96.0.1"], "ports": {"80": 80}}],
        "policies": [], "enroll": [{"name": "a", "namespace": "n"}]}"#;
    let read = MeshFile::parse(json).unwrap();
    // A comment is nothing that JSON has.
    assert_eq!(read, MeshFile::parse(&format!("# the same\n{json}")).unwrap());
    assert_eq!(read.workloads[0].services.iter().next().unwrap().1.get(&443), Some(&0));
    for (from, to, told) in [
        ("\"enroll\": [{", "\"enroll\": [{\"name\": \"a\", \"namespace\": \"n\"}, {", "enrolled twice"),
        ("\"HBONE\"", "\"HBONED\"", "HBONED"),
        ("\"policies\": []", "\"policys\": []", "policys"),
    ] {
        let error = MeshFile::parse(&json.replacen(from, to, 1)).unwrap_err();
        assert!(error.message.contains(told) && error.line > 0, "{to}: {error}");
    }
}
