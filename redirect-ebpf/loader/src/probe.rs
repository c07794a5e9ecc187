//! Does the kernel have what capture needs? Asked before anything is touched, so that the answer is one clear line.

use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_program_supported};

use crate::error::CaptureError;

/// Something that the programs need of the kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Feature {
    Program(ProgramType),
    /// Whatever else the programs call is older.
    Helper(ProgramType, BpfHelper),
}

/// What capture needs, and the version that has all that it needs of it.
const NEEDED: [(Feature, &str, &str); 3] = [
    (Feature::Program(ProgramType::CgroupSockAddr), "cgroup/connect eBPF programs", "5.18"),
    (Feature::Program(ProgramType::SkLookup), "sk_lookup eBPF programs", "5.18"),
    (
        Feature::Helper(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval),
        "bpf_set_retval in cgroup/connect eBPF programs",
        "5.18",
    ),
];

/// Checks the running kernel.
pub fn kernel() -> Result<(), CaptureError> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    check(release.trim(), is_supported)
}

/// Where the kernel will not tell (no privilege to ask), loading tells.
fn is_supported(feature: Feature) -> bool {
    match feature {
        Feature::Program(kind) => is_program_supported(kind).unwrap_or(true),
        Feature::Helper(kind, helper) => is_helper_supported(kind, helper).unwrap_or(true),
    }
}

fn check(release: &str, supported: impl Fn(Feature) -> bool) -> Result<(), CaptureError> {
    match NEEDED.iter().find(|(feature, _, _)| !supported(*feature)) {
        None => Ok(()),
        Some((_, feature, minimum)) => {
            Err(CaptureError::Kernel { release: release.to_owned(), feature, minimum })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No kernel that lacks something runs here, so the kernel's answer is played.
    #[test]
    fn what_a_kernel_lacks_is_named() {
        let lacking = |needed: &'static str| {
            let error = check("5.4.0-played", |feature| {
                !NEEDED.iter().any(|(f, name, _)| *f == feature && *name == needed)
            });
            error.unwrap_err().to_string()
        };
        for (_, name, minimum) in NEEDED {
            let text = lacking(name);
            assert!(text.contains("5.4.0-played") && text.contains(name) && text.contains(minimum), "{text}");
        }
        check("6.1.0-played", |_| true).unwrap();
    }
}
