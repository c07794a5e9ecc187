//! Where the Kubernetes API is, for a plugin that has no resolver: an address. A name, which some clusters give instead of one, is looked
//! up each time that the installation is looked at.
//!
//! Invariant: an address stays as long as the name has it among others. Where the name cannot be looked up, the last address stays, and
//! that is told.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc;
use std::time::Duration;

/// How long a name is looked up.
const LIMIT: Duration = Duration::from_secs(10);

/// Host and port of the API, as Kubernetes names them to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    Name(String),
}

/// Where it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) address: SocketAddr,
    /// What its certificate must be for, if that is not the address.
    pub(super) name: Option<String>,
    /// What may not be as it is meant to be.
    pub(super) caution: Option<String>,
}

/// The name has no address.
#[derive(Debug, thiserror::Error)]
#[error(
    "the Kubernetes API has only a name, {name}, and that cannot be looked up: {source}; see the resolver of the agent's pod, or give \
     the address (KUBERNETES_SERVICE_HOST)"
)]
pub(crate) struct NoAddress {
    name: String,
    source: io::Error,
}

impl Server {
    /// At an address or a name.
    pub(crate) fn new(host: &str, port: u16) -> Self {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let host = bare.parse().map_or_else(|_| Host::Name(host.to_owned()), Host::Address);
        Self { host, port }
    }

    /// Where it is, `before` being where it was when it was looked up last, by this name. Blocks.
    pub(super) fn find(
        &self,
        before: Option<IpAddr>,
        look_up: impl FnOnce(&str) -> io::Result<Vec<IpAddr>>,
    ) -> Result<Found, NoAddress> {
        let at = |ip| SocketAddr::new(ip, self.port);
        let name = match &self.host {
            Host::Address(ip) => return Ok(Found { address: at(*ip), name: None, caution: None }),
            Host::Name(name) => name,
        };
        let found = look_up(name).and_then(|ips| {
            let known = before.filter(|before| ips.contains(before));
            known.or(ips.first().copied()).ok_or_else(|| io::Error::other("it has no address"))
        });
        let (ip, caution) = match (found, before) {
            (Ok(ip), _) => (ip, None),
            (Err(source), None) => return Err(NoAddress { name: name.clone(), source }),
            (Err(error), Some(before)) => {
                let caution = format!(
                    "the Kubernetes API's name {name} cannot be looked up now ({error}); the plugin goes on asking {before}"
                );
                (before, Some(caution))
            }
        };
        Ok(Found { address: at(ip), name: Some(name.clone()), caution })
    }

    /// Whether it is known by this name.
    pub(super) fn is_named(&self, name: &str) -> bool {
        matches!(&self.host, Host::Name(own) if own == name)
    }
}

/// The addresses of a name, by the system's resolver, which may take longer than anybody waits.
pub(super) fn look_up(name: &str) -> io::Result<Vec<IpAddr>> {
    let (sender, receiver) = mpsc::channel();
    let name = name.to_owned();
    std::thread::Builder::new().name("look-up".to_owned()).spawn(move || {
        let found = (name.as_str(), 0).to_socket_addrs().map(|found| found.map(|at| at.ip()).collect());
        // Nobody may be waiting any more.
        let _ = sender.send(found);
    })?;
    receiver.recv_timeout(LIMIT).map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_not_looked_up() {
        for (host, address) in
            [("10.96.0.1", "10.96.0.1:443"), ("fd00::1", "[fd00::1]:443"), ("[fd00::1]", "[fd00::1]:443")]
        {
            let found = Server::new(host, 443).find(None, |name| panic!("{name} is looked up")).unwrap();
            assert_eq!((found.address, found.name), (address.parse().unwrap(), None));
        }
    }

    #[test]
    fn a_name_is_followed_and_its_last_address_kept() {
        let server = Server::new("api.example", 6443);
        assert!(server.is_named("api.example") && !server.is_named("10.0.0.1"));
        let (one, two) = (ip("192.0.2.1"), ip("2001:db8::2"));
        let found = |before, ips: &[IpAddr]| {
            server.find(before, |name| {
                assert_eq!(name, "api.example");
                Ok(ips.to_vec())
            })
        };
        let now = found(None, &[one, two]).unwrap();
        assert_eq!((now.address.ip(), now.name.as_deref()), (one, Some("api.example")));
        assert_eq!(now.caution, None);
        assert_eq!(found(Some(two), &[one, two]).unwrap().address.ip(), two, "it stays among others");
        assert_eq!(found(Some(one), &[two]).unwrap().address.ip(), two, "it has gone");
        assert!(found(None, &[]).unwrap_err().to_string().contains("api.example"));
        let failing = |_: &str| Err(io::Error::other("no resolver"));
        let kept = server.find(Some(one), failing).unwrap();
        assert!(kept.address.ip() == one && kept.caution.unwrap().contains("no resolver"));
        let error = server.find(None, failing).unwrap_err().to_string();
        assert!(error.contains("no resolver") && error.contains("KUBERNETES_SERVICE_HOST"), "{error}");
    }

    #[test]
    fn the_system_knows_this_machine() {
        assert!(look_up("localhost").unwrap().iter().all(IpAddr::is_loopback));
        assert!(look_up("no-such-name.invalid").is_err());
    }
}
