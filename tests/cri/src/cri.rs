//! The client side of the container runtime interface, as a kubelet speaks it; blocking, each call with a limit.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

pub mod proto {
    //! Generated from `proto/cri.proto`.
    #![allow(missing_docs, clippy::all, reason = "generated")]
    tonic::include_proto!("runtime.v1");
}

use proto::runtime_service_client::RuntimeServiceClient;
use proto::{
    CreateContainerRequest, Nothing, PodSandbox, PodSandboxConfig, PodSandboxStatusRequest,
    PodSandboxStatusResponse, RunPodSandboxRequest, SandboxRequest, StatusRequest, StatusResponse,
    StopContainerRequest,
};

/// What a kubelet waits for a call, two minutes by default.
const LIMIT: Duration = Duration::from_secs(120);

/// A connection to a runtime, made when it is first needed and again when it broke.
#[derive(Debug)]
pub struct Cri {
    socket: PathBuf,
    runtime: Runtime,
    channel: Channel,
}

impl Cri {
    /// Speaks to the runtime that listens, or will listen, at a socket.
    pub fn new(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?.timeout(LIMIT);
        let channel = {
            let _inside = runtime.enter();
            endpoint.connect_lazy()
        };
        Ok(Self { socket: socket.to_owned(), runtime, channel })
    }

    fn call<T, F: Future<Output = Result<tonic::Response<T>, Status>>>(
        &self,
        what: &str,
        call: impl FnOnce(RuntimeServiceClient<Channel>) -> F,
    ) -> Result<T> {
        let client = RuntimeServiceClient::new(self.channel.clone());
        let answer = self.runtime.block_on(async { tokio::time::timeout(LIMIT, call(client)).await });
        let answer = answer.map_err(|_| anyhow!("{what}: no answer within {LIMIT:?}"))?;
        // As a kubelet's event shows it.
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| anyhow!("{what}: rpc error: {}", status.message()))
    }

    /// Is the runtime there, is its network ready, and how is that configured?
    pub fn status(&self) -> Result<StatusResponse> {
        self.call("Status", |mut client| async move { client.status(StatusRequest { verbose: true }).await })
            .with_context(|| self.socket.display().to_string())
    }

    /// Makes a pod's sandbox, with its network; returns its id.
    pub fn run_sandbox(&self, config: &PodSandboxConfig) -> Result<String> {
        let request = Request::new(RunPodSandboxRequest { config: Some(config.clone()) });
        let made = self.call("failed to create pod sandbox", |mut client| async move {
            client.run_pod_sandbox(request).await
        });
        Ok(made?.pod_sandbox_id)
    }

    /// Stops a sandbox and takes its network down. Doing it again is fine, and a kubelet does.
    pub fn stop_sandbox(&self, id: &str) -> Result<()> {
        let request = SandboxRequest { pod_sandbox_id: id.to_owned() };
        self.call("StopPodSandbox", |mut client| async move { client.stop_pod_sandbox(request).await })
            .map(drop)
    }

    /// Removes a sandbox that was stopped.
    pub fn remove_sandbox(&self, id: &str) -> Result<()> {
        let request = SandboxRequest { pod_sandbox_id: id.to_owned() };
        self.call("RemovePodSandbox", |mut client| async move { client.remove_pod_sandbox(request).await })
            .map(drop)
    }

    /// All sandboxes, whatever their state.
    pub fn sandboxes(&self) -> Result<Vec<PodSandbox>> {
        self.call("ListPodSandbox", |mut client| async move { client.list_pod_sandbox(Nothing {}).await })
            .map(|all| all.items)
    }

    /// All that is known of a sandbox.
    pub fn sandbox(&self, id: &str) -> Result<PodSandboxStatusResponse> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        self.call("PodSandboxStatus", |mut client| async move { client.pod_sandbox_status(request).await })
    }

    /// Makes and starts a container in a sandbox; returns its id.
    pub fn start_container(&self, request: CreateContainerRequest) -> Result<String> {
        let made =
            self.call("CreateContainer", |mut client| async move { client.create_container(request).await })?;
        let request = made.clone();
        self.call("StartContainer", |mut client| async move { client.start_container(request).await })?;
        Ok(made.container_id)
    }

    /// Asks a container to end, and ends it when it has not after so many seconds.
    pub fn stop_container(&self, id: &str, seconds: u32) -> Result<()> {
        let request = StopContainerRequest { container_id: id.to_owned(), timeout: seconds.into() };
        self.call("StopContainer", |mut client| async move { client.stop_container(request).await }).map(drop)
    }
}
