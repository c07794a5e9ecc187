//! Proof that a pod is captured: a connection made in its namespace, to an address that nobody has, must be answered by
//! the agent.
//!
//! The addresses are of the blocks for documentation (RFC 5737, RFC 3849), which are not routed. The connection goes the
//! whole way that an application's would: connect program, rule, route, socket lookup, listener, accept loop.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use redirect::{Attachment, CaptureError};
use tunnel::probe;

use super::error::EnrollError;

/// How long the agent may take to answer itself; generous, for a node may be starting hundreds of pods.
pub(super) const AT_ENROLMENT: Duration = Duration::from_secs(5);
/// The same for a pod that runs.
pub(super) const IN_LIFE: Duration = Duration::from_secs(2);

/// Verifies each family in which the pod has an address, and that it has those which it is said to have.
pub(super) fn verify(attachment: &Attachment, said: &[IpAddr], timeout: Duration) -> Result<(), EnrollError> {
    if let Some(missing) = said.iter().find(|ip| !attachment.addresses().contains(ip)) {
        return Err(EnrollError::OtherAddresses { said: *missing, found: attachment.addresses().to_vec() });
    }
    for destination in destinations(attachment) {
        attempt(attachment, destination, timeout).map_err(CaptureError::NotCaptured)?;
    }
    Ok(())
}

/// One connection; the error says what became of it.
pub(super) fn attempt(attachment: &Attachment, to: SocketAddr, timeout: Duration) -> Result<(), String> {
    knock(attachment, to, timeout).map_err(|reason| format!("a connection to {to} in the pod {reason}"))
}

/// Where to knock: an address of each family in which the pod has one.
pub(super) fn destinations(attachment: &Attachment) -> Vec<SocketAddr> {
    let has = |is: fn(&IpAddr) -> bool| attachment.addresses().iter().any(is);
    let mut probes = Vec::new();
    if has(|a| matches!(a, IpAddr::V4(v4) if !v4.is_link_local())) {
        probes.push(probe::V4);
    }
    if has(|a| matches!(a, IpAddr::V6(v6) if !v6.is_unicast_link_local())) {
        probes.push(probe::V6);
    }
    probes
}

fn knock(attachment: &Attachment, destination: SocketAddr, timeout: Duration) -> Result<(), String> {
    let socket = attachment
        .sockets()
        .as_application(destination)
        .map_err(|error| format!("cannot be made ({error})"))?;
    socket.connect_timeout(&destination.into(), timeout).map_err(|error| {
        format!("did not reach the agent ({error}); does another program in the pod change its routes?")
    })?;
    let mut stream = TcpStream::from(socket);
    let mut answer = [0; probe::ANSWER.len()];
    stream
        .set_read_timeout(Some(timeout))
        .and_then(|()| stream.read_exact(&mut answer))
        .map_err(|error| format!("was accepted, but the agent did not answer ({error})"))?;
    if answer == *probe::ANSWER { Ok(()) } else { Err("was answered by somebody else".to_owned()) }
}
