//! `tests/kind/run`, run here with stand-ins for kind, istioctl, helm, kubectl and docker: there is no container engine on the machine, and
//! so no cluster.
//!
//! The script and its scenarios are those that run on a cluster, every line of them. The stand-ins (`kind/stand-in.sh`) write down what
//! they are asked and answer as a cluster would that does what it should, or, told to, does one thing wrong: then the scenarios that are
//! there for it must fail, and no others. Real are kubectl and Helm where their command lines are read, and the chart where it is
//! rendered. What kind and istioctl make of their words, and how the agents do in a cluster, is not seen here.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use harness::command;
use tempfile::TempDir;

use super::collect;
use crate::test::deploy::tools;
use crate::{image, shell};

const SCRIPT: &str = "tests/kind/run";
const SCENARIOS: &str = "tests/kind/scenarios";
const CLUSTER: &str = "deploy/kind/cluster.yaml";
const WORKLOADS: &str = "tests/kind/workloads.yaml";
const INSTALL: &str = "docs/install.md";
const STAND_IN: &str = include_str!("kind/stand-in.sh");
const PROGRAMS: [&str; 6] = ["docker", "helm", "istioctl", "kind", "kubectl", "sleep"];
/// Longer than the script takes on a loaded machine when everything fails that can.
const LIMIT: Duration = Duration::from_secs(180);
/// What is asked for after a scenario that fails.
const LOGS: &str = "kubectl -n istio-system logs daemonset/ztunnel --all-pods --tail 100";
/// What goes wrong, and which scenarios see it. Without istiod none is come to.
const LIES: [(&str, &[&str]); 8] = [
    ("istiod does not start", &[]),
    ("the control plane is not followed", &["10-reach"]),
    ("tunnels are not used", &["10-reach", "30-labels", "90-uninstall"]),
    ("plaintext is let in", &["20-policy"]),
    ("who is denied is let in", &["20-policy"]),
    ("labels do nothing", &["30-labels"]),
    ("a request has failed", &["40-restart"]),
    ("something stays behind", &["90-uninstall"]),
];

/// What came of the script.
struct Played {
    status: ExitStatus,
    said: String,
    calls: Vec<Vec<String>>,
}

/// Fails unless the script does what it should, whatever the cluster does.
pub(super) fn check() -> Result<()> {
    let scenarios = scenarios()?;
    let played = play(&[], "")?;
    played.check_that_all_is_well(&scenarios)?;
    played.check_order()?;
    let without = play(&["--no-cluster"], "")?;
    without.check_that_all_is_well(&scenarios)?;
    let made = played.lines().into_iter().filter(|line| !line.starts_with("kind "));
    ensure!(made.eq(without.lines()), "with --no-cluster it asks for something else: {:#?}", without.lines());
    let mut calls = played.calls;
    for (lie, seen_by) in LIES {
        let played = play(&[], lie)?;
        played.check_failure(seen_by, &scenarios).with_context(|| format!("where {lie}"))?;
        calls.extend(played.calls);
    }
    let read = are_read(&calls)?;
    println!(
        "  {SCRIPT}, with stand-ins: {} scenarios pass, {} faults are seen; kubectl and Helm read its {read} command lines",
        scenarios.len(),
        LIES.len()
    );
    Ok(())
}

/// The names of the scenarios, in order.
fn scenarios() -> Result<Vec<String>> {
    let mut files = Vec::new();
    collect(&shell::root().join(SCENARIOS), false, "sh", &mut files)?;
    let mut names: Vec<String> =
        files.iter().filter_map(|file| Some(file.file_stem()?.to_string_lossy().into_owned())).collect();
    names.sort();
    Ok(names)
}

/// Runs the script with stand-ins first among the programs, and something going wrong or (empty) nothing.
fn play(words: &[&str], lie: &str) -> Result<Played> {
    let directory = tempfile::tempdir()?;
    let path = stand_ins(&directory)?;
    let said = directory.path().join("said");
    let output = File::create(&said)?;
    let mut script = Command::new(shell::root().join(SCRIPT));
    script.args(words).env("PATH", path).env("STAND_IN", directory.path()).env("LIE", lie);
    script.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let mut child = script.spawn().with_context(|| format!("starting {SCRIPT}"))?;
    let status = command::wait(&mut child, LIMIT);
    let said = fs::read_to_string(said)?;
    let status = status.with_context(|| said.clone())?;
    if let Ok(unknown) = fs::read_to_string(directory.path().join("unknown")) {
        bail!("the stand-in knows no answer to:\n{unknown}");
    }
    let calls = parsed(&fs::read_to_string(directory.path().join("calls"))?);
    Ok(Played { status, said, calls })
}

/// Puts the stand-ins into a directory; what is looked for on the way to a program.
fn stand_ins(directory: &TempDir) -> Result<OsString> {
    let bin = directory.path().join("bin");
    fs::create_dir(&bin)?;
    let stand_in = directory.path().join("stand-in");
    fs::write(&stand_in, STAND_IN)?;
    fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755))?;
    for program in PROGRAMS {
        symlink(&stand_in, bin.join(program))?;
    }
    let others = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&others)))?)
}

/// The calls in what the stand-ins have written: words end with a unit separator, calls with a record separator.
fn parsed(calls: &str) -> Vec<Vec<String>> {
    let words = |call: &str| call.split_terminator('\u{1f}').map(str::to_owned).collect();
    calls.split_terminator('\u{1e}').map(words).collect()
}

impl Played {
    /// What was asked of the stand-ins, as lines.
    fn lines(&self) -> Vec<String> {
        self.calls.iter().map(|words| words.join(" ")).collect()
    }

    /// The scenarios that were run, in order, each with what it said.
    fn scenarios(&self) -> Vec<(&str, &str)> {
        let parts = self.said.split("== ").skip(1);
        parts.map(|part| part.split_once('\n').unwrap_or((part, ""))).collect()
    }

    fn names(&self) -> Vec<&str> {
        self.scenarios().into_iter().map(|(name, _)| name).collect()
    }

    fn check_that_all_is_well(&self, scenarios: &[String]) -> Result<()> {
        ensure!(self.status.success(), "{}\n{}", self.status, self.said);
        ensure!(self.names() == scenarios, "of {scenarios:?} it runs\n{}", self.said);
        for (name, said) in self.scenarios() {
            ensure!(said.contains("   ok: "), "{name} expects nothing\n{said}");
        }
        ensure!(!self.lines().iter().any(|line| line == LOGS), "nothing fails, and logs are asked for");
        Ok(())
    }

    /// That a fault is seen by the scenarios that are there for it and by no others, and everything is cleared away all the same.
    fn check_failure(&self, seen_by: &[&str], scenarios: &[String]) -> Result<()> {
        ensure!(self.status.code() == Some(1), "{}\n{}", self.status, self.said);
        let failed = self.scenarios().into_iter().filter(|(_, said)| said.contains("   FAILED: "));
        let failed: Vec<&str> = failed.map(|(name, _)| name).collect();
        ensure!(failed == seen_by, "{failed:?} fail and not {seen_by:?}\n{}", self.said);
        let goes_on = if seen_by.is_empty() { self.names().is_empty() } else { self.names() == scenarios };
        ensure!(goes_on, "it runs {:?}", self.names());
        let lines = self.lines();
        let logs = lines.iter().filter(|line| *line == LOGS).count();
        ensure!(logs == seen_by.len(), "logs are asked for {logs} times");
        ensure!(lines.last().is_some_and(|last| last.starts_with("kind delete ")), "the cluster is left");
        Ok(())
    }

    /// What is done around the scenarios, in its order and word by word.
    fn check_order(&self) -> Result<()> {
        let root = shell::root();
        let page = fs::read_to_string(root.join(INSTALL))?;
        let istiod = page.lines().map(str::trim).find(|line| line.starts_with("istioctl install "));
        let istiod = istiod.with_context(|| format!("{INSTALL} does not install istiod"))?;
        let image = image::NAME;
        let before = [
            format!("kind create cluster --config {CLUSTER} --wait 3m"),
            "kind load image-archive target/image/culvert.tar --name culvert".to_owned(),
            istiod.to_owned(),
            format!(
                "helm upgrade --install culvert deploy/helm/culvert --namespace istio-system \
                 --set image={image} --set imagePullPolicy=Never --wait --timeout 5m"
            ),
            format!("kubectl apply -f {WORKLOADS}"),
            "kubectl -n mesh rollout status deployment/server deployment/client --timeout 3m".to_owned(),
            "kubectl -n outside rollout status deployment/client --timeout 3m".to_owned(),
        ];
        let lines = self.lines();
        ensure!(lines.starts_with(&before), "before the scenarios it asks for {lines:#?}");
        let last = lines.last().map(String::as_str);
        ensure!(last == Some("kind delete cluster --name culvert"), "at the end it asks for {last:?}");
        let cluster = fs::read_to_string(root.join(CLUSTER))?;
        ensure!(cluster.lines().any(|line| line == "name: culvert"), "{CLUSTER} has another name");
        ensure!(root.join(WORKLOADS).is_file(), "there is no {WORKLOADS}");
        Ok(())
    }
}

/// Has the real kubectl and Helm read what is asked of them, and Helm render the chart; returns how many lines they have read.
fn are_read(calls: &[Vec<String>]) -> Result<usize> {
    let helm = tools::ensure_helm()?;
    let directory = tempfile::tempdir()?;
    // No release is there, and none is kept.
    let releases = directory.path().join("releases.yaml");
    fs::write(&releases, "[]")?;
    let real = |program: &str, words: &[String]| {
        let mut real = Command::new(helm.with_file_name(program));
        real.args(words).current_dir(shell::root()).env_remove("KUBECONFIG").env("HOME", directory.path());
        real.env("HELM_DRIVER", "memory").env("HELM_MEMORY_DRIVER_DATA", &releases);
        real
    };
    // What stands behind `--` is for a pod's shell.
    let ours = calls.iter().filter_map(|words| words.split(|word| word == "--").next());
    let lines: BTreeSet<&[String]> =
        ours.filter(|words| matches!(words.first().map(String::as_str), Some("kubectl" | "helm"))).collect();
    for line in &lines {
        let Some((program, words)) = line.split_first() else { continue };
        // Both read all flags before they show their help.
        command::run(real(program, words).arg("--help"))?;
        if words.first().is_some_and(|word| word == "upgrade") {
            let rendered = command::run(real(program, words).arg("--dry-run=client"))?;
            ensure!(rendered.contains(image::NAME), "the chart takes another image than {}", image::NAME);
        }
    }
    Ok(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_apart_whatever_their_words_are() {
        let calls = "kubectl\u{1f}get\u{1f}\u{1f}\u{1e}helm\u{1f}a b\n\u{1f}\u{1e}";
        assert_eq!(parsed(calls), [vec!["kubectl", "get", ""], vec!["helm", "a b\n"]]);
        assert!(parsed("").is_empty());
    }
}
