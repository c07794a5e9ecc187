//! What a pod costs: time to enrol and release it, kernel memory, and whether the number of pods slows connections down.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::Run;
use linux::netns::Netns;
use redirect::{Attachment, Direction, Listeners, NodeCapture};

use super::lane::{Lanes, Leg, Variant};
use super::memory::{Group, Usage};
use super::paths::Effort;
use super::site::{Site, lone_pod};
use crate::load;
use crate::stats::Spread;

/// Nobody's addresses (RFC 5737, RFC 3849), one a family.
const PROBES: [&str; 2] = ["192.0.2.1:15008", "[2001:db8::1]:15008"];
const ANSWER: &[u8; 8] = b"culvert\n";
/// Longer than the agent takes to answer itself on a loaded machine.
const LIMIT: Duration = Duration::from_secs(5);

/// The outcome.
pub(crate) struct Outcome {
    pub(crate) enrol: Vec<Duration>,
    pub(crate) release: Vec<Duration>,
    /// Pods that the memory was shared by.
    pub(crate) pods: u64,
    pub(crate) memory: Usage,
    /// For each leg and number of pods, the ratio of the connection rate to that of one pod alone.
    pub(crate) scale: Vec<(Leg, usize, Spread)>,
}

/// Pods to enrol, and how long that and the contrary took.
struct Crowd<'a> {
    node: &'a NodeCapture,
    namespaces: Vec<Netns>,
    enrolled: Vec<(Attachment, Listeners)>,
    enrol: Vec<Duration>,
    release: Vec<Duration>,
}

/// Measures with up to `most` pods.
pub(crate) fn measure(run: &Run, node: &NodeCapture, counts: &[usize], effort: Effort) -> Result<Outcome> {
    let most = counts.iter().copied().max().unwrap_or(1);
    let site = Site::new(run, "first", 9)?;
    let namespaces = (1..most).map(|number| lone_pod(run, number)).collect::<Result<_>>()?;
    let mut crowd = Crowd { node, namespaces, enrolled: Vec::new(), enrol: Vec::new(), release: Vec::new() };
    let (_first, mut listeners) = crowd.enrol(&site.pod)?;
    let mut lanes = Lanes::default();
    lanes.add_captured(&site, &mut listeners)?;
    // What the first pod makes once for all is not of the others.
    crowd.bring_to(2)?;
    let memory = crowd.memory(most)?;
    let scale = scale(&mut crowd, &lanes, counts, effort)?;
    crowd.bring_to(1)?;
    let pods = most.saturating_sub(2) as u64;
    Ok(Outcome { enrol: crowd.enrol, release: crowd.release, pods, memory, scale })
}

fn scale(
    crowd: &mut Crowd<'_>,
    lanes: &Lanes,
    counts: &[usize],
    effort: Effort,
) -> Result<Vec<(Leg, usize, Spread)>> {
    let legs = [Leg::Outbound, Leg::Inbound];
    let mut ratios: Vec<(Leg, usize, f64)> = Vec::new();
    for round in 0..effort.rounds {
        let mut order = counts.to_vec();
        if round % 2 == 1 {
            order.reverse();
        }
        let mut rates: Vec<(Leg, usize, f64)> = Vec::new();
        for count in order {
            crowd.bring_to(count)?;
            for leg in legs {
                let lane = lanes.find(leg, Variant::Culvert).context("a captured lane")?;
                // Enrolling has made us the agent; here we are an application.
                crowd.node.dismiss()?;
                let guard = lane.stand.as_ref().map(Netns::enter).transpose()?;
                rates.push((leg, count, load::rate(&lane.connect, effort.slice)?));
                drop(guard);
            }
        }
        for (leg, count, rate) in &rates {
            let alone = rates.iter().find(|(l, c, _)| l == leg && *c == 1).context("the rate of one pod")?;
            ratios.push((*leg, *count, rate / alone.2));
        }
    }
    let of = |leg, count| {
        let own = ratios.iter().filter(|(l, c, _)| (*l, *c) == (leg, count));
        (leg, count, Spread::of(own.map(|(_, _, ratio)| *ratio).collect()))
    };
    let many = counts.iter().filter(|count| **count > 1);
    Ok(many.flat_map(|count| legs.map(|leg| of(leg, *count))).collect())
}

impl Crowd<'_> {
    /// Enrols or releases until `count` pods are enrolled; the first one, which has lanes, always is.
    fn bring_to(&mut self, count: usize) -> Result<()> {
        let wanted = count.saturating_sub(1);
        while self.enrolled.len() > wanted {
            let Some((attachment, listeners)) = self.enrolled.pop() else { break };
            self.leave(attachment, listeners)?;
        }
        while self.enrolled.len() < wanted {
            let next = self.namespaces.get(self.enrolled.len()).context("more pods than namespaces")?;
            let next = next.try_clone()?;
            let enrolled = self.enrol(&next)?;
            self.enrolled.push(enrolled);
        }
        Ok(())
    }

    fn enrol(&mut self, netns: &Netns) -> Result<(Attachment, Listeners)> {
        let own = netns.try_clone()?;
        let begin = Instant::now();
        let (attachment, listeners) = Attachment::attach(self.node, own)?;
        for probe in PROBES {
            verify(&attachment, &listeners, probe.parse()?)?;
        }
        self.enrol.push(begin.elapsed());
        Ok((attachment, listeners))
    }

    fn leave(&mut self, attachment: Attachment, listeners: Listeners) -> Result<()> {
        let begin = Instant::now();
        attachment.release(self.node)?;
        drop(listeners);
        attachment.put_back(&attachment.changed_sysctls())?;
        drop(attachment);
        self.release.push(begin.elapsed());
        Ok(())
    }

    /// What the pods from the third on hold of the kernel's memory.
    fn memory(&mut self, most: usize) -> Result<Usage> {
        let group = Group::join()?;
        let before = group.settled()?;
        self.bring_to(most)?;
        let after = group.settled()?;
        Ok(Usage {
            group: after.group.saturating_sub(before.group),
            machine: after.machine.saturating_sub(before.machine),
        })
    }
}

/// A connection to nobody's address, made in the pod, is answered by the listener. One thread plays both ends.
fn verify(attachment: &Attachment, listeners: &Listeners, probe: SocketAddr) -> Result<()> {
    let socket = attachment.sockets().as_application(probe).context("a probe")?;
    socket.connect_timeout(&probe.into(), LIMIT).context("a probe")?;
    let mut client = TcpStream::from(socket);
    let own = listeners.iter().find(|(direction, _)| *direction == Direction::Outbound);
    let (_, listener): (_, &TcpListener) = own.context("the listener of outbound connections")?;
    let (mut server, _) = listener.accept().context("accepting a probe")?;
    let asked = server.local_addr()?;
    let asked = SocketAddr::new(asked.ip().to_canonical(), asked.port());
    ensure!(asked == probe, "the listener took another connection than the probe");
    server.write_all(ANSWER)?;
    client.set_read_timeout(Some(LIMIT))?;
    let mut answer = [0; ANSWER.len()];
    client.read_exact(&mut answer)?;
    ensure!(answer == *ANSWER, "the probe was answered by somebody else");
    Ok(())
}
