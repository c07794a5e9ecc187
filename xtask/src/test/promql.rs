//! What a query of Prometheus names: metrics with the labels that are asked of them, and labels that it groups by.
//!
//! No parser: whether a query is one is promtool's to say. This knows just enough of the language to tell names of metrics from
//! functions, keywords, strings and durations.

use std::iter::Peekable;
use std::str::Chars;

use anyhow::{Result, bail};

/// What a query names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// Metrics, each with the labels of its matchers.
    pub(super) metrics: Vec<(String, Vec<String>)>,
    /// Labels of `by`, `without`, `on`, `ignoring` and `group_*`.
    pub(super) grouped: Vec<String>,
}

/// Words that stand before a list of labels.
const LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
/// Words that are neither metrics nor followed by a parenthesis of their own.
const WORDS: [&str; 28] = [
    "and",
    "or",
    "unless",
    "offset",
    "bool",
    "inf",
    "nan",
    "start",
    "end",
    "atan2",
    "sum",
    "min",
    "max",
    "avg",
    "group",
    "stddev",
    "stdvar",
    "count",
    "count_values",
    "bottomk",
    "topk",
    "quantile",
    "Inf",
    "NaN",
    "SUM",
    "MAX",
    "MIN",
    "AVG",
];

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text,
    Sign(char),
}

/// The names in a query.
///
/// # Errors
///
/// A string or a list in it does not end.
pub(super) fn names(query: &str) -> Result<Names> {
    let tokens = tokens(query)?;
    let mut names = Names::default();
    let mut rest = tokens.iter().peekable();
    while let Some(token) = rest.next() {
        let Token::Word(word) = token else {
            if *token == Token::Sign('{') {
                bail!("{query}: a selector without the name of a metric");
            }
            continue;
        };
        let called = rest.peek() == Some(&&Token::Sign('('));
        if LISTS.contains(&word.as_str()) {
            if called {
                names.grouped.extend(words_up_to(&mut rest, ')', query)?);
            }
        } else if !called && !WORDS.contains(&word.as_str()) {
            let mut labels = Vec::new();
            if rest.peek() == Some(&&Token::Sign('{')) {
                labels = words_up_to(&mut rest, '}', query)?;
            }
            names.metrics.push((word.clone(), labels));
        }
    }
    Ok(names)
}

/// The words of a list that begins here.
fn words_up_to<'a>(
    tokens: &mut impl Iterator<Item = &'a Token>,
    end: char,
    query: &str,
) -> Result<Vec<String>> {
    let mut words = Vec::new();
    for token in tokens {
        match token {
            Token::Word(word) => words.push(word.clone()),
            Token::Sign(sign) if *sign == end => return Ok(words),
            Token::Sign(_) | Token::Text => {}
        }
    }
    bail!("{query}: a list does not end with {end}")
}

fn tokens(query: &str) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = query.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '"' | '\'' | '`' => {
                skip_string(&mut rest, next, query)?;
                tokens.push(Token::Text);
            }
            '[' => skip_range(&mut rest, query)?,
            '#' => while rest.next_if(|next| *next != '\n').is_some() {},
            // Numbers and durations, letters included.
            '0'..='9' => take_word(&mut rest, &mut String::new()),
            'a'..='z' | 'A'..='Z' | '_' | ':' => {
                let mut word = String::from(next);
                take_word(&mut rest, &mut word);
                tokens.push(Token::Word(word));
            }
            _ if next.is_whitespace() => {}
            _ => tokens.push(Token::Sign(next)),
        }
    }
    Ok(tokens)
}

fn take_word(rest: &mut Peekable<Chars<'_>>, word: &mut String) {
    while let Some(next) = rest.next_if(|next| next.is_ascii_alphanumeric() || matches!(next, '_' | ':')) {
        word.push(next);
    }
}

fn skip_string(rest: &mut Peekable<Chars<'_>>, quote: char, query: &str) -> Result<()> {
    while let Some(next) = rest.next() {
        if next == '\\' && quote != '`' {
            rest.next();
        } else if next == quote {
            return Ok(());
        }
    }
    bail!("{query}: a string does not end")
}

fn skip_range(rest: &mut Peekable<Chars<'_>>, query: &str) -> Result<()> {
    if rest.any(|next| next == ']') {
        return Ok(());
    }
    bail!("{query}: a range does not end")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn metrics_labels_and_groups_are_told_apart() {
        let query = r#"sum by (le, job) (rate(a_total{x="a{b} by (c)", y!~'z"'}[5m])) / on (i) group_left (n)
            max_over_time(b[1h:30s]) > 3 * (c offset 1h or vector(0)) # d
            and ignoring(q) time() - e < 1e3"#;
        let names = names(query).unwrap();
        let expected = [("a_total", &["x", "y"][..]), ("b", &[]), ("c", &[]), ("e", &[])];
        let expected: Vec<_> =
            expected.iter().map(|(name, labels)| ((*name).to_owned(), owned(labels))).collect();
        assert_eq!(names.metrics, expected);
        assert_eq!(names.grouped, owned(&["le", "job", "i", "n", "q"]));
    }

    #[test]
    fn groups_after_the_operand_are_found() {
        let names = names("sum(rate(a[1m])) by (b,c)").unwrap();
        assert_eq!(names.metrics, [("a".to_owned(), vec![])]);
        assert_eq!(names.grouped, owned(&["b", "c"]));
    }

    #[test]
    fn what_does_not_end_is_an_error() {
        for query in ["a{b=\"c\"", "a[5m", "a{b=\"c}", "sum by (a", "{a=\"b\"}"] {
            assert!(names(query).is_err(), "{query}");
        }
    }
}
