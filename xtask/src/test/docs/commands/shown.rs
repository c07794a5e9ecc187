//! The commands of a page, with what it says they print.

use anyhow::{Context as _, Result, bail, ensure};

/// What begins a command. A program that is not among them cannot be shown.
const PROGRAMS: [&str; 38] = [
    "apt-get",
    "bash",
    "bpftool",
    "cargo",
    "cat",
    "conntrack",
    "crictl",
    "ctr",
    "culvert",
    "culvert-cni",
    "curl",
    "dig",
    "docker",
    "for",
    "grep",
    "helm",
    "ip",
    "iptables",
    "istioctl",
    "journalctl",
    "jq",
    "kind",
    "kubectl",
    "mkdir",
    "nft",
    "nsenter",
    "openssl",
    "podman",
    "promtool",
    "rm",
    "sed",
    "ssh",
    "sudo",
    "sysctl",
    "systemctl",
    "tail",
    "tcpdump",
    "tests/kind/run",
];
/// What the reader does who ends what goes on by itself.
pub(super) const INTERRUPT: &str = "^C";
const FENCE: &str = "```";
const CONSOLE: &str = "console";
const INDENT: &str = "    ";

/// Where a command stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In a block marked `console`.
    Console,
    /// In an indented block.
    Indented,
    /// Between backticks in the text.
    Text,
}

/// A command, and what it is to print.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) form: Form,
    pub(super) command: String,
    pub(super) printed: Vec<String>,
}

impl Shown {
    fn new(line: usize, form: Form, command: &str) -> Self {
        Self { line, form, command: command.to_owned(), printed: Vec::new() }
    }
}

/// Where in a page a line is.
enum Place {
    /// In a block between fences, of this kind.
    Fenced(String),
    /// In the text, or in an indented block.
    Open,
}

/// The commands of a page, in order.
pub(super) fn commands(text: &str) -> Result<Vec<Shown>> {
    let mut reader =
        Reader { found: Vec::new(), place: Place::Open, code: false, blank: true, goes_on: false };
    let mut paragraph = Paragraph::default();
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        if reader.read(number, line).with_context(|| format!("line {number}"))? {
            paragraph.add(number, line);
        } else {
            paragraph.end(&mut reader.found);
        }
    }
    paragraph.end(&mut reader.found);
    ensure!(matches!(reader.place, Place::Open), "a block does not end");
    for shown in &reader.found {
        let stop = shown.printed.iter().position(|line| line == INTERRUPT);
        ensure!(
            stop.is_none_or(|at| at > 0 && at + 1 == shown.printed.len()),
            "line {}: {INTERRUPT} stands behind what was printed until then",
            shown.line
        );
    }
    reader.found.sort_by_key(|shown| shown.line);
    Ok(reader.found)
}

struct Reader {
    found: Vec<Shown>,
    place: Place,
    /// Within an indented block.
    code: bool,
    /// The line before was empty.
    blank: bool,
    /// The command of the line before goes on.
    goes_on: bool,
}

impl Reader {
    /// Takes a line; whether it is text.
    fn read(&mut self, number: usize, line: &str) -> Result<bool> {
        if let Some(kind) = line.trim_start().strip_prefix(FENCE) {
            self.place = match &self.place {
                Place::Open => Place::Fenced(kind.trim().to_owned()),
                Place::Fenced(_) => Place::Open,
            };
            (self.code, self.blank, self.goes_on) = (false, true, false);
            return Ok(false);
        }
        match &self.place {
            Place::Fenced(kind) if kind == CONSOLE => self.console(number, line)?,
            Place::Fenced(kind) => {
                ensure!(
                    !matches!(kind.as_str(), "sh" | "bash" | "shell") && !begins_with_program(line),
                    "{line:?} is a command: put it into a block marked console, or indent it"
                );
            }
            Place::Open => return self.open(number, line),
        }
        Ok(false)
    }

    fn console(&mut self, number: usize, line: &str) -> Result<()> {
        if self.goes_on {
            self.continued(line)?;
        } else if let Some(command) = line.strip_prefix("$ ") {
            self.command(number, Form::Console, command)?;
        } else {
            let last = self.found.last_mut().filter(|last| last.form == Form::Console);
            last.with_context(|| format!("{line:?} is printed by no command"))?.printed.push(line.to_owned());
        }
        Ok(())
    }

    fn open(&mut self, number: usize, line: &str) -> Result<bool> {
        let was_blank = std::mem::replace(&mut self.blank, line.trim().is_empty());
        let Some(code) = line.strip_prefix(INDENT).filter(|_| self.code || was_blank) else {
            // An empty line may stand within a block.
            self.code &= self.blank;
            return Ok(!self.blank);
        };
        self.code = true;
        if self.goes_on {
            self.continued(code)?;
        } else {
            // What stands behind it is a word to the reader.
            let command = code.split("  #").next().unwrap_or(code).trim_end();
            self.command(number, Form::Indented, command)?;
        }
        Ok(false)
    }

    fn command(&mut self, number: usize, form: Form, command: &str) -> Result<()> {
        if !begins_with_program(command) {
            bail!(
                "{command:?} begins with no program: what is no command stands in a block between fences, and a new program is \
                 listed among PROGRAMS"
            );
        }
        self.goes_on = command.ends_with('\\');
        self.found.push(Shown::new(number, form, command.trim_end_matches('\\')));
        Ok(())
    }

    fn continued(&mut self, line: &str) -> Result<()> {
        self.goes_on = line.ends_with('\\');
        let last = self.found.last_mut().context("nothing that could go on")?;
        last.command.push_str(line.trim_end_matches('\\').trim_start());
        Ok(())
    }
}

/// The text of lines that belong together: what is between backticks may go on in the next line.
#[derive(Default)]
struct Paragraph {
    lines: Vec<(usize, String)>,
}

impl Paragraph {
    fn add(&mut self, number: usize, line: &str) {
        self.lines.push((number, line.to_owned()));
    }

    fn end(&mut self, found: &mut Vec<Shown>) {
        let lines = std::mem::take(&mut self.lines);
        let mut quoted: Option<(usize, String)> = None;
        for (number, line) in &lines {
            for (at, part) in line.split('`').enumerate() {
                if at == 0 {
                    if let Some((_, text)) = &mut quoted {
                        text.push(' ');
                        text.push_str(part.trim_start());
                    }
                    continue;
                }
                match quoted.take() {
                    None => quoted = Some((*number, part.to_owned())),
                    // In a table a bar within a cell has a stroke before it.
                    Some((line, text)) => found.extend(in_text(line, &text.replace("\\|", "|"))),
                }
            }
        }
    }
}

/// A command between backticks; a program alone is its name and no command.
fn in_text(line: usize, text: &str) -> Option<Shown> {
    let has_words = text.split_whitespace().count() > 1;
    (has_words && begins_with_program(text)).then(|| Shown::new(line, Form::Text, text))
}

fn begins_with_program(text: &str) -> bool {
    let first = text.split_whitespace().next().unwrap_or_default();
    !text.starts_with(' ') && PROGRAMS.contains(&first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<(usize, Form, String, Vec<String>)> {
        let all = commands(text).unwrap();
        all.into_iter().map(|one| (one.line, one.form, one.command, one.printed)).collect()
    }

    fn one(line: usize, form: Form, command: &str, printed: &[&str]) -> (usize, Form, String, Vec<String>) {
        (line, form, command.to_owned(), printed.iter().map(|&line| line.to_owned()).collect())
    }

    #[test]
    fn commands_are_told_from_what_they_print() {
        let text = "```console\n$ curl a | b\nc\nd\n$ culvert e \\\n  f\n```\n";
        let expected =
            [one(2, Form::Console, "curl a | b", &["c", "d"]), one(5, Form::Console, "culvert e f", &[])];
        assert_eq!(told(text), expected);
        assert!(commands("```console\nc\n```\n").is_err(), "no command prints it");
        assert!(commands("```console\n$ curl c\n").is_err(), "the block does not end");
        assert!(commands("```console\n$ unheard-of c\n```\n").is_err());
    }

    #[test]
    fn an_indented_block_has_commands_alone() {
        let text = "Text:\n\n    helm a   # why\n    for b in c; do \\\n      d; done\n\nText\n    kubectl goes on\n";
        let expected =
            [one(3, Form::Indented, "helm a", &[]), one(4, Form::Indented, "for b in c; do d; done", &[])];
        assert_eq!(told(text), expected);
        assert!(commands("    what it prints\n").is_err());
    }

    #[test]
    fn other_blocks_have_none() {
        assert_eq!(told("```text\nwhat is printed\n```\n```yaml\na: b\n```\n"), []);
        for hidden in
            ["```\nculvert status\n```\n", "```text\nkubectl get x\n```\n", "```sh\nanything\n```\n"]
        {
            assert!(commands(hidden).is_err(), "{hidden}");
        }
    }

    #[test]
    fn commands_in_the_text_may_go_on_in_the_next_line_and_have_words() {
        let text = "See `culvert` and `culvert\npods`, `not a`.\n\n| `culvert man x \\| man` | `c` |\n";
        let expected =
            [one(1, Form::Text, "culvert pods", &[]), one(4, Form::Text, "culvert man x | man", &[])];
        assert_eq!(told(text), expected);
    }

    #[test]
    fn an_interrupt_stands_at_the_end_of_something() {
        assert!(commands("```console\n$ curl a\nb\n^C\n```\n").is_ok());
        for odd in ["```console\n$ curl a\n^C\n```\n", "```console\n$ curl a\nb\n^C\nc\n```\n"] {
            assert!(commands(odd).is_err(), "{odd}");
        }
    }
}
