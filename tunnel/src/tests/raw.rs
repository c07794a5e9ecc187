//! A server that speaks HTTP/2 frame by frame (RFC 9113 §4, §6), to do what a well-kept library would not.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mesh::Identity;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;

use super::world::{SERVER, World, soon};
use crate::CertificateProvider as _;
use crate::tls::{Configs, Server};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const MAX_CONCURRENT_STREAMS: u16 = 3;
/// `:status: 200` in HPACK's static table (RFC 7541, appendix A).
const OK: &[u8] = &[0x88];
const REFUSED_STREAM: u32 = 7;

/// Where the server pod takes tunnels.
pub(super) struct RawServer {
    listener: TcpListener,
    tls: Server,
}

impl RawServer {
    /// Takes the place of the server pod's agent.
    pub(super) async fn new(world: &World) -> Self {
        let identity = Identity::new("cluster.local", "default", "server");
        let certificate = world.certificates.certificate(&identity).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hbone = SocketAddr::from((SERVER, mesh::HBONE_PORT));
        world.places.place(hbone, listener.local_addr().unwrap());
        Self { listener, tls: Configs::default().server(&identity, &certificate).unwrap() }
    }

    /// The next tunnel, which is told how many streams it may carry.
    pub(super) async fn tunnel(&self, streams: u32) -> RawTunnel {
        let accepted = async {
            let (stream, _) = self.listener.accept().await.unwrap();
            let mut io = self.tls.acceptor().accept(stream).await.unwrap();
            io.read_exact(&mut [0; 24]).await.unwrap();
            io
        };
        let mut tunnel = RawTunnel {
            io: soon(accepted).await,
            hungry: true,
            unnoted: 0,
            settings: BTreeMap::new(),
            widened: 0,
        };
        tunnel.allow(streams).await;
        tunnel
    }
}

/// One tunnel of it.
pub(super) struct RawTunnel {
    io: TlsStream<TcpStream>,
    /// Whether a PING is answered.
    hungry: bool,
    /// Settings that were sent and not acknowledged.
    unnoted: usize,
    /// What the client has announced.
    pub(super) settings: BTreeMap<u16, u32>,
    /// By how much the client has widened the connection's window.
    pub(super) widened: u32,
}

impl RawTunnel {
    /// The id of the next stream that is opened.
    pub(super) async fn request(&mut self) -> u32 {
        let request = async {
            loop {
                let (kind, stream) = self.frame().await.expect("the tunnel is gone");
                if kind == HEADERS {
                    return stream;
                }
            }
        };
        soon(request).await
    }

    /// Reads until the client has closed the tunnel, and never answers a PING.
    pub(super) async fn die(mut self) {
        self.hungry = false;
        soon(async { while self.frame().await.is_some() {} }).await;
    }

    /// Reads until the client has taken note of all settings it was sent.
    pub(super) async fn noted(&mut self) {
        let noted = async {
            while self.unnoted > 0 {
                self.frame().await.expect("the tunnel is gone");
            }
        };
        soon(noted).await;
    }

    pub(super) async fn allow(&mut self, streams: u32) {
        let mut payload = MAX_CONCURRENT_STREAMS.to_be_bytes().to_vec();
        payload.extend(streams.to_be_bytes());
        self.send(SETTINGS, 0, 0, &payload).await;
        self.unnoted += 1;
    }

    pub(super) async fn accept(&mut self, stream: u32) {
        self.send(HEADERS, END_HEADERS, stream, OK).await;
    }

    pub(super) async fn refuse(&mut self, stream: u32) {
        self.send(RST_STREAM, 0, stream, &REFUSED_STREAM.to_be_bytes()).await;
    }

    pub(super) async fn say(&mut self, stream: u32, data: &[u8]) {
        self.send(DATA, 0, stream, data).await;
    }

    /// Wants no more streams, and has touched none after `last`.
    pub(super) async fn go_away(&mut self, last: u32) {
        let payload = [last.to_be_bytes(), 0_u32.to_be_bytes()].concat();
        self.send(GOAWAY, 0, 0, &payload).await;
    }

    /// The kind and stream of the next frame.
    async fn frame(&mut self) -> Option<(u8, u32)> {
        let mut head = [0; 9];
        self.io.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.io.read_exact(&mut payload).await.ok()?;
        match (kind, flags) {
            (SETTINGS, ACK) => self.unnoted -= 1,
            (PING, ACK) => {}
            (SETTINGS, _) => {
                for entry in payload.chunks_exact(6) {
                    let [a, b, c, d, e, f] = entry.try_into().unwrap();
                    self.settings.insert(u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]));
                }
                self.send(SETTINGS, ACK, 0, &[]).await;
            }
            (WINDOW_UPDATE, _) if stream == [0; 4] => {
                self.widened += u32::from_be_bytes(payload.as_slice().try_into().unwrap());
            }
            (PING, _) if self.hungry => self.send(PING, ACK, 0, &payload).await,
            _ => {}
        }
        Some((kind, u32::from_be_bytes(stream)))
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![a, b, c, kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.io.write_all(&frame).await.unwrap();
        self.io.flush().await.unwrap();
    }
}
