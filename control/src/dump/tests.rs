use std::collections::BTreeMap;

use mesh::Snapshot;
use serde_json::{Value, json};

use super::*;
use crate::file::MeshFile;

/// What an agent of the field's most used kind answered to `/config_dump`, in three places.
fn recorded() -> [(&'static str, String); 3] {
    [
        ("cluster", recordings::text("istiod/agent/config_dump.json").unwrap()),
        ("source node", include_str!("golden/recorded_source_node.json").to_owned()),
        ("destination node", include_str!("golden/recorded_destination_node.json").to_owned()),
    ]
}

fn snapshot(file: &MeshFile) -> Snapshot {
    let mut editor = Snapshot::default().edit();
    file.workloads.iter().for_each(|workload| editor.insert_workload(workload.clone()));
    file.services.iter().for_each(|service| editor.insert_service(service.clone()));
    file.policies.iter().for_each(|policy| editor.insert_policy(policy.clone()));
    editor.finish()
}

/// All that is shown of a mesh, under the keys of `/config_dump`.
fn shown(snapshot: &Snapshot, form: Form) -> Value {
    let workloads: Vec<_> = snapshot.workloads().map(|one| WorkloadView::new(one, form)).collect();
    let services: Vec<_> = snapshot.services().map(|one| ServiceView::new(snapshot, one, form)).collect();
    let policies: Vec<_> = snapshot.policies().map(|one| PolicyView::from(&**one)).collect();
    json!({"workloads": workloads, "services": services, "policies": policies})
}

/// The resources of a dump by their names. The order of lists that are sets says nothing.
fn by_name(dump: &Value, kind: &str) -> BTreeMap<String, Value> {
    let name = |one: &Value| {
        let parts = ["uid", "namespace", "hostname", "name"].map(|key| one[key].as_str().unwrap_or(""));
        parts.join("|")
    };
    let sorted = |one: &Value| {
        let mut one = one.clone();
        if let Some(services) = one.get_mut("services").and_then(Value::as_array_mut) {
            services.sort_by_key(Value::to_string);
        }
        one
    };
    let list = dump[kind].as_array().unwrap();
    let named: BTreeMap<_, _> = list.iter().map(|one| (name(one), sorted(one))).collect();
    assert_eq!(named.len(), list.len(), "every {kind} of a name of its own");
    named
}

#[test]
fn a_recorded_dump_is_loaded_and_shown_as_it_was() {
    for (place, text) in recorded() {
        let recorded: Value = serde_json::from_str(&text).unwrap();
        let shown = shown(&snapshot(&MeshFile::parse(&text).unwrap()), Form::Joined);
        for kind in ["workloads", "services", "policies"] {
            let (ours, theirs) = (by_name(&shown, kind), by_name(&recorded, kind));
            assert!(!theirs.is_empty(), "{place}: {kind}");
            assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{place}: {kind}");
            for (name, one) in &theirs {
                let mut our = ours[name].clone();
                // Of workloads that a file gave, the services are left out there, though they list the workload.
                if kind == "workloads" && one.get("services").is_none() && place != "cluster" {
                    our.as_object_mut().unwrap().remove("services");
                }
                assert_eq!(&our, one, "{place}: {kind}: {name}");
            }
        }
    }
}

const EVERYTHING: &str = r#"
workloads:
- uid: c//Pod/ns/a
  name: a
  namespace: ns
  trustDomain: example.org
  serviceAccount: account
  workloadIps: ["10.0.0.1", "fd00::1"]
  protocol: HBONE
  networkMode: HostNetwork
  network: east
  node: n
  hostname: a.example
  workloadName: w
  workloadType: cronjob
  canonicalName: c
  canonicalRevision: v1
  clusterId: c1
  status: Unhealthy
  capacity: 7
  authorizationPolicies: [ns/p]
  waypoint: {destination: ns/waypoint.example, hboneMtlsPort: 15009}
  networkGateway: {destination: east/192.0.2.1}
  locality: {region: r, zone: z}
  applicationTunnel: {protocol: PROXY, port: 15088}
  services: {ns/s.example: {80: 8080}, ns/later.example: {81: 0}}
services:
- name: s
  namespace: ns
  hostname: s.example
  vips: [/10.1.0.1, east/fd00::2]
  cidrVips: [{network: east, cidr: 240.0.1.0/24}]
  ports: {80: 8080, 81: 0}
  subjectAltNames: ["spiffe://cluster.local/ns/default/sa/extra"]
  waypoint: {destination: /10.0.0.1}
  weightedWaypoints: [{destination: /10.0.0.2, weight: 3}]
  loadBalancer: {mode: Strict, routingPreferences: [Cluster, Subzone], healthPolicy: AllowAll}
  ipFamilies: IPv6
  visibility: Namespace
policies:
- name: p
  namespace: ns
  scope: WorkloadSelector
  action: Deny
  dryRun: true
  rules:
  - - - namespaces: [{Exact: a}]
        notNamespaces: [{Prefix: b}]
        serviceAccounts: [{namespace: ns, serviceAccount: a}]
        notServiceAccounts: [{namespace: ns, serviceAccount: b}]
        principals: [{Suffix: c}]
        notPrincipals: [{Presence: []}]
        sourceIps: [10.0.0.0/8]
        notSourceIps: ["fd00::/8"]
        destinationIps: [10.0.0.1]
        notDestinationIps: [10.0.0.2]
        destinationPorts: [1]
        notDestinationPorts: [2]
      - {}
  - []
"#;

#[test]
fn what_is_shown_as_given_is_a_mesh_file_of_the_same_mesh() {
    let given = MeshFile::parse(EVERYTHING).unwrap();
    let again = MeshFile::parse(&shown(&snapshot(&given), Form::Given).to_string()).unwrap();
    assert_eq!((again.workloads, again.services), (given.workloads, given.services));
    assert_eq!(again.policies, given.policies);
}

#[test]
fn every_field_is_spelled_as_tools_read_it() {
    let snapshot = snapshot(&MeshFile::parse(EVERYTHING).unwrap());
    let dump = shown(&snapshot, Form::Joined);
    let workload = &dump["workloads"][0];
    for (key, value) in [
        ("waypoint", json!({"destination": "ns/waypoint.example", "hboneMtlsPort": 15009})),
        ("networkGateway", json!({"destination": "east/192.0.2.1", "hboneMtlsPort": 15008})),
        ("locality", json!({"region": "r", "zone": "z", "subzone": ""})),
        ("applicationTunnel", json!({"protocol": "PROXY", "port": 15088})),
        ("services", json!(["ns/later.example", "ns/s.example"])),
        ("workloadIps", json!(["10.0.0.1", "fd00::1"])),
        ("workloadType", json!("cronjob")),
        ("networkMode", json!("HostNetwork")),
        ("network", json!("east")),
    ] {
        assert_eq!(workload[key], value, "{key}");
    }
    let service = &dump["services"][0];
    let endpoint = json!({"workloadUid": "c//Pod/ns/a", "port": {"80": 8080}, "status": "Unhealthy"});
    for (key, value) in [
        ("cidrVips", json!([{"network": "east", "cidr": "240.0.1.0/24"}])),
        ("vips", json!(["/10.1.0.1", "east/fd00::2"])),
        ("ports", json!({"80": 8080, "81": 0})),
        ("endpoints", json!({"c//Pod/ns/a": endpoint})),
        ("weightedWaypoints", json!([{"destination": "/10.0.0.2", "hboneMtlsPort": 15008, "weight": 3}])),
        (
            "loadBalancer",
            json!({"mode": "Strict", "routingPreferences": ["Cluster", "Subzone"], "healthPolicy": "AllowAll"}),
        ),
        ("ipFamilies", json!("IPv6")),
        ("visibility", json!("Namespace")),
    ] {
        assert_eq!(service[key], value, "{key}");
    }
    assert_eq!(dump["policies"][0]["rules"][1], json!([]));
    assert_eq!(dump["policies"][0]["rules"][0][0][1], json!({}));
    let staged: Vec<_> = snapshot.staged().map(|(key, _)| endpoints(&snapshot, key, false)).collect();
    assert_eq!(json!(staged)[0]["c//Pod/ns/a"]["port"], json!({"81": 0}));
}
