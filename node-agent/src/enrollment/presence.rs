//! Is a pod's network namespace still there?

use std::io;
use std::path::Path;

use linux::netns::{Netns, NetnsError};

use super::places;

/// What is known of a namespace.
#[derive(Debug)]
pub(super) enum Presence {
    /// It is there.
    There(Netns),
    /// It is proven gone: nothing is at its path, or nothing that is a network namespace.
    Gone,
    /// It is proven gone from its path, where another one is now.
    Another(Netns),
    /// It could not be found out; an agent out of descriptors, for one, may conclude nothing.
    Unknown(NetnsError),
}

/// Looks for the namespace with this cookie at its path.
pub(super) fn look(path: &Path, cookie: u64) -> Presence {
    if path.as_os_str().is_empty() {
        let source = io::Error::other("the agent does not see the runtime's namespaces");
        return Presence::Unknown(NetnsError::Open { path: path.to_owned(), source });
    }
    match Netns::open(path) {
        Ok(netns) => match netns.cookie() {
            Ok(now) if now == cookie => Presence::There(netns),
            Ok(_) => Presence::Another(netns),
            Err(error) => Presence::Unknown(error),
        },
        // The file that a namespace was mounted on stays a plain file.
        Err(NetnsError::NotANetns { .. }) => Presence::Gone,
        Err(NetnsError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            by_its_other_name(path, cookie).map_or(Presence::Gone, Presence::There)
        }
        Err(error) => Presence::Unknown(error),
    }
}

/// An agent before this one may have seen it by another path, in a container with other mounts.
fn by_its_other_name(path: &Path, cookie: u64) -> Option<Netns> {
    let netns = Netns::open(&places::otherwise(path)?).ok()?;
    (netns.cookie().ok()? == cookie).then_some(netns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_proof_counts_as_gone() {
        let own = Path::new("/proc/self/ns/net");
        let cookie = Netns::open(own).unwrap().cookie().unwrap();
        assert!(matches!(look(own, cookie), Presence::There(_)));
        assert!(matches!(look(own, cookie + 1), Presence::Another(_)));
        assert!(matches!(look(Path::new("/run/netns/no-such"), cookie), Presence::Gone));
        assert!(matches!(look(Path::new("/etc/hostname"), cookie), Presence::Gone));
        // A path that leads through a file says nothing of the namespace.
        assert!(matches!(look(Path::new("/etc/hostname/ns/net"), cookie), Presence::Unknown(_)));
    }
}
