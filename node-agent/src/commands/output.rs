//! How an answer is put out: a table for people, JSON or YAML for programs; with colours only where somebody looks.
//!
//! Invariant: the forms for programs hold everything, and never a colour. A reader that has enough (`| head`) is no error.

use std::io::{IsTerminal as _, Write as _};

use serde::Serialize;

use crate::cli::Output;

/// What a word means, for whoever sees colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Not as it should be yet.
    Doubtful,
    /// Wrong, or refused.
    Bad,
}

/// Whether colours are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Paint {
    on: bool,
}

impl Paint {
    /// For stdout: on a terminal that knows colours, unless `NO_COLOR` (no-color.org) is set to something.
    pub(super) fn of_stdout() -> Self {
        let is = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = is("TERM").is_none_or(|term| term == "dumb");
        Self { on: std::io::stdout().is_terminal() && !dumb && is("NO_COLOR").is_none() }
    }

    /// With colours, whatever is there.
    #[cfg(test)]
    pub(super) const fn always() -> Self {
        Self { on: true }
    }

    /// A text in its tone.
    pub(super) fn text(self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => 32,
            Tone::Doubtful => 33,
            Tone::Bad => 31,
        };
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Puts a value out in the form that is asked for.
pub(super) fn show<T: Serialize>(
    output: Output,
    value: &T,
    table: impl FnOnce(&T, Paint) -> String,
) -> anyhow::Result<()> {
    print(&render(output, value, table, Paint::of_stdout())?)?;
    Ok(())
}

/// The same as a text.
pub(super) fn render<T: Serialize>(
    output: Output,
    value: &T,
    table: impl FnOnce(&T, Paint) -> String,
    paint: Paint,
) -> anyhow::Result<String> {
    Ok(match output {
        Output::Table => table(value, paint),
        Output::Json => serde_json::to_string_pretty(value)? + "\n",
        Output::Yaml => serde_saphyr::to_string(value)?,
    })
}

/// Writes to stdout at once; tells whether anybody still reads.
pub(super) fn print(text: &str) -> anyhow::Result<bool> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A text of a stranger, in one line and without what a terminal would obey.
pub(super) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_those_who_see_them() {
        assert_eq!(Paint::default().text("x", Tone::Bad), "x");
        assert_eq!(Paint::always().text("x", Tone::Bad), "\x1b[31mx\x1b[0m");
        assert_eq!(Paint::always().text("x", Tone::Plain), "x");
        // No terminal is at the end of a test's stdout, whatever is set.
        let value = vec![1];
        for (output, text) in [(Output::Json, "[\n  1\n]\n"), (Output::Table, "t")] {
            let table = |_: &Vec<i32>, _| "t".to_owned();
            assert_eq!(render(output, &value, table, Paint::always()).unwrap(), text);
        }
        let yaml = render(Output::Yaml, &value, |_, _| String::new(), Paint::always()).unwrap();
        assert_eq!(yaml.trim(), "- 1");
    }

    #[test]
    fn a_strangers_text_commands_no_terminal() {
        assert_eq!(harmless("a\x1b[2Jb\nc\u{9b}é"), "a\\u{1b}[2Jb\\nc\\u{9b}é");
    }
}
