//! Two nodes in one process. Pods have addresses of a cluster; a table says where on loopback they are.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mesh::policy::{Action, Clause, Match, Rule, Scope};
use mesh::workload::Protocol;
use mesh::{Identity, Policy, Store, Workload};
use prometheus_client::registry::Registry;
use rustls_pki_types::CertificateRevocationListDer;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::served::Served;
use crate::tls::tests::Ca;
use crate::{
    Certificate, CertificateError, CertificateProvider, Config, Demand, Listeners, Pod, PodHandle,
    PodSockets, Tunnel,
};

pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// Whom applications ask for names.
pub(super) const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 53);

/// Where cluster addresses are on loopback, and what loopback listeners stand for.
#[derive(Clone, Default)]
pub(super) struct Places {
    located: Arc<Mutex<HashMap<SocketAddr, SocketAddr>>>,
    captured: Arc<Mutex<HashMap<SocketAddr, SocketAddr>>>,
    /// What the pods' processes see of their resolver's settings.
    resolv_conf: Arc<Mutex<Option<String>>>,
}

impl Places {
    /// A loopback listener for what is captured on its way to `original`.
    pub(super) fn capture(&self, original: SocketAddr) -> std::net::TcpListener {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        self.captured.lock().unwrap().insert(listener.local_addr().unwrap(), original);
        listener
    }

    /// Says where on loopback a cluster address is.
    pub(super) fn place(&self, cluster: SocketAddr, loopback: SocketAddr) {
        self.located.lock().unwrap().insert(cluster, loopback);
    }

    /// Lets the pods' processes have settings of their own.
    pub(super) fn set_resolv_conf(&self, text: &str) {
        *self.resolv_conf.lock().unwrap() = Some(text.to_owned());
    }

    pub(super) fn at(&self, cluster: SocketAddr) -> SocketAddr {
        self.located.lock().unwrap().get(&cluster).copied().unwrap_or(cluster)
    }
}

impl PodSockets for Places {
    fn to_network(&self, _: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    fn to_app(&self, _: SocketAddr, destination: SocketAddr, _: usize) -> io::Result<Socket> {
        self.to_network(destination)
    }

    fn to_resolver(&self, _: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    fn resolver(&self, _: IpAddr) -> Option<IpAddr> {
        Some(RESOLVER.into())
    }

    fn resolv_conf(&self) -> Option<String> {
        self.resolv_conf.lock().unwrap().clone()
    }

    fn original_destination(&self, accepted: &TcpStream) -> io::Result<SocketAddr> {
        let local = accepted.local_addr()?;
        Ok(self.captured.lock().unwrap().get(&local).copied().unwrap_or(local))
    }

    fn locate(&self, destination: SocketAddr) -> SocketAddr {
        self.at(destination)
    }
}

/// Signs whatever is asked for, and remembers it.
pub(super) struct Issuer {
    ca: Ca,
    issued: Mutex<HashMap<Identity, Arc<Certificate>>>,
    warmed: Mutex<Vec<Identity>>,
}

impl Issuer {
    /// A list by which the certificate of an identity is revoked.
    pub(super) fn revoke(&self, identity: &Identity) -> CertificateRevocationListDer<'static> {
        let mut issued = self.issued.lock().unwrap();
        let certificate = issued.entry(identity.clone()).or_insert_with(|| self.ca.issue(identity));
        self.ca.revoke(&[&certificate.chain[0]], false)
    }

    /// Of whom it is known that they will need a certificate.
    pub(super) fn warmed(&self) -> Vec<Identity> {
        self.warmed.lock().unwrap().clone()
    }

    /// How many identities have a certificate.
    pub(super) fn issued(&self) -> usize {
        self.issued.lock().unwrap().len()
    }
}

impl CertificateProvider for Issuer {
    fn certificate<'a>(
        &'a self,
        identity: &'a Identity,
    ) -> BoxFuture<'a, Result<Arc<Certificate>, CertificateError>> {
        let mut issued = self.issued.lock().unwrap();
        let certificate = issued.entry(identity.clone()).or_insert_with(|| self.ca.issue(identity));
        std::future::ready(Ok(Arc::clone(certificate))).boxed()
    }

    fn warm(&self, identity: &Identity) {
        self.warmed.lock().unwrap().push(identity.clone());
    }

    fn release(&self, identity: &Identity) {
        self.issued.lock().unwrap().remove(identity);
    }
}

pub(super) struct Node {
    pub(super) tunnel: Tunnel,
    pub(super) registry: Registry,
}

/// A client pod on one node, a server pod on the other.
pub(super) struct World {
    pub(super) store: Arc<Store>,
    pub(super) places: Places,
    pub(super) certificates: Arc<Issuer>,
    pub(super) client: Node,
    pub(super) server: Node,
    pods: Vec<PodHandle>,
}

pub(super) fn workload(name: &str, address: Ipv4Addr) -> Workload {
    Workload {
        uid: format!("Kubernetes//Pod/default/{name}").into(),
        name: name.into(),
        namespace: "default".into(),
        service_account: name.into(),
        workload_name: name.into(),
        canonical_name: name.into(),
        canonical_revision: "v1".into(),
        addresses: [address.into()].into(),
        protocol: Protocol::Hbone,
        ..Workload::default()
    }
}

/// A policy for the default namespace that concerns `port` alone.
pub(super) fn policy(action: Action, port: u16) -> Policy {
    let only = Match { destination_ports: vec![port], ..Match::default() };
    Policy {
        name: "guard".into(),
        namespace: "default".into(),
        scope: Scope::Namespace,
        action,
        dry_run: false,
        rules: vec![Rule { clauses: vec![Clause { matches: vec![only] }] }],
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(|_, _| {})
    }

    /// A world in which the two workloads differ from the usual.
    pub(super) fn with(change: impl FnOnce(&mut Workload, &mut Workload)) -> Self {
        Self::configured(Config::default(), change)
    }

    /// A world whose nodes run with `config`, on one worker each.
    pub(super) fn configured(config: Config, change: impl FnOnce(&mut Workload, &mut Workload)) -> Self {
        Self::of_two([config.clone(), config], change)
    }

    /// A world whose client's and server's node differ.
    pub(super) fn of_two(configs: [Config; 2], change: impl FnOnce(&mut Workload, &mut Workload)) -> Self {
        let store = Arc::new(Store::new());
        let (mut client, mut server) = (workload("client", CLIENT), workload("server", SERVER));
        change(&mut client, &mut server);
        store.update(|snapshot| {
            let mut editor = snapshot.edit();
            editor.insert_workload(client);
            editor.insert_workload(server);
            Some(editor.finish())
        });
        let certificates =
            Arc::new(Issuer { ca: Ca::new(), issued: Mutex::default(), warmed: Mutex::default() });
        let [client, server] = configs.map(|config| {
            let config = Config { workers: NonZeroUsize::MIN, ..config };
            Node::new(config, &store, &certificates, None)
        });
        let mut world =
            Self { store, places: Places::default(), certificates, client, server, pods: Vec::new() };
        world.serve();
        world
    }

    /// Has the server node accept tunnels for the server pod.
    fn serve(&mut self) {
        self.serve_as("server", SERVER);
    }

    /// Has the server node accept tunnels for another pod, whose workload has this address.
    pub(super) fn serve_as(&mut self, name: &str, address: Ipv4Addr) {
        let hbone = SocketAddr::from((address, mesh::HBONE_PORT));
        let listener = self.places.capture(hbone);
        self.places.place(hbone, listener.local_addr().unwrap());
        let listeners = Listeners { hbone: vec![listener], ..Listeners::default() };
        self.pods.push(self.server.tunnel.start(pod(name, &self.places), listeners));
    }

    /// Has the client's node serve the server pod as well, in the server node's place.
    pub(super) fn move_server_to_client(&mut self) -> Arc<Served> {
        let hbone = SocketAddr::from((SERVER, mesh::HBONE_PORT));
        let listener = self.places.capture(hbone);
        self.places.place(hbone, listener.local_addr().unwrap());
        self.serve_beside_client(listener)
    }

    /// Has the client's node serve the server pod as well, on a listener that need not be where the pod is found.
    pub(super) fn serve_beside_client(&mut self, listener: std::net::TcpListener) -> Arc<Served> {
        let listeners = Listeners { hbone: vec![listener], ..Listeners::default() };
        self.pods.push(self.client.tunnel.start(pod("server", &self.places), listeners));
        self.client.tunnel.shared.pods().pop().unwrap()
    }

    /// Ends the server node with everything it carries, and starts another in its place.
    pub(super) fn restart_server(&mut self) {
        let config = Config { workers: NonZeroUsize::MIN, ..Config::default() };
        self.server = Node::new(config, &self.store, &self.certificates, None);
        self.serve();
    }

    /// Has the client's node know only what it asks for.
    pub(super) fn ask_for_everything(&mut self, config: Config, demand: Arc<dyn Demand>) {
        let config = Config { workers: NonZeroUsize::MIN, ..config };
        self.client = Node::new(config, &self.store, &self.certificates, Some(demand));
    }

    /// The server pod's application on `port`.
    pub(super) async fn app(&self, port: u16) -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.places.place((SERVER, port).into(), listener.local_addr().unwrap());
        listener
    }

    /// The server pod's application on `port`, which is not there.
    pub(super) async fn absent_app(&self, port: u16) {
        drop(self.app(port).await);
    }

    /// A way for the client pod's application to connect to `destination`.
    pub(super) fn way_to(&mut self, destination: impl Into<SocketAddr>) -> SocketAddr {
        let listener = self.places.capture(destination.into());
        let address = listener.local_addr().unwrap();
        let listeners = Listeners { outbound: vec![listener], ..Listeners::default() };
        self.pods.push(self.client.tunnel.start(pod("client", &self.places), listeners));
        address
    }

    /// Ways for the client pod's application to ask [`RESOLVER`] for names: by datagrams, and by a connection.
    pub(super) fn way_to_resolver(&mut self) -> (SocketAddr, SocketAddr) {
        let listener = self.places.capture((RESOLVER, 53).into());
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        linux::sockopt::set_packet_info(&socket, false).unwrap();
        let ways = (socket.local_addr().unwrap(), listener.local_addr().unwrap());
        let listeners = Listeners { outbound: vec![listener], dns: vec![socket], ..Listeners::default() };
        self.pods.push(self.client.tunnel.start(pod("client", &self.places), listeners));
        ways
    }

    /// A way for the server pod's application to connect to `destination`, which may be itself: its tunnel
    /// listener is reached by loopback then.
    pub(super) fn way_home_to(&mut self, destination: impl Into<SocketAddr>) -> SocketAddr {
        let listener = self.places.capture(destination.into());
        let address = listener.local_addr().unwrap();
        let own = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        own.set_nonblocking(true).unwrap();
        let pod = Pod { self_address: own.local_addr().ok(), ..pod("server", &self.places) };
        let listeners = Listeners { outbound: vec![listener], hbone: vec![own], ..Listeners::default() };
        self.pods.push(self.server.tunnel.start(pod, listeners));
        address
    }

    /// A way for somebody outside the mesh to connect to the server pod in plaintext.
    pub(super) fn plain_way_to(&mut self, port: u16) -> SocketAddr {
        let listener = self.places.capture((SERVER, port).into());
        let address = listener.local_addr().unwrap();
        let listeners = Listeners { plaintext: vec![listener], ..Listeners::default() };
        self.pods.push(self.server.tunnel.start(pod("server", &self.places), listeners));
        address
    }

    /// The server pod's listeners as a local process finds them: outbound, plaintext, HBONE.
    pub(super) fn bare_listeners(&mut self) -> [SocketAddr; 3] {
        let all = [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        all.iter().for_each(|listener| listener.set_nonblocking(true).unwrap());
        let addresses = all.each_ref().map(|listener| listener.local_addr().unwrap());
        let [outbound, plaintext, hbone] = all.map(|listener| vec![listener]);
        let listeners = Listeners { outbound, plaintext, hbone, dns: Vec::new() };
        self.pods.push(self.server.tunnel.start(pod("server", &self.places), listeners));
        addresses
    }

    /// Replaces the server pod's workload.
    pub(super) fn change_server(&self, change: impl FnOnce(&mut Workload)) {
        self.store.update(|snapshot| {
            let mut server = workload("server", SERVER);
            change(&mut server);
            let mut editor = snapshot.edit();
            editor.insert_workload(server);
            Some(editor.finish())
        });
    }

    /// Connects the client pod's application to `port` of an application that is there.
    pub(super) async fn connected(&mut self, port: u16) -> (TcpStream, TcpStream) {
        let app = self.app(port).await;
        let client = TcpStream::connect(self.way_to((SERVER, port))).await.unwrap();
        let (accepted, _) = soon(app.accept()).await.unwrap();
        (client, accepted)
    }

    /// Closes the listeners of every pod.
    pub(super) fn stop_pods(&mut self) {
        self.pods.clear();
    }

    /// Stops the server pod, and nobody else.
    pub(super) fn stop_server(&mut self) {
        drop(self.pods.remove(0));
    }

    pub(super) fn add_policy(&self, policy: Policy) {
        self.store.update(|snapshot| {
            let mut editor = snapshot.edit();
            editor.insert_policy(policy);
            Some(editor.finish())
        });
    }
}

impl Node {
    fn new(
        config: Config,
        store: &Arc<Store>,
        certificates: &Arc<Issuer>,
        demand: Option<Arc<dyn Demand>>,
    ) -> Self {
        let mut registry = Registry::default();
        let certificates: Arc<dyn CertificateProvider> = Arc::<Issuer>::clone(certificates);
        let tunnel = Tunnel::new(config, Arc::clone(store), certificates, demand, &mut registry).unwrap();
        Self { tunnel, registry }
    }

    /// How many tunnels its pool holds.
    pub(super) fn tunnels(&self) -> usize {
        self.tunnel.workers.seats().iter().map(|worker| worker.pool.tunnels()).sum()
    }

    /// Waits until a metric line holds all of `parts`.
    pub(super) async fn metric(&self, parts: &[&str]) {
        let mut text = String::new();
        for _ in 0..500 {
            text.clear();
            prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
            if text.lines().any(|line| parts.iter().all(|part| line.contains(part))) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no metric with {parts:?} in:\n{text}");
    }
}

fn pod(name: &str, places: &Places) -> Pod {
    Pod {
        uid: format!("Kubernetes//Pod/default/{name}").into(),
        name: name.into(),
        namespace: "default".into(),
        service_account: Some(name.into()),
        sockets: Arc::new(places.clone()),
        self_address: None,
    }
}

/// Waits for something to become true.
pub(super) async fn eventually(mut condition: impl FnMut() -> bool) {
    soon(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Fails the test rather than hanging it.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("this should not take so long")
}
