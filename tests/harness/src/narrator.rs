//! The voice of demo and scenarios: titles, what was run, what was seen, and whether it was as said.
//!
//! A terse one keeps to itself what went well: of a step it tells all that it has heard once a claim of it does not hold.

#![expect(clippy::print_stdout, reason = "it talks to people")]

use std::time::Duration;

use anyhow::{Result, ensure};

/// Tells, and counts.
#[derive(Debug, Default)]
pub struct Narrator {
    step: u32,
    held: u32,
    failed: Vec<String>,
    /// What is told later, if at all.
    kept: Option<Vec<String>>,
}

impl Narrator {
    /// One that tells everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that tells only steps in which a claim did not hold.
    pub fn terse() -> Self {
        Self { kept: Some(Vec::new()), ..Self::default() }
    }

    /// Begins a step.
    pub fn step(&mut self, title: &str) {
        self.step += 1;
        if let Some(kept) = &mut self.kept {
            kept.clear();
        }
        self.say(format!("\n{}. {title}", self.step));
    }

    /// Something that was run.
    pub fn ran(&mut self, what: &str) {
        self.say(format!("   $ {what}"));
    }

    /// Something that was seen; several lines are indented alike.
    pub fn saw(&mut self, what: &str) {
        what.lines().for_each(|line| self.say(format!("     {line}")));
    }

    /// A claim, and whether it held.
    pub fn claim(&mut self, held: bool, claim: &str) {
        if held {
            self.held += 1;
            self.say(format!("   ok    {claim}"));
        } else {
            self.say(format!("   FAIL  {claim}"));
            self.failed.push(format!("step {}: {claim}", self.step));
            self.tell_kept();
        }
    }

    /// A claim, and what came of looking: an error says what was expected and what was seen.
    pub fn check(&mut self, claim: &str, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.claim(true, claim),
            Err(error) => self.claim(false, &format!("{claim}: {error:#}")),
        }
    }

    /// A claim that two things are the same.
    pub fn equal<T: PartialEq + std::fmt::Debug>(&mut self, claim: &str, seen: &T, expected: &T) {
        self.check(claim, same(seen, expected));
    }

    /// A step could not be done.
    pub fn broken(&mut self, error: &str) {
        self.say(format!("   BROKEN {error}"));
        self.tell_kept();
    }

    /// How many claims did not hold.
    pub fn failures(&self) -> usize {
        self.failed.len()
    }

    /// How many held.
    pub fn held(&self) -> u32 {
        self.held
    }

    /// The end.
    pub fn summary(&self, took: Duration) {
        println!(
            "\n{} claims held, {} did not, in {:.1} s.",
            self.held,
            self.failed.len(),
            took.as_secs_f64()
        );
        for failure in &self.failed {
            println!("  not as said: {failure}");
        }
    }

    fn say(&mut self, line: String) {
        match &mut self.kept {
            Some(kept) => kept.push(line),
            None => println!("{line}"),
        }
    }

    fn tell_kept(&mut self) {
        for line in self.kept.iter_mut().flat_map(|kept| kept.drain(..)) {
            println!("{line}");
        }
    }
}

fn same<T: PartialEq + std::fmt::Debug>(seen: &T, expected: &T) -> Result<()> {
    ensure!(seen == expected, "expected {expected:?}, saw {seen:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_that_does_not_hold_is_counted_and_says_what_was_seen() {
        let mut say = Narrator::terse();
        say.step("one");
        say.claim(true, "holds");
        say.equal("two are two", &2, &2);
        assert_eq!((say.held(), say.failures()), (2, 0));
        say.equal("two are three", &2, &3);
        assert_eq!((say.held(), say.failures()), (2, 1));
        assert_eq!(say.failed, ["step 1: two are three: expected 3, saw 2"]);
    }

    #[test]
    fn a_terse_one_forgets_a_step_that_went_well_and_tells_one_that_did_not() {
        let mut say = Narrator::terse();
        say.step("one");
        say.saw("nothing of interest");
        say.step("two");
        say.ran("a command");
        assert_eq!(
            say.kept.as_deref(),
            Some(["\n2. two".to_owned(), "   $ a command".to_owned()].as_slice())
        );
        say.claim(false, "it works");
        assert_eq!(say.kept.as_deref(), Some([].as_slice()));
    }
}
