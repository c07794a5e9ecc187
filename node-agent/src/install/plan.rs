//! What is to be on the node for the runtime to call our plugin, and how it is brought there.
//!
//! Invariant: it is a state that is brought about: what is there already is not written again. The plugin and what it needs come
//! first and the entry that names it last, so that the runtime never calls what is not there.

use std::path::{Path, PathBuf};

use super::chain::{Chain, Form};
use super::configurations::{self, Configuration, Found, Unusable};
use super::entry::{Entry, PLUGIN};
use super::files::{self, FileError, Mode, PROGRAM, SECRET};
use super::kubeconfig::{self, Api, KubeconfigError};

/// More than the plugin has.
const LARGEST_PLUGIN: u64 = 64 << 20;
/// The version of the specification of a configuration of our own, which has no other one to go by.
const OWN_VERSION: &str = "1.0.0";

/// The name of a configuration that has our plugin alone, if none is given.
const ALONE: &str = "culvert-cni.conf";

/// How the plugin comes into the runtime's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Into the runtime's own one, as the last plugin.
    Chained,
    /// Into a copy of it, which has to come first. The runtime's own one is not touched, and followed.
    Copied,
    /// Into one of its own, for a plugin that calls others (Multus).
    Alone,
}

/// What is to be on the node.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The runtime's network configurations.
    pub(crate) directory: PathBuf,
    /// How the plugin is to get into them.
    pub(crate) style: Style,
    /// The one to be used; none for the first. Standing alone, that of our own.
    pub(crate) name: Option<String>,
    /// The name of the copy.
    pub(crate) copy: String,
    /// The runtime's plugins; none if ours is there already.
    pub(crate) plugins: Option<PathBuf>,
    /// Where our plugin is copied from.
    pub(crate) source: PathBuf,
    /// What the plugin is told.
    pub(crate) entry: Entry,
    /// Where the Kubernetes API is; none without Kubernetes.
    pub(crate) api: Option<Api>,
    /// Whether the entry of istio-cni is replaced.
    pub(crate) replaces_istio: bool,
}

/// What an installation has found and done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// The configuration that the plugin is in.
    pub(crate) configuration: PathBuf,
    /// The other plugins in it.
    pub(crate) others: Vec<String>,
    /// Files that were written.
    pub(crate) written: Vec<PathBuf>,
    /// What may not be as it is meant to be.
    pub(crate) cautions: Vec<String>,
}

/// Why the plugin is not installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// There is nothing to be added to.
    #[error(
        "no network configuration is in {}{}; it is waited for: install the cluster's network plugin, or name its directory with \
         --cni-conf-dir", directory.display(), told(passed)
    )]
    None {
        /// The directory.
        directory: PathBuf,
        /// What was passed over.
        passed: Vec<String>,
    },
    /// The one that was named is not there.
    #[error("the network configuration {name} is not in {}; it is waited for (--cni-conf-name)", directory.display())]
    NotThere {
        /// Its name.
        name: String,
        /// The directory.
        directory: PathBuf,
    },
    /// The one that the runtime uses cannot be used.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// The plugin could not ask the API.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Report {
    /// Whether the runtime's configuration was written.
    pub(crate) fn has_written_configuration(&self) -> bool {
        self.written.contains(&self.configuration)
    }
}

impl Plan {
    /// Brings everything about.
    ///
    /// # Errors
    /// An [`InstallError`]; then it is to be tried again when something has changed.
    pub(crate) fn install(&self) -> Result<Report, InstallError> {
        let mut report = Report::default();
        self.install_plugin(&mut report)?;
        let mut entry = self.entry.clone();
        if let Some(api) = &self.api {
            let path = self.directory.join(kubeconfig::NAME);
            let (text, caution) = api.kubeconfig(&path)?;
            put(&path, text.as_bytes(), Mode::Exactly(SECRET), &mut report)?;
            report.cautions.extend(caution);
        } else {
            entry.kubeconfig = None;
        }
        let found = configurations::look(&self.directory)?;
        match &self.style {
            Style::Chained => self.chain(&found, &entry, &mut report)?,
            Style::Copied => self.copy(&found, &entry, &mut report)?,
            Style::Alone => self.stand_alone(&entry, &mut report)?,
        }
        report.cautions.extend(found.passed.iter().map(|passed| format!("passed over: {passed}")));
        Ok(report)
    }

    fn install_plugin(&self, report: &mut Report) -> Result<(), FileError> {
        let Some(directory) = &self.plugins else { return Ok(()) };
        let program = files::read(&self.source, LARGEST_PLUGIN)?;
        put(&directory.join(PLUGIN), &program, Mode::Exactly(PROGRAM), report)
    }

    fn chain(&self, found: &Found, entry: &Entry, report: &mut Report) -> Result<(), InstallError> {
        // Of a time when it was to be a copy.
        let is_former =
            |one: &&Configuration| one.name() == self.copy && one.chain().is_ok_and(|it| it.has_ours());
        let former = found.usable.iter().find(is_former);
        let used = self.used(found, former.map(Configuration::name).as_deref())?;
        let chain = used.chain()?;
        describe(&chain, self.replaces_istio, report);
        let wraps = (used.form == Form::Single).then(|| used.name());
        let path = match &wraps {
            Some(name) => used.path.with_file_name(listed(name)),
            None => used.path.clone(),
        };
        report.configuration.clone_from(&path);
        let mut entry = entry.clone();
        entry.wraps = wraps;
        if let Some(text) = chain.with(&entry, self.replaces_istio) {
            files::replace(&path, text.as_bytes(), Mode::Like, &used.path)?;
            report.written.push(path.clone());
        }
        // Only now, so that there is one of them at each moment.
        if path != used.path {
            files::remove(&used.path)?;
        }
        if let Some(former) = former {
            files::remove(&former.path)?;
        }
        Ok(())
    }

    fn copy(&self, found: &Found, entry: &Entry, report: &mut Report) -> Result<(), InstallError> {
        let name = self.copy.as_str();
        let used = self.used(found, Some(name))?;
        let chain = used.chain()?;
        describe(&chain, self.replaces_istio, report);
        let path = self.directory.join(name);
        report.configuration.clone_from(&path);
        if let Some(first) = found.usable.first().filter(|first| first.name().as_str() < name) {
            report.cautions.push(format!(
                "{} comes before {name}, so the runtime uses that one: choose an earlier name \
                 (--own-cni-config-name)",
                first.path.display()
            ));
        }
        // What is copied is what it would be without us.
        let plain = chain.without();
        let text = match &plain {
            Some(plain) => {
                let plain_chain = Chain::read(plain, used.form);
                let wrong = |source| Unusable::Wrong { path: used.path.clone(), source };
                plain_chain.map_err(wrong)?.with(entry, self.replaces_istio)
            }
            None => chain.with(entry, self.replaces_istio),
        };
        if let Some(text) = text {
            put(&path, text.as_bytes(), Mode::Like, report)?;
        }
        if let Some(plain) = plain {
            put(&used.path, plain.as_bytes(), Mode::Like, report)?;
        }
        Ok(())
    }

    fn stand_alone(&self, entry: &Entry, report: &mut Report) -> Result<(), InstallError> {
        let name = self.alone();
        let path = self.directory.join(name);
        report.configuration.clone_from(&path);
        let mut own = serde_json::to_value(entry).unwrap_or_default();
        if let Some(object) = own.as_object_mut() {
            object.insert("cniVersion".to_owned(), OWN_VERSION.into());
            object.insert("name".to_owned(), PLUGIN.into());
        }
        if Form::of(name) == Some(Form::List) {
            own = serde_json::json!({ "cniVersion": OWN_VERSION, "name": PLUGIN, "plugins": [own] });
        }
        Ok(put(&path, format!("{own:#}\n").as_bytes(), Mode::Like, report)?)
    }

    /// The name of a configuration that has our plugin alone.
    pub(super) fn alone(&self) -> &str {
        self.name.as_deref().unwrap_or(ALONE)
    }

    /// The configuration that the runtime uses, or would without the one of our own.
    fn used<'a>(&self, found: &'a Found, own: Option<&str>) -> Result<&'a Configuration, InstallError> {
        let others = || found.usable.iter().filter(|one| own != Some(one.name().as_str()));
        let missing = || InstallError::None {
            directory: self.directory.clone(),
            passed: found.passed.iter().map(ToString::to_string).collect(),
        };
        let Some(name) = &self.name else {
            let used = others().next();
            let blocks = |passed: &&Unusable| {
                passed.is_used_by_the_runtime() && used.is_none_or(|used| passed.path() < used.path.as_path())
            };
            if let Some(blocking) = found.passed.iter().find(blocks) {
                return Err(blocking.again(&self.directory));
            }
            return used.ok_or_else(missing);
        };
        // A single one becomes a list, and is found again under the name of that.
        let names = [name.clone(), listed(name)];
        let mut known = names.iter().filter_map(|name| others().find(|one| one.name() == *name));
        if let Some(named) = known.next() {
            return Ok(named);
        }
        match found.passed.iter().find(|passed| passed.path().ends_with(name)) {
            Some(unusable) => Err(unusable.again(&self.directory)),
            None => Err(InstallError::NotThere { name: name.clone(), directory: self.directory.clone() }),
        }
    }
}

impl Unusable {
    /// The same once more, as it was found by looking at the file again.
    fn again(&self, directory: &Path) -> InstallError {
        let path = self.path();
        let form = path.file_name().and_then(|name| Form::of(&name.to_string_lossy()));
        match Configuration::read(path, form.unwrap_or(Form::List)) {
            Err(unusable) => InstallError::Unusable(unusable),
            // It has become a good one in the meantime, which is seen at the next look.
            Ok(_) => InstallError::None { directory: directory.to_owned(), passed: vec![self.to_string()] },
        }
    }
}

/// Notes who else is in a configuration.
fn describe(chain: &Chain<'_>, replaces_istio: bool, report: &mut Report) {
    report.others = chain.plugins().map(str::to_owned).collect();
    if chain.has_other_mesh() && !replaces_istio {
        report.cautions.push(
            "istio-cni is in the same network configuration, and would capture pods with iptables, too: take it out \
             (--replace-istio-cni), or leave this node to it; see docs/migration.md"
                .to_owned(),
        );
    }
}

/// The name of a single configuration after it has become a list.
pub(super) fn listed(name: &str) -> String {
    match (Form::of(name), name.rsplit_once('.')) {
        (Some(Form::Single), Some((stem, _))) => format!("{stem}.conflist"),
        _ => name.to_owned(),
    }
}

/// Writes a file unless it holds this already.
fn put(path: &Path, content: &[u8], mode: Mode, report: &mut Report) -> Result<(), FileError> {
    if files::read(path, LARGEST_PLUGIN).is_ok_and(|known| known == content) && files::has(path, mode) {
        return Ok(());
    }
    files::replace(path, content, mode, path)?;
    report.written.push(path.to_owned());
    Ok(())
}

fn told(passed: &[String]) -> String {
    if passed.is_empty() { String::new() } else { format!(" that can be used ({})", passed.join("; ")) }
}
