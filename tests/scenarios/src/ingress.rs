//! From outside into the mesh: a gateway takes plain HTTP and sends it on through tunnels, as itself; there is no other way in.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use harness::inside::in_netns;
use harness::{Http, Narrator, Reply, client};
use interop_tests::config::Ingress;
use interop_tests::{Envoy, HBONE, NAMESPACE, identity};
use serde_json::{Value, json};

use crate::books::{Book, PORT, PRODUCTPAGE, perform};
use crate::look::{access_log, metric, refused, show};
use crate::stage::{Stage, at};

/// The account of the gateway and the name of its pod.
const GATEWAY: &str = "gateway";
/// Where it takes plain HTTP.
const HTTP: u16 = 80;
/// What it leads to productpage: one path over IPv4, and one over IPv6.
const PATHS: [&str; 2] = ["/productpage", "/login"];

pub(crate) fn play(say: &mut Narrator) -> Result<()> {
    let mut stage = set(say)?;
    stage.open(say)?;
    let _envoy = start(say, &stage)?;
    through(say, &stage)?;
    not_past(say, &stage)
}

/// productpage takes connections of the gateway alone, and details those of productpage alone.
fn set(say: &mut Narrator) -> Result<Stage> {
    say.step(
        "Two nodes: a gateway, an Envoy, on the first; productpage and details on the second; a host outside",
    );
    let mut stage = Stage::new(2)?;
    stage.outsider(GATEWAY, GATEWAY, 1)?;
    for (book, from) in
        [(Book::Productpage, GATEWAY), (Book::Reviews, PRODUCTPAGE), (Book::Details, PRODUCTPAGE)]
    {
        let service = book.announce(&mut stage);
        perform(&mut stage, &service, book, "v1", 2)?;
        let policy = format!("only-{from}");
        let principal = format!("cluster.local/ns/{NAMESPACE}/sa/{from}");
        let known = stage.mesh.policies.iter().any(|known| known.get("name") == Some(&json!(policy)));
        if !known {
            stage.mesh.policies.push(json!({
                "name": policy, "namespace": NAMESPACE, "scope": "WorkloadSelector", "action": "Allow",
                "rules": [[[{ "principals": [{ "Exact": principal }] }]]],
            }));
        }
        let of_it =
            stage.mesh.workloads.iter_mut().filter(|workload| workload.service_account == book.account());
        of_it.for_each(|workload| workload.authorization_policies = vec![format!("{NAMESPACE}/{policy}")]);
    }
    Ok(stage)
}

/// The gateway leads two paths to productpage, and nothing else anywhere.
fn start(say: &mut Narrator, stage: &Stage) -> Result<Envoy> {
    let gateway = stage.pod(GATEWAY)?;
    let own = stage.credentials(GATEWAY)?;
    let pages = at(stage.pod("productpage")?.addresses(), PORT);
    let ingress = Ingress {
        on: at(gateway.addresses(), HTTP),
        own: &own,
        routes: PATHS.into_iter().zip(pages).collect(),
        destinations: vec![identity(PRODUCTPAGE)],
    };
    let envoy = Envoy::start(gateway, &ingress.bootstrap())?;
    say.saw(&format!("{GATEWAY}: Envoy on {}, as {}", gateway.ipv4(), identity(GATEWAY)));
    Ok(envoy)
}

/// A request of the host outside.
fn from_outside(stage: &Stage, to: SocketAddr, path: &str) -> Result<Reply> {
    let stream = in_netns(&stage.outside.netns, || client::connect(to, client::LIMIT))?;
    Http::new(stream.with_context(|| format!("a host outside connecting to {to}"))?)?.get(path)
}

fn through(say: &mut Narrator, stage: &Stage) -> Result<()> {
    say.step("A host outside, which knows of no mesh, asks the gateway");
    let tap = stage.wire.tap()?;
    let gateway = stage.pod(GATEWAY)?;
    for ((to, path), own) in at(gateway.addresses(), HTTP).into_iter().zip(PATHS).zip(gateway.addresses()) {
        say.ran(&format!("outside: GET http://{to}{path}"));
        let reply = from_outside(stage, to, path)?;
        show(say, &reply);
        say.equal("productpage answers", &(reply.status, reply.field("app").as_str()), &(200, "productpage"));
        let body: Value = serde_json::from_str(&reply.body).unwrap_or_default();
        let details = body.pointer("/details/app").and_then(Value::as_str);
        say.equal("so does details, which it asks", &details, &Some("details"));
        say.equal("productpage sees the gateway", &reply.peer()?.ip(), &own);
    }
    let [to, _] = at(gateway.addresses(), HTTP);
    say.equal(
        "what the gateway has no route for is not found",
        &from_outside(stage, to, "/details")?.status,
        &404,
    );
    let expected = [HTTP, HBONE].into();
    say.equal("on the wire there is HTTP to the gateway, and tunnels", &tap.ports()?, &expected);

    let agent = stage.agent("productpage")?;
    let from = format!("src.identity=\"{}\"", identity(GATEWAY));
    let opened = [
        ("reporter", "destination"),
        ("source_principal", &identity(GATEWAY)),
        ("destination_workload", "productpage"),
    ];
    let mutual = ("connection_security_policy", "mutual_tls");
    let labels: Vec<(&str, &str)> = opened.into_iter().chain([mutual]).collect();
    let count = metric(say, &[agent], "istio_tcp_connections_opened_total", &labels)?;
    say.claim(count >= 1.0, "the agent of productpage knows the gateway by its certificate");
    let line = access_log(say, agent, &[&from, "direction=\"inbound\""]);
    say.check("and tells it when a connection has ended", line.map(drop));
    Ok(())
}

fn not_past(say: &mut Narrator, stage: &Stage) -> Result<()> {
    say.step("There is no other way in");
    for (name, account) in [("productpage", GATEWAY), ("details", PRODUCTPAGE)] {
        for to in at(stage.pod(name)?.addresses(), PORT) {
            say.ran(&format!("outside: GET http://{to}/"));
            let connected = in_netns(&stage.outside.netns, || client::connect(to, client::LIMIT))?;
            let attempt = client::attempt(connected, "/");
            refused(say, &format!("{name} refuses who is not {account}, at {to}"), &attempt);
        }
    }
    Ok(())
}
