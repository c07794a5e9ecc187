//! What pages show and cannot be run on the stage: why, and who runs it.
//!
//! This is the only place for such. Whoever runs it is named and must be there; what no page shows any more must go.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use crate::shell;
use crate::test::security;

/// This file, for errors.
pub(super) const FILE: &str = "xtask/src/test/docs/commands/elsewhere.rs";

/// Who runs it.
enum Who {
    /// A test: its file and its name.
    Test(&'static str, &'static str),
    /// A file has this line or these words in it, which run it.
    Line(&'static str, &'static str),
}

use Who::{Line, Test};

struct Entry {
    /// How the command begins, in whole words.
    begins: &'static str,
    why: &'static str,
    who: Who,
}

const CI: &str = ".ci/run";
const KIND: &str = "tests/kind/run";
const CHECKS: &str = ".github/workflows/checks.yaml";
const DOCS: &str = "xtask/src/test/docs.rs";

/// Of two that fit the longer one counts.
const ELSEWHERE: [Entry; 22] = [
    // Of ours.
    Entry {
        begins: "culvert --node",
        why: "it is no whole command",
        who: Test("tests/netns/tests/kubeconfig.rs", "the_agent_of_any_node_answers_through_the_api_server"),
    },
    Entry {
        begins: "culvert help",
        why: "it is the command line's own",
        who: Line("xtask/src/test/docs/commands/stage.rs", "--help"),
    },
    // cargo: every line is parsed besides.
    Entry { begins: "cargo xtask test", why: "this is it", who: Line(CI, "\ncargo xtask test\n") },
    Entry {
        begins: "cargo xtask demo",
        why: "it takes minutes",
        who: Line(CI, "\ncargo xtask demo --check\n"),
    },
    Entry {
        begins: "cargo xtask demo --scenario",
        why: "it takes minutes",
        who: Line(CI, "\ncargo xtask demo --scenario all --check\n"),
    },
    Entry {
        begins: "cargo xtask build-ebpf",
        why: "every suite does so first",
        who: Line("xtask/src/built.rs", "build_ebpf::ensure()?"),
    },
    Entry { begins: "cargo xtask image", why: "it takes minutes", who: Line(CI, "\ncargo xtask image\n") },
    Entry {
        begins: "cargo xtask fuzz",
        why: "it takes hours; each target is fed for a second once the commands have been",
        who: Line(CHECKS, "cargo xtask fuzz --minutes 10"),
    },
    Entry {
        begins: "cargo xtask bench data",
        why: "it wants a machine of its own",
        who: Line(CI, "\ncargo xtask bench data --short --check"),
    },
    Entry {
        begins: "cargo xtask bench",
        why: "it is run in its short form once the commands have been",
        who: Line(DOCS, "bench::rehearse(&binaries)"),
    },
    Entry {
        begins: "cargo xtask screenshots",
        why: "it is run once the commands have been, and replaces nothing then",
        who: Line(DOCS, "screenshots::rehearse(&built, &binaries)"),
    },
    Entry {
        begins: "cargo build",
        why: "every suite builds first",
        who: Line("xtask/src/built.rs", "\"--workspace\""),
    },
    Entry {
        begins: "cargo test -p culvert-tunnel --features schedules",
        why: "the unit tests end with it",
        who: Line("xtask/src/test.rs", "shell::cargo().args(SCHEDULES)"),
    },
    Entry {
        begins: "cargo deny",
        why: "advisories change every day; all else that it looks at it does when the unit tests begin",
        who: Line(CHECKS, "cargo-deny-action"),
    },
    // What needs more than one machine has.
    Entry {
        begins: "tests/kind/run",
        why: "it needs a container engine; it is run with stand-ins for the cluster and its tools",
        who: Line("xtask/src/test/docs.rs", "kind::check()?"),
    },
    Entry {
        begins: "docker build -f deploy/Dockerfile",
        why: "it needs a container engine; what the file says is compared with what it builds from and with our own image",
        who: Line(".github/workflows/kind.yaml", "docker build -f deploy/Dockerfile"),
    },
    Entry {
        begins: "istioctl install",
        why: "it needs a cluster",
        who: Line(
            KIND,
            "istioctl install -y --set profile=ambient --set components.cni.enabled=false --set components.ztunnel.enabled=false",
        ),
    },
    Entry {
        begins: "istioctl ztunnel-config",
        why: "it asks a cluster; here that scenario has met a stand-in for it alone, and its tables, as recorded, are made of our dump",
        who: Line("tests/kind/scenarios/10-reach.sh", "istioctl ztunnel-config workloads | grep"),
    },
    Entry {
        begins: "istioctl proxy-status",
        why: "it asks an istiod; here that scenario has met a stand-in for one alone",
        who: Line("tests/kind/scenarios/10-reach.sh", "istioctl proxy-status -v 1 | grep"),
    },
    Entry {
        begins: "helm uninstall",
        why: "it needs a cluster with the release; here that scenario has met a stand-in alone, and Helm has read the flags",
        who: Line(
            "tests/kind/scenarios/90-uninstall.sh",
            "helm uninstall culvert --namespace istio-system --wait",
        ),
    },
    Entry {
        begins: "kubectl port-forward",
        why: "it goes on until it is stopped",
        who: Test("tests/netns/tests/kubeconfig.rs", "the_agent_of_any_node_answers_through_the_api_server"),
    },
    Entry {
        begins: "kubectl -n istio-system port-forward",
        why: "it goes on until it is stopped",
        who: Test("tests/netns/tests/kubeconfig.rs", "the_agent_of_any_node_answers_through_the_api_server"),
    },
];

/// The list, and what of it was met.
pub(super) struct Elsewhere {
    met: Vec<bool>,
}

impl Elsewhere {
    /// Fails if somebody who is named is not there.
    pub(super) fn read() -> Result<Self> {
        for entry in &ELSEWHERE {
            is_there(&shell::root(), &entry.who).with_context(|| format!("{FILE}: `{}`", entry.begins))?;
        }
        Ok(Self { met: vec![false; ELSEWHERE.len()] })
    }

    /// Whether somebody else runs it.
    pub(super) fn has(&mut self, command: &str) -> bool {
        let fits = ELSEWHERE.iter().zip(&mut self.met).filter(|(entry, _)| fits(entry.begins, command));
        let longest = fits.max_by_key(|(entry, _)| entry.begins.len());
        longest.map(|(_, met)| *met = true).is_some()
    }

    /// An entry that nothing needs says what is not so.
    pub(super) fn check_all_are_met(&self) -> Result<()> {
        let idle = ELSEWHERE.iter().zip(&self.met).filter(|(_, met)| !**met);
        let idle: Vec<&str> = idle.map(|(entry, _)| entry.begins).collect();
        ensure!(idle.is_empty(), "no page shows what {FILE} lists: {}", idle.join(", "));
        println!("  what is run elsewhere:");
        for Entry { begins, why, who } in &ELSEWHERE {
            println!("    {begins}: {why}; {}", told(who));
        }
        Ok(())
    }
}

fn fits(begins: &str, command: &str) -> bool {
    let rest = command.strip_prefix(begins);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', ':']))
}

fn told(who: &Who) -> String {
    match who {
        Test(file, name) => format!("{file}::{name}"),
        Line(file, _) => (*file).to_owned(),
    }
}

fn is_there(root: &Path, who: &Who) -> Result<()> {
    match *who {
        Test(file, name) => match security::missing(root, (file, name)) {
            None => Ok(()),
            Some(missing) => bail!("there is no test {missing}"),
        },
        Line(file, text) => {
            let all = std::fs::read_to_string(root.join(file)).with_context(|| file.to_owned())?;
            ensure!(all.contains(text), "{file} does not have {text:?}");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_listed_by_whole_words() {
        assert!(fits("cargo deny", "cargo deny check") && fits("cargo deny", "cargo deny"));
        assert!(!fits("cargo deny", "cargo denying") && !fits("cargo deny", "cargo"));
    }

    #[test]
    fn everybody_who_is_named_is_there_and_what_is_idle_is_told() {
        let mut list = Elsewhere::read().unwrap();
        assert!(list.has("cargo xtask test netns") && !list.has("culvert status"));
        assert!(list.check_all_are_met().is_err(), "nothing else was met");
        let root = shell::root();
        assert!(is_there(&root, &Test(FILE, "nowhere")).is_err());
        assert!(is_there(&root, &Line("README.md", "nobody has ever said this")).is_err());
    }
}
