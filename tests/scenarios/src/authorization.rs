//! Who may do what, at two places: the waypoint reads HTTP and decides by method and identity; the agent of the node decides who may connect
//! at all, so that nobody gets past the waypoint.

use anyhow::{Result, ensure};
use harness::Narrator;
use harness::wait::eventually_ok;
use interop_tests::{Envoy, LIMIT, NAMESPACE, identity};

use crate::books::{Book, PORT, PRODUCTPAGE};
use crate::look::{access_log, ask, counted, culvert, refused, sum};
use crate::stage::{Stage, at};
use crate::waypoint::{self, CLIENT, ONLY_WAYPOINT, WAYPOINT};

/// Another account that may read, and one that may nothing; their pods are called alike.
const MONITOR: &str = "monitor";
const BATCH: &str = "batch";
/// Who does what, and with which status it is answered.
const REQUESTS: [(&str, &str, u16); 5] = [
    ("productpage", "GET", 200),
    (MONITOR, "GET", 200),
    ("productpage", "POST", 403),
    (MONITOR, "DELETE", 403),
    (BATCH, "GET", 403),
];
/// Exit codes of `culvert policy check`.
const ALLOWED: i32 = 0;
const DENIED: i32 = 3;

pub(crate) fn play(say: &mut Narrator) -> Result<()> {
    say.step("Two nodes; in front of reviews a waypoint that lets productpage and monitor GET, and nobody do anything else");
    let mut stage = waypoint::set(&[CLIENT, (MONITOR, MONITOR), (BATCH, BATCH)])?;
    waypoint::guard(&mut stage);
    stage.open(say)?;
    let envoy = waypoint::start(say, &stage, Some(&[PRODUCTPAGE, MONITOR]))?;
    let forbidden = requests(say, &stage)?;
    in_metrics(say, &envoy, forbidden)?;
    let count = past_the_waypoint(say, &stage)?;
    at_the_node(say, &stage, count)
}

/// Everybody tries, over both families: returns how many were forbidden.
fn requests(say: &mut Narrator, stage: &Stage) -> Result<usize> {
    say.step("Methods and identities, at the waypoint");
    let mut forbidden = 0;
    for to in Book::Reviews.addresses() {
        for (pod, method, status) in REQUESTS {
            let reply = ask(say, stage.pod(pod)?, method, to, "/reviews/0")?;
            let family = if to.is_ipv4() { "IPv4" } else { "IPv6" };
            say.equal(&format!("{method} by {pod} over {family}"), &reply.status, &status);
            forbidden += usize::from(reply.status == 403);
        }
    }
    Ok(forbidden)
}

/// The waypoint's metrics, as Prometheus reads them.
fn in_metrics(say: &mut Narrator, envoy: &Envoy, forbidden: usize) -> Result<()> {
    say.step("The 403s in the waypoint's metrics");
    say.ran("curl http://127.0.0.1:15000/stats/prometheus    (in the waypoint's pod)");
    let (manager, class) = (r#"envoy_http_conn_manager_prefix="http""#, r#"envoy_response_code_class="4""#);
    for (name, labels) in
        [("envoy_http_downstream_rq_xx", [class, manager].as_slice()), ("envoy_http_rbac_denied", &[manager])]
    {
        let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        let seen = eventually_ok(name, LIMIT, || {
            let seen = sum(&envoy.admin("GET", "/stats/prometheus")?.body, name, &labels);
            ensure!(seen == forbidden as f64, "expected {forbidden}, saw {seen}");
            Ok(seen)
        });
        if let Ok(seen) = &seen {
            say.saw(&format!("{name}{{{}}} {seen}", labels.join(", ")));
        }
        say.check(&format!("{name} counts the {forbidden} that were forbidden"), seen.map(drop));
    }
    Ok(())
}

/// Straight to a pod: returns how many attempts were refused.
fn past_the_waypoint(say: &mut Narrator, stage: &Stage) -> Result<usize> {
    say.step("Past the waypoint nobody gets in, whoever he is: the node's agent takes connections of the waypoint alone");
    let mut count = 0;
    for to in at(stage.pod("reviews-v1")?.addresses(), PORT) {
        for pod in ["productpage", BATCH] {
            say.ran(&format!("{pod}: GET http://{to}/reviews/0"));
            let attempt = stage.pod(pod)?.attempt(to, "/reviews/0")?;
            refused(say, &format!("{pod} is refused at {to}"), &attempt);
            count += usize::from(attempt.is_refused());
        }
    }
    Ok(count)
}

/// What the agent says of it: its log, its metrics, its command line.
fn at_the_node(say: &mut Narrator, stage: &Stage, denied: usize) -> Result<()> {
    say.step("The node's agent says so: its log, its metrics, and its command line, before anybody tries");
    let agent = stage.agent("reviews-v1")?;
    let from = format!("src.identity=\"{}\"", identity(BATCH));
    let line = access_log(say, agent, &[&from, "direction=\"inbound\"", "policy rejection"]);
    say.check("the access log names the client and the reason", line.map(drop));
    let denials = ("culvert_policy_denials_total", [("reason", "not_allowed")].as_slice());
    counted(say, "each refusal is counted once", &[agent], denials, denied)?;
    let (to, port) = (format!("{NAMESPACE}/reviews-v1"), PORT.to_string());
    for (account, expected) in [(BATCH, DENIED), (PRODUCTPAGE, DENIED), (WAYPOINT, ALLOWED)] {
        let from = identity(account);
        let words = ["policy", "check", "--from", &from, "--to", &to, "--port", &port];
        let (code, text) = culvert(say, stage, "reviews-v1", &words)?;
        let said = (code, text.contains(ONLY_WAYPOINT));
        say.equal(
            &format!("`culvert policy check` decides about {account} by {ONLY_WAYPOINT}"),
            &said,
            &(expected, true),
        );
    }
    Ok(())
}
