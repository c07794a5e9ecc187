//! Which TLS is good enough, as it was configured, and what follows for every handshake.
//!
//! Invariant: with [`TlsOptions::post_quantum`] no key is agreed on in another way; without it the classical X25519 comes
//! first, for it is the cheaper one, and whoever wants the other gets it.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, WebPkiSupportedAlgorithms};
use rustls::{SupportedProtocolVersion, version};
use rustls_pki_types::CertificateRevocationListDer;

use super::ciphers;
use super::revocation::{RevocationError, Revocations};

/// What is demanded of TLS, of both ends. The default is TLS 1.3 alone, with any key agreement, and no lists.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// Keys are agreed on by X25519MLKEM768 alone (draft-ietf-tls-ecdhe-mlkem).
    pub post_quantum: bool,
    /// Peers that know no TLS 1.3 are spoken to in TLS 1.2, with ECDHE and AES-GCM.
    pub tls12: bool,
    /// Lists of revoked certificates, which may be replaced later. `None` means that there never will be any: no session is
    /// kept account of.
    pub revoked: Option<Vec<CertificateRevocationListDer<'static>>>,
}

/// Options that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OptionsError {
    /// They exclude each other.
    #[error("TLS 1.2 cannot agree on keys by X25519MLKEM768: allow one of the two, not both")]
    Contradiction,
    /// A list is no good.
    #[error(transparent)]
    Revocation(#[from] RevocationError),
}

/// What every handshake obeys; one for the whole data path.
#[derive(Debug)]
pub(crate) struct Rules {
    crypto: Arc<CryptoProvider>,
    pub(super) versions: &'static [&'static SupportedProtocolVersion],
    pub(crate) revocations: Arc<Revocations>,
}

static MODERN: [&SupportedProtocolVersion; 1] = [&version::TLS13];
static ALSO_OLD: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
const ANY_AGREEMENT: [&dyn SupportedKxGroup; 4] =
    [kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1, kx_group::X25519MLKEM768];

impl Rules {
    pub(crate) fn new(options: &TlsOptions) -> Result<Self, OptionsError> {
        if options.post_quantum && options.tls12 {
            return Err(OptionsError::Contradiction);
        }
        let mut crypto = default_provider();
        crypto.cipher_suites = ciphers::modern();
        crypto.kx_groups =
            if options.post_quantum { vec![kx_group::X25519MLKEM768] } else { ANY_AGREEMENT.to_vec() };
        let mut versions = &MODERN[..];
        if options.tls12 {
            crypto.cipher_suites.extend(ciphers::old());
            versions = &ALSO_OLD;
        }
        let revocations = Arc::new(Revocations::default());
        if let Some(lists) = &options.revoked {
            revocations.replace(lists)?;
        }
        Ok(Self { crypto: Arc::new(crypto), versions, revocations })
    }

    pub(super) fn crypto(&self) -> Arc<CryptoProvider> {
        Arc::clone(&self.crypto)
    }

    pub(super) fn algorithms(&self) -> WebPkiSupportedAlgorithms {
        self.crypto.signature_verification_algorithms
    }
}
