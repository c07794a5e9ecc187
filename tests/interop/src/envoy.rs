//! An Envoy in a pod: the real program, with its configuration and its log in files of the run.
//!
//! Ends with its handle; what survives that is found in the pod's namespace when the run is taken down.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use harness::wait::eventually_ok;
use harness::{Http, Pod, Reply, client, command, eventually, inside};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::LIMIT;
use crate::config::Bootstrap;

/// Administration, in the pod's namespace.
const ADMIN: ([u8; 4], u16) = ([127, 0, 0, 1], 15000);
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// How long a graceful drain waits before the listeners are closed, in seconds.
const DRAIN_SECONDS: &str = "3";

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    netns: PathBuf,
    child: Option<Child>,
    log: PathBuf,
}

impl Envoy {
    /// Starts it in a pod and waits until it serves.
    pub fn start(pod: &Pod, bootstrap: &Bootstrap) -> Result<Self> {
        let program = std::env::var_os("ENVOY_BIN")
            .context("ENVOY_BIN names no Envoy: `cargo xtask` installs one, and runs this with it")?;
        let program = std::path::absolute(program)?;
        let dir = pod.node().run().dir();
        let config = dir.join(format!("{}.envoy.json", pod.name()));
        fs::write(&config, serde_json::to_vec_pretty(&bootstrap.to_json(pod.name(), ADMIN.into()))?)?;
        let log = dir.join(format!("{}.envoy.log", pod.name()));
        let output = File::options().create(true).append(true).open(&log)?;
        let mut command = command::in_netns(pod.netns(), &program);
        command.arg("--config-path").arg(&config);
        command.args(["--concurrency", "1", "--log-level", "warning", "--disable-hot-restart"]);
        command.args(["--file-flush-interval-msec", "50"]);
        command.args(["--drain-time-s", DRAIN_SECONDS, "--drain-strategy", "immediate"]);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let mut envoy = Self { netns: pod.netns().to_owned(), child: Some(child), log };
        envoy.wait_ready(pod.name())?;
        Ok(envoy)
    }

    fn wait_ready(&mut self, name: &str) -> Result<()> {
        let ready = eventually_ok(&format!("the Envoy of {name} to be ready"), LIMIT, || {
            if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                return Ok(Err(status));
            }
            let reply = self.admin("GET", "/ready")?;
            ensure!(reply.status == 200, "{} {}", reply.status, reply.body.trim());
            Ok(Ok(()))
        })?;
        ready.map_err(|status| anyhow::anyhow!("the Envoy of {name} ended: {status}:\n{}", self.log()))
    }

    /// A request to its administration port.
    pub fn admin(&self, method: &str, path: &str) -> Result<Reply> {
        let to = SocketAddr::from(ADMIN);
        let stream = inside::in_netns(&self.netns, || client::connect(to, client::LIMIT))?;
        Http::new(stream.with_context(|| format!("{to}"))?)?.request(method, path, &[])
    }

    /// The value of a counter or gauge; 0 if there is none yet.
    pub fn stat(&self, name: &str) -> Result<u64> {
        let reply =
            self.admin("GET", "/stats?type=Counters")?.body + &self.admin("GET", "/stats?type=Gauges")?.body;
        let value = reply.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.map_or(Ok(0), |value| Ok(value.trim().parse()?))
    }

    /// Waits until a counter or gauge is as wanted.
    pub fn wait_stat(&self, name: &str, wanted: impl Fn(u64) -> bool) -> Result<u64> {
        eventually_ok(&format!("{name} of Envoy"), LIMIT, || {
            let value = self.stat(name)?;
            if wanted(value) { Ok(value) } else { bail!("it is {value}") }
        })
    }

    /// Tells its clients to go elsewhere, and closes its listeners after a while; what runs goes on.
    pub fn drain(&self) -> Result<()> {
        let reply = self.admin("POST", "/drain_listeners?graceful")?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.body.trim());
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits for that.
    pub fn stop(&mut self) -> Result<()> {
        let mut child = self.child.take().context("Envoy is not running")?;
        signal::kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)?;
        command::wait(&mut child, STOP_LIMIT).context("Envoy after SIGTERM").map(drop)
    }

    /// All it has written.
    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// Waits for a line of the log that contains all of `parts`.
    pub fn wait_for_log(&self, parts: &[&str]) -> Result<String> {
        eventually(&format!("a line with {parts:?} in Envoy's log"), LIMIT, || {
            let log = self.log();
            log.lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned)
        })
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What the Envoys of a run have written, by name, without their start-up.
pub fn logs(dir: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let logs = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        Some((format!("Envoy of {}", name.strip_suffix(".envoy.log")?), read(&entry.path())))
    });
    logs.collect()
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
