//! The direction of dependencies: which crates may name a library directly.
//!
//! The walls between rooms are worth what holds them up; this does. Direct dependencies only, of every kind: what a
//! library brings along is its own business.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::shell;

/// A library, and the crates that may use it.
struct Wall {
    libraries: &'static [&'static str],
    allowed: &'static [&'static str],
}

const WALLS: [Wall; 6] = [
    Wall { libraries: &["aya", "aya-obj"], allowed: &["culvert-redirect-loader"] },
    // The plugin has one question to the Kubernetes API; the tests play peers that the product would not be.
    Wall {
        libraries: &["rustls", "rustls-webpki", "tokio-rustls", "h2"],
        allowed: &[
            "culvert-tunnel",
            "culvert-control",
            "culvert-cni",
            "culvert-netns-tests",
            "culvert-control-plane",
            "culvert-kube-api",
        ],
    },
    Wall { libraries: &["rtnetlink", "netlink-packet-route"], allowed: &["culvert-linux"] },
    Wall { libraries: &["kube", "k8s-openapi"], allowed: &["culvert-node-agent"] },
    Wall {
        libraries: &["culvert-tunnel", "culvert-redirect-loader"],
        allowed: &[
            "culvert-node-agent",
            "culvert-netns-tests",
            "culvert-kernel-tests",
            "culvert-bench",
            "culvert-fuzz",
        ],
    },
    Wall {
        libraries: &["culvert-control"],
        allowed: &["culvert-node-agent", "culvert-netns-tests", "culvert-control-plane", "culvert-fuzz"],
    },
];
/// The pure domain may not know these.
const NOT_IN_MESH: [&str; 5] = ["tokio", "nix", "libc", "socket2", "prometheus-client"];
/// The one room that may enter a network namespace.
const SETNS_ROOM: &str = "linux";

pub(super) fn check() -> Result<()> {
    println!("  checking the direction of dependencies");
    let metadata = shell::output(shell::cargo().args(["metadata", "--no-deps", "--format-version=1"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let packages =
        metadata.get("packages").and_then(Value::as_array).context("cargo metadata without packages")?;
    let mut wrong = violations(packages);
    wrong.extend(setns_outside(&shell::root())?);
    if !wrong.is_empty() {
        bail!("dependencies that cross a wall (xtask/src/test/dependencies.rs):\n  {}", wrong.join("\n  "));
    }
    Ok(())
}

fn violations(packages: &[Value]) -> Vec<String> {
    let mut wrong = Vec::new();
    for package in packages {
        let name = text(package, "name");
        let dependencies = package.get("dependencies").and_then(Value::as_array).into_iter().flatten();
        for library in dependencies.map(|dependency| text(dependency, "name")) {
            let walled = WALLS.iter().find(|wall| wall.libraries.contains(&library));
            if let Some(wall) = walled
                && !wall.allowed.contains(&name)
            {
                wrong.push(format!("{name} uses {library}; only {} may", wall.allowed.join(" and ")));
            }
            if name == "culvert-mesh" && NOT_IN_MESH.contains(&library) {
                wrong.push(format!("{name} uses {library}; the domain knows no I/O"));
            }
        }
    }
    wrong
}

/// setns(2) is a function of a library that has other uses, so it is looked for in the sources.
fn setns_outside(root: &std::path::Path) -> Result<Vec<String>> {
    let mut grep = std::process::Command::new("grep");
    grep.current_dir(root).args(["-rlE", r"\bsetns\(", "--include=*.rs", "--exclude-dir=target", "."]);
    let ended = harness::command::finish(&mut grep, b"")?;
    let room = format!("./{SETNS_ROOM}/");
    let outside =
        ended.stdout.lines().filter(|file| !file.starts_with(&room) && !file.starts_with("./xtask/"));
    Ok(outside.map(|file| format!("{file} calls setns; use linux::netns")).collect())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_library_in_the_wrong_room_is_named() {
        let package = |name: &str, uses: &str| json!({ "name": name, "dependencies": [{ "name": uses }] });
        assert_eq!(
            violations(&[package("culvert-tunnel", "aya"), package("culvert-mesh", "tokio")]),
            [
                "culvert-tunnel uses aya; only culvert-redirect-loader may",
                "culvert-mesh uses tokio; the domain knows no I/O",
            ]
        );
        assert!(
            violations(&[package("culvert-tunnel", "rustls"), package("culvert-linux", "rtnetlink")])
                .is_empty()
        );
    }
}
