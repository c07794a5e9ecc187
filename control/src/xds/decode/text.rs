//! Text of the wire.
//!
//! The one place where strings of resources become strings of the mesh.

use std::sync::{Arc, LazyLock};

use mesh::NamespacedHostname;

use super::Fault;
use crate::proto::workload;

static EMPTY: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(""));

/// Any text.
pub(super) fn text(text: &str) -> Arc<str> {
    if text.is_empty() { Arc::clone(&EMPTY) } else { Arc::from(text) }
}

/// A name that may be part of an identity: not empty, without slash, white space or control characters.
pub(super) fn name(field: &'static str, name: &str) -> Result<Arc<str>, Fault> {
    let unfit = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    if name.is_empty() {
        Err(Fault::new(field, "it is empty"))
    } else if name.contains(unfit) {
        Err(Fault::new(field, format!("{name:?} holds a slash, white space or a control character")))
    } else {
        Ok(text(name))
    }
}

/// [`name`], or the default where there is none.
pub(super) fn name_or(field: &'static str, given: &str, default: &str) -> Result<Arc<str>, Fault> {
    name(field, if given.is_empty() { default } else { given })
}

/// A key of the form `namespace/name`.
pub(super) fn key(field: &'static str, key: &str) -> Result<NamespacedHostname, Fault> {
    let Some((namespace, hostname)) = key.split_once('/') else {
        return Err(Fault::new(field, format!("{key:?} is not NAMESPACE/NAME")));
    };
    Ok(NamespacedHostname::new(name(field, namespace)?, name(field, hostname)?))
}

/// A hostname in a namespace.
pub(super) fn hostname(
    field: &'static str,
    wire: &workload::NamespacedHostname,
) -> Result<NamespacedHostname, Fault> {
    Ok(NamespacedHostname::new(name(field, &wire.namespace)?, name(field, &wire.hostname)?))
}
