//! Reads metrics while they are written: series by series, however many there are, without the text as a whole.

use std::fmt;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// One series.
pub(super) struct Series<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// What stands between the braces.
    labels: &'a str,
    /// Its value.
    pub(super) value: f64,
}

impl Series<'_> {
    /// Hands over each label, with what was escaped in its value taken back.
    pub(super) fn each_label(&self, mut take: impl FnMut(&str, &str)) {
        let mut rest = self.labels;
        let mut value = String::new();
        while let Some((name, after)) = rest.split_once("=\"") {
            value.clear();
            let mut characters = after.char_indices();
            let mut end = after.len();
            while let Some((at, c)) = characters.next() {
                match c {
                    '"' => {
                        end = at + 1;
                        break;
                    }
                    '\\' => match characters.next() {
                        Some((_, 'n')) => value.push('\n'),
                        Some((_, escaped)) => value.push(escaped),
                        None => {}
                    },
                    plain => value.push(plain),
                }
            }
            take(name.trim_start_matches(','), &value);
            rest = after.get(end..).unwrap_or_default();
        }
    }
}

/// Hands over every series of a registry.
///
/// # Errors
/// When a metric cannot be written.
pub(super) fn each_series(registry: &Registry, take: impl FnMut(&Series<'_>)) -> fmt::Result {
    encode(&mut Lines { line: String::new(), take }, registry)
}

struct Lines<F> {
    line: String,
    take: F,
}

impl<F: FnMut(&Series<'_>)> fmt::Write for Lines<F> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        // What is a line break in a label is escaped there.
        while let Some((end, after)) = rest.split_once('\n') {
            self.line.push_str(end);
            if let Some(series) = series(&self.line) {
                (self.take)(&series);
            }
            self.line.clear();
            rest = after;
        }
        self.line.push_str(rest);
        Ok(())
    }
}

fn series(line: &str) -> Option<Series<'_>> {
    if line.starts_with('#') {
        return None;
    }
    let (name, value) = line.rsplit_once(' ')?;
    let (name, labels) = name.split_once('{').unwrap_or((name, ""));
    let labels = labels.strip_suffix('}').unwrap_or(labels);
    Some(Series { name, labels, value: value.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::EncodeLabelSet;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct Labels {
        name: &'static str,
        other: &'static str,
    }

    #[test]
    fn names_that_peers_make_up_are_read_as_they_were() {
        let strange = "a\"b\\c\n}\" 7 {x=\"y\",<b>";
        let (mut registry, family) = (Registry::default(), Family::<Labels, Counter>::default());
        registry.register("things", "of a name", family.clone());
        registry.register("plain", "without labels", Gauge::<i64>::default());
        family.get_or_create(&Labels { name: strange, other: "" }).inc_by(3);
        let mut seen = Vec::new();
        each_series(&registry, |series| {
            let mut labels = Vec::new();
            series.each_label(|name, value| labels.push((name.to_owned(), value.to_owned())));
            seen.push((series.name.to_owned(), series.value, labels));
        })
        .unwrap();
        let labels = vec![("name".to_owned(), strange.to_owned()), ("other".to_owned(), String::new())];
        assert_eq!(seen, [("things_total".to_owned(), 3.0, labels), ("plain".to_owned(), 0.0, vec![])]);
    }
}
