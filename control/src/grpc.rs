//! How a server of gRPC is reached: its address, whom to trust, who we are.
//!
//! The same for discovery, for the certificate authority, and for a collector of spans. Invariants: what may change on disk (roots of trust, the
//! token) is read anew for every connection and every call; a token is never printed; plaintext is spoken only where the
//! address is written as `http://`. What is wrong with the configuration is said when it is parsed, what is wrong with a
//! file when it is needed: the caller tries again later.

mod address;
mod failure;
pub(crate) mod file;
mod headers;
mod roots;
mod token;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig};

pub use self::address::{Address, AddressError};
pub use self::failure::{explain, status};
pub use self::file::FileError;
pub use self::headers::{HeaderError, Headers};
pub use self::roots::{RootsError, RootsOfTrust};
pub use self::token::{Token, TokenError};

/// How long it may take until a connection stands: name, TCP, TLS and HTTP/2 together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a peer that says nothing is asked whether it lives, and how long it has for an answer.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// TCP keepalive: when it begins, how often it probes, how often in vain.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(300), Duration::from_secs(75), 9);
/// How much may be under way towards us: a whole mesh is one message.
const WINDOW: u32 = 4 << 20;

/// An endpoint of the control plane, or of a collector.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where it is.
    pub address: Address,
    /// Who may have signed its certificate. Without effect in plaintext.
    pub roots: RootsOfTrust,
    /// The name that its certificate must have, if that is not the address's host.
    pub server_name: Option<ServerName>,
    /// What proves who we are.
    pub token: Option<Token>,
    /// Headers of the user, sent with every call.
    pub headers: Headers,
    /// The cluster that we say we are of; none towards whom it does not concern.
    pub cluster_id: Option<ClusterId>,
}

/// The name in a server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerName(Arc<str>);

/// The name of a cluster, as a header can carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterId(MetadataValue<Ascii>);

/// A name that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not the name of a server.
    #[error("`{0}` is not the name of a server: write a DNS name or an IP address, without a port")]
    Server(String),
    /// Not the name of a cluster.
    #[error("`{0}` is not the name of a cluster: write visible ASCII characters, at least one")]
    Cluster(String),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Whom to trust is not known.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// The address, the name or the roots cannot be used.
    #[error("cannot prepare a connection to {address}: {reason}")]
    Prepare {
        /// Where to.
        address: Address,
        /// Why.
        reason: String,
    },
    /// It failed.
    #[error("cannot connect to {address}: {reason}")]
    Failed {
        /// Where to.
        address: Address,
        /// Why.
        reason: String,
    },
    /// It took too long.
    #[error("cannot connect to {address}: nothing within {} s", waited.as_secs())]
    TimedOut {
        /// Where to.
        address: Address,
        /// How long.
        waited: Duration,
    },
}

/// From now on keys of connections to the control plane are agreed on by X25519MLKEM768 alone, in TLS 1.3. Connections that
/// are there stay. To be called before anything else of this process speaks TLS.
///
/// # Errors
/// When the process has chosen otherwise already.
pub fn require_post_quantum() -> Result<(), AlreadyChosen> {
    use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
    let mut provider = default_provider();
    provider.kx_groups = vec![kx_group::X25519MLKEM768];
    provider.cipher_suites =
        vec![cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_AES_256_GCM_SHA384];
    // The transport takes the process's provider, and offers no other way.
    provider.install_default().map_err(|_| AlreadyChosen)
}

/// How keys are agreed on was chosen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("how keys are agreed on with the control plane was chosen before")]
pub struct AlreadyChosen;

impl Endpoint {
    /// A new connection, with the roots of trust as they are now.
    ///
    /// # Errors
    /// A [`ConnectError`] if the roots cannot be read or the endpoint cannot be reached within 5 s.
    pub async fn connect(&self) -> Result<Channel, ConnectError> {
        let endpoint = self.prepare().await?;
        match tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => {
                Err(ConnectError::Failed { address: self.address.clone(), reason: explain(&error) })
            }
            Err(_) => Err(ConnectError::TimedOut { address: self.address.clone(), waited: CONNECT_TIMEOUT }),
        }
    }

    /// A request that says who we are, with the token as it is now.
    ///
    /// # Errors
    /// A [`TokenError`] if the token cannot be read.
    pub async fn request<T>(&self, message: T) -> Result<tonic::Request<T>, TokenError> {
        let mut request = tonic::Request::new(message);
        let metadata = request.metadata_mut();
        for (name, value) in self.headers.iter() {
            metadata.append(name.clone(), value.clone());
        }
        if let Some(ClusterId(cluster)) = &self.cluster_id {
            metadata.insert("clusterid", cluster.clone());
        }
        if let Some(token) = &self.token {
            metadata.insert("authorization", token.bearer().await?);
        }
        Ok(request)
    }

    async fn prepare(&self) -> Result<tonic::transport::Endpoint, ConnectError> {
        let unfit = |error: tonic::transport::Error| ConnectError::Prepare {
            address: self.address.clone(),
            reason: explain(&error),
        };
        let endpoint = tonic::transport::Endpoint::from(self.address.uri().clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(KEEPALIVE.0))
            .tcp_keepalive_interval(Some(KEEPALIVE.1))
            .tcp_keepalive_retries(Some(KEEPALIVE.2))
            .http2_keep_alive_interval(PING.0)
            .keep_alive_timeout(PING.1)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(2 * WINDOW);
        if self.address.is_plaintext() {
            return Ok(endpoint);
        }
        let mut tls = self.roots.apply(ClientTlsConfig::new().timeout(CONNECT_TIMEOUT)).await?;
        if let Some(ServerName(name)) = &self.server_name {
            tls = tls.domain_name(&**name);
        }
        endpoint.tls_config(tls).map_err(unfit)
    }
}

impl std::str::FromStr for ServerName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match rustls_pki_types::ServerName::try_from(text) {
            Ok(_) => Ok(Self(text.into())),
            Err(_) => Err(NameError::Server(text.to_owned())),
        }
    }
}

impl std::fmt::Display for ServerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for ClusterId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let visible = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let value = if visible { text.parse().ok() } else { None };
        value.map(Self).ok_or_else(|| NameError::Cluster(text.to_owned()))
    }
}

impl ClusterId {
    /// The name.
    pub fn as_str(&self) -> &str {
        // It was made from text of visible characters.
        self.0.to_str().unwrap_or_default()
    }
}

impl std::fmt::Display for ClusterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
