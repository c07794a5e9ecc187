//! Lengths of time as people read them.

use std::time::Duration;

/// Seconds in two units at most, the rest is left out.
pub(super) fn span(seconds: u64) -> String {
    let words = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    words.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_units_are_enough() {
        for (seconds, expected) in
            [(0, "0s"), (59, "59s"), (61, "1m 1s"), (86_399, "23h 59m"), (90_061, "1day 1h")]
        {
            assert_eq!(span(seconds), expected);
        }
    }
}
