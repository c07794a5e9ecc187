//! The server itself, asked by a client that shares the server's messages: does it do what istiod was seen to do?

mod raw;

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};
use control_plane::build::{allow_from, service, uid, workload};
use control_plane::wire::discovery::{ADDRESS, AUTHORIZATION, Request};
use control_plane::{Admission, Answer, Chain, Ending, Recording};
use raw::{Raw, identity, node, plane};
use tonic::Code;

#[tokio::test]
async fn who_takes_everything_gets_it_and_then_what_changes() -> Result<()> {
    let (plane, _dir) = plane().await?;
    plane.update(|world| {
        world.set(workload("demo", "a").at([10, 0, 0, 1]));
        world.set(allow_from("demo", "only-b", "cluster.local/ns/demo/sa/b"));
    });
    let mut raw = Raw::open(&plane).await?;
    raw.subscribe(ADDRESS).await?;
    let first = raw.next().await?;
    ensure!(raw::names(&first)? == [uid("demo", "a")] && raw::aliases(&first)?.is_empty());
    raw.subscribe(AUTHORIZATION).await?;
    ensure!(raw::names(&raw.next().await?)? == ["demo/only-b"]);
    plane.update(|world| {
        world.remove(&uid("demo", "a"));
        world.set(workload("demo", "b").at([10, 0, 0, 2]));
    });
    let second = raw.next().await?;
    ensure!(raw::names(&second)? == [uid("demo", "b")]);
    ensure!(second.removed_resources == [uid("demo", "a")]);
    Ok(())
}

#[tokio::test]
async fn versions_spare_addresses_but_not_policies() -> Result<()> {
    let (plane, _dir) = plane().await?;
    plane.update(|world| {
        world.set(workload("demo", "a").at([10, 0, 0, 1]));
        world.set(allow_from("demo", "only-b", "cluster.local/ns/demo/sa/b"));
    });
    let mut raw = Raw::open(&plane).await?;
    raw.subscribe(ADDRESS).await?;
    let versions = raw::versions(&raw.next().await?)?;
    let gone = ("gone".to_owned(), "1".to_owned());
    let brought: HashMap<_, _> = versions.into_iter().chain([gone]).collect();
    let mut raw = Raw::open(&plane).await?;
    raw.send(Request { initial_resource_versions: brought, ..raw::first(ADDRESS) }).await?;
    let first = raw.next().await?;
    ensure!(first.resources.is_empty() && first.removed_resources == ["gone"], "{first:?}");
    let brought = HashMap::from([("demo/only-b".to_owned(), String::new())]);
    raw.send(Request { initial_resource_versions: brought, ..raw::first(AUTHORIZATION) }).await?;
    ensure!(raw::names(&raw.next().await?)? == ["demo/only-b"]);
    Ok(())
}

#[tokio::test]
async fn who_asks_by_key_gets_names_with_aliases_and_one_no() -> Result<()> {
    let (plane, _dir) = plane().await?;
    let web = service("demo", "web").at([10, 96, 0, 1]).port(80, 8080);
    plane.update(|world| {
        world.set(
            workload("demo", "a").at([10, 0, 0, 1]).at([0xfd00, 0, 0, 0, 0, 0, 0, 1]).behind(&web, 80, 8080),
        );
        world.set(workload("demo", "mine").at([10, 0, 0, 9]).on("node-a"));
        world.set(web.clone());
    });
    let mut raw = Raw::open(&plane).await?;
    let both = || vec!["*".to_owned()];
    raw.send(Request { subscribe: both(), unsubscribe: both(), ..raw::first(ADDRESS) }).await?;
    ensure!(raw::names(&raw.next().await?)? == [uid("demo", "mine")]);
    raw.ask("/10.0.0.1").await?;
    let found = raw.next().await?;
    ensure!(raw::names(&found)? == [uid("demo", "a")]);
    ensure!(raw::aliases(&found)? == ["/10.0.0.1", "/fd00::1"]);
    raw.ask("/203.0.113.1").await?;
    ensure!(raw.next().await?.removed_resources == ["/203.0.113.1"]);
    // It is not answered again; the next answer is that of the next key.
    raw.ask("/203.0.113.1").await?;
    raw.ask("/10.96.0.1").await?;
    let found = raw.next().await?;
    ensure!(raw::names(&found)? == ["demo/web.demo.svc.cluster.local".to_owned(), uid("demo", "a")]);
    // A new endpoint is not pushed until the service itself changes.
    plane.update(|world| world.set(workload("demo", "b").at([10, 0, 0, 2]).behind(&web, 80, 8080)));
    plane.update(|world| world.set(web.clone().port(81, 8080)));
    let pushed = raw::names(&raw.next().await?)?;
    ensure!(pushed.len() == 3 && pushed.contains(&uid("demo", "b")), "{pushed:?}");
    Ok(())
}

#[tokio::test]
async fn refusals_are_istiods() -> Result<()> {
    let (plane, _dir) = plane().await?;
    let refused = async |request: Request| {
        // One that is refused before anything of it is read has no stream at all.
        let mut raw = match Raw::open(&plane).await {
            Ok(raw) => raw,
            Err(error) => return error.downcast::<tonic::Status>(),
        };
        let _ = raw.send(request).await;
        raw.refused().await
    };
    let with = |change: fn(&mut control_plane::wire::discovery::Node)| {
        let mut node = node();
        change(&mut node);
        Request { node: Some(node), ..raw::first(ADDRESS) }
    };
    let id = refused(with(|node| node.id = "ztunnel".to_owned())).await?;
    ensure!(id.code() == Code::InvalidArgument && id.message().contains("missing parts"), "{id}");
    let nothing = refused(Request { node: None, ..raw::first(ADDRESS) }).await?;
    ensure!(nothing.code() == Code::InvalidArgument, "{nothing}");
    let namespace = refused(with(|node| raw::set(node, "NAMESPACE", "bookinfo"))).await?;
    ensure!(namespace.code() == Code::PermissionDenied, "{namespace}");
    plane.tokens(&["another"]);
    let token = refused(raw::first(ADDRESS)).await?;
    ensure!(token.code() == Code::Unauthenticated && token.message() == "authentication failure", "{token}");
    plane.admit_next(Admission::Refuse(Code::ResourceExhausted, "too many".to_owned()));
    let scripted = refused(raw::first(ADDRESS)).await?;
    ensure!(scripted.code() == Code::ResourceExhausted, "{scripted}");
    Ok(())
}

#[tokio::test]
async fn it_comes_back_at_the_same_place_after_every_end() -> Result<()> {
    let (mut plane, _dir) = plane().await?;
    let address = plane.address();
    for ending in [Ending::Graceful, Ending::Abrupt] {
        let mut raw = Raw::open(&plane).await?;
        raw.subscribe(ADDRESS).await?;
        raw.next().await?;
        plane.end_connections(ending);
        raw.refused().await?;
    }
    let mut raw = Raw::open(&plane).await?;
    raw.subscribe(ADDRESS).await?;
    raw.next().await?;
    plane.restart().await?;
    raw.refused().await?;
    ensure!(plane.address() == address);
    let mut raw = Raw::open(&plane).await?;
    raw.subscribe(ADDRESS).await?;
    raw.next().await?;
    Ok(())
}

#[tokio::test]
async fn certificates_are_what_is_asked_for_in_the_shapes_of_istiod() -> Result<()> {
    let (plane, _dir) = plane().await?;
    let mut raw = Raw::open(&plane).await?;
    let chain = raw.certificate(&identity("a"), 3600).await?.cert_chain;
    ensure!(chain.len() == 2 && chain.last() == Some(&plane.bundle()));
    let leaf = raw::leaf(&chain)?;
    let (_, leaf) = x509_parser::parse_x509_certificate(&leaf)?;
    let names = leaf.subject_alternative_name()?.context("no name")?;
    ensure!(names.critical && format!("{:?}", names.value).contains(&identity("a")));
    plane.chain(Chain::PluggedIn);
    plane.rotate_root()?;
    let mut raw = Raw::open(&plane).await?;
    let chain = raw.certificate(&identity("a"), 0).await?.cert_chain;
    ensure!(chain.len() == 4);
    ensure!(chain.last().is_some_and(|roots| roots.matches("BEGIN CERTIFICATE").count() == 2));
    let longest = raw.certificate(&identity("a"), 400 * 86_400).await;
    ensure!(longest.is_err_and(|status| status.code() == Code::InvalidArgument));
    plane.deny(&identity("a"), true);
    let denied = raw.certificate(&identity("a"), 0).await;
    ensure!(denied.is_err_and(|status| status.code() == Code::Unauthenticated));
    plane.answer_next(Answer::Empty);
    ensure!(raw.certificate(&identity("b"), 0).await?.cert_chain.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_root_outlives_the_process() -> Result<()> {
    let (plane, dir) = plane().await?;
    let bundle = plane.bundle();
    drop(plane);
    let plane = control_plane::ControlPlane::start(control_plane::Options::new(dir.path())).await?;
    ensure!(plane.bundle() == bundle && std::fs::read_to_string(plane.roots())? == bundle);
    Raw::open(&plane).await?;
    Ok(())
}

#[tokio::test]
async fn a_recording_is_played_as_far_as_it_is_let_out_and_again_to_whoever_comes_back() -> Result<()> {
    let (plane, _dir) = plane().await?;
    plane.update(|world| world.set(workload("demo", "a").at([10, 0, 0, 1])));
    let said = [(ADDRESS, "2026-11-21T08:15:57Z/5one"), (AUTHORIZATION, "two"), (ADDRESS, "three")];
    let lines = said.map(|(type_url, nonce)| raw::recorded(type_url, nonce));
    plane.play(Recording::parse(&lines.join("\n"))?);
    for _ in 0..2 {
        plane.until(0);
        let mut raw = Raw::open(&plane).await?;
        for type_url in [ADDRESS, AUTHORIZATION] {
            raw.subscribe(type_url).await?;
        }
        // What is known is not told while something is played.
        plane.resend();
        for (count, (type_url, nonce)) in said.into_iter().enumerate() {
            plane.until(count + 1);
            let response = raw.next().await?;
            ensure!(
                (response.type_url.as_str(), response.nonce.as_str()) == (type_url, nonce),
                "{response:?}"
            );
            ensure!(response == raw::response(type_url, nonce), "{response:?}");
            raw.accept(&response).await?;
            plane.accepted_by(1, count + 1).await?;
        }
        plane.end_connections(Ending::Graceful);
        raw.refused().await?;
        plane
            .wait("the stream to be over", |records| records.last().filter(|stream| stream.ended).map(drop))
            .await?;
    }
    Ok(())
}
