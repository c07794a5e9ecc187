//! Calls for certificates: who may ask, what is checked, what the script says.

use bytes::Bytes;
use prost::Message as _;
use tonic::Status;

use crate::records::{Call, Headers};
use crate::shared::{Shared, lock};
use crate::wire::ca::{CertificateRequest, CertificateResponse};

/// Answers one call.
pub(crate) async fn create(
    shared: &Shared,
    headers: Headers,
    request: CertificateRequest,
) -> Result<Bytes, Status> {
    let _under_way = UnderWay(shared);
    shared.note(|records| records.call(Call { headers: headers.clone(), request: request.clone() }));
    // The sender ends with the server.
    let _ = shared.held.subscribe().wait_for(|held| !held).await;
    shared.authenticate(&headers, "request authenticate failure")?;
    let cert_chain = lock(&shared.authority).answer(&request)?;
    Ok(CertificateResponse { cert_chain }.encode_to_vec().into())
}

/// A call that is not answered yet; the client may give it up.
struct UnderWay<'a>(&'a Shared);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.note(|records| records.under_way = records.under_way.saturating_sub(1));
    }
}
