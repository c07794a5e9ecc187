//! `screenshots`: makes the pictures of the documentation anew, in docs/images.
//!
//! A real node with real traffic, a real terminal, a real Prometheus, Debian's Chromium; see `tests/browser/src/bin/pictures`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::binaries::{Binaries, target_dir};
use crate::built::Built;
use crate::{debian, setup, shell};

/// Where the documentation has them.
const KEPT: &str = "docs/images";
/// Bytes of a picture: whoever clones the repository has all that there ever were.
const MOST: u64 = 200 * 1024;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to leave them. Default: docs/images.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::require_root()?;
    setup::ensure(&setup::RUNTIME)?;
    let built = Built::all()?;
    let binaries = Binaries::of(&built)?;
    let out = args.out.clone().unwrap_or_else(|| shell::root().join(KEPT));
    make(&built, &binaries, &out)
}

/// Makes all of them somewhere else, so that the command is known to make what is kept.
pub(crate) fn rehearse(built: &Built, binaries: &Binaries) -> Result<()> {
    println!("\n== screenshots");
    let out = target_dir()?.join("images");
    if out.exists() {
        std::fs::remove_dir_all(&out).with_context(|| out.display().to_string())?;
    }
    make(built, binaries, &out)?;
    let (made, kept) = (pictures(&out)?, pictures(&shell::root().join(KEPT))?);
    ensure!(made == kept, "it makes {made:?}, and in {KEPT} there are {kept:?}");
    Ok(())
}

/// The names of the pictures in a directory.
fn pictures(directory: &Path) -> Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if is_picture(&path) {
            names.extend(path.file_name().map(ToOwned::to_owned));
        }
    }
    Ok(names)
}

fn make(built: &Built, binaries: &Binaries, out: &Path) -> Result<()> {
    let chromium = setup::browser()?;
    let [_, prometheus] = debian::PROMETHEUS.ensure()?;
    let mut pictures = Command::new(built.program("pictures")?);
    pictures.arg(out).envs(binaries.environment());
    pictures.env("CHROMIUM_BIN", &chromium).env("PROMETHEUS_BIN", &prometheus);
    shell::run(&mut pictures)?;
    for entry in std::fs::read_dir(out)? {
        let path = entry?.path();
        let size = path.metadata().with_context(|| path.display().to_string())?.len();
        ensure!(
            !is_picture(&path) || size <= MOST,
            "{} has {size} bytes, and may have {MOST}",
            path.display()
        );
    }
    Ok(())
}

/// Drawings of figures, which the benchmarks make, are none.
fn is_picture(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "webp")
}
