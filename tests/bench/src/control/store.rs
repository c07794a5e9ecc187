//! The store alone, in a process of its own: what it weighs, how long it takes to make and to change, to look something up.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use harness::command;
use mesh::workload::Protocol;
use mesh::{NamespacedHostname, NetworkAddress, NetworkCidr, Service, Store, Workload};

use super::plane::Size;
use crate::figures::Figures;
use crate::process::Process;
use crate::stats::Spread;

/// Most nanoseconds of a look-up.
const LOOK_UP: f64 = 100.0;
/// Keys that are looked up, random among all there are.
const KEYS: u32 = 50_000;
/// Rounds of look-ups.
const ROUNDS: usize = 7;
/// So many bytes of something else, once read, leave nothing of the tables in any cache.
const CACHES: u64 = 96 << 20;
/// Addresses of a range.
const RANGE: u32 = 16;
/// Changes of one workload each.
const CHANGES: u32 = 2_000;

/// What a process of its own is told.
#[derive(clap::Args)]
pub(crate) struct StoreArgs {
    #[arg(long)]
    workloads: u32,
    #[arg(long)]
    services: u32,
}

/// Measures in a new process, which prints a line for each figure.
pub(super) fn measure(size: Size, figures: &mut Figures) -> Result<()> {
    println!("\nThe store alone: {} workloads, {} services", size.workloads, size.services);
    let mut child = Command::new(std::env::current_exe()?);
    child.args(["store", "--workloads", &size.workloads.to_string()]);
    let printed = command::run(child.args(["--services", &size.services.to_string()]))?;
    for line in printed.lines() {
        let (what, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
        let value: f64 = value.parse().with_context(|| line.to_owned())?;
        match what.split_once(": ") {
            Some(("find", what)) => figures.at_most(what, value, LOOK_UP, "ns"),
            Some((unit, what)) => figures.note(what, value, unit),
            None => anyhow::bail!("the process printed {line:?}"),
        }
    }
    Ok(())
}

/// The process itself: lines of `UNIT: what VALUE`, or `find: what NANOSECONDS`.
pub(crate) fn run_store(args: &StoreArgs) -> Result<()> {
    let (own, store) = (Process(std::process::id()), Store::new());
    let before = own.rss()?;
    let begin = Instant::now();
    fill(&store, args);
    println!("s: made {}", begin.elapsed().as_secs_f64());
    println!("MiB: weight {}", own.rss()? - before);
    println!("us: a change of one workload {}", micros(change(&store, args), CHANGES));
    find(&store, args);
    Ok(())
}

fn fill(store: &Store, args: &StoreArgs) {
    store.update(|current| {
        let mut editor = current.edit();
        (0..args.workloads).for_each(|n| editor.insert_workload(workload(n, args.services, 0)));
        (0..args.services).for_each(|n| editor.insert_service(service(n)));
        Some(editor.finish())
    });
}

/// The time of [`CHANGES`] updates, each of which anybody could read at once.
fn change(store: &Store, args: &StoreArgs) -> Duration {
    let begin = Instant::now();
    for n in 0..CHANGES {
        store.update(|current| {
            let mut editor = current.edit();
            editor.insert_workload(workload(spread(n, args.workloads), args.services, n + 1));
            Some(editor.finish())
        });
    }
    begin.elapsed()
}

fn find(store: &Store, args: &StoreArgs) {
    // As many ranges as there are workloads, so that a look-up among them means something.
    store.update(|current| {
        let mut editor = current.edit();
        (0..args.workloads).for_each(|n| editor.insert_service(range(n)));
        Some(editor.finish())
    });
    let snapshot = store.load();
    let at = |base: u32, n: u32| NetworkAddress::new("", Ipv4Addr::from(base + n).into());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut keys = |base: u32, count: u32, size: u32| -> Vec<NetworkAddress> {
        (0..KEYS).map(|_| at(base, random.below(count) * size + random.below(size))).collect()
    };
    let places = keys(PODS, args.workloads, 1);
    let vips = keys(VIPS, args.services, 1);
    let inside = keys(RANGES, args.workloads, RANGE);
    let workload =
        |at: &NetworkAddress| snapshot.workload_by_address(at).map(Arc::as_ptr).map(|it| it as usize);
    let service =
        |at: &NetworkAddress| snapshot.service_by_vip(at, "ns-0").map(Arc::as_ptr).map(|it| it as usize);
    println!("ns: a read of memory that hangs on the one before it, for comparison {}", read());
    each("a workload by its address", &places, &workload);
    each("a service by its virtual address", &vips, &service);
    each("a service by a range", &inside, &service);
}

/// The time of a read anywhere within as much memory as a table of 100,000 takes, which cannot begin before the one before it has
/// ended: less than this no look-up takes whose answer is not in the nearest caches.
fn read() -> f64 {
    const READS: usize = 1 << 16;
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut order: Vec<usize> = (0..READS).collect();
    (1..READS).rev().for_each(|n| order.swap(n, random.below(n as u32 + 1) as usize));
    // One in each line of memory.
    let mut lines = vec![[0_usize; 8]; READS];
    for (line, next) in order.iter().zip(order.iter().cycle().skip(1)) {
        if let Some([first, ..]) = lines.get_mut(*line) {
            *first = *next;
        }
    }
    let next = |at: usize| lines.get(at).map_or(0, |[next, ..]| *next);
    let times = (0..ROUNDS).map(|_| {
        let begin = Instant::now();
        black_box((0..READS).fold(0, |at, _| next(black_box(at))));
        begin.elapsed().as_nanos() as f64 / READS as f64
    });
    Spread::of(times.collect()).median
}

/// The time of a look-up: as fast as they come; where each can only begin when the one before has its answer; and the latter
/// where whatever else the machine does has taken all caches in the meantime, as a node's first connection after a pause finds it.
fn each(what: &str, keys: &[NetworkAddress], look: &dyn Fn(&NetworkAddress) -> Option<usize>) {
    let (mut apart, mut in_turn, mut cold) = (Vec::new(), Vec::new(), Vec::new());
    pass::<false>(keys, look);
    for _ in 0..ROUNDS {
        apart.push(pass::<false>(keys, look));
        in_turn.push(pass::<true>(keys, look));
    }
    for _ in 0..ROUNDS {
        forget();
        cold.push(pass::<true>(keys, look));
    }
    println!("find: look-up of {what} {}", Spread::of(apart).median);
    println!("find: the same, each after the answer before it {}", Spread::of(in_turn).median);
    println!("ns: the same, with nothing in the caches {}", Spread::of(cold).median);
}

/// Nanoseconds of a look-up among so many.
fn pass<const IN_TURN: bool>(
    keys: &[NetworkAddress],
    look: &dyn Fn(&NetworkAddress) -> Option<usize>,
) -> f64 {
    let (begin, mut before) = (Instant::now(), 0);
    for number in 0..keys.len() {
        // Pointers are even, so the number stays what it was; but that is not known before the answer is.
        let key = keys.get(if IN_TURN { number + (before & 1) } else { number });
        let found = key.and_then(|key| look(black_box(key)));
        assert!(found.is_some(), "something that is there was not found");
        before = black_box(found.unwrap_or_default());
    }
    begin.elapsed().as_nanos() as f64 / keys.len().max(1) as f64
}

/// Puts something else into the caches.
fn forget() {
    let other: Vec<u64> = (0..CACHES / 8).collect();
    black_box(other.iter().sum::<u64>());
}

/// Numbers that no look-up can foresee (xorshift, Marsaglia 2003), the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, count: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 >> 32).unwrap_or_default() % count.max(1)
    }
}

const PODS: u32 = 0x0a00_0000;
const VIPS: u32 = 0xac18_0000;
const RANGES: u32 = 0xf000_0000;

/// A number of all below `count`, far from that of the next `n`.
fn spread(n: u32, count: u32) -> u32 {
    n.wrapping_mul(7_919) % count.max(1)
}

fn micros(time: Duration, count: u32) -> f64 {
    time.as_secs_f64() * 1e6 / f64::from(count)
}

/// The `n`th pod, with texts of its own as a decoder makes them.
fn workload(n: u32, services: u32, revision: u32) -> Workload {
    let namespace = format!("ns-{}", n % 50);
    Workload {
        uid: format!("Kubernetes//Pod/{namespace}/app-{n}-5d4f8b7c9-x2x{}", n % 97).into(),
        name: format!("app-{n}-5d4f8b7c9-x2x{}", n % 97).into(),
        namespace: namespace.into(),
        trust_domain: String::from("cluster.local").into(),
        service_account: format!("account-{}", n % 16).into(),
        network: String::from("").into(),
        addresses: [Ipv4Addr::from(PODS + n).into()].into(),
        protocol: Protocol::Hbone,
        node: format!("node-{}", n / 100).into(),
        canonical_name: format!("app-{}", n % 1000).into(),
        canonical_revision: format!("v{revision}").into(),
        workload_name: format!("app-{}", n % 1000).into(),
        cluster_id: String::from("Kubernetes").into(),
        services: [(service(n % services.max(1)).key(), [(80, 8080)].into())].into(),
        ..Workload::default()
    }
}

fn service(n: u32) -> Service {
    let namespace = format!("ns-{}", n % 50);
    let key =
        NamespacedHostname::new(namespace.as_str(), format!("service-{n}.{namespace}.svc.cluster.local"));
    Service {
        name: format!("service-{n}").into(),
        namespace: key.namespace,
        hostname: key.hostname,
        vips: vec![NetworkAddress::new("", Ipv4Addr::from(VIPS + n).into())],
        ports: [(80, 8080)].into(),
        ..Service::default()
    }
}

/// A service of 16 addresses.
fn range(n: u32) -> Service {
    let cidr = ipnet(Ipv4Addr::from(RANGES + n * RANGE));
    Service {
        name: format!("range-{n}").into(),
        namespace: String::from("ranges").into(),
        hostname: format!("range-{n}.example").into(),
        cidr_vips: cidr.into_iter().collect(),
        ..Service::default()
    }
}

fn ipnet(address: Ipv4Addr) -> Option<NetworkCidr> {
    format!("/{address}/28").parse().ok()
}
