//! A client of one connection: it says a line, and tells what came of that as the recorded clients did.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::outcome::{Fields, flat};
use crate::place::Place;

/// What a client says.
pub const LINE: &[u8] = b"hi\n";
/// Waits of a client; what takes longer hangs.
const LIMIT: Duration = Duration::from_secs(10);
/// Where nobody ever answers: how long a client waits before it gives up.
const PATIENCE: Duration = Duration::from_secs(1);
/// These ports do something of their own, see [`crate::server`].
const AFTER_END: u16 = 7001;
const BULK: u16 = 7003;
const SILENT: u16 = 7004;

/// How a connection went.
pub fn attempt(from: &Place, to: SocketAddr) -> Result<Fields> {
    Ok(flat(&match from.connect(to, LIMIT)? {
        Ok(stream) => talk(stream, to.port()).unwrap_or_else(|error| ended(&error)),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            json!({ "outcome": "connect refused" })
        }
        // Accepted, and reset before the client got to look.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => ended(&error),
        Err(error) => json!({ "outcome": "connect failed", "error": words(&error) }),
    }))
}

fn talk(mut stream: TcpStream, port: u16) -> io::Result<Value> {
    stream.write_all(LINE)?;
    if port == AFTER_END {
        stream.shutdown(Shutdown::Write)?;
    }
    stream.set_read_timeout(Some(if port == SILENT { PATIENCE } else { LIMIT }))?;
    let (mut came, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    let end = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break json!({ "outcome": "closed" }),
            Ok(count) => came.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) => break ended(&error),
        }
        if port != BULK && came.contains(&b'\n') {
            break json!({ "outcome": "answered" });
        }
    };
    Ok(said(end, &came))
}

/// An end, and what came before it.
fn said(mut end: Value, came: &[u8]) -> Value {
    if came.is_empty() {
        return end;
    }
    match serde_json::from_slice::<Value>(came) {
        Ok(by @ Value::Object(_)) => json!({ "outcome": "answered", "by": by }),
        _ if came.iter().all(|byte| *byte == b'x') => {
            if let Some(end) = end.as_object_mut() {
                end.insert("bytes".to_owned(), came.len().into());
            }
            end
        }
        _ => {
            let bytes: String = came.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "outcome": "other bytes", "bytes": bytes })
        }
    }
}

/// How a connection ended that broke.
pub fn ended(error: &io::Error) -> Value {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => json!({ "outcome": "reset" }),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => json!({ "outcome": "no answer" }),
        _ => json!({ "outcome": "broken", "error": words(error) }),
    }
}

/// The words of an error without its number.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_told_as_it_was_recorded() {
        let closed = || json!({ "outcome": "closed" });
        for (came, expected) in [
            (b"".as_slice(), closed()),
            (b"{\"pod\": \"a\"}\n", json!({ "outcome": "answered", "by": { "pod": "a" } })),
            (b"xxx", json!({ "outcome": "closed", "bytes": 3 })),
            (b"\x15\x03", json!({ "outcome": "other bytes", "bytes": "1503" })),
        ] {
            assert_eq!(said(closed(), came), expected);
        }
        let refused = io::Error::from_raw_os_error(101);
        assert_eq!(words(&refused), "Network is unreachable");
    }
}
