//! What each setting takes and what it does not.

use std::collections::BTreeSet;

use super::*;

/// Values that are taken, and such that are not.
type Tried = (&'static [&'static str], &'static [&'static str]);

const ADDRESSES: Tried = (
    &[
        "",
        "istiod.istio-system.svc:15012",
        "10.0.0.1:1",
        "[fd00::1]:15012",
        "https://istiod:443/",
        "http://localhost:80",
    ],
    &[
        "istiod",
        "istiod:",
        "istiod:0",
        "istiod:70000",
        "fd00::1:15012",
        "grpc://istiod:1",
        "a b:1",
        ":15012",
        "[x]:1",
    ],
);
const TRUSTED: Tried = (&["SYSTEM", "/etc/root.pem"], &["", "-----BEGIN PRIVATE KEY-----"]);
const HOSTNAMES: Tried = (&["", "istiod.example", "10.0.0.1", "fd00::1"], &["a b", "-/-", "a..b"]);
const NAMES: Tried = (&["", "a-1.b_C", "1.10"], &["a b", "a/b", "a\n"]);
const DOMAINS: Tried = (&["cluster.local", "td"], &["", "a b", "a..b", "spiffe://td"]);
const PATHS: Tried = (&["/a", "a b"], &[""]);
const OPTIONAL_PATHS: Tried = (&["", "/a"], &["a\0"]);
const SWITCHES: Tried =
    (&["true", "false", "1", "0", "yes", "No", "on", "OFF", "TRUE"], &["", "2", "maybe", "truth"]);
const DURATIONS: Tried =
    (&["500ms", "180s", "5m", "24h", "1h30m", "7"], &["", "0", "0s", "-1s", "soon", "5 minutes ago", "1.5"]);
const GRACES: Tried = (&["0", "0s", "500ms", "3600"], &["", "-1", "soon"]);
const LIMITS: Tried = (&["off", "0", "90m", "5"], &["", "never", "0s", "-5"]);
const COUNTS: Tried = (&["1", "100"], &["", "0", "-1", "1.5", "many"]);
const LISTENERS: Tried = (&["[::]:15020", "127.0.0.1:0"], &["", "15020", "localhost:15020", "[::]"]);
const WINDOWS: Tried = (&["65535", "4194304"], &["", "0", "65534", "2147483648", "4MiB", "-1"]);
const KEEPALIVES: Tried = (&["1s", "180s", "9h"], &["", "0", "500ms", "10h"]);

/// Values that each setting takes, and such that it does not.
const VALUES: &[(&str, Tried)] = &[
    ("mesh", OPTIONAL_PATHS),
    ("xds-address", ADDRESSES),
    ("xds-on-demand", SWITCHES),
    ("xds-root-ca", TRUSTED),
    ("alt-xds-hostname", HOSTNAMES),
    ("ca-address", ADDRESSES),
    ("ca-root-ca", TRUSTED),
    ("alt-ca-hostname", HOSTNAMES),
    ("auth-token", (&["", "./token", "/var/run/token", "eyJh.bGci-Oi_J"], &["a b", "töken", "a\nb"])),
    ("secret-ttl", DURATIONS),
    ("node", NAMES),
    ("network", NAMES),
    ("cluster-id", (&["Kubernetes", "a/b"], &["", "a b", "ü"])),
    ("cluster-domain", DOMAINS),
    ("trust-domain", DOMAINS),
    ("pod-name", NAMES),
    ("pod-namespace", NAMES),
    ("service-account", NAMES),
    ("instance-ip", (&["", "10.0.0.1", "fd00::1"], &["10.0.0", "localhost", "10.0.0.1:80", "10.0.0.0/8"])),
    ("dns-capture", SWITCHES),
    ("dns-proxy-address", (&["localhost:15053", "[::1]:53"], &["", "15053", "localhost:dns", "a b:1"])),
    ("egress-guard", SWITCHES),
    ("probe-processes", (&["", "kubelet", "a, b"], &["a,,b", "/usr/bin/kubelet", ","])),
    ("host-netns", OPTIONAL_PATHS),
    ("packet-mark", (&["1337", "0x539", "0"], &["", "mark", "0x", "4294967296", "-1"])),
    ("zds-socket", OPTIONAL_PATHS),
    ("workers", (&["0", "1", "16", "50%", "100 %"], &["", "-1", "0%", "101%", "%", "half", "70000"])),
    ("same-node-transport", (&["hbone", "direct"], &["", "HBONE", "plain"])),
    ("tunnel-streams", COUNTS),
    ("tunnels-per-peer", COUNTS),
    ("pool-unused-release-timeout", DURATIONS),
    ("http2-stream-window-size", WINDOWS),
    ("http2-connection-window-size", WINDOWS),
    ("http2-frame-size", (&["16384", "16777215"], &["", "16383", "16777216", "1MiB"])),
    ("enable-orig-src", SWITCHES),
    ("ipv6", SWITCHES),
    ("compliance-policy", (&["", "pqc"], &["PQC", "fips-140-2", "none"])),
    ("tls12", SWITCHES),
    ("crl-path", OPTIONAL_PATHS),
    ("connect-timeout", DURATIONS),
    ("endpoint-timeout", DURATIONS),
    ("retry-timeout", DURATIONS),
    ("answer-timeout", DURATIONS),
    ("first-bytes-timeout", DURATIONS),
    ("tls-handshake-timeout", DURATIONS),
    ("http2-handshake-timeout", DURATIONS),
    ("certificate-timeout", DURATIONS),
    ("own-workload-timeout", DURATIONS),
    ("resolve-timeout", DURATIONS),
    ("first-request-timeout", DURATIONS),
    ("unused-tunnel-timeout", DURATIONS),
    ("idle-timeout", LIMITS),
    ("half-close-timeout", LIMITS),
    ("stalled-timeout", LIMITS),
    ("keepalive-enabled", SWITCHES),
    ("keepalive-time", KEEPALIVES),
    ("keepalive-interval", KEEPALIVES),
    ("keepalive-retries", (&["1", "9", "127"], &["", "0", "128", "-1", "many"])),
    ("unacknowledged-timeout", LIMITS),
    ("max-connections-per-pod", COUNTS),
    ("max-tunnels-per-pod", COUNTS),
    ("max-handshakes", COUNTS),
    ("max-label-sets", COUNTS),
    ("label-release", DURATIONS),
    ("cni-conf-dir", OPTIONAL_PATHS),
    ("cni-conf-host-dir", PATHS),
    (
        "cni-conf-name",
        (&["", "10-calico.conflist", "x.conf"], &["10-calico", "/etc/cni/net.d/x.conf", ".conf"]),
    ),
    ("chained-cni-plugin", SWITCHES),
    ("own-cni-config", SWITCHES),
    (
        "own-cni-config-name",
        (&["02-culvert.conflist"], &["", "02-culvert.conf", "a/b.conflist", ".conflist"]),
    ),
    ("replace-istio-cni", SWITCHES),
    ("cni-bin-dir", OPTIONAL_PATHS),
    ("plugin-source", PATHS),
    ("exclude-namespaces", (&["", "kube-system", "a, b-1"], &["a,,b", "A", "a/b", ","])),
    ("daemonset-name", NAMES),
    ("kubernetes-service-host", NAMES),
    ("kubernetes-service-port", (&["443", "6443"], &["", "70000", "-1", "https"])),
    ("service-account-dir", PATHS),
    ("otlp-endpoint", ADDRESSES),
    ("otlp-protocol", (&["grpc"], &["", "http/protobuf", "http/json", "GRPC"])),
    ("otlp-certificate", TRUSTED),
    (
        "otlp-headers",
        (
            &["", "x-tenant=blue", "authorization=Bearer%20abc, x=y=z,", "x="],
            &["x", "=y", "a b=c", "x=a%0Ab", "te=x", "grpc-timeout=1S", "x=%FF"],
        ),
    ),
    ("otel-service-name", NAMES),
    ("otel-resource-attributes", (&["", "a.b=c%2Cd,e=f", "a="], &["a", "=b", "a b=c", "a=%FF"])),
    (
        "traces-sampler",
        (
            &["always_on", "always_off", "traceidratio", "parentbased_traceidratio"],
            &["", "on", "parentbased_", "jaeger_remote", "parentbased_parentbased_always_on"],
        ),
    ),
    ("traces-sampler-arg", (&["0", "1", "0.25", "1e-3"], &["", "-0.1", "1.1", "NaN", "inf", "half"])),
    ("otlp-queue", (&["1", "1000000"], &["", "0", "1000001", "-1", "many"])),
    ("run-dir", PATHS),
    ("bpffs", PATHS),
    ("proc", PATHS),
    ("metrics-address", LISTENERS),
    ("readiness-address", LISTENERS),
    (
        "admin-address",
        (
            &["localhost:15000", "127.0.0.1:1", "[::1]:15000"],
            &["", "localhost", "0.0.0.0:15000", "[::]:15000", "10.0.0.1:15000"],
        ),
    ),
    ("kubernetes", (&["", "true", "off"], &["2", "maybe"])),
    ("kubeconfig", OPTIONAL_PATHS),
    ("kubernetes-resync", DURATIONS),
    (
        "enablement-selectors",
        (
            &["", "[]", "- podSelector: {matchLabels: {a: b}}", r#"[{"namespaceSelector":{}}]"#],
            &["labels", "- podSelektor: {}", "- podSelector: {matchExpressions: [{key: a, operator: In}]}"],
        ),
    ),
    ("take-over", SWITCHES),
    ("drain-limit", GRACES),
    ("connection-termination-deadline", GRACES),
    ("termination-grace-period-seconds", (&["", "0", "30"], &["30s", "-1", "long"])),
    ("log-format", (&["plain", "json"], &["", "JSON", "text"])),
    ("log", (&["info", "warn,access=debug", "off"], &["", "a=b=c", "info,access=loud"])),
];

#[test]
fn every_setting_takes_what_is_good_and_nothing_else() {
    for (flag, (takes, refuses)) in VALUES {
        let setting =
            settings().find(|known| known.face().flag == *flag).unwrap_or_else(|| panic!("no --{flag}"));
        for value in *takes {
            assert_eq!(setting.check(value), Ok(()), "--{flag}={value}");
        }
        for value in *refuses {
            assert!(setting.check(value).is_err(), "--{flag}={value} is taken");
        }
    }
    let tried: BTreeSet<_> = VALUES.iter().map(|(flag, _)| *flag).collect();
    let all: BTreeSet<_> = settings().map(|known| known.face().flag).collect();
    assert_eq!(tried, all);
}

#[test]
fn a_bad_value_is_told_as_it_was_written_with_what_is_allowed() {
    for known in settings() {
        let face = known.face();
        let (_, (_, refuses)) = VALUES.iter().find(|(flag, _)| *flag == face.flag).unwrap();
        let Some(bad) = refuses.iter().find(|value| !value.is_empty() && !value.contains(['\n', '\0']))
        else {
            continue;
        };
        let told = problems(&[], &[(face.variable, bad)]);
        let start = match face.shown(bad) {
            Some(bad) => format!("{}={}: ", face.variable, bad.escape_debug()),
            None => format!("{}=(secret): ", face.variable),
        };
        assert!(
            told.iter().any(|one| one.starts_with(&start) && one.ends_with(face.allowed)),
            "{start} {told:?}"
        );
    }
}

#[test]
fn every_default_is_good_and_every_name_is_there_once() {
    let (mut flags, mut variables) = (BTreeSet::new(), BTreeSet::new());
    for known in settings() {
        let face = known.face();
        assert_eq!(known.check(face.default), Ok(()), "--{}", face.flag);
        assert_eq!(face.in_cluster.map_or(Ok(()), |default| known.check(default)), Ok(()), "--{}", face.flag);
        assert!(flags.insert(face.flag) && variables.insert(face.variable), "--{} is there twice", face.flag);
    }
    assert!(families().all(|family| flags.insert(family.flag) && variables.insert(family.prefix)));
}

#[test]
fn without_settings_the_data_path_has_its_own_defaults() {
    let own = format!("{:?}", tunnel::Config::default());
    assert_eq!(format!("{:?}", good(&[], &[]).data_path), own);
}

#[test]
fn a_share_of_the_cpus_is_rounded_up_and_none_means_all() {
    let all = std::thread::available_parallelism().unwrap();
    let workers = |value: &str| good(&[], &[("ZTUNNEL_WORKER_THREADS", value)]).data_path.workers;
    assert_eq!((workers("0"), workers("100%"), workers("3").get()), (all, all, 3));
    assert_eq!(workers("1%").get(), 1);
    assert_eq!(workers("50%").get(), all.get().div_ceil(2));
}

/// What users of ztunnel have set already.
const PEERS: [&str; 46] = [
    "XDS_ADDRESS",
    "CA_ADDRESS",
    "XDS_ON_DEMAND",
    "XDS_ROOT_CA",
    "CA_ROOT_CA",
    "ALT_XDS_HOSTNAME",
    "ALT_CA_HOSTNAME",
    "AUTH_TOKEN",
    "XDS_HEADER_x-tenant",
    "CA_HEADER_x-tenant",
    "ISTIO_META_ENABLE_HBONE",
    "ISTIO_METAJSON_LABELS",
    "CLUSTER_ID",
    "CLUSTER_DOMAIN",
    "NETWORK",
    "NODE_NAME",
    "POD_NAME",
    "POD_NAMESPACE",
    "SERVICE_ACCOUNT",
    "INSTANCE_IP",
    "TRUST_DOMAIN",
    "SECRET_TTL",
    "CRL_PATH",
    "LOCAL_XDS_PATH",
    "PACKET_MARK",
    "INPOD_UDS",
    "ENABLE_ORIG_SRC",
    "KEEPALIVE_ENABLED",
    "KEEPALIVE_TIME",
    "KEEPALIVE_INTERVAL",
    "KEEPALIVE_RETRIES",
    "POOL_MAX_STREAMS_PER_CONNECTION",
    "POOL_UNUSED_RELEASE_TIMEOUT",
    "HTTP2_STREAM_WINDOW_SIZE",
    "HTTP2_CONNECTION_WINDOW_SIZE",
    "HTTP2_FRAME_SIZE",
    "CONNECTION_TERMINATION_DEADLINE",
    "TERMINATION_GRACE_PERIOD_SECONDS",
    "ZTUNNEL_WORKER_THREADS",
    "IPV6_ENABLED",
    "ISTIO_META_DNS_CAPTURE",
    "ISTIO_META_DNS_PROXY_ADDR",
    "COMPLIANCE_POLICY",
    "TLS12_ENABLED",
    "RUST_LOG",
    "LOG_FORMAT",
];

#[test]
fn variables_that_users_have_set_already_are_known() {
    for variable in PEERS {
        let is_setting = settings().any(|known| known.face().variable == variable);
        let is_named = families()
            .any(|family| variable.strip_prefix(family.prefix).is_some_and(|name| !name.is_empty()));
        assert!(is_setting || is_named, "{variable}");
    }
}
