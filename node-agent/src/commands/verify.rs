//! `culvert verify`: what the node's agent says of its capture, for people or for programs.
//!
//! The exit code is the answer in short: 0 all is whole, 1 something is wrong, 2 no agent answers.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::bail;
use serde::Serialize;

use super::output::{self, Paint, Tone, harmless};
use super::{ask::ask, code, pods};
use crate::admin_socket::protocol::{Answer, Command, LineView, PodView, Request, VERSION};
use crate::cli::VerifyArgs;

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
    let answers = ask(&args.asked.target, &request)?;
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
            "the agent of this node knows no pod {pod}; name it POD or NAMESPACE/POD, and see that the mesh has it"
        );
    }
    found.whole = found.node.iter().all(|line| line.ok) && found.pods.iter().all(PodView::is_whole);
    output::show(args.asked.output, &found, table)?;
    Ok(code(found.whole))
}

fn table(found: &Found, paint: Paint) -> String {
    let mut text = String::from("node\n");
    found.node.iter().for_each(|line| push_line(&mut text, line, paint));
    for pod in &found.pods {
        let why = pod.why.as_ref().map(|why| format!(", {why}")).unwrap_or_default();
        // Writing to a String does not fail.
        let state = paint.text(&pod.state, pods::tone(&pod.state));
        let _ = writeln!(text, "pod {}: {state}{}", pod.pod, harmless(&why));
        pod.lines.iter().for_each(|line| push_line(&mut text, line, paint));
    }
    let whole = found.pods.iter().filter(|pod| pod.is_whole()).count();
    let _ = writeln!(text, "{whole} of {} pods are whole", found.pods.len());
    text
}

fn push_line(text: &mut String, line: &LineView, paint: Paint) {
    let mark = match (line.ok, &line.note) {
        (false, _) => paint.text("WRONG", Tone::Bad),
        (true, Some(_)) => paint.text("note ", Tone::Doubtful),
        (true, None) => paint.text("ok   ", Tone::Good),
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
