//! The live page: its parts, what its browser is told of them, and its stream.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::super::live::{PACE, Pace, WATCHERS, assets};
use super::*;

const LONG: Duration = Duration::from_secs(60);
/// As fast as it goes.
const QUICK: Pace = Pace {
    every: Duration::from_millis(1),
    share: 0,
    at_most: Duration::from_millis(1),
    patience: LONG,
    longest: LONG,
};

/// A node that counts how often it is looked at, with pods that have long stories to tell.
struct Looked {
    times: Arc<AtomicUsize>,
    pods: usize,
}

impl Node for Looked {
    fn pods(&self) -> Vec<(PodKey, PodState)> {
        self.times.fetch_add(1, Ordering::Relaxed);
        let pod = |number| {
            let key = PodKey { namespace: "demo".into(), name: format!("pod-{number}") };
            (key, PodState::Pending("<b>why</b>".repeat(200)))
        };
        (0..self.pods).map(pod).collect()
    }

    fn connections(&self) -> Vec<ConnectionInfo> {
        Vec::new()
    }

    fn certificates(&self) -> Vec<(Identity, State)> {
        Vec::new()
    }

    fn overdue_renewals(&self) -> usize {
        0
    }
}

fn watching(seats: usize, pace: Pace) -> Watching {
    Watching { seats: Arc::new(Semaphore::new(seats)), pace }
}

async fn looked_at(pods: usize, watching: &Watching) -> (World, Arc<AtomicUsize>) {
    let times = Arc::new(AtomicUsize::new(0));
    let node = Arc::new(Looked { times: Arc::clone(&times), pods });
    (World::with(stored("workloads: []"), node, Registry::default(), watching.clone()).await, times)
}

/// A watcher's connection.
struct Stream(BufReader<TcpStream>);

impl Stream {
    async fn open(world: &World) -> Self {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(b"GET /ui/events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        Self(BufReader::new(stream))
    }

    /// The answer's head.
    async fn head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(timeout(LONG, self.0.read_line(&mut head)).await.unwrap().unwrap(), 0, "{head}");
        }
        head.to_ascii_lowercase()
    }

    /// The next state.
    async fn state(&mut self) -> Value {
        loop {
            let mut line = String::new();
            assert_ne!(timeout(LONG, self.0.read_line(&mut line)).await.unwrap().unwrap(), 0, "it ended");
            if let Some(data) = line.strip_prefix("data: ") {
                return serde_json::from_str(data).unwrap();
            }
        }
    }

    /// What is left until its end.
    async fn rest(&mut self) -> std::io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        timeout(LONG, self.0.read_to_end(&mut rest)).await.expect("an end").map(|_| rest)
    }
}

/// Waits until nobody watches.
async fn all_seats(watching: &Watching, count: usize) {
    let all = Arc::clone(&watching.seats).acquire_many_owned(u32::try_from(count).unwrap());
    drop(timeout(LONG, all).await.expect("seats that come back").unwrap());
}

#[tokio::test]
async fn the_page_has_nothing_within_it_that_runs_and_asks_nobody_else() {
    let world = World::start("workloads: []").await;
    for part in assets::PARTS {
        let (status, head, body) =
            world.ask(&format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", part.path)).await;
        assert_eq!((status, body.as_slice()), (200, part.text.as_bytes()), "{}", part.path);
        for said in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(head.contains(said), "{}: {said}: {head}", part.path);
        }
        let text = part.text.replace("http://www.w3.org/2000/svg", "");
        for foreign in ["http:", "https:", "//cdn", "innerHTML", "eval(", "document.write", "@import", "url("]
        {
            assert!(!text.contains(foreign), "{}: {foreign}", part.path);
        }
    }
    let page = assets::PARTS[0].text;
    for inline in ["<style", " style=", " onclick", " onload", "<script>", "javascript:"] {
        assert!(!page.contains(inline), "{inline}");
    }
    for (at, _) in page.match_indices("src=\"").chain(page.match_indices("href=\"")) {
        let target = page[at..].split('"').nth(1).unwrap();
        let is_part = assets::PARTS.iter().any(|part| part.path == target);
        assert!(
            is_part || target == "/" || page.contains(&format!("id=\"{}\"", target.trim_start_matches('#'))),
            "{target}"
        );
    }
}

#[tokio::test]
async fn pages_of_others_get_neither_the_page_nor_its_stream() {
    let world = World::start("workloads: []").await;
    for path in ["/ui", "/ui/page.js", "/ui/events"] {
        for head in [
            "Host: evil.example",
            "Host: localhost\r\nOrigin: http://evil.example",
            "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Dest: empty",
            "Host: localhost\r\nSec-Fetch-Site: same-site\r\nSec-Fetch-Dest: image",
        ] {
            let (status, ..) = world.ask(&format!("GET {path} HTTP/1.1\r\n{head}\r\n\r\n")).await;
            assert_eq!(status, 403, "{path}: {head}");
        }
        let (status, _) = world.text("POST", path).await;
        assert_eq!(status, 405, "{path}");
    }
}

type Labelled = Family<Vec<(String, String)>, Counter>;

/// What the end of a connection that tells of it counts it under.
fn labels(reporter: &str, flags: &str, from: &str) -> Vec<(String, String)> {
    [
        ("reporter", reporter),
        ("source_workload", from),
        ("source_workload_namespace", "demo"),
        ("source_principal", "spiffe://cluster.local/ns/demo/sa/client"),
        ("destination_workload", "server"),
        ("destination_workload_namespace", "demo"),
        ("destination_principal", "spiffe://cluster.local/ns/demo/sa/server"),
        ("response_flags", flags),
        ("connection_security_policy", if from == "outside" { "unknown" } else { "mutual_tls" }),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

#[tokio::test]
async fn the_stream_tells_who_talks_to_whom_what_was_refused_and_how_fast() {
    let [opened, closed, failed] = [(); 3].map(|()| Labelled::default());
    let (sent, connected) = (Labelled::default(), Gauge::<i64>::default());
    let mut registry = Registry::default();
    for (name, family) in [("opened", &opened), ("closed", &closed), ("failed", &failed)] {
        registry.register(format!("istio_tcp_connections_{name}"), "x", family.clone());
    }
    registry.register("istio_tcp_sent_bytes", "x", sent.clone());
    registry.register("culvert_xds_connected", "x", connected.clone());
    // Both ends are on this node: what each counts is one and the same.
    for reporter in ["source", "destination"] {
        opened.get_or_create(&labels(reporter, "-", "<i>\"client\"")).inc_by(7);
        closed.get_or_create(&labels(reporter, "-", "<i>\"client\"")).inc_by(2);
    }
    closed.get_or_create(&labels("destination", "DENY", "<i>\"client\"")).inc_by(3);
    failed.get_or_create(&labels("destination", "DENY", "<i>\"client\"")).inc_by(3);
    failed.get_or_create(&labels("source", "CONNECT", "<i>\"client\"")).inc_by(3);
    opened.get_or_create(&labels("destination", "-", "outside")).inc();
    let node = Arc::new(MadeUp(certificates().await));
    let world = World::with(stored("workloads: []"), node, registry, watching(1, QUICK)).await;
    tracing::error!(target: "access", { src.workload = "client", error = "policy" }, "connection complete");
    let mut stream = Stream::open(&world).await;
    let head = stream.head().await;
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: text/event-stream"), "{head}");
    assert!(head.contains("cache-control: no-store") && head.contains("default-src 'none'"), "{head}");
    let first = stream.state().await;
    assert_eq!(first["node"], "node-a");
    assert_eq!((first["podCounts"].clone(), first["pods"]["leftOut"].clone()), (json!([1, 0, 1]), json!(0)));
    // Those with which something is the matter come first.
    assert_eq!(first["pods"]["rows"][0]["pod"], "bookinfo/unknown");
    assert_eq!(first["source"]["kind"], "file");
    assert_eq!(first["source"]["connected"], false);
    let edges = &first["connections"]["edges"];
    let edge = &edges[0];
    assert_eq!(edge["from"]["workload"], "demo/<i>\"client\"");
    assert_eq!(edge["to"]["identity"], "spiffe://cluster.local/ns/demo/sa/server");
    let counts = ["opened", "open", "failed", "denied"].map(|name| edge[name].as_f64().unwrap());
    assert_eq!(counts, [7.0, 2.0, 3.0, 3.0]);
    assert_eq!((&edge["mutualTls"], &edges[1]["mutualTls"]), (&json!(true), &json!(false)));
    assert!(edge.get("rates").is_none(), "nothing to compare with yet");
    assert_eq!(first["certificates"]["rows"].as_array().unwrap().len(), 3);
    assert!(first["refusals"][0]["text"].as_str().unwrap().contains("error=\"policy\""));
    let quiet = stream.state().await;
    assert_eq!(quiet["connections"]["edges"][0]["rates"]["failed"], 0.0);
    failed.get_or_create(&labels("source", "CONNECT", "<i>\"client\"")).inc();
    sent.get_or_create(&labels("source", "-", "<i>\"client\"")).inc_by(4096);
    connected.set(1);
    // It is told once, in one of the next.
    for _ in 0..10_000 {
        let now = stream.state().await;
        let rates = &now["connections"]["edges"][0]["rates"];
        if rates["toClient"].as_f64().unwrap() > 0.0 {
            assert_eq!(now["source"]["connected"], true);
            return;
        }
    }
    panic!("bytes that nobody was told of");
}

#[tokio::test]
async fn so_many_watch_and_no_more_and_others_are_answered_meanwhile() {
    let watching = watching(WATCHERS, PACE);
    let (world, _) = looked_at(1, &watching).await;
    let mut streams = Vec::new();
    for _ in 0..WATCHERS {
        let mut stream = Stream::open(&world).await;
        assert!(stream.head().await.starts_with("http/1.1 200"));
        streams.push(stream);
    }
    let mut late = Stream::open(&world).await;
    let head = late.head().await;
    assert!(head.starts_with("http/1.1 503") && head.contains("retry-after: 10"), "{head}");
    assert!(String::from_utf8(late.rest().await.unwrap()).unwrap().contains("as many watch as may"));
    assert_eq!(world.text("GET", "/config_dump").await.0, 200);
    drop(streams.pop());
    // Its seat comes back, and is somebody else's.
    drop(timeout(LONG, watching.seats.acquire()).await.unwrap().unwrap());
    assert!(Stream::open(&world).await.head().await.starts_with("http/1.1 200"));
}

#[tokio::test]
async fn who_does_not_read_is_left_and_the_seat_is_anothers() {
    let watching = watching(1, Pace { patience: Duration::from_millis(100), ..QUICK });
    // States that fill what the kernel keeps for the one who does not read.
    let (world, _) = looked_at(500, &watching).await;
    let mut silent = Stream::open(&world).await;
    assert!(silent.head().await.starts_with("http/1.1 200"));
    all_seats(&watching, 1).await;
    assert!(Stream::open(&world).await.head().await.starts_with("http/1.1 200"));
    // Its connection is gone, not only its stream: no last chunk comes.
    let rest = silent.rest().await.unwrap_or_default();
    assert!(!rest.ends_with(b"\r\n0\r\n\r\n"), "{} bytes", rest.len());
}

#[tokio::test]
async fn while_nobody_watches_nothing_is_looked_at() {
    let watching = watching(2, QUICK);
    let (world, times) = looked_at(1, &watching).await;
    for path in ["/", "/ui", "/ui/page.js"] {
        assert_eq!(world.text("GET", path).await.0, 200);
    }
    assert_eq!(times.load(Ordering::Relaxed), 0);
    let mut stream = Stream::open(&world).await;
    for _ in 0..3 {
        stream.state().await;
    }
    drop(stream);
    all_seats(&watching, 2).await;
    let looks = times.load(Ordering::Relaxed);
    assert!(looks >= 3, "{looks}");
    // Whoever held the seat was the one who looked; many turns of this runtime later nobody has.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.text("GET", "/ui").await.0, 200);
    assert_eq!(times.load(Ordering::Relaxed), looks);
}

#[tokio::test]
async fn a_stream_ends_whole_before_its_connection_would_be_cut_and_when_nobody_serves_any_more() {
    assert!(PACE.longest + PACE.at_most < LIMITS.connection && WATCHERS < LIMITS.connections / 2);
    let (world, _) = looked_at(1, &watching(1, Pace { longest: Duration::from_millis(20), ..QUICK })).await;
    let rest = Stream::open(&world).await.rest().await.unwrap();
    assert!(rest.ends_with(b"\r\n0\r\n\r\n"));
    // Another agent has taken over: the page is to find that one, and not to wait for this one's last word.
    let (world, _) = looked_at(1, &watching(1, Pace { every: LONG, at_most: LONG, ..QUICK })).await;
    let mut stream = Stream::open(&world).await;
    stream.state().await;
    world.served.abort();
    assert!(stream.rest().await.unwrap().ends_with(b"\r\n0\r\n\r\n"));
}

#[tokio::test]
async fn what_there_is_too_much_of_is_counted_and_not_told() {
    let (world, _) = looked_at(700, &watching(1, PACE)).await;
    let state = Stream::open(&world).await.state().await;
    assert_eq!(state["podCounts"], json!([0, 0, 700]));
    assert_eq!(state["pods"]["leftOut"], 200);
    assert_eq!(state["pods"]["rows"].as_array().unwrap().len(), 500);
}
