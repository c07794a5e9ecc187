//! The command line against real agents: what it shows is so, and what `culvert trace` says of a connection is what becomes of it.

#![expect(clippy::indexing_slicing, reason = "a test fails as well by a panic")]

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, bail, ensure};
use harness::mesh_file::{Gateway, Service, Workload};
use harness::{Attempt, Node, Pod, eventually};
use netns_tests::{Bare, HTTP, LIMIT, SERVICE, WEB, World, at, ips, lock};
use serde_json::{Value, json};

/// A second server's port, on every pod.
const OTHER: u16 = 8081;
/// The service's port for it, and one that the service does not have.
const SECOND: u16 = 81;
const NO_PORT: u16 = 82;
const FLOWS: usize = 200;
/// The policies change so often.
const ROUNDS: usize = 5;
/// Names the seed of a run that is to be repeated.
const SEED: &str = "CULVERT_TRACE_SEED";

/// `culvert` with these words, asking the agent of a node: exit code, stdout and stderr.
fn culvert(world: &World, node: &Node, words: &[&str]) -> Result<(i32, String, String)> {
    let line = world.agent1.command_line()?;
    let (program, _) = line.split_first().context("program")?;
    let mut asked = std::process::Command::new(program);
    asked.args(words).arg("--run-dir").arg(node.agent_dir());
    let ended = harness::command::finish(&mut asked, b"")?;
    Ok((ended.status.code().context("killed")?, ended.stdout, ended.stderr))
}

/// The same, with the answer as JSON.
fn asked(world: &World, node: &Node, words: &[&str]) -> Result<(i32, Value)> {
    let words: Vec<&str> = words.iter().copied().chain(["-o", "json"]).collect();
    let (code, stdout, stderr) = culvert(world, node, &words)?;
    let value =
        serde_json::from_str(&stdout).with_context(|| format!("{words:?}: {code} {stdout}{stderr}"))?;
    Ok((code, value))
}

/// Random numbers that a seed repeats (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap_or_default()
    }

    fn one_of<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// A policy of chance over the namespace, or over who lists it.
    fn policy(&mut self, name: &str, addresses: &[IpAddr]) -> Value {
        let mut condition = serde_json::Map::new();
        let account = self.one_of(&["client", "neighbour", "server"]);
        let principal = json!([{ "Exact": format!("cluster.local/ns/demo/sa/{account}") }]);
        if self.below(2) == 0 {
            condition.insert(self.one_of(&["principals", "notPrincipals"]).into(), principal);
        }
        if condition.is_empty() || self.below(2) == 0 {
            let port = self.one_of(&[HTTP, OTHER]);
            condition.insert(self.one_of(&["destinationPorts", "notDestinationPorts"]).into(), json!([port]));
        }
        if self.below(4) == 0 {
            let ip = self.one_of(addresses);
            let net = format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 });
            condition.insert(self.one_of(&["sourceIps", "notSourceIps"]).into(), json!([net]));
        }
        json!({
            "name": name, "namespace": "demo",
            "scope": self.one_of(&["Namespace", "WorkloadSelector"]),
            "action": self.one_of(&["Allow", "Deny"]),
            "rules": [[[condition]]],
        })
    }
}

/// Services with several endpoints, with one outside of the mesh, with none, and behind a waypoint that is not there.
fn world() -> Result<World> {
    let mut bare = Bare::new()?;
    let pods = [&bare.client, &bare.neighbour, &bare.server, &bare.plain];
    let more = pods.iter().map(|pod| pod.serve_http(OTHER)).collect::<Result<Vec<_>>>()?;
    bare.apps.extend(more);
    let ports = [(SERVICE, HTTP), (SECOND, OTHER)];
    let service = |name: &str, last: u8| {
        let vips = [format!("10.96.0.{last}"), format!("2001:db8:96::{last:x}")];
        let vips = vips.map(|vip| vip.parse().unwrap_or(IpAddr::from([0; 4])));
        Service::new(name, "demo", &vips, &ports)
    };
    let (both, mixed) = (service("both", 101), service("mixed", 102));
    let gate = Service::new("gate", "demo", &[], &[(15008, 15008)]);
    let gated = Service { waypoint: Some(Gateway::of(&gate)), ..service("gated", 104) };
    let plain = Workload::of_pod(&bare.plain).plain().serving(&mixed);
    for workload in &mut bare.mesh.workloads {
        for (name, service) in
            [("neighbour", &both), ("server", &both), ("client", &mixed), ("server", &gated)]
        {
            if workload.name == name {
                *workload = workload.clone().serving(service);
            }
        }
    }
    bare.mesh.workloads.push(plain);
    bare.mesh.services.extend([both, mixed, service("none", 103), gated, gate]);
    bare.enrol()
}

/// Writes other policies, and waits until both agents have them.
fn change(world: &mut World, policies: Vec<Value>) -> Result<()> {
    if policies.is_empty() && world.mesh.policies.is_empty() {
        return Ok(());
    }
    let listed = |policy: &&Value| policy["scope"] == "WorkloadSelector";
    let names: Vec<String> = policies
        .iter()
        .filter(listed)
        .map(|policy| format!("demo/{}", policy["name"].as_str().unwrap_or("")))
        .collect();
    for (number, workload) in world.mesh.workloads.iter_mut().enumerate() {
        let of_this = names.iter().enumerate().filter(|(name, _)| name % 2 == number % 2);
        workload.authorization_policies = of_this.map(|(_, name)| name.clone()).collect();
    }
    world.mesh.policies = policies;
    let applied = |world: &World| {
        [&world.agent1, &world.agent2].map(|agent| agent.log_lines(&["mesh file applied"]).len())
    };
    let before = applied(world);
    world.write_mesh()?;
    eventually("both agents to have the new policies", LIMIT, || {
        let now = applied(world);
        (now[0] > before[0] && now[1] > before[1]).then_some(())
    })
}

/// One of the pods, and one of the places that it can reach.
fn flow<'a>(world: &'a World, dice: &mut Dice) -> (&'a Pod, SocketAddr) {
    let pods = [&world.client, &world.neighbour, &world.server, &world.plain];
    let source = dice.one_of(&pods);
    let family = dice.below(2);
    // A service's address means nothing to who is not captured: no kube-proxy is here.
    if source.name() == "plain" || dice.below(2) == 0 {
        let target = dice.one_of(&pods);
        return (source, SocketAddr::new(target.addresses()[family], dice.one_of(&[HTTP, OTHER])));
    }
    let services = &world.mesh.services;
    let with_vips: Vec<_> = services.iter().filter(|service| !service.vips.is_empty()).collect();
    let vip = &dice.one_of(&with_vips).vips[family];
    let ip = vip.trim_start_matches('/').parse().unwrap_or(IpAddr::from([0; 4]));
    (source, SocketAddr::new(ip, dice.one_of(&[SERVICE, SERVICE, SECOND, SECOND, NO_PORT])))
}

/// What a trace says may become of a connection: which pods may answer, and whether it may be refused.
fn said(world: &World, source: &Pod, to: SocketAddr) -> Result<(BTreeSet<String>, bool, Value)> {
    let from = source.addresses()[usize::from(to.is_ipv6())].to_string();
    let to_text = to.to_string();
    let (code, trace) = asked(world, source.node(), &["trace", &from, "--to", &to_text])?;
    let ways = trace["ways"].as_array().context("ways")?;
    ensure!(!ways.is_empty(), "no way: {trace}");
    let (mut answers, mut refused) = (BTreeSet::new(), false);
    for way in ways {
        if way["carried"] == true {
            let named = way["to"].as_str().map(|pod| pod.trim_start_matches("demo/").to_owned());
            answers.insert(match named {
                Some(name) => name,
                None => of_address(world, to).context("passed through to nobody")?,
            });
        } else {
            refused = true;
        }
    }
    let expected = if refused { 3 } else { 0 };
    ensure!(code == expected, "exit code {code}: {trace}");
    Ok((answers, refused, trace))
}

fn of_address(world: &World, to: SocketAddr) -> Option<String> {
    let pods = [&world.client, &world.neighbour, &world.server, &world.plain];
    Some(pods.iter().find(|pod| pod.addresses().contains(&to.ip()))?.name().to_owned())
}

#[test]
fn a_trace_agrees_with_what_really_happens_on_200_random_flows() -> Result<()> {
    let seed = match std::env::var(SEED) {
        Ok(seed) => seed.parse().context("the seed is a number")?,
        Err(_) => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos() as u64,
    };
    println!("{SEED}={seed}");
    let mut dice = Dice(seed);
    let mut world = world()?;
    let addresses: Vec<IpAddr> = [&world.client, &world.neighbour, &world.server, &world.plain]
        .iter()
        .flat_map(|pod| pod.addresses())
        .collect();
    let (mut answered, mut refused, mut certain) = (0, 0, 0);
    for round in 0..ROUNDS {
        // The first round has none, the second denies one pod everything: so that there is some of each, whatever the seed.
        let policies = match round {
            0 => Vec::new(),
            1 => vec![json!({
                "name": "shut", "namespace": "demo", "scope": "WorkloadSelector", "action": "Deny", "rules": [[]],
            })],
            _ => (0..1 + dice.below(5))
                .map(|number| dice.policy(&format!("chance-{round}-{number}"), &addresses))
                .collect(),
        };
        change(&mut world, policies)?;
        for number in 0..FLOWS / ROUNDS {
            let (source, to) = flow(&world, &mut dice);
            let what = format!("seed {seed}, round {round}, flow {number}: {} to {to}", source.name());
            let (answers, may_be_refused, trace) = said(&world, source, to).context(what.clone())?;
            certain += usize::from(answers.len() + usize::from(may_be_refused) == 1);
            match source.attempt(to, "/").context(what.clone())? {
                Attempt::Answered(reply) => {
                    answered += 1;
                    ensure!(
                        answers.contains(&reply.field("app")),
                        "{what}: {} answered, but {trace:#}",
                        reply.field("app")
                    );
                }
                Attempt::Refused(error) => {
                    refused += 1;
                    ensure!(may_be_refused, "{what}: refused ({error}), but {trace:#}");
                }
                Attempt::TimedOut(error) => bail!("{what}: {error}; {trace:#}"),
            }
        }
    }
    println!("{answered} answered, {refused} refused, {certain} of {FLOWS} with one outcome only");
    ensure!(answered + refused == FLOWS && answered >= 20 && refused >= 20 && certain >= FLOWS / 2);
    Ok(())
}

#[test]
fn every_command_shows_what_is_there() -> Result<()> {
    let mut world = World::new()?;
    let node = world.nodes[0].clone();
    let ask = |world: &World, words: &[&str]| asked(world, &node, words);
    let held = world.client.open_http(at(world.server.addresses(), HTTP)[0])?;
    let (code, pods) = ask(&world, &["pods"])?;
    let names: Vec<_> =
        pods.as_array().context("pods")?.iter().map(|pod| (&pod["pod"], &pod["state"])).collect();
    ensure!(
        code == 0
            && names
                == [
                    (&json!("demo/client"), &json!("enrolled")),
                    (&json!("demo/neighbour"), &json!("enrolled"))
                ]
    );
    let (code, pods) = ask(&world, &["pods", "client"])?;
    ensure!(
        code == 0
            && pods[0]["outbound"] == 1
            && pods[0]["identity"] == "spiffe://cluster.local/ns/demo/sa/client",
        "{pods}"
    );
    let (code, connections) = ask(&world, &["connections", "demo/client"])?;
    let open = &connections[0];
    ensure!(code == 0 && open["direction"] == "outbound" && open["mutualTls"] == true, "{connections}");
    ensure!(
        open["originalDestination"] == at(world.server.addresses(), HTTP)[0].to_string()
            && open["peer"] == "demo/server"
    );
    drop(held);
    eventually("the table to be empty", LIMIT, || {
        (ask(&world, &["connections"]).ok()?.1 == json!([])).then_some(())
    })?;
    eventually("both certificates", LIMIT, || {
        let (code, certificates) = ask(&world, &["cert"]).ok()?;
        let states = certificates.as_array()?.iter().map(|one| one["state"].clone());
        (code == 0 && states.collect::<Vec<_>>() == ["valid", "valid"]).then_some(())
    })?;
    let (code, events) = ask(&world, &["events"])?;
    let told = events.to_string();
    ensure!(code == 0 && told.contains("pod enrolled") && told.contains("demo/client"), "{told}");
    ensure!(ask(&world, &["verify", "client"])?.0 == 0);
    let (code, status) = ask(&world, &["status"])?;
    ensure!(code == 0 && status["ready"] == true && status["waitsFor"] == json!([]), "{status}");
    ensure!(status["enrolled"] == 2 && status["known"]["workloads"] == 3, "{status}");
    ensure!(status["certificates"]["valid"] == 2 && status["certificates"]["failing"] == 0, "{status}");
    ensure!(status["certificates"]["secondsLeft"].as_i64().is_some_and(|left| left > 0), "{status}");
    ensure!(status["meshFile"]["rejected"] == 0 && status["uptimeSeconds"].is_u64(), "{status}");
    let (code, text, _) = culvert(&world, &node, &["status"])?;
    ensure!(code == 0 && text.contains("\npods: 2 enrolled, 0 degraded, 0 pending\nmesh file "), "{text}");

    world.mesh.deny("no-client", "demo", "client");
    world.write_mesh()?;
    let check = [
        "policy",
        "check",
        "--from",
        "spiffe://cluster.local/ns/demo/sa/client",
        "--to",
        "server",
        "--port",
        "8080",
    ];
    let verdict = eventually("the policy to be known", LIMIT, || {
        let (code, verdict) = ask(&world, &check).ok()?;
        (code == 3).then_some(verdict)
    })?;
    ensure!(
        verdict["because"] == "explicitly denied by: demo/no-client (rule 0 of demo/no-client)",
        "{verdict}"
    );
    let web = SocketAddr::new(ips(WEB)[0], SERVICE).to_string();
    let (code, text, _) = culvert(&world, &node, &["trace", "client", "--to", &web])?;
    ensure!(
        code == 3
            && text.contains("=> REFUSED: explicitly denied by: demo/no-client")
            && !text.contains('\x1b'),
        "{text}"
    );

    let (code, levels) = ask(&world, &["logging", "tunnel=debug"])?;
    ensure!(code == 0 && levels["levels"] == "tunnel=debug,info", "{levels}");
    ensure!(ask(&world, &["logging", "--reset"])?.1["levels"] == "info");
    let path = world.run.dir().join("support.tar.gz");
    let path = path.to_str().context("path")?;
    let (code, shown, _) = culvert(&world, &node, &["support", "--file", path])?;
    ensure!(code == 0 && shown.trim() == path && Path::new(path).metadata()?.len() > 1000);
    let (code, _, stderr) = culvert(&world, &node, &["support", "--file", path])?;
    ensure!(
        code == 1 && stderr.contains("name another file with --file"),
        "a file is never replaced: {stderr}"
    );

    for (words, expected, said) in [
        (&["pods", "nobody"][..], 1, "knows no pod nobody"),
        (&["trace", "nobody"][..], 1, "the mesh knows no pod nobody"),
        (&["logging", "loud"][..], 1, "`loud` is not a level"),
        (&["trace"][..], 64, "required"),
    ] {
        let (code, _, stderr) = culvert(&world, &node, words)?;
        ensure!(code == expected && stderr.contains(said), "{words:?}: {code} {stderr}");
    }
    world.agent1.kill9()?;
    let (code, _, stderr) = culvert(&world, &node, &["pods"])?;
    ensure!(code == 2 && stderr.contains("no agent answers"), "{code} {stderr}");
    Ok(())
}

#[test]
fn top_shows_how_long_connections_take_while_somebody_looks() -> Result<()> {
    let world = World::new()?;
    let line = world.agent1.command_line()?;
    let (program, _) = line.split_first().context("program")?;
    let top = format!("{program} top --every 1 --run-dir {}", world.nodes[0].agent_dir().display());
    // It needs a terminal, which `script` makes.
    let mut script = std::process::Command::new("script");
    script.args(["-qfc", &top, "/dev/null"]).env("TERM", "xterm");
    let mut shown = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("script")?;
    let mut output = shown.stdout.take().context("stdout")?;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let reading = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = output.read(&mut buffer) {
            lock(&kept).extend_from_slice(&buffer[..count]);
        }
    });
    let row = |way: &str| {
        let text = String::from_utf8_lossy(&lock(&seen)).into_owned();
        let is_it = |line: &&str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.starts_with(&["demo/client", way]) && words.contains(&"ms")
        };
        text.lines().rfind(is_it).map(str::to_owned)
    };
    let found = eventually("a time of the client's connections", LIMIT, || {
        world.client.get(at(world.server.addresses(), HTTP)[0], "/").ok()?;
        row("out")
    });
    shown.kill()?;
    shown.wait()?;
    let found = found.with_context(|| String::from_utf8_lossy(&lock(&seen)).into_owned())?;
    ensure!(reading.join().is_ok() && row("in").is_none(), "{found}");
    Ok(())
}
