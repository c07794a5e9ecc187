//! `culvert config`: what is in force, for people, for programs, or as a configuration file.

use std::fmt::Write as _;
use std::io::Write as _;

use super::effective::{Effective, Row};
use super::{Config, Flags};

/// What stands where a secret would.
const SECRET: &str = "(secret)";

/// Options of `culvert config`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ConfigArgs {
    /// Form of the answer.
    #[arg(long, short, value_enum, default_value_t)]
    output: Form,
    #[command(flatten)]
    flags: Flags,
}

/// How to show the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// For people.
    #[default]
    Table,
    /// As a configuration file; secrets are left out.
    Yaml,
    /// For programs.
    Json,
}

/// Prints the configuration that `culvert run` would have with the same flags, or everything that is wrong with it.
pub(crate) fn show(args: &ConfigArgs) -> anyhow::Result<()> {
    let config = Config::read(&args.flags)?;
    let text = render(&config.effective, args.output)?;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// The configuration in a form.
pub(super) fn render(effective: &Effective, form: Form) -> serde_json::Result<String> {
    match form {
        Form::Table => Ok(table(effective)),
        Form::Yaml => Ok(yaml(effective)),
        Form::Json => Ok(serde_json::to_string_pretty(effective)? + "\n"),
    }
}

fn table(effective: &Effective) -> String {
    let cells: Vec<[String; 3]> = std::iter::once(["SETTING", "VALUE", "SOURCE"].map(str::to_owned))
        .chain(effective.rows.iter().map(|row| {
            let key = match &row.name {
                Some(name) => format!("{}.{name}", row.key),
                None => row.key.clone(),
            };
            let value = match row.value.as_deref() {
                None => SECRET.to_owned(),
                Some("") => "-".to_owned(),
                Some(value) => value.escape_debug().to_string(),
            };
            [key, value, row.source.to_string()]
        }))
        .collect();
    let [keys, values] = [0, 1].map(|column| {
        let widths = cells.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        widths.filter(|width| *width <= 60).max().unwrap_or_default()
    });
    let mut text = String::new();
    for [key, value, source] in cells {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key:keys$}  {value:values$}  {source}");
    }
    text
}

fn yaml(effective: &Effective) -> String {
    let (mut text, mut section, mut family) = (String::new(), "", "");
    for row in &effective.rows {
        if row.section != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}# {}", row.section);
            section = row.section;
        }
        let is_new = row.key != family;
        match &row.name {
            None => text.push_str(&line("", &row.key, row)),
            Some(name) => {
                if is_new {
                    let _ = writeln!(text, "{}:", row.key);
                }
                text.push_str(&line("  ", &quoted(name), row));
            }
        }
        family = &row.key;
    }
    text
}

/// One value of a configuration file. A secret is a comment, so that the file can be read as it is.
fn line(indent: &str, key: &str, row: &Row) -> String {
    match &row.value {
        Some(value) => format!("{indent}{key}: {}  # {}\n", quoted(value), row.source),
        None => format!("{indent}# {key}: {SECRET}  # {}\n", row.source),
    }
}

/// A text as YAML; JSON's strings are YAML's, too.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._/=-".contains(c);
    let is_word =
        text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/') && text.chars().all(is_plain);
    if is_word && text != "null" { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}
