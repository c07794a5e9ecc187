//! The root file system of the pods: `pod-app` and the libraries that it is linked against, and nothing else.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use harness::command;
use harness::node::binary;

/// The application in a container.
pub const APP: &str = "/pod-app";

/// Makes it below a directory.
pub fn make(dir: &Path) -> Result<()> {
    let app = binary("POD_APP_BIN", "pod-app")?;
    install(&app, &inside(dir, Path::new(APP)))?;
    for library in libraries(&app)? {
        install(&library, &inside(dir, &library))?;
    }
    // What a runtime mounts something on.
    for mount in ["proc", "sys", "dev", "etc", "tmp", "run"] {
        fs::create_dir_all(dir.join(mount))?;
    }
    Ok(())
}

fn inside(dir: &Path, path: &Path) -> PathBuf {
    dir.join(path.strip_prefix("/").unwrap_or(path))
}

/// Paths of what the dynamic linker loads, itself included; none of a static program.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let told = command::finish(Command::new("ldd").arg(program), b"")?;
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(told.stdout.lines().filter_map(path).collect())
}

fn install(from: &Path, to: &Path) -> Result<()> {
    let what = || format!("copying {} to {}", from.display(), to.display());
    fs::create_dir_all(to.parent().with_context(what)?).with_context(what)?;
    fs::copy(from, to).with_context(what)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).with_context(what)
}
