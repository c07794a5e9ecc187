//! Row X3 of the truth table once more: an agent is killed while its pods connect without a pause, and started again.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use harness::mesh_file::{Enroll, Workload};
use harness::{Attempt, Pod, eventually};
use netns_tests::{HTTP, LIMIT, World, at, lock, until_answered};

/// Pods of the node besides the two that it has.
const MORE: usize = 3;
/// Attempts of each pod that must have been refused before the agent is started again, and answered afterwards.
const ENOUGH: usize = 5;
const NEEDLE: &str = "/needle-of-the-crash";

/// A pod that connects without a pause, and what came of it.
struct Caller<'a> {
    pod: &'a Pod,
    to: Vec<SocketAddr>,
    answered: AtomicUsize,
    refused: AtomicUsize,
    /// What is neither.
    slow: Mutex<Vec<String>>,
    /// When the first connection after the crash was served.
    back: Mutex<Option<Instant>>,
}

impl<'a> Caller<'a> {
    fn new(pod: &'a Pod, server: &Pod) -> Self {
        let to = at(server.addresses(), HTTP).to_vec();
        let (answered, refused) = Default::default();
        Self { pod, to, answered, refused, slow: Mutex::default(), back: Mutex::default() }
    }

    fn call(&self, crashed: &AtomicBool, stop: &AtomicBool) -> Result<()> {
        for to in self.to.iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let is_after = crashed.load(Ordering::Acquire);
            match self.pod.attempt(*to, NEEDLE)? {
                Attempt::Answered(reply) if reply.status == 200 => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    if is_after {
                        lock(&self.back).get_or_insert_with(Instant::now);
                    }
                }
                Attempt::Refused(_) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
                other => lock(&self.slow).push(format!("{} to {to}: {other:?}", self.pod.name())),
            }
        }
        Ok(())
    }
}

/// Waits until each caller has so many more.
fn more(what: &str, callers: &[Caller<'_>], count: fn(&Caller<'_>) -> usize, more: usize) -> Result<()> {
    let goals: Vec<usize> = callers.iter().map(|caller| count(caller) + more).collect();
    eventually(&format!("each pod to be {what}"), LIMIT * 3, || {
        callers.iter().zip(&goals).all(|(caller, goal)| count(caller) >= *goal).then_some(())
    })
}

/// Speed is judged by `bench enrol`; here it is told.
#[test]
fn x3_pods_that_connect_all_the_while_are_refused_and_then_served_again() -> Result<()> {
    let mut world = World::new()?;
    let [n1, _] = world.nodes.clone();
    let crowd = (0..MORE).map(|number| n1.add_plain_pod(&format!("p{number}"), "demo"));
    let crowd = crowd.collect::<Result<Vec<Pod>, _>>()?;
    world.mesh.workloads.extend(crowd.iter().map(Workload::of_pod));
    world.mesh.enroll.extend(crowd.iter().map(Enroll::running));
    world.write_mesh()?;
    let World { agent1, client, neighbour, server, wire, .. } = &mut world;
    let pods: Vec<&Pod> = crowd.iter().chain([&*client, &*neighbour]).collect();
    for pod in &pods {
        agent1.wait_for_log(&["pod enrolled", &format!("demo/{}", pod.name())], LIMIT)?;
        for to in at(server.addresses(), HTTP) {
            until_answered(pod, to)?;
        }
    }
    let tap = wire.tap()?;
    let callers: Vec<Caller<'_>> = pods.iter().map(|pod| Caller::new(pod, server)).collect();
    let (crashed, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let answered = |caller: &Caller<'_>| caller.answered.load(Ordering::Relaxed);
    let refused = |caller: &Caller<'_>| caller.refused.load(Ordering::Relaxed);
    let started = std::thread::scope(|scope| -> Result<Instant> {
        let calls: Vec<_> =
            callers.iter().map(|caller| scope.spawn(|| caller.call(&crashed, &stop))).collect();
        let mut crash = || -> Result<Instant> {
            more("served before the crash", &callers, answered, ENOUGH)?;
            agent1.kill9()?;
            crashed.store(true, Ordering::Release);
            let served: usize = callers.iter().map(answered).sum();
            more("refused", &callers, refused, ENOUGH)?;
            let since = callers.iter().map(answered).sum::<usize>() - served;
            // One of each may have been answered before the agent died.
            ensure!(since <= callers.len(), "{since} connections were served without an agent");
            let started = Instant::now();
            agent1.start_anew()?;
            more("served again", &callers, answered, ENOUGH)?;
            Ok(started)
        };
        let outcome = crash();
        stop.store(true, Ordering::Relaxed);
        for call in calls {
            call.join().map_err(|_| anyhow!("a caller panicked"))??;
        }
        outcome
    })?;
    agent1.wait_ready()?;
    for caller in &callers {
        let slow = lock(&caller.slow);
        ensure!(slow.is_empty(), "neither served nor refused: {slow:#?}");
        let back = lock(&caller.back).map(|back| back.saturating_duration_since(started));
        println!("{}: served again {:?} after exec", caller.pod.name(), back.unwrap_or(Duration::ZERO));
    }
    ensure!(!tap.contains(NEEDLE.as_bytes())?, "payload of a captured pod was on the wire");
    Ok(())
}
