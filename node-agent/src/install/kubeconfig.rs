//! The kubeconfig by which the plugin asks the Kubernetes API while the agent is not there.
//!
//! It has the token of the agent's own service account, which is replaced from time to time, so it is written again then. It is
//! for root alone, and its content is never shown.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::files::{self, FileError};

/// Its name, in the directory of the network configurations.
pub(crate) const NAME: &str = "culvert-kubeconfig";
/// The largest token or list of certificates.
const LARGEST: u64 = 1 << 20;

/// Where the API is, and what lets one in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Api {
    /// Host and port, in the form of a URL.
    pub(crate) authority: String,
    /// The mounted directory with `token` and `ca.crt`.
    pub(crate) service_account: PathBuf,
}

impl Api {
    /// The API at a host and a port, as Kubernetes names them to a pod.
    pub(crate) fn new(host: &str, port: u16, service_account: PathBuf) -> Self {
        let authority =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Self { authority, service_account }
    }

    /// The text of the kubeconfig, with the token as it is now.
    ///
    /// # Errors
    /// A [`FileError`] if token or certificates cannot be read.
    pub(crate) fn kubeconfig(&self) -> Result<String, FileError> {
        let roots = read(&self.service_account.join("ca.crt"))?;
        let path = self.service_account.join("token");
        let token = String::from_utf8(read(&path)?);
        let token = token.map_err(|_| malformed(&path))?;
        let token = token.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(malformed(&path));
        }
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "cluster",
                "cluster": {
                    "server": format!("https://{}", self.authority),
                    "certificate-authority-data": STANDARD.encode(roots),
                },
            }],
            "users": [{ "name": "culvert-cni", "user": { "token": token } }],
            "contexts": [{ "name": "culvert-cni", "context": { "cluster": "cluster", "user": "culvert-cni" } }],
            "current-context": "culvert-cni",
        });
        Ok(format!("{config:#}\n"))
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

    #[test]
    fn it_is_what_clients_of_kubernetes_read() {
        let dir = tempfile::tempdir().unwrap();
        let api = Api::new("fd00::1", 6443, dir.path().to_owned());
        let error = api.kubeconfig().unwrap_err().to_string();
        assert!(error.contains("ca.crt"), "{error}");
        std::fs::write(dir.path().join("ca.crt"), "PEM").unwrap();
        for bad in ["", " \n", "two words", "\u{7f}"] {
            std::fs::write(dir.path().join("token"), bad).unwrap();
            let error = api.kubeconfig().unwrap_err().to_string();
            assert!(error.contains("/token") && !error.contains("two"), "{error}");
        }
        std::fs::write(dir.path().join("token"), "head.body.sign\n").unwrap();
        let text = api.kubeconfig().unwrap();
        let config: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://[fd00::1]:6443");
        assert_eq!(config["clusters"][0]["cluster"]["certificate-authority-data"], "UEVN");
        assert_eq!(config["users"][0]["user"]["token"], "head.body.sign");
        assert_eq!(Api::new("10.0.0.1", 443, PathBuf::new()).authority, "10.0.0.1:443");
    }
}
