//! Through the tunnel: nothing is readable, and neither end notices.

use anyhow::Result;
use harness::Narrator;

use super::super::world::{TUNNEL_PORT, World};

pub(super) fn tell(say: &mut Narrator, world: &mut World) -> Result<()> {
    say.step("In the mesh: only TLS to port 15008, and both ends still see each other");
    for (name, to) in world.destinations()? {
        let secret = format!("/my-secret-by-{}", name.replace(' ', "-"));
        world.tap.clear()?;
        say.ran(&format!("sleep: GET http://{to}{secret}    ({name})"));
        let mut connection = world.sleep.open_http(to)?;
        let reply = connection.get(&secret)?;
        say.saw(&format!("{} {}", reply.status, reply.body));
        let own = world.sleep.addresses().into_iter().find(|own| own.is_ipv4() == to.is_ipv4());
        say.claim(reply.peer().ok().map(|peer| peer.ip()) == own, "productpage sees sleep's own address");
        let peer = connection.stream().peer_addr()?;
        say.claim(peer == to, &format!("sleep's getpeername is what it asked for, {to}"));
        let readable = world.tap.contains(secret.as_bytes())?;
        let segments = world.tap.segments_of_port(TUNNEL_PORT)?;
        let others = world.tap.any(|s| {
            !s.payload.is_empty() && ![s.source.port(), s.destination.port()].contains(&TUNNEL_PORT)
        });
        say.saw(&format!("the tap recorded {segments} sightings of segments of port {TUNNEL_PORT}"));
        say.claim(
            !readable && segments > 0 && !others,
            "the secret is not on the wire, and only port 15008 is",
        );
    }
    Ok(())
}
