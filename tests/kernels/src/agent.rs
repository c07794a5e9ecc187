//! An agent as far as capture knows one: a process of its own that captures a pod and accepts its connections.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context as _, Result, bail};
use linux::netns::Netns;
use redirect::{Attachment, Direction, NodeCapture, PodOptions, PodSockets};

use crate::call::{hear, line};
use crate::world::{HTTP, path_of};
use crate::{BPFFS, LIMIT};

/// The word by which this program is started as an agent.
pub(crate) const ROLE: &str = "agent";

/// With all that capture has.
pub(crate) const GUARDED: PodOptions =
    PodOptions { dns: false, bypass_inbound: false, guard: true, entrances: Vec::new() };

const READY: &str = "ready";
const INSPECT: &str = "inspect";
const RELEASE: &str = "release";
const DONE: &str = "done";

/// A running agent; it is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    /// What it calls itself.
    pub(crate) name: &'static str,
    child: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
}

impl Agent {
    /// Starts one and waits until it has captured the pod.
    pub(crate) fn start(name: &'static str, pod: &Netns) -> Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg(ROLE)
            .arg(name)
            .arg(path_of(pod))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting an agent")?;
        let orders = child.stdin.take().context("an agent without stdin")?;
        let said = child.stdout.take().context("an agent without stdout")?;
        let (sender, answers) = sync_channel(16);
        std::thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let agent = Self { name, child, orders, answers };
        agent.expect(READY)?;
        Ok(agent)
    }

    /// Has it look whether its capture is whole.
    pub(crate) fn inspect(&mut self) -> Result<()> {
        self.order(INSPECT)
    }

    /// Has it give the pod back.
    pub(crate) fn release(&mut self) -> Result<()> {
        self.order(RELEASE)
    }

    /// Ends it without giving it a chance to clean up.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn order(&mut self, order: &str) -> Result<()> {
        writeln!(self.orders, "{order}")?;
        self.expect(DONE)
    }

    fn expect(&self, wanted: &str) -> Result<()> {
        let said = self
            .answers
            .recv_timeout(LIMIT)
            .with_context(|| format!("agent {} did not say {wanted}", self.name))?;
        if said != wanted {
            bail!("agent {}: {said}", self.name);
        }
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The agent's own side: captures the pod in `netns` and obeys until its stdin ends.
pub(crate) fn serve(name: &str, netns: &Path) -> Result<()> {
    let node = NodeCapture::open(Path::new(BPFFS))?;
    let (attachment, mut listeners) = Attachment::attach_with(&node, Netns::open(netns)?, GUARDED, None)?;
    for direction in [Direction::Outbound, Direction::Plaintext, Direction::Hbone] {
        if let Some(listener) = listeners.take(direction) {
            accept(listener, direction, name, attachment.sockets())?;
        }
    }
    println!("{READY}");
    for order in io::stdin().lines() {
        match order?.as_str() {
            INSPECT => attachment.inspect(&node)?,
            RELEASE => {
                attachment.release(&node)?;
                attachment.put_back(&attachment.changed_sysctls())?;
            }
            other => bail!("{other} is no order"),
        }
        println!("{DONE}");
    }
    Ok(())
}

fn accept(
    listener: TcpListener,
    direction: Direction,
    name: &str,
    sockets: Arc<PodSockets>,
) -> io::Result<()> {
    listener.set_nonblocking(false)?;
    let who = who(direction, name);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that went away fails its own check.
            let _ = pass_on(stream, direction, &who, &sockets);
        }
    });
    Ok(())
}

/// How the agent of this name calls itself towards the clients of a listener.
pub(crate) fn who(direction: Direction, name: &str) -> String {
    let listener = match direction {
        Direction::Outbound => "outbound",
        Direction::Hbone => "hbone",
        Direction::Plaintext => "plaintext",
    };
    format!("{listener} of {name}")
}

/// Says its line, then carries the connection to where it was going, if that is of interest.
fn pass_on(mut stream: TcpStream, direction: Direction, who: &str, sockets: &PodSockets) -> io::Result<()> {
    let (local, peer) = (canonical(stream.local_addr()?), canonical(stream.peer_addr()?));
    stream.write_all(format!("{}\n", line(who, local, peer)).as_bytes())?;
    let next = match direction {
        Direction::Outbound if local.port() == HTTP => sockets.to_network(local)?,
        Direction::Plaintext => sockets.to_app(peer, local, 0)?,
        _ => return Ok(()),
    };
    let heard = fetch(next, local).unwrap_or_else(|error| vec![failed(&error)]);
    heard.iter().try_for_each(|line| stream.write_all(format!("{line}\n").as_bytes()))
}

/// The listeners take both families, and see IPv4 addresses in their mapped form.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The agent's line about a connection that it could not pass on.
pub(crate) fn failed(error: &io::Error) -> String {
    format!("error: {:?}", error.kind())
}

fn fetch(socket: socket2::Socket, to: SocketAddr) -> io::Result<Vec<String>> {
    socket.connect_timeout(&to.into(), LIMIT / 4)?;
    hear(socket.into())
}
