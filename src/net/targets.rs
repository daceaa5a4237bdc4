//! Request targets as people type them.
//!
//! `curl -g`, Go and some WebSocket clients send a URL as it was given, and ours hold JSON:
//! `?filter={"views":{"$gt":10}}`. hyper's URI type refuses a raw `"`, `<` or `>` in a query before
//! any of our code could say so; here they become `%22`, `%3C` and `%3E` on their way in. Only
//! request lines are touched, so what follows them is counted along: heads, and bodies by their
//! `Content-Length`. Where the next request begins cannot be told that way (chunks, an upgrade),
//! the rest of the connection is left as it comes.

use memchr::memchr;

/// Longest header line that is looked at: the names that count are shorter.
const LINE_BYTES: usize = 64;

/// Where one connection's bytes stand.
#[derive(Debug, Default)]
pub(super) struct Targets {
    place: Place,
    /// The present line's beginning.
    line: Vec<u8>,
    /// What the present head says of what follows it.
    follows: Follows,
}

#[derive(Debug, Default)]
enum Place {
    #[default]
    RequestLine,
    Head,
    Body(u64),
    /// Never again a request line that could be told for sure.
    Rest,
}

#[derive(Debug, Default, Clone, Copy)]
enum Follows {
    #[default]
    Nothing,
    Bytes(u64),
    Unknown,
}

impl Targets {
    /// Takes the next bytes of the connection; gives them rewritten where that is needed.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut rewritten: Option<Vec<u8>> = None;
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let taken = match self.place {
                Place::Rest => return with(rewritten, rest),
                Place::Body(left) => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    self.place = match left - taken as u64 {
                        0 => Place::RequestLine,
                        left => Place::Body(left),
                    };
                    taken
                }
                Place::RequestLine => match escape(rest[0]) {
                    Some(escaped) => {
                        rewritten
                            .get_or_insert_with(|| bytes[..at].to_vec())
                            .extend_from_slice(escaped);
                        at += 1;
                        continue;
                    }
                    None => {
                        let special = |byte: &u8| matches!(byte, b'"' | b'<' | b'>' | b'\n');
                        self.line(rest, rest.iter().position(special))
                    }
                },
                Place::Head => self.line(rest, memchr(b'\n', rest)),
            };
            if let Some(rewritten) = &mut rewritten {
                rewritten.extend_from_slice(&rest[..taken]);
            }
            at += taken;
        }
        rewritten
    }

    /// The bytes of a line that end before `end`, and the end of the line if it is there. Gives how
    /// many were taken in all.
    fn line(&mut self, rest: &[u8], end: Option<usize>) -> usize {
        let taken = end.unwrap_or(rest.len());
        let some = &rest[..taken];
        let ends = rest.get(taken) == Some(&b'\n');
        // Mostly a line comes in one piece, and need not be kept for its other ones.
        if ends && self.line.is_empty() {
            self.whole(&some[..taken.min(LINE_BYTES)]);
            return taken + 1;
        }
        let room = LINE_BYTES.saturating_sub(self.line.len());
        self.line.extend_from_slice(&some[..taken.min(room)]);
        if !ends {
            return taken;
        }
        let line = std::mem::take(&mut self.line);
        self.whole(&line);
        taken + 1
    }

    /// A line, of a long one its beginning.
    fn whole(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match self.place {
            // Empty lines may stand before a request.
            Place::RequestLine if line.is_empty() => {}
            Place::RequestLine => {
                self.place = Place::Head;
                self.follows = Follows::Nothing;
            }
            _ if line.is_empty() => {
                self.place = match self.follows {
                    Follows::Nothing | Follows::Bytes(0) => Place::RequestLine,
                    Follows::Bytes(bytes) => Place::Body(bytes),
                    Follows::Unknown => Place::Rest,
                }
            }
            _ => self.header(line),
        }
    }

    fn header(&mut self, line: &[u8]) {
        let Some(colon) = memchr(b':', line) else { return };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            self.follows = match (self.follows, length) {
                (Follows::Nothing, Some(length)) => Follows::Bytes(length),
                _ => Follows::Unknown,
            };
        } else if name.eq_ignore_ascii_case(b"transfer-encoding")
            || name.eq_ignore_ascii_case(b"upgrade")
        {
            self.follows = Follows::Unknown;
        }
    }
}

fn escape(byte: u8) -> Option<&'static [u8]> {
    match byte {
        b'"' => Some(b"%22"),
        b'<' => Some(b"%3C"),
        b'>' => Some(b"%3E"),
        _ => None,
    }
}

fn with(rewritten: Option<Vec<u8>>, rest: &[u8]) -> Option<Vec<u8>> {
    rewritten.map(|mut rewritten| {
        rewritten.extend_from_slice(rest);
        rewritten
    })
}

#[cfg(test)]
mod tests {
    use super::Targets;

    /// What comes out, whatever pieces it comes in.
    fn read(input: &str) -> String {
        let mut outcomes = [1, 2, 7, input.len()].map(|piece| {
            let mut targets = Targets::default();
            let mut out = Vec::new();
            for bytes in input.as_bytes().chunks(piece) {
                match targets.read(bytes) {
                    Some(rewritten) => out.extend(rewritten),
                    None => out.extend(bytes),
                }
            }
            String::from_utf8(out).unwrap()
        });
        assert!(outcomes.windows(2).all(|pair| pair[0] == pair[1]), "{outcomes:?}");
        std::mem::take(&mut outcomes[0])
    }

    #[test]
    fn only_request_lines_are_rewritten() {
        let input = "GET /a?f={\"x\":\"<1>\"} HTTP/1.1\r\nHost: \"h\"\r\n\r\n\
                     \r\nGET /b?\" HTTP/1.1\r\n\r\n\
                     POST /c?\" HTTP/1.1\r\nX: <\r\ncontent-LENGTH:  7 \r\n\r\n{\"a\":1}\
                     GET /d?\" HTTP/1.1\n\n";
        let output = "GET /a?f={%22x%22:%22%3C1%3E%22} HTTP/1.1\r\nHost: \"h\"\r\n\r\n\
                      \r\nGET /b?%22 HTTP/1.1\r\n\r\n\
                      POST /c?%22 HTTP/1.1\r\nX: <\r\ncontent-LENGTH:  7 \r\n\r\n{\"a\":1}\
                      GET /d?%22 HTTP/1.1\n\n";
        assert_eq!(read(input), output);
    }

    #[test]
    fn what_cannot_be_counted_is_left_alone() {
        for head in ["Transfer-Encoding: chunked", "Upgrade: websocket", "Content-Length: 1, 1"] {
            let input = format!("GET /?\" HTTP/1.1\r\n{head}\r\n\r\nGET /?\" HTTP/1.1\r\n\r\n");
            assert_eq!(read(&input), input.replacen('"', "%22", 1), "{head}");
        }
    }

    #[test]
    fn a_long_header_changes_nothing() {
        let long = "x".repeat(500);
        let input = format!("GET / HTTP/1.1\r\nA: {long}\r\n\r\nGET /?\" HTTP/1.1\r\n\r\n");
        assert_eq!(read(&input), input.replace('"', "%22"));
    }
}
