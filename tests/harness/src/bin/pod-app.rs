//! `pod-app`: what runs in the pods of tests and demo. It knows nothing of the mesh.

#![forbid(unsafe_code)]

#[path = "pod-app/call.rs"]
mod call;
#[path = "pod-app/proxy_protocol.rs"]
mod proxy_protocol;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context as _, Result};
use call::Call;
use clap::Parser;

/// Longest head of a request.
const MAX_HEAD: u64 = 64 * 1024;

#[derive(Parser)]
enum Role {
    /// Answers HTTP/1.1 with the addresses that it sees.
    ServeHttp {
        /// Said in each answer.
        #[arg(long, default_value = "pod-app")]
        name: String,
        /// Port, on all addresses of both families.
        #[arg(long)]
        port: u16,
        /// Whom it asks before it answers, `name=address:port`; what that one says is in its answer. May be repeated.
        #[arg(long)]
        call: Vec<Call>,
    },
    /// The same, without calls, for connections that begin with a PROXY protocol header, version 2, which it reports.
    ServeProxied {
        /// Said in each answer.
        #[arg(long, default_value = "pod-app")]
        name: String,
        /// Port, on all addresses of both families.
        #[arg(long)]
        port: u16,
    },
    /// Sends back what comes.
    Echo {
        /// Port, on all addresses of both families.
        #[arg(long)]
        port: u16,
    },
    /// Does nothing until it is killed.
    Hold,
    /// Waits for the end of its input, then asks a server once and prints its own address and the answer.
    GetWhenTold {
        /// `address:port`.
        to: SocketAddr,
    },
    /// Asks a server once and prints its answer.
    Get {
        /// `address:port`.
        to: SocketAddr,
        /// Path.
        #[arg(default_value = "/")]
        path: String,
    },
}

fn main() -> Result<()> {
    match Role::parse() {
        Role::ServeHttp { name, port, call } => {
            serve(port, move |stream| http(serde_json::json!({ "app": name }), &call, stream))
        }
        Role::ServeProxied { name, port } => serve(port, move |mut stream| {
            let introduction = proxy_protocol::read(&mut stream)?;
            http(serde_json::json!({ "app": name, "proxied": introduction }), &[], stream)
        }),
        Role::Echo { port } => serve(port, echo),
        Role::Hold => loop {
            std::thread::park();
        },
        Role::GetWhenTold { to } => {
            std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
            let mut http = harness::Http::new(harness::client::connect(to, harness::client::LIMIT)?)?;
            let own = http.stream().local_addr()?;
            let reply = http.get("/")?;
            writeln!(std::io::stdout(), "{own} {}", reply.body)?;
            Ok(())
        }
        Role::Get { to, path } => {
            let reply =
                harness::Http::new(harness::client::connect(to, harness::client::LIMIT)?)?.get(&path)?;
            writeln!(std::io::stdout(), "{} {}", reply.status, reply.body)?;
            Ok(())
        }
    }
}

/// A thread a connection: there are few, and each is simple to follow.
fn serve(
    port: u16,
    handle: impl Fn(TcpStream) -> std::io::Result<()> + Clone + Send + 'static,
) -> Result<()> {
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
    for stream in listener.incoming() {
        // A client that left between its SYN and here is its own business; so is a connection that breaks.
        let Ok(stream) = stream else { continue };
        let handle = handle.clone();
        std::thread::Builder::new().spawn(move || handle(stream).ok())?;
    }
    Ok(())
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 16 * 1024];
    loop {
        let length = stream.read(&mut buffer)?;
        match buffer.get(..length) {
            Some([]) | None => return Ok(()),
            Some(bytes) => stream.write_all(bytes)?,
        }
    }
}

fn http(mut answer: serde_json::Value, calls: &[Call], mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (peer, local) = (plain(stream.peer_addr()?), plain(stream.local_addr()?));
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut head = reader.by_ref().take(MAX_HEAD);
        let mut request = String::new();
        if head.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let (mut close, mut header) = (false, String::new());
        while head.read_line(&mut header)? > 0 && !header.trim_end().is_empty() {
            close |= header.trim_end().eq_ignore_ascii_case("connection: close");
            header.clear();
        }
        let path = request.split(' ').nth(1).unwrap_or_default();
        for (key, value) in
            [("peer", peer.to_string()), ("local", local.to_string()), ("path", path.to_owned())]
        {
            if let Some(answer) = answer.as_object_mut() {
                answer.insert(key.to_owned(), value.into());
            }
        }
        let status = if call::ask_all(calls, path, &mut answer) { "200 OK" } else { "502 Bad Gateway" };
        let body = answer.to_string();
        let length = body.len();
        let kind = "Content-Type: application/json";
        write!(stream, "HTTP/1.1 {status}\r\n{kind}\r\nContent-Length: {length}\r\n\r\n{body}")?;
        if close {
            return Ok(());
        }
    }
}

/// An IPv4 address as such, where the socket of both families shows it mapped into IPv6.
fn plain(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    SocketAddr::new(ip, address.port())
}
