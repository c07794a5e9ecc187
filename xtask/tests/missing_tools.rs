//! What `build-ebpf` says on a machine that lacks its tools: what is missing, and how to get it.

use std::process::Command;

#[test]
fn without_bpf_linker_the_command_that_brings_it_is_named() {
    let nowhere = std::env::temp_dir().join(format!("culvert-no-tools-{}", std::process::id()));
    std::fs::create_dir_all(&nowhere).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["build-ebpf", "--force"])
        .env("PATH", &nowhere)
        .output()
        .unwrap();
    std::fs::remove_dir(&nowhere).unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{text}");
    // Debian's compiler is found by its path, rustup's only by PATH: so which of the two is missed depends on the machine.
    if std::path::Path::new("/usr/bin/rustc").exists() {
        assert!(
            text.contains("bpf-linker is missing") && text.contains("cargo install bpf-linker"),
            "{text}"
        );
    } else {
        assert!(
            text.contains("no compiler for the BPF target") && text.contains("rustup toolchain install"),
            "{text}"
        );
    }
    assert!(text.contains("cargo xtask build-ebpf --install"), "{text}");
}
