//! A process in a pod: `pod-app` with one of its roles. Ends with its handle.

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
        child.args(words).stdin(Stdio::null()).stdout(Stdio::null());
        let child =
            child.spawn().with_context(|| format!("starting {} in {}", program.display(), pod.name()))?;
        Ok(Self { child: Some(child) })
    }

    /// As [`Self::start`], then waits until `port` is listened on in the pod.
    ///
    /// Looks at the kernel's socket list: a probing connection would be one more on the wire and in the counters.
    pub fn listening(pod: &Pod, words: &[&str], port: u16) -> Result<Self> {
        let mut app = Self::start(pod, words)?;
        let needle = format!(":{port:04X} 00000000000000000000000000000000:0000 0A");
        let mut ended = None;
        eventually(&format!("{words:?} listening in {}", pod.name()), START_LIMIT, || {
            ended = app.child.as_mut()?.try_wait().ok().flatten();
            let sockets =
                inside::in_netns(pod.netns(), || std::fs::read_to_string("/proc/thread-self/net/tcp6"));
            (ended.is_some() || sockets.ok()?.ok()?.contains(&needle)).then_some(())
        })?;
        if let Some(status) = ended {
            bail!("pod-app {words:?} in {} ended at once: {status}; see stderr above", pod.name());
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

impl Drop for App {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
