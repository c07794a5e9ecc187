//! The voice of the demo: titles, what was run, what was seen, and whether it was as said.

use std::time::Duration;

/// Tells, and counts.
pub(crate) struct Narrator {
    step: u32,
    held: u32,
    failed: Vec<String>,
}

impl Narrator {
    pub(crate) fn new() -> Self {
        Self { step: 0, held: 0, failed: Vec::new() }
    }

    /// Begins a step.
    pub(crate) fn step(&mut self, title: &str) {
        self.step += 1;
        println!("\n{}. {title}", self.step);
    }

    /// Something that was run.
    pub(crate) fn ran(&self, what: &str) {
        println!("   $ {what}");
    }

    /// Something that was seen; several lines are indented alike.
    pub(crate) fn saw(&self, what: &str) {
        for line in what.lines() {
            println!("     {line}");
        }
    }

    /// A claim, and whether it held.
    pub(crate) fn claim(&mut self, held: bool, claim: &str) {
        if held {
            self.held += 1;
            println!("   ok    {claim}");
        } else {
            println!("   FAIL  {claim}");
            self.failed.push(format!("step {}: {claim}", self.step));
        }
    }

    /// A step could not be done.
    pub(crate) fn broken(&self, error: &str) {
        println!("   BROKEN {error}");
    }

    /// How many claims did not hold.
    pub(crate) fn failures(&self) -> usize {
        self.failed.len()
    }

    /// The end.
    pub(crate) fn summary(&self, took: Duration) {
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
}
