//! A collector of spans on a host of the wire: takes OTLP over gRPC, and keeps what it is sent.
//!
//! It can keep silent, as one that hangs, and be away. It ends with its handle, and all its connections with it.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use harness::inside::in_netns;
use harness::wire::Station;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::runtime::Runtime;
use tonic::{Request, Response, Status};

use crate::{LIMIT, lock};

/// Where it listens.
const PORT: u16 = 4317;

/// A span, and what was said with it.
#[derive(Clone, Debug)]
pub struct Collected {
    /// The span.
    pub span: Span,
    /// What was said of who sent it.
    pub resource: Vec<KeyValue>,
    /// The header `authorization` of the request.
    pub authorization: Option<String>,
}

/// A collector.
pub struct Collector {
    kept: Arc<Kept>,
    address: SocketAddr,
    netns: PathBuf,
    serving: Option<Runtime>,
}

#[derive(Debug, Default)]
struct Kept {
    spans: Mutex<Vec<Collected>>,
    is_silent: AtomicBool,
    /// Requests that were left without an answer.
    unanswered: AtomicUsize,
}

impl Collected {
    /// An attribute of the span, as text.
    pub fn says(&self, name: &str) -> Option<String> {
        said(&self.span.attributes, name)
    }

    /// An attribute of who sent it.
    pub fn sender(&self, name: &str) -> Option<String> {
        said(&self.resource, name)
    }
}

impl Collector {
    /// Listens on a host of the wire.
    pub fn start(host: &Station) -> Result<Self> {
        let address = SocketAddr::new(host.addresses().0.into(), PORT);
        let mut collector = Self { kept: Arc::default(), address, netns: host.netns.clone(), serving: None };
        collector.resume()?;
        Ok(collector)
    }

    /// The word by which an agent finds it.
    pub fn argument(&self) -> String {
        format!("--otlp-endpoint=http://{}", self.address)
    }

    /// Takes requests from now on, and answers none.
    pub fn fall_silent(&self) {
        self.kept.is_silent.store(true, Ordering::Relaxed);
    }

    /// How many requests it has left without an answer.
    pub fn unanswered(&self) -> usize {
        self.kept.unanswered.load(Ordering::Relaxed)
    }

    /// Goes away, with all its connections.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.serving.take() {
            // Its port is free then.
            runtime.shutdown_timeout(LIMIT);
        }
    }

    /// Is there again, and answers.
    pub fn resume(&mut self) -> Result<()> {
        self.kept.is_silent.store(false, Ordering::Relaxed);
        let listener = in_netns(&self.netns, || TcpListener::bind(self.address))?;
        let listener = listener.with_context(|| self.address.to_string())?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        runtime.spawn(serve(listener, Arc::clone(&self.kept)));
        self.serving = Some(runtime);
        Ok(())
    }

    /// The spans that it has got.
    pub fn spans(&self) -> Vec<Collected> {
        lock(&self.kept.spans).clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn serve(listener: tokio::net::TcpListener, kept: Arc<Kept>) {
    while let Ok((stream, _)) = listener.accept().await {
        let service = TowerToHyperService::new(TraceServiceServer::new(Service(Arc::clone(&kept))));
        // How a connection ends is its client's to see.
        tokio::spawn(
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service),
        );
    }
}

struct Service(Arc<Kept>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if self.0.is_silent.load(Ordering::Relaxed) {
            self.0.unanswered.fetch_add(1, Ordering::Relaxed);
            match std::future::pending::<Infallible>().await {}
        }
        let authorization = request.metadata().get("authorization");
        let authorization = authorization.and_then(|value| value.to_str().ok()).map(str::to_owned);
        for of_resource in request.into_inner().resource_spans {
            let resource = of_resource.resource.unwrap_or_default().attributes;
            for span in of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans) {
                let (resource, authorization) = (resource.clone(), authorization.clone());
                lock(&self.0.spans).push(Collected { span, resource, authorization });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn said(attributes: &[KeyValue], name: &str) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.key == name)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}
