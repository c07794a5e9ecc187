//! Asking and looking, told as it is done: requests, log lines, metrics, the command line.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, anyhow};
use harness::{Agent, Attempt, Narrator, Pod, Reply, command, eventually};
use interop_tests::LIMIT;

use crate::stage::Stage;

/// Longest body that is shown, in characters.
const SHOWN: usize = 300;

/// A request that must be answered, with whatever status.
pub(crate) fn ask(say: &mut Narrator, from: &Pod, method: &str, to: SocketAddr, path: &str) -> Result<Reply> {
    say.ran(&format!("{}: {method} http://{to}{path}", from.name()));
    let reply = from.open_http(to)?.request(method, path, &[])?;
    show(say, &reply);
    Ok(reply)
}

/// Shows an answer.
pub(crate) fn show(say: &mut Narrator, reply: &Reply) {
    let body: String = reply.body.trim().chars().take(SHOWN).collect();
    let more = if body.len() < reply.body.trim().len() { " ..." } else { "" };
    say.saw(&format!("{} {body}{more}", reply.status));
}

/// Shows what came of an attempt that must be refused, and checks the claim that it was.
pub(crate) fn refused(say: &mut Narrator, claim: &str, attempt: &Attempt) {
    if let Attempt::Refused(error) | Attempt::TimedOut(error) = attempt {
        say.saw(&error.to_string());
    }
    say.check(claim, if attempt.is_refused() { Ok(()) } else { Err(anyhow!("saw {attempt:?}")) });
}

/// Waits for a line of an agent's access log with all of these parts, and shows it.
pub(crate) fn access_log(say: &mut Narrator, agent: &Agent, parts: &[&str]) -> Result<String> {
    let parts: Vec<&str> = ["\taccess\t"].iter().chain(parts).copied().collect();
    let line = agent.wait_for_log(&parts, LIMIT)?;
    say.saw(&line.replace('\t', " "));
    Ok(line)
}

/// The value of a field of a log line.
pub(crate) fn field<'a>(line: &'a str, name: &str) -> Result<&'a str> {
    let begin = format!("{name}=");
    let value = line.split([' ', '\t']).find_map(|word| word.strip_prefix(begin.as_str()));
    Ok(value.with_context(|| format!("no {name} in {line}"))?.trim_matches('"'))
}

/// The value of a metric, added up over the series of these agents that have the labels; shows it.
pub(crate) fn metric(
    say: &mut Narrator,
    agents: &[&Agent],
    name: &str,
    labels: &[(&str, &str)],
) -> Result<f64> {
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
    let value = agents.iter().map(|agent| Ok(sum(&agent.metrics()?, name, &labels))).sum::<Result<f64>>()?;
    say.saw(&format!("{name}{{{}}} {value}", labels.join(", ")));
    Ok(value)
}

/// Waits until a metric, added up like that, is as expected, and checks the claim that it is.
pub(crate) fn counted(
    say: &mut Narrator,
    claim: &str,
    agents: &[&Agent],
    (name, labels): (&str, &[(&str, &str)]),
    expected: usize,
) -> Result<()> {
    let mut last = Narrator::terse();
    let as_expected = || metric(&mut last, agents, name, labels).ok().filter(|seen| *seen == expected as f64);
    // What it is when the wait is over is what is told.
    let _ = eventually(name, LIMIT, as_expected);
    let seen = metric(say, agents, name, labels)?;
    say.equal(claim, &seen, &(expected as f64));
    Ok(())
}

/// The value of a metric in what a scrape gets, added up over the series that have the labels.
pub(crate) fn sum(metrics: &str, name: &str, labels: &[String]) -> f64 {
    let series = metrics.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label.as_str()))
    });
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// `culvert` with these words, asking the agent of the node that a pod is on; shows and returns what it prints, with its exit code.
pub(crate) fn culvert(say: &mut Narrator, stage: &Stage, pod: &str, words: &[&str]) -> Result<(i32, String)> {
    let node = stage.pod(pod)?.node();
    let line = stage.agent(pod)?.command_line()?;
    let program = Path::new(line.first().context("a command line has a program")?);
    say.ran(&format!("culvert {}    (on {})", words.join(" "), node.name()));
    let ended =
        command::finish(Command::new(program).args(words).arg("--run-dir").arg(node.agent_dir()), b"")?;
    say.saw(ended.stdout.trim());
    say.saw(ended.stderr.trim());
    Ok((ended.status.code().context("culvert was killed")?, ended.stdout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_read_whole_and_a_metric_is_added_up() {
        let line = "info\taccess\tconnection complete\tsrc.addr=10.1.1.2:5 dst.workload=\"web\" bytes_sent=3";
        assert_eq!((field(line, "dst.workload").unwrap(), field(line, "bytes_sent").unwrap()), ("web", "3"));
        assert!(field(line, "workload").is_err());
        let text =
            "a_total{x=\"1\",y=\"2\"} 3\na_total{x=\"1\",y=\"3\"} 4\na_total_more{x=\"1\"} 8\na_total 16\n";
        assert_eq!(sum(text, "a_total", &["x=\"1\"".to_owned()]), 7.0);
        assert_eq!(sum(text, "a_total", &[]), 23.0);
        assert_eq!(sum(text, "b_total", &[]), 0.0);
    }
}
