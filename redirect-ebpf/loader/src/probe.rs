//! Does the kernel have what capture needs? Asked before anything is touched, so that the answer is one clear line.

use aya::programs::ProgramType;
use aya::sys::is_program_supported;

use crate::error::CaptureError;

/// Kinds of programs that capture needs, and the version that brought what it needs of them.
const NEEDED: [(ProgramType, &str, &str); 2] = [
    (ProgramType::CgroupSockAddr, "cgroup/connect eBPF programs", "5.18"),
    (ProgramType::SkLookup, "sk_lookup eBPF programs", "5.18"),
];

/// Checks the running kernel.
pub fn kernel() -> Result<(), CaptureError> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    check(release.trim(), |kind| is_program_supported(kind).unwrap_or(true))
}

/// Where the kernel will not tell (no privilege to ask), loading tells.
fn check(release: &str, supported: impl Fn(ProgramType) -> bool) -> Result<(), CaptureError> {
    match NEEDED.iter().find(|(kind, _, _)| !supported(*kind)) {
        None => Ok(()),
        Some((_, feature, minimum)) => {
            Err(CaptureError::Kernel { release: release.to_owned(), feature, minimum })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No kernel without sk_lookup runs here, so the kernel's answer is played.
    #[test]
    fn a_kernel_without_sk_lookup_is_named() {
        let error = check("5.4.0-played", |kind| kind != ProgramType::SkLookup).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("5.4.0-played") && text.contains("sk_lookup") && text.contains("5.18"),
            "{text}"
        );
        check("6.1.0-played", |_| true).unwrap();
    }
}
