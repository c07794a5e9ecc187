//! The kubeconfig by which the plugin asks the Kubernetes API while the agent is not there.
//!
//! It has the token of the agent's own service account, which is replaced from time to time, so it is written again then. It is
//! for root alone, and its content is never shown.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::files::{self, FileError};
use super::server::{self, Found, NoAddress, Server};

/// Its name, in the directory of the network configurations.
pub(crate) const NAME: &str = "culvert-kubeconfig";
/// The largest token or list of certificates.
const LARGEST: u64 = 1 << 20;

/// Where the API is, and what lets one in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Api {
    /// Its address or name.
    pub(crate) server: Server,
    /// The mounted directory with `token` and `ca.crt`.
    pub(crate) service_account: PathBuf,
}

/// Why there is no kubeconfig.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KubeconfigError {
    /// Token or certificates.
    #[error(transparent)]
    File(#[from] FileError),
    /// The server.
    #[error(transparent)]
    NoAddress(#[from] NoAddress),
}

impl Api {
    /// The API at a host and a port, as Kubernetes names them to a pod.
    pub(crate) fn new(host: &str, port: u16, service_account: PathBuf) -> Self {
        Self { server: Server::new(host, port), service_account }
    }

    /// The text of the kubeconfig, with the token as it is now, and what may be wrong with it. `path` is where the last one is. Blocks
    /// while a name is looked up.
    ///
    /// # Errors
    /// When token or certificates cannot be read, or the API has a name that never had an address.
    pub(crate) fn kubeconfig(&self, path: &Path) -> Result<(String, Option<String>), KubeconfigError> {
        self.kubeconfig_by(path, server::look_up)
    }

    fn kubeconfig_by(
        &self,
        path: &Path,
        look_up: impl FnOnce(&str) -> io::Result<Vec<IpAddr>>,
    ) -> Result<(String, Option<String>), KubeconfigError> {
        let roots = read(&self.service_account.join("ca.crt"))?;
        let token_path = self.service_account.join("token");
        let token = String::from_utf8(read(&token_path)?);
        let token = token.map_err(|_| malformed(&token_path))?;
        let token = token.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(malformed(&token_path).into());
        }
        let Found { address, name, caution } = self.server.find(self.before(path), look_up)?;
        let mut cluster = json!({
            "server": format!("https://{address}"),
            "certificate-authority-data": STANDARD.encode(roots),
        });
        if let (Some(name), Some(cluster)) = (name, cluster.as_object_mut()) {
            cluster.insert("tls-server-name".to_owned(), name.into());
        }
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "cluster", "cluster": cluster }],
            "users": [{ "name": "culvert-cni", "user": { "token": token } }],
            "contexts": [{ "name": "culvert-cni", "context": { "cluster": "cluster", "user": "culvert-cni" } }],
            "current-context": "culvert-cni",
        });
        Ok((format!("{config:#}\n"), caution))
    }

    /// The address in the last kubeconfig, if it is one of the same name.
    fn before(&self, path: &Path) -> Option<IpAddr> {
        let last: Value = serde_json::from_slice(&read(path).ok()?).ok()?;
        let cluster = last.pointer("/clusters/0/cluster")?;
        let text = |key: &str| cluster.get(key).and_then(Value::as_str);
        if !self.server.is_named(text("tls-server-name")?) {
            return None;
        }
        Some(text("server")?.strip_prefix("https://")?.parse::<SocketAddr>().ok()?.ip())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    files::read(path, LARGEST)
}

fn malformed(path: &Path) -> FileError {
    let source = std::io::Error::other("it holds something else than a token");
    FileError { operation: "use", path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.crt"), "PEM").unwrap();
        std::fs::write(dir.path().join("token"), "head.body.sign\n").unwrap();
        dir
    }

    fn cluster(text: &str) -> Value {
        serde_json::from_str::<Value>(text).unwrap()["clusters"][0]["cluster"].clone()
    }

    #[test]
    fn what_is_not_a_token_is_told_without_showing_it() {
        let dir = tempfile::tempdir().unwrap();
        let (api, path) = (Api::new("fd00::1", 6443, dir.path().to_owned()), dir.path().join(NAME));
        let error = api.kubeconfig(&path).unwrap_err().to_string();
        assert!(error.contains("ca.crt"), "{error}");
        std::fs::write(dir.path().join("ca.crt"), "PEM").unwrap();
        for bad in ["", " \n", "two words", "\u{7f}"] {
            std::fs::write(dir.path().join("token"), bad).unwrap();
            let error = api.kubeconfig(&path).unwrap_err().to_string();
            assert!(error.contains("/token") && !error.contains("two"), "{error}");
        }
        std::fs::write(dir.path().join("token"), "head.body.sign\n").unwrap();
        let (text, caution) = api.kubeconfig(&path).unwrap();
        let config: Value = serde_json::from_str(&text).unwrap();
        let expected = json!({ "server": "https://[fd00::1]:6443", "certificate-authority-data": "UEVN" });
        assert_eq!((cluster(&text), caution), (expected, None));
        assert_eq!(config["users"][0]["user"]["token"], "head.body.sign");
    }

    #[test]
    fn a_name_is_written_as_its_address_and_again_when_that_changes() {
        let dir = account();
        let (api, path) = (Api::new("api.example", 443, dir.path().to_owned()), dir.path().join(NAME));
        let write = |ips: io::Result<&[&str]>| {
            let ips = ips.map(|ips| ips.iter().map(|ip| ip.parse().unwrap()).collect());
            let (text, caution) = api.kubeconfig_by(&path, |_| ips).unwrap();
            std::fs::write(&path, &text).unwrap();
            // What the plugin reads.
            let read = cni::kubeconfig::Kubeconfig::read(&path).unwrap();
            assert_eq!(read.name, "api.example");
            (read.address.to_string(), caution)
        };
        assert_eq!(write(Ok(&["192.0.2.1"])), ("192.0.2.1:443".to_owned(), None));
        assert_eq!(write(Ok(&["192.0.2.9", "192.0.2.1"])).0, "192.0.2.1:443");
        assert_eq!(write(Ok(&["2001:db8::9"])).0, "[2001:db8::9]:443");
        let (kept, caution) = write(Err(io::Error::other("no resolver")));
        assert_eq!(kept, "[2001:db8::9]:443");
        assert!(caution.unwrap().contains("no resolver"));
        // Another name has nothing to do with it.
        let other = Api::new("other.example", 443, dir.path().to_owned());
        assert!(other.kubeconfig_by(&path, |_| Err(io::Error::other("no"))).is_err());
    }
}
