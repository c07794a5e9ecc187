//! The certificate authority: roots, chains in the shapes that istiod has, and answers that are wrong on purpose.
//!
//! The first root lives in the directory (`root-cert.pem`, `root-key.pem`), so that a server which is killed comes back
//! with it. `root-cert.pem` holds every root that is trusted, the first one first. The server's own certificate is of
//! the newest root.

mod issue;

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rcgen::{CertificateSigningRequestParams, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Status};

use self::issue::{Issuing, Leaf};
use crate::plane::Options;
use crate::wire::ca::CertificateRequest;

/// The file that clients trust, in the server's directory.
pub(crate) const ROOTS: &str = "root-cert.pem";
const ROOT_KEY: &str = "root-key.pem";
/// Validity where none is asked for.
const USUAL: Duration = Duration::from_secs(24 * 3600);
const LONGEST: Duration = Duration::from_secs(90 * 24 * 3600);

/// The shape of a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chain {
    /// The leaf, then all roots in one.
    #[default]
    SelfSigned,
    /// The leaf, the intermediate that signed it, that one's root, then all roots in one.
    PluggedIn,
}

/// How a call is answered.
#[derive(Clone, Debug, Default)]
pub enum Answer {
    /// With what was asked for.
    #[default]
    Sign,
    /// Not at all.
    Refuse(Code, String),
    /// With a certificate for another identity.
    WrongIdentity(String),
    /// With a certificate for another key.
    WrongKey,
    /// With one whose time is over.
    Expired,
    /// With one of a root that is not among those that come with it.
    StrangeRoot,
    /// With no certificate.
    Empty,
    /// With the leaf and no roots.
    LeafAlone,
    /// With what is not PEM.
    Garbage,
}

/// The authority.
pub(crate) struct Authority {
    /// Those that are trusted; the last one signs.
    roots: Vec<Issuing>,
    pub(crate) chain: Chain,
    pub(crate) answers: VecDeque<Answer>,
    /// For calls that have nothing in the queue.
    pub(crate) otherwise: Answer,
    /// How long certificates are good for, whatever is asked.
    pub(crate) lifetime: Option<Duration>,
    /// Identities that are refused, as those that do not run on the caller's node.
    pub(crate) denied: BTreeSet<String>,
    options: Options,
    tls: TlsAcceptor,
}

impl Authority {
    /// The authority of a directory; makes what is not there.
    pub(crate) fn open(options: &Options) -> Result<Self> {
        let (certificate, key) = (options.dir.join(ROOTS), options.dir.join(ROOT_KEY));
        let root = match (fs::read_to_string(&certificate), fs::read_to_string(&key)) {
            (Ok(certificate), Ok(key)) => Issuing::load(&certificate, &key)?,
            _ => {
                let root = Issuing::root("Test root 0")?;
                fs::write(&key, root.key_pem()).with_context(|| format!("write {}", key.display()))?;
                root
            }
        };
        let tls = acceptor(&root, &options.names)?;
        let authority = Self {
            roots: vec![root],
            chain: Chain::default(),
            answers: VecDeque::new(),
            otherwise: Answer::Sign,
            lifetime: None,
            denied: BTreeSet::new(),
            options: options.clone(),
            tls,
        };
        authority.publish()?;
        Ok(authority)
    }

    /// What new connections are accepted with.
    pub(crate) fn tls(&self) -> TlsAcceptor {
        self.tls.clone()
    }

    /// All roots, PEM.
    pub(crate) fn bundle(&self) -> String {
        self.roots.iter().map(Issuing::pem).collect()
    }

    /// A new root signs from now on; the old ones stay trusted.
    pub(crate) fn rotate(&mut self) -> Result<()> {
        let root = Issuing::root(&format!("Test root {}", self.roots.len()))?;
        self.tls = acceptor(&root, &self.options.names)?;
        self.roots.push(root);
        self.publish()
    }

    /// Only the newest root is trusted from now on.
    pub(crate) fn forget_old_roots(&mut self) -> Result<()> {
        let old = self.roots.len().saturating_sub(1);
        self.roots.drain(..old);
        self.publish()
    }

    /// The answer to a call: the chain, PEM.
    pub(crate) fn answer(&mut self, request: &CertificateRequest) -> Result<Vec<String>, Status> {
        let (identity, ttl, public_key) = self.check(request)?;
        let mut leaf = Leaf { identity, public_key, ttl: self.lifetime.unwrap_or(ttl), expired: false };
        let internal = |error: anyhow::Error| Status::internal(format!("{error:#}"));
        let answer = self.answers.pop_front().unwrap_or_else(|| self.otherwise.clone());
        match answer {
            Answer::Sign => self.signed(leaf).map_err(internal),
            Answer::Refuse(code, message) => Err(Status::new(code, message)),
            Answer::Empty => Ok(Vec::new()),
            Answer::Garbage => {
                Ok(vec!["-----BEGIN CERTIFICATE-----\nnonsense".to_owned(), "nonsense".to_owned()])
            }
            Answer::LeafAlone => {
                self.signed(leaf).map(|mut chain| chain.drain(..1).collect()).map_err(internal)
            }
            Answer::WrongIdentity(other) => {
                leaf.identity = other;
                self.signed(leaf).map_err(internal)
            }
            Answer::WrongKey => {
                let other = KeyPair::generate().map_err(|error| internal(error.into()))?;
                leaf.public_key = issue::public_key(&other).map_err(internal)?;
                self.signed(leaf).map_err(internal)
            }
            Answer::Expired => {
                leaf.expired = true;
                self.signed(leaf).map_err(internal)
            }
            Answer::StrangeRoot => {
                let stranger = Issuing::root("Stranger").map_err(internal)?;
                Ok(vec![stranger.leaf(leaf).map_err(internal)?, self.bundle()])
            }
        }
    }

    /// What is asked for, if istiod would sign it.
    fn check(&self, request: &CertificateRequest) -> Result<(String, Duration, rcgen::PublicKey), Status> {
        let csr = CertificateSigningRequestParams::from_pem(&request.csr).map_err(|_| {
            let words = "CSR signing error (certificate signing request is not properly encoded)";
            Status::invalid_argument(words)
        })?;
        if csr.public_key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err(Status::invalid_argument("the key is not of P-256"));
        }
        let ttl = match u64::try_from(request.validity_duration) {
            Ok(0) => USUAL,
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => return Err(Status::invalid_argument("the validity is negative")),
        };
        if ttl > LONGEST {
            let hours = ttl.as_secs() / 3600;
            let words = format!(
                "CSR signing error (requested TTL {hours}h0m0s is greater than the max allowed TTL 2160h0m0s)"
            );
            return Err(Status::invalid_argument(words));
        }
        let own = "spiffe://cluster.local/ns/istio-system/sa/ztunnel";
        let identity = request.impersonated().unwrap_or(own);
        if self.denied.contains(identity) {
            return Err(Status::unauthenticated("request impersonation authentication failure"));
        }
        Ok((identity.to_owned(), ttl, csr.public_key))
    }

    fn signed(&self, leaf: Leaf) -> Result<Vec<String>> {
        let root = self.roots.last().context("there is no root")?;
        match self.chain {
            Chain::SelfSigned => Ok(vec![root.leaf(leaf)?, self.bundle()]),
            Chain::PluggedIn => {
                let intermediate = root.intermediate()?;
                Ok(vec![intermediate.leaf(leaf)?, intermediate.pem(), root.pem(), self.bundle()])
            }
        }
    }

    /// Puts the roots where clients read them, whole.
    fn publish(&self) -> Result<()> {
        let path = self.options.dir.join(ROOTS);
        replace(&path, &self.bundle()).with_context(|| format!("write {}", path.display()))
    }
}

fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(new, path)
}

fn acceptor(root: &Issuing, names: &[String]) -> Result<TlsAcceptor> {
    let (certificate, key) = root.server(names)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
