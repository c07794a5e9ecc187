//! Fault injection: a waypoint delays half of the requests to one path by two seconds, and no others.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::Narrator;
use interop_tests::Envoy;
use interop_tests::chance::ensure_share;
use interop_tests::load::Load;

use crate::books::Book;
use crate::stage::Stage;
use crate::waypoint::{self, CLIENT, version};

/// What the waypoint adds.
const DELAY: Duration = Duration::from_secs(2);
/// Envoy counts a delay from when its loop last looked at the clock, which may be before the request has come.
const COARSE: Duration = Duration::from_millis(100);
/// Requests of each family of addresses, each on a connection of its own.
const REQUESTS: usize = 30;
/// What Envoy calls the number of requests that it has delayed.
const INJECTED: &str = "http.http.fault.delays_injected";

pub(crate) fn play(say: &mut Narrator) -> Result<()> {
    say.step("Two nodes; in front of reviews a waypoint that delays half of the requests to /slow by 2 s");
    let mut stage = waypoint::set(&[CLIENT])?;
    stage.open(say)?;
    let envoy = waypoint::start(say, &stage, None)?;
    waypoint::leads_there(say, &stage)?;
    others(say, &stage, &envoy)?;
    slow(say, &stage, &envoy)
}

fn send(say: &mut Narrator, stage: &Stage, path: &str) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for to in Book::Reviews.addresses() {
        say.ran(&format!("productpage: GET http://{to}{path}    ({REQUESTS} at once)"));
        for (reply, took) in Load::get(stage.pod("productpage")?, to, path).send(REQUESTS, 1)? {
            version(&reply)?;
            times.push(took);
        }
    }
    times.sort_unstable();
    let shown: Vec<String> = times.iter().map(|took| format!("{:.1}", took.as_secs_f64())).collect();
    say.saw(&format!("seconds, sorted: {}", shown.join(" ")));
    Ok(times)
}

/// What is asked for by another path.
fn others(say: &mut Narrator, stage: &Stage, envoy: &Envoy) -> Result<()> {
    say.step(&format!("{} requests to another path: none is delayed", 2 * REQUESTS));
    send(say, stage, "/reviews/0")?;
    say.equal("the waypoint has delayed none", &envoy.stat(INJECTED)?, &0);
    Ok(())
}

fn slow(say: &mut Narrator, stage: &Stage, envoy: &Envoy) -> Result<()> {
    let total = 2 * REQUESTS;
    say.step(&format!("{total} requests to /slow: half of them take two seconds longer, and none fails"));
    let times = send(say, stage, "/slow")?;
    let injected = usize::try_from(envoy.stat(INJECTED)?)?;
    say.saw(&format!("{INJECTED} {injected}"));
    say.equal("every one was answered", &times.len(), &total);
    say.check(
        "the waypoint has delayed half of them, as chance has it",
        ensure_share(INJECTED, injected, total, 0.5),
    );
    let late = times.iter().filter(|took| **took >= DELAY - COARSE).count();
    say.check(
        &format!("who was delayed has waited for {DELAY:?}, seen from the client"),
        at_least(late, injected),
    );
    Ok(())
}

/// A busy machine makes more of them late, and none early.
fn at_least(late: usize, injected: usize) -> Result<()> {
    ensure!(late >= injected, "expected {injected} at least, saw {late}");
    Ok(())
}
