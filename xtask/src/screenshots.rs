//! `screenshots`: makes the pictures of the documentation anew, in docs/images.
//!
//! A real node with real traffic, a real terminal, a real Prometheus, Debian's Chromium; see `tests/browser/src/bin/pictures`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::binaries::Binaries;
use crate::built::Built;
use crate::{debian, setup, shell};

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
    let chromium = setup::browser()?;
    let [_, prometheus] = debian::PROMETHEUS.ensure()?;
    let built = Built::all()?;
    let binaries = Binaries::of(&built)?;
    let out = args.out.clone().unwrap_or_else(|| shell::root().join("docs/images"));
    let mut pictures = Command::new(built.program("pictures")?);
    pictures.arg(&out).envs(binaries.environment());
    pictures.env("CHROMIUM_BIN", &chromium).env("PROMETHEUS_BIN", &prometheus);
    shell::run(&mut pictures)?;
    for entry in std::fs::read_dir(&out)? {
        let path = entry?.path();
        let size = path.metadata().with_context(|| path.display().to_string())?.len();
        let is_picture = path.extension().is_some_and(|extension| extension == "webp");
        ensure!(!is_picture || size <= MOST, "{} has {size} bytes, and may have {MOST}", path.display());
    }
    Ok(())
}
