//! What the authority is asked, and how.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use crate::agent::Setup;
use crate::identities;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_pem_of_a_p256_key_an_empty_subject_and_one_critical_name() -> Result<()> {
    let setup = Setup::new().await?;
    setup.manager()?.get(&identities::of("a")).await?;
    let request = setup.plane.records().calls.back().context("a call")?.request.clone();
    let (_, pem) = x509_parser::pem::parse_x509_pem(request.csr.as_bytes())?;
    ensure!(pem.label == "CERTIFICATE REQUEST", "{}", pem.label);
    let (_, csr) = X509CertificationRequest::from_der(&pem.contents)?;
    ensure!(csr.certification_request_info.subject.iter().count() == 0);
    let key = &csr.certification_request_info.subject_pki.algorithm;
    let curve = key.parameters.as_ref().context("no curve")?.as_oid()?;
    ensure!(curve.to_id_string() == "1.2.840.10045.3.1.7", "{curve}");
    let names: Vec<_> = csr
        .requested_extensions()
        .context("no extensions")?
        .filter_map(|extension| match extension {
            ParsedExtension::SubjectAlternativeName(names) => Some(names.general_names.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    let expected = identities::of("a").to_string();
    ensure!(matches!(names.as_slice(), [GeneralName::URI(name)] if *name == expected), "{names:?}");
    // Critical: the extension's object identifier is followed by TRUE.
    let critical = [0x55, 0x1d, 0x11, 0x01, 0x01, 0xff];
    ensure!(pem.contents.windows(critical.len()).any(|bytes| bytes == critical), "the name is not critical");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn validity_is_in_seconds_and_the_identity_in_the_metadata() -> Result<()> {
    let setup = Setup::new().await?;
    setup.manager()?.get(&identities::of("a")).await?;
    let call = setup.plane.records().calls.back().context("a call")?.clone();
    ensure!(call.request.validity_duration == 24 * 3600, "{}", call.request.validity_duration);
    ensure!(call.request.impersonated() == Some("spiffe://cluster.local/ns/demo/sa/a"));
    let metadata = call.request.metadata.context("no metadata")?;
    ensure!(metadata.fields.len() == 1, "{metadata:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_carries_token_cluster_and_the_users_headers() -> Result<()> {
    let setup = Setup::new().await?;
    setup.manager_with(|config| config.header("x-tenant", "blue"))?.get(&identities::of("a")).await?;
    let headers = setup.plane.records().calls.back().context("a call")?.headers.clone();
    for (name, value) in
        [("authorization", "Bearer first-token"), ("clusterid", "Kubernetes"), ("x-tenant", "blue")]
    {
        ensure!(headers.get(name).is_some_and(|found| found == value), "{name}: {headers:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_read_anew_for_every_call() -> Result<()> {
    let setup = Setup::new().await?;
    let manager = setup.manager()?;
    manager.get(&identities::of("a")).await?;
    fs::write(setup.token(), "second-token")?;
    setup.plane.tokens(&["second-token"]);
    manager.get(&identities::of("b")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_certificate_for_each_identity_however_many_ask() -> Result<()> {
    let setup = Setup::new().await?;
    let manager = setup.manager()?;
    let identity = identities::of("a");
    let certificates = futures_util::future::join_all((0..30).map(|_| manager.get(&identity))).await;
    for certificate in certificates {
        ensure!(certificate?.identity == identity);
    }
    manager.get(&identities::of("b")).await?;
    ensure!(setup.plane.records().calls.len() == 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_number_of_calls_is_under_way() -> Result<()> {
    let setup = Setup::new().await?;
    setup.plane.hold(true);
    let manager = setup.manager()?;
    let accounts: Vec<_> = (0..20).map(|number| identities::of(&format!("account-{number}"))).collect();
    let all = futures_util::future::join_all(accounts.iter().map(|identity| manager.get(identity)));
    let released = async {
        setup.plane.wait("the first calls", |r| (r.under_way >= 8).then_some(())).await?;
        setup.plane.hold(false);
        anyhow::Ok(())
    };
    let (certificates, released) = tokio::join!(all, released);
    released?;
    for certificate in certificates {
        certificate?;
    }
    ensure!(setup.plane.records().most_under_way == 8, "{}", setup.plane.records().most_under_way);
    ensure!(setup.plane.records().calls.len() == 20);
    Ok(())
}
