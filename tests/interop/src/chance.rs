//! Whether a count is what chance makes of a share.

use anyhow::{Result, ensure};

/// Standard deviations that are taken for chance: one run in more than a million is farther out.
const DEVIATIONS: f64 = 5.0;

/// Fails if `count` of `total` is not what independent draws with probability `share` give.
pub fn ensure_share(what: &str, count: usize, total: usize, share: f64) -> Result<()> {
    let (count, total) = (count as f64, total as f64);
    let (mean, deviation) = (total * share, (total * share * (1.0 - share)).sqrt());
    let (least, most) = (mean - DEVIATIONS * deviation, mean + DEVIATIONS * deviation);
    ensure!(least <= count && count <= most, "{what}: {count} of {total}, expected {least:.1} to {most:.1}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_likely_passes_and_what_is_not_is_told() {
        for count in [10, 30, 50] {
            ensure_share("share", count, 300, 0.1).unwrap();
        }
        for count in [0, 3, 57, 300] {
            let error = ensure_share("share", count, 300, 0.1).unwrap_err().to_string();
            assert!(error.contains("of 300, expected 4.0 to 56.0"), "{error}");
        }
    }
}
