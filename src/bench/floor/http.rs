//! The little HTTP that the floor speaks: upgrades, posts over keep-alive, and one question.

use std::ops::Range;

use bytes::Bytes;
use hyper_tungstenite::tungstenite::handshake::derive_accept_key;

/// The longest head of a request.
const HEAD_BYTES: usize = 64 << 10;
/// The longest body: the longest frame.
const BODY_BYTES: usize = 64 << 20;
const HEADERS: usize = 64;

/// What stands at the head of what a connection has sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// More has to come first.
    Incomplete,
    /// A WebSocket, under this key.
    Upgrade(String),
    /// A frame to be made of the bytes at `body`, for `to` subscribers, or for all.
    Post { body: Range<usize>, to: Option<usize>, last: bool },
    /// How things stand; what follows begins at `end`.
    Status { end: usize, last: bool },
    /// Nothing that is spoken here: the status line, and why.
    Refused(&'static str, &'static str),
}

/// Reads the first request in `input`.
pub fn parse(input: &[u8]) -> Asked {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(input) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if input.len() <= HEAD_BYTES => return Asked::Incomplete,
        Ok(httparse::Status::Partial) => {
            return Asked::Refused("431 Request Header Fields Too Large", "too long a head");
        }
        Err(_) => return Asked::Refused("400 Bad Request", "no HTTP/1.1"),
    };
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
    };
    let last = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let length = match header("content-length").map(str::parse::<usize>) {
        None => None,
        Some(Ok(length)) => Some(length),
        Some(Err(_)) => return Asked::Refused("400 Bad Request", "content-length is no number"),
    };
    match (request.method, length) {
        (Some("POST"), Some(length)) => {
            if length > BODY_BYTES {
                return Asked::Refused("413 Content Too Large", "too long a body");
            }
            let Ok(to) = to(request.path.unwrap_or_default()) else {
                return Asked::Refused("400 Bad Request", "'to' is no number");
            };
            if input.len() - head < length {
                return Asked::Incomplete;
            }
            Asked::Post { body: head..head + length, to, last }
        }
        (Some("POST"), None) => Asked::Refused("411 Length Required", "no content-length"),
        (Some("GET"), None | Some(0)) => match header("sec-websocket-key") {
            Some(key) => Asked::Upgrade(key.to_owned()),
            None => Asked::Status { end: head, last },
        },
        _ => Asked::Refused("405 Method Not Allowed", "GET and POST"),
    }
}

/// `to` in the query.
fn to(path: &str) -> Result<Option<usize>, std::num::ParseIntError> {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let value = query.split('&').find_map(|pair| pair.strip_prefix("to="));
    value.map(str::parse).transpose()
}

/// The answer that makes a WebSocket of a connection.
pub fn switched(key: &str) -> Bytes {
    let accept = derive_accept_key(key.as_bytes());
    let lines = [
        "HTTP/1.1 101 Switching Protocols",
        "upgrade: websocket",
        "connection: Upgrade",
        &format!("sec-websocket-accept: {accept}"),
        "\r\n",
    ];
    lines.join("\r\n").into()
}

/// An answer of JSON; `last`: the connection ends with it.
pub fn answer(status: &str, body: &str, last: bool) -> Bytes {
    let close = if last { "connection: close\r\n" } else { "" };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{close}\r\n"
    );
    (head + body).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_one_by_one() {
        let post = b"POST /x?a=1&to=3 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET";
        let Asked::Post { body, to, last } = parse(post) else { panic!("a post") };
        assert_eq!((&post[body], to, last), (&b"hello"[..], Some(3), false));
        for cut in 0..post.len() - 3 {
            assert_eq!(parse(&post[..cut]), Asked::Incomplete, "{cut}");
        }
        let key = "GET /any HTTP/1.1\r\nSec-WebSocket-Key: abc\r\n\r\n";
        assert_eq!(parse(key.as_bytes()), Asked::Upgrade("abc".into()));
        let status = "GET / HTTP/1.1\r\nconnection: close\r\n\r\n";
        assert_eq!(parse(status.as_bytes()), Asked::Status { end: status.len(), last: true });
    }

    #[test]
    fn what_is_not_spoken_is_refused() {
        for (input, status) in [
            ("hello\r\n\r\n", "400"),
            ("POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n", "400"),
            ("POST /?to=x HTTP/1.1\r\ncontent-length: 0\r\n\r\n", "400"),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", "411"),
            ("POST / HTTP/1.1\r\ncontent-length: 999999999999\r\n\r\n", "413"),
            ("PUT / HTTP/1.1\r\ncontent-length: 0\r\n\r\n", "405"),
        ] {
            let asked = parse(input.as_bytes());
            assert!(
                matches!(&asked, Asked::Refused(line, _) if line.starts_with(status)),
                "{input}"
            );
        }
        let long = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(HEAD_BYTES));
        assert!(
            matches!(parse(long.as_bytes()), Asked::Refused(line, _) if line.starts_with("431"))
        );
    }
}
