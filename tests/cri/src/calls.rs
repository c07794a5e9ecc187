//! Which plugin was called when, and with what: each plugin of a node is entered through a line of shell that writes it down.
//!
//! The plugin itself is the real one, with the environment and the input that the runtime gave.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `ADD`, `DEL` and so on.
    pub verb: String,
    /// The plugin.
    pub plugin: String,
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_NETNS`; empty where it was.
    pub netns: String,
    /// `CNI_ARGS`.
    pub arguments: String,
}

/// The record of a node's calls.
#[derive(Debug, Clone)]
pub struct Calls {
    file: PathBuf,
}

impl Calls {
    /// Fills a directory of plugins with entrances to these, which write into `file`.
    pub fn record(plugins: &[PathBuf], directory: &Path, file: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        for plugin in plugins {
            let name = plugin.file_name().context("a plugin has a name")?.to_string_lossy();
            let entrance = directory.join(&*name);
            let script = format!(
                "#!/bin/sh\nprintf '%s\\n' \"$CNI_COMMAND|{name}|$CNI_CONTAINERID|$CNI_NETNS|$CNI_ARGS\" >>'{}'\nexec '{}'\n",
                file.display(),
                plugin.display()
            );
            fs::write(&entrance, script).with_context(|| entrance.display().to_string())?;
            fs::set_permissions(&entrance, fs::Permissions::from_mode(0o755))?;
        }
        fs::write(file, "")?;
        Ok(Self { file: file.to_owned() })
    }

    /// All calls so far, of a container or of all.
    pub fn of(&self, container: Option<&str>) -> Result<Vec<Call>> {
        let text = fs::read_to_string(&self.file)?;
        let all = text.lines().filter_map(parse);
        Ok(all.filter(|call| container.is_none_or(|id| call.container == id)).collect())
    }

    /// The plugins that were called with a verb for a container, in order.
    pub fn order(&self, verb: &str, container: &str) -> Result<Vec<String>> {
        let calls = self.of(Some(container))?.into_iter().filter(|call| call.verb == verb);
        Ok(calls.map(|call| call.plugin).collect())
    }
}

fn parse(line: &str) -> Option<Call> {
    let mut fields = line.splitn(5, '|').map(str::to_owned);
    let (verb, plugin, container, netns) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    Some(Call { verb, plugin, container, netns, arguments: fields.next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_call() {
        let call = parse("DEL|bridge|c1||K8S_POD_NAME=a;IgnoreUnknown=1").unwrap();
        assert_eq!((call.verb.as_str(), call.netns.as_str()), ("DEL", ""));
        assert_eq!(call.arguments, "K8S_POD_NAME=a;IgnoreUnknown=1");
        assert_eq!(parse("ADD|bridge"), None);
    }
}
