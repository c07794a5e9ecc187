//! A process in a pod: `pod-app` with one of its roles. Ends with its handle.
//!
//! Its stderr goes to a file: a program that is left standing must not hold on to the terminal or pipe of this process.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::command;
use crate::inside;
use crate::node::binary;
use crate::pod::Pod;
use crate::wait::eventually;

const START_LIMIT: Duration = Duration::from_secs(10);

/// A running program; killed on drop.
#[derive(Debug)]
pub struct App {
    child: Option<Child>,
}

impl App {
    /// Starts `pod-app` with these words in the pod.
    pub fn start(pod: &Pod, words: &[&str]) -> Result<Self> {
        let program = binary("POD_APP_BIN", "pod-app")?;
        let mut child = command::in_netns(pod.netns(), &program);
        let errors = File::options().create(true).append(true).open(errors_of(pod))?;
        child.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let child =
            child.spawn().with_context(|| format!("starting {} in {}", program.display(), pod.name()))?;
        Ok(Self { child: Some(child) })
    }

    /// As [`Self::start`], then waits until `port` is listened on in the pod.
    ///
    /// Looks at the kernel's socket list: a probing connection would be one more on the wire and in the counters.
    pub fn listening(pod: &Pod, words: &[&str], port: u16) -> Result<Self> {
        if is_listening(pod, port)? {
            bail!("port {port} of {} is in use already", pod.name());
        }
        let mut app = Self::start(pod, words)?;
        let mut ended = None;
        eventually(&format!("{words:?} listening in {}", pod.name()), START_LIMIT, || {
            ended = app.child.as_mut()?.try_wait().ok().flatten();
            (ended.is_some() || is_listening(pod, port).ok()?).then_some(())
        })?;
        if let Some(status) = ended {
            let errors = std::fs::read_to_string(errors_of(pod)).unwrap_or_default();
            bail!("pod-app {words:?} in {} ended at once: {status}: {}", pod.name(), errors.trim());
        }
        Ok(app)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map(Child::id).unwrap_or_default()
    }

    /// Lets it live on after this handle and this process, until its namespace is taken down.
    pub fn detach(mut self) {
        self.child = None;
    }
}

/// Is there a listener on all addresses of the pod?
fn is_listening(pod: &Pod, port: u16) -> Result<bool> {
    let sockets = inside::in_netns(pod.netns(), || std::fs::read_to_string("/proc/thread-self/net/tcp6"))??;
    Ok(sockets.contains(&format!(":{port:04X} 00000000000000000000000000000000:0000 0A")))
}

/// Where the stderr of a pod's programs goes.
fn errors_of(pod: &Pod) -> PathBuf {
    pod.node().run().dir().join(format!("{}-{}.stderr", pod.node().name(), pod.name()))
}

impl Drop for App {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
