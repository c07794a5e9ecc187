//! What the process may do: capture needs privileges, and their lack is told before anything is touched.

use std::io;

/// Bits of `linux/capability.h` that capture needs.
const NEEDED: [(u32, &str); 4] = [(12, "NET_ADMIN"), (13, "NET_RAW"), (21, "SYS_ADMIN"), (39, "BPF")];

/// The capabilities that capture needs and this process lacks.
pub fn missing() -> io::Result<Vec<&'static str>> {
    Ok(missing_in(&std::fs::read_to_string("/proc/self/status")?))
}

fn missing_in(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    NEEDED.iter().filter(|(bit, _)| effective & (1 << bit) == 0).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        assert!(missing_in("CapEff:\t000001ffffffffff\n").is_empty());
        assert_eq!(missing_in("CapEff:\t0000000000003000\n"), ["SYS_ADMIN", "BPF"]);
        assert_eq!(missing_in("no such line").len(), NEEDED.len());
    }
}
