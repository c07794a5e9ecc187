//! Running the checks and following what they say.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::shell;

/// The emulator.
pub(super) const QEMU: &str = "qemu-system-x86_64";

/// The serial line is the guest's only output; a panic ends the guest; the processor's random numbers are taken, for
/// there is no other source.
const KERNEL_WORDS: &str =
    "console=ttyS0 panic=-1 quiet loglevel=3 mitigations=off tsc=reliable random.trust_cpu=on";

/// A virtual machine with so many MiB of memory that boots this kernel with this initrd and more words for the kernel. Emulated: a machine
/// that is virtual itself often has no usable KVM.
pub(super) fn command(vmlinuz: &Path, initrd: &Path, words: &str, memory: u32) -> Command {
    let mut qemu = Command::new(QEMU);
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "1"])
        .args(["-m", &memory.to_string()])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"])
        .arg("-kernel")
        .arg(vmlinuz)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", &format!("{KERNEL_WORDS} {words}")])
        .stdin(Stdio::null());
    qemu
}

/// Runs a command, showing each line as it comes; returns whether the line `wanted` was among them. Ends the command at
/// the limit.
pub(super) fn follow(command: &mut Command, limit: Duration, wanted: &str) -> Result<bool> {
    let program = shell::text(command);
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("starting {program}"))?;
    let output = child.stdout.take().context("a child without stdout")?;
    let (sender, lines) = sync_channel(64);
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            if sender.send(line.trim_end_matches('\r').to_owned()).is_err() {
                return;
            }
        }
    });
    let (end, mut passed) = (Instant::now() + limit, false);
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                passed |= line == wanted;
                println!("   {line}");
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                println!("   still running after {limit:?}, so it is ended");
                passed = false;
                child.kill()?;
                break;
            }
        }
    }
    // What it might still say must not keep the reader waiting.
    drop(lines);
    child.wait()?;
    // It ends with its pipe, and cannot fail.
    let _ = reader.join();
    Ok(passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn only_the_wanted_line_passes() {
        let limit = Duration::from_secs(20);
        assert!(follow(&mut sh("echo one; printf 'good\\r\\n'"), limit, "good").unwrap());
        assert!(!follow(&mut sh("echo not good"), limit, "good").unwrap());
    }

    #[test]
    fn a_guest_that_hangs_is_ended_and_has_not_passed() {
        assert!(!follow(&mut sh("echo good; exec sleep 600"), Duration::from_millis(200), "good").unwrap());
    }
}
