//! The agent of any node of a cluster, asked through the API server: its pod is looked for, and its admin port forwarded, as kubectl does
//! it. What it takes is the right to list pods and to forward their ports in the agents' namespace; the agent itself has neither.
//!
//! Every wait is bounded. What is in the way is told in the words of whoever said so.

mod candidate;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::body::Body;
use axum::http::{Request as HttpRequest, StatusCode, header};
use futures_util::{FutureExt as _, StreamExt as _};
use hyper_util::rt::TokioIo;
use kube::api::ListParams;
use kube::client::UpgradeConnectionError;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Error};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use self::candidate::Candidate;
use super::ask::NoAgent;
use crate::admin_socket::protocol::{Answer, MAX_MESSAGE, Request};
use crate::cli::FarArgs;

/// By which the chart's pods are found.
const AGENTS: &str = "app=ztunnel";
/// How long a connection to the API server may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the API server may take for an answer of its own.
const API: Duration = Duration::from_secs(20);
/// How long the agent may take for one part of its answer, as on its own node.
const PART: Duration = Duration::from_secs(15);
/// How long a word on a broken stream may come after its end.
const WORD: Duration = Duration::from_secs(1);
/// Longest text of a refusal that is shown, in bytes.
const LONGEST_REFUSAL: usize = 1024;

/// An agent that is asked through the API server.
pub(super) struct Far {
    runtime: Runtime,
    pods: Api<Candidate>,
    node: String,
    pod: String,
    port: u16,
    is_ready: bool,
}

impl Far {
    /// Looks for the agent of a node.
    ///
    /// # Errors
    /// [`NoAgent`] if it has none that runs; what the kubeconfig or the API server has against it.
    pub(super) fn find(args: &FarArgs, node: &str) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let pods: Api<Candidate> = runtime.block_on(async {
            let client = connect(args).await?;
            anyhow::Ok(Api::namespaced(client, &args.namespace))
        })?;
        let of_node = ListParams::default().labels(AGENTS).fields(&format!("spec.nodeName={node}"));
        let what = format!("listing the pods {AGENTS} of node {node} in namespace {}", args.namespace);
        let found = runtime
            .block_on(async { timeout(API, pods.list(&of_node)).await })
            .with_context(|| what.clone())?;
        let found = found.map_err(|error| explain(error, "list pods", &args.namespace)).context(what)?;
        let Some(agent) = Candidate::best(found.items) else {
            let why = format!(
                "namespace {} has no pod {AGENTS} on a node {node}; see `kubectl get nodes`, and --namespace",
                args.namespace
            );
            return Err(NoAgent::Far { node: node.to_owned(), why }.into());
        };
        let (pod, phase) = (agent.name(), agent.phase().to_owned());
        if phase != "Running" {
            let why = format!("its pod {pod} is {phase}, and not running");
            return Err(NoAgent::Far { node: node.to_owned(), why }.into());
        }
        let is_ready = agent.is_ready();
        Ok(Self { runtime, pods, node: node.to_owned(), pod, port: args.proxy_admin_port, is_ready })
    }

    /// Its answers up to the last.
    ///
    /// # Errors
    /// [`NoAgent`] if it cannot be reached or falls silent.
    pub(super) fn ask(&self, request: &Request, each: &mut dyn FnMut(Answer)) -> anyhow::Result<()> {
        self.runtime.block_on(self.exchange(request, each))
    }

    async fn exchange(&self, request: &Request, each: &mut dyn FnMut(Answer)) -> anyhow::Result<()> {
        let namespace = self.pods.namespace().unwrap_or_default().to_owned();
        let what = format!("forwarding port {} of pod {namespace}/{}", self.port, self.pod);
        let forwarded = timeout(API, self.pods.portforward(&self.pod, &[self.port])).await;
        let forwarded = forwarded.with_context(|| what.clone())?;
        let mut forwarded =
            forwarded.map_err(|error| explain(error, "create pods/portforward", &namespace)).context(what)?;
        let stream = forwarded.take_stream(self.port).context("a forwarded port without a stream")?;
        let refused = forwarded.take_error(self.port).context("a forwarded port without a word on errors")?;
        let mut refused = std::pin::pin!(refused.fuse());
        let answered = tokio::select! {
            biased;
            answered = self.converse(stream, request, each) => answered,
            Some(why) = &mut refused => return Err(self.silent(why)),
        };
        match answered {
            // Who forwards says why a moment after the stream has ended, if it was not the agent that ended it.
            Err(error) if error.is::<NoAgent>() => match timeout(WORD, refused).await {
                Ok(Some(why)) => Err(self.silent(why)),
                _ => Err(error),
            },
            other => other,
        }
    }

    async fn converse(
        &self,
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        request: &Request,
        each: &mut dyn FnMut(Answer),
    ) -> anyhow::Result<()> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driven = tokio::spawn(connection);
        let question = HttpRequest::post("/ask")
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(request.encode()?))?;
        let answer = match timeout(PART, sender.send_request(question)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.silent(error.to_string())),
            Err(_) => return Err(self.silent(format!("nothing within {} s", PART.as_secs()))),
        };
        let status = answer.status();
        let mut lines = Lines::new(Body::new(answer.into_body()).into_data_stream());
        if status != StatusCode::OK {
            let said = lines.text().await;
            if status == StatusCode::NOT_FOUND {
                bail!("the agent of node {} is of a release that cannot be asked from afar", self.node);
            }
            return Err(self.silent(format!("it says {status}: {}", said.trim())));
        }
        loop {
            let line = match timeout(PART, lines.next()).await {
                Ok(line) => line?,
                Err(_) => return Err(self.silent(format!("nothing more within {} s", PART.as_secs()))),
            };
            let Some(line) = line else {
                bail!(
                    "the agent of node {} ended its answer in the middle; its log may tell more",
                    self.node
                );
            };
            match Answer::decode(&line)? {
                Answer::End => break,
                answer => each(answer),
            }
        }
        driven.abort();
        Ok(())
    }

    fn silent(&self, why: String) -> anyhow::Error {
        let why = super::output::harmless(&why);
        let ready = if self.is_ready { "" } else { " (the pod is not ready)" };
        NoAgent::Far { node: self.node.clone(), why: format!("pod {}{ready}: {why}", self.pod) }.into()
    }
}

/// The lines of an answer's body.
struct Lines<S> {
    body: S,
    rest: Vec<u8>,
}

impl<S> Lines<S>
where
    S: futures_util::Stream<Item = Result<axum::body::Bytes, axum::Error>> + Unpin,
{
    fn new(body: S) -> Self {
        Self { body, rest: Vec::new() }
    }

    /// The next one; none at the end.
    async fn next(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let after = self.rest.split_off(end + 1);
                let line = std::mem::replace(&mut self.rest, after);
                return Ok(Some(line));
            }
            if self.rest.len() > MAX_MESSAGE {
                bail!("a part of the answer is longer than {MAX_MESSAGE} bytes");
            }
            match self.body.next().await {
                Some(piece) => self.rest.extend_from_slice(&piece?),
                None => return Ok(None),
            }
        }
    }

    /// The beginning of all that there is.
    async fn text(&mut self) -> String {
        let all = async {
            while self.rest.len() < LONGEST_REFUSAL
                && let Some(Ok(piece)) = self.body.next().await
            {
                self.rest.extend_from_slice(&piece);
            }
        };
        // What has come by then will do.
        let _ = timeout(PART, all).await;
        self.rest.truncate(LONGEST_REFUSAL);
        super::output::harmless(String::from_utf8_lossy(&self.rest).trim_end())
    }
}

async fn connect(args: &FarArgs) -> anyhow::Result<Client> {
    let (kubeconfig, named) = match &args.kubeconfig {
        Some(path) => (Kubeconfig::read_from(path), format!("the kubeconfig {}", path.display())),
        None => (Kubeconfig::read(), "the kubeconfig of KUBECONFIG or ~/.kube/config".to_owned()),
    };
    let kubeconfig = kubeconfig.with_context(|| named.clone())?;
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.context(named)?;
    config.connect_timeout = Some(CONNECT);
    config.default_retry = false;
    Client::try_from(config).context("a client of the Kubernetes API")
}

/// What the API server has against it, with what to do where that is clear.
fn explain(error: Error, right: &str, namespace: &str) -> anyhow::Error {
    let is_forbidden = match &error {
        Error::Api(status) => status.code == 403,
        Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status)) => status.as_u16() == 403,
        _ => false,
    };
    let error = anyhow::Error::new(error);
    if is_forbidden {
        return error.context(format!(
            "not allowed: this user may not {right} in namespace {namespace}; see `kubectl auth can-i`"
        ));
    }
    error
}
