//! `culvert policy check`: what policy says of a connection that nobody makes, and the rule that decides.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;

use super::output::{self, Paint, Tone, harmless};
use super::{DENIED, ask, code};
use crate::admin_socket::protocol::{Answer, Command, PolicyQuestion, Request, VerdictView};
use crate::cli::PolicyCheckArgs;

/// What is written in the place of an identity by who has none.
const NOBODY: &str = "none";

/// Prints the verdict; ends as denied if it is no.
pub(crate) fn check(args: &PolicyCheckArgs) -> anyhow::Result<ExitCode> {
    let from = (args.from != NOBODY).then(|| args.from.clone());
    let question = PolicyQuestion { from, source: args.source, to: args.to.clone(), port: args.port };
    let answers = ask::ask(&args.asked.target, &Request::new(Command::Policy(question), None))?;
    let verdict = answers.into_iter().find_map(|answer| match answer {
        Answer::Verdict(verdict) => Some(verdict),
        _ => None,
    });
    let verdict = verdict.context("the agent's answer has no verdict in it")?;
    output::show(args.asked.output, &verdict, text)?;
    Ok(if verdict.allowed { code(true) } else { ExitCode::from(DENIED) })
}

fn text(verdict: &VerdictView, paint: Paint) -> String {
    let mut text = String::new();
    let who = verdict.identity.as_deref().unwrap_or("a client without an identity");
    let source = match verdict.source {
        Some(source) => source.to_string(),
        None => "an address that is not known".to_owned(),
    };
    // Writing to a String does not fail.
    let _ = writeln!(text, "{} from {source}", harmless(who));
    let _ = writeln!(text, "to {} {}", harmless(&verdict.to), verdict.destination);
    push_lines(&mut text, verdict, "  ");
    let word =
        if verdict.allowed { paint.text("ALLOWED", Tone::Good) } else { paint.text("DENIED", Tone::Bad) };
    let _ = writeln!(text, "=> {word}: {}", harmless(&verdict.because));
    text
}

/// What each policy said, a line each.
pub(super) fn push_lines(text: &mut String, verdict: &VerdictView, indent: &str) {
    for line in &verdict.policies {
        let action = line.action.to_uppercase();
        let dry_run = if line.dry_run { " (dry run: counts for nothing)" } else { "" };
        let rule = line.rule.map_or_else(|| "no rule".to_owned(), |rule| format!("rule {rule}"));
        let _ =
            writeln!(text, "{indent}{rule} of {action} policy {} matches{dry_run}", harmless(&line.policy));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin_socket::tests::World;

    fn checked(from: Option<&str>, to: &str) -> Result<String, String> {
        let question =
            PolicyQuestion { from: from.map(str::to_owned), source: None, to: to.into(), port: 80 };
        match World::new().ask(&Request::new(Command::Policy(question), None)).remove(0) {
            Answer::Verdict(verdict) => Ok(text(&verdict, Paint::default())),
            Answer::Refused { why } => Err(why),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_verdict_comes_with_the_rule_that_decides() {
        let allowed = "\
spiffe://cluster.local/ns/bookinfo/sa/sleep from 10.1.0.30
to bookinfo/ratings 10.1.0.33:80
  rule 0 of ALLOW policy bookinfo/only-sleep matches
=> ALLOWED: allowed by rule 0 of bookinfo/only-sleep
";
        assert_eq!(checked(Some("spiffe://cluster.local/ns/bookinfo/sa/sleep"), "ratings").unwrap(), allowed);
        let denied = "\
spiffe://cluster.local/ns/other/sa/stranger from an address that is not known
to bookinfo/ratings 10.1.0.33:80
  no rule of ALLOW policy bookinfo/only-sleep matches
=> DENIED: allow policies exist, but none allowed
";
        assert_eq!(
            checked(Some("spiffe://cluster.local/ns/other/sa/stranger"), "bookinfo/ratings").unwrap(),
            denied
        );
        assert!(
            checked(None, "10.1.0.33").unwrap().starts_with("a client without an identity from an address")
        );
    }

    #[test]
    fn what_cannot_be_asked_is_told() {
        let told = |from, to| checked(from, to).unwrap_err();
        assert!(told(Some("sleep"), "ratings").contains("is not an identity: write it as spiffe://"));
        assert_eq!(told(None, "10.9.9.9"), "no workload of the mesh has the address 10.9.9.9");
        assert!(told(None, "x/y").contains("the mesh knows no pod x/y"));
    }
}
