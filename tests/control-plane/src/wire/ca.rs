//! The certificate authority (`istio.v1.auth`).

use prost_types::Struct;

#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateRequest {
    /// PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// Seconds.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
}

impl CertificateRequest {
    /// For whom it is asked, where one agent asks for many.
    pub fn impersonated(&self) -> Option<&str> {
        match self.metadata.as_ref()?.fields.get("ImpersonatedIdentity")?.kind.as_ref()? {
            prost_types::value::Kind::StringValue(text) => Some(text),
            _ => None,
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateResponse {
    /// PEM: the leaf, intermediate ones, and last all roots in one.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}
