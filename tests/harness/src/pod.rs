//! A pod: a namespace that was connected through a conflist, and what a client in it does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::app::App;
use crate::client::{self, Attempt, Http, Reply};
use crate::cni::{CniError, Conflist, Sandbox};
use crate::inside;
use crate::node::Node;
use crate::run::find_tool;

/// A connected pod. Its namespace lives until it is removed or the run ends.
#[derive(Debug)]
pub struct Pod {
    node: Node,
    sandbox: Sandbox,
    conflist: Conflist,
    result: Value,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
}

impl Pod {
    pub(crate) fn new(node: Node, sandbox: Sandbox, conflist: Conflist, result: Value) -> Result<Self> {
        let ips: Vec<IpAddr> = result
            .get("ips")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|ip| ip.get("address")?.as_str()?.split('/').next()?.parse().ok())
            .collect();
        let ipv4 = ips.iter().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None });
        let ipv6 = ips.iter().find_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None });
        let (ipv4, ipv6) =
            ipv4.zip(ipv6).with_context(|| format!("a pod needs both families, got {result}"))?;
        Ok(Self { node, sandbox, conflist, result, ipv4, ipv6 })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.sandbox.name
    }

    /// Its Kubernetes namespace.
    pub fn namespace(&self) -> &str {
        &self.sandbox.namespace
    }

    /// Path of its network namespace.
    pub fn netns(&self) -> &Path {
        &self.sandbox.netns
    }

    /// The node it is on.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Its IPv4 address.
    pub fn ipv4(&self) -> Ipv4Addr {
        self.ipv4
    }

    /// Its IPv6 address.
    pub fn ipv6(&self) -> Ipv6Addr {
        self.ipv6
    }

    /// Both addresses, IPv4 first.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.ipv4.into(), self.ipv6.into()]
    }

    /// What the conflist answered to ADD.
    pub fn result(&self) -> &Value {
        &self.result
    }

    /// What a runtime would call it by.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// CHECK of its conflist.
    pub fn check(&self) -> Result<(), CniError> {
        self.conflist.check(&self.sandbox, &self.result)
    }

    /// DEL of its conflist, as a runtime sends it: with the namespace there, and again when it is gone.
    pub fn remove(&self) -> Result<(), CniError> {
        self.conflist.del(&self.sandbox, Some(&self.result))?;
        self.delete_netns()?;
        let gone = Sandbox { netns: "".into(), ..self.sandbox.clone() };
        self.conflist.del(&gone, None)
    }

    /// Deletes its network namespace without a word to anybody.
    pub fn delete_netns(&self) -> Result<()> {
        crate::command::ip(&format!("netns del {}", crate::wire::name_of(self.netns()))).map(drop)
    }

    /// Runs code of this process in the pod's network namespace.
    pub fn inside<T: Send>(&self, code: impl FnOnce() -> T + Send) -> Result<T> {
        inside::in_netns(self.netns(), code)
    }

    /// Starts a program in the pod.
    pub fn start(&self, words: &[&str]) -> Result<App> {
        App::start(self, words)
    }

    /// Starts the HTTP server of `pod-app`, and waits until it listens.
    pub fn serve_http(&self, port: u16) -> Result<App> {
        App::listening(self, &["serve-http", "--name", self.name(), "--port", &port.to_string()], port)
    }

    /// Starts the echo server of `pod-app`, and waits until it listens.
    pub fn serve_echo(&self, port: u16) -> Result<App> {
        App::listening(self, &["echo", "--port", &port.to_string()], port)
    }

    /// Connects from the pod.
    pub fn connect(&self, to: SocketAddr, limit: Duration) -> Result<std::io::Result<TcpStream>> {
        self.inside(|| client::connect(to, limit))
    }

    /// One request on a connection of its own, whatever comes of it.
    pub fn attempt(&self, to: SocketAddr, path: &str) -> Result<Attempt> {
        Ok(client::attempt(self.connect(to, client::LIMIT)?, path))
    }

    /// One request that must be answered.
    pub fn get(&self, to: SocketAddr, path: &str) -> Result<Reply> {
        self.open_http(to)?.get(path)
    }

    /// A connection for several requests.
    pub fn open_http(&self, to: SocketAddr) -> Result<Http> {
        let context = || format!("{}/{} connecting to {to}", self.namespace(), self.name());
        Http::new(self.connect(to, client::LIMIT)?.with_context(context)?)
    }

    /// A program found in `PATH`, as a command that runs in the pod.
    pub fn command(&self, program: &str) -> Result<std::process::Command> {
        let found = find_tool(program).with_context(|| format!("{program} is not installed"))?;
        Ok(crate::command::in_netns(self.netns(), &found))
    }
}
