//! One call of a plugin, as a runtime makes it, and how long it took from the start of the process to its end.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use harness::{Node, Pod, cni};
use serde_json::{Value, json};

/// A namespace that the plugin's entry excludes.
pub(super) const EXCLUDED: &str = "kube-system";

/// A plugin, and the entry that it is called with.
pub(super) struct Plugin {
    program: PathBuf,
    entry: Value,
}

/// What came of a call.
pub(super) struct Answer {
    /// From the start of the process to its end.
    pub(super) took: Duration,
    /// What it wrote, as an answer or as an error.
    pub(super) said: Result<String, String>,
}

impl Plugin {
    /// Our own on a node.
    pub(super) fn of(node: &Node) -> Result<Self> {
        let mut entry = cni::culvert_entry(&node.cni_socket());
        let object = entry.as_object_mut().context("an entry is an object")?;
        object.insert("excludeNamespaces".to_owned(), json!([EXCLUDED]));
        Ok(Self { program: harness::node::culvert_cni()?, entry })
    }

    /// Calls it; what it answers to anything but success is an error.
    pub(super) fn call(&self, verb: &str, pod: &Pod, namespace: &str) -> Result<Duration> {
        let Answer { took, said } = self.ask(verb, pod, namespace)?;
        said.map_err(|error| anyhow!("{} {verb}: {error}", self.program.display()))?;
        Ok(took)
    }

    /// Calls it, whatever it answers.
    pub(super) fn ask(&self, verb: &str, pod: &Pod, namespace: &str) -> Result<Answer> {
        let sandbox = pod.sandbox();
        let mut entry = self.entry.clone();
        let object = entry.as_object_mut().context("an entry is an object")?;
        object.insert("cniVersion".to_owned(), json!("1.0.0"));
        object.insert("name".to_owned(), json!("bench"));
        if verb != "VERSION" {
            object.insert("prevResult".to_owned(), pod.result().clone());
        }
        let args = format!(
            "K8S_POD_UID={id};IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={}",
            sandbox.name,
            id = sandbox.container_id
        );
        let environment =
            [("CNI_COMMAND", verb), ("CNI_CONTAINERID", &sandbox.container_id), ("CNI_IFNAME", "eth0")];
        let mut command = Command::new(&self.program);
        command.env_clear().envs(environment).env("CNI_ARGS", args).env("CNI_NETNS", &sandbox.netns);
        run(&mut command, entry.to_string().as_bytes(), &self.program)
    }
}

fn run(command: &mut Command, stdin: &[u8], program: &Path) -> Result<Answer> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let began = Instant::now();
    let mut child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
    child.stdin.take().context("a process that was given an input has one")?.write_all(stdin)?;
    let ended = child.wait_with_output()?;
    let took = began.elapsed();
    let text = String::from_utf8_lossy(&ended.stdout).into_owned();
    Ok(Answer { took, said: if ended.status.success() { Ok(text) } else { Err(text) } })
}
