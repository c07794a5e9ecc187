use super::*;

fn map(pairs: &[(&str, &str)]) -> Map {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

struct Case {
    namespace: &'static str,
    of_namespace: Map,
    of_pod: Map,
    annotations: Map,
    host_network: bool,
}

impl Case {
    fn new(of_namespace: &[(&str, &str)], of_pod: &[(&str, &str)]) -> Self {
        Self {
            namespace: "demo",
            of_namespace: map(of_namespace),
            of_pod: map(of_pod),
            annotations: Map::new(),
            host_network: false,
        }
    }

    fn decide(&self, selectors: &Selectors) -> Decision {
        let pod = PodFacts {
            namespace: self.namespace,
            name: "p",
            labels: &self.of_pod,
            annotations: &self.annotations,
            host_network: self.host_network,
        };
        decide(pod, &self.of_namespace, selectors, &["kube-system".to_owned()])
    }
}

const ASKS: (&str, &str) = (DATAPLANE_MODE, "ambient");
const DECLINES: (&str, &str) = (DATAPLANE_MODE, "none");
const ODD: (&str, &str) = (DATAPLANE_MODE, "sidecar");

#[test]
fn labels_decide_in_the_documented_order() {
    let no = Decision::No(Reason::NotSelected);
    let table: [(&[_], &[_], Decision); 9] = [
        (&[], &[], no),
        (&[ASKS], &[], Decision::Ambient),
        (&[], &[ASKS], Decision::Ambient),
        (&[ASKS], &[ASKS], Decision::Ambient),
        (&[ASKS], &[DECLINES], no),
        (&[DECLINES], &[ASKS], Decision::Ambient),
        (&[DECLINES], &[], no),
        // A value that nobody knows declines nothing, and asks for nothing.
        (&[ASKS], &[ODD], Decision::Ambient),
        (&[ODD], &[ODD], no),
    ];
    for (namespace, pod, expected) in table {
        let found = Case::new(namespace, pod).decide(&Selectors::default());
        assert_eq!(found, expected, "namespace {namespace:?}, pod {pod:?}");
    }
}

#[test]
fn what_cannot_be_captured_outranks_every_label() {
    let selectors = Selectors::default();
    let asking = || Case::new(&[ASKS], &[ASKS]);
    let excluded = Case { namespace: "kube-system", ..asking() };
    let host = Case { host_network: true, ..asking() };
    let sidecar = Case { annotations: map(&[(SIDECAR_STATUS, "{}")]), ..asking() };
    assert_eq!(excluded.decide(&selectors), Decision::No(Reason::ExcludedNamespace));
    assert_eq!(host.decide(&selectors), Decision::No(Reason::HostNetwork));
    assert_eq!(sidecar.decide(&selectors), Decision::No(Reason::Sidecar));
    let both = Case { host_network: true, namespace: "kube-system", ..asking() };
    assert_eq!(both.decide(&selectors), Decision::No(Reason::ExcludedNamespace));
    let emptied = Case { annotations: map(&[(SIDECAR_STATUS, "")]), ..asking() };
    assert_eq!(emptied.decide(&selectors), Decision::Ambient);
}

fn selectors(text: &str) -> Selectors {
    serde_json::from_str(text).unwrap()
}

#[test]
fn selectors_of_the_mesh_replace_the_labels() {
    let chosen = selectors(
        r#"[{"podSelector":{"matchLabels":{"tier":"web"}},
             "namespaceSelector":{"matchExpressions":[{"key":"team","operator":"In","values":["a","b"]}]}},
            {"podSelector":{"matchExpressions":[{"key":"mesh","operator":"Exists"},
                                                {"key":"legacy","operator":"DoesNotExist"}]}}]"#,
    );
    chosen.check().unwrap();
    let is = |namespace: &[_], pod: &[_]| Case::new(namespace, pod).decide(&chosen).is_ambient();
    assert!(is(&[("team", "a")], &[("tier", "web")]));
    assert!(!is(&[("team", "c")], &[("tier", "web")]));
    assert!(!is(&[("team", "a")], &[("tier", "db")]));
    assert!(is(&[], &[("mesh", "")]));
    assert!(!is(&[], &[("mesh", ""), ("legacy", "1")]));
    assert!(!is(&[ASKS], &[ASKS]));
}

#[test]
fn an_empty_selector_matches_everything_and_no_selector_nothing() {
    assert!(Case::new(&[], &[]).decide(&selectors("[{}]")).is_ambient());
    assert!(!Case::new(&[ASKS], &[ASKS]).decide(&selectors("[]")).is_ambient());
}

#[test]
fn selectors_that_mean_nothing_are_told() {
    let wrong = [
        r#"[{"podSelektor":{}}]"#,
        r#"[{"podSelector":{"matchLabel":{}}}]"#,
        r#"[{"podSelector":{"matchExpressions":[{"key":"a","operator":"Near","values":["b"]}]}}]"#,
        r#"{"podSelector":{}}"#,
    ];
    for text in wrong {
        assert!(serde_json::from_str::<Selectors>(text).is_err(), "{text}");
    }
    let told = |text| selectors(text).check().unwrap_err().to_string();
    let none = told(r#"[{"podSelector":{"matchExpressions":[{"key":"a","operator":"NotIn"}]}}]"#);
    assert!(none.contains("give it some"), "{none}");
    let some = told(
        r#"[{"namespaceSelector":{"matchExpressions":[{"key":"a","operator":"Exists","values":["b"]}]}}]"#,
    );
    assert!(some.contains("takes none"), "{some}");
}

#[test]
fn a_namespace_is_listed_only_if_its_own_labels_bring_its_pods_in() {
    let default = Selectors::default();
    assert!(default.select_namespace(&map(&[ASKS])));
    assert!(!default.select_namespace(&map(&[])) && !default.select_namespace(&map(&[DECLINES])));
    assert!(selectors("[{}]").select_namespace(&map(&[])));
    assert!(!selectors(r#"[{"podSelector":{"matchLabels":{"a":"b"}}}]"#).select_namespace(&map(&[ASKS])));
}

#[test]
fn the_list_says_what_is_known_without_labels() {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let mut list = AmbientList::new(set(&["demo"]), set(&["other/by-name"]), false, Selectors::default());
    assert_eq!(list.find("demo", "x"), Listed::Namespace);
    assert_eq!(list.find("other", "by-name"), Listed::Yes);
    assert_eq!(list.find("other", "x"), Listed::Unknown);
    list.complete = true;
    assert_eq!(list.find("other", "x"), Listed::No);
}

#[test]
fn the_list_survives_the_way_over_the_file_and_garbage_is_no_list() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ambient.json");
    assert!(AmbientList::read(&path).unwrap_err().to_string().contains("ambient.json"));
    let list = AmbientList::new(["demo".to_owned()].into(), [].into(), true, Selectors::default());
    list.write(&path).unwrap();
    list.write(&path).unwrap();
    assert_eq!(AmbientList::read(&path).unwrap(), list);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    let text = std::fs::read_to_string(&path).unwrap();
    for word in [r#""version":1"#, r#""namespaces":["demo"]"#, r#""pods":[]"#, r#""complete":true"#] {
        assert!(text.contains(word), "{word} in {text}");
    }
    std::fs::write(&path, r#"{"version":2,"all":"different"}"#).unwrap();
    assert!(matches!(AmbientList::read(&path), Err(ListError::Version { found: 2, .. })));
    std::fs::write(&path, r#"{"version":1,"namespaces":["#).unwrap();
    assert!(matches!(AmbientList::read(&path), Err(ListError::File { .. })));
}

#[test]
fn within_a_namespace_of_the_mesh_a_pod_is_out_only_if_no_selector_can_be_meant() {
    let none = Map::new();
    let decide = |labels: &Map, selectors: &Selectors| {
        let facts =
            PodFacts { namespace: "demo", name: "a", labels, annotations: &none, host_network: false };
        decide_within(facts, selectors, &["kube-system".to_owned()]).is_ambient()
    };
    let usual = Selectors::default();
    assert!(decide(&none, &usual) && decide(&map(&[(DATAPLANE_MODE, AMBIENT)]), &usual));
    assert!(!decide(&map(&[(DATAPLANE_MODE, NONE)]), &usual));
    let own: Selectors = serde_json::from_str(
        r#"[{"podSelector":{"matchLabels":{"tier":"web"}},"namespaceSelector":{"matchLabels":{"team":"a"}}},
            {"podSelector":{"matchLabels":{"mesh":"yes"}}}]"#,
    )
    .unwrap();
    for (labels, is_in) in [
        (map(&[("tier", "web")]), true),
        (map(&[("mesh", "yes")]), true),
        (map(&[("tier", "db")]), false),
        (none.clone(), false),
    ] {
        assert_eq!(decide(&labels, &own), is_in, "{labels:?}");
    }
}
