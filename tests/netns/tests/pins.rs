//! A BPF file system to which nothing can be written: a pod whose capture cannot be kept is not captured in part, those that are
//! captured go on, and all is well by itself once it can be written to again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::mesh_file::{Enroll, Workload};
use harness::{Pod, command};
use netns_tests::kernel::{Held, pins, routing};
use netns_tests::{HTTP, LIMIT, World, at, until_answered};

/// How long something is watched that must not change: longer than any period of the agent's watch.
const WHILE: Duration = Duration::from_secs(5);
/// The longest wait until something is tried again, and some.
const RETRIED: Duration = Duration::from_secs(90);
/// What the agent says of it.
const TOLD: [&str; 2] = ["the BPF file system is read-only", "mount -o remount,rw"];

/// A directory that is mounted over itself, so that nothing but it is read-only. The run's teardown unmounts it at the latest.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn new(directory: &Path) -> Result<Self> {
        command::run(Command::new("mount").arg("--bind").args([directory, directory]))?;
        let mounted = Self(directory.to_owned());
        command::run(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(directory))?;
        let refused = std::fs::create_dir(directory.join("refused"));
        ensure!(refused.is_err_and(|error| error.kind() == std::io::ErrorKind::ReadOnlyFilesystem));
        Ok(mounted)
    }

    /// It can be written to again.
    fn end(self) -> Result<()> {
        command::run(Command::new("umount").arg(&self.0)).map(drop)
    }
}

/// A pod of the first node that the file wants from now on.
fn wanted(world: &mut World, name: &str) -> Result<Pod> {
    let pod = world.nodes[0].add_plain_pod(name, "demo")?;
    world.mesh.workloads.push(Workload::of_pod(&pod));
    world.mesh.enroll.push(Enroll::running(&pod));
    world.write_mesh()?;
    Ok(pod)
}

fn all_served(world: &World) -> Result<()> {
    for to in at(world.server.addresses(), HTTP) {
        let attempt = world.client.attempt(to, "/")?;
        ensure!(attempt.is_ok(), "client to {to}: {attempt:?}");
    }
    for to in at(world.neighbour.addresses(), HTTP) {
        let attempt = world.server.attempt(to, "/")?;
        ensure!(attempt.is_ok(), "server to {to}: {attempt:?}");
    }
    Ok(())
}

#[test]
fn a_pod_whose_capture_cannot_be_pinned_is_left_whole_and_enrolled_once_it_can() -> Result<()> {
    let mut world = World::new()?;
    let before = pins(&world.nodes[0])?;
    let read_only = ReadOnly::new(&world.nodes[0].bpffs())?;
    let late = wanted(&mut world, "late")?;
    let untouched = routing(&late)?;
    world.agent1.wait_for_log(&[&["pod not enrolled", "demo/late"][..], &TOLD].concat(), LIMIT)?;
    // The plugin's caller is told as much, and does not start the pod.
    world.mesh.enroll.push(Enroll::by_cni("fresh", "demo", &world.nodes[0]));
    world.write_mesh()?;
    world.agent1.wait_for_log(&["mesh file applied", "pods=4"], LIMIT)?;
    let error = world.nodes[0].add_pod("fresh", "demo").err().context("ADD must fail")?.to_string();
    ensure!(TOLD.iter().all(|words| error.contains(words)), "{error}");
    let began = Instant::now();
    while began.elapsed() < WHILE {
        all_served(&world)?;
    }
    let held = Held::of(&late)?;
    ensure!(held.is_nothing(), "{held:?}");
    ensure!(routing(&late)? == untouched, "{}", routing(&late)?);
    ensure!(pins(&world.nodes[0])? == before, "{:?}", pins(&world.nodes[0])?);
    ensure!(world.agent1.log_lines(&["pod released"]).is_empty(), "{}", world.agent1.log());

    read_only.end()?;
    world.agent1.wait_for_log(&["pod enrolled, its capture is verified", "demo/late"], RETRIED)?;
    for to in at(world.server.addresses(), HTTP) {
        ensure!(until_answered(&late, to)?.field("app") == "server");
    }
    world.agent2.wait_for_log(&["sa/late", "inbound"], LIMIT)?;
    all_served(&world)
}

#[test]
fn an_agent_that_can_pin_nothing_says_so_at_its_start_and_its_pods_stay_refused() -> Result<()> {
    let mut world = World::new()?;
    let tap = world.wire.tap()?;
    world.agent1.kill9()?;
    let read_only = ReadOnly::new(&world.nodes[0].bpffs())?;
    world.agent1.start_anew()?;
    let status = world.agent1.wait_exit(LIMIT)?;
    ensure!(!status.success(), "the agent ended with {status}");
    ensure!(!world.agent1.log_lines(&TOLD).is_empty(), "{}", world.agent1.log());
    for to in at(world.server.addresses(), HTTP) {
        let attempt = world.client.attempt(to, "/needle-of-the-pins")?;
        ensure!(attempt.is_refused(), "{to}: {attempt:?}");
    }
    for to in at(world.neighbour.addresses(), HTTP) {
        let attempt = world.plain.attempt(to, "/needle-of-the-pins")?;
        ensure!(attempt.is_refused(), "{to}: {attempt:?}");
    }
    let needle = b"needle-of-the-pins";
    tap.settle()?;
    let own = world.client.addresses();
    let leaked = tap
        .any(|s| own.contains(&s.source.ip()) && s.payload.windows(needle.len()).any(|part| part == needle));
    ensure!(!leaked, "payload of a captured pod was on the wire");
    read_only.end()?;
    world.agent1.restart()?;
    for to in at(world.server.addresses(), HTTP) {
        until_answered(&world.client, to)?;
    }
    all_served(&world)
}
