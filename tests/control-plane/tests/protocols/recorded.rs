//! What a real istiod said, played byte for byte to the agent's clients, one test for each recording.
//!
//! After each step the store holds what the readable view says and nothing else; a policy that is in force for a workload
//! before and after was so at every moment between; and what the client sends is, field by field, what the recorded one sent.

mod model;
mod readable;
mod replay;

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use control::certificates::CertificateError;
use control::xds::Parts;
use control_plane::wire::discovery::{ADDRESS, Request};
use control_plane::{Admission, Answer, Chain};
use mesh::Identity;
use prost::Message as _;
use recordings::{Line, certificates, conversation};
use tonic::Code;

use self::replay::{Asked, INVALID_ARGUMENT, Replay};
use crate::agent::{Setup, until};
use crate::identities;

const DETAILS: &str = "Kubernetes//Pod/bookinfo/details-v1-6cbd7b5d9c-11xyz";
/// How many refusals are waited for, and the least time that the waits between them take: 10 ms, doubled each time, less a
/// fifth.
const REFUSALS: usize = 6;
const BACKED_OFF: Duration = Duration::from_millis((10 + 20 + 40 + 80 + 160) * 4 / 5);

/// The agent that was recorded, of node-a or node-b.
fn node(letter: &str, network: Option<&str>) -> Parts {
    Parts {
        name: format!("ztunnel-{letter}"),
        namespace: "istio-system".to_owned(),
        instance_ip: if letter == "a" { [10, 1, 0, 5].into() } else { [10, 1, 1, 5].into() },
        node_name: format!("node-{letter}"),
        cluster_id: "Kubernetes".to_owned(),
        service_account: Some("ztunnel".to_owned()),
        network: network.map(str::to_owned),
    }
}

fn recorded(name: &str) -> Result<Vec<Line>> {
    conversation(&format!("istiod/{name}"))
}

/// Plays a recording to a new client.
async fn played(name: &str, parts: Parts, on_demand: bool, steps: usize) -> Result<Replay> {
    let lines = recorded(name)?;
    let mut replay = Replay::start(&lines, parts, on_demand).await?;
    let played = replay.run(&lines, |_, _| Ok(())).await?;
    ensure!(played == steps, "{played} steps");
    Ok(replay)
}

#[tokio::test(flavor = "multi_thread")]
async fn wildcard() -> Result<()> {
    let lines = recorded("wildcard")?;
    let replay = played("wildcard", node("a", None), false, steps(&lines)).await?;
    let stream = replay.setup.stream()?;
    let nacks: Vec<_> = stream.nacks().filter_map(|nack| nack.error_detail.as_ref()).collect();
    let [nack] = nacks.as_slice() else { bail!("{nacks:?}") };
    ensure!(
        nack.code == INVALID_ARGUMENT && nack.message.contains("Kubernetes//Pod/bookinfo/refused"),
        "{nack:?}"
    );
    Ok(())
}

fn steps(lines: &[Line]) -> usize {
    lines.iter().filter(|line| line.step.is_some()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn reconnect() -> Result<()> {
    let before = recorded("wildcard")?;
    let mut replay = played("wildcard", node("a", None), false, steps(&before)).await?;
    let lines = recorded("reconnect")?;
    // What that client held is what ours holds, but for what it has made up.
    let first = lines.iter().find(|line| line.sent.is_some()).context("a request")?;
    let mut theirs = Asked::of(Request::decode(first.raw.as_slice())?)?.versions;
    let mut ours = replay.model.versions(ADDRESS);
    ensure!(theirs.remove("Kubernetes//Pod/bookinfo/gone-while-away").is_some());
    ensure!(theirs.remove(DETAILS).as_deref() == Some("outdated") && ours.remove(DETAILS).is_some());
    ensure!(ours == theirs, "{ours:?}\n{theirs:?}");
    let held = replay.agent.mesh();
    replay.come_back(&lines).await?;
    let played = replay
        .run(&lines, |step, mesh| {
            let same = std::ptr::eq(mesh, &*held);
            ensure!(same || !step.starts_with("subscribe"), "what is held already is no change");
            Ok(())
        })
        .await?;
    ensure!(played == steps(&lines), "{played} steps");
    ensure!(replay.agent.mesh().policy("bookinfo/deny-nothing").is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_demand() -> Result<()> {
    let lines = recorded("on_demand")?;
    played("on_demand", node("b", None), true, steps(&lines)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_demand_reconnect() -> Result<()> {
    let before = recorded("on_demand")?;
    let mut replay = played("on_demand", node("b", None), true, steps(&before)).await?;
    let lines = recorded("on_demand_reconnect")?;
    let first = lines.iter().find(|line| line.sent.is_some()).context("a request")?;
    let mut theirs = Asked::of(Request::decode(first.raw.as_slice())?)?.versions;
    // Nobody waits for that key here.
    ensure!(theirs.remove("/203.0.113.251").is_some());
    ensure!(replay.model.versions(ADDRESS) == theirs, "{theirs:?}");
    replay.come_back(&lines).await?;
    // The rest is what comes of unsubscribing from one name, which we never do.
    let played = replay.run(&lines, |_, _| Ok(())).await?;
    ensure!(played == 2, "{played} steps");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn networks() -> Result<()> {
    let lines = recorded("networks")?;
    played("networks", node("a", Some("net-a")), false, steps(&lines)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_on_demand() -> Result<()> {
    let lines = recorded("networks_on_demand")?;
    played("networks_on_demand", node("b", Some("net-a")), true, steps(&lines)).await?;
    Ok(())
}

/// The status at the end of a recording.
fn closed(lines: &[Line]) -> Result<(Code, String)> {
    let closed = lines.iter().find_map(|line| line.closed.as_ref()).context("an end")?;
    Ok((code(&closed.code)?, closed.message.clone()))
}

fn code(name: &str) -> Result<Code> {
    Ok(match name {
        "UNAUTHENTICATED" => Code::Unauthenticated,
        "PERMISSION_DENIED" => Code::PermissionDenied,
        "INVALID_ARGUMENT" => Code::InvalidArgument,
        "UNAVAILABLE" => Code::Unavailable,
        other => bail!("{other}"),
    })
}

/// Nothing is known, nothing is held to be complete, it is counted, and tried again until it goes well. That client could say
/// of itself what ours refuses to: then its requests are not compared.
async fn refused(name: &str, parts: Parts, compared: bool) -> Result<()> {
    let lines = recorded(name)?;
    let (code, message) = closed(&lines)?;
    let setup = Setup::new().await?;
    setup.plane.admit_next(Admission::Mute);
    let agent = setup.agent_as(parts, false)?;
    let subscribed = |records: &control_plane::records::Records| {
        records.last().filter(|stream| stream.requests.len() == 2).cloned()
    };
    let stream = setup.plane.wait("both subscriptions", subscribed).await?;
    let mut asked = Vec::new();
    for line in lines.iter().filter(|line| line.sent.is_some()) {
        asked.push(Asked::of(Request::decode(line.raw.as_slice())?)?);
    }
    let ours = stream.requests.into_iter().map(Asked::of).collect::<Result<Vec<_>>>()?;
    ensure!(asked.len() == 2 && (ours == asked) == compared, "{ours:#?}\n{asked:#?}");
    ensure!(agent.pending().len() == 2 && agent.mesh().workloads().next().is_none());
    setup.plane.end_streams(code, &message).await;
    agent.until_pending(0).await?;
    let count = "istio_xds_connection_terminations_total{reason=\"Error\"} 1";
    ensure!(agent.metrics()?.contains(count), "{}", agent.metrics()?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_no_token() -> Result<()> {
    refused("refused_no_token", node("a", None), true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_bad_token() -> Result<()> {
    refused("refused_bad_token", node("a", None), true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_node_id() -> Result<()> {
    refused("refused_node_id", node("a", None), false).await
}

/// Who says that it is of another namespace than its token is refused, on each stream anew; it never becomes ready.
#[tokio::test(flavor = "multi_thread")]
async fn refused_namespace() -> Result<()> {
    let lines = recorded("refused_namespace")?;
    let (code, message) = closed(&lines)?;
    let setup = Setup::new().await?;
    let began = std::time::Instant::now();
    let agent = setup.agent_as(Parts { namespace: "bookinfo".to_owned(), ..node("a", None) }, false)?;
    let refused = |records: &control_plane::records::Records| {
        let ended: Vec<_> = records.streams.iter().filter(|stream| stream.ended).cloned().collect();
        (ended.len() >= REFUSALS).then_some(ended)
    };
    let streams = setup.plane.wait("refusals", refused).await?;
    ensure!(began.elapsed() >= BACKED_OFF, "{:?}", began.elapsed());
    let first = lines.iter().find(|line| line.sent.is_some()).context("a request")?;
    let asked = Asked::of(Request::decode(first.raw.as_slice())?)?;
    for stream in streams {
        ensure!(stream.status == Some((code, message.clone())), "{:?}", stream.status);
        ensure!(stream.sent.is_empty(), "{:?}", stream.sent);
        let ours = stream.requests.into_iter().next().context("a request")?;
        ensure!(Asked::of(ours)? == asked, "{asked:#?}");
    }
    ensure!(agent.pending().len() == 2 && agent.published() == 0);
    ensure!(!agent.metrics()?.contains("reason=\"Reconnect\""), "{}", agent.metrics()?);
    Ok(())
}

/// The connection is told to go and closed: by age here, below by an istiod that is stopped. It is no error, what is held
/// stays as it is at every moment, and the next stream begins with it.
async fn ended(name: &str) -> Result<()> {
    let lines = recorded(name)?;
    let (code, _) = closed(&lines)?;
    ensure!(code == Code::Unavailable, "{code:?}");
    let mut replay = played(name, node("a", None), false, steps(&lines)).await?;
    let held = replay.model.versions(ADDRESS);
    let (mesh, published) = (replay.agent.mesh(), replay.agent.published());
    ensure!(!held.is_empty() && replay.agent.pending().is_empty());
    replay.come_back(&lines).await?;
    let stream = replay.setup.stream()?;
    let again = stream.of(ADDRESS).next().cloned().context("a request")?;
    ensure!(Asked::of(again)?.versions == held);
    let terminations: Vec<_> = replay
        .agent
        .metrics()?
        .lines()
        .filter(|line| line.starts_with("istio_xds_connection_terminations_total{"))
        .map(str::to_owned)
        .collect();
    ensure!(
        terminations == ["istio_xds_connection_terminations_total{reason=\"Reconnect\"} 1"],
        "{terminations:?}"
    );
    replay.run(&lines, |_, _| Ok(())).await?;
    ensure!(std::ptr::eq(&*replay.agent.mesh(), &*mesh) && replay.agent.published() == published);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_by_age() -> Result<()> {
    ended("ended_by_age").await
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_by_restart() -> Result<()> {
    ended("ended_by_restart").await
}

/// What was signed is for keys that were thrown away: it is judged in the tests of the client. Here: each refusal is told in
/// the authority's words, and the identity is tried again; a certificate of another trust domain is refused by us.
#[tokio::test(flavor = "multi_thread")]
async fn certificates() -> Result<()> {
    let calls = certificates::calls("istiod/certificates")?;
    let mut refusals = 0;
    for call in &calls {
        let identity: Identity = call.identity.parse()?;
        let answer = match &call.error {
            Some(error) => Answer::Refuse(code(&error.code)?, error.message.clone()),
            None if call.about == "another trust domain" => Answer::WrongIdentity(call.identity.clone()),
            None => continue,
        };
        let setup = Setup::new().await?;
        setup.plane.answer(answer);
        let manager = setup.impatient_manager()?;
        let wanted = if call.error.is_some() { identity } else { identities::of("sleep") };
        let Err(error) = manager.get(&wanted).await else { bail!("{}: signed", call.about) };
        ensure!(!matches!(error, CertificateError::TimedOut { .. }), "{}: {error}", call.about);
        let words = call.error.as_ref().map_or(call.identity.as_str(), |error| &error.message);
        ensure!(error.to_string().contains(words), "{}: {error}", call.about);
        setup.plane.answer(Answer::Sign);
        ensure!(setup.until_signed(&manager, &wanted).await?.identity == wanted);
        refusals += 1;
    }
    ensure!(refusals == 8, "{refusals}");
    Ok(())
}

/// Before and after its files were replaced: the chain is the leaf and the intermediate, both roots are trusted.
#[tokio::test(flavor = "multi_thread")]
async fn plugged_in_ca() -> Result<()> {
    let setup = Setup::new().await?;
    setup.plane.chain(Chain::PluggedIn);
    setup.plane.rotate_root()?;
    let manager = setup.manager()?;
    for call in certificates::calls("istiod/plugged_in_ca")? {
        let shape = |pem: &String| pem.matches("BEGIN CERTIFICATE").count();
        let entries: Vec<usize> = call.cert_chain.context("signed")?.iter().map(shape).collect();
        let signed =
            until("a certificate", async || Ok(manager.get(&identities::of("sleep")).await?)).await?;
        let roots = identities::roots(&signed)?.len();
        // Of the chain the root is not sent to peers.
        ensure!(entries == [1, 1, 1, roots] && signed.chain.len() == 2, "{entries:?}, {roots} roots");
    }
    Ok(())
}
