//! DNS over TCP (RFC 7766): messages after their lengths, several at once, answered as they are ready.
//!
//! Invariants: a connection that does not begin with a question is not this module's, and is carried as any other with not one
//! byte of it missing, be it an update, the transfer of a zone, or something that only uses the port. One connection has a
//! bounded number of questions under way, and is closed when it has been quiet for a while.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};

use super::PORT;
use super::message::{HEADER, Transport};
use super::query::{Way, answer};
use crate::scope::{Captured, Scope};

/// Questions of one connection that may be under way.
const PIPELINE: usize = 32;
/// How long a connection may be quiet (RFC 7766 §6.2.3: some seconds).
const IDLE: Duration = Duration::from_secs(30);
/// How long the rest of a message, or the taking of an answer, may take.
const STEADY: Duration = Duration::from_secs(10);
/// How long the beginning of a first message is waited for.
const FIRST: Duration = Duration::from_secs(5);
/// How often it is looked at while it is coming.
const LOOK: Duration = Duration::from_millis(5);
/// A length, a header and the shortest question.
const SHORTEST: usize = 2 + HEADER + 5;
/// QTYPEs of zone transfers, which are answered with more than one message (RFC 1995, RFC 5936).
const TRANSFERS: [u16; 2] = [251, 252];
/// The longest question: length, header, name, type, class.
const LOOKED_AT: usize = 2 + HEADER + 255 + 4;

/// Whether a captured connection asks for names, of a pod whose questions are answered here. Nothing of it is read yet.
pub(crate) async fn takes(scope: &Scope, captured: &Captured) -> bool {
    scope.served.dns
        && captured.original_destination.port() == PORT
        && begins_with_question(&captured.stream).await
}

/// Whether a connection begins with a question that can be answered here.
async fn begins_with_question(stream: &TcpStream) -> bool {
    let started = Instant::now();
    let mut bytes = [0; LOOKED_AT];
    while started.elapsed() < FIRST {
        let count = match timeout(FIRST, stream.peek(&mut bytes)).await {
            // Nobody speaks: what comes, if anything does, may be from the other side.
            Err(_) | Ok(Err(_) | Ok(0)) => return false,
            Ok(Ok(count)) => count,
        };
        match judge(bytes.get(..count).unwrap_or_default()) {
            Some(is_question) => return is_question,
            None => tokio::time::sleep(LOOK).await,
        }
    }
    false
}

/// Whether these first bytes of a connection are those of a question; none while there are too few.
pub(crate) fn judge(bytes: &[u8]) -> Option<bool> {
    // QR and opcode, then one question and no answers to it.
    let expected = [(4, 0xf8, 0), (6, 0xff, 0), (7, 0xff, 1), (8, 0xff, 0), (9, 0xff, 0)];
    for (at, mask, value) in expected {
        match bytes.get(at) {
            Some(byte) if byte & mask != value => return Some(false),
            Some(_) => {}
            None => return None,
        }
    }
    let length = usize::from(u16::from_be_bytes(*bytes.first_chunk()?));
    if 2 + length < SHORTEST {
        return Some(false);
    }
    let mut at = 2 + HEADER;
    loop {
        match usize::from(*bytes.get(at)?) {
            0 => break,
            label if label < 64 && at < LOOKED_AT => at += 1 + label,
            // What cannot be read is answered with that.
            _ => return Some(true),
        }
    }
    let kind = [*bytes.get(at + 1)?, *bytes.get(at + 2)?];
    Some(!TRANSFERS.contains(&u16::from_be_bytes(kind)))
}

/// Serves a connection to its end.
pub(crate) async fn serve(scope: Scope, captured: Captured) {
    let Captured { place: _place, stream, source, original_destination } = captured;
    let way = Way { client: source, resolver: original_destination, transport: Transport::Tcp };
    let (read, write) = stream.into_split();
    let (replies, waiting) = mpsc::channel(PIPELINE);
    let asking = async {
        read_questions(&scope, read, way, replies).await;
        // What is under way is answered still.
        pending::<()>().await;
    };
    tokio::select! {
        // Ends when the last question is answered, and when the client takes no answers.
        written = write_replies(write, waiting) => if let Err(error) = written {
            tracing::debug!(client = %source, %error, "DNS connection lost");
        },
        () = asking => {}
    }
}

/// Takes questions until the client has no more, is quiet for too long, or says what only a connection of its own can answer.
async fn read_questions(scope: &Scope, mut read: OwnedReadHalf, way: Way, replies: mpsc::Sender<Vec<u8>>) {
    let under_way = Arc::new(Semaphore::new(PIPELINE));
    let mut serving = scope.served.serving.clone();
    loop {
        let length = tokio::select! {
            // No value is ever sent: this resolves when the pod's handle is dropped.
            _ = serving.changed() => return,
            length = timeout(IDLE, read.read_u16()) => length,
        };
        let Ok(Ok(length)) = length else { return };
        let mut packet = vec![0; usize::from(length)];
        let Ok(Ok(_)) = timeout(STEADY, read.read_exact(&mut packet)).await else { return };
        let mut message = length.to_be_bytes().to_vec();
        message.extend(packet.iter().take(LOOKED_AT));
        if judge(&message) == Some(false) {
            return;
        }
        let places = async {
            let of_connection = Arc::clone(&under_way).acquire_owned().await.ok()?;
            Some((of_connection, Arc::clone(&scope.served.dns_places).acquire_owned().await.ok()?))
        };
        let Ok(Some(places)) = timeout(STEADY, places).await else { return };
        let (scope, replies) = (scope.clone(), replies.clone());
        tokio::spawn(async move {
            let _places = places;
            if let Some(reply) = answer(&scope, &packet, way).await {
                // Whoever would take it may be gone.
                let _ = replies.send(reply).await;
            }
        });
    }
}

async fn write_replies(mut write: OwnedWriteHalf, mut waiting: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(reply) = waiting.recv().await {
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        // In one piece: some clients take the first segment for the whole message.
        let mut message = Vec::with_capacity(2 + reply.len());
        message.extend(length.to_be_bytes());
        message.extend(reply);
        timeout(STEADY, write.write_all(&message)).await??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question for `a.example`, as it is on a connection.
    fn question(kind: u16) -> Vec<u8> {
        let mut bytes =
            b"\x00\x1b\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x07example\x00".to_vec();
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes
    }

    #[test]
    fn questions_are_known_by_their_first_bytes() {
        let a = question(1);
        assert_eq!(judge(&a), Some(true));
        for count in 0..a.len() - 2 {
            assert_eq!(judge(&a[..count]), None, "{count} bytes");
        }
        assert_eq!(judge(&question(252)), Some(false));
        assert_eq!(judge(&question(251)), Some(false));
        let changed = |at: usize, value: u8| {
            let mut bytes = question(1);
            bytes[at] = value;
            judge(&bytes)
        };
        assert_eq!(changed(4, 0x81), Some(false), "an answer");
        assert_eq!(changed(4, 0x28), Some(false), "an update");
        assert_eq!(changed(7, 2), Some(false), "two questions");
        assert_eq!(changed(1, 3), Some(false), "too short for a question");
        assert_eq!(changed(14, 0xc0), Some(true), "a pointer: it is answered that this makes no sense");
        assert_eq!(judge(b"SSH-2.0-OpenSSH_9.2\r\n"), Some(false));
        assert_eq!(judge(b"GET / HTTP/1.1\r\n"), Some(false));
        assert_eq!(judge(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), Some(false), "TLS");
    }
}
