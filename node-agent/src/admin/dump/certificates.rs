//! Certificates as they are shown: everything that is public of them, nothing of their keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control::certificates::State;
use mesh::Identity;
use serde::Serialize;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Characters of a line of PEM.
const LINE: usize = 64;

/// An identity's certificate in the words of `/config_dump`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CertificateView {
    identity: String,
    state: String,
    cert_chain: Vec<PartView>,
    root_certs: Vec<PartView>,
}

/// One certificate of a chain.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PartView {
    /// PEM, encoded once more.
    pem: String,
    /// A decimal number.
    serial_number: String,
    valid_from: String,
    expiration_time: String,
}

/// Shows what is known of each identity's certificate.
pub(super) fn views(states: &[(Identity, State)]) -> Vec<CertificateView> {
    states.iter().map(|(identity, state)| view(identity, state)).collect()
}

fn view(identity: &Identity, state: &State) -> CertificateView {
    let (state, cert_chain, root_certs) = match state {
        State::Pending => ("Initializing".to_owned(), Vec::new(), Vec::new()),
        State::Available(certificate) => {
            ("Available".to_owned(), parts(&certificate.chain), parts(&certificate.roots))
        }
        State::Unavailable(error) => (format!("Unavailable: {error}"), Vec::new(), Vec::new()),
    };
    CertificateView { identity: identity.to_string(), state, cert_chain, root_certs }
}

/// What is no certificate is left out; the control room takes none such.
fn parts(chain: &[impl AsRef<[u8]>]) -> Vec<PartView> {
    chain.iter().filter_map(|der| part(der.as_ref())).collect()
}

fn part(der: &[u8]) -> Option<PartView> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    Some(PartView {
        pem: STANDARD.encode(pem(der)),
        serial_number: certificate.tbs_certificate.serial.to_string(),
        valid_from: moment(validity.not_before.to_datetime()),
        expiration_time: moment(validity.not_after.to_datetime()),
    })
}

fn pem(der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at_checked(LINE).unwrap_or((rest, ""));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// RFC 3339 in seconds, UTC.
pub(crate) fn moment(at: OffsetDateTime) -> String {
    const FORMAT: &[time::format_description::BorrowedFormatItem<'_>] =
        time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    at.format(FORMAT).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is between the markers of PEM, in one line.
    fn unwrapped(pem: &serde_json::Value) -> String {
        let text = String::from_utf8(STANDARD.decode(pem.as_str().unwrap()).unwrap()).unwrap();
        assert!(text.starts_with("-----BEGIN CERTIFICATE-----\n"), "{text}");
        assert!(text.ends_with("\n-----END CERTIFICATE-----\n"), "{text}");
        text.lines().filter(|line| !line.starts_with('-')).collect()
    }

    /// Recorded certificates, decoded and shown again, are as they were shown.
    #[test]
    fn a_recorded_certificate_is_shown_as_it_was() {
        let text = recordings::text("istiod/agent/config_dump.json").unwrap();
        let recorded: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut seen = 0;
        for certificate in recorded["certificates"].as_array().unwrap() {
            for kind in ["certChain", "rootCerts"] {
                for theirs in certificate[kind].as_array().unwrap() {
                    let mut theirs = theirs.clone();
                    let base = unwrapped(&theirs["pem"]);
                    let ours = part(&STANDARD.decode(&base).unwrap()).unwrap();
                    let mut ours = serde_json::to_value(ours).unwrap();
                    assert_eq!(unwrapped(&ours["pem"]), base);
                    // Lines of PEM are as long as RFC 7468 says here, and were shorter there.
                    for one in [&mut ours, &mut theirs] {
                        one["pem"].take();
                    }
                    assert_eq!(ours, theirs);
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, 10);
    }
}
