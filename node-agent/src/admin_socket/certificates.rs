//! The certificates of this node's identities: what is public of them, and for how long they are good.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use control::certificates::State;
use mesh::Identity;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::protocol::Answer;
use super::{Subjects, Teller};
use crate::admin::{Node, moment};

/// Longest text of why there is none, in characters.
const MAX_WHY: usize = 1024;

/// An identity's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CertificateRow {
    /// Whose.
    pub(crate) identity: String,
    /// `valid`, `expired`, `early` (not valid yet), `pending` or `unavailable`.
    pub(crate) state: String,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    /// Of the certificate, as a decimal number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) serial: Option<String>,
    /// Since when it is valid, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) valid_from: Option<String>,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires: Option<String>,
    /// Seconds until then; negative after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seconds_left: Option<i64>,
    /// Who signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) issuer: Option<String>,
    /// Roots that peers' certificates must chain to.
    pub(crate) roots: usize,
}

/// Tells of all.
pub(super) fn tell(subjects: &Subjects, send: &mut Teller<'_>) -> io::Result<()> {
    rows(&*subjects.node).into_iter().try_for_each(|row| send(Answer::Certificate(row)))
}

/// All of a node, in the order of their identities.
pub(crate) fn rows(node: &dyn Node) -> Vec<CertificateRow> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let mut states = node.certificates();
    states.sort_by(|(one, _), (other, _)| one.cmp(other));
    states.iter().map(|(identity, state)| row(identity, state, now)).collect()
}

/// At `now`, in seconds since 1970.
fn row(identity: &Identity, state: &State, now: i64) -> CertificateRow {
    let none = |state: &str, why: Option<String>| CertificateRow {
        identity: identity.to_string(),
        state: state.to_owned(),
        why,
        serial: None,
        valid_from: None,
        expires: None,
        seconds_left: None,
        issuer: None,
        roots: 0,
    };
    let certificate = match state {
        State::Pending => return none("pending", None),
        State::Unavailable(error) => {
            return none("unavailable", Some(error.to_string().chars().take(MAX_WHY).collect()));
        }
        State::Available(certificate) => certificate,
    };
    let leaf = certificate.chain.first().and_then(|der| X509Certificate::from_der(der.as_ref()).ok());
    let Some((_, leaf)) = leaf else { return none("unavailable", Some("it cannot be read".to_owned())) };
    let (from, until) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
    let state = match now {
        now if now < from => "early",
        now if now > until => "expired",
        _ => "valid",
    };
    CertificateRow {
        serial: Some(leaf.tbs_certificate.serial.to_string()),
        valid_from: Some(moment(leaf.validity().not_before.to_datetime())),
        expires: Some(moment(leaf.validity().not_after.to_datetime())),
        seconds_left: Some(until.saturating_sub(now)),
        issuer: Some(leaf.issuer().to_string()),
        roots: certificate.roots.len(),
        ..none(state, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin_socket::tests::World;

    #[tokio::test]
    async fn a_certificate_is_good_between_its_two_moments() {
        let world = World::with_certificates().await;
        let states = world.node().certificates();
        let (identity, state) =
            states.into_iter().find(|(_, state)| matches!(state, State::Available(_))).unwrap();
        let valid = row(&identity, &state, 0);
        assert_eq!((valid.state.as_str(), valid.roots), ("early", 1));
        let until = valid.seconds_left.unwrap();
        for (now, state_then) in [(until - 1, "valid"), (until, "valid"), (until + 1, "expired")] {
            let then = row(&identity, &state, now);
            assert_eq!((then.state.as_str(), then.seconds_left), (state_then, Some(until - now)));
        }
    }
}
