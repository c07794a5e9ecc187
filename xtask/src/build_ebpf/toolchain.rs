//! Finding a compiler for the BPF target, and bpf-linker.
//!
//! In this order: rustup's nightly with rust-src, which builds the core library itself; Debian's rustc-web with the
//! core library that Debian has built for BPF. Both with bpf-linker, whose LLVM must be at least the compiler's: a nightly that has
//! a newer one is passed over.

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use harness::run::find_tool;

use crate::{setup, shell};

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none";
const DEBIAN_COMPILER: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];
/// The major version of LLVM that the linker is linked with.
const LLVM: u32 = 22;
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
const DEBIAN_LLVM: [&str; 2] = ["llvm-22-dev", "libpolly-22-dev"];
const LLVM_LIBRARIES: [&str; 3] = ["bin/llvm-config", "lib/libLLVMCore.a", "lib/libPolly.a"];
const LINKER_VERSION: &str = "0.13.0";

/// A way to compile for the BPF target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Toolchain {
    /// rustup's nightly with rust-src.
    Nightly,
    /// Debian's compiler with Debian's core library for BPF.
    Debian,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nightly => "rustup's nightly and its rust-src",
            Self::Debian => "Debian's rustc-web and libstd-rust-web-dev-bpf",
        })
    }
}

impl Toolchain {
    /// cargo, set up for this compiler.
    pub(super) fn cargo(self) -> Command {
        let mut cargo = Command::new("cargo");
        match self {
            Self::Nightly => {
                // The variable, because under `cargo xtask` rustup has set it to the repository's toolchain.
                cargo.env("RUSTUP_TOOLCHAIN", "nightly").arg("-Zbuild-std=core");
            }
            Self::Debian => {
                cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
            }
        }
        cargo
    }
}

/// Finds a toolchain and the linker; with `install`, brings them after saying so.
pub(super) fn find(install: bool) -> Result<Toolchain> {
    let toolchain = match (find_compiler(), install) {
        (Some(found), _) => found,
        (None, true) => {
            setup::install(&DEBIAN_COMPILER)?;
            find_compiler().context("rustc-web is installed, yet its core library for BPF is not found")?
        }
        (None, false) => bail!(
            "no compiler for the BPF target. Either of these brings one:\n  \
             apt-get install -y --no-install-recommends {}\n  \
             rustup toolchain install nightly --component rust-src, if its LLVM is {LLVM} at most (rustc +nightly -vV)\n\
             or let this do it: cargo xtask build-ebpf --install",
            DEBIAN_COMPILER.join(" ")
        ),
    };
    if find_linker().is_none() {
        if !install {
            bail!(
                "bpf-linker is missing:\n  apt-get install -y --no-install-recommends {}\n  {}\n\
                 or let this do it: cargo xtask build-ebpf --install",
                DEBIAN_LLVM.join(" "),
                shell::text(&install_linker()),
            );
        }
        // What the linker is linked with; llvm-config alone may be there without them.
        let present = |file: &&str| Path::new(LLVM_PREFIX).join(file).exists();
        if !LLVM_LIBRARIES.iter().all(present) {
            setup::install(&DEBIAN_LLVM)?;
        }
        println!("Missing on this machine, so it is built now: bpf-linker {LINKER_VERSION}");
        shell::run(&mut install_linker())?;
    }
    Ok(toolchain)
}

fn find_compiler() -> Option<Toolchain> {
    if nightly_has_source() {
        match nightly_llvm() {
            Some(version) if version <= LLVM => return Some(Toolchain::Nightly),
            version => println!(
                "rustup's nightly is passed over: its LLVM is {}, and what bpf-linker {LINKER_VERSION} reads is of {LLVM} at most",
                version.map_or_else(|| "not known".to_owned(), |version| version.to_string())
            ),
        }
    }
    (Path::new(DEBIAN_RUSTC).exists() && Path::new(DEBIAN_CORE).exists()).then_some(Toolchain::Debian)
}

fn nightly_has_source() -> bool {
    find_tool("rustup").is_some()
        && installed_toolchains().contains("nightly")
        && shell::output(nightly().args(["--print", "sysroot"]))
            .is_ok_and(|sysroot| Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").exists())
}

fn nightly_llvm() -> Option<u32> {
    llvm_of(&shell::output(nightly().arg("-vV")).ok()?)
}

/// The major version of LLVM, in what `rustc -vV` says.
fn llvm_of(versions: &str) -> Option<u32> {
    let version = versions.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}

fn nightly() -> Command {
    let mut rustc = Command::new("rustc");
    rustc.env("RUSTUP_TOOLCHAIN", "nightly");
    rustc
}

/// Asked first: naming a toolchain that is not there would make rustup download it.
fn installed_toolchains() -> String {
    shell::output(Command::new("rustup").args(["toolchain", "list"])).unwrap_or_default()
}

fn find_linker() -> Option<String> {
    find_tool("bpf-linker")?;
    shell::output(Command::new("bpf-linker").arg("--version")).ok()
}

fn install_linker() -> Command {
    let mut cargo = Command::new("cargo");
    cargo
        .env("LLVM_PREFIX", LLVM_PREFIX)
        .args(["install", "bpf-linker", "--locked", "--version", LINKER_VERSION])
        .args(["--no-default-features", "--features", "llvm-22"]);
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_of_a_compiler_is_read() {
        let said = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        assert_eq!(llvm_of(said), Some(22));
        assert_eq!(llvm_of("rustc 1.97.0\n"), None);
        assert_eq!(llvm_of("LLVM version: none\n"), None);
    }

    #[test]
    fn the_linker_is_built_with_the_llvm_that_compilers_are_held_to() {
        assert!(
            LLVM_PREFIX.ends_with(&format!("-{LLVM}"))
                && shell::text(&install_linker()).contains(&format!("llvm-{LLVM}"))
        );
        assert!(DEBIAN_LLVM.iter().all(|package| package.contains(&format!("-{LLVM}-"))));
    }
}
