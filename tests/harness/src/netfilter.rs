//! Connection-tracking entries and netfilter rules of a namespace: evidence that capture has none, and what others lay.

use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command;
use crate::inside::in_netns;
use crate::run::find_tool;

/// Tracked connections of a namespace; none if the kernel has no connection tracking loaded.
pub fn conntrack_count(netns: &Path) -> Result<u64> {
    let read = in_netns(netns, || std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count"))?;
    match read {
        Ok(text) => text.trim().parse().context("nf_conntrack_count"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).context("nf_conntrack_count"),
    }
}

/// Names of iptables tables that exist in a namespace, and nftables rules where `nft` is installed. Empty is none.
pub fn rules(netns: &Path) -> Result<String> {
    let mut found = in_netns(netns, || {
        ["ip_tables_names", "ip6_tables_names"]
            .map(|file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default())
            .concat()
    })?;
    if let Some(nft) = find_tool("nft") {
        found.push_str(&command::run(command::in_netns(netns, &nft).args(["list", "ruleset"]))?);
    } else if let Some(save) = find_tool("iptables-save") {
        found.push_str(&iptables_rules(netns, &save)?);
    }
    Ok(found.trim().to_owned())
}

/// Adds rules, in the form of iptables-save, to a namespace; IPv6's if `v6`.
pub fn add_rules(netns: &Path, v6: bool, rules: &str) -> Result<()> {
    let name = if v6 { "ip6tables-restore" } else { "iptables-restore" };
    let restore = find_tool(name).with_context(|| format!("{name} is missing: apt-get install iptables"))?;
    let ended = command::finish(command::in_netns(netns, &restore).arg("--noflush"), rules.as_bytes())?;
    anyhow::ensure!(ended.status.success(), "{name}: {}", ended.stderr.trim());
    Ok(())
}

/// What iptables-save tells but comments: tables that the nft variant shows.
fn iptables_rules(netns: &Path, save: &Path) -> Result<String> {
    let mut command: Command = command::in_netns(netns, save);
    let text = command::run(&mut command)?;
    Ok(text.lines().filter(|line| line.starts_with("-A")).map(|line| format!("{line}\n")).collect())
}
