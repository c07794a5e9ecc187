//! One call of the plugin, from environment and stdin to stdout and exit status.
//!
//! Order matters: the call is read whole and checked before anything is asked; a pod that cannot be in the mesh
//! returns before the agent is looked for; an agent that is not there leaves the decision to [`absent`]; everything else that
//! is not "enrolled" or "not ambient" is an error, so the pod does not start. DEL and GC never fail for the agent's sake: a namespace that goes takes its capture along, and the
//! agent removes what belongs to nobody when it is back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use crate::absent::{self, Fate};
use crate::client::{self, ClientError};
use crate::config::{Config, LATEST_VERSION, SUPPORTED_VERSIONS};
use crate::error::{Code, SpecError};
use crate::invocation::{Environment, Invocation, Verb};
use crate::protocol::{self, Command, Outcome, PodName, Request};

/// DEL is best effort: a silent agent must not hold a pod in `Terminating` for as long as ADD may wait.
const DEL_LIMIT: Duration = Duration::from_secs(5);

/// What the process says and how it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// For the runtime.
    pub stdout: String,
    /// For its log, on stderr.
    pub notes: Vec<String>,
    /// Exit status 1.
    pub failed: bool,
}

impl Answer {
    fn success(stdout: String) -> Self {
        Self { stdout, notes: Vec::new(), failed: false }
    }

    fn failure(error: &SpecError, cni_version: &str) -> Self {
        Self { stdout: error.to_json(cni_version), notes: vec![error.to_string()], failed: true }
    }

    /// Stdin could not be read.
    pub fn input_failed(details: &str) -> Self {
        let error = SpecError::new(Code::Io, "hand the network configuration over on stdin", details);
        Self::failure(&error, LATEST_VERSION)
    }
}

/// Does what the environment's `CNI_COMMAND` says.
pub fn run(env: Environment<'_>, stdin: &[u8]) -> Answer {
    let version = answer_version(stdin);
    let outcome = Verb::read(env).and_then(|verb| match verb {
        Verb::Version => Ok(Answer::success(versions(&version))),
        // An agent that is down must not make the node's network "not ready": then its own pod could never start.
        Verb::Status => Config::parse(stdin)?.check_version().map(|()| Answer::success(String::new())),
        Verb::Gc => gc(stdin),
        Verb::Add => add(env, stdin),
        Verb::Check => check(env, stdin),
        Verb::Del => del(env, stdin),
    });
    outcome.unwrap_or_else(|error| Answer::failure(&error, &version))
}

fn add(env: Environment<'_>, stdin: &[u8]) -> Result<Answer, SpecError> {
    let (config, call) = read(env, stdin, Verb::Add)?;
    let mut answer = Answer::success(config.result());
    if let Some(pod) = meshable(&config, &call) {
        match ask(&config, &call, pod, Command::Add, &mut answer.notes)? {
            Outcome::Enrolled | Outcome::NotAmbient => {}
            other => return Err(unexpected(other, Command::Add)),
        }
    }
    Ok(answer)
}

fn check(env: Environment<'_>, stdin: &[u8]) -> Result<Answer, SpecError> {
    let (config, call) = read(env, stdin, Verb::Check)?;
    let mut answer = Answer::success(String::new());
    if let Some(pod) = meshable(&config, &call) {
        match ask(&config, &call, pod, Command::Check, &mut answer.notes)? {
            Outcome::Intact | Outcome::NotAmbient => {}
            other => return Err(unexpected(other, Command::Check)),
        }
    }
    Ok(answer)
}

fn del(env: Environment<'_>, stdin: &[u8]) -> Result<Answer, SpecError> {
    let (config, call) = read(env, stdin, Verb::Del)?;
    let mut answer = Answer::success(String::new());
    if let Some(pod) = meshable(&config, &call) {
        let request = request(&config, &call, pod, Command::Del, Vec::new());
        let limit = config.timeout().min(DEL_LIMIT);
        if let Err(error) = client::ask(&config.socket, limit, &request, None) {
            answer.notes.push(format!("{error}; the agent removes what is left of the pod when it is back"));
        }
    }
    Ok(answer)
}

/// The plugin keeps nothing of its own, and the agent finds leftovers by itself: what goes wrong here is only told.
fn gc(stdin: &[u8]) -> Result<Answer, SpecError> {
    let config = Config::parse(stdin)?;
    config.check_version()?;
    let mut answer = Answer::success(String::new());
    let Some(valid) = config.valid_containers() else {
        answer.notes.push("GC without cni.dev/valid-attachments says nothing of what is unused".to_owned());
        return Ok(answer);
    };
    let request = Request {
        version: protocol::VERSION,
        command: Command::Gc,
        container_id: String::new(),
        netns: String::new(),
        ifname: String::new(),
        pod: None,
        ips: Vec::new(),
        annotations: BTreeMap::new(),
        network: config.name.clone(),
        valid,
    };
    match client::ask(&config.socket, config.timeout().min(DEL_LIMIT), &request, None) {
        Ok(Outcome::Collected) => {}
        Ok(other) => answer.notes.push(format!("the agent answers GC with {other:?}")),
        Err(error) => answer.notes.push(format!("{error}; the agent looks for leftovers by itself")),
    }
    Ok(answer)
}

fn read(env: Environment<'_>, stdin: &[u8], verb: Verb) -> Result<(Config, Invocation), SpecError> {
    let config = Config::parse(stdin)?;
    config.check_version()?;
    let call = Invocation::read(env, verb)?;
    Ok((config, call))
}

/// The pod, if it can be in the mesh at all.
fn meshable<'a>(config: &Config, call: &'a Invocation) -> Option<&'a PodName> {
    let can_be =
        |pod: &&PodName| !config.exclude_namespaces.contains(&pod.namespace) && !config.is_agent(pod);
    call.pod.as_ref().filter(can_be)
}

/// What the agent says; where it says nothing, what can be known without it.
fn ask(
    config: &Config,
    call: &Invocation,
    pod: &PodName,
    command: Command,
    notes: &mut Vec<String>,
) -> Result<Outcome, SpecError> {
    let netns = File::open(&call.netns).map_err(|source| {
        let msg = format!(
            "the network namespace of pod {}/{} is gone; let the runtime make a new sandbox",
            pod.namespace, pod.name
        );
        SpecError::new(Code::NetnsGone, msg, format!("opening {}: {source}", call.netns))
    })?;
    let request = request(config, call, pod, command, config.pod_ips()?);
    let error = match client::ask(&config.socket, config.timeout(), &request, Some(netns.as_fd())) {
        Ok(outcome) => return Ok(outcome),
        Err(error) => error,
    };
    if !error.is_absence() {
        return Err(refused(&error, pod, ""));
    }
    match absent::decide(config, pod) {
        Fate::MustWait(why) => Err(refused(&error, pod, &why)),
        Fate::MayStart(why) => {
            notes.push(format!("{error}; pod {}/{} goes on without it: {why}", pod.namespace, pod.name));
            Ok(Outcome::NotAmbient)
        }
    }
}

fn request(
    config: &Config,
    call: &Invocation,
    pod: &PodName,
    command: Command,
    ips: Vec<std::net::IpAddr>,
) -> Request {
    Request {
        version: protocol::VERSION,
        command,
        container_id: call.container_id.clone(),
        netns: call.netns.clone(),
        ifname: call.ifname.clone(),
        pod: Some(pod.clone()),
        ips,
        annotations: protocol::mesh_annotations(config.annotations()),
        network: config.name.clone(),
        valid: Vec::new(),
    }
}

/// Turns what happened into what to do about it; `why` says what is known of the pod without the agent.
fn refused(error: &ClientError, pod: &PodName, why: &str) -> SpecError {
    let held =
        format!("pod {}/{} is held back, so that it cannot send in plaintext", pod.namespace, pod.name);
    let details = if why.is_empty() { error.to_string() } else { format!("{error}; {why}") };
    match error {
        ClientError::Unreachable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            let msg = format!("{held}: let culvert-cni reach the agent's socket (it runs as root)");
            SpecError::new(Code::TryAgainLater, msg, details)
        }
        ClientError::Unreachable { .. } => {
            let msg = format!("{held}: start the culvert agent on this node, or see why it is not running");
            SpecError::new(Code::TryAgainLater, msg, details)
        }
        ClientError::Silent { .. } | ClientError::Broken { .. } => {
            let msg = format!("{held}: see the culvert agent's log on this node");
            SpecError::new(Code::TryAgainLater, msg, details)
        }
        ClientError::Garbled(_) => {
            let msg = format!("{held}: install plugin and agent of the same release");
            SpecError::new(Code::AgentGarbled, msg, details)
        }
        ClientError::Refused(failure) => {
            // Codes below 100 mean what the specification says; the agent has a use for one of them only.
            let code = if failure.code == 11 || failure.code >= 100 { failure.code } else { 199 };
            SpecError::new(Code::Agent(code), failure.msg.clone(), failure.details.clone())
        }
    }
}

fn unexpected(outcome: Outcome, command: Command) -> SpecError {
    let details = format!("the agent answers {command:?} with {outcome:?}");
    SpecError::new(Code::AgentGarbled, "install plugin and agent of the same release", details)
}

/// The version to answer in: the runtime's own if it is one of ours, also when the rest of stdin is unusable.
fn answer_version(stdin: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Stated {
        cni_version: String,
    }
    serde_json::from_slice::<Stated>(stdin)
        .map(|stated| stated.cni_version)
        .ok()
        .filter(|version| SUPPORTED_VERSIONS.contains(&version.as_str()))
        .unwrap_or_else(|| LATEST_VERSION.to_owned())
}

fn versions(version: &str) -> String {
    json!({ "cniVersion": version, "supportedVersions": SUPPORTED_VERSIONS }).to_string()
}

#[cfg(test)]
mod tests;
