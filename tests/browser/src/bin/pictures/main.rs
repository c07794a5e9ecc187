//! Makes the pictures of the documentation: of a real node with real traffic, by a real browser. `cargo xtask screenshots` runs it.
//!
//! What is seen is what was there. What is written: `DIRECTORY/live-page.webp`, `top.webp`, and one file for each dashboard.

#![expect(clippy::print_stdout, reason = "this program talks to people")]

mod boards;
mod terminal;
mod traffic;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use browser_tests::{Browser, Page};
use netns_tests::{Bare, LIMIT, World};

use traffic::Traffic;

const PAGE: &str = "http://localhost:15000/ui";
/// Of a window, and of the terminal's.
const WIDTH: u32 = 1200;
/// What the dashboards look back on.
const PAST: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let directory = std::env::args_os().nth(1).context("where to? pictures DIRECTORY")?;
    make(Path::new(&directory))
}

fn make(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let world = world()?;
    let traffic = Traffic::start(&world)?;
    let prometheus = boards::scrape(&world)?;
    let mut browser = Browser::start(world.nodes[1].netns(), &world.run.dir().join("browser"))?;
    let page = browser.page();
    page.size(WIDTH, 800)?;
    println!("traffic for {} s", PAST.as_secs());
    std::thread::sleep(PAST);

    page.open(PAGE)?;
    page.until(
        "rates",
        "parseFloat(document.querySelector('#edges tbody td:nth-child(6)')?.textContent) > 0",
    )?;
    page.until("a refusal", "document.querySelector('#edges tr.refused') !== null")?;
    page.picture(&directory.join("live-page.webp"))?;

    let shown = terminal::top(&world.agent2, world.nodes[1].agent_dir().as_path())?;
    page.open(&address(&world, "top.html", &terminal::page(&shown))?)?;
    fit(page)?;
    page.picture(&directory.join("top.webp"))?;

    for (name, text) in boards::pages(&prometheus, PAST)? {
        page.open(&address(&world, &format!("{name}.html"), &text)?)?;
        page.until("all panels", "document.body.dataset.drawn === 'true'")?;
        fit(page)?;
        page.picture(&directory.join(format!("dashboard-{name}.webp")))?;
    }
    traffic.end()?;
    println!("pictures are in {}", directory.display());
    Ok(())
}

/// `server` on the second node takes `client` and nobody else.
fn world() -> Result<World> {
    let mut bare = Bare::new()?;
    bare.mesh.allow("only-client", "demo", &["client"]);
    let world = bare.enrol()?;
    world.agent2.wait_for_log(&["mesh file applied", "policies=1"], LIMIT)?;
    Ok(world)
}

/// Makes the window as large as what is in it.
fn fit(page: &mut Page) -> Result<()> {
    let mut pixels = |side: &str| -> Result<u32> {
        let size = page.eval(&format!("Math.ceil(document.body.getBoundingClientRect().{side})"))?;
        Ok(size.as_u64().context("a size")?.try_into()?)
    };
    let (width, height) = (pixels("width")?, pixels("height")?);
    page.size(width, height)
}

/// Where a browser finds a page of our own making.
fn address(world: &World, name: &str, text: &str) -> Result<String> {
    let file = world.run.dir().join(name);
    std::fs::write(&file, text)?;
    Ok(format!("file://{}", file.display()))
}
