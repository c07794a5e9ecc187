//! A storm: the turns of a plan, one after the other, on a world under load; then calm, and what must be so again.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use harness::client::{self, Attempt};
use harness::wait::eventually_ok;
use harness::{Node, eventually};

use crate::fault::{Fault, NodeNumber};
use crate::impairment::Rates;
use crate::levels::Levels;
use crate::load::{Counts, Load, Size, Way};
use crate::plan::{Turn, plan};
use crate::watch::{CONTROL, Watch};
use crate::world::{HTTP, LIMIT, World};

/// What both agents can bear while everything fails around them, on two cores.
const SIZE: Size = Size { rate: 15, workers: 8, kept: 10 };
/// Of the whole time, what is for the calm at both ends.
const CALM: Duration = Duration::from_secs(60);
/// How long the load goes on before anything fails.
const BEFORE: Duration = Duration::from_secs(5);
/// Connections in a row that must succeed when calm is back.
const IN_A_ROW: u64 = 100;
/// What comes of all limits together, and of what an allocator gives back by and by.
const SETTLED: Duration = Duration::from_secs(120);
/// Descriptors that come and go with threads of blocking work, of which each holds the namespace that it is at home in.
const COMING_AND_GOING: usize = 4;
/// How long a pod that is about to be lost waits for a connection.
const CONNECT: Duration = Duration::from_secs(2);
const USUAL_MTU: u16 = 1500;
/// Fills what is left of a disk.
const FILLER: &str = "filler";

/// A storm of this length, made of this seed. The agents' logs are copied to a directory if one is given, however it ends.
pub fn rage(seed: u64, length: Duration, logs: Option<&Path>) -> Result<()> {
    let Some(span) = length.checked_sub(CALM).filter(|span| !span.is_zero()) else {
        bail!("a storm takes more than {CALM:?}");
    };
    let turns = plan(seed, span);
    println!("  {} faults in {span:?}; the same again: --seed {seed}", turns.len());
    let mut world = World::new(seed, true)?;
    let outcome = weather(&mut world, &turns);
    logs.map_or(Ok(()), |to| world.save_logs(to))?;
    outcome
}

fn weather(world: &mut World, turns: &[Turn]) -> Result<()> {
    let watch = Watch::start(world.wire.netns())?;
    until_it_sees(world, &watch)?;
    clocks_obey(world)?;
    let (ways, denied) = (ways(world), denied(world));
    // What there is at first grows with the first load.
    let load = Load::start(&ways, &denied, SIZE)?;
    goes_on(&load.counts, IN_A_ROW)?;
    load.end()?.check()?;
    let before = at_rest(world)?;
    let load = Load::start(&ways, &denied, SIZE)?;
    std::thread::sleep(BEFORE);
    let mut kept = Doomed::default();
    blow(world, turns, (&load, &watch), &mut kept)?;
    calm(world)?;
    succeeds(&load.counts).context("after the storm")?;
    let counts = load.end()?;
    counts.check()?;
    // What is left of the pods that were lost goes now.
    drop(kept);
    tell(&counts, &watch);
    ensure!(Counts::now(&counts.denied) > 0, "nobody tried what is denied");
    levels_are_back(world, &before)?;
    served_when_allowed(world)?;
    world.agents_live()?;
    watch.finish()
}

/// The ways of the load.
pub fn ways(world: &World) -> Vec<Way> {
    vec![
        Way { from: world.left.clone(), to: world.to_right(), server: "right" },
        Way { from: world.right.clone(), to: world.to_left(), server: "left" },
    ]
}

/// The ways on which nobody may be served.
pub fn denied(world: &World) -> Vec<Way> {
    let to = || world.to_right().into_iter().chain(world.to_left()).collect();
    [&world.stranger, &world.plain]
        .map(|from| Way { from: from.clone(), to: to(), server: "nobody" })
        .to_vec()
}

/// Waits until the watch has seen plaintext that is sent on purpose: it would see that of others.
pub fn until_it_sees(world: &World, watch: &Watch) -> Result<()> {
    // A datagram, which nobody captures or refuses.
    let socket = world.plain.inside(|| UdpSocket::bind("0.0.0.0:0"))??;
    eventually("the watch to see what is sent in plaintext", LIMIT, || {
        socket.send_to(CONTROL.as_bytes(), (world.right.ipv4(), HTTP)).ok()?;
        (watch.controls() > 0).then_some(())
    })
}

/// Waits until both agents have said that their clocks were set: a build that cannot do that would make a fault of nothing.
fn clocks_obey(world: &mut World) -> Result<()> {
    for (number, ahead) in [(0, 1), (1, 1), (0, 0), (1, 0)] {
        world.set_clock(number, ahead)?;
        let told = format!("ahead_secs={ahead}");
        world.place(number)?.agent.wait_for_log(&["the wall clock of this process is set", &told], LIMIT)?;
    }
    Ok(())
}

/// Waits until so many more connections were served.
pub fn goes_on(counts: &Counts, more: u64) -> Result<()> {
    let goal = Counts::now(&counts.served) + more;
    eventually("connections to be served", LIMIT * 2, || (Counts::now(&counts.served) >= goal).then_some(()))
}

/// Waits until so many were served that none failed meanwhile.
fn succeeds(counts: &Counts) -> Result<()> {
    let (mut served, mut failed) = (Counts::now(&counts.served), Counts::now(&counts.failed));
    eventually("connections to succeed one after the other", LIMIT * 2, || {
        let now = Counts::now(&counts.failed);
        if now != failed {
            (served, failed) = (Counts::now(&counts.served), now);
        }
        (Counts::now(&counts.served) >= served + IN_A_ROW).then_some(())
    })
}

/// The levels of both agents once they change no more.
pub fn at_rest(world: &World) -> Result<[Levels; 2]> {
    let levels = || -> Result<[Levels; 2]> {
        let [one, other] = &world.places;
        Ok([Levels::of(&one.agent, &one.node)?, Levels::of(&other.agent, &other.node)?])
    };
    let mut last: Option<([Levels; 2], Instant)> = None;
    eventually_ok("the agents to be at rest", SETTLED, || {
        let now = levels()?;
        let same = |(one, other): (&Levels, &Levels)| {
            one.descriptors.abs_diff(other.descriptors) <= COMING_AND_GOING && one.rows == other.rows
        };
        match &last {
            // Longer than any limit of theirs for what is unused.
            Some((before, since)) if before.iter().zip(&now).all(same) => {
                ensure!(since.elapsed() >= Duration::from_secs(8), "not for long yet");
                Ok(now)
            }
            _ => {
                last = Some((now, Instant::now()));
                bail!("they were different just now")
            }
        }
    })
}

/// Connections of pods whose namespaces have lost their names, and live on with these.
#[derive(Default)]
struct Doomed(Vec<TcpStream>);

/// Plays the plan. Whatever must never be ends it at once.
fn blow(world: &mut World, turns: &[Turn], (load, watch): (&Load, &Watch), kept: &mut Doomed) -> Result<()> {
    let ends = turns.iter().map(|turn| (turn.ends, false, turn.fault));
    let mut events: Vec<_> = turns.iter().map(|turn| (turn.begins, true, turn.fault)).chain(ends).collect();
    // Where one ends as another begins, the end comes first.
    events.sort_by_key(|(at, begins, _)| (*at, *begins));
    let began = Instant::now();
    for (at, begins, fault) in events {
        std::thread::sleep(at.saturating_sub(began.elapsed()));
        let word = if begins { "" } else { "over: " };
        println!("  {:6.1} s  {word}{fault}", began.elapsed().as_secs_f64());
        let done = if begins { inflict(world, fault, kept) } else { heal(world, fault) };
        done.with_context(|| format!("{word}{fault}"))?;
        load.counts.check()?;
        watch.check()?;
        world.agents_live()?;
    }
    Ok(())
}

fn inflict(world: &mut World, fault: Fault, kept: &mut Doomed) -> Result<()> {
    match fault {
        Fault::AgentKilled(node) => world.place(node)?.agent.kill9(),
        Fault::AgentReplaced(node) => {
            let place = world.place(node)?;
            // One that still serves what it had is killed with its handle.
            place.old = Some(place.agent.succeed()?);
            Ok(())
        }
        Fault::PlaneKilled => world.plane.kill9(),
        Fault::AuthorityKilled => world.authority.kill9(),
        Fault::LinkDown(node) => world.set_link(node, false),
        Fault::Lost(node, lost) => spoil(world, node, Rates { lost, ..Rates::default() }),
        Fault::Doubled(node, doubled) => spoil(world, node, Rates { doubled, ..Rates::default() }),
        Fault::Reordered(node, late) => spoil(world, node, Rates { late, ..Rates::default() }),
        Fault::SmallPackets(node, mtu) => world.set_mtu(node, mtu),
        Fault::NamespaceGone => {
            let to = (world.right.ipv4(), HTTP).into();
            let pod = world.doomed.take().context("a pod to lose")?;
            // With a connection in it, if it gets one, which keeps the namespace alive for longer than its name.
            let open = pod.connect(to, CONNECT)?.ok();
            pod.delete_netns()?;
            kept.0.extend(open);
            Ok(())
        }
        Fault::DiskFull(node) => fill(&world.place(node)?.node),
        Fault::ClockSet(node, ahead) => world.set_clock(node, ahead),
    }
}

fn heal(world: &mut World, fault: Fault) -> Result<()> {
    match fault {
        Fault::AgentKilled(node) => world.place(node)?.agent.start_anew(),
        Fault::AgentReplaced(node) => settle_replacement(world, node),
        Fault::PlaneKilled => world.plane.restart(),
        Fault::AuthorityKilled => world.authority.restart(),
        Fault::LinkDown(node) => world.set_link(node, true),
        Fault::Lost(node, _) | Fault::Doubled(node, _) | Fault::Reordered(node, _) => {
            world.place(node)?.impairment.clear()
        }
        Fault::SmallPackets(node, _) => world.set_mtu(node, USUAL_MTU),
        Fault::NamespaceGone => world.add_doomed(),
        Fault::DiskFull(node) => empty(&world.place(node)?.node),
        Fault::ClockSet(node, _) => world.set_clock(node, 0),
    }
}

fn spoil(world: &mut World, node: NodeNumber, rates: Rates) -> Result<()> {
    world.place(node)?.impairment.set(rates)
}

/// The old agent has had its time. If the new one has not taken over by then, as without a control plane, it is killed all the
/// same, and the new one, which waits, serves alone.
fn settle_replacement(world: &mut World, node: NodeNumber) -> Result<()> {
    let place = world.place(node)?;
    if let Some(mut old) = place.old.take() {
        old.kill9()?;
    }
    ensure!(
        place.agent.exited()?.is_none(),
        "the agent that was to take over has ended:\n{}",
        place.agent.log()
    );
    Ok(())
}

fn filler(node: &Node) -> PathBuf {
    node.agent_dir().join(FILLER)
}

/// Writes until nothing more is taken, with ever smaller pieces.
fn fill(node: &Node) -> Result<()> {
    let mut file = File::create(filler(node))?;
    for size in [1 << 20, 4 << 10, 1] {
        let piece = vec![0; size];
        while file.write_all(&piece).is_ok() {}
    }
    Ok(())
}

fn empty(node: &Node) -> Result<()> {
    fs::remove_file(filler(node)).context("making room")
}

/// Waits until everything is whole again.
fn calm(world: &mut World) -> Result<()> {
    println!("  calm");
    for place in &mut world.places {
        place.agent.wait_ready()?;
    }
    world.until_enrolled()
}

/// Waits until the agents hold no more than before.
fn levels_are_back(world: &World, before: &[Levels; 2]) -> Result<()> {
    for (place, before) in world.places.iter().zip(before) {
        let now = eventually_ok("an agent to hold no more than before", SETTLED, || {
            let now = Levels::of(&place.agent, &place.node)?;
            now.are_back(before).with_context(|| format!("agent of {}", place.node.name()))?;
            Ok(now)
        });
        println!("  {}: before {before}; after {}", place.node.name(), now?);
    }
    Ok(())
}

/// It was policy that denied the stranger, and nothing else: once it allows it, it is served.
fn served_when_allowed(world: &mut World) -> Result<()> {
    world.allow_all()?;
    let to = (world.right.ipv4(), HTTP).into();
    eventually("the stranger to be served once it is allowed", LIMIT, || {
        let connected = world.stranger.connect(to, client::LIMIT).ok()?;
        matches!(client::attempt(connected, "/now-allowed"), Attempt::Answered(reply) if reply.status == 200)
            .then_some(())
    })
}

fn tell(counts: &Counts, watch: &Watch) {
    let now = Counts::now;
    let (frames, bytes) = watch.seen();
    println!(
        "  {} connections served and {} not; {} exchanges on kept ones, made anew {} times; {} denied; {frames} frames, \
         {} MiB watched",
        now(&counts.served),
        now(&counts.failed),
        now(&counts.exchanged),
        now(&counts.renewed),
        now(&counts.denied),
        bytes >> 20,
    );
}
