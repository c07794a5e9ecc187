//! What fuzz tests reach of what this crate reads: bytes of strangers, and what must hold whatever they are.

use std::time::{Duration, SystemTime};

use prost::Message;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::certificates::answer;
use crate::file::{self, FileError, MeshFile};
use crate::proto::ca::IstioCertificateResponse;

/// What came of an answer of the certificate authority that could be read.
#[derive(Debug)]
pub enum CaOutcome {
    /// It was refused.
    Refused(String),
    /// It was taken.
    Taken {
        /// Certificates that peers are sent.
        chain: Vec<Vec<u8>>,
        /// The roots.
        roots: Vec<Vec<u8>>,
    },
}

/// Reads an answer of the certificate authority (protobuf) and checks it as if its first certificate were of the key and
/// the name that were asked for, in the middle of its validity.
pub fn ca_response(bytes: &[u8]) -> Option<CaOutcome> {
    let answer = IstioCertificateResponse::decode(bytes).ok()?;
    let issued = match crate::istio_ca::decode(&answer) {
        Ok(issued) => issued,
        Err(error) => return Some(CaOutcome::Refused(error.to_string())),
    };
    let leaf = issued.chain.first().cloned()?;
    let (key, identity, now) = match X509Certificate::from_der(&leaf) {
        Ok((_, leaf)) => {
            let names = leaf.subject_alternative_name().ok().flatten();
            let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
            let identity = names.iter().find_map(|name| match name {
                GeneralName::URI(name) => name.parse().ok(),
                _ => None,
            });
            let validity = leaf.validity();
            let (from, to) = (validity.not_before.timestamp(), validity.not_after.timestamp());
            let middle = u64::try_from(from.saturating_add(to) / 2).unwrap_or_default();
            (leaf.public_key().raw.to_vec(), identity, Duration::from_secs(middle))
        }
        Err(_) => (Vec::new(), None, Duration::ZERO),
    };
    let identity = identity.unwrap_or_else(|| mesh::Identity::new("cluster.local", "default", "default"));
    let now = SystemTime::UNIX_EPOCH.checked_add(now)?;
    Some(match answer::check(&identity, &key, issued, now) {
        Ok(checked) => CaOutcome::Taken {
            chain: checked.chain.iter().map(|der| der.to_vec()).collect(),
            roots: checked.roots.iter().map(|der| der.to_vec()).collect(),
        },
        Err(fault) => CaOutcome::Refused(fault.to_string()),
    })
}

/// What a mesh file says to each of the readers that may come to read it.
#[derive(Debug)]
pub struct Readings {
    /// To the reader of YAML, whose word counts.
    pub whole: Result<MeshFile, FileError>,
    /// To the agent.
    pub taken: Result<MeshFile, FileError>,
    /// To the readers of pieces, taken apart wherever that is possible; none where it is not.
    pub pieces: Option<Result<MeshFile, FileError>>,
}

/// Reads a mesh file in every way.
pub fn mesh_file(text: &str) -> Readings {
    let (whole, pieces) = file::fuzzing(text);
    Readings { whole, taken: MeshFile::parse(text), pieces }
}

/// Reads lists of revoked certificates, and when the first is past its time.
///
/// # Errors
/// What is wrong with them.
pub fn crl(content: &[u8]) -> Result<(Vec<Vec<u8>>, Option<i64>), String> {
    let (lists, end) = crate::crl::parse(content)?;
    Ok((lists.iter().map(|list| list.to_vec()).collect(), end))
}
