//! In and out of the mesh by a label, while a client goes on calling: nothing is restarted, and no call fails.
//!
//! The cluster's API is a stand-in (`tests/kube-api`), which the agents follow as they follow a real one; the control plane's part, by which
//! peers learn who takes tunnels, is played by [`follow`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use harness::Narrator;
use harness::wait::eventually_ok;
use interop_tests::{HBONE, LIMIT, NAMESPACE};
use netns_tests::cluster::{Cluster, MODE, PodCgroup, REDIRECTION};

use crate::calls::{Calls, KEPT, NEW};
use crate::follower::follow;
use crate::stage::{Stage, at};

/// Where the server listens.
pub(crate) const PORT: u16 = 8080;
/// The pods; their accounts are called alike.
pub(crate) const PODS: [&str; 2] = ["client", "server"];
/// Calls that must have been answered in each place before the next move.
const ENOUGH: usize = 100;
/// Calls by which is seen where they go.
const WATCHED: usize = 20;
const AMBIENT: Option<&str> = Some("ambient");
/// Asks for the opposite of what the namespace says.
const NONE: Option<&str> = Some("none");

/// Everything that a move needs.
struct World<'a> {
    stage: &'a Stage,
    cluster: &'a Cluster,
    calls: &'a Calls<'a>,
}

pub(crate) fn play(say: &mut Narrator) -> Result<()> {
    let (mut stage, cluster, _cgroups) = set(say)?;
    let arguments = cluster.arguments();
    stage.start_agents(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
    say.ran(&format!("culvert run ... {}", arguments.join(" ")));
    let targets = at(stage.pod("server")?.addresses(), PORT);
    let calls = Calls::new(stage.pod("client")?, targets);
    let world = World { stage: &stage, cluster: &cluster, calls: &calls };
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers = [
            scope.spawn(|| follow(&stage, &cluster, &over)),
            scope.spawn(|| calls.make(&over)),
            scope.spawn(|| calls.keep(&over)),
        ];
        let told = {
            let _end = End(&over);
            moves(say, &world)
        };
        let ended = workers.map(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?);
        ended.into_iter().fold(told, Result::and)
    })?;
    end(say, &stage, &calls)
}

/// Tells the workers that it is over, however it ends.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Two pods that run, in a cluster whose API knows them, and none of them in the mesh.
fn set(say: &mut Narrator) -> Result<(Stage, Cluster, Vec<PodCgroup>)> {
    say.step("Two nodes whose agents follow the API of a cluster; a client and a server, neither of them in the mesh");
    let mut stage = Stage::new(2)?;
    let cluster = Cluster::start(&stage.run, &stage.outside)?;
    let mut cgroups = Vec::new();
    for (name, node) in PODS.into_iter().zip([1, 2]) {
        stage.outsider(name, name, node)?;
        stage.serve(name, PORT, &[])?;
        cgroups.push(cluster.run(stage.pod(name)?, stage.app(name)?)?);
    }
    Ok((stage, cluster, cgroups))
}

fn moves(say: &mut Narrator, world: &World<'_>) -> Result<()> {
    let outside = [None, None];
    let inside = [Some("enabled"), Some("enabled")];
    world.calls.answered(ENOUGH)?;
    world.settles(say, outside, false)?;

    say.step("The namespace is labelled: both pods come into the mesh, as they run");
    world.label_namespace(say, AMBIENT)?;
    world.settles(say, inside, true)?;

    say.step("The server's own label takes it out again, and back in");
    world.label(say, "server", NONE)?;
    world.settles(say, [Some("enabled"), None], false)?;
    world.label(say, "server", None)?;
    world.settles(say, inside, true)?;

    say.step("So does the client's");
    world.label(say, "client", NONE)?;
    world.settles(say, [None, Some("enabled")], false)?;
    world.label(say, "client", None)?;
    world.settles(say, inside, true)?;

    say.step("The label of the namespace is taken away: both are out; and it comes and goes once more");
    world.label_namespace(say, None)?;
    world.settles(say, outside, false)?;
    world.label_namespace(say, AMBIENT)?;
    world.settles(say, inside, true)?;
    world.label_namespace(say, None)?;
    world.settles(say, outside, false)
}

impl World<'_> {
    fn label_namespace(&self, say: &mut Narrator, mode: Option<&str>) -> Result<()> {
        let label = mode.map_or_else(|| format!("{MODE}-"), |mode| format!("{MODE}={mode}"));
        say.ran(&format!("kubectl label namespace {NAMESPACE} {label}"));
        self.cluster.label_namespace(mode)
    }

    fn label(&self, say: &mut Narrator, pod: &str, mode: Option<&str>) -> Result<()> {
        let label = mode.map_or_else(|| format!("{MODE}-"), |mode| format!("{MODE}={mode}"));
        say.ran(&format!("kubectl -n {NAMESPACE} label pod {pod} {label}"));
        self.cluster.label(self.stage.pod(pod)?, mode)
    }

    /// Waits until the API says of both pods what it should, the agents have done so, and calls go the way they should; then so many
    /// more are made.
    fn settles(&self, say: &mut Narrator, expected: [Option<&str>; 2], is_tunnelled: bool) -> Result<()> {
        for (name, expected) in PODS.into_iter().zip(expected) {
            self.cluster.until_says(self.stage.pod(name)?, expected)?;
            say.saw(&format!("{name}: {REDIRECTION}={}", expected.unwrap_or_default()));
        }
        for (name, expected) in PODS.into_iter().zip(expected) {
            // On the way out a pod takes tunnels for a while after the API has said that it takes none.
            let word = if expected.is_some() { "captured" } else { "let go" };
            eventually_ok(&format!("{name} to be {word}"), LIMIT, || {
                let (entered, left) = turns(self.stage, name)?;
                ensure!(
                    entered - left == usize::from(expected.is_some()),
                    "{entered} times in, {left} times out"
                );
                Ok(())
            })?;
        }
        let way = if is_tunnelled { "through the tunnel" } else { "in plaintext" };
        let outcome = eventually_ok(way, LIMIT, || {
            // There is no moment without calls at which the wire could be told from what comes after it.
            let tap = self.stage.wire.tap()?;
            self.calls.answered(WATCHED)?;
            let is_readable = tap.any(|segment| has(segment.payload, NEW));
            let is_used =
                tap.any(|segment| segment.destination.port() == HBONE && !segment.payload.is_empty());
            let seen = (is_readable, is_used);
            ensure!(
                seen == (!is_tunnelled, is_tunnelled),
                "of new calls some are readable on the wire: {is_readable}; there are tunnels: {is_used}"
            );
            Ok(())
        });
        say.check(&format!("new calls go {way}"), outcome);
        let before = self.calls.made();
        self.calls.answered(ENOUGH)?;
        say.saw(&format!("{} calls more, {} so far", self.calls.made() - before, self.calls.made()));
        Ok(())
    }
}

fn has(bytes: &[u8], words: &str) -> bool {
    bytes.windows(words.len()).any(|window| window == words.as_bytes())
}

/// How often a pod has come in and left, by its agent's log.
fn turns(stage: &Stage, pod: &str) -> Result<(usize, usize)> {
    let (agent, of) = (stage.agent(pod)?, format!("pod={NAMESPACE}/{pod} "));
    // The later first: what comes in between the two looks has left nothing.
    let left = agent.log_lines(&["pod released", &of]).len();
    Ok((agent.log_lines(&["pod enrolled", &of]).len(), left))
}

fn none(failures: &[String]) -> Result<()> {
    let first = failures.first().cloned().unwrap_or_default();
    ensure!(failures.is_empty(), "expected none, saw {}, the first of them {first}", failures.len());
    Ok(())
}

/// What the client has to say, and the agents.
fn end(say: &mut Narrator, stage: &Stage, calls: &Calls<'_>) -> Result<()> {
    say.step("What the client noticed");
    say.saw(&format!(
        "{} calls on connections of their own ({NEW}), {} on one that was opened at the beginning ({KEPT})",
        calls.made(),
        calls.kept()
    ));
    say.check("no call has failed", none(&calls.failures()));
    for pod in PODS {
        say.equal(&format!("{pod} came in three times and left three times"), &turns(stage, pod)?, &(3, 3));
    }
    let enrolled = stage.agent("server")?.wait_for_log(&["pod enrolled"], LIMIT).context("the log")?;
    say.saw(&enrolled.replace('\t', " "));
    Ok(())
}
