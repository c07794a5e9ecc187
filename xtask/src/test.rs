//! `test [SUITE]`: the suites that every change must pass. Without a suite, all of them.
//!
//! A suite that lacks root or a tool fails and names it; none passes by skipping.

mod catalogue;
mod chaos;
mod cri;
mod deny;
mod dependencies;
mod deploy;
mod docs;
mod interop;
mod kernels;
mod plugin;
mod promql;
mod security;
mod unsafe_code;

use std::path::Path;

use anyhow::{Result, bail};

use crate::binaries::Binaries;
use crate::built::Built;
use crate::{build_ebpf, debian, setup, shell};

/// Nothing else runs with that feature.
const SCHEDULES: [&str; 7] =
    ["test", "-p", "culvert-tunnel", "--features", "schedules", "--lib", "schedules::"];
/// Packages whose tests need root and namespaces: the harness's own, and the product's.
const NETNS: [&str; 2] = ["tests/harness", "tests/netns"];
/// Those that need Envoy besides.
const INTEROP: [&str; 1] = ["tests/interop"];
/// The recorded connections, made again.
const PARITY: [&str; 1] = ["tests/parity"];
/// Those that need a browser besides.
const BROWSER: [&str; 1] = ["tests/browser"];
/// Those that need container runtimes besides.
const CRI: [&str; 1] = ["tests/cri"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which suite; all if none is named.
    suite: Option<Suite>,
    /// Only tests whose name contains this.
    #[arg(long)]
    filter: Option<String>,
    /// Write the list of unsafe code anew, and do nothing else.
    #[arg(long)]
    write_unsafe: bool,
    #[command(flatten)]
    chaos: chaos::Weather,
    #[command(flatten)]
    kernels: kernels::Crowd,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Suite {
    /// Formatting, lints, dependencies, and every test that needs no network of its own.
    Unit,
    /// Real namespaces, real eBPF, real agents; as root.
    Netns,
    /// The live page of a real agent in a real browser; as root.
    Browser,
    /// Real agents against a real Envoy; as root.
    Interop,
    /// Every connection that was recorded under istio-cni and ztunnel, made again between real agents; as root.
    Parity,
    /// Real agents and the plugin under containerd and podman; as root.
    Cri,
    /// Two nodes under load while agents die, links flap and disks fill up; as root.
    Chaos,
    /// The Helm chart for every platform, against the schemas of Kubernetes; the rules of Prometheus and the dashboards of Grafana.
    Deploy,
    /// The documentation: links, names, the book, and every command in it; as root.
    Docs,
    /// Capture on this machine's kernel and on others in virtual machines; as root.
    Kernels,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.write_unsafe {
        return unsafe_code::write();
    }
    args.chaos.only_for_chaos(args.suite == Some(Suite::Chaos))?;
    args.kernels.only_for_kernels(args.suite == Some(Suite::Kernels))?;
    let wanted = |suite| args.suite.is_none_or(|only| only == suite);
    let filter = args.filter.as_deref();
    if wanted(Suite::Unit) {
        unit(filter)?;
    }
    if wanted(Suite::Netns) {
        netns(filter)?;
    }
    if wanted(Suite::Browser) {
        browser(filter)?;
    }
    if wanted(Suite::Interop) {
        interop::run(filter)?;
    }
    match (wanted(Suite::Parity), filter) {
        (true, None) => parity(None)?,
        // The filter is a group of rows, not a test's name.
        (true, Some(group)) if args.suite.is_some() => parity(Some(group))?,
        _ => {}
    }
    if wanted(Suite::Cri) {
        cri::run(filter)?;
    }
    if wanted(Suite::Chaos) {
        chaos::run(&args.chaos, filter)?;
    }
    match (wanted(Suite::Deploy), filter) {
        (true, None) => deploy::run()?,
        (true, Some(_)) if args.suite.is_some() => bail!("the deploy suite runs as a whole: no --filter"),
        _ => {}
    }
    match (wanted(Suite::Docs), filter) {
        (true, None) => docs::run()?,
        (true, Some(_)) if args.suite.is_some() => bail!("the docs suite runs as a whole: no --filter"),
        _ => {}
    }
    match (wanted(Suite::Kernels), filter) {
        (true, None) => kernels::run(&args.kernels)?,
        // Each of its checks stands on the ones before it.
        (true, Some(_)) if args.suite.is_some() => bail!("the kernels suite runs as a whole: no --filter"),
        _ => {}
    }
    println!("\nAll passed.");
    Ok(())
}

fn unit(filter: Option<&str>) -> Result<()> {
    println!("\n== unit: formatting, dependencies, lints, tests");
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))?;
    dependencies::check()?;
    deny::check()?;
    unsafe_code::check()?;
    security::check()?;
    // The loader embeds the objects.
    build_ebpf::ensure()?;
    shell::run(shell::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    Built::all()?.run_all_but(
        &[NETNS.as_slice(), &BROWSER, &INTEROP, &PARITY, &CRI, &chaos::CHAOS].concat(),
        filter,
    )?;
    shell::run(shell::cargo().args(["test", "--workspace", "--doc"]).args(filter))?;
    if filter.is_some() {
        return Ok(());
    }
    println!("\n== unit: where threads meet, in many orders, with other locks");
    shell::run(shell::cargo().args(SCHEDULES))
}

fn netns(filter: Option<&str>) -> Result<()> {
    println!("\n== netns: real namespaces, eBPF and agents");
    setup::require_root()?;
    setup::ensure(&setup::RUNTIME)?;
    setup::ensure(&setup::NETFILTER)?;
    setup::ensure(&setup::NAMES)?;
    let built = Built::all()?;
    let binaries = Binaries::of(&built)?;
    plugin::check(&binaries.plugin)?;
    let [_, prometheus] = debian::PROMETHEUS.ensure()?;
    let scrapes: [(&str, &Path); 1] = [("PROMETHEUS_BIN", &prometheus)];
    built.run_those_of(&NETNS, filter, &[binaries.environment().as_slice(), &scrapes].concat())
}

fn browser(filter: Option<&str>) -> Result<()> {
    println!("\n== browser: the live page of a real agent in Debian's Chromium");
    setup::require_root()?;
    setup::ensure(&setup::RUNTIME)?;
    let chromium = setup::browser()?;
    let built = Built::all()?;
    let binaries = Binaries::of(&built)?;
    let shows: [(&str, &Path); 1] = [("CHROMIUM_BIN", &chromium)];
    built.run_those_of(&BROWSER, filter, &[binaries.environment().as_slice(), &shows].concat())
}

fn parity(group: Option<&str>) -> Result<()> {
    println!("\n== parity: the recorded connections, made again");
    setup::require_root()?;
    setup::ensure(&setup::RUNTIME)?;
    let built = Built::all()?;
    let binaries = Binaries::of(&built)?;
    built.run_those_of(&PARITY, group, &binaries.environment())
}
