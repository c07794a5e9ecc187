//! The store alone, in a process of its own: what it weighs, how long it takes to make and to change, to look something up.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use harness::command;
use mesh::workload::Protocol;
use mesh::{NamespacedHostname, NetworkAddress, NetworkCidr, Service, Store, Workload};

use super::plane::Size;
use super::process::Process;
use crate::figures::Figures;

/// Most nanoseconds of a look-up.
const LOOK_UP: f64 = 100.0;
/// Keys that are looked up, spread over all there are; more than a cache holds of them.
const KEYS: u32 = 50_000;
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
    let (none, spread) = (NetworkAddress::new("", IpAddr::from([0, 0, 0, 0])), |n| spread(n, args.workloads));
    let at = |base: u32, n: u32| NetworkAddress { address: Ipv4Addr::from(base + n).into(), ..none.clone() };
    let places: Vec<_> = (0..KEYS).map(|n| at(PODS, spread(n))).collect();
    let vips: Vec<_> = (0..KEYS).map(|n| at(VIPS, spread(n) % args.services.max(1))).collect();
    let inside: Vec<_> = (0..KEYS).map(|n| at(RANGES, spread(n) * 16 + 3)).collect();
    let each = |what: &str, keys: &[NetworkAddress], look: &dyn Fn(&NetworkAddress) -> bool| {
        let begin = Instant::now();
        let found = keys.iter().filter(|key| look(black_box(key))).count();
        println!("find: {what} {}", begin.elapsed().as_nanos() as f64 / keys.len().max(1) as f64);
        found == keys.len()
    };
    let all = each("look-up of a workload by its address", &places, &|at| {
        snapshot.workload_by_address(at).is_some()
    }) & each("look-up of a service by its virtual address", &vips, &|at| {
        snapshot.service_by_vip(at, "ns-0").is_some()
    }) & each("look-up of a service by a range", &inside, &|at| {
        snapshot.service_by_vip(at, "ns-0").is_some()
    });
    assert!(all, "something that is there was not found");
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
    let cidr = ipnet(Ipv4Addr::from(RANGES + n * 16));
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
