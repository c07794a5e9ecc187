//! Whether a count is what chance makes of a share.

use std::ops::RangeInclusive;

use anyhow::{Result, ensure};

/// What is taken for no chance: one honest run in a million is farther out, on both sides together.
const UNLIKELY: f64 = 1e-6;

/// Fails if `count` of `total` is not what independent draws with probability `share` give.
pub fn ensure_share(what: &str, count: usize, total: usize, share: f64) -> Result<()> {
    let likely = likely(total, share);
    let (least, most) = (likely.start(), likely.end());
    ensure!(likely.contains(&count), "{what}: {count} of {total}, expected {least} to {most}");
    Ok(())
}

/// The counts that are left of `total` draws (a thousand at most) when the unlikely ones at both ends are cut off.
pub fn likely(total: usize, share: f64) -> RangeInclusive<usize> {
    let weights = weights(total, share);
    let cut_off = |weights: &mut dyn Iterator<Item = &f64>| {
        let mut sum = 0.0;
        weights
            .take_while(|weight| {
                sum += **weight;
                sum < UNLIKELY / 2.0
            })
            .count()
    };
    let (below, above) = (cut_off(&mut weights.iter()), cut_off(&mut weights.iter().rev()));
    below..=total.saturating_sub(above)
}

/// How likely each count is: the binomial distribution, each weight by the one before it.
fn weights(total: usize, share: f64) -> Vec<f64> {
    let odds = share / (1.0 - share);
    let none = (1.0 - share).powf(total as f64);
    let next = |weight: &f64, count: usize| weight * odds * (total - count) as f64 / (count + 1) as f64;
    let mut weights = vec![none];
    for count in 0..total {
        weights.extend(weights.last().map(|weight| next(weight, count)));
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_is_whole_and_its_ends_are_cut_off() {
        for (total, share) in [(300, 0.1), (40, 0.5), (60, 1.0 / 3.0), (1000, 0.5)] {
            let weights = weights(total, share);
            assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{total} {share}");
            let likely = likely(total, share);
            let outside: f64 = (0..=total).filter(|n| !likely.contains(n)).map(|n| weights[n]).sum();
            assert!(outside < UNLIKELY, "{total} {share}: {outside}");
            // One more at either end would be too much.
            for end in [*likely.start(), *likely.end()] {
                assert!(outside + weights[end] > UNLIKELY / 2.0, "{total} {share}: {end}");
            }
        }
        // Nobody is unlikely to be drawn by four.
        assert_eq!(likely(4, 0.5), 0..=4);
    }

    #[test]
    fn what_is_likely_passes_and_what_is_not_is_told() {
        for count in [10, 30, 50] {
            ensure_share("share", count, 300, 0.1).unwrap();
        }
        for count in [0, 3, 62, 300] {
            let error = ensure_share("share", count, 300, 0.1).unwrap_err().to_string();
            assert!(error.contains("of 300, expected"), "{error}");
        }
    }
}
