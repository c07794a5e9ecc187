//! The one question that the plugin asks the Kubernetes API itself: what is this pod?
//!
//! Asked only where the agent is not there and what it left behind does not settle it. One GET of the pod's metadata over
//! TLS 1.3, blocking, bounded as a whole by an instant that every step of it is held to: connecting, TLS, the answer. Nothing
//! is tried twice; whoever calls holds the pod back, and the kubelet calls again. Whatever is not a pod of this name in an
//! answer 200 is an error.

pub(crate) mod http;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde::Deserialize;
use thiserror::Error;

use crate::kubeconfig::Kubeconfig;
use crate::protocol::PodName;
use http::Reply;

/// Of the whole question.
pub const LIMIT: Duration = Duration::from_secs(1);
/// Longest answer that is read; the metadata of a pod has a few KiB, its annotations at most 256.
const MAX_ANSWER: usize = 1 << 20;
/// What the kubelet writes onto the object of a pod that it runs from a file: the UID that it runs it with.
const STATIC_POD: &str = "kubernetes.io/config.hash";

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The server was not reached, or did not prove who it is.
    #[error("{operation} the Kubernetes API at {address}: {source}")]
    Unreachable {
        /// `connecting to`, `asking`.
        operation: &'static str,
        /// Its address.
        address: SocketAddr,
        /// Cause.
        source: io::Error,
    },
    /// The kubeconfig has no usable certificate or server name.
    #[error("the kubeconfig's {what}: {why}")]
    Identity {
        /// Which of them.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Another answer than 200.
    #[error("the Kubernetes API at {address} answers {status}{hint}")]
    Status {
        /// Its address.
        address: SocketAddr,
        /// The HTTP status.
        status: u16,
        /// What that means here.
        hint: &'static str,
    },
    /// Not an answer about this pod.
    #[error("the Kubernetes API at {address} answers with something else than the pod: {why}")]
    Garbled {
        /// Its address.
        address: SocketAddr,
        /// What is wrong.
        why: String,
    },
}

/// What is known of a pod that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    uid: String,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// Asks for a pod, for at most `limit` in all.
pub fn pod(server: &Kubeconfig, pod: &PodName, limit: Duration) -> Result<Metadata, ApiError> {
    let address = server.address;
    let end = Instant::now() + limit;
    let unreachable = |operation| move |source| ApiError::Unreachable { operation, address, source };
    let connection = tls(server)?;
    let stream = TcpStream::connect_timeout(&address, limit).map_err(unreachable("connecting to"))?;
    let mut stream = StreamOwned::new(connection, Bounded { stream, end });
    let reply = ask(&mut stream, &request(server, pod)).map_err(unreachable("asking"))?;
    let hint = match reply.status {
        200 => return metadata(&reply.body, pod).map_err(|why| ApiError::Garbled { address, why }),
        401 => ": the token in the kubeconfig is not valid any more",
        403 => ": the token in the kubeconfig may not read pods",
        404 => ": it does not know the pod (yet)",
        _ => "",
    };
    Err(ApiError::Status { address, status: reply.status, hint })
}

fn tls(server: &Kubeconfig) -> Result<ClientConnection, ApiError> {
    let identity = |what| move |why: String| ApiError::Identity { what, why };
    let authority = identity("certificate-authority-data");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&server.authority) {
        let added = certificate.map_err(|error| error.to_string());
        added.and_then(|der| roots.add(der).map_err(|error| error.to_string())).map_err(authority)?;
    }
    if roots.is_empty() {
        return Err(authority("no certificate in it".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| authority(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(server.name.clone())
        .map_err(|error| identity("tls-server-name")(error.to_string()))?;
    ClientConnection::new(Arc::new(config), name).map_err(|error| authority(error.to_string()))
}

/// Metadata alone: a pod's specification may be large, and nothing in it matters here.
fn request(server: &Kubeconfig, pod: &PodName) -> String {
    let Kubeconfig { address, prefix, token, .. } = server;
    let (namespace, name) = (escape(&pod.namespace), escape(&pod.name));
    format!(
        "GET {prefix}/api/v1/namespaces/{namespace}/pods/{name} HTTP/1.1\r\n\
         Host: {address}\r\n\
         Accept: application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json\r\n\
         Authorization: Bearer {token}\r\n\
         User-Agent: culvert-cni\r\n\
         Connection: close\r\n\r\n"
    )
}

/// Names of Kubernetes need none; what a runtime sends is not ours to trust.
fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn ask(stream: &mut (impl Read + Write), request: &str) -> io::Result<Reply> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let (mut bytes, mut part) = (Vec::new(), [0; 8192]);
    loop {
        let length = stream.read(&mut part)?;
        bytes.extend_from_slice(part.get(..length).unwrap_or_default());
        if let Some(reply) = http::parse(&bytes, length == 0)? {
            return Ok(reply);
        }
        if length == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer is cut off"));
        }
        if bytes.len() > MAX_ANSWER {
            let what = format!("an answer of more than {MAX_ANSWER} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
    }
}

pub(crate) fn metadata(body: &[u8], pod: &PodName) -> Result<Metadata, String> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    let Object { metadata } = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if (&metadata.namespace, &metadata.name) != (&pod.namespace, &pod.name) {
        return Err(format!("pod {:?}/{:?}", metadata.namespace, metadata.name));
    }
    let is_other = |uid: &String| *uid != metadata.uid && metadata.annotations.get(STATIC_POD) != Some(uid);
    if pod.uid.as_ref().is_some_and(is_other) {
        return Err(format!("a pod of the same name with the UID {:?}", metadata.uid));
    }
    Ok(metadata)
}

/// A stream of which nothing is waited for beyond an instant.
struct Bounded {
    stream: TcpStream,
    end: Instant,
}

impl Bounded {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(late()) } else { Ok(Some(left)) }
    }
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer).map_err(in_words)
    }
}

impl Write for Bounded {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(buffer).map_err(in_words)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// The kernel calls a time-out "resource temporarily unavailable".
fn in_words(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { late() } else { error }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}
