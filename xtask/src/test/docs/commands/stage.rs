//! Where commands are run: a node with a real agent, two pods of the mesh that talk with one another, the API of a cluster, kubectl and Helm.
//!
//! The API is the tests' stand-in (`tests/kube-api`), in which every page finds the same objects, among them the chart's rights. Paths of
//! a node's own (`/etc/cni/net.d` and its like) lie below the stage's directory, which is also home and current directory. Nothing of the
//! machine is changed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use harness::app::App;
use harness::client::Http;
use harness::mesh_file::{Enroll, Service, Workload};
use harness::wait::eventually;
use harness::{Agent, MeshFile, Node, Pod, Run, Wire, command};
use nix::sys::signal::{SigSet, Signal};
use serde_json::{Value, json};

use super::shown::{INTERRUPT, Shown};
use super::words::filled;
use crate::binaries::Binaries;
use crate::built::Built;
use crate::shell;
use crate::test::deploy::tools;

const NAMESPACE: &str = "default";
const LIMIT: Duration = Duration::from_secs(30);
/// For a connection that must not come about.
const BRIEFLY: Duration = Duration::from_secs(2);
/// What productpage serves, and as which service.
const PORT: u16 = 8080;
const VIP: [u8; 4] = [10, 96, 0, 10];
/// What a reader puts in.
const NAMES: [(&str, &str); 8] = [
    ("POD-OF-THE-AGENT", "ztunnel-node1"),
    ("NAMESPACE", NAMESPACE),
    ("POD", "sleep"),
    ("NODE", "node1"),
    ("NAME", "sleep"),
    ("REGISTRY", "registry.example/mesh"),
    ("PLATFORM", "k3s"),
    ("NEW", "0.2.0"),
];
/// Paths that lie below the stage's directory.
const PATHS: [&str; 4] = ["/etc/cni/net.d", "/opt/cni/bin", "/etc/culvert", "/var/log"];
/// How a command begins that starts an agent.
const RUN: &str = "culvert run ";
/// What is asked in place of a command that would go on, or change a cluster: the same words are read in the same way.
const INSTEAD: [(&str, &str); 3] = [
    (RUN, "culvert config "),
    ("helm install ", "helm install --dry-run=client "),
    ("helm upgrade ", "helm upgrade --install --dry-run=client "),
];

/// Prints the chart's rights, as Helm renders and kubectl reads them.
const RIGHTS: &str = "helm template culvert deploy/helm/culvert --namespace istio-system --show-only templates/rbac.yaml \
    | kubectl create --dry-run=client --validate=false --output json --filename -";

/// The node and what is around it.
pub(super) struct Stage {
    node: Node,
    directory: PathBuf,
    path: OsString,
    api: Mutex<Api>,
    /// What every page finds in the API.
    objects: Vec<Value>,
    agent: Agent,
    /// What the agent is started with.
    mesh: PathBuf,
    _serving: App,
    talk: Option<Http>,
    pods: [Pod; 2],
}

impl Stage {
    /// Sets it up, and waits until both pods are enrolled.
    pub(super) fn set(built: &Built, binaries: &Binaries) -> Result<Self> {
        harness::run::teardown_on_signals()?;
        let run = Run::start()?;
        let wire = Wire::new(&run)?;
        let node = wire.add_node("node1")?;
        let pods = [node.add_plain_pod("sleep", NAMESPACE)?, node.add_plain_pod("productpage", NAMESPACE)?];
        let [sleep, page] = &pods;
        let service = Service::new("productpage", NAMESPACE, &[VIP.into()], &[(80, PORT)]);
        let mut mesh = MeshFile::with_ca(&run.dir().join("ca"));
        mesh.workloads = vec![Workload::of_pod(sleep), Workload::of_pod(page).serving(&service)];
        mesh.services = vec![service];
        mesh.enroll = pods.iter().map(Enroll::running).collect();
        fs::create_dir_all(node.agent_dir())?;
        let file = node.agent_dir().join("mesh.yaml");
        mesh.write_for(&node, &file)?;
        let agent = Agent::start(&node, &file)?;
        eventually("both pods to be enrolled", LIMIT, || {
            (agent.log_lines(&["pod enrolled"]).len() >= 2).then_some(())
        })?;
        let serving = page.serve_http(PORT)?;
        let talk = Some(sleep.open_http((VIP, 80).into())?);
        let directory = run.dir().join("desk");
        lay_out(&directory, &file, &agent.log_path(), binaries)?;
        let path = programs(&binaries.agent)?;
        let api = Api::start(&built.program("kube-api")?, &node, &directory, &path, &agent.log_path())?;
        let (api, objects) = (Mutex::new(api), objects_of_a_cluster(node.name()));
        let mut stage =
            Self { node, directory, path, api, objects, agent, mesh: file, _serving: serving, talk, pods };
        let rights = command::run(&mut stage.shell(RIGHTS))?;
        for object in serde_json::Deserializer::from_str(&rights).into_iter() {
            stage.objects.push(object.context("the chart's rights")?);
        }
        Ok(stage)
    }

    /// The subcommands of our command line.
    pub(super) fn subcommands(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for name in self.offered("")? {
            let below = if name == "policy" { self.offered(&name)? } else { Vec::new() };
            if below.is_empty() {
                all.push(name);
            } else {
                all.extend(below.iter().filter(|own| *own != "help").map(|own| format!("{name} {own}")));
            }
        }
        Ok(all)
    }

    fn offered(&self, of: &str) -> Result<Vec<String>> {
        let help = command::run(&mut self.shell(&format!("culvert {of} --help")))?;
        let below = help.split_once("Commands:\n").context("no subcommands")?.1;
        let names = below.lines().take_while(|line| line.starts_with("  ")).map(str::trim);
        Ok(names.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
    }

    /// Has the API's objects be what every page begins with.
    pub(super) fn begin_page(&self) -> Result<()> {
        let objects = self.directory.join("objects.json");
        fs::write(&objects, json!(self.objects).to_string())?;
        let mut api = self.api.lock().unwrap_or_else(PoisonError::into_inner);
        api.obey(&format!("apply {}", objects.display()))
    }

    /// Runs a command as a reader would, with the node's agent as the only one there is.
    pub(super) fn run(&self, shown: &Shown) -> Result<()> {
        let line = self.prepared(&shown.command);
        println!("  $ {line}");
        if let Some((INTERRUPT, expected)) =
            shown.printed.split_last().map(|(last, rest)| (last.as_str(), rest))
        {
            return self.run_until(&line, expected);
        }
        let ended = command::finish(&mut self.shell(&line), b"")?;
        if !ended.status.success() {
            // grep ends with 1 if a counter has not counted yet, or a log has no such line, which is what a page asks.
            let may_be_nothing =
                shown.printed.is_empty() && line.contains("| grep") && ended.status.code() == Some(1);
            ensure!(
                may_be_nothing && ended.stderr.is_empty(),
                "{}\n{}{}",
                ended.status,
                ended.stdout,
                ended.stderr
            );
        }
        match lacking(&ended.stdout, &shown.printed) {
            None => Ok(()),
            Some(expected) => bail!("it does not print {expected:?} here, but\n{}", ended.stdout),
        }
    }

    /// Runs what puts another agent in the place of the stage's, each of which has to have its pods whole and to carry a request, and then
    /// what no agent may be there for and ends capture. What each flag does is for the tests in `tests/netns`.
    pub(super) fn finish(mut self, last: &BTreeSet<&str>) -> Result<()> {
        // An agent that is to end serves to its end what it has accepted.
        self.talk = None;
        let (starts, others): (Vec<&str>, Vec<&str>) = last.iter().partition(|line| line.starts_with(RUN));
        for line in starts {
            println!("  $ {line}");
            // Behind `culvert run`.
            let words: Vec<&str> = line.split_whitespace().skip(2).collect();
            let takes_over = words.contains(&"--take-over");
            if !takes_over {
                ensure!(self.agent.stop()?.success(), "the agent before it did not end well");
            }
            let mut next = Agent::spawn(&self.node, &self.mesh, &words)?;
            next.wait_ready().with_context(|| line.to_owned())?;
            if takes_over {
                let ended = self.agent.wait_exit(LIMIT).context("the agent that it takes over from")?;
                ensure!(ended.success(), "the agent that it takes over from ended with {ended}");
            }
            self.agent = next;
            command::run(&mut self.shell("culvert verify"))?;
            let [sleep, _] = &self.pods;
            let reply = sleep.get((VIP, 80).into(), "/").with_context(|| line.to_owned())?;
            ensure!(reply.status == 200, "{line}: a pod is answered {}", reply.status);
        }
        ensure!(self.agent.stop()?.success(), "the last agent did not end well");
        for line in others {
            println!("  $ {line}");
            command::run(&mut self.shell(line))?;
            let [sleep, _] = &self.pods;
            let reached = sleep.connect((VIP, 80).into(), BRIEFLY)?;
            ensure!(reached.is_err(), "{line}: the pod still reaches what there is in the mesh alone");
        }
        Ok(())
    }

    /// Runs what goes on until it is stopped on a terminal, and stops it with ^C once it has printed what is expected.
    fn run_until(&self, line: &str, expected: &[String]) -> Result<()> {
        // It makes a terminal (util-linux), and is killed by what it ran is killed by. Whoever started this suite may ignore SIGINT, as
        // shells have what they start in the background do; a reader does not.
        let mut on_terminal = self.program("script");
        on_terminal.args([
            "--quiet",
            "--return",
            "--flush",
            "--command",
            &format!("exec env --default-signal=INT {line}"),
            "/dev/null",
        ]);
        on_terminal.env("TERM", "xterm").env("SHELL", "/bin/bash");
        on_terminal.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = heeding_interrupts(|| on_terminal.spawn().context("starting script"))?;
        let mut input = child.stdin.take().context("stdin")?;
        let mut output = child.stdout.take().context("stdout")?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let reading = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                let read = buffer.get(..count).unwrap_or_default();
                kept.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(read);
            }
        });
        let printed =
            || String::from_utf8_lossy(&seen.lock().unwrap_or_else(PoisonError::into_inner)).into_owned();
        let came = eventually("what the page says it prints", LIMIT, || {
            lacking(&printed(), expected).is_none().then_some(())
        });
        input.write_all(b"\x03")?;
        let status = command::wait(&mut child, LIMIT);
        came.with_context(printed)?;
        let status = status.context("^C did not end it")?;
        // 130: SIGINT has ended it.
        ensure!(matches!(status.code(), Some(0 | 130)), "{status} after ^C\n{}", printed());
        ensure!(reading.join().is_ok(), "reading what it prints");
        Ok(())
    }

    /// Fails unless a command's program reads its flags; of programs that are not here nothing is known.
    pub(super) fn parses(&self, line: &str) -> Result<()> {
        let line = self.prepared(line);
        let ours = line.split(['|', '>']).next().unwrap_or(&line);
        let before = ours.split(" -- ").next().unwrap_or(ours);
        let words: Vec<&str> = before.split_whitespace().collect();
        match words.first() {
            // Both read all flags before they show their help.
            Some(&("kubectl" | "helm")) => {
                command::run(&mut self.shell(&format!("{before} --help"))).map(drop)
            }
            Some(&"culvert") => {
                let is_word = |word: &&&str| word.bytes().all(|byte| byte.is_ascii_lowercase());
                let subcommand: Vec<&str> =
                    words.iter().skip(1).take_while(is_word).take(2).copied().collect();
                self.has_flags(&subcommand, &words)
            }
            _ => Ok(()),
        }
    }

    /// Fails unless one of ours, or any if it is not named, has the flags among some words.
    fn has_flags(&self, subcommand: &[&str], words: &[&str]) -> Result<()> {
        let subcommand = match subcommand {
            [] => "status".to_owned(),
            ["policy", ..] => subcommand.join(" "),
            [first, ..] => (*first).to_owned(),
        };
        let help = command::run(&mut self.shell(&format!("culvert {subcommand} --help")))?;
        for flag in words.iter().filter(|word| word.starts_with("--")) {
            let flag = flag.split('=').next().unwrap_or(flag).trim_matches(['[', ']']);
            let is_there =
                help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').any(|word| word == flag);
            ensure!(is_there, "`culvert {subcommand}` has no {flag}");
        }
        Ok(())
    }

    /// The command with what a reader puts in.
    fn prepared(&self, line: &str) -> String {
        let mut line = filled(line, &NAMES);
        for path in PATHS {
            line = line.replace(path, &format!("{}{path}", self.directory.display()));
        }
        for (begins, instead) in INSTEAD {
            if let Some(rest) = line.strip_prefix(begins) {
                line = format!("{instead}{rest}");
            }
        }
        line
    }

    fn shell(&self, line: &str) -> Command {
        let mut shell = self.program("bash");
        shell.args(["-o", "pipefail", "-c", line]);
        shell
    }

    /// A program on the node, with what a reader's shell would know.
    fn program(&self, program: &str) -> Command {
        on_stage(&self.node, &self.directory, &self.path, Path::new(program))
    }
}

/// Starts a child that heeds ^C, which this process holds back for its teardown, and a child as its parent does. Should it come in this very
/// moment, it ends this process at once, and the next run sweeps.
fn heeding_interrupts<T>(start: impl FnOnce() -> Result<T>) -> Result<T> {
    let interrupt = SigSet::from(Signal::SIGINT);
    interrupt.thread_unblock()?;
    let started = start();
    interrupt.thread_block()?;
    started
}

fn on_stage(node: &Node, directory: &Path, path: &OsString, program: &Path) -> Command {
    let mut command = command::in_netns(node.netns(), program);
    command.current_dir(directory).env("HOME", directory).env("PATH", path).env("NO_COLOR", "1");
    command.env("CULVERT_RUN_DIR", node.agent_dir()).env("CULVERT_BPFFS", node.bpffs());
    // No release is there, and none is kept.
    command.env("HELM_DRIVER", "memory").env("HELM_MEMORY_DRIVER_DATA", directory.join("releases.yaml"));
    command.env_remove("KUBECONFIG");
    command
}

/// Our program first, then Helm and kubectl, then what the machine has.
fn programs(agent: &Path) -> Result<OsString> {
    let helm = tools::ensure_helm()?;
    let own = [agent, &helm].map(|program| program.parent().map(Path::to_owned));
    let others = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::join_paths(own.into_iter().flatten().chain(std::env::split_paths(&others)))?)
}

/// Puts into the directory what pages take for granted on a node and in a checkout.
fn lay_out(directory: &Path, mesh: &Path, log: &Path, binaries: &Binaries) -> Result<()> {
    for path in PATHS.iter().chain(&["/.kube"]) {
        fs::create_dir_all(directory.join(path.trim_start_matches('/')))?;
    }
    let conflist = json!({
        "cniVersion": "1.0.0", "name": "bridge",
        "plugins": [{"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.1.9.0/24"}}],
    });
    fs::write(directory.join("etc/cni/net.d/10-bridge.conflist"), conflist.to_string())?;
    fs::copy(mesh, directory.join("mesh.yaml"))?;
    fs::copy(mesh, directory.join("etc/culvert/mesh.yaml"))?;
    fs::copy(&binaries.plugin, directory.join("culvert-cni"))?;
    fs::write(directory.join("releases.yaml"), "[]")?;
    std::os::unix::fs::symlink(log, directory.join("var/log/culvert.log"))?;
    std::os::unix::fs::symlink(shell::root().join("deploy"), directory.join("deploy"))?;
    Ok(())
}

/// The first of some lines that a text does not have behind those before it.
fn lacking<'a>(text: &str, expected: &'a [String]) -> Option<&'a String> {
    let mut lines = text.lines();
    expected.iter().find(|expected| !lines.any(|line| line.trim().contains(expected.trim())))
}

/// The stand-in for the API server, which ends with its input.
struct Api {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Api {
    fn start(program: &Path, node: &Node, directory: &Path, path: &OsString, log: &Path) -> Result<Self> {
        let mut command = on_stage(node, directory, path, program);
        let keys = directory.join("api");
        command.arg("--dir").arg(&keys).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("stdout")?);
        let mut api = Self { child, input, output };
        let said = api.answer()?;
        ensure!(said.starts_with("listening "), "the stand-in of the API says {said:?}");
        api.obey(&format!("pods {}", log.display()))?;
        let kubeconfig = fs::read_to_string(keys.join("kubeconfig"))?;
        let mut kubeconfig: Value = serde_json::from_str(&kubeconfig)?;
        fs::write(directory.join(".kube/config"), kubeconfig.to_string())?;
        // Another one, with a context of another name that is not the current one.
        for (at, name) in [("/contexts/0/name", "staging"), ("/current-context", "")] {
            *kubeconfig.pointer_mut(at).with_context(|| format!("no {at} in a kubeconfig"))? = json!(name);
        }
        fs::write(directory.join(".kube/other"), kubeconfig.to_string())?;
        Ok(api)
    }

    fn obey(&mut self, line: &str) -> Result<()> {
        writeln!(self.input.as_mut().context("stdin")?, "{line}")?;
        let said = self.answer()?;
        ensure!(said == "ok", "{line}: {said}");
        Ok(())
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        drop(self.input.take());
        // It is gone at the latest with its network namespace.
        let _ = command::wait(&mut self.child, LIMIT);
    }
}

/// A cluster of one node: the old data plane's DaemonSets, the agent's pod, and the pods of the mesh.
fn objects_of_a_cluster(node: &str) -> Vec<Value> {
    let set = |name: &str| {
        let labels = json!({"app": name});
        json!({
            "kind": "DaemonSet", "metadata": {"name": name, "namespace": "istio-system", "labels": labels},
            "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {}}},
        })
    };
    let pod = |namespace: &str, name: &str, labels: &Value, kind: &str, owner: &str| {
        let api = "apps/v1";
        let owner = json!({"apiVersion": api, "kind": kind, "name": owner, "uid": owner, "controller": true});
        json!({
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels, "ownerReferences": [owner]},
            "spec": {"nodeName": node, "containers": [{"name": "main", "image": "registry.example/main"}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        })
    };
    let space = |name: &str| json!({"kind": "Namespace", "metadata": {"name": name}});
    vec![
        space(NAMESPACE),
        space("istio-system"),
        json!({"kind": "Node", "metadata": {"name": node}}),
        set("ztunnel"),
        set("istio-cni-node"),
        set("ztunnel-culvert"),
        pod("istio-system", "ztunnel-node1", &json!({"app": "ztunnel"}), "DaemonSet", "ztunnel"),
        pod(NAMESPACE, "sleep", &json!({"app": "sleep"}), "ReplicaSet", "sleep-1"),
        pod(NAMESPACE, "productpage", &json!({"app": "productpage"}), "ReplicaSet", "productpage-1"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_looked_for_in_its_order() {
        let expected = ["b".to_owned(), "c".to_owned()];
        assert_eq!(lacking("a\n  b x\nc\n", &expected), None);
        assert_eq!(lacking("c\nb\n", &expected).map(String::as_str), Some("c"));
    }
}
