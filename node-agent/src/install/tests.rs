//! Installations in real directories: every shape of configuration, and those who fight over it.

mod keeping;
mod owning;
mod shapes;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::entry::PLUGIN;
use super::*;

const CALICO: &str = "{\n  \"name\": \"k8s-pod-network\",\n  \"cniVersion\": \"0.3.1\",\n  \"plugins\": [\n    { \"type\": \"calico\" },\n    \
                      { \"type\": \"portmap\" }\n  ]\n}\n";
const BRIDGE: &str = "{ \"cniVersion\": \"0.4.0\", \"name\": \"net\", \"type\": \"bridge\" }\n";

/// A node's directories.
struct Host {
    dir: TempDir,
    plan: Plan,
}

impl Host {
    /// With these configurations.
    fn with(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["net.d", "bin", "image", "account"] {
            fs::create_dir(path(name)).unwrap();
        }
        fs::write(path("image/culvert-cni"), "the plugin").unwrap();
        fs::write(path("account/token"), "first.token.x").unwrap();
        fs::write(path("account/ca.crt"), "roots").unwrap();
        let run = Path::new("/run/culvert");
        let mut entry =
            Entry::new(run.join("cni.sock"), run.join("ambient.json"), vec!["kube-system".to_owned()]);
        entry.kubeconfig = Some(Path::new("/etc/cni/net.d").join(KUBECONFIG));
        entry.agent_pod =
            Some(AgentPod { namespace: "istio-system".to_owned(), name_prefix: "ztunnel-".to_owned() });
        let plan = Plan {
            directory: path("net.d"),
            style: Style::Chained,
            name: None,
            copy: "02-culvert.conflist".to_owned(),
            plugins: Some(path("bin")),
            source: path("image/culvert-cni"),
            entry,
            api: Some(Api::new("10.96.0.1", 443, path("account"))),
            replaces_istio: false,
        };
        let host = Self { dir, plan };
        files.iter().for_each(|(name, text)| host.write(name, text));
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("net.d").join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The plugins of a configuration.
    fn types(&self, name: &str) -> Vec<String> {
        let value: Value = serde_json::from_str(&self.read(name)).unwrap();
        let plugins = value["plugins"].as_array().unwrap();
        plugins.iter().map(|plugin| plugin["type"].as_str().unwrap().to_owned()).collect()
    }

    /// The names of all files that a runtime might read.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("")).unwrap().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.retain(|name| name != KUBECONFIG);
        names.sort();
        names
    }

    fn mode(&self, path: &Path) -> u32 {
        fs::metadata(self.dir.path().join(path)).unwrap().permissions().mode() & 0o7777
    }
}
