//! Whom an agent trusts, and in what they must speak: lists of revoked certificates, key agreement, versions of TLS.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use anyhow::{Result, ensure};
use harness::inside::in_netns;
use harness::mesh_file;
use http::{Method, StatusCode};
use netns_tests::peer::{Peer, Signer, Speech, in_an_hour, revocation_list};
use netns_tests::{Bare, HTTP, LIMIT, World, at, metric};
use rustls::crypto::aws_lc_rs;

const CLIENT: &str = "spiffe://cluster.local/ns/demo/sa/client";
const HBONE: u16 = 15008;

fn authority(world: &World) -> PathBuf {
    world.run.dir().join("ca")
}

fn peer(world: &World, speech: Speech) -> Result<Peer> {
    Peer::speaking(speech, &Signer::Mesh(&authority(world)), CLIENT, in_an_hour())
}

/// A connection to the server pod's tunnels from outside of the mesh, and what to ask for there, by each of its addresses.
fn ways(world: &World) -> impl Iterator<Item = Result<(TcpStream, String)>> {
    world.server.addresses().into_iter().map(|address| {
        let to = SocketAddr::new(address, HBONE);
        let stream = in_netns(world.plain.netns(), || TcpStream::connect_timeout(&to, LIMIT))??;
        Ok((stream, SocketAddr::new(address, HTTP).to_string()))
    })
}

fn ask(world: &World, peer: &Peer) -> impl Iterator<Item = Result<StatusCode>> {
    ways(world).map(|way| {
        let (stream, authority) = way?;
        peer.ask(stream, &Method::CONNECT, &authority)
    })
}

fn expect_taken(world: &World, peer: &Peer) -> Result<()> {
    ask(world, peer).try_for_each(|answer| {
        let status = answer?;
        ensure!(status == StatusCode::OK, "{status}");
        Ok(())
    })
}

fn expect_refused(world: &World, peer: &Peer) -> Result<()> {
    ask(world, peer).try_for_each(|answer| {
        ensure!(answer.is_err(), "{answer:?}");
        Ok(())
    })
}

/// The agents speak with one another.
fn expect_mesh(world: &World) -> Result<()> {
    at(world.server.addresses(), HTTP).into_iter().try_for_each(|to| {
        let reply = world.client.get(to, "/")?;
        ensure!(reply.status == 200, "{reply:?}");
        Ok(())
    })
}

#[test]
fn a_certificate_that_is_revoked_ends_its_tunnels_and_gets_no_other() -> Result<()> {
    let bare = Bare::new()?;
    let path = bare.run.dir().join("crl.pem");
    // The authority is made by the first agent that starts; the list is of another one's, and says nothing of it.
    let stranger = bare.run.dir().join("stranger");
    control_ca(&stranger)?;
    mesh_file::replace(&path, &revocation_list(&stranger, &[])?)?;
    let flag = format!("--crl-path={}", path.display());
    let world = bare.enrol_with(&[&flag])?;
    let (good, bad) = (peer(&world, Speech::default())?, peer(&world, Speech::default())?);
    let mut tunnels = Vec::new();
    for way in ways(&world) {
        let (stream, authority) = way?;
        tunnels.push(bad.open(stream, &authority)?);
    }
    expect_taken(&world, &good)?;

    mesh_file::replace(&path, &revocation_list(&authority(&world), &[&bad])?)?;
    tunnels.iter_mut().try_for_each(netns_tests::peer::Tunnel::wait_until_ended)?;
    expect_refused(&world, &bad)?;
    expect_taken(&world, &good)?;
    expect_mesh(&world)?;
    let refused = metric(&world.agent2, "culvert_inbound_refusals_total", &[("reason", "revoked")])?;
    ensure!(refused >= 2.0, "{refused} refusals");

    // What is no list leaves the one that is in force.
    mesh_file::replace(&path, "no list at all")?;
    world.agent2.wait_for_log(&["revoked certificates that are in force stay"], LIMIT)?;
    expect_refused(&world, &bad)?;
    expect_taken(&world, &good)?;
    mesh_file::replace(&path, &revocation_list(&authority(&world), &[])?)?;
    harness::wait::eventually_ok("the certificate to be taken again", LIMIT, || expect_taken(&world, &bad))
}

/// An authority in a directory of its own, as agents make theirs.
fn control_ca(dir: &std::path::Path) -> Result<()> {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join("root-cert.pem"), params.self_signed(&key)?.pem())?;
    Ok(std::fs::write(dir.join("root-key.pem"), key.serialize_pem())?)
}

#[test]
fn without_its_list_an_agent_does_not_start() -> Result<()> {
    let bare = Bare::new()?;
    bare.write_mesh()?;
    let [n1, _] = &bare.nodes;
    let mut agent = harness::Agent::spawn(n1, &bare.mesh_path(n1), &["--crl-path=/nowhere/culvert-crl.pem"])?;
    ensure!(!agent.wait_exit(LIMIT)?.success());
    let log = agent.log();
    ensure!(log.contains("/nowhere/culvert-crl.pem") && log.contains("CRL_PATH"), "{log}");
    Ok(())
}

#[test]
fn with_pqc_keys_are_agreed_on_by_x25519mlkem768_alone() -> Result<()> {
    let world = Bare::new()?.enrol_with(&["--compliance-policy=pqc"])?;
    expect_mesh(&world)?;
    let speaking = |groups| {
        let provider = rustls::crypto::CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() };
        peer(&world, Speech { provider, ..Speech::default() })
    };
    expect_taken(&world, &speaking(vec![aws_lc_rs::kx_group::X25519MLKEM768])?)?;
    expect_refused(&world, &speaking(vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1])?)
}

#[test]
fn tls_1_2_is_spoken_only_where_it_is_asked_for() -> Result<()> {
    let old = || Speech { versions: vec![&rustls::version::TLS12], ..Speech::default() };
    let world = World::new()?;
    expect_refused(&world, &peer(&world, old())?)?;
    drop(world);
    let world = Bare::new()?.enrol_with(&["--tls12=true"])?;
    expect_taken(&world, &peer(&world, old())?)?;
    expect_taken(&world, &peer(&world, Speech::default())?)?;
    expect_mesh(&world)
}
