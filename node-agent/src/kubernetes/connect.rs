//! The way to the API: where it is, and who asks.

use std::time::Duration;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::config::Kubernetes;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a request may take to be sent.
const WRITE: Duration = Duration::from_secs(10);

/// A client of the API; nothing is asked yet.
///
/// # Errors
/// When the kubeconfig, or the service account of the agent's pod, is not there or cannot be used.
pub(crate) async fn connect(settings: &Kubernetes) -> anyhow::Result<Client> {
    let mut config = match &settings.kubeconfig {
        Some(path) => {
            let context = || format!("the kubeconfig {}", path.display());
            let read = Kubeconfig::read_from(path).with_context(context)?;
            Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.with_context(context)?
        }
        None => Config::incluster().context(
            "the service account of the agent's pod; outside of a cluster set KUBECONFIG, or KUBERNETES=false",
        )?,
    };
    config.connect_timeout = Some(CONNECT);
    config.write_timeout = Some(WRITE);
    // Whoever asks here tries again by itself, with a limit of its own.
    config.default_retry = false;
    Client::try_from(config).context("a client of the Kubernetes API")
}
