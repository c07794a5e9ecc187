//! The configuration: every setting, read whole before anything starts.
//!
//! A setting comes from a flag, an environment variable or the configuration file, in this order of rank, or is its default.
//! What settings there are is said once, in the tables of the nouns' modules. Invariant: either all of it is good, or nothing
//! is started and everything that is wrong with it is told at once. Secrets are never shown.

mod capture;
mod control_plane;
mod data_path;
mod effective;
mod endpoint;
mod environment;
mod error;
mod file;
mod flags;
mod given;
mod install;
mod kinds;
mod kubernetes;
mod limits;
mod node;
mod process;
mod reader;
mod setting;
mod show;
mod spans;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub(crate) use self::capture::{ByOthers, Capture};
pub(crate) use self::control_plane::ControlPlane;
pub(crate) use self::data_path::Tls;
pub(crate) use self::effective::Effective;
pub(crate) use self::error::ConfigError;
pub(crate) use self::flags::Flags;
pub(crate) use self::install::{DaemonSet, Install};
pub(crate) use self::kubernetes::{Kubernetes, Membership};
pub(crate) use self::node::Node;
pub(crate) use self::process::Process;
pub(crate) use self::show::{ConfigArgs, show};
pub(crate) use self::spans::Spans;

use self::environment::Environment;
use self::given::{Given, Givens, Source};
use self::reader::Reader;
use self::setting::{Family, Known, Section};

/// Every setting, by its noun, in the order in which they are shown.
static SECTIONS: &[&Section] = &[
    &control_plane::SECTION,
    &node::SECTION,
    &kubernetes::SECTION,
    &capture::SECTION,
    &data_path::SECTION,
    &limits::SECTION,
    &install::SECTION,
    &spans::SECTION,
    &process::SECTION,
];

/// Every setting with a name of its own.
fn settings() -> impl Iterator<Item = &'static dyn Known> {
    SECTIONS.iter().flat_map(|section| section.settings.iter().copied())
}

/// Every family of settings.
fn families() -> impl Iterator<Item = &'static Family> {
    SECTIONS.iter().flat_map(|section| section.families)
}

/// The configuration of an agent.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The mesh file; there is one if there is no control plane.
    pub(crate) mesh: Option<PathBuf>,
    /// Where else the mesh and its certificates come from.
    pub(crate) control_plane: ControlPlane,
    /// Who this node and its agent are.
    pub(crate) node: Node,
    /// The API of Kubernetes, if it is asked.
    pub(crate) kubernetes: Option<Kubernetes>,
    /// Which of its pods are in the mesh.
    pub(crate) membership: Membership,
    /// What is captured.
    pub(crate) capture: Capture,
    /// The data path.
    pub(crate) data_path: tunnel::Config,
    /// Which TLS is good enough.
    pub(crate) tls: Tls,
    /// What is installed on the node.
    pub(crate) install: Install,
    /// Where spans of connections go, if anywhere.
    pub(crate) spans: Option<Spans>,
    /// The process.
    pub(crate) process: Process,
    /// All of this as it may be shown.
    pub(crate) effective: Effective,
}

impl Config {
    /// Reads the configuration of this process.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn read(flags: &Flags) -> Result<Self, ConfigError> {
        Self::gather(flags, std::env::vars_os())
    }

    /// Reads no more than what is installed on the node.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration as far as it is read.
    pub(crate) fn read_install(flags: &Flags) -> Result<Install, ConfigError> {
        gather(flags, std::env::vars_os(), |reader| {
            let (node, process) = (node::read(reader), process::read(reader));
            install::read(reader, node.as_ref(), process.as_ref())
        })
    }

    /// Reads it with these environment variables.
    fn gather(
        flags: &Flags,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        gather(flags, variables, Self::assemble)
    }

    fn assemble(reader: &mut Reader<'_>) -> Option<Self> {
        let node = node::read(reader);
        node::check_metadata(reader);
        let control_plane = control_plane::read(reader, node.as_ref());
        let (capture, process) = (capture::read(reader), process::read(reader));
        let data_path = data_path::read(reader, node.as_ref());
        let install = install::read(reader, node.as_ref(), process.as_ref());
        let spans = node.as_ref().and_then(|node| spans::read(reader, node));
        let (kubernetes, selectors) = kubernetes::read(reader, node.as_ref())?;
        let install = install?;
        let ((mesh, control_plane), (data_path, tls)) = (control_plane?, data_path?);
        Some(Self {
            mesh,
            control_plane,
            node: node?,
            kubernetes,
            membership: Membership { selectors, excluded: install.excluded_namespaces.clone() },
            capture: capture?,
            data_path,
            tls,
            install,
            spans: spans?,
            process: process?,
            effective: Effective::of(reader.givens()),
        })
    }
}

/// Gathers what was said, by flags, these environment variables and the file, and reads what is made of it.
fn gather<T>(
    flags: &Flags,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    assemble: impl FnOnce(&mut Reader<'_>) -> Option<T>,
) -> Result<T, ConfigError> {
    let (mut givens, mut problems) = (Givens::default(), Vec::new());
    let environment = Environment::new(variables);
    flags.enter(&mut givens, &mut problems);
    environment.enter(&mut givens, &mut problems);
    let file = flags.file.as_deref().or(environment.config_file().map(Path::new));
    if let Some(path) = file {
        file::enter(path, &mut givens, &mut problems);
    }
    enter_defaults(&mut givens, environment.is_in_cluster());
    check_families(&givens, &mut problems);
    let mut reader = Reader::new(&givens, problems);
    let config = assemble(&mut reader);
    match (config, reader.finish()) {
        (Some(config), problems) if problems.is_empty() => Ok(config),
        (_, problems) => Err(ConfigError { problems }),
    }
}

/// Enters the defaults that depend on something.
fn enter_defaults(givens: &mut Givens, in_cluster: bool) {
    let has_mesh_file = givens.says(control_plane::MESH.face().flag);
    for face in settings().map(Known::face) {
        if let Some(text) = face.in_cluster.filter(|_| in_cluster && !has_mesh_file) {
            let given = Given { text: text.to_owned(), source: Source::DefaultFor("in a cluster") };
            givens.enter(face.flag, given);
        }
    }
    let grace = givens.settings.get(process::GRACE_PERIOD.face().flag);
    if let Some((text, source)) = grace.and_then(|grace| process::deadline_within(&grace.text)) {
        givens.enter(process::DEADLINE.face().flag, Given { text, source });
    }
}

/// Notes what is wrong with settings that have names of their own.
fn check_families(givens: &Givens, problems: &mut Vec<String>) {
    for family in families() {
        for (name, given) in givens.family(family.flag) {
            let Err(reason) = (family.check)(name, &given.text) else { continue };
            let value = if family.is_secret { "(secret)" } else { given.text.as_str() };
            let written = match given.source {
                Source::Flag(_) => given.source.quote(&format!("{name}={value}")),
                _ => given.source.quote(value),
            };
            problems.push(format!("{written}: {reason}; allowed: {}", family.allowed));
        }
    }
}
