//! A new version gets a tenth of the requests, and all that ask for it by a header: what only a proxy of HTTP can do, at a waypoint.

use anyhow::{Result, ensure};
use harness::Narrator;
use interop_tests::chance::ensure_share;
use interop_tests::load::Load;
use interop_tests::{Envoy, identity};

use crate::books::{Book, PORT, PRODUCTPAGE};
use crate::look::{ask, metric};
use crate::stage::{Stage, at};
use crate::waypoint::{self, CLIENT, WAYPOINT, version};

/// Requests of each family of addresses, and on how many connections.
const CONNECTIONS: usize = 5;
const EACH: usize = 30;
/// What the second version gets.
const SHARE: f64 = 0.1;
/// Who asks for the second version by name.
const CHOSEN: usize = 20;

pub(crate) fn play(say: &mut Narrator) -> Result<()> {
    say.step(
        "Two nodes; reviews v1 and v2, and in front of their service a waypoint: 90 % to v1, 10 % to v2",
    );
    let mut stage = waypoint::set(&[CLIENT])?;
    stage.open(say)?;
    let envoy = waypoint::start(say, &stage, None)?;
    waypoint::leads_there(say, &stage)?;
    one(say, &stage, &envoy)?;
    let [v1, v2] = many(say, &stage)?;
    let chosen = by_header(say, &stage)?;
    // The request of the first step went to one of them, too.
    counted(say, &stage, &envoy, v1 + v2 + chosen + 1)
}

/// One request, seen by everybody who has a part in it.
fn one(say: &mut Narrator, stage: &Stage, envoy: &Envoy) -> Result<()> {
    say.step("One request: the waypoint knows who asks, the reviews know the waypoint");
    let client = stage.pod("productpage")?;
    let [to, _] = Book::Reviews.addresses();
    let reply = ask(say, client, "GET", to, "/reviews/0?first")?;
    let from = format!("from={}:", client.ipv4());
    let line = envoy.wait_for_log(&["access http GET", "/reviews/0?first", "code=200", &from])?;
    say.saw(&format!("the waypoint: {line}"));
    let line = envoy.wait_for_log(&["access connect_terminate", &to.to_string(), &identity(PRODUCTPAGE)]);
    say.check("the waypoint knows the client by its certificate", line.map(drop));
    let seen = reply.peer()?.ip();
    say.equal("the reviews see the waypoint, which asks them", &seen, &stage.pod(WAYPOINT)?.ipv4().into());
    Ok(())
}

/// Many requests, split by chance: returns how many each version got.
fn many(say: &mut Narrator, stage: &Stage) -> Result<[usize; 2]> {
    let total = 2 * CONNECTIONS * EACH;
    say.step(&format!("{total} requests, half of them over IPv6"));
    let mut counts = [0, 0];
    for to in Book::Reviews.addresses() {
        for (reply, _) in Load::get(stage.pod("productpage")?, to, "/reviews/0").send(CONNECTIONS, EACH)? {
            let [v1, v2] = &mut counts;
            *(if version(&reply)? == "v1" { v1 } else { v2 }) += 1;
        }
    }
    let [v1, v2] = counts;
    say.saw(&format!("reviews v1: {v1}, reviews v2: {v2}"));
    say.equal("every one was answered", &(v1 + v2), &total);
    say.check("v2 has a tenth of them, as chance has it", ensure_share("v2", v2, total, SHARE));
    Ok(counts)
}

/// Requests that name their version: returns how many.
fn by_header(say: &mut Narrator, stage: &Stage) -> Result<usize> {
    say.step("Who sends `x-version: v2` gets v2, always");
    let [to, _] = Book::Reviews.addresses();
    let load =
        Load { headers: &[("x-version", "v2")], ..Load::get(stage.pod("productpage")?, to, "/reviews/0") };
    let answers = load.send(1, CHOSEN)?;
    let of_v2: Result<()> = answers.iter().try_for_each(|(reply, _)| {
        let version = version(reply)?;
        ensure!(version == "v2", "expected v2, saw {version}");
        Ok(())
    });
    say.check(&format!("all of {CHOSEN} are answered by v2"), of_v2);
    Ok(CHOSEN)
}

/// What waypoint and agents have counted of it.
fn counted(say: &mut Narrator, stage: &Stage, envoy: &Envoy, requests: usize) -> Result<()> {
    say.step("What the waypoint and the reviews' agent have counted");
    let mut all = 0;
    for pod in ["reviews-v1", "reviews-v2"] {
        for to in at(stage.pod(pod)?.addresses(), PORT) {
            let name = format!("cluster.{}.upstream_rq_total", to.to_string().replace(':', "_"));
            let count = envoy.stat(&name)?;
            say.saw(&format!("{name} {count}"));
            all += usize::try_from(count)?;
        }
    }
    say.equal("the waypoint has counted each request once", &all, &requests);
    let from = identity(WAYPOINT);
    let agent = stage.agent("reviews-v1")?;
    for version in ["v1", "v2"] {
        let labels = [
            ("reporter", "destination"),
            ("source_principal", from.as_str()),
            ("destination_canonical_revision", version),
            ("connection_security_policy", "mutual_tls"),
        ];
        let opened = metric(say, &[agent], "istio_tcp_connections_opened_total", &labels)?;
        say.claim(opened >= 1.0, &format!("{version} was reached through tunnels of the waypoint"));
    }
    let others = metric(
        say,
        &[agent],
        "istio_tcp_connections_opened_total",
        &[("source_principal", &identity(PRODUCTPAGE))],
    )?;
    say.equal("and by nobody else", &others, &0.0);
    Ok(())
}
