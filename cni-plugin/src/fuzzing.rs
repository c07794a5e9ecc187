//! What fuzz tests reach of this crate beside what is public: bytes of others that are read. Only with the feature `fuzzing`.

use crate::ambient::AmbientList;
use crate::api::{self, Metadata, http};
use crate::kubeconfig::Kubeconfig;
use crate::protocol::PodName;

/// Status and body of an HTTP answer, once it is whole; `ended` says that no more bytes will come.
///
/// # Errors
/// Why it is no HTTP.
pub fn answer(bytes: &[u8], ended: bool) -> Result<Option<(u16, Vec<u8>)>, String> {
    let reply = http::parse(bytes, ended).map_err(|error| error.to_string())?;
    Ok(reply.map(|reply| (reply.status, reply.body)))
}

/// What the body of an answer says of a pod that was asked for.
///
/// # Errors
/// Why it says nothing of it.
pub fn metadata(body: &[u8], pod: &PodName) -> Result<Metadata, String> {
    api::metadata(body, pod)
}

/// Reads a kubeconfig.
///
/// # Errors
/// What is wrong with it.
pub fn kubeconfig(bytes: &[u8]) -> Result<Kubeconfig, String> {
    Kubeconfig::parse(bytes)
}

/// Reads the list of the mesh's namespaces, and writes it again.
pub fn ambient_list(bytes: &[u8]) -> Option<(AmbientList, Vec<u8>)> {
    let list = AmbientList::parse(bytes).ok()?;
    let written = serde_json::to_vec(&list).ok()?;
    Some((list, written))
}
