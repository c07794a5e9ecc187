//! What the machine must have, and how to get it on Debian.
//!
//! Nothing is installed without being announced. On another system, or without root, the error lists what is missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use harness::run::find_tool;

use crate::shell;

/// Something a task needs from the system.
pub(crate) struct Need {
    /// Debian's package.
    pub(crate) package: &'static str,
    /// Is it there?
    pub(crate) present: fn() -> bool,
}

/// For nodes, pods and the plugin's static build.
pub(crate) const RUNTIME: [Need; 5] = [
    Need { package: "iproute2", present: || find_tool("ip").is_some() },
    Need { package: "util-linux", present: || find_tool("nsenter").is_some() },
    Need {
        package: "containernetworking-plugins",
        present: || Path::new(harness::cni::PLUGIN_DIR).join("bridge").exists(),
    },
    Need { package: "gcc", present: || find_tool("cc").is_some() },
    Need { package: "libc6-dev", present: || Path::new("/usr/include/stdio.h").exists() },
];

/// For tests beside what others lay in a node's and a pod's namespace.
pub(crate) const NETFILTER: [Need; 1] =
    [Need { package: "iptables", present: || find_tool("iptables-restore").is_some() }];

/// For tests that ask for names.
pub(crate) const NAMES: [Need; 1] =
    [Need { package: "bind9-dnsutils", present: || find_tool("dig").is_some() }];

/// For what pages show with it.
pub(crate) const SHOWN: [Need; 3] = [
    Need { package: "curl", present: || find_tool("curl").is_some() },
    Need { package: "jq", present: || find_tool("jq").is_some() },
    Need { package: "bsdutils", present: || find_tool("script").is_some() },
];

/// For pages as people see them: a browser that needs no screen, and letters.
const BROWSER: [Need; 2] = [
    Need { package: "chromium-headless-shell", present: || find_tool(CHROMIUM).is_some() },
    Need {
        package: "fonts-dejavu-core",
        present: || Path::new("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf").exists(),
    },
];
/// The program of the first.
const CHROMIUM: &str = "chromium-headless-shell";

/// Fails unless the caller is root.
pub(crate) fn require_root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "this makes network namespaces and loads eBPF programs: run it as root (sudo -E cargo xtask ...)"
        );
    }
    Ok(())
}

/// Brings what is missing, after saying so.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<_> = needs.iter().filter(|need| !(need.present)()).map(|need| need.package).collect();
    install(&missing)?;
    let left: Vec<_> = needs.iter().filter(|need| !(need.present)()).map(|need| need.package).collect();
    if !left.is_empty() {
        bail!("installed, yet not usable: {}", left.join(", "));
    }
    Ok(())
}

/// Where the browser is; it is brought first if it is missing.
pub(crate) fn browser() -> Result<PathBuf> {
    ensure(&BROWSER)?;
    find_tool(CHROMIUM).with_context(|| format!("{CHROMIUM} was installed, yet is not there"))
}

/// Installs Debian packages.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if find_tool("apt-get").is_none() || !nix::unistd::geteuid().is_root() {
        bail!(
            "missing on this machine: {list}\n  as root on Debian: apt-get install -y --no-install-recommends {list}"
        );
    }
    println!("Missing on this machine, so it is installed now: {list}");
    let mut update = Command::new("apt-get");
    shell::run(update.args(["update", "-q"]).env("DEBIAN_FRONTEND", "noninteractive"))?;
    let mut install = Command::new("apt-get");
    install.args(["install", "-y", "-q", "--no-install-recommends"]).args(packages);
    shell::run(install.env("DEBIAN_FRONTEND", "noninteractive"))
}
