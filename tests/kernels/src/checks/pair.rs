//! The agent itself, twice, with a pod each.
//!
//! In the guests alone: there is the agent's program beside this one.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use linux::netlink::{loopback_up, veth};
use linux::netns::Netns;

use crate::guest;
use crate::world::{DEVICE, Family, path_of};

/// Where the agents have their files and pins.
const FILES: &str = "/run/culvert-pair";
const PINS: &str = "/sys/fs/bpf/culvert-pair";
/// Where an agent says whether it is ready.
const READINESS: u16 = 15021;
/// Connections that a pod may have.
const MOST: &str = "30000";
/// What they log: why a tunnel ended, too.
const LOG: &str = "info,tunnel:hbone=debug,tunnel:inbound=debug";
/// Lines of a log that are shown when something has failed.
const LINES: usize = 40;
/// Longest wait for an agent to be ready, or for an exchange: the processor is emulated, and the wire may be bad.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) const LEFT: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 78, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 1))];
pub(super) const RIGHT: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 78, 0, 2)), IpAddr::V6(Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 2))];
/// The other end of the wire.
pub(super) const OTHER_DEVICE: &str = "eth1";

/// Two pods, each on a node with an agent of its own, and a wire between them.
pub(super) struct Pair {
    /// The families that the kernel has.
    pub(super) families: &'static [Family],
    pub(super) left: Netns,
    pub(super) right: Netns,
    /// Those of the left one and the right one.
    pub(super) agents: Vec<Agent>,
}

impl Pair {
    /// Both pods, and no agent yet.
    pub(super) fn new(families: &'static [Family]) -> Result<Self> {
        let (left, right) = (Netns::create()?, Netns::create()?);
        let prefixed = |both: [IpAddr; 2]| -> Vec<(IpAddr, u8)> {
            families.iter().zip([24, 64]).map(|(family, prefix)| (family.of(both, 0).ip(), prefix)).collect()
        };
        loopback_up(&left)?;
        loopback_up(&right)?;
        veth::connect(
            veth::End { netns: &left, name: DEVICE, addresses: &prefixed(LEFT) },
            veth::End { netns: &right, name: OTHER_DEVICE, addresses: &prefixed(RIGHT) },
        )?;
        Ok(Self { families, left, right, agents: Vec::new() })
    }

    /// Has them captured by agents that have one authority.
    pub(super) fn start_agents(&mut self) -> Result<()> {
        let families = self.families;
        let ips = |both: [IpAddr; 2]| {
            let texts: Vec<_> =
                families.iter().map(|family| format!("\"{}\"", family.of(both, 0).ip())).collect();
            texts.join(", ")
        };
        let workloads: String = [("left", LEFT), ("right", RIGHT)]
            .map(|(name, both)| {
                format!(
                    "- {{uid: Kubernetes//Pod/demo/{name}, name: {name}, namespace: demo, serviceAccount: {name}, \
                     protocol: HBONE, node: {name}, workloadIps: [{}]}}\n",
                    ips(both)
                )
            })
            .concat();
        let agents = [("left", &self.left), ("right", &self.right)].map(|(name, pod)| {
            let directory = Path::new(FILES).join(name);
            std::fs::create_dir_all(&directory)?;
            let mesh = format!(
                "ca: {{dir: {FILES}/ca}}\nenroll:\n- {{name: {name}, namespace: demo, serviceAccount: {name}, netns: {}}}\n\
                 workloads:\n{workloads}",
                path_of(pod).display()
            );
            std::fs::write(directory.join("mesh.yaml"), mesh)?;
            Agent::start(name)
        });
        self.agents = agents.into_iter().collect::<Result<_>>()?;
        self.agents.iter_mut().try_for_each(Agent::wait_ready)
    }
}

/// The agent's program, on a node of its own.
pub(super) struct Agent {
    pub(super) name: &'static str,
    node: Netns,
    child: Child,
}

impl Agent {
    fn start(name: &'static str) -> Result<Self> {
        let (node, directory) = (Netns::create()?, Path::new(FILES).join(name));
        loopback_up(&node)?;
        let log = std::fs::File::create(directory.join("log"))?;
        let mut command = Command::new(guest::AGENT);
        // One pod has all that there are.
        command
            .args(["run", "--log", LOG, "--max-connections-per-pod", MOST, "--node", name, "--mesh"])
            .arg(directory.join("mesh.yaml"));
        command.arg("--run-dir").arg(&directory).arg("--bpffs").arg(Path::new(PINS).join(name));
        command.stdout(log.try_clone()?).stderr(log);
        let child = node.run(|| command.spawn())?.context("starting the agent")?;
        Ok(Self { name, node, child })
    }

    fn wait_ready(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while !self.is_ready() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > end {
                let log = std::fs::read_to_string(Path::new(FILES).join(self.name).join("log"))?;
                bail!("the agent {} is not ready ({ended:?}):\n{log}", self.name);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The last lines that it has logged, those of connections left out.
    pub(super) fn tail(&self) -> Result<String> {
        let log = std::fs::read_to_string(Path::new(FILES).join(self.name).join("log"))?;
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("connection complete")).collect();
        Ok(lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n"))
    }

    /// How many descriptors it holds.
    pub(super) fn descriptors(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }

    /// Memory that it has for itself, in KiB.
    pub(super) fn memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    fn is_ready(&self) -> bool {
        let asked = self.node.run(|| -> std::io::Result<String> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, READINESS))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"GET /healthz/ready HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        });
        asked.is_ok_and(|answer| answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
