//! Running code of this process inside a namespace: on a thread of its own, so that nothing else is moved.
//!
//! A socket belongs for life to the namespace in which it was made, so clients are made in here and used outside.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use linux::netns::Netns;

/// Runs `inside` in the network namespace at `path` and returns what it returns.
pub fn in_netns<T: Send>(path: &Path, inside: impl FnOnce() -> T + Send) -> Result<T> {
    let netns = Netns::open(path)?;
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| netns.run(inside));
        worker.join().map_err(|_| anyhow!("code in {} panicked", path.display()))?.map_err(Into::into)
    })
}

/// Writes a sysctl (`net/ipv4/ip_forward`) in a namespace.
pub fn set_sysctl(netns: &Path, name: &str, value: &str) -> Result<()> {
    let file = format!("/proc/sys/{name}");
    in_netns(netns, || std::fs::write(&file, value))?
        .with_context(|| format!("{file} in {}", netns.display()))
}
