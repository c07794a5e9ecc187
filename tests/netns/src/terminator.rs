//! A waypoint or a gateway of the tests' own making: takes tunnels in a pod that no agent captures, notes what it was
//! asked for, and connects every stream to one place.
//!
//! It stands in for the proxies that take tunnels in a cluster, which cannot be run here. It ends with its handle.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use harness::Pod;
use harness::mesh_file::HBONE_PORT;
use http::{Request, Response};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::peer::{Signer, in_an_hour, issue};

/// What it was asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The authority of the request.
    pub authority: String,
    /// Its headers.
    pub headers: BTreeMap<String, String>,
    /// The client's certificate, DER.
    pub client: Vec<u8>,
}

impl Asked {
    /// Does the client's certificate have this name?
    pub fn is_from(&self, identity: &str) -> bool {
        self.client.windows(identity.len().max(1)).any(|bytes| bytes == identity.as_bytes())
    }
}

/// A running one.
pub struct Terminator {
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Option<oneshot::Sender<()>>,
    worker: Option<JoinHandle<Result<()>>>,
}

impl Terminator {
    /// Takes tunnels in a pod as `identity`, with a certificate of the mesh's authority, whose directory is `ca`.
    pub fn start(pod: &Pod, ca: &Path, identity: &str, onward: SocketAddr) -> Result<Self> {
        Self::start_in(pod.netns(), ca, identity, Onward::To(onward))
    }

    /// Takes tunnels in a namespace, and connects no stream: each DATA frame of it is answered with one line of JSON, which says
    /// this name, the authority that was asked for, and the header `forwarded`.
    pub fn answering(netns: &Path, ca: &Path, identity: &str, name: &str) -> Result<Self> {
        Self::start_in(netns, ca, identity, Onward::Answers(name.into()))
    }

    fn start_in(netns: &Path, ca: &Path, identity: &str, onward: Onward) -> Result<Self> {
        let (certificate, key, _) = issue(&Signer::Mesh(ca), identity, in_an_hour())?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca.join("root-cert.pem"))?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let serving = Serving { tls: TlsAcceptor::from(Arc::new(config)), onward, asked: Arc::default() };
        let asked = Arc::clone(&serving.asked);
        let (stop, stopped) = oneshot::channel();
        let (listening, listens) = std::sync::mpsc::channel();
        let netns = netns.to_owned();
        // A thread of its own in the pod's namespace: whatever it opens is there.
        let worker = std::thread::Builder::new().name("terminator".to_owned()).spawn(move || {
            harness::inside::in_netns(&netns, || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    let bound = TcpListener::bind((Ipv6Addr::UNSPECIFIED, HBONE_PORT)).await?;
                    listening.send(())?;
                    tokio::select! {
                        _ = stopped => Ok(()),
                        ended = serving.accept(bound) => ended,
                    }
                })
            })?
        })?;
        if listens.recv().is_err() {
            let ended = worker.join().map_err(|_| anyhow!("the terminator panicked"))?;
            return Err(ended.err().unwrap_or_else(|| anyhow!("the terminator ended")));
        }
        Ok(Self { asked, stop: Some(stop), worker: Some(worker) })
    }

    /// What it was asked for so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it was asked for last.
    pub fn last(&self) -> Result<Asked> {
        self.asked().pop().context("nobody has asked for anything")
    }
}

impl Drop for Terminator {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(worker) = self.worker.take() {
            // How it ended was told when it began, or nobody's business any more.
            let _ = worker.join();
        }
    }
}

/// What becomes of a stream.
#[derive(Clone)]
enum Onward {
    /// It is connected.
    To(SocketAddr),
    /// It is answered, under this name.
    Answers(Arc<str>),
}

#[derive(Clone)]
struct Serving {
    tls: TlsAcceptor,
    onward: Onward,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Serving {
    async fn accept(self, listener: TcpListener) -> Result<()> {
        loop {
            let (stream, _) = listener.accept().await?;
            let serving = self.clone();
            // How a tunnel ends is seen at its ends.
            tokio::spawn(async move { serving.tunnel(stream).await.ok() });
        }
    }

    async fn tunnel(&self, stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let tls = self.tls.accept(stream).await?;
        let leaf = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let client = leaf.map(|leaf| leaf.to_vec()).unwrap_or_default();
        let mut connection = h2::server::handshake(tls).await?;
        while let Some(accepted) = connection.accept().await {
            let (request, respond) = accepted?;
            self.note(&request, &client);
            match self.onward.clone() {
                Onward::To(onward) => {
                    tokio::spawn(async move { carry(request, respond, onward).await.ok() });
                }
                Onward::Answers(name) => {
                    tokio::spawn(async move { answer(request, respond, &name).await.ok() });
                }
            }
        }
        Ok(())
    }

    fn note<T>(&self, request: &Request<T>, client: &[u8]) {
        let headers = request.headers().iter();
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(Asked {
            authority: request.uri().authority().map(ToString::to_string).unwrap_or_default(),
            headers: headers.map(|(name, value)| (name.to_string(), text(value))).collect(),
            client: client.to_vec(),
        });
    }
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, name: &str) -> Result<()> {
    let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let forwarded = request.headers().get("forwarded").and_then(|value| value.to_str().ok());
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let (name, authority, forwarded) = (quote(name), quote(&authority), quote(forwarded.unwrap_or_default()));
    let line = format!("{{\"pod\": {name}, \"authority\": {authority}, \"forwarded\": {forwarded}}}\n");
    let mut send = respond.send_response(Response::new(()), false)?;
    let mut body = request.into_body();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
        // A few lines at most: they fit into any window.
        send.send_data(Bytes::from(line.clone()), false)?;
    }
    Ok(send.send_data(Bytes::new(), true)?)
}

async fn carry(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    onward: SocketAddr,
) -> Result<()> {
    let Ok(stream) = TcpStream::connect(onward).await else {
        respond.send_response(Response::builder().status(503).body(())?, true)?;
        return Ok(());
    };
    stream.set_nodelay(true)?;
    let send = respond.send_response(Response::new(()), false)?;
    let (read, write) = stream.into_split();
    tokio::try_join!(downwards(read, send), upwards(request.into_body(), write))?;
    Ok(())
}

async fn downwards(mut from: OwnedReadHalf, mut to: h2::SendStream<Bytes>) -> Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = from.read(&mut buffer).await?;
        let mut data = Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default());
        if data.is_empty() {
            return Ok(to.send_data(data, true)?);
        }
        while !data.is_empty() {
            to.reserve_capacity(data.len());
            let room = poll_fn(|cx| to.poll_capacity(cx)).await.context("the stream is gone")??;
            to.send_data(data.split_to(room.min(data.len())), false)?;
        }
    }
}

async fn upwards(mut from: RecvStream, mut to: OwnedWriteHalf) -> Result<()> {
    while let Some(data) = from.data().await {
        let data = data?;
        to.write_all(&data).await?;
        from.flow_control().release_capacity(data.len())?;
    }
    Ok(to.shutdown().await?)
}
