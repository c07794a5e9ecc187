//! Has the plugin's relocations packed: an executable that is static and may lie anywhere in memory has some six thousand, of 24 bytes each, a
//! twentieth of it.
//!
//! Whoever reads them is the C library that is linked in, and glibc can since 2.36; with an older one, or one that is not known here, they
//! stay as they are. A linker that does not know how says so and goes on.

use std::env;
use std::process::Command;

/// The release of glibc that reads them.
const READS: (u32, u32) = (2, 36);

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The host's library is the target's where they are the same.
    let is_native = env::var_os("HOST") == env::var_os("TARGET");
    if is_native && glibc().is_some_and(|release| release >= READS) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The release of this machine's library, if it is glibc.
fn glibc() -> Option<(u32, u32)> {
    let told = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(told.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
