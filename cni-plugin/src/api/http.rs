//! One HTTP/1.1 answer out of the bytes that have come so far.
//!
//! All three ways in which a body may end are read: a length, chunks, and the end of the connection, which counts only if
//! nothing else was announced. What is not HTTP is an error, what is not whole yet is none.

use std::io;

/// Header lines that an answer may have.
const MAX_HEADERS: usize = 64;

/// A whole answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// The answer, once it is whole; `ended` says that no more bytes will come.
pub(crate) fn parse(bytes: &[u8], ended: bool) -> io::Result<Option<Reply>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes).map_err(garbled)? else { return Ok(None) };
    let rest = bytes.get(head..).unwrap_or_default();
    let status = response.code.unwrap_or_default();
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).trim().to_ascii_lowercase())
    };
    let body = if header("transfer-encoding").is_some_and(|codings| codings.ends_with("chunked")) {
        chunks(rest)?
    } else if let Some(length) = header("content-length") {
        let length: usize = length.parse().map_err(garbled)?;
        rest.get(..length).map(<[u8]>::to_vec)
    } else {
        ended.then(|| rest.to_vec())
    };
    Ok(body.map(|body| Reply { status, body }))
}

/// A body in chunks (RFC 9112 section 7.1), once its last one is there; trailers are not waited for.
fn chunks(mut bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let parsed = httparse::parse_chunk_size(bytes).map_err(|_| garbled("a chunk without a size"))?;
        let httparse::Status::Complete((start, size)) = parsed else { return Ok(None) };
        if size == 0 {
            return Ok(Some(body));
        }
        let size = usize::try_from(size).map_err(garbled)?;
        let end = start.checked_add(size).ok_or_else(|| garbled("a chunk without an end"))?;
        let after = end.checked_add(2).ok_or_else(|| garbled("a chunk without an end"))?;
        let (Some(chunk), Some(rest)) = (bytes.get(start..end), bytes.get(after..)) else { return Ok(None) };
        body.extend_from_slice(chunk);
        bytes = rest;
    }
}

fn garbled(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of an answer that comes byte by byte: how many of its bytes are needed, and what it says.
    fn slowly(text: &str, closes: bool) -> (usize, Reply) {
        let bytes = text.as_bytes();
        for length in 0..bytes.len() {
            if let Some(reply) = parse(&bytes[..length], false).unwrap() {
                return (length, reply);
            }
        }
        (bytes.len(), parse(bytes, closes).unwrap().unwrap())
    }

    #[test]
    fn a_body_ends_in_three_ways() {
        let reply = Reply { status: 200, body: b"hello".to_vec() };
        let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(slowly(length, false), (length.len(), reply));
        let chunked = "HTTP/1.1 404 Not Found\r\ntransfer-encoding: Chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n";
        let reply = Reply { status: 404, body: b"hello".to_vec() };
        assert_eq!(slowly(chunked, false), (chunked.len() - 2, reply), "trailers are not waited for");
        let until_closed = "HTTP/1.0 200 OK\r\n\r\nhello";
        assert_eq!(slowly(until_closed, true).1, Reply { status: 200, body: b"hello".to_vec() });
    }

    #[test]
    fn what_is_cut_off_is_not_whole() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "HTTP/1.1 200 O",
        ] {
            assert_eq!(parse(text.as_bytes(), true).unwrap(), None, "{text}");
        }
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        for text in [
            "SSH-2.0-OpenSSH_9.2\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        ] {
            assert!(parse(text.as_bytes(), true).is_err(), "{text}");
        }
        // The largest size that there is overflows nothing.
        let huge = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx";
        assert!(parse(huge.as_bytes(), true).is_err());
    }
}
