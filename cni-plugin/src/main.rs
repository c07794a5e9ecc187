//! `culvert-cni`: started by the container runtime for each pod, named last in the node's conflist.
//!
//! Everything happens in [`cni::plugin::run`]; here are only the process's ends. A failure to write the answer is the
//! one thing that cannot be told to the runtime: the exit status says it.

#![forbid(unsafe_code)]

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use cni::plugin::{self, Answer};

/// The specification sets no limit; a conflist entry with the largest real prevResult has a few KiB.
const MAX_STDIN: u64 = 1 << 20;

fn main() -> ExitCode {
    let mut stdin = Vec::new();
    let read = std::io::stdin().lock().take(MAX_STDIN + 1).read_to_end(&mut stdin);
    let answer = match read {
        Ok(length) if length as u64 > MAX_STDIN => {
            Answer::input_failed(&format!("more than {MAX_STDIN} bytes on stdin"))
        }
        Ok(_) => plugin::run(&|name| std::env::var_os(name), &stdin),
        Err(error) => Answer::input_failed(&format!("reading stdin: {error}")),
    };
    for note in &answer.notes {
        // The runtime keeps stderr for its log; nothing is lost if it has closed it.
        let _ = writeln!(std::io::stderr().lock(), "culvert-cni: {note}");
    }
    if std::io::stdout().lock().write_all(answer.stdout.as_bytes()).is_err() {
        return ExitCode::FAILURE;
    }
    if answer.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
