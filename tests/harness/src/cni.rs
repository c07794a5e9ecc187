//! A small container runtime's side of CNI: runs a conflist's plugins as containerd does.
//!
//! Plugins get `CNI_ARGS` as a CRI runtime sends them, each the result of the one before as prevResult; DEL goes through
//! the list backwards, and follows a failed ADD. They run in the node's network namespace, where a node's runtime is.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};
use thiserror::Error;

use crate::command;

/// Where Debian's containernetworking-plugins puts them.
pub const PLUGIN_DIR: &str = "/usr/lib/cni";

/// Why a pod was not connected.
#[derive(Debug, Error)]
pub enum CniError {
    /// A plugin answered with an error of the CNI specification.
    #[error("plugin type={plugin:?} failed ({command}): code {code}: {msg}; {details}")]
    Plugin {
        /// Its type.
        plugin: String,
        /// `ADD`, `DEL`, `CHECK`.
        command: String,
        /// Code of the specification, or the plugin's own from 100 on.
        code: u64,
        /// What to do.
        msg: String,
        /// What happened.
        details: String,
    },
    /// Something else went wrong.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// Which pod a call is about.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_NETNS`.
    pub netns: PathBuf,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
}

/// A list of plugins, and where they run.
#[derive(Debug, Clone)]
pub struct Conflist {
    /// Name of the network.
    pub name: String,
    /// `cniVersion` of all calls.
    pub cni_version: String,
    /// Entries, in the order of ADD.
    pub plugins: Vec<Value>,
    /// The node's namespace.
    pub node: PathBuf,
    /// Directories of plugins.
    pub path: Vec<PathBuf>,
}

impl Conflist {
    /// ADD: every plugin in order; after a failure DEL of all, as containerd does. Returns the last result.
    pub fn add(&self, sandbox: &Sandbox) -> Result<Value, CniError> {
        let mut result = None;
        for plugin in &self.plugins {
            match self.call("ADD", plugin, sandbox, result.as_ref()) {
                Ok(next) => result = Some(next),
                Err(error) => {
                    // The first error is the one that is told.
                    let _ = self.del(sandbox, None);
                    return Err(error);
                }
            }
        }
        Ok(result.unwrap_or_else(|| json!({ "cniVersion": self.cni_version })))
    }

    /// CHECK: every plugin in order, with the result of ADD.
    pub fn check(&self, sandbox: &Sandbox, added: &Value) -> Result<(), CniError> {
        self.plugins.iter().try_for_each(|plugin| self.call("CHECK", plugin, sandbox, Some(added)).map(drop))
    }

    /// DEL: every plugin, backwards; the first error is returned after all were called.
    pub fn del(&self, sandbox: &Sandbox, added: Option<&Value>) -> Result<(), CniError> {
        let mut outcome = Ok(());
        for plugin in self.plugins.iter().rev() {
            let one = self.call("DEL", plugin, sandbox, added).map(drop);
            if outcome.is_ok() {
                outcome = one;
            }
        }
        outcome
    }

    /// STATUS: every plugin in order, as a runtime asks before it says that its network is ready.
    pub fn status(&self) -> Result<(), CniError> {
        self.plugins.iter().try_for_each(|plugin| self.ask("STATUS", plugin, None).map(drop))
    }

    /// GC: every plugin in order, with the sandboxes that are in use.
    pub fn gc(&self, valid: &[&Sandbox]) -> Result<(), CniError> {
        let attachment =
            |sandbox: &&Sandbox| json!({ "containerID": sandbox.container_id, "ifname": "eth0" });
        let valid: Value = valid.iter().map(attachment).collect();
        self.plugins.iter().try_for_each(|plugin| {
            let mut plugin = plugin.clone();
            let object = plugin.as_object_mut().context("a plugin's entry in a conflist is an object")?;
            object.insert("cni.dev/valid-attachments".to_owned(), valid.clone());
            self.ask("GC", &plugin, None).map(drop)
        })
    }

    fn call(
        &self,
        verb: &str,
        plugin: &Value,
        sandbox: &Sandbox,
        previous: Option<&Value>,
    ) -> Result<Value, CniError> {
        let mut plugin = plugin.clone();
        if let Some(previous) = previous {
            let object = plugin.as_object_mut().context("a plugin's entry in a conflist is an object")?;
            object.insert("prevResult".to_owned(), previous.clone());
        }
        self.ask(verb, &plugin, Some(sandbox))
    }

    fn ask(&self, verb: &str, plugin: &Value, sandbox: Option<&Sandbox>) -> Result<Value, CniError> {
        let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
        let binary = self.find(kind)?;
        let mut config = plugin.clone();
        let object = config.as_object_mut().context("a plugin's entry in a conflist is an object")?;
        object.insert("name".to_owned(), self.name.clone().into());
        object.insert("cniVersion".to_owned(), self.cni_version.clone().into());
        let mut command = command::in_netns(&self.node, &binary);
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_PATH", std::env::join_paths(&self.path).map_err(anyhow::Error::from)?);
        if let Some(sandbox) = sandbox {
            set_environment(&mut command, sandbox);
        }
        let ended = command::finish(&mut command, config.to_string().as_bytes())?;
        if !ended.status.success() {
            return Err(plugin_error(kind, verb, &ended));
        }
        if verb != "ADD" {
            return Ok(Value::Null);
        }
        let result = serde_json::from_str(&ended.stdout);
        Ok(result.with_context(|| format!("{kind} answered ADD with {:?}", ended.stdout))?)
    }

    fn find(&self, kind: &str) -> Result<PathBuf> {
        let found = self.path.iter().map(|dir| dir.join(kind)).find(|file| file.is_file());
        found.ok_or_else(|| {
            let dirs: Vec<_> = self.path.iter().map(|dir| dir.display().to_string()).collect();
            anyhow!(
                "CNI plugin {kind:?} is in none of {}: apt-get install containernetworking-plugins",
                dirs.join(", ")
            )
        })
    }
}

fn set_environment(command: &mut Command, sandbox: &Sandbox) {
    let args = format!(
        "K8S_POD_UID={id};IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={id}",
        sandbox.namespace,
        sandbox.name,
        id = sandbox.container_id,
    );
    command
        .env("CNI_CONTAINERID", &sandbox.container_id)
        .env("CNI_NETNS", &sandbox.netns)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_ARGS", args);
}

fn plugin_error(kind: &str, verb: &str, ended: &command::Ended) -> CniError {
    let Ok(error) = serde_json::from_str::<Value>(&ended.stdout) else {
        return anyhow!(
            "{kind} {verb}: {}, stdout {:?}, stderr {:?}",
            ended.status,
            ended.stdout,
            ended.stderr
        )
        .into();
    };
    let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    CniError::Plugin {
        plugin: kind.to_owned(),
        command: verb.to_ascii_lowercase(),
        code: error.get("code").and_then(Value::as_u64).unwrap_or_default(),
        msg: text("msg"),
        details: text("details"),
    }
}

/// The entry of the bridge plugin with addresses of both families, without masquerading (which would be iptables).
pub fn bridge_entry(subnets: (&str, &str), state: &Path) -> Value {
    json!({
        "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false,
        "ipam": {
            "type": "host-local",
            "dataDir": state,
            "ranges": [[{ "subnet": subnets.0 }], [{ "subnet": subnets.1 }]],
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
        },
    })
}

/// Our own entry.
pub fn culvert_entry(socket: &Path) -> Value {
    json!({ "type": "culvert-cni", "socket": socket, "excludeNamespaces": ["kube-system"], "timeoutSeconds": 10 })
}
