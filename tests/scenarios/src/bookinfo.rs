//! Bookinfo on three nodes: one request and the connections that it makes, told by both ends of each, and three versions of one service.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use harness::{Agent, Narrator, Reply};
use interop_tests::chance::ensure_share;
use interop_tests::load::Load;
use interop_tests::{HBONE, NAMESPACE, identity};
use serde_json::Value;

use crate::books::{Book, PRODUCTPAGE, perform};
use crate::look::{access_log, ask, counted, culvert, field};
use crate::stage::Stage;

/// Versions of the reviews, and whose stars they show.
const VERSIONS: [&str; 3] = ["v1", "v2", "v3"];
const CONNECTIONS: usize = 4;
const EACH: usize = 15;
/// The path of the first request; nobody but its servers may read it.
const SECRET: &str = "/productpage?who=normal-user";

pub(crate) fn play(say: &mut Narrator) -> Result<()> {
    let mut stage = set(say)?;
    stage.open(say)?;
    let first = one_request(say, &stage)?;
    both_ends(say, &stage)?;
    let second = explained(say, &stage)?;
    versions(say, &stage, [first, second])
}

fn set(say: &mut Narrator) -> Result<Stage> {
    say.step("Three nodes, and Bookinfo on them: productpage asks details and reviews, reviews v2 and v3 ask ratings");
    let mut stage = Stage::new(3)?;
    stage.member("sleep", "sleep", 1)?;
    for (book, pods) in [
        (Book::Productpage, [("v1", 1)].as_slice()),
        (Book::Details, &[("v1", 2)]),
        (Book::Reviews, &[("v1", 2), ("v2", 2), ("v3", 3)]),
        (Book::Ratings, &[("v1", 3)]),
    ] {
        let service = book.announce(&mut stage);
        for (version, node) in pods {
            perform(&mut stage, &service, book, version, *node)?;
        }
    }
    Ok(stage)
}

/// Which version answered.
fn version(reply: &Reply) -> Result<String> {
    let body: Value = serde_json::from_str(&reply.body).with_context(|| reply.body.clone())?;
    let app = body.pointer("/reviews/app").and_then(Value::as_str);
    let version = app.and_then(|app| app.strip_prefix("reviews-"));
    Ok(version.with_context(|| format!("no reviews in {body}"))?.to_owned())
}

/// One request: returns which version of the reviews took part.
fn one_request(say: &mut Narrator, stage: &Stage) -> Result<String> {
    say.step("sleep asks for the page: four services take part, and each sees who asks it");
    let tap = stage.wire.tap()?;
    let (sleep, page) = (stage.pod("sleep")?, stage.pod("productpage")?);
    let [to, _] = Book::Productpage.addresses();
    let reply = ask(say, sleep, "GET", to, SECRET)?;
    let body: Value = serde_json::from_str(&reply.body).with_context(|| reply.body.clone())?;
    let said = |place: &str| body.pointer(place).and_then(Value::as_str).unwrap_or_default().to_owned();
    let answered = (reply.status, said("/app"), said("/details/app"));
    say.equal("productpage and details answer", &answered, &(200, "productpage".into(), "details".into()));
    for (place, from, own) in [
        ("/peer", "sleep", sleep.ipv4().to_string()),
        ("/details/peer", "productpage", page.ipv4().to_string()),
    ] {
        let peer = said(place);
        let seen = peer.rsplit_once(':').map_or("", |(ip, _)| ip);
        say.equal(&format!("the server sees the address of {from} itself"), &seen, &own.as_str());
    }
    let (ports, is_readable) = (tap.ports()?, tap.contains(b"normal-user")?);
    say.equal(
        "between the nodes all of it is TLS to port 15008",
        &(is_readable, ports),
        &(false, [HBONE].into()),
    );
    version(&reply)
}

/// What the nodes of a connection say of it.
fn both_ends(say: &mut Narrator, stage: &Stage) -> Result<()> {
    say.step("The connection from productpage to details, told by both nodes");
    let (from, to) = (r#"src.workload="productpage""#, r#"dst.workload="details""#);
    let mut lines = Vec::new();
    for (pod, direction) in [("productpage", "outbound"), ("details", "inbound")] {
        let agent = stage.agent(pod)?;
        say.ran(&format!("grep access {}", agent.log_path().display()));
        let direction = format!("direction=\"{direction}\"");
        lines.push(access_log(say, agent, &[from, to, &direction])?);
    }
    let [client, server] = lines.try_into().map_err(|_| anyhow::anyhow!("two lines"))?;
    for (what, line) in [("client", &client), ("server", &server)] {
        let who = (field(line, "src.identity")?, field(line, "dst.identity")?);
        let expected = (identity(PRODUCTPAGE), identity(Book::Details.account()));
        say.equal(
            &format!("the {what}'s node knows both identities"),
            &who,
            &(expected.0.as_str(), expected.1.as_str()),
        );
        let service = format!("details.{NAMESPACE}.svc.cluster.local");
        say.equal(
            &format!("the {what}'s node knows the service that was asked for"),
            &field(line, "dst.service")?,
            &service.as_str(),
        );
    }
    let bytes = |line, way| -> Result<String> { Ok(field(line, way)?.to_owned()) };
    let one = (bytes(&client, "bytes_sent")?, bytes(&client, "bytes_recv")?);
    let other = (bytes(&server, "bytes_recv")?, bytes(&server, "bytes_sent")?);
    say.equal("what one end sent, the other received", &other, &one);
    Ok(())
}

/// What the command line says of the same way: returns which version answered the request that this takes.
fn explained(say: &mut Narrator, stage: &Stage) -> Result<String> {
    say.step("Why it goes there, and what is open");
    let [_, reviews] = Book::Reviews.addresses();
    let page = format!("{NAMESPACE}/productpage");
    let (code, text) = culvert(say, stage, "productpage", &["trace", &page, "--to", &reviews.to_string()])?;
    let all = VERSIONS.iter().all(|version| text.contains(&format!("reviews-{version}")));
    say.check(
        "`culvert trace` names the three endpoints and carries to each",
        if code == 0 && all { Ok(()) } else { Err(anyhow::anyhow!("expected exit code 0, saw {code}")) },
    );
    let [to, _] = Book::Productpage.addresses();
    let mut open = stage.pod("sleep")?.open_http(to)?;
    let reviewed = version(&open.get("/productpage")?)?;
    let (_, text) = culvert(say, stage, "sleep", &["connections", &format!("{NAMESPACE}/sleep")])?;
    let shown = text.lines().any(|line| line.contains("mTLS") && line.contains(&page));
    say.claim(shown, "`culvert connections` shows the one that is open, and whom it leads to");
    Ok(reviewed)
}

/// Many requests: each version has its share, and the agents have counted each connection once.
fn versions(say: &mut Narrator, stage: &Stage, before: [String; 2]) -> Result<()> {
    let total = CONNECTIONS * EACH;
    say.step(&format!("{total} more requests: three versions of the reviews take turns"));
    let [_, to] = Book::Productpage.addresses();
    let answers = Load::get(stage.pod("sleep")?, to, "/productpage").send(CONNECTIONS, EACH)?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (reply, _) in &answers {
        ensure!(reply.status == 200, "{} {}", reply.status, reply.body);
        *counts.entry(version(reply)?).or_default() += 1;
    }
    say.ran(&format!("sleep: GET http://{to}/productpage    ({total} times)"));
    say.saw(&format!("reviews of {counts:?}"));
    for version in VERSIONS {
        let count = counts.get(version).copied().unwrap_or_default();
        say.check(
            &format!("{version} has a third of them, as chance has it"),
            ensure_share(version, count, total, 1.0 / 3.0),
        );
    }
    let stars: Result<()> = answers.iter().try_for_each(|(reply, _)| {
        let has_stars = reply.body.contains(r#""ratings""#);
        ensure!(has_stars == (version(reply)? != "v1"), "{}", reply.body);
        Ok(())
    });
    say.check("v2 and v3 show stars, and v1 does not", stars);

    let agents: Vec<&Agent> = stage.agents().iter().collect();
    let (from, service) = (identity(PRODUCTPAGE), Book::Reviews.name());
    for version in VERSIONS {
        let labels = [
            ("reporter", "destination"),
            ("source_principal", from.as_str()),
            ("destination_service_name", service),
            ("destination_canonical_revision", version),
            ("connection_security_policy", "mutual_tls"),
        ];
        // What was asked in the steps before is counted, too.
        let earlier = before.iter().filter(|known| *known == version).count();
        let known = counts.get(version).copied().unwrap_or_default() + earlier;
        let claim = format!("the agents have counted each connection to {version} once");
        counted(say, &claim, &agents, ("istio_tcp_connections_opened_total", &labels), known)?;
    }
    Ok(())
}
