//! Who the stand-in is, and how a client is let in: an authority, a certificate, a token, and the kubeconfig that says all of that.
//!
//! The authority's key and the token lie in a directory, so that the next start is the same server to its clients.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;

/// Keys and files.
#[derive(Debug)]
pub(crate) struct Identity {
    dir: PathBuf,
    pub(crate) token: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Identity {
    /// Reads what is in a directory, or makes it.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        let (certificate, key, token) = (dir.join("ca.crt"), dir.join("ca.key"), dir.join("token"));
        if !key.exists() {
            let pair = KeyPair::generate()?;
            let mut params = CertificateParams::new(Vec::new())?;
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, "Test Kubernetes");
            fs::write(&certificate, params.self_signed(&pair)?.pem())?;
            fs::write(&key, pair.serialize_pem())?;
            fs::write(&token, format!("{:032x}", rand::random::<u128>()))?;
        }
        let pair = KeyPair::from_pem(&fs::read_to_string(&key)?).context("the authority's key")?;
        let issuer = Issuer::from_ca_cert_pem(&fs::read_to_string(&certificate)?, pair)?;
        Ok(Self { dir: dir.to_owned(), token: fs::read_to_string(&token)?.trim().to_owned(), issuer })
    }

    /// A server at this address; writes the kubeconfig that leads there.
    pub(crate) fn server(&self, address: SocketAddr) -> Result<Arc<rustls::ServerConfig>> {
        let pair = KeyPair::generate()?;
        let names = ["localhost".to_owned(), "kubernetes.default.svc".to_owned(), address.ip().to_string()];
        let params = CertificateParams::new(names)?;
        let certificate = params.signed_by(&pair, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        self.write_kubeconfig(address)?;
        Ok(Arc::new(config))
    }

    /// Where the kubeconfig is.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    fn write_kubeconfig(&self, address: SocketAddr) -> Result<()> {
        let host = match address.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://{host}:{}", address.port()),
                "certificate-authority": self.dir.join("ca.crt"),
            }}],
            "users": [{"name": "test", "user": {"token": self.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        Ok(fs::write(self.kubeconfig(), config.to_string())?)
    }
}
