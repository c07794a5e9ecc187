//! Verification for life: capture that is lost is found, mended and told, whatever part of it it was; and `culvert verify`
//! shows it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::{Pod, command, eventually};
use linux::bpf;
use linux::netns::Netns;
use netns_tests::kernel::{Held, cookie, pins_of};
use netns_tests::{HTTP, LIMIT, SERVICE, WEB, World, at, ips, metric, until_answered};

/// Within this a loss is found.
const FOUND: Duration = Duration::from_secs(5);

/// Within this each pod is proven by a connection.
const PROVEN: Duration = Duration::from_secs(45);

/// Somebody breaks the capture of a pod.
type Break<'a> = Box<dyn Fn(&Pod) -> Result<()> + 'a>;

fn ip_in(pod: &Pod, words: &str) -> Result<()> {
    let name = pod.netns().file_name().context("name")?.to_string_lossy().into_owned();
    command::ip(&format!("-n {name} {words}")).map(drop)
}

fn sysctl(pod: &Pod, name: &str) -> Result<()> {
    harness::inside::set_sysctl(pod.netns(), name, "0")
}

/// Every way in which capture is lost, and the reason that is counted.
fn losses(world: &World) -> Vec<(&'static str, Break<'static>)> {
    let pins = pins_of(&world.nodes[0]);
    let (unpinned, detached, rows, values) = (pins.clone(), pins.clone(), pins.clone(), pins);
    let steer = |pins: &PathBuf, pod: &Pod| -> Result<PathBuf> {
        Ok(pins.join(format!("pods/{:x}/steer", cookie(pod)?)))
    };
    vec![
        ("rule", Box::new(|pod| ip_in(pod, "rule del pref 32"))),
        ("rule", Box::new(|pod| ip_in(pod, "-6 rule del pref 32"))),
        ("route", Box::new(|pod| ip_in(pod, "route flush table 3095"))),
        ("route", Box::new(|pod| ip_in(pod, "-6 route flush table 3095"))),
        ("sysctl", Box::new(|pod| sysctl(pod, "net/ipv4/tcp_fwmark_accept"))),
        ("sysctl", Box::new(|pod| sysctl(pod, "net/ipv6/fwmark_reflect"))),
        ("loopback", Box::new(|pod| ip_in(pod, "link set lo down"))),
        ("steer", Box::new(move |pod| Ok(std::fs::remove_file(steer(&unpinned, pod)?)?))),
        ("steer", Box::new(move |pod| Ok(bpf::detach(&bpf::open_pin(&steer(&detached, pod)?)?)?))),
        (
            "row",
            Box::new(move |pod| {
                let rows = bpf::open_pin(&rows.join("node/ENROLLED"))?;
                ensure!(bpf::delete_row(&rows, &cookie(pod)?.to_ne_bytes())?, "the row was not there");
                Ok(())
            }),
        ),
        (
            // Queries would go to a port where nobody listens.
            "row",
            Box::new(move |pod| {
                let rows = bpf::open_pin(&values.join("node/ENROLLED"))?;
                Ok(linux::testing::write_row(&rows, cookie(pod)?, 9)?)
            }),
        ),
        (
            "dns",
            Box::new(|pod| ip_in(pod, "-6 route del local fd63:756c:7665:7274::/112 dev lo table local")),
        ),
        ("addresses", Box::new(|pod| ip_in(pod, "addr add 10.1.1.177/32 dev eth0"))),
    ]
}

#[test]
fn each_kind_of_lost_capture_is_found_mended_and_told() -> Result<()> {
    let world = World::new()?;
    for (turn, (reason, lose)) in losses(&world).into_iter().enumerate() {
        let pod = if turn % 2 == 0 { &world.client } else { &world.neighbour };
        let name = format!("demo/{}", pod.name());
        let lost = || metric(&world.agent1, "culvert_capture_lost_total", &[("reason", reason)]);
        let mended = || -> Result<f64> {
            let of =
                |outcome| metric(&world.agent1, "culvert_capture_repairs_total", &[("outcome", outcome)]);
            Ok(of("mended")? + of("anew")?)
        };
        let before = (lost()?, mended()?);
        lose(pod).with_context(|| format!("breaking {reason}"))?;
        eventually(&format!("the loss of {reason} to be counted"), FOUND, || {
            (lost().ok()? > before.0).then_some(())
        })
        .with_context(|| world.agent1.log())?;
        eventually(&format!("the repair of {reason}"), FOUND, || (mended().ok()? > before.1).then_some(()))
            .with_context(|| world.agent1.log())?;
        world.agent1.wait_for_log(&["capture lost", &name], LIMIT)?;
        world.agent1.wait_for_log(&["capture mended", &name, reason], LIMIT)?;
        for target in at(world.server.addresses(), HTTP) {
            let reply = pod.get(target, "/").with_context(|| format!("{reason}: {}", world.agent1.log()))?;
            ensure!(reply.field("app") == "server", "{reason}");
        }
        for target in at(pod.addresses(), HTTP) {
            let reply = world.server.get(target, "/");
            let reply = reply.with_context(|| format!("{reason}, inbound: {}", world.agent1.log()))?;
            ensure!(reply.status == 200, "{reason}: inbound");
        }
    }
    let state = |state| metric(&world.agent1, "culvert_pods", &[("state", state)]);
    ensure!(state("enrolled")? == 2.0 && state("degraded")? == 0.0 && state("pending")? == 0.0);
    ensure!(metric(&world.agent1, "culvert_capture_repairs_total", &[("outcome", "failed")])? == 0.0);
    // Whatever was mended is captured: what the pods said went through the tunnel.
    ensure!(verify(&world, &[])?.0 == Some(0), "{}", verify(&world, &[])?.1);
    Ok(())
}

#[test]
fn what_no_inspection_sees_is_found_by_a_connection() -> Result<()> {
    let world = World::new()?;
    // Somebody empties the slots from which the program picks the outbound listeners: the kernel tells nobody.
    for id in Held::of(&world.client)?.maps {
        let map = bpf::map(id)?;
        for slot in [0u32, 1] {
            // Of the pod's other maps no row can be removed so.
            let _ = bpf::delete_row(&map, &slot.to_ne_bytes());
        }
    }
    let target = at(world.server.addresses(), HTTP)[0];
    ensure!(!world.client.attempt(target, "/")?.is_ok());
    world.agent1.wait_for_log(&["capture lost", "demo/client", "did not reach the agent"], PROVEN)?;
    world.agent1.wait_for_log(&["capture mended", "demo/client", "anew"], LIMIT)?;
    ensure!(metric(&world.agent1, "culvert_capture_lost_total", &[("reason", "connection")])? == 1.0);
    for target in at(world.server.addresses(), HTTP) {
        ensure!(world.client.get(target, "/")?.field("app") == "server");
    }
    Ok(())
}

#[test]
fn a_lost_program_or_map_of_the_node_is_found_and_mended() -> Result<()> {
    let world = World::new()?;
    let pins = pins_of(&world.nodes[0]).join("node");
    let detached = |name: &str| -> Result<()> { Ok(bpf::detach(&bpf::open_pin(&pins.join(name))?)?) };
    let unpinned = |name: &str| -> Result<()> { Ok(std::fs::remove_file(pins.join(name))?) };
    type Step<'a> = (&'static str, &'static str, &'a dyn Fn(&str) -> Result<()>);
    let steps: [Step<'_>; 4] = [
        ("node_link", "connect4", &unpinned),
        ("node_link", "connect6", &detached),
        ("node_map", "ENROLLED", &unpinned),
        ("node_map", "AGENTS", &unpinned),
    ];
    for (turn, (reason, name, lose)) in steps.into_iter().enumerate() {
        let lost = || metric(&world.agent1, "culvert_capture_lost_total", &[("reason", reason)]);
        let before = lost()?;
        lose(name)?;
        eventually(&format!("the loss of {name}"), FOUND, || (lost().ok()? > before).then_some(()))?;
        eventually(&format!("the repair of {name}"), FOUND, || {
            let log = world.agent1.log_lines(&["the node's capture is mended"]);
            (log.len() > turn && pins.join(name).exists()).then_some(())
        })
        .with_context(|| world.agent1.log())?;
        let tap = world.wire.tap()?;
        let needle = format!("/needle-{turn}-after-repair");
        for target in at(world.server.addresses(), HTTP).into_iter().chain(at(ips(WEB), SERVICE)) {
            ensure!(world.client.get(target, &needle)?.status == 200);
        }
        tap.settle()?;
        let leaked = tap.any(|s| s.payload.windows(needle.len()).any(|w| w == needle.as_bytes()));
        ensure!(!leaked, "{name} is mended, but a request was readable on the wire");
    }
    // The next agent finds the maps: it knows its pods.
    let mut world = world;
    world.agent1.kill9()?;
    ensure!(world.client.attempt(at(world.server.addresses(), HTTP)[0], "/")?.is_refused());
    world.agent1.restart()?;
    until_answered(&world.client, at(world.server.addresses(), HTTP)[0])?;
    Ok(())
}

#[test]
fn what_cannot_be_mended_is_shown_and_told_how_to_mend() -> Result<()> {
    let world = World::new()?;
    let (code, text) = verify(&world, &[])?;
    ensure!(code == Some(0) && text.contains("2 of 2 pods are whole") && !text.contains("WRONG"), "{text}");
    for line in [
        "ok    program connect4 on the root cgroup",
        "pod demo/client: enrolled",
        "ok    row in the map of enrolled pods",
        "ok    sk_lookup program",
        "ok    ip rule, IPv4",
        "ok    route to the agent, IPv6",
        "ok    sysctl net.ipv4.tcp_fwmark_accept",
        "ok    connection to the agent, IPv6",
    ] {
        ensure!(text.contains(line), "{line:?} in\n{text}");
    }
    ensure!(status(&world)?.1.contains("2 enrolled, 0 degraded, 0 pending"));

    // Somebody's rule leads the pod's connections elsewhere; it is not the agent's to remove.
    ip_in(&world.client, "rule add pref 31 lookup main")?;
    let degraded = || metric(&world.agent1, "culvert_pods", &[("state", "degraded")]).ok();
    eventually("the pod to be degraded", FOUND, || (degraded()? == 1.0).then_some(()))?;
    ensure!(
        world.agent1.get(15021, "/healthz/ready")?.status == 200,
        "one pod must not make the node unready"
    );
    let (code, text) = verify(&world, &[])?;
    ensure!(code == Some(1) && text.contains("1 of 2 pods are whole"), "{text}");
    ensure!(
        text.contains("WRONG ip rule, IPv4: rules of somebody else are asked first (preference [31])"),
        "{text}"
    );
    ensure!(text.contains("give them a preference above 32"), "{text}");
    ensure!(verify(&world, &["demo/neighbour"])?.0 == Some(0));
    let (code, text) = verify(&world, &["demo/client", "--output", "json"])?;
    let found: serde_json::Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    ensure!(code == Some(1) && found["whole"] == false && found["pods"][0]["state"] == "degraded", "{text}");
    let wrong: Vec<_> =
        found["pods"][0]["lines"].as_array().context("lines")?.iter().filter(|l| l["ok"] == false).collect();
    ensure!(wrong.iter().any(|line| line["part"] == "rule" && line["remedy"].is_string()), "{text}");
    ensure!(status(&world)?.0 == Some(1));

    ip_in(&world.client, "rule del pref 31")?;
    eventually("the pod to be whole again", FOUND, || (degraded()? == 0.0).then_some(()))?;
    ensure!(verify(&world, &[])?.0 == Some(0));
    let (code, text) = verify(&world, &["demo/nobody"])?;
    ensure!(code == Some(1) && text.contains("knows no pod demo/nobody"), "{text}");
    let mut world = world;
    world.agent1.kill9()?;
    let (code, text) = verify(&world, &[])?;
    ensure!(code == Some(2) && text.contains("no agent answers"), "{code:?} {text}");
    Ok(())
}

#[test]
fn a_pod_that_cannot_be_enrolled_is_shown_as_pending() -> Result<()> {
    let mut world = World::new()?;
    let [n1, _] = world.nodes.clone();
    let bare = world.run.add_netns("n1-pending")?;
    let entry = harness::mesh_file::Enroll::by_cni("pending", "demo", &n1);
    world.mesh.enroll.push(harness::mesh_file::Enroll { netns: Some(bare), ..entry });
    world.write_mesh()?;
    world.agent1.wait_for_log(&["pod not enrolled", "demo/pending"], LIMIT)?;
    let (code, text) = verify(&world, &["demo/pending"])?;
    ensure!(
        code == Some(1) && text.contains("pod demo/pending: pending") && text.contains("no address"),
        "{text}"
    );
    ensure!(metric(&world.agent1, "culvert_pods", &[("state", "pending")])? == 1.0);
    world.mesh.enroll.pop();
    world.write_mesh()?;
    eventually("the pod to be forgotten", LIMIT, || {
        (metric(&world.agent1, "culvert_pods", &[("state", "pending")]).ok()? == 0.0).then_some(())
    })?;
    Ok(())
}

#[test]
fn x5_a_namespace_replaced_under_the_same_pod_is_captured_again() -> Result<()> {
    let mut world = World::new()?;
    let [n1, _] = world.nodes.clone();
    // One that the mesh file locates, one that the plugin brought.
    let (v4, v6) = n1.pod_addresses(3);
    let workload = harness::mesh_file::Workload::hbone("brought", "demo", &n1, &[v4.into(), v6.into()]);
    world.mesh.workloads.push(workload);
    world.mesh.enroll.push(harness::mesh_file::Enroll::by_cni("brought", "demo", &n1));
    world.write_mesh()?;
    world.agent1.wait_for_log(&["mesh file applied", "pods=3"], LIMIT)?;
    let brought = n1.add_pod("brought", "demo")?;
    for pod in [&world.client, &brought] {
        let name = format!("demo/{}", pod.name());
        let other = n1.add_plain_pod(&format!("other-{}", pod.name()), "demo")?;
        let old = cookie(pod)?;
        // Over the old one: there is no moment without a namespace at the path.
        let mount = ["--bind".as_ref(), other.netns().as_os_str(), pod.netns().as_os_str()];
        command::run(std::process::Command::new("mount").args(mount))?;
        let swapped = Instant::now();
        let captured = (|| {
            ensure!(cookie(pod)? != old);
            world.agent1.wait_for_log(&["capture lost", &name, "another network namespace"], FOUND)?;
            eventually("the new namespace to be captured", FOUND, || {
                (verify(&world, &[&name]).ok()?.0 == Some(0)).then_some(())
            })
            .with_context(|| world.agent1.log())?;
            for target in at(world.server.addresses(), HTTP) {
                let source =
                    world.agent2.log_lines(&["connection complete", "inbound", "src.identity"]).len();
                ensure!(
                    pod.get(target, "/")?.peer()?.ip() == other.addresses()[usize::from(target.is_ipv6())]
                );
                eventually("the tunnel's record", LIMIT, || {
                    let now =
                        world.agent2.log_lines(&["connection complete", "inbound", "src.identity"]).len();
                    (now > source).then_some(())
                })?;
            }
            ensure!(
                !pins_of(&n1).join(format!("pods/{old:x}")).exists(),
                "the old namespace's pins are left"
            );
            Ok(())
        })();
        command::run(std::process::Command::new("umount").arg("-l").arg(pod.netns()))?;
        captured.with_context(|| format!("{name}, {:?} after the swap", swapped.elapsed()))?;
    }
    ensure!(metric(&world.agent1, "culvert_capture_lost_total", &[("reason", "netns")])? >= 2.0);
    Ok(())
}

/// `culvert verify` on the first node: exit code and output.
fn verify(world: &World, words: &[&str]) -> Result<(Option<i32>, String)> {
    culvert(world, "verify", words)
}

fn status(world: &World) -> Result<(Option<i32>, String)> {
    culvert(world, "status", &[])
}

fn culvert(world: &World, command: &str, words: &[&str]) -> Result<(Option<i32>, String)> {
    let line = world.agent1.command_line()?;
    let (program, _) = line.split_first().context("program")?;
    let mut asked = std::process::Command::new(program);
    asked.arg(command).args(words).arg("--run-dir").arg(world.nodes[0].agent_dir());
    let ended = harness::command::finish(&mut asked, b"")?;
    Ok((ended.status.code(), format!("{}{}", ended.stdout, ended.stderr)))
}

#[test]
fn the_agents_own_namespace_is_no_pods() -> Result<()> {
    let mut world = World::new()?;
    let [n1, _] = world.nodes.clone();
    let entry = harness::mesh_file::Enroll::by_cni("host", "demo", &n1);
    world.mesh.enroll.push(harness::mesh_file::Enroll { netns: Some(n1.netns().to_owned()), ..entry });
    world.write_mesh()?;
    let line = world.agent1.wait_for_log(&["pod not enrolled", "demo/host"], LIMIT)?;
    ensure!(line.contains("agent's own network namespace"), "{line}");
    ensure!(Netns::open(n1.netns())?.cookie()? != cookie(&world.client)?);
    Ok(())
}

#[test]
fn decisions_worth_knowing_are_told_as_they_are_taken() -> Result<()> {
    let world = World::new()?;
    // Link-local destinations cannot be captured, so they are refused: the log says who was refused what, and why.
    let target: SocketAddr = "[fe80::1]:4321".parse()?;
    let refused = world.client.connect(target, LIMIT)?;
    ensure!(refused.is_err());
    let own = std::process::id().to_string();
    let parts =
        ["capture", "connection refused", "demo/client", "[fe80::1]:4321", "refused_link_local", &own];
    world.agent1.wait_for_log(&parts, LIMIT)?;
    // A flood is counted whole, but told at a bounded rate.
    for _ in 0..2_000 {
        ensure!(world.client.connect(target, LIMIT)?.is_err());
    }
    let counted = eventually("all refusals to be counted", LIMIT, || {
        let metrics = world.agent1.metrics().ok()?;
        let line =
            metrics.lines().find(|l| l.contains("\"client\"") && l.contains("\"refused_link_local\""))?;
        line.rsplit(' ').next()?.parse::<u64>().ok().filter(|count| *count >= 2_001)
    })?;
    ensure!(counted == 2_001, "{counted}");
    ensure!(world.agent1.log_lines(&["connection refused", "refused_link_local"]).len() < 1_500);
    Ok(())
}
