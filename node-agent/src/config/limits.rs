//! The limits of the data path: how long each wait may take, how much one pod may have.
//!
//! What each means and why its default is what it is, is said once, in docs/limits.md. Invariant: if nothing is set, the data
//! path runs with its own defaults.

use std::time::Duration;

use tunnel::{Config, Keepalive, Timeouts};

use super::kinds::{DURATION, LIMIT, SWITCH, number};
use super::reader::Reader;
use super::setting::{Kind, Section, Setting};

/// More would not fit what the kernel counts with (`TCP_KEEPIDLE`, `TCP_KEEPCNT`).
const LONGEST_KEEPALIVE: Duration = Duration::from_secs(32_767);

const AMOUNT: Kind<usize> = Kind { value: "NUMBER", allowed: "a whole number from 1", parse: amount };
const RETRIES: Kind<u32> = Kind { value: "NUMBER", allowed: "a whole number from 1 to 127", parse: retries };
const KEEPALIVE: Kind<Duration> = Kind {
    value: "DURATION",
    allowed: "a duration from 1s to 32767s; a number alone is seconds",
    parse: keepalive,
};

static CONNECT_TIMEOUT: Setting<Duration> = Setting::new(
    ("connect-timeout", "CULVERT_CONNECT_TIMEOUT"),
    "10s",
    DURATION,
    "A TCP connection being accepted.",
);
static ENDPOINT_TIMEOUT: Setting<Duration> = Setting::new(
    ("endpoint-timeout", "CULVERT_ENDPOINT_TIMEOUT"),
    "3s",
    DURATION,
    "An endpoint taking a connection while the service has another one.",
);
static RETRY_TIMEOUT: Setting<Duration> = Setting::new(
    ("retry-timeout", "CULVERT_RETRY_TIMEOUT"),
    "15s",
    DURATION,
    "Other endpoints being tried for one connection.",
);
static ANSWER_TIMEOUT: Setting<Duration> =
    Setting::new(("answer-timeout", "CULVERT_ANSWER_TIMEOUT"), "20s", DURATION, "The answer to a CONNECT.");
static FIRST_BYTES_TIMEOUT: Setting<Duration> = Setting::new(
    ("first-bytes-timeout", "CULVERT_FIRST_BYTES_TIMEOUT"),
    "5s",
    DURATION,
    "The client of a tunnel beginning to speak.",
);
static TLS_HANDSHAKE_TIMEOUT: Setting<Duration> = Setting::new(
    ("tls-handshake-timeout", "CULVERT_TLS_HANDSHAKE_TIMEOUT"),
    "10s",
    DURATION,
    "A TLS handshake.",
);
static HTTP2_HANDSHAKE_TIMEOUT: Setting<Duration> = Setting::new(
    ("http2-handshake-timeout", "CULVERT_HTTP2_HANDSHAKE_TIMEOUT"),
    "10s",
    DURATION,
    "The HTTP/2 preface.",
);
static CERTIFICATE_TIMEOUT: Setting<Duration> = Setting::new(
    ("certificate-timeout", "CULVERT_CERTIFICATE_TIMEOUT"),
    "10s",
    DURATION,
    "A certificate being issued while a connection waits for it.",
);
static OWN_WORKLOAD_TIMEOUT: Setting<Duration> = Setting::new(
    ("own-workload-timeout", "CULVERT_OWN_WORKLOAD_TIMEOUT"),
    "5s",
    DURATION,
    "The control plane making a pod's own workload known.",
);
static RESOLVE_TIMEOUT: Setting<Duration> = Setting::new(
    ("resolve-timeout", "CULVERT_RESOLVE_TIMEOUT"),
    "5s",
    DURATION,
    "A destination that has only a name being resolved.",
);
static FIRST_REQUEST_TIMEOUT: Setting<Duration> = Setting::new(
    ("first-request-timeout", "CULVERT_FIRST_REQUEST_TIMEOUT"),
    "60s",
    DURATION,
    "The first CONNECT on a tunnel that has arrived.",
);
static UNUSED_TUNNEL_TIMEOUT: Setting<Duration> = Setting::new(
    ("unused-tunnel-timeout", "CULVERT_UNUSED_TUNNEL_TIMEOUT"),
    "10m",
    DURATION,
    "A tunnel that has arrived being unused.",
);
static IDLE_TIMEOUT: Setting<Option<Duration>> = Setting::new(
    ("idle-timeout", "CULVERT_IDLE_TIMEOUT"),
    "off",
    LIMIT,
    "Nothing moving in either direction of a connection.",
);
static HALF_CLOSE_TIMEOUT: Setting<Option<Duration>> = Setting::new(
    ("half-close-timeout", "CULVERT_HALF_CLOSE_TIMEOUT"),
    "1h",
    LIMIT,
    "Nothing moving in one direction after the other has ended.",
);
static STALLED_TIMEOUT: Setting<Option<Duration>> = Setting::new(
    ("stalled-timeout", "CULVERT_STALLED_TIMEOUT"),
    "15m",
    LIMIT,
    "An end not reading what is sent to it.",
);
static KEEPALIVE_ENABLED: Setting<bool> = Setting::new(
    ("keepalive-enabled", "KEEPALIVE_ENABLED"),
    "true",
    SWITCH,
    "Whether idle connections are probed.",
);
static KEEPALIVE_TIME: Setting<Duration> = Setting::new(
    ("keepalive-time", "KEEPALIVE_TIME"),
    "180s",
    KEEPALIVE,
    "Idle time before the first probe.",
);
static KEEPALIVE_INTERVAL: Setting<Duration> =
    Setting::new(("keepalive-interval", "KEEPALIVE_INTERVAL"), "180s", KEEPALIVE, "Time between probes.");
static KEEPALIVE_RETRIES: Setting<u32> = Setting::new(
    ("keepalive-retries", "KEEPALIVE_RETRIES"),
    "9",
    RETRIES,
    "Unanswered probes before a connection is dead.",
);
static UNACKNOWLEDGED_TIMEOUT: Setting<Option<Duration>> = Setting::new(
    ("unacknowledged-timeout", "CULVERT_UNACKNOWLEDGED_TIMEOUT"),
    "15m",
    LIMIT,
    "Sent bytes being acknowledged, and probes being answered.",
);
static MAX_CONNECTIONS_PER_POD: Setting<usize> = Setting::new(
    ("max-connections-per-pod", "CULVERT_MAX_CONNECTIONS_PER_POD"),
    "20000",
    AMOUNT,
    "Connections and tunnelled streams that one pod may have.",
);
static MAX_TUNNELS_PER_POD: Setting<usize> = Setting::new(
    ("max-tunnels-per-pod", "CULVERT_MAX_TUNNELS_PER_POD"),
    "10000",
    AMOUNT,
    "Tunnels that one pod may take.",
);
static MAX_HANDSHAKES: Setting<usize> = Setting::new(
    ("max-handshakes", "CULVERT_MAX_HANDSHAKES"),
    "1024",
    AMOUNT,
    "TLS handshakes under way at once.",
);
static MAX_LABEL_SETS: Setting<usize> = Setting::new(
    ("max-label-sets", "CULVERT_MAX_LABEL_SETS"),
    "10000",
    AMOUNT,
    "Label sets of the traffic metrics.",
);
static LABEL_RELEASE: Setting<Duration> = Setting::new(
    ("label-release", "CULVERT_LABEL_RELEASE"),
    "10m",
    DURATION,
    "The label sets of a workload that is gone staying, after they were used last.",
);

pub(super) static SECTION: Section = Section {
    title: "Limits",
    settings: &[
        &CONNECT_TIMEOUT,
        &ENDPOINT_TIMEOUT,
        &RETRY_TIMEOUT,
        &ANSWER_TIMEOUT,
        &FIRST_BYTES_TIMEOUT,
        &TLS_HANDSHAKE_TIMEOUT,
        &HTTP2_HANDSHAKE_TIMEOUT,
        &CERTIFICATE_TIMEOUT,
        &OWN_WORKLOAD_TIMEOUT,
        &RESOLVE_TIMEOUT,
        &FIRST_REQUEST_TIMEOUT,
        &UNUSED_TUNNEL_TIMEOUT,
        &IDLE_TIMEOUT,
        &HALF_CLOSE_TIMEOUT,
        &STALLED_TIMEOUT,
        &KEEPALIVE_ENABLED,
        &KEEPALIVE_TIME,
        &KEEPALIVE_INTERVAL,
        &KEEPALIVE_RETRIES,
        &UNACKNOWLEDGED_TIMEOUT,
        &MAX_CONNECTIONS_PER_POD,
        &MAX_TUNNELS_PER_POD,
        &MAX_HANDSHAKES,
        &MAX_LABEL_SETS,
        &LABEL_RELEASE,
    ],
    families: &[],
};

/// The same configuration, with these limits.
pub(super) fn read(reader: &mut Reader<'_>, config: Config) -> Option<Config> {
    let timeouts = timeouts(reader, config.timeouts);
    let (time, interval) = (reader.read(&KEEPALIVE_TIME), reader.read(&KEEPALIVE_INTERVAL));
    let (enabled, retries) = (reader.read(&KEEPALIVE_ENABLED), reader.read(&KEEPALIVE_RETRIES));
    let unacknowledged = reader.read(&UNACKNOWLEDGED_TIMEOUT);
    let [connections, tunnels, handshakes, label_sets] =
        [&MAX_CONNECTIONS_PER_POD, &MAX_TUNNELS_PER_POD, &MAX_HANDSHAKES, &MAX_LABEL_SETS]
            .map(|one| reader.read(one));
    let label_release = reader.read(&LABEL_RELEASE);
    Some(Config {
        timeouts: timeouts?,
        keepalive: Keepalive {
            enabled: enabled?,
            time: time?,
            interval: interval?,
            retries: retries?,
            unacknowledged: unacknowledged?,
        },
        max_connections_per_pod: connections?,
        max_tunnels_per_pod: tunnels?,
        max_handshakes: handshakes?,
        max_label_sets: label_sets?,
        label_release: label_release?,
        ..config
    })
}

fn timeouts(reader: &mut Reader<'_>, own: Timeouts) -> Option<Timeouts> {
    let [connect, endpoint, retry, answer] =
        [&CONNECT_TIMEOUT, &ENDPOINT_TIMEOUT, &RETRY_TIMEOUT, &ANSWER_TIMEOUT].map(|one| reader.read(one));
    let [first_bytes, tls_handshake, http2_handshake, certificate] =
        [&FIRST_BYTES_TIMEOUT, &TLS_HANDSHAKE_TIMEOUT, &HTTP2_HANDSHAKE_TIMEOUT, &CERTIFICATE_TIMEOUT]
            .map(|one| reader.read(one));
    let [own_workload, resolve, first_request, unused_tunnel] =
        [&OWN_WORKLOAD_TIMEOUT, &RESOLVE_TIMEOUT, &FIRST_REQUEST_TIMEOUT, &UNUSED_TUNNEL_TIMEOUT]
            .map(|one| reader.read(one));
    let [idle, half_close, stalled] =
        [&IDLE_TIMEOUT, &HALF_CLOSE_TIMEOUT, &STALLED_TIMEOUT].map(|one| reader.read(one));
    Some(Timeouts {
        connect: connect?,
        endpoint: endpoint?,
        retry: retry?,
        answer: answer?,
        first_bytes: first_bytes?,
        tls_handshake: tls_handshake?,
        http2_handshake: http2_handshake?,
        certificate: certificate?,
        own_workload: own_workload?,
        resolve: resolve?,
        first_request: first_request?,
        unused_tunnel: unused_tunnel?,
        idle: idle?,
        half_close: half_close?,
        stalled: stalled?,
        ..own
    })
}

fn amount(text: &str) -> Result<usize, String> {
    match number(text)? {
        0 => Err("nothing could be served".to_owned()),
        amount => Ok(amount),
    }
}

fn retries(text: &str) -> Result<u32, String> {
    match number(text)? {
        retries @ 1..=127 => Ok(retries),
        _ => Err("the kernel does not count that far".to_owned()),
    }
}

fn keepalive(text: &str) -> Result<Duration, String> {
    let duration = (DURATION.parse)(text)?;
    if (Duration::from_secs(1)..=LONGEST_KEEPALIVE).contains(&duration) {
        Ok(duration)
    } else {
        Err("the kernel does not take that".to_owned())
    }
}
