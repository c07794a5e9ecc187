//! How a pod's applications resolve names: their search list, `ndots` and name servers.
//!
//! Taken from the `/etc/resolv.conf` that the pod's own processes see, where one of them is found, and looked at again from
//! time to time; until then, and where none is found, it is what Kubernetes gives a pod by default. A file that makes no
//! sense gives an empty list, which means that names are taken as they are asked for.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::timeout;

use super::host::Host;
use crate::pod::PodSockets;

/// `ndots` where the file says nothing (resolv.conf(5)).
const NDOTS: usize = 1;
/// The most that `ndots` can be.
const MAX_NDOTS: usize = 15;
/// What Kubernetes writes into the files of pods.
const NDOTS_OF_PODS: usize = 5;
/// Domains that are searched at most.
const MAX_SEARCH: usize = 32;
/// Name servers that are asked at most, as by the C library.
const MAX_NAMESERVERS: usize = 3;
/// For how long what was read is good.
const PERIOD: Duration = Duration::from_secs(30);
/// How long a query waits for the file to be read.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a resolver library goes by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Domains that are appended, in order.
    pub(crate) search: Vec<Host>,
    /// Names with fewer dots are searched for before they are taken as they are.
    pub(crate) ndots: usize,
    /// Name servers, in order; none are known where the pod's file is not.
    pub(crate) nameservers: Vec<IpAddr>,
}

impl Settings {
    /// Reads a `resolv.conf`; lines that make no sense are passed over, as libraries do.
    pub(crate) fn parse(text: &str) -> Self {
        let mut settings = Self { ndots: NDOTS, ..Self::default() };
        for line in text.lines() {
            let mut words = line.split(|c: char| c.is_ascii_whitespace()).filter(|word| !word.is_empty());
            match words.next() {
                // The last of these lines is the one that counts.
                Some("search" | "domain") => {
                    settings.search = words.filter_map(Host::parse).take(MAX_SEARCH).collect();
                }
                Some("nameserver") if settings.nameservers.len() < MAX_NAMESERVERS => {
                    settings.nameservers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()));
                }
                Some("options") => {
                    let mut ndots =
                        words.filter_map(|word| word.strip_prefix("ndots:")?.parse::<usize>().ok());
                    settings.ndots = ndots.next_back().unwrap_or(settings.ndots).min(MAX_NDOTS);
                }
                _ => {}
            }
        }
        settings
    }

    /// What Kubernetes gives a pod whose `dnsPolicy` is `ClusterFirst`.
    pub(crate) fn of_kubernetes(namespace: &str, cluster_domain: &str) -> Self {
        let search = [format!("{namespace}.svc.{cluster_domain}"), format!("svc.{cluster_domain}")];
        let search = search.iter().map(String::as_str).chain([cluster_domain]);
        let search = search.filter_map(Host::parse).collect();
        Self { search, ndots: NDOTS_OF_PODS, nameservers: Vec::new() }
    }
}

/// The settings of one pod.
#[derive(Debug)]
pub(crate) struct PodSettings {
    default: Arc<Settings>,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    settings: Arc<Settings>,
    /// When the file is read again.
    due: Instant,
}

impl PodSettings {
    /// Those of a pod of this namespace, which are not known yet.
    pub(crate) fn new(namespace: &str, cluster_domain: &str) -> Self {
        let default = Arc::new(Settings::of_kubernetes(namespace, cluster_domain));
        let known = Known { settings: Arc::clone(&default), due: Instant::now() };
        Self { default, known: Mutex::new(known) }
    }

    /// What holds now. Whoever comes while the file is being read waits for it, but not for long.
    pub(crate) async fn current(&self, sockets: &Arc<dyn PodSockets>) -> Arc<Settings> {
        let current = async {
            let mut known = self.known.lock().await;
            if known.due <= Instant::now() {
                // Set at once: should reading take too long, it is not begun again by each query.
                known.due = Instant::now() + PERIOD;
                let sockets = Arc::clone(sockets);
                let read = tokio::task::spawn_blocking(move || sockets.resolv_conf()).await;
                if let Some(text) = read.ok().flatten() {
                    known.settings = Arc::new(Settings::parse(&text));
                }
            }
            Arc::clone(&known.settings)
        };
        timeout(PATIENCE, current).await.unwrap_or_else(|_| Arc::clone(&self.default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts<const N: usize>(texts: [&str; N]) -> Vec<Host> {
        texts.map(|text| Host::parse(text).unwrap()).into()
    }

    #[test]
    fn a_file_is_read_as_libraries_read_it() {
        let text = "# of a pod\nsearch old.example\nnameserver 10.96.0.10\nnameserver fe80::1%eth0\n\
                    search Ns.svc.cluster.local  svc.cluster.local. bad..name\n\
                    nameserver 2001:db8::53\noptions edns0 ndots:2 ndots:3\nsortlist 10.0.0.0\n";
        let settings = Settings::parse(text);
        assert_eq!(settings.search, hosts(["ns.svc.cluster.local", "svc.cluster.local"]));
        assert_eq!(settings.ndots, 3);
        assert_eq!(
            settings.nameservers,
            ["10.96.0.10", "2001:db8::53"].map(|ip| ip.parse::<IpAddr>().unwrap())
        );
        assert_eq!(Settings::parse(""), Settings { ndots: 1, ..Settings::default() });
        assert_eq!(Settings::parse("options ndots:99").ndots, 15);
        assert_eq!(Settings::parse("domain corp.example").search, hosts(["corp.example"]));
    }

    #[test]
    fn what_is_read_is_bounded() {
        let many = (0..100).map(|n| format!(" d{n}.example")).collect::<String>();
        let servers = (1..100).map(|n| format!("nameserver 10.0.0.{n}\n")).collect::<String>();
        let settings = Settings::parse(&format!("search{many}\n{servers}"));
        assert_eq!((settings.search.len(), settings.nameservers.len()), (32, 3));
    }
}
