//! Tests of the configuration.

mod documentation;
mod families;
mod file;
mod ranks;
mod together;
mod values;
mod view;

use std::path::PathBuf;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    flags: Flags,
}

/// What the command line says.
fn flags(words: &[&str]) -> Flags {
    Line::try_parse_from(std::iter::once("test").chain(words.iter().copied())).unwrap().flags
}

/// The configuration by these flags and variables.
fn read(words: &[&str], variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::gather(&flags(words), variables.iter().map(|(name, value)| (name.into(), value.into())))
}

/// The same of a configuration that is good, and has a mesh file besides.
fn good(words: &[&str], variables: &[(&str, &str)]) -> Config {
    let words: Vec<_> = words.iter().copied().chain(["--mesh=mesh.yaml"]).collect();
    read(&words, variables).unwrap()
}

/// All that is wrong with a configuration that has a mesh file besides.
fn problems(words: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
    let words: Vec<_> = words.iter().copied().chain(["--mesh=mesh.yaml"]).collect();
    read(&words, variables).unwrap_err().problems
}

/// A file that goes with the test.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("culvert-config-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn flag(&self) -> String {
        format!("--config={}", self.0.display())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
