//! `culvert verify` and `culvert status`: what the node's agent says of its capture, for people or for programs.
//!
//! The exit code is the answer in short: 0 all is whole, 1 something is wrong, 2 no agent answers.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use linux::fdpass::Connection;
use serde::Serialize;

use crate::admin_socket::SOCKET;
use crate::admin_socket::protocol::{
    Answer, Command, LineView, MAX_MESSAGE, PodView, Request, StatusView, VERSION,
};
use crate::cli::{Output, StatusArgs, VerifyArgs};

const WRONG: u8 = 1;
const NO_AGENT: u8 = 2;
/// How long the agent may take for one pod: longer than a connection that does not arrive, in each family.
const TIMEOUT: Duration = Duration::from_secs(15);

/// All that was found.
#[derive(Debug, Default, Serialize)]
struct Found {
    version: u32,
    whole: bool,
    node: Vec<LineView>,
    pods: Vec<PodView>,
}

/// Prints what an inspection of node and pods finds.
pub(crate) fn verify(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let request = Request::new(Command::Verify, args.pod.clone());
    let Some(answers) = ask(&args.asked.run_dir, &request)? else { return Ok(ExitCode::from(NO_AGENT)) };
    let mut found = Found { version: VERSION, ..Found::default() };
    for answer in answers {
        match answer {
            Answer::Node { lines } => found.node = lines,
            Answer::Pod(pod) => found.pods.push(pod),
            _ => {}
        }
    }
    if let Some(pod) = args.pod.as_ref().filter(|_| found.pods.is_empty()) {
        bail!(
            "the agent of this node knows no pod {pod}; name it NAMESPACE/POD, and see that the mesh has it"
        );
    }
    found.whole = found.node.iter().all(|line| line.ok) && found.pods.iter().all(PodView::is_whole);
    match args.asked.output {
        Output::Table => print(&table(&found))?,
        Output::Json => print(&format!("{}\n", serde_json::to_string_pretty(&found)?))?,
    }
    Ok(if found.whole { ExitCode::SUCCESS } else { ExitCode::from(WRONG) })
}

/// Prints how many pods are in which state.
pub(crate) fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let request = Request::new(Command::Status, None);
    let Some(answers) = ask(&args.asked.run_dir, &request)? else { return Ok(ExitCode::from(NO_AGENT)) };
    let status = answers.into_iter().find_map(|answer| match answer {
        Answer::Status(status) => Some(status),
        _ => None,
    });
    let Some(status) = status else { bail!("the agent's answer has no status in it") };
    match args.asked.output {
        Output::Table => print(&summary(&status))?,
        Output::Json => print(&format!("{}\n", serde_json::to_string_pretty(&status)?))?,
    }
    let whole = status.degraded == 0 && status.pending == 0;
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::from(WRONG) })
}

/// The agent's answers up to the last; none, and a word about it, if no agent is there.
fn ask(run_dir: &Path, request: &Request) -> anyhow::Result<Option<Vec<Answer>>> {
    let path = run_dir.join(SOCKET);
    let connection = match Connection::connect(&path, TIMEOUT) {
        Ok(connection) => connection,
        Err(error) => {
            no_agent(&path, &error);
            return Ok(None);
        }
    };
    connection.send(&request.encode()?, &[])?;
    let mut answers = Vec::new();
    loop {
        let (message, _) = match connection.recv(MAX_MESSAGE) {
            Ok(received) => received,
            Err(error) => {
                no_agent(&path, &error);
                return Ok(None);
            }
        };
        if message.is_empty() {
            bail!(
                "the agent ended its answer in the middle; only root is answered, and its log may tell more"
            );
        }
        match Answer::decode(&message)? {
            Answer::End => return Ok(Some(answers)),
            Answer::Failed { message } => bail!("the agent did not understand: {message}"),
            answer => answers.push(answer),
        }
    }
}

#[expect(clippy::print_stderr, reason = "this is a command, and its answer goes to stdout")]
fn no_agent(path: &Path, error: &std::io::Error) {
    eprintln!(
        "culvert: no agent answers at {} ({error}); is it running, and is this its --run-dir? Run this as root",
        path.display()
    );
}

fn table(found: &Found) -> String {
    let mut text = String::from("node\n");
    found.node.iter().for_each(|line| push_line(&mut text, line));
    for pod in &found.pods {
        let why = pod.why.as_ref().map(|why| format!(", {why}")).unwrap_or_default();
        // Writing to a String does not fail.
        let _ = writeln!(text, "pod {}: {}{why}", pod.pod, pod.state);
        pod.lines.iter().for_each(|line| push_line(&mut text, line));
    }
    let whole = found.pods.iter().filter(|pod| pod.is_whole()).count();
    let _ = writeln!(text, "{whole} of {} pods are whole", found.pods.len());
    text
}

fn push_line(text: &mut String, line: &LineView) {
    let mark = match (line.ok, &line.note) {
        (false, _) => "WRONG",
        (true, Some(_)) => "note ",
        (true, None) => "ok   ",
    };
    let problem = line
        .problem
        .as_ref()
        .or(line.note.as_ref())
        .map(|problem| format!(": {problem}"))
        .unwrap_or_default();
    let _ = writeln!(text, "  {mark} {}{problem}", line.name);
    if let Some(remedy) = line.remedy.as_ref().filter(|remedy| !remedy.is_empty()) {
        let _ = writeln!(text, "        {remedy}");
    }
}

fn summary(status: &StatusView) -> String {
    format!(
        "culvert {}, process {}\npods: {} enrolled, {} degraded, {} pending\n",
        status.version, status.process, status.enrolled, status.degraded, status.pending
    )
}

/// A reader that has enough (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
