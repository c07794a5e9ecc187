//! What the configuration demands of TLS, as the rooms that speak it take it, and lists of revoked certificates as they
//! change.
//!
//! Invariant: what is demanded holds before anything is connected to; a list that cannot be read stops the start, and later
//! changes nothing.

use std::sync::Weak;

use control::crl::CrlFile;
use prometheus_client::registry::Registry;
use tunnel::{TlsOptions, Tunnel};

use crate::config::Tls;

/// The options of the data path, and the file of revoked certificates if there is one. The control plane is held to the same
/// agreement of keys.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn prepare(tls: &Tls, registry: &mut Registry) -> anyhow::Result<(TlsOptions, Option<CrlFile>)> {
    if tls.post_quantum {
        control::grpc::require_post_quantum()?;
    }
    let (file, lists) = match &tls.crl {
        Some(path) => {
            let (file, lists) = CrlFile::open(path, registry)?;
            (Some(file), Some(lists))
        }
        None => (None, None),
    };
    Ok((TlsOptions { post_quantum: tls.post_quantum, tls12: tls.tls12, revoked: lists }, file))
}

/// Has the data path judge by every version of the file, for as long as there is a data path.
pub(crate) async fn follow(file: CrlFile, tunnel: Weak<Tunnel>) {
    file.follow(|lists| match tunnel.upgrade() {
        Some(tunnel) => tunnel.revoke(lists),
        None => Ok(0),
    })
    .await;
}
