//! What capture is compared with: redirection by netfilter inside the pod, with connection tracking.
//!
//! The rules are the ones that Istio's CNI plugin lays in an ambient pod, IPv4 half: `REDIRECT` in both directions but for
//! the proxy's own mark, and a connection mark by which the application's replies to the proxy find back. Probes are told by
//! their source, to which the node translates them.

use std::process::Command;

use anyhow::{Context as _, Result};
use harness::command;
use harness::run::find_tool;

use super::site::Site;

/// Port of the listener for outbound connections.
pub(crate) const OUTBOUND: u16 = 15001;
/// Port of the listener for inbound connections.
pub(crate) const INBOUND: u16 = 15006;
/// Mark of the proxy's own sockets.
pub(crate) const PROXY_MARK: u32 = 0x539;

/// Port of an application that only the kubelet asks.
pub(crate) const PROBED: u16 = 8081;

const RULES: &str = "\
*mangle
-A PREROUTING -m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff
-A OUTPUT -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff
COMMIT
*nat
-A PREROUTING -s 169.254.7.127/32 -p tcp -m tcp -j ACCEPT
-A PREROUTING ! -d 127.0.0.1/32 -p tcp -m tcp ! --dport 15008 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15006
-A OUTPUT -d 169.254.7.127/32 -p tcp -m tcp -j ACCEPT
-A OUTPUT -p tcp -m mark --mark 0x111/0xfff -j ACCEPT
-A OUTPUT ! -d 127.0.0.1/32 -o lo -j ACCEPT
-A OUTPUT ! -d 127.0.0.1/32 -p tcp -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15001
COMMIT
";

/// Lays the rules in a pod and in what is beyond it, which is its node here; returns the version of iptables.
pub(crate) fn lay(site: &Site) -> Result<String> {
    let restore = find_tool("iptables-restore").context("iptables is missing: apt-get install iptables")?;
    let probes = format!(
        "*nat\n-A POSTROUTING -p tcp -d {} --dport {PROBED} -j SNAT --to-source 169.254.7.127\nCOMMIT\n",
        site.pod_address
    );
    for (netns, rules) in [(site.path(), RULES), (site.peer_path(), probes.as_str())] {
        let ended = command::finish(&mut command::in_netns(netns, &restore), rules.as_bytes())?;
        anyhow::ensure!(ended.status.success(), "iptables-restore: {}", ended.stderr.trim());
    }
    let netns = site.path();
    let name = netns.file_name().unwrap_or_default().to_string_lossy();
    command::ip(&format!("-n {name} rule add fwmark 0x111/0xfff pref 32764 lookup 100"))?;
    command::ip(&format!("-n {name} route add local default dev lo table 100"))?;
    Ok(command::run(Command::new(restore).arg("--version"))?.trim().to_owned())
}
