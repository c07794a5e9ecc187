//! `culvert support`: everything that helps to understand a node from afar, in one archive.
//!
//! Invariants: nothing in it is secret. The agent tells no keys and no secrets to begin with, and whatever looks like one is taken out once more
//! ([`redact`]). What cannot be found out is named in the archive, and ends nothing. The archive is this user's alone, and replaces no file.

mod redact;

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde_json::Value;

use super::ask::Agent;
use super::{code, output};
use crate::admin_socket::protocol::{Answer, Command, LevelChange, Request};
use crate::cli::SupportArgs;

/// Bytes of a file of the system that are taken.
const MAX_FILE: usize = 64 * 1024;
/// What is read of the system; nothing in there is a pod's.
const FILES: [&str; 7] = [
    "/etc/os-release",
    "/proc/version",
    "/proc/cmdline",
    "/proc/meminfo",
    "/proc/loadavg",
    "/sys/fs/cgroup/cgroup.controllers",
    "/proc/sys/kernel/unprivileged_bpf_disabled",
];

/// One file of the archive.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    name: String,
    text: String,
}

/// Writes the archive, and says where.
pub(crate) fn support(args: &SupportArgs) -> anyhow::Result<ExitCode> {
    let agent = Agent::of(&args.target)?;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let path =
        args.file.clone().unwrap_or_else(|| PathBuf::from(format!("culvert-support-{seconds}.tar.gz")));
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("making {}; name another file with --file", path.display()))?;
    let parts = collect(&agent);
    write(file, &parts, seconds).with_context(|| format!("writing {}", path.display()))?;
    output::print(&format!("{}\n", path.display()))?;
    Ok(code(true))
}

/// The archive, with whatever looks like a secret taken out.
fn write(file: File, parts: &[Part], seconds: u64) -> std::io::Result<()> {
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    for part in parts {
        let text = redact::text(&part.text);
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(text.len()).unwrap_or_default());
        header.set_mode(0o600);
        header.set_mtime(seconds);
        archive.append_data(&mut header, Path::new("culvert-support").join(&part.name), text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.sync_all()
}

fn collect(agent: &Agent) -> Vec<Part> {
    let questions = [
        ("status.json", Command::Status),
        ("capture.json", Command::Verify),
        ("pods.json", Command::Pods),
        ("connections.json", Command::Connections),
        ("certificates.json", Command::Certificates),
        ("events.json", Command::Events { after: 0 }),
        ("logging.json", Command::Logging(LevelChange::default())),
        ("config.json", Command::Config),
        ("metrics.txt", Command::Metrics),
    ];
    let version =
        Part { name: "version.txt".into(), text: format!("culvert {}\n", env!("CARGO_PKG_VERSION")) };
    let mut parts = vec![version];
    for (name, command) in questions {
        progress(name);
        let text = match agent.ask(&Request::new(command, None)) {
            Ok(answers) => of_answers(&answers),
            Err(error) => format!("not found out: {error:#}\n"),
        };
        parts.push(Part { name: name.into(), text });
    }
    // What is on this machine says nothing of another node.
    for path in FILES.iter().filter(|_| agent.is_near()) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text.chars().take(MAX_FILE).collect(),
            Err(error) => format!("not read: {error}\n"),
        };
        parts.push(Part { name: format!("system{path}"), text });
    }
    parts
}

/// Pieces of a text as that text; anything else as a list of what was answered.
fn of_answers(answers: &[Answer]) -> String {
    let mut text = String::new();
    let mut others: Vec<Value> = Vec::new();
    for answer in answers {
        match answer {
            Answer::Piece { text: piece } => text.push_str(piece),
            other => others.extend(value(other)),
        }
    }
    if text.is_empty() || !others.is_empty() {
        text.push_str(&serde_json::to_string_pretty(&others).unwrap_or_default());
        text.push('\n');
    }
    text
}

fn value(answer: &impl Serialize) -> Option<Value> {
    serde_json::to_value(answer).ok()
}

/// Who waits at a terminal sees what is being asked.
fn progress(name: &str) {
    let mut stderr = std::io::stderr().lock();
    if stderr.is_terminal() {
        // Nobody is there to be told if this fails.
        let _ = writeln!(stderr, "{name}");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::admin_socket::tests::World;

    #[test]
    fn the_archive_holds_every_part_and_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar.gz");
        let pods = of_answers(&World::new().ask(&Request::new(Command::Pods, None)));
        let config = of_answers(&World::new().ask(&Request::new(Command::Config, None)));
        let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzM2NyZXQifQ.s3cret";
        let parts = [
            Part { name: "pods.json".into(), text: pods },
            Part { name: "config.json".into(), text: config.clone() },
            Part { name: "log.txt".into(), text: format!("authorization: Bearer {token} from a pod\n") },
        ];
        write(File::create(&path).unwrap(), &parts, 7).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(File::open(&path).unwrap()));
        let mut read = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            assert!(!text.contains("s3cret"), "{name}: {text}");
            assert_eq!((entry.header().mode().unwrap(), entry.header().mtime().unwrap()), (0o600, 7));
            read.push((name, text));
        }
        let names: Vec<_> = read.iter().map(|(name, _)| name.as_str()).collect();
        let expected =
            ["culvert-support/pods.json", "culvert-support/config.json", "culvert-support/log.txt"];
        assert_eq!(names, expected);
        assert!(read[0].1.contains("\"pod\": \"bookinfo/sleep\""));
        assert_eq!(read[1].1, config);
        assert_eq!(read[2].1, "authorization: Bearer (redacted) from a pod\n");
    }

    #[test]
    fn what_cannot_be_asked_is_named_and_ends_nothing() {
        let parts = collect(&Agent::Near("/nowhere/at/all/admin.sock".into()));
        let status = parts.iter().find(|part| part.name == "status.json").unwrap();
        assert!(status.text.starts_with("not found out: no agent answers at /nowhere/at/all/admin.sock"));
        assert!(parts.iter().any(|part| part.name == "system/proc/version" && part.text.contains("Linux")));
    }
}
