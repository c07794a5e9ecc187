//! What `cargo test` compiles: test programs and the programs that they start, found here and run here.
//!
//! Cargo compiles a library once for each set of features that the selected packages ask of it. So everything is compiled in
//! one go as the workspace, whatever part of it is wanted then: asking for a package at a time would compile most of the
//! dependencies many times over.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::{build_ebpf, shell};

/// Everything that was compiled.
pub(crate) struct Built {
    targets: Vec<Target>,
}

/// One program.
struct Target {
    /// The directory of its package.
    directory: PathBuf,
    name: String,
    kind: Kind,
    program: PathBuf,
}

/// What a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One to be started by others.
    Plain,
    /// The tests within a library or a program.
    Unit,
    /// Tests beside them.
    Integration,
}

/// A line of cargo's.
#[derive(Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<PathBuf>,
    executable: Option<PathBuf>,
    target: Option<MessageTarget>,
    profile: Option<MessageProfile>,
}

#[derive(Deserialize)]
struct MessageTarget {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct MessageProfile {
    test: bool,
}

impl Built {
    /// Compiles all tests of the workspace and what they start, with the eBPF objects first.
    pub(crate) fn all() -> Result<Self> {
        build_ebpf::ensure()?;
        let mut cargo = shell::cargo();
        cargo.args(["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]);
        println!("  $ {}", shell::text(&cargo));
        let ended = cargo.stderr(Stdio::inherit()).output().context("starting cargo")?;
        if !ended.status.success() {
            bail!("{}: {}", ended.status, shell::text(&cargo));
        }
        let said = String::from_utf8(ended.stdout).context("what cargo printed")?;
        let targets = said.lines().filter_map(|line| target(line).transpose());
        let mut targets: Vec<Target> = targets.collect::<Result<_>>()?;
        // Not in the order in which they happened to be ready.
        targets.sort_by(|one, other| (&one.directory, &one.name).cmp(&(&other.directory, &other.name)));
        Ok(Self { targets })
    }

    /// A program that is no test, by its name.
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf> {
        let found = self.targets.iter().find(|target| target.kind == Kind::Plain && target.name == name);
        Ok(found.with_context(|| format!("cargo built no program {name}"))?.program.clone())
    }

    /// Runs the tests within all libraries and programs, and those beside them except in these packages, which are named by
    /// their directories.
    pub(crate) fn run_all_but(&self, packages: &[&str], filter: Option<&str>) -> Result<()> {
        self.run(filter, &[], |target| match target.kind {
            Kind::Plain => false,
            Kind::Unit => true,
            Kind::Integration => !target.is_in(packages),
        })
    }

    /// Runs the tests that stand beside the libraries and programs of these packages, which are named by their directories.
    pub(crate) fn run_those_of(
        &self,
        packages: &[&str],
        filter: Option<&str>,
        environment: &[(&str, &Path)],
    ) -> Result<()> {
        self.run(filter, environment, |target| target.kind == Kind::Integration && target.is_in(packages))
    }

    fn run(
        &self,
        filter: Option<&str>,
        environment: &[(&str, &Path)],
        wanted: impl Fn(&Target) -> bool,
    ) -> Result<()> {
        let environment: Vec<String> =
            environment.iter().map(|(name, path)| format!("{name}={}", path.display())).collect();
        if !environment.is_empty() {
            println!("  with {}", environment.join(" "));
        }
        let mut failed = Vec::new();
        for target in self.targets.iter().filter(|target| wanted(target)) {
            println!("\n  {}", target.title());
            let mut tests = Command::new(&target.program);
            tests.args(filter).current_dir(&target.directory).env("CARGO_MANIFEST_DIR", &target.directory);
            tests.envs(environment.iter().filter_map(|set| set.split_once('=')));
            let status = tests.status().with_context(|| format!("starting {}", target.program.display()))?;
            if !status.success() {
                failed.push(target.title());
            }
        }
        if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
    }
}

impl Target {
    fn is_in(&self, packages: &[&str]) -> bool {
        packages.iter().any(|package| self.directory == shell::root().join(package))
    }

    /// What people know it by.
    fn title(&self) -> String {
        let root = shell::root();
        let package = self.directory.strip_prefix(&root).unwrap_or(&self.directory).display();
        match self.kind {
            Kind::Integration => format!("{package}/tests/{}", self.name),
            Kind::Plain | Kind::Unit => format!("{package} ({})", self.name),
        }
    }
}

/// The program that a line of cargo's tells of, if it tells of one.
fn target(line: &str) -> Result<Option<Target>> {
    let message: Message = serde_json::from_str(line).with_context(|| format!("cargo printed {line:?}"))?;
    let Message { reason, manifest_path, executable, target, profile } = message;
    let (Some(manifest), Some(program), Some(target), Some(profile)) =
        (manifest_path, executable, target, profile)
    else {
        return Ok(None);
    };
    if reason != "compiler-artifact" {
        return Ok(None);
    }
    let kind = match profile.test {
        false => Kind::Plain,
        true if target.kind.iter().any(|kind| kind == "test") => Kind::Integration,
        true => Kind::Unit,
    };
    let directory = manifest.parent().context("a manifest without a directory")?.to_owned();
    Ok(Some(Target { directory, name: target.name, kind, program }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_from_libraries_and_tests_from_programs() {
        let line = |kind: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"p","manifest_path":"/w/tests/netns/Cargo.toml",
                "target":{{"kind":["{kind}"],"name":"dns"}},"profile":{{"test":{test},"opt_level":"0"}},"executable":{executable}}}"#
            )
        };
        assert!(target(&line("lib", false, "null")).unwrap().is_none());
        for (kind, test, expected) in [
            ("bin", false, Kind::Plain),
            ("bin", true, Kind::Unit),
            ("lib", true, Kind::Unit),
            ("test", true, Kind::Integration),
        ] {
            let target = target(&line(kind, test, r#""/t/dns-1""#)).unwrap().unwrap();
            assert_eq!((target.kind, target.name.as_str()), (expected, "dns"), "{kind} {test}");
            assert_eq!(target.directory, Path::new("/w/tests/netns"));
        }
        assert!(target(r#"{"reason":"build-finished","success":true}"#).unwrap().is_none());
        assert!(target("warning").is_err());
    }
}
