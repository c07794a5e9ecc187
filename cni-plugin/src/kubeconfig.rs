//! How the Kubernetes API is reached: the kubeconfig that the installer writes beside the conflist.
//!
//! Of the format only what the installer writes is read: JSON, which every kubeconfig in YAML may be; one server by its
//! address, its authority, a token. The plugin is linked statically, so it has no resolver; where the API server has only a
//! name, the installer writes the address, and the name as `tls-server-name`. Whatever is missing is an error that names it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use thiserror::Error;

/// The API server, and who we are to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Kubeconfig {
    /// Where it listens.
    pub address: SocketAddr,
    /// What its certificate must be for: an address or a name.
    pub name: String,
    /// What comes before `/api` in its paths; empty, or with a slash in front and none at its end.
    pub prefix: String,
    /// Certificates of its authority, in PEM.
    pub authority: Vec<u8>,
    /// What it knows us by.
    pub token: String,
}

impl fmt::Debug for Kubeconfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kubeconfig")
            .field("address", &self.address)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A kubeconfig that cannot be used.
#[derive(Debug, Error)]
#[error("kubeconfig {path}: {what}")]
pub struct KubeconfigError {
    path: PathBuf,
    what: String,
}

impl Kubeconfig {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, KubeconfigError> {
        let error = |what: String| KubeconfigError { path: path.to_owned(), what };
        let bytes = std::fs::read(path).map_err(|source| error(source.to_string()))?;
        Self::parse(&bytes).map_err(error)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let file: File =
            serde_json::from_slice(bytes).map_err(|error| format!("it is not the JSON of one: {error}"))?;
        let context = named(&file.contexts, &file.current_context, "context")?;
        let cluster = named(&file.clusters, &context.cluster, "cluster")?;
        let user = named(&file.users, &context.user, "user")?;
        let (address, prefix) = server(&cluster.server)?;
        let authority = STANDARD
            .decode(&cluster.certificate_authority_data)
            .map_err(|error| format!("certificate-authority-data: {error}"))?;
        if user.token.is_empty() || user.token.contains(|c: char| c.is_ascii_control() || !c.is_ascii()) {
            return Err("the user's token is empty or not one".to_owned());
        }
        let name = cluster.tls_server_name.clone().unwrap_or_else(|| address.ip().to_string());
        Ok(Self { address, name, prefix, authority, token: user.token.clone() })
    }
}

/// `https://ADDRESS[:PORT][/PREFIX]`.
fn server(url: &str) -> Result<(SocketAddr, String), String> {
    let wrong = || format!("server {url:?} is not https://ADDRESS:PORT; a name goes into tls-server-name");
    let rest = url.strip_prefix("https://").ok_or_else(wrong)?;
    let (authority, prefix) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let alone = authority.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(authority);
    let address = authority.parse().or_else(|_| alone.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 443)));
    if prefix.contains(|c: char| c.is_ascii_whitespace() || c.is_ascii_control()) {
        return Err(wrong());
    }
    Ok((address.map_err(|_| wrong())?, prefix.trim_end_matches('/').to_owned()))
}

fn named<'a, T: Entry>(entries: &'a [T], name: &str, kind: &str) -> Result<&'a T::Inner, String> {
    let found = entries.iter().find(|entry| entry.name() == name);
    found.map(Entry::inner).ok_or_else(|| format!("there is no {kind} {name:?}"))
}

trait Entry {
    type Inner;
    fn name(&self) -> &str;
    fn inner(&self) -> &Self::Inner;
}

macro_rules! entry {
    ($entry:ident, $field:ident, $inner:ident) => {
        #[derive(Deserialize)]
        struct $entry {
            name: String,
            $field: $inner,
        }
        impl Entry for $entry {
            type Inner = $inner;
            fn name(&self) -> &str {
                &self.name
            }
            fn inner(&self) -> &$inner {
                &self.$field
            }
        }
    };
}

entry!(NamedContext, context, Context);
entry!(NamedCluster, cluster, Cluster);
entry!(NamedUser, user, User);

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    current_context: String,
    contexts: Vec<NamedContext>,
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority_data: String,
    tls_server_name: Option<String>,
}

#[derive(Deserialize)]
struct User {
    token: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(server: &str, more: &str) -> String {
        format!(
            r#"{{"apiVersion":"v1","kind":"Config","current-context":"c",
                "contexts":[{{"name":"c","context":{{"cluster":"k","user":"u"}}}}],
                "clusters":[{{"name":"k","cluster":{{"server":"{server}","certificate-authority-data":"UEVN"{more}}}}}],
                "users":[{{"name":"u","user":{{"token":"secret"}}}}]}}"#
        )
    }

    #[test]
    fn a_server_is_an_address_of_either_family() {
        for (url, address, name, prefix) in [
            ("https://10.96.0.1:443", "10.96.0.1:443", "10.96.0.1", ""),
            ("https://10.96.0.1", "10.96.0.1:443", "10.96.0.1", ""),
            ("https://[2001:db8::1]:6443/", "[2001:db8::1]:6443", "2001:db8::1", ""),
            ("https://[2001:db8::1]/k8s/one/", "[2001:db8::1]:443", "2001:db8::1", "/k8s/one"),
        ] {
            let read = Kubeconfig::parse(file(url, "").as_bytes()).unwrap();
            assert_eq!(read.address, address.parse().unwrap(), "{url}");
            assert_eq!((read.name.as_str(), read.prefix.as_str()), (name, prefix), "{url}");
            assert_eq!((read.authority.as_slice(), read.token.as_str()), (b"PEM".as_slice(), "secret"));
        }
        let named = file("https://10.0.0.1:443", r#","tls-server-name":"api.example""#);
        assert_eq!(Kubeconfig::parse(named.as_bytes()).unwrap().name, "api.example");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let told = |text: &str| Kubeconfig::parse(text.as_bytes()).unwrap_err();
        assert!(told("apiVersion: v1").contains("not the JSON"));
        assert!(told(&file("http://10.0.0.1", "")).contains("https://ADDRESS:PORT"));
        assert!(told(&file("https://api.example", "")).contains("tls-server-name"));
        assert!(told(&file("https://10.0.0.1/a b", "")).contains("https://ADDRESS"));
        assert!(
            told(&file("https://10.0.0.1", "").replace("UEVN", "?")).contains("certificate-authority-data")
        );
        assert!(told(&file("https://10.0.0.1", "").replace("secret", "a\\r\\nb")).contains("token"));
        assert!(
            told(&file("https://10.0.0.1", "").replace(r#""name":"u""#, r#""name":"v""#))
                .contains("no user \"u\"")
        );
        let gone = Kubeconfig::read(Path::new("/nonexistent/kubeconfig")).unwrap_err().to_string();
        assert!(gone.contains("/nonexistent/kubeconfig"), "{gone}");
    }

    #[test]
    fn the_token_is_in_no_log() {
        let shown = format!("{:?}", Kubeconfig::parse(file("https://10.0.0.1", "").as_bytes()).unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }
}
