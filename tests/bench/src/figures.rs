//! Figures beside their targets.

/// What was measured, in the order in which it was printed.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    missed: Vec<String>,
}

impl Figures {
    /// Prints a figure that must not be above its target.
    pub(crate) fn at_most(&mut self, what: &str, value: f64, target: f64, unit: &str) {
        let is_missed = value > target;
        let note = if is_missed { "  <- misses its target" } else { "" };
        println!("  {what:52} {value:9.2} {unit:5} target {target} {unit}{note}");
        if is_missed {
            self.missed.push(format!("{what}: {value:.2} {unit}, at most {target} is due"));
        }
    }

    /// Prints a figure that nothing is demanded of.
    pub(crate) fn note(&mut self, what: &str, value: f64, unit: &str) {
        println!("  {what:52} {value:9.2} {unit}");
    }

    /// Every target that was missed.
    pub(crate) fn missed(&self) -> &[String] {
        &self.missed
    }
}

/// What this runs on.
pub(crate) fn machine() {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    println!("Linux {}, {}", kernel.trim(), model.trim_start_matches(['\t', ':', ' ']));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_its_target_is_missed() {
        let mut figures = Figures::default();
        figures.at_most("as much", 1.0, 1.0, "ms");
        figures.at_most("more", 1.01, 1.0, "ms");
        assert_eq!(figures.missed(), ["more: 1.01 ms, at most 1 is due"]);
    }
}
