//! What is made of the authority's answers: what is taken, what is refused, what is tried again.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use control::certificates::CertificateError;
use control_plane::{Answer, Chain};
use tonic::Code;

use crate::agent::{Setup, until};
use crate::identities;

#[tokio::test(flavor = "multi_thread")]
async fn the_last_entry_is_all_roots_and_the_rest_the_chain() -> Result<()> {
    let setup = Setup::new().await?;
    let certificate = setup.manager()?.get(&identities::of("a")).await?;
    ensure!(certificate.chain.len() == 1 && identities::roots(&certificate)? == ["Test root 0"]);
    ensure!(certificate.identity == identities::of("a"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_self_signed_root_of_a_plugged_in_ca_is_not_sent_to_peers() -> Result<()> {
    let setup = Setup::new().await?;
    setup.plane.chain(Chain::PluggedIn);
    setup.plane.rotate_root()?;
    let certificate = setup.manager()?.get(&identities::of("a")).await?;
    // The leaf and the intermediate; both roots are trusted.
    ensure!(certificate.chain.len() == 2, "{}", certificate.chain.len());
    let roots = identities::roots(&certificate)?;
    ensure!(roots.len() == 2 && roots.contains(&"Test root 0".to_owned()), "{roots:?}");
    Ok(())
}

/// Answers the first call in a bad way: nobody gets that certificate, and why is told; the next attempt is taken.
async fn not_taken(answer: Answer) -> Result<()> {
    let setup = Setup::new().await?;
    setup.plane.answer(answer.clone());
    let manager = setup.impatient_manager()?;
    let identity = identities::of("a");
    let Err(error) = manager.get(&identity).await else {
        bail!("an answer of the kind {answer:?} was taken")
    };
    ensure!(!matches!(error, CertificateError::TimedOut { .. }), "the reason is not told: {error}");
    setup.plane.answer(Answer::Sign);
    let taken = setup.until_signed(&manager, &identity).await?;
    ensure!(taken.identity == identity && taken.chain.len() == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_identity() -> Result<()> {
    not_taken(Answer::WrongIdentity("spiffe://cluster.local/ns/demo/sa/other".to_owned())).await?;
    // istiod does not check the trust domain, so whoever asks has to.
    not_taken(Answer::WrongIdentity("spiffe://other.example/ns/demo/sa/a".to_owned())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_key() -> Result<()> {
    not_taken(Answer::WrongKey).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_whose_time_is_over() -> Result<()> {
    not_taken(Answer::Expired).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_does_not_verify() -> Result<()> {
    not_taken(Answer::StrangeRoot).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_certificates_or_without_roots() -> Result<()> {
    not_taken(Answer::Empty).await?;
    not_taken(Answer::LeafAlone).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_pem() -> Result<()> {
    not_taken(Answer::Garbage).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_in_the_authoritys_words_and_tried_again() -> Result<()> {
    let setup = Setup::new().await?;
    let identity = identities::of("a");
    // A pod that istiod does not know yet.
    setup.plane.deny(&identity.to_string(), true);
    let manager = setup.impatient_manager()?;
    let Err(error) = manager.get(&identity).await else { bail!("a refused certificate") };
    ensure!(error.to_string().contains("request impersonation authentication failure"), "{error}");
    setup.plane.deny(&identity.to_string(), false);
    setup.until_signed(&manager, &identity).await?;
    ensure!(setup.plane.records().calls.len() > 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn other_failures_are_tried_again() -> Result<()> {
    for code in [Code::Unavailable, Code::Internal, Code::ResourceExhausted, Code::InvalidArgument] {
        not_taken(Answer::Refuse(code, "scripted".to_owned())).await.with_context(|| format!("{code:?}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_away_is_found_again() -> Result<()> {
    let mut setup = Setup::new().await?;
    let identity = identities::of("a");
    let manager = setup.impatient_manager()?;
    manager.get(&identity).await?;
    setup.plane.kill().await;
    // What was fetched stays, what was not is not there.
    manager.get(&identity).await?;
    ensure!(manager.get(&identities::of("b")).await.is_err());
    setup.plane.restart().await?;
    setup.until_signed(&manager, &identities::of("b")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_certificate_is_kept_while_its_renewal_fails() -> Result<()> {
    let setup = Setup::new().await?;
    // Its half-life is soon, its end is not.
    setup.plane.lifetime(Duration::from_secs(6));
    let manager = setup.manager()?;
    let identity = identities::of("a");
    let first = manager.get(&identity).await?;
    setup.plane.lifetime(Duration::from_secs(3600));
    setup.plane.answer_next(Answer::WrongKey);
    setup.plane.wait("the failed renewal", |r| (r.calls.len() >= 2).then_some(())).await?;
    ensure!(manager.get(&identity).await?.not_after >= first.not_after);
    setup.plane.wait("the next attempt", |r| (r.calls.len() >= 3).then_some(())).await?;
    let renewed = async || {
        ensure!(manager.get(&identity).await?.not_after > first.not_after);
        Ok(())
    };
    until("the renewed certificate", renewed).await
}

#[tokio::test(flavor = "multi_thread")]
async fn old_and_new_roots_are_trusted_together() -> Result<()> {
    let setup = Setup::new().await?;
    let manager = setup.manager()?;
    manager.get(&identities::of("a")).await?;
    setup.plane.rotate_root()?;
    let renewed = async || {
        let certificate = manager.get(&identities::of("b")).await?;
        let roots = identities::roots(&certificate)?;
        ensure!(["Test root 0", "Test root 1"].iter().all(|root| roots.iter().any(|found| found == root)));
        Ok(())
    };
    until("both roots", renewed).await
}
