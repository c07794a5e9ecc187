//! What both nodes tell of one connection, letter by letter: the access log in both forms, and the metrics.

use anyhow::{Context as _, Result, ensure};
use netns_tests::{Bare, LIMIT, SERVICE, WEB, World, at, ips, metric};

/// The client says this much, and hears this much.
const ASKED: usize = 26 + "[2001:db8:96::10]:80".len();

/// Replaces what differs from run to run, the value after each of `keys`, by the key in capitals.
fn normal(line: &str, keys: &[&str], end: char) -> Result<String> {
    let mut normal = line.to_owned();
    for key in keys {
        let from = normal.find(key).with_context(|| format!("no {key} in {line}"))? + key.len();
        let rest = normal.get(from..).unwrap_or_default();
        let length = rest.find(end).unwrap_or(rest.len());
        let name: String = key.chars().filter(char::is_ascii_alphabetic).collect::<String>().to_uppercase();
        normal.replace_range(from..from + length, &name);
    }
    Ok(normal)
}

/// A request to the service; returns how long the answer was.
fn ask(world: &World, to: usize) -> Result<usize> {
    let target = *at(ips(WEB), SERVICE).get(to).context("two families")?;
    let mut http = world.client.open_http(target)?;
    let body = http.get("/")?.body;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: \r\n\r\n";
    Ok(head.len() + body.len().to_string().len() + body.len())
}

#[test]
fn the_plain_form() -> Result<()> {
    let world = World::new()?;
    let answered = ask(&world, 1)?;
    let [_, client] = world.client.addresses();
    let [_, server] = world.server.addresses();
    let keys = ["src.addr=", "duration="];
    let (id, sent, received) = ("spiffe://cluster.local/ns/demo/sa", ASKED, answered);
    let line = world.agent1.wait_for_log(&["connection complete", "direction=\"outbound\""], LIMIT)?;
    ensure!(line.contains(&format!("src.addr=[{client}]:")), "{line}");
    let (_, line) = line.split_once('\t').context("the time is a column")?;
    let expected = format!(
        "info\taccess\tconnection complete\tsrc.addr=SRCADDR src.workload=\"client\" src.namespace=\"demo\" \
         src.identity=\"{id}/client\" src.cluster=\"Kubernetes\" dst.addr=[{server}]:15008 \
         dst.hbone_addr=[{server}]:8080 dst.service=\"web.demo.svc.cluster.local\" dst.workload=\"server\" \
         dst.namespace=\"demo\" dst.identity=\"{id}/server\" dst.cluster=\"Kubernetes\" direction=\"outbound\" \
         bytes_sent={sent} bytes_recv={received} duration=DURATION"
    );
    ensure!(normal(line, &keys, ' ')? == expected, "{line}\nis not\n{expected}");
    // Seen from the server's side what was sent is what was received.
    let line = world.agent2.wait_for_log(&["connection complete", "direction=\"inbound\""], LIMIT)?;
    ensure!(line.contains(&format!("src.addr=[{client}]:")), "{line}");
    let (_, line) = line.split_once('\t').context("the time is a column")?;
    let expected = expected.replace("\"outbound\"", "\"inbound\"").replace(
        &format!("bytes_sent={sent} bytes_recv={received}"),
        &format!("bytes_sent={received} bytes_recv={sent}"),
    );
    ensure!(normal(line, &keys, ' ')? == expected, "{line}\nis not\n{expected}");
    // The metrics mean the same direction on both nodes.
    for (agent, reporter) in [(&world.agent1, "source"), (&world.agent2, "destination")] {
        let labels =
            [("reporter", reporter), ("source_workload", "client"), ("destination_service_name", "web")];
        let count = |name| metric(agent, name, &labels);
        ensure!(count("istio_tcp_received_bytes_total")? == sent as f64, "{reporter}");
        ensure!(count("istio_tcp_sent_bytes_total")? == received as f64, "{reporter}");
        ensure!(count("istio_tcp_connections_opened_total")? == 1.0, "{reporter}");
        ensure!(count("istio_tcp_connections_closed_total")? == 1.0, "{reporter}");
    }
    Ok(())
}

#[test]
fn the_json_form() -> Result<()> {
    let mut bare = Bare::new()?;
    bare.mesh.deny("no-client", "demo", "client");
    let world = bare.enrol_with(&["--log-format=json"])?;
    ensure!(world.client.attempt(*at(ips(WEB), SERVICE).first().context("two families")?, "/")?.is_refused());
    let [client, _] = world.client.addresses();
    let [server, _] = world.server.addresses();
    let keys = ["\"time\":\"", "\"src.addr\":\"", "\"duration\":\""];
    let id = "spiffe://cluster.local/ns/demo/sa";
    for (agent, direction, error) in [
        (&world.agent1, "outbound", "http status: 401 Unauthorized"),
        (
            &world.agent2,
            "inbound",
            "connection closed due to policy rejection: explicitly denied by: demo/no-client",
        ),
    ] {
        let line = agent.wait_for_log(&["connection complete", direction], LIMIT)?;
        ensure!(line.contains(&format!("\"src.addr\":\"{client}:")), "{line}");
        let expected = format!(
            "{{\"level\":\"error\",\"time\":\"TIME\",\"scope\":\"access\",\"message\":\"connection complete\",\
             \"src.addr\":\"SRCADDR\",\"src.workload\":\"client\",\"src.namespace\":\"demo\",\
             \"src.identity\":\"{id}/client\",\"src.cluster\":\"Kubernetes\",\"dst.addr\":\"{server}:15008\",\
             \"dst.hbone_addr\":\"{server}:8080\",\"dst.service\":\"web.demo.svc.cluster.local\",\
             \"dst.workload\":\"server\",\"dst.namespace\":\"demo\",\"dst.identity\":\"{id}/server\",\
             \"dst.cluster\":\"Kubernetes\",\"direction\":\"{direction}\",\"bytes_sent\":0,\"bytes_recv\":0,\
             \"duration\":\"DURATION\",\"error\":\"{error}\"}}"
        );
        ensure!(normal(&line, &keys, '"')? == expected, "{line}\nis not\n{expected}");
    }
    Ok(())
}
