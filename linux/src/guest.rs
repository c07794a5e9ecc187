//! Pods that bring a network stack of their own: virtual machines (Kata Containers) and user-space kernels (gVisor).
//!
//! Their processes have no socket in the pod's network namespace, only frames pass through it. They are known by the
//! process that is their kernel (in whose network namespace it runs), and by the device that Kata makes there.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::netns::{Netns, NetnsError};

/// Virtual machine monitors and user-space kernels, by the names of their executables.
const KERNELS: [&str; 8] = [
    "runsc",
    "runsc-sandbox",
    "qemu-kvm",
    "cloud-hypervisor",
    "firecracker",
    "stratovirt",
    "dragonball",
    "kata-runtime",
];
/// QEMU has one for each architecture.
const QEMU: &str = "qemu-system-";
/// What the names of Kata's devices end with.
const DEVICE: &str = "_kata";

/// The network namespaces, by inode, in which such a process runs, with its name. A process that ends meanwhile is passed
/// over.
pub fn find(proc: &Path) -> io::Result<HashMap<u64, String>> {
    let mut found = HashMap::new();
    for entry in std::fs::read_dir(proc)?.flatten() {
        let path = entry.path();
        if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        if let Some(name) = kernel(&path)
            && let Ok(netns) = std::fs::metadata(path.join("ns/net"))
        {
            found.insert(netns.ino(), name);
        }
    }
    Ok(found)
}

/// Its name, if a process is the kernel of a guest: by its executable, or by the name that it was started under.
fn kernel(process: &Path) -> Option<String> {
    let executable = std::fs::read_link(process.join("exe")).ok();
    let words = std::fs::read(process.join("cmdline")).ok()?;
    let first = words.split(|byte| *byte == 0).next().unwrap_or_default();
    let started_as = String::from_utf8_lossy(first).into_owned();
    let names = [executable.as_deref().and_then(Path::file_name), Path::new(&started_as).file_name()];
    names
        .into_iter()
        .flatten()
        .filter_map(|name| name.to_str())
        .find(|name| is_kernel(name))
        .map(str::to_owned)
}

fn is_kernel(name: &str) -> bool {
    let name = name.strip_suffix(" (deleted)").unwrap_or(name);
    KERNELS.contains(&name) || name.starts_with(QEMU)
}

/// The device of a virtual machine in a namespace, if there is one.
pub fn device(netns: &Netns) -> Result<Option<String>, NetnsError> {
    let names = netns.run(nix::net::if_::if_nameindex)?;
    // Without the list nothing is known; the processes tell as well.
    let Ok(interfaces) = names else { return Ok(None) };
    let mut names = interfaces.iter().map(|interface| interface.name().to_string_lossy());
    Ok(names.find(|name| name.ends_with(DEVICE)).map(|name| name.into_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;

    use super::*;

    #[test]
    fn guests_are_known_by_the_name_of_their_kernel() {
        for name in
            ["runsc", "runsc-sandbox", "qemu-system-x86_64", "qemu-system-aarch64 (deleted)", "firecracker"]
        {
            assert!(is_kernel(name), "{name}");
        }
        for name in ["run", "runsc2", "qemu-img", "nginx", ""] {
            assert!(!is_kernel(name), "{name}");
        }
    }

    #[test]
    fn a_process_of_a_guest_is_found_in_its_namespace() {
        let mut command = std::process::Command::new("sleep");
        command.arg("60").arg0("runsc-sandbox");
        let mut child = command.spawn().unwrap();
        let own = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
        let found = (0..200).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            find(Path::new("/proc")).unwrap().remove(&own)
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.as_deref(), Some("runsc-sandbox"));
    }
}
