//! `test docs`: the documentation says what is so.
//!
//! Its links lead somewhere, what it names (metrics, log fields, flags, variables) is there and what is there it names, the book can be
//! made of it, and every command does what it says there, on a node with a real agent and pods, or is listed with whoever runs it. Of
//! what takes a container engine, the scenarios of `tests/kind` are run with stand-ins, and what `deploy/Dockerfile` says is looked at. What
//! takes long (pictures, benchmarks, fuzzers) is run in a short form at the end.

mod book;
mod commands;
mod dockerfile;
mod fields;
mod kind;
mod links;
mod names;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::catalogue::Catalogue;
use crate::binaries::Binaries;
use crate::built::Built;
use crate::{bench, fuzz, screenshots, setup, shell};

/// A page.
pub(super) struct Page {
    /// From the top of the repository.
    path: PathBuf,
    text: String,
}

pub(super) fn run() -> Result<()> {
    println!("\n== docs: links, names, the book, and every command");
    let pages = pages()?;
    links::check(&pages)?;
    names::check(&pages, &Catalogue::read()?)?;
    fields::check()?;
    book::build()?;
    dockerfile::check()?;
    kind::check()?;
    setup::require_root()?;
    setup::ensure(&setup::RUNTIME)?;
    setup::ensure(&setup::SHOWN)?;
    let built = Built::all()?;
    let binaries = Binaries::of(&built)?;
    binaries.announce();
    commands::run(&pages, &built, &binaries)?;
    screenshots::rehearse(&built, &binaries)?;
    bench::rehearse(&binaries)?;
    fuzz::rehearse()
}

/// All pages: those of the book, those at the top, and those beside what they are about.
fn pages() -> Result<Vec<Page>> {
    let root = shell::root();
    let mut found = Vec::new();
    for (directory, deep) in [
        (root.clone(), false),
        (root.join("docs"), true),
        (root.join("deploy"), true),
        (root.join("tests/kind"), true),
    ] {
        collect(&directory, deep, "md", &mut found)?;
    }
    found.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Page { path: path.strip_prefix(&root).unwrap_or(&path).to_owned(), text })
    };
    found.into_iter().map(read).collect()
}

/// Files below a directory, by the end of their names.
fn collect(directory: &Path, deep: bool, extension: &str, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            if deep {
                collect(&path, deep, extension, found)?;
            }
        } else if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
    Ok(())
}
