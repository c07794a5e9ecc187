//! Child processes that end: each has a limit, and its output is in the error when it fails.

use std::io::{Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Longer than any command of the harness takes on a loaded machine.
pub const LIMIT: Duration = Duration::from_secs(30);

/// How a child ended.
#[derive(Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// All of its stdout.
    pub stdout: String,
    /// All of its stderr.
    pub stderr: String,
}

/// Runs a command to its end, with `stdin`, for at most [`LIMIT`]; a failing status is not an error here.
pub fn finish(command: &mut Command, stdin: &[u8]) -> Result<Ended> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {program}; is it installed?"))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A child that ends without reading its stdin breaks the pipe; its status tells the rest.
        let _ = pipe.write_all(stdin);
    }
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let status = wait(&mut child, LIMIT).with_context(|| format!("waiting for {program}"))?;
    Ok(Ended { status, stdout: stdout.join().unwrap_or_default(), stderr: stderr.join().unwrap_or_default() })
}

/// Runs a command that must succeed; returns its stdout.
pub fn run(command: &mut Command) -> Result<String> {
    let ended = finish(command, b"")?;
    if !ended.status.success() {
        let words: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        let program = command.get_program().to_string_lossy();
        bail!("{program} {}: {}: {}", words.join(" "), ended.status, ended.stderr.trim());
    }
    Ok(ended.stdout)
}

/// Runs `ip` with words parted by blanks.
pub fn ip(words: &str) -> Result<String> {
    run(Command::new("ip").args(words.split_whitespace()))
}

/// A command that will run in another network namespace.
///
/// `ip netns exec` would also mount another /sys, and so hide cgroup and BPF file systems; nsenter does not.
pub fn in_netns(netns: &Path, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", netns.display())).arg("--").arg(program);
    // What tests are told this way is nothing that an agent knows, and it takes no variable of its name that it does not know.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CULVERT_")) {
        command.env_remove(name);
    }
    command
}

/// Waits for a child; kills it at the limit.
pub fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            bail!("still running after {limit:?}, killed");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_tells_its_words_and_stderr() {
        let error = run(Command::new("sh").args(["-c", "echo oh no >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("oh no"), "{error}");
        let error = run(&mut Command::new("culvert-no-such-tool")).unwrap_err().to_string();
        assert!(error.contains("is it installed"), "{error}");
    }
}
