//! A stand-in for istio-cni's node component, which needs a Kubernetes API that is not there: the rules that it lays in a pod,
//! and its end of the protocol by which it names pods to a proxy (`istio.workload.zds`). Shares no message with the agent.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::netfilter::add_rules;
use harness::{Pod, command, eventually};
use linux::fdpass::{Connection, Listener};

use crate::LIMIT;

/// Most bytes of a message.
const LONGEST: usize = 1024;
/// What the rules know of each family: its loopback address, and where the kubelet's probes come from.
const FAMILIES: [(bool, &str, &str); 2] = [
    (false, "127.0.0.1/32", "169.254.7.127/32"),
    (true, "::1/128", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128"),
];

/// Lays its rules in a pod's namespace: what the pod opens goes to 15001, what comes to it to 15006, names to 15053, and what
/// bears the proxy's mark goes its way.
pub fn capture(pod: &Pod) -> Result<()> {
    let netns = pod.netns();
    let name = netns.file_name().context("a namespace has a name")?.to_string_lossy();
    for (v6, home, probes) in FAMILIES {
        let rules = format!(
            "*mangle\n:ISTIO_PRERT - [0:0]\n:ISTIO_OUTPUT - [0:0]\n\
             -A PREROUTING -j ISTIO_PRERT\n-A OUTPUT -j ISTIO_OUTPUT\n\
             -A ISTIO_PRERT -m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff\n\
             -A ISTIO_OUTPUT -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff\n\
             COMMIT\n\
             *nat\n:ISTIO_PRERT - [0:0]\n:ISTIO_OUTPUT - [0:0]\n\
             -A PREROUTING -j ISTIO_PRERT\n-A OUTPUT -j ISTIO_OUTPUT\n\
             -A ISTIO_PRERT -s {probes} -p tcp -m tcp -j ACCEPT\n\
             -A ISTIO_PRERT ! -d {home} -p tcp -m tcp ! --dport 15008 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15006\n\
             -A ISTIO_OUTPUT -d {probes} -p tcp -m tcp -j ACCEPT\n\
             -A ISTIO_OUTPUT ! -o lo -p udp -m mark ! --mark 0x539/0xfff -m udp --dport 53 -j REDIRECT --to-ports 15053\n\
             -A ISTIO_OUTPUT ! -d {home} -p tcp -m tcp --dport 53 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15053\n\
             -A ISTIO_OUTPUT -p tcp -m mark --mark 0x111/0xfff -j ACCEPT\n\
             -A ISTIO_OUTPUT ! -d {home} -o lo -j ACCEPT\n\
             -A ISTIO_OUTPUT ! -d {home} -p tcp -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15001\n\
             COMMIT\n"
        );
        add_rules(netns, v6, &rules)?;
        let (family, all) = if v6 { ("-6", "::/0") } else { ("-4", "0.0.0.0/0") };
        command::ip(&format!("-n {name} {family} rule add fwmark 0x111/0xfff pref 32764 lookup 100"))?;
        command::ip(&format!("-n {name} {family} route add local {all} dev lo table 100"))?;
    }
    Ok(())
}

/// Its end of the protocol.
pub struct IstioCni {
    listener: Listener,
}

/// A proxy that has greeted it.
pub struct Proxy {
    connection: Connection,
}

impl IstioCni {
    /// Listens at `path`.
    pub fn listen(path: &Path) -> Result<Self> {
        let listener = Listener::bind(path, 0o600)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener })
    }

    /// Waits for a proxy, and for its greeting.
    pub fn accept(&self) -> Result<Proxy> {
        let connection = eventually("a proxy to connect", LIMIT, || self.listener.accept().ok())?;
        connection.set_timeout(Duration::from_secs(20))?;
        let (hello, _) = connection.recv(LONGEST)?;
        ensure!(hello == [8, 1], "a greeting of {hello:?}");
        Ok(Proxy { connection })
    }
}

impl Proxy {
    /// Names a pod, with its namespace; what the proxy says of it.
    pub fn add(&self, pod: &Pod) -> Result<String> {
        let info = [text(1, pod.name()), text(2, pod.namespace()), text(3, pod.name())].concat();
        let add = [text(1, &uid(pod)), bytes(2, &info)].concat();
        let netns = File::open(pod.netns())?;
        self.connection.send(&bytes(1, &add), &[netns.as_fd()])?;
        self.answer()
    }

    /// Names a pod that the proxy is to know already.
    pub fn keep(&self, pod: &Pod) -> Result<String> {
        self.say(&bytes(5, &text(1, &uid(pod))))
    }

    /// Has a pod dropped.
    pub fn delete(&self, pod: &Pod) -> Result<String> {
        self.say(&bytes(2, &text(2, &uid(pod))))
    }

    /// Says that all pods have been named.
    pub fn snapshot_sent(&self) -> Result<String> {
        self.say(&bytes(3, &[]))
    }

    /// Sends what was recorded, with the namespace of a pod if one belongs to it; what comes back, as on the wire.
    pub fn replay(&self, message: &[u8], pod: Option<&Pod>) -> Result<Vec<u8>> {
        let netns = pod.map(|pod| File::open(pod.netns())).transpose()?;
        let descriptors: Vec<_> = netns.iter().map(|netns| netns.as_fd()).collect();
        self.connection.send(message, &descriptors)?;
        Ok(self.connection.recv(LONGEST)?.0)
    }

    /// Sends anything; the error that comes back, empty if there is none.
    pub fn say(&self, message: &[u8]) -> Result<String> {
        self.connection.send(message, &[])?;
        self.answer()
    }

    fn answer(&self) -> Result<String> {
        let (answer, _) = self.connection.recv(LONGEST)?;
        // An Ack in field 1; in it, if there is one, the error in field 1.
        let [0x0a, length, ack @ ..] = answer.as_slice() else { anyhow::bail!("an answer of {answer:?}") };
        // Lengths over 127 take two bytes.
        let ack = if *length < 0x80 { ack } else { ack.get(1..).unwrap_or_default() };
        let error = match ack {
            [] => &[],
            [0x0a, length, error @ ..] if *length < 0x80 => error,
            [0x0a, _, _, error @ ..] => error,
            _ => anyhow::bail!("an Ack of {ack:?}"),
        };
        Ok(String::from_utf8(error.to_vec())?)
    }
}

fn uid(pod: &Pod) -> String {
    format!("00000000-0000-4000-8000-{:0>12}", pod.name().len()) + pod.name()
}

/// A field of text.
fn text(field: u8, text: &str) -> Vec<u8> {
    bytes(field, text.as_bytes())
}

/// A field of bytes, of which there are few.
fn bytes(field: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).ok().filter(|length| *length < 0x80);
    [&[field << 3 | 2, length.expect("a short field")], bytes].concat()
}
