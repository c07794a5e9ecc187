//! A client that says what a test wants said, with the server's own messages.

use std::marker::PhantomData;
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_plane::wire::ca::{CertificateRequest, CertificateResponse};
use control_plane::wire::discovery::{Node, Request, Resource, Response};
use control_plane::{ControlPlane, Options};
use http::uri::PathAndQuery;
use prost::Message;
use prost_types::Value;
use prost_types::value::Kind;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic::{Status, Streaming};

const LIMIT: Duration = Duration::from_secs(60);

/// A client with a stream.
pub(crate) struct Raw {
    grpc: Grpc<Channel>,
    requests: mpsc::Sender<Request>,
    responses: Streaming<Response>,
}

/// A control plane in a directory of its own.
pub(crate) async fn plane() -> Result<(ControlPlane, tempfile::TempDir)> {
    let dir = tempfile::tempdir()?;
    Ok((ControlPlane::start(Options::new(dir.path())).await?, dir))
}

impl Raw {
    pub(crate) async fn open(plane: &ControlPlane) -> Result<Self> {
        let roots = Certificate::from_pem(plane.bundle());
        let endpoint = Channel::from_shared(format!("https://{}", plane.address()))?
            .tls_config(ClientTlsConfig::new().ca_certificate(roots))?;
        let mut grpc = Grpc::new(timeout(LIMIT, endpoint.connect()).await??);
        grpc.ready().await?;
        let (requests, queue) = mpsc::channel(16);
        let queue = futures_util::stream::unfold(queue, async |mut queue: mpsc::Receiver<Request>| {
            queue.recv().await.map(|request| (request, queue))
        });
        let mut call = tonic::Request::new(queue);
        call.metadata_mut().insert("authorization", MetadataValue::from_static("Bearer token"));
        let path = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
        let path = PathAndQuery::from_static(path);
        let responses = grpc.streaming(call, path, Plain::<Request, Response>(PhantomData));
        let responses = timeout(LIMIT, responses).await??.into_inner();
        Ok(Self { grpc, requests, responses })
    }

    pub(crate) async fn send(&self, request: Request) -> Result<()> {
        self.requests.send(request).await.context("the stream is over")
    }

    pub(crate) async fn subscribe(&self, type_url: &str) -> Result<()> {
        self.send(first(type_url)).await
    }

    pub(crate) async fn ask(&self, key: &str) -> Result<()> {
        let type_url = control_plane::wire::discovery::ADDRESS.to_owned();
        self.send(Request { type_url, subscribe: vec![key.to_owned()], ..Request::default() }).await
    }

    pub(crate) async fn accept(&self, response: &Response) -> Result<()> {
        let (type_url, response_nonce) = (response.type_url.clone(), response.nonce.clone());
        self.send(Request { type_url, response_nonce, ..Request::default() }).await
    }

    pub(crate) async fn next(&mut self) -> Result<Response> {
        timeout(LIMIT, self.responses.message()).await.context("no response")??.context("the stream is over")
    }

    /// How the stream ends, if it does without another response.
    pub(crate) async fn refused(&mut self) -> Result<Status> {
        match timeout(LIMIT, self.responses.message()).await.context("no end")? {
            Err(status) => Ok(status),
            Ok(other) => anyhow::bail!("no refusal but {other:?}"),
        }
    }

    pub(crate) async fn certificate(
        &mut self,
        identity: &str,
        seconds: i64,
    ) -> Result<CertificateResponse, Status> {
        let key = rcgen::KeyPair::generate().map_err(|error| Status::internal(error.to_string()))?;
        let csr = rcgen::CertificateParams::default().serialize_request(&key);
        let csr = csr.and_then(|csr| csr.pem()).map_err(|error| Status::internal(error.to_string()))?;
        let identity = Value { kind: Some(Kind::StringValue(identity.to_owned())) };
        let fields = [("ImpersonatedIdentity".to_owned(), identity)].into();
        let metadata = Some(prost_types::Struct { fields });
        let mut call = tonic::Request::new(CertificateRequest { csr, validity_duration: seconds, metadata });
        call.metadata_mut().insert("authorization", MetadataValue::from_static("Bearer token"));
        let path = PathAndQuery::from_static("/istio.v1.auth.IstioCertificateService/CreateCertificate");
        self.grpc.ready().await.map_err(|error| Status::internal(error.to_string()))?;
        let codec = Plain::<CertificateRequest, CertificateResponse>(PhantomData);
        self.grpc.unary(call, path, codec).await.map(tonic::Response::into_inner)
    }
}

/// A first request, with a node.
pub(crate) fn first(type_url: &str) -> Request {
    Request { node: Some(node()), type_url: type_url.to_owned(), ..Request::default() }
}

/// A node that is accepted.
pub(crate) fn node() -> Node {
    let id = "ztunnel~10.0.0.100~ztunnel-a.istio-system~istio-system.svc.cluster.local".to_owned();
    let mut node = Node { id, metadata: Some(prost_types::Struct::default()), ..Node::default() };
    set(&mut node, "NAMESPACE", "istio-system");
    set(&mut node, "NODE_NAME", "node-a");
    node
}

/// Sets a text in a node's metadata.
pub(crate) fn set(node: &mut Node, key: &str, value: &str) {
    let value = Value { kind: Some(Kind::StringValue(value.to_owned())) };
    node.metadata.get_or_insert_default().fields.insert(key.to_owned(), value);
}

pub(crate) fn identity(account: &str) -> String {
    format!("spiffe://cluster.local/ns/demo/sa/{account}")
}

pub(crate) fn names(response: &Response) -> Result<Vec<String>> {
    Ok(resources(response)?.into_iter().map(|resource| resource.name).collect())
}

pub(crate) fn aliases(response: &Response) -> Result<Vec<String>> {
    Ok(resources(response)?.into_iter().flat_map(|resource| resource.aliases).collect())
}

pub(crate) fn versions(response: &Response) -> Result<Vec<(String, String)>> {
    Ok(resources(response)?.into_iter().map(|resource| (resource.name, resource.version)).collect())
}

/// A response that was recorded, with a word that no message of ours would have.
pub(crate) fn response(type_url: &str, nonce: &str) -> Response {
    Response {
        system_version_info: format!("version of {nonce}"),
        resources: vec![b"no resource at all".as_slice().into()],
        type_url: type_url.to_owned(),
        nonce: nonce.to_owned(),
        removed_resources: vec!["gone".to_owned()],
    }
}

/// Its line in a recording.
pub(crate) fn recorded(type_url: &str, nonce: &str) -> String {
    let raw = STANDARD.encode(response(type_url, nonce).encode_to_vec());
    serde_json::json!({ "ms": 1, "received": { "nonce": nonce }, "raw": raw }).to_string()
}

/// The first certificate of a chain, DER.
pub(crate) fn leaf(chain: &[String]) -> Result<Vec<u8>> {
    let pem = chain.first().context("no chain")?;
    Ok(x509_parser::pem::parse_x509_pem(pem.as_bytes())?.1.contents)
}

fn resources(response: &Response) -> Result<Vec<Resource>> {
    response.resources.iter().map(|bytes| Ok(Resource::decode(bytes.clone())?)).collect()
}

struct Plain<E, D>(PhantomData<(E, D)>);
struct Half<T>(PhantomData<T>);

impl<E, D> Codec for Plain<E, D>
where
    E: Message + 'static,
    D: Message + Default + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = Half<E>;
    type Decoder = Half<D>;

    fn encoder(&mut self) -> Half<E> {
        Half(PhantomData)
    }

    fn decoder(&mut self) -> Half<D> {
        Half(PhantomData)
    }
}

impl<T: Message> Encoder for Half<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(out).map_err(|error| Status::internal(error.to_string()))
    }
}

impl<T: Message + Default> Decoder for Half<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        T::decode(buffer).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
