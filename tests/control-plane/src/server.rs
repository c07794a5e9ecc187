//! The listener, its connections, and the two methods that are served on them.
//!
//! Invariant: a connection belongs to a task of the listener's: when the listener is dropped, all sockets are closed,
//! as those of a process that is killed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures_util::Stream;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService, UnaryService};
use tonic::{Request, Response, Status, Streaming};

use crate::calls;
use crate::codec::Sent;
use crate::lent::Lent;
use crate::records::{self, Headers};
use crate::script::{Door, Ending};
use crate::shared::{Shared, lock};
use crate::stream;
use crate::wire::ca::CertificateRequest;
use crate::wire::discovery;

const DISCOVERY: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const CERTIFICATES: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// How many responses may wait for a client to read.
const RESPONSES: usize = 16;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection that was told to go may take for what is under way.
const GRACE: Duration = Duration::from_millis(100);
/// Windows of streams and connections: a large answer is one message.
const WINDOW: u32 = 8 << 20;

/// Accepts connections until it is dropped.
pub(crate) async fn run(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    shared.note(|records| records.connections += 1);
                    let ending = shared.endings.subscribe();
                    // How a connection fails is seen by the client.
                    connections.spawn(connection(socket, shared.clone(), ending));
                }
                // Out of descriptors, most likely: those of other connections come back.
                Err(_) => tokio::time::sleep(GRACE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(
    socket: TcpStream,
    shared: Arc<Shared>,
    mut ending: broadcast::Receiver<Ending>,
) -> Result<()> {
    let door = lock(&shared.script).door;
    match door {
        Door::Open => {}
        Door::Slammed => return Ok(()),
        Door::Silent => {
            let _ = ending.recv().await;
            return Ok(());
        }
    }
    socket.set_nodelay(true)?;
    if shared.options.plaintext {
        return speak(socket, shared, ending).await;
    }
    let tls = lock(&shared.authority).tls();
    let tls = timeout(HANDSHAKE, tls.accept(socket)).await.context("no handshake in time")??;
    speak(tls, shared, ending).await
}

async fn speak<S>(io: S, shared: Arc<Shared>, mut ending: broadcast::Receiver<Ending>) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer(shared.clone(), request));
    let mut protocol = http2::Builder::new(TokioExecutor::new());
    protocol
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    let (io, returned) = Lent::new(io);
    let mut serving = Box::pin(protocol.serve_connection(TokioIo::new(io), service));
    tokio::select! {
        served = &mut serving => served.context("serve a connection"),
        ending = ending.recv() => {
            if ending == Ok(Ending::Graceful) {
                serving.as_mut().graceful_shutdown();
                // Streams that are still open then are cut, as istiod cuts them: the connection's end is said by TLS.
                let _ = timeout(GRACE, serving).await;
                if let Ok(mut io) = returned.await {
                    let _ = timeout(GRACE, io.shutdown()).await;
                }
            }
            Ok(())
        }
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: http::Request<Incoming>,
) -> Result<http::Response<Body>, Infallible> {
    let headers = records::headers(request.headers());
    let largest = shared.options.largest_request;
    Ok(match request.uri().path() {
        DISCOVERY => {
            let mut grpc = Grpc::new(Sent::default()).max_decoding_message_size(largest);
            grpc.streaming(Discovery { shared, headers }, request).await
        }
        CERTIFICATES => {
            let mut grpc = Grpc::new(Sent::default()).max_decoding_message_size(largest);
            grpc.unary(Certificates { shared, headers }, request).await
        }
        other => Status::unimplemented(format!("there is no {other}")).into_http(),
    })
}

struct Discovery {
    shared: Arc<Shared>,
    headers: Headers,
}

type Responses = std::pin::Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
type Answered<T> = std::pin::Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

impl StreamingService<discovery::Request> for Discovery {
    type Response = Bytes;
    type ResponseStream = Responses;
    type Future = Answered<Responses>;

    fn call(&mut self, request: Request<Streaming<discovery::Request>>) -> Self::Future {
        let admitted = match stream::admit(&self.shared, std::mem::take(&mut self.headers)) {
            Ok(admitted) => admitted,
            Err(status) => return Box::pin(async move { Err(status) }),
        };
        let (sender, receiver) = mpsc::channel(RESPONSES);
        tokio::spawn(admitted.serve(request.into_inner(), sender));
        let responses = futures_util::stream::unfold(receiver, async |mut receiver: mpsc::Receiver<_>| {
            receiver.recv().await.map(|message| (message, receiver))
        });
        Box::pin(async move { Ok(Response::new(Box::pin(responses) as Responses)) })
    }
}

struct Certificates {
    shared: Arc<Shared>,
    headers: Headers,
}

impl UnaryService<CertificateRequest> for Certificates {
    type Response = Bytes;
    type Future = Answered<Bytes>;

    fn call(&mut self, request: Request<CertificateRequest>) -> Self::Future {
        let (shared, headers) = (self.shared.clone(), std::mem::take(&mut self.headers));
        Box::pin(
            async move { calls::create(&shared, headers, request.into_inner()).await.map(Response::new) },
        )
    }
}
