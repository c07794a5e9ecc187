//! The live page in a real browser, against a real agent with pods and traffic.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use browser_tests::{Browser, Key, Page};
use harness::Pod;
use netns_tests::{Bare, HTTP, LIMIT, World, at};
use serde_json::json;

const PAGE: &str = "http://localhost:15000/ui";
/// What a peer might call itself.
const MARKUP: &str = "<img/src=x><script>alert(1)</script>";

/// The second node: `server` takes `client` and refuses `neighbour` by its identity and `plain`, which has none.
fn world() -> Result<World> {
    let mut bare = Bare::new()?;
    for workload in bare.mesh.workloads.iter_mut().filter(|workload| workload.name == "neighbour") {
        workload.workload_name = MARKUP.to_owned();
    }
    bare.mesh.policies.push(json!({
        "name": "only-client", "namespace": "demo", "scope": "Namespace", "action": "Allow",
        "rules": [[[{ "principals": [{ "Exact": "cluster.local/ns/demo/sa/client" }] }]]],
    }));
    bare.enrol()
}

fn to_server(world: &World) -> [SocketAddr; 2] {
    at(world.server.addresses(), HTTP)
}

fn is_refused(world: &World, pod: &Pod) -> Result<()> {
    for to in to_server(world) {
        let attempt = pod.attempt(to, "/")?;
        ensure!(!attempt.is_ok(), "{} was let in: {attempt:?}", pod.name());
    }
    Ok(())
}

/// Waits for a row of a table with all of these words.
fn until_row(page: &mut Page, table: &str, words: &[&str]) -> Result<()> {
    let words = json!(words);
    page.until(
        &format!("a row of {table} with {words}"),
        &format!(
            "[...document.querySelectorAll('#{table} tbody tr')].some((row) => {words}.every((word) => row.textContent.includes(word)))"
        ),
    )
}

#[test]
fn the_page_shows_what_happens_and_keeps_up() -> Result<()> {
    let mut world = world()?;
    let mut open = world.client.open_http(to_server(&world)[0])?;
    ensure!(open.get("/")?.status == 200);
    let mut browser = Browser::start(world.nodes[1].netns(), &world.run.dir().join("browser"))?;
    let page = browser.page();
    page.open(PAGE)?;
    page.until("the stream", "document.getElementById('stream').textContent === 'Live'")?;
    ensure!(page.text("document.getElementById('node').textContent")? == "n2");
    until_row(page, "pod-table", &["demo/server", "enrolled", "spiffe://cluster.local/ns/demo/sa/server"])?;
    until_row(page, "edges", &["demo/client", "demo/server", "mutual TLS", "none"])?;
    until_row(page, "certificate-table", &["spiffe://cluster.local/ns/demo/sa/server", "valid"])?;
    ensure!(page.text("document.getElementById('source').textContent")?.contains("the mesh is a file"));
    ensure!(page.text("document.getElementById('failed').className")?.is_empty(), "nothing is refused yet");

    // Refused while somebody looks: in words, in red, in the table and in the graph.
    is_refused(&world, &world.neighbour)?;
    is_refused(&world, &world.plain)?;
    until_row(page, "edges", &[MARKUP, "demo/server", "mutual TLS", "2 refused by policy"])?;
    until_row(page, "edges", &["demo/server", "plaintext", "2 refused by policy"])?;
    until_row(page, "events", &["demo/server", "policy rejection"])?;
    let colour = "getComputedStyle(document.querySelector('#edges tr.refused .bad')).color";
    ensure!(page.text(colour)? == "rgb(179, 19, 31)", "{}", page.text(colour)?);
    let line = "getComputedStyle(document.querySelector('#drawing path.refused')).stroke";
    ensure!(page.text(line)? == "rgb(179, 19, 31)", "{}", page.text(line)?);
    page.until("the news", "document.getElementById('news').textContent.includes('refused or failed')")?;
    // What a peer calls itself is text and nothing else.
    ensure!(page.eval("document.images.length")? == 0 && page.eval("document.scripts.length")? == 2);

    // A pod that goes.
    world.mesh.enroll.retain(|entry| entry.name != "server");
    world.write_mesh()?;
    page.until("no pod", "document.querySelector('#pod-table tbody').textContent === 'No pods.'")?;
    page.until("the news", "document.getElementById('news').textContent.includes('demo/server is gone')")?;
    ensure!(page.problems().is_empty(), "{:?}", page.problems());

    // An agent that goes, and one that comes.
    let process = page.text("document.getElementById('agent').textContent")?;
    world.agent2.kill9()?;
    page.until("the agent to be missed", "document.getElementById('stream').dataset.state === 'lost'")?;
    ensure!(page.eval("document.getElementById('content').classList.contains('stale')")? == true);
    world.mesh.enroll.push(harness::mesh_file::Enroll::running(&world.server));
    world.write_mesh()?;
    world.agent2.restart()?;
    until_row(page, "pod-table", &["demo/server", "enrolled"])?;
    ensure!(page.text("document.getElementById('stream').textContent")? == "Live");
    ensure!(page.text("document.getElementById('agent').textContent")? != process);
    for request in page.requests() {
        ensure!(request.starts_with("http://localhost:15000/ui"), "{request} was asked for");
    }
    Ok(())
}

#[test]
fn the_page_is_used_without_a_mouse_and_read_without_a_screen() -> Result<()> {
    let world = world()?;
    is_refused(&world, &world.neighbour)?;
    let mut browser = Browser::start(world.nodes[1].netns(), &world.run.dir().join("browser"))?;
    let page = browser.page();
    page.prefer(&[("prefers-color-scheme", "dark"), ("prefers-reduced-motion", "reduce")])?;
    page.open(PAGE)?;
    until_row(page, "edges", &["demo/server", "refused by policy"])?;
    ensure!(page.text("getComputedStyle(document.documentElement).backgroundColor")? == "rgb(13, 17, 23)");
    ensure!(page.text("getComputedStyle(document.querySelector('main')).transitionDuration")? == "0s");

    for (role, name) in [
        ("banner", ""),
        ("navigation", "Sections"),
        ("main", ""),
        ("region", "Overview"),
        ("region", "Connections by identity"),
        ("region", "Pods"),
        ("region", "Certificates"),
        ("heading", "Culvert n2"),
        ("button", "Pause"),
        ("searchbox", "Filter"),
        ("link", "Skip to the content"),
        ("table", "Who talks to whom, counted since the agent’s start"),
        ("table", "Pods of this node that are to be in the mesh, and their capture"),
        ("columnheader", "Refused or failed"),
        ("status", ""),
    ] {
        let spoken = page.spoken()?;
        let is_there = spoken.iter().any(|node| node.role == role && (name.is_empty() || node.name == name));
        ensure!(is_there, "{role} {name:?} is not among {spoken:?}");
    }
    for node in page.spoken()? {
        let needs_name = ["button", "link", "searchbox", "table", "heading", "image", "region", "rowheader"];
        ensure!(!needs_name.contains(&node.role.as_str()) || !node.name.is_empty(), "{node:?} has no name");
    }

    // In this order, and each is seen to have the focus.
    let focused = "(document.activeElement.id || document.activeElement.textContent)";
    for name in ["Skip to the content", "pause", "filter", "Overview", "Connections", "Refusals", "Pods"] {
        page.press(Key::Tab)?;
        ensure!(page.text(focused)? == name, "{} has the focus, not {name}", page.text(focused)?);
        let outline = page.text("getComputedStyle(document.activeElement).outlineStyle")?;
        ensure!(outline == "solid", "{name} does not show its focus: {outline}");
    }
    page.eval("document.activeElement.blur(); document.querySelector('.skip').focus()")?;
    page.press(Key::Enter)?;
    page.until("the content to have the focus", &format!("{focused} === 'content'"))?;
    page.eval("document.getElementById('pause').focus()")?;
    page.press(Key::Space)?;
    ensure!(page.text("document.getElementById('pause').getAttribute('aria-pressed')")? == "true");
    page.until("the pause", "document.getElementById('stream').textContent.startsWith('Paused at')")?;
    // Nobody watches now, so the seat is free; and what happens is shown only once it is asked for.
    is_refused(&world, &world.plain)?;
    ensure!(page.eval("document.querySelector('#edges tbody').textContent.includes('plaintext')")? == false);
    page.press(Key::Space)?;
    until_row(page, "edges", &["plaintext", "refused by policy"])?;

    page.press(Key::Tab)?;
    page.write("nothing of the sort")?;
    page.until(
        "an empty table",
        "document.querySelector('#edges tbody').textContent === 'Nothing matches the filter.'",
    )?;
    ensure!(page.problems().is_empty(), "{:?}", page.problems());
    ensure!(world.agent2.wait_for_log(&["pod enrolled", "demo/server"], LIMIT).is_ok());
    Ok(())
}
