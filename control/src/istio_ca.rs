//! The control plane's certificate authority, asked over gRPC.
//!
//! Invariants: every call shows the token as it is then; a connection is shared by calls until it fails or the roots that
//! it was trusted by change; every call ends in time; what a peer says is passed on in its words, with what to check.

mod message;
#[cfg(test)]
mod tests;

use std::time::Duration;

use mesh::Identity;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tracing::warn;

pub(crate) use self::message::decode;
use crate::certificates::{Authority, AuthorityError, BoxFuture, Issued};
use crate::grpc::{Endpoint, RootsOfTrust, explain};
use crate::proto::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use crate::watched::Watched;

/// How long one answer may take, once the connection stands.
const ANSWER: Duration = Duration::from_secs(10);
/// The largest answer, in bytes; a chain with its roots has some 10 KiB.
const LARGEST: usize = 1 << 20;
/// The largest file of roots, in bytes.
const LARGEST_ROOTS: u64 = 4 << 20;

/// The authority that signs for workloads of this node.
#[derive(Debug)]
pub struct IstioCa {
    endpoint: Endpoint,
    connection: Mutex<Connection>,
    /// The file of what the authority is trusted by, where it is one.
    roots: Option<Mutex<Watched>>,
}

/// The connection there is, and how many there were before.
#[derive(Debug, Default)]
struct Connection {
    channel: Option<Channel>,
    number: u64,
}

impl IstioCa {
    /// An authority that is connected to when it is first asked.
    pub fn new(endpoint: Endpoint) -> Self {
        let roots = match &endpoint.roots {
            RootsOfTrust::File(path) if !endpoint.address.is_plaintext() => {
                Some(Mutex::new(Watched::new(path, LARGEST_ROOTS)))
            }
            RootsOfTrust::File(_) | RootsOfTrust::Pem(_) | RootsOfTrust::System => None,
        };
        Self { endpoint, connection: Mutex::default(), roots }
    }

    async fn create(
        &self,
        identity: &Identity,
        request: &[u8],
        ttl: Duration,
    ) -> Result<Issued, AuthorityError> {
        let unreachable = |reason: String| AuthorityError::Unreachable { reason };
        let (channel, number) = self.connect().await?;
        let message = message::request(identity, request, ttl);
        let request = self.endpoint.request(message).await.map_err(|error| unreachable(error.to_string()))?;
        let mut client = IstioCertificateServiceClient::new(channel).max_decoding_message_size(LARGEST);
        match timeout(ANSWER, client.create_certificate(request)).await {
            Ok(Ok(answer)) => decode(&answer.into_inner()),
            Ok(Err(status)) => {
                if !is_an_answer(&status) {
                    self.give_up(number).await;
                }
                Err(failure(identity, &status))
            }
            Err(_) => {
                self.give_up(number).await;
                let address = &self.endpoint.address;
                Err(unreachable(format!("{address} did not answer within {} s", ANSWER.as_secs())))
            }
        }
    }

    /// The connection; who comes while it is being made waits for it.
    async fn connect(&self) -> Result<(Channel, u64), AuthorityError> {
        let mut connection = self.connection.lock().await;
        if let Some(channel) = &connection.channel {
            return Ok((channel.clone(), connection.number));
        }
        let channel = self.endpoint.connect().await;
        let channel = channel.map_err(|error| AuthorityError::Unreachable { reason: error.to_string() })?;
        connection.number += 1;
        connection.channel = Some(channel.clone());
        Ok((channel, connection.number))
    }

    /// Hands a connection out no more; calls that are under way on it go on.
    async fn give_up(&self, number: u64) {
        let mut connection = self.connection.lock().await;
        if connection.number == number {
            connection.channel = None;
        }
    }
}

impl Authority for IstioCa {
    fn sign<'a>(
        &'a self,
        identity: &'a Identity,
        request: &'a [u8],
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Issued, AuthorityError>> {
        Box::pin(self.create(identity, request, ttl))
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let Some(roots) = &self.roots else { return std::future::pending().await };
            let mut roots = roots.lock().await;
            loop {
                roots.changed().await;
                match roots.seen() {
                    Ok(_) => break,
                    Err(error) => warn!(%error, "the roots of trust of the certificate authority are gone"),
                }
            }
            self.connection.lock().await.channel = None;
        })
    }
}

/// Whether the authority itself has spoken, so that the connection to it is sound.
fn is_an_answer(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::ResourceExhausted
            | Code::Unimplemented
    )
}

/// What a status means, in its words and with what to check.
fn failure(identity: &Identity, status: &Status) -> AuthorityError {
    const LONGEST: usize = 300;
    let words: String = status.message().chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    let hint = match status.code() {
        // In these words the token was good, and what it may ask for was not.
        Code::Unauthenticated | Code::PermissionDenied if words.contains("impersonation") => {
            "check that a pod of that account runs on this node and is not finished, and that the agent's account is \
             among CA_TRUSTED_NODE_ACCOUNTS of the control plane; one that has just started is known in a moment"
        }
        Code::Unauthenticated => "check the agent's token: its file, its audience (istio-ca) and its age",
        Code::PermissionDenied => "check that the agent's account may ask for certificates of others",
        Code::InvalidArgument => "check SECRET_TTL and the trust domain",
        Code::Unimplemented => "check that CA_ADDRESS is that of a certificate authority",
        _ => "",
    };
    let (code, gap) = (status.code(), if hint.is_empty() { "" } else { "; " });
    let mut reason = format!("{code:?}: {words}{gap}{hint}");
    match code {
        Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument | Code::FailedPrecondition => {
            AuthorityError::Refused { identity: identity.clone(), reason }
        }
        _ => {
            if let Some(cause) = std::error::Error::source(status) {
                reason.push_str(": ");
                reason.push_str(&explain(cause));
            }
            AuthorityError::Unreachable { reason }
        }
    }
}
