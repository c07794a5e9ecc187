//! Reviews of access in the encoding of Protocol Buffers, in which kubectl asks for them and for nothing else here.
//!
//! An object is in an envelope behind four bytes (`runtime.Unknown` of k8s.io/apimachinery); fields are those of `generated.proto` of
//! k8s.io/api/authorization/v1. Of answers a client takes JSON as well. What cannot be read is refused.

use prost::Message;
use serde_json::{Value, json};

use crate::error::Refusal;

/// The type of such a body.
pub(crate) const TYPE: &str = "application/vnd.kubernetes.protobuf";

/// How every object begins.
const MAGIC: &[u8] = b"k8s\0";

/// An object of any kind.
#[derive(Clone, PartialEq, Message)]
struct Unknown {
    #[prost(bytes = "vec", tag = "2")]
    raw: Vec<u8>,
}

/// A SelfSubjectAccessReview.
#[derive(Clone, PartialEq, Message)]
struct Review {
    #[prost(message, optional, tag = "2")]
    spec: Option<Spec>,
}

/// What it is about; other things than resources have other tags.
#[derive(Clone, PartialEq, Message)]
struct Spec {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
}

/// Access to a resource.
#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    verb: String,
    #[prost(string, tag = "3")]
    group: String,
    #[prost(string, tag = "4")]
    version: String,
    #[prost(string, tag = "5")]
    resource: String,
    #[prost(string, tag = "6")]
    subresource: String,
    #[prost(string, tag = "7")]
    name: String,
}

/// A review as JSON has it.
pub(crate) fn review(body: &[u8]) -> Result<Value, Refusal> {
    let envelope = body.strip_prefix(MAGIC).ok_or_else(|| Refusal::bad("no object of Kubernetes"))?;
    let unread = |error: prost::DecodeError| Refusal::bad(error.to_string());
    let envelope = Unknown::decode(envelope).map_err(unread)?;
    let spec = Review::decode(envelope.raw.as_slice()).map_err(unread)?.spec.unwrap_or_default();
    let mut told = json!({});
    if let Some(of) = spec.resource {
        told = json!({"resourceAttributes": {
            "namespace": of.namespace, "verb": of.verb, "group": of.group, "version": of.version,
            "resource": of.resource, "subresource": of.subresource, "name": of.name,
        }});
    }
    Ok(json!({"spec": told}))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What kubectl 1.37 sends for `auth can-i watch pods`, as it was seen.
    const SEEN: &[u8] = b"k8s\0\n2\n\x17authorization.k8s.io/v1\x12\x17SelfSubjectAccessReview\
        \x12>\n\x10\n\0\x12\0\x1a\0\"\0*\0\x32\0\x38\0B\0\
        \x12 \n\x1e\n\x07default\x12\x05watch\x1a\0\"\0*\x04pods2\0:\0\x1a\x08\x08\0\x12\0\x1a\0 \0\x1a\0\"\0";

    #[test]
    fn what_kubectl_sends_is_read() {
        let told = review(SEEN).unwrap();
        let expected = json!({
            "namespace": "default", "verb": "watch", "group": "", "version": "",
            "resource": "pods", "subresource": "", "name": "",
        });
        assert_eq!(told, json!({"spec": {"resourceAttributes": expected}}));
    }

    #[test]
    fn what_is_none_is_refused() {
        for odd in [&b""[..], b"{}", b"k8s\0\xff", &SEEN[4..], &SEEN[..SEEN.len() - 20]] {
            assert_eq!(review(odd).unwrap_err().code, 400, "{odd:?}");
        }
        assert_eq!(review(MAGIC).unwrap(), json!({"spec": {}}));
    }
}
