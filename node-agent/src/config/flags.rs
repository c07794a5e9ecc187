//! The command line as a source: one flag for each setting, made from the table of settings.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};

use super::environment::CONFIG;
use super::given::{Given, Givens, Source};
use super::setting::{Face, Family};

const FILE: &str = "config";

/// What was said on the command line, not yet read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    /// The configuration file.
    pub(super) file: Option<PathBuf>,
    settings: Vec<(&'static str, String)>,
    named: Vec<(&'static Family, String)>,
}

impl Flags {
    /// Enters what was said.
    pub(super) fn enter(&self, givens: &mut Givens, problems: &mut Vec<String>) {
        for (flag, text) in &self.settings {
            givens.enter(flag, Given { text: text.clone(), source: Source::Flag(flag) });
        }
        for (family, pair) in &self.named {
            let flag = family.flag;
            match pair.split_once('=') {
                Some((name, text)) => {
                    let given = Given { text: text.to_owned(), source: Source::Flag(flag) };
                    givens.enter_named(flag, family.canonical(name), given);
                }
                // What it is may be secret.
                None => problems.push(format!("--{flag}: NAME=VALUE is expected")),
            }
        }
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.file = matches.get_one(FILE).cloned();
        self.settings = super::settings()
            .map(|known| known.face().flag)
            .filter_map(|flag| Some((flag, matches.get_one::<String>(flag)?.clone())))
            .collect();
        self.named = super::families()
            .flat_map(|family| {
                let values = matches.get_many::<String>(family.flag).into_iter().flatten();
                values.map(move |value| (family, value.clone()))
            })
            .collect();
        Ok(())
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        let file =
            Arg::new(FILE).long(FILE).value_name("FILE").value_parser(value_parser!(PathBuf)).help(format!(
                "YAML file with any of these settings; see docs/configuration.md [env: {CONFIG}]"
            ));
        let mut command = command.arg(file);
        for section in super::SECTIONS {
            let flags = section.settings.iter().map(|known| flag(known.face()));
            let repeated = section.families.iter().map(repeated);
            command = command.args(flags.chain(repeated).map(|flag| flag.help_heading(section.title)));
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn flag(face: &Face) -> Arg {
    let default = match face.in_cluster {
        Some(in_cluster) => format!(" [default: {in_cluster} in a cluster, without --mesh]"),
        None if face.default.is_empty() => String::new(),
        None => format!(" [default: {}]", face.default),
    };
    let help = format!("{}{default} [env: {}]", face.about, face.variable);
    let flag = Arg::new(face.flag)
        .long(face.flag)
        .value_name(face.value)
        .allow_negative_numbers(true)
        .help(help)
        .long_help(format!("{}\nIt takes {}.{default} [env: {}]", face.about, face.allowed, face.variable));
    if face.is_switch() { flag.num_args(0..=1).default_missing_value("true") } else { flag }
}

fn repeated(family: &Family) -> Arg {
    Arg::new(family.flag)
        .long(family.flag)
        .value_name("NAME=VALUE")
        .action(ArgAction::Append)
        .help(format!("{} May be repeated. [env: {}NAME]", family.about, family.prefix))
}
