//! Puts the eBPF objects, built by `cargo xtask build-ebpf`, where `src/object.rs` embeds them from.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-env-changed=CULVERT_BPF_DIR");
    let objects = env::var_os("CULVERT_BPF_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bpf"), PathBuf::from);
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for name in ["node.o", "pod.o", "guard.o"] {
        let object = objects.join(name);
        println!("cargo::rerun-if-changed={}", object.display());
        if let Err(error) = fs::copy(&object, out.join(name)) {
            println!(
                "cargo::error=the eBPF object {} is not there ({error}); build it first: cargo xtask build-ebpf",
                object.display()
            );
            return;
        }
    }
}
