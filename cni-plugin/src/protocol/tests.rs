use super::*;

fn request() -> Request {
    Request {
        version: VERSION,
        command: Command::Add,
        container_id: "c1".into(),
        netns: "/run/netns/x".into(),
        ifname: "eth0".into(),
        pod: Some(PodName { name: "sleep".into(), namespace: "default".into(), uid: None }),
        ips: vec!["10.1.1.2".parse().unwrap(), "2001:db8::2".parse().unwrap()],
        annotations: BTreeMap::new(),
        network: "n".into(),
        valid: Vec::new(),
    }
}

#[test]
fn a_request_survives_the_way_and_has_the_agreed_words() {
    let bytes = request().encode().unwrap();
    assert_eq!(Request::decode(&bytes).unwrap(), request());
    let text = String::from_utf8(bytes).unwrap();
    for word in [r#""version":1"#, r#""command":"add""#, r#""containerId":"c1""#, r#""ips":["10.1.1.2","#] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[test]
fn responses_have_the_agreed_words() {
    let done = Response::done(Outcome::NotAmbient).encode().unwrap();
    assert_eq!(String::from_utf8(done).unwrap(), r#"{"version":1,"outcome":"notAmbient"}"#);
    let failed = Response::failed(11, "try again", "busy").encode().unwrap();
    assert_eq!(
        String::from_utf8(failed).unwrap(),
        r#"{"version":1,"error":{"code":11,"msg":"try again","details":"busy"}}"#
    );
}

#[test]
fn garbage_is_told_by_its_kind() {
    let told = |bytes: &[u8]| Request::decode(bytes).unwrap_err().to_string();
    assert!(told(b"").contains("not a message of the enrolment protocol"));
    assert!(told(b"\xff\xfe").contains("not a message"));
    assert!(told(br#"{"version":2}"#).contains("protocol version 2, this side speaks 1"));
    assert!(told(br#"{"version":1,"command":"format"}"#).contains("format"));
    assert!(told(&vec![b' '; MAX_MESSAGE + 1]).contains("at most 65536"));
    let neither = Response::decode(br#"{"version":1}"#).unwrap();
    assert!(matches!(neither.into_result(), Err(ProtocolError::Ambiguous)));
}

#[test]
fn fields_of_a_later_release_are_ignored() {
    let bytes = br#"{"version":1,"outcome":"enrolled","tookMs":7}"#;
    assert_eq!(Response::decode(bytes).unwrap(), Response::done(Outcome::Enrolled));
}

#[test]
fn a_request_of_an_earlier_release_is_understood() {
    let bytes = br#"{"version":1,"command":"del","containerId":"c","netns":"","ifname":"eth0","pod":null}"#;
    let request = Request::decode(bytes).unwrap();
    assert_eq!((request.network.as_str(), request.annotations.len(), request.valid.len()), ("", 0, 0));
}

#[test]
fn of_annotations_only_those_of_a_mesh_are_passed_on() {
    let long = "\u{e9}".repeat(40_000);
    let all = [
        ("sidecar.istio.io/status", long.as_str()),
        ("ambient.istio.io/redirection", "enabled"),
        ("istio.io/reroute-virtual-interfaces", "tap0"),
        ("kubectl.kubernetes.io/last-applied-configuration", &long),
        ("notistio.io/a", "b"),
        ("istio.io.example/a", "b"),
    ];
    let all = all.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let kept = mesh_annotations(all);
    let keys: Vec<&str> = kept.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        ["ambient.istio.io/redirection", "istio.io/reroute-virtual-interfaces", "sidecar.istio.io/status"]
    );
    assert_eq!(kept["sidecar.istio.io/status"].len(), 256);
    // Each of these is six bytes on the wire.
    let long = "\u{1}".repeat(1000);
    let many = (0..1000).map(|i| (format!("a{i}.istio.io/b"), long.clone())).collect();
    let request = Request { annotations: mesh_annotations(many), ..request() };
    assert!(request.encode().is_ok(), "whatever a pod is annotated with, its request fits into a message");
}
