//! A blocking client for server-sent events, as a browser's `EventSource` reads them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::{HttpAnswer, PATIENCE, Server};

/// One event as it stands on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub event: Option<String>,
    pub data: Option<String>,
    /// Perhaps empty.
    pub id: Option<String>,
    pub retry: Option<String>,
    pub comment: bool,
}

/// An open stream.
#[derive(Debug)]
pub struct Sse {
    stream: TcpStream,
    pub head: HttpAnswer,
    /// As received, not yet taken apart.
    raw: Vec<u8>,
    /// Text of chunks, not yet taken apart.
    text: Vec<u8>,
    ended: bool,
    /// What a browser would send as `Last-Event-ID`.
    pub last_id: String,
}

impl Server {
    /// Asks for a stream of events. `Err` is the answer that was none.
    pub fn sse(&self, path: &str, headers: &[(&str, &str)]) -> Result<Sse, HttpAnswer> {
        let mut stream = self.connect();
        let mut head = format!("GET {path} HTTP/1.1\r\n");
        for (name, default) in
            [("Host", self.address.to_string()), ("Accept", "text/event-stream".into())]
        {
            if !headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name)) {
                head.push_str(&format!("{name}: {default}\r\n"));
            }
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).expect("request sent");
        let mut head = HttpAnswer::read(&mut stream)
            .unwrap_or_else(|error| panic!("sse {path}: {error}\n{}", self.log()));
        if head.header("content-type") != Some("text/event-stream") {
            return Err(head);
        }
        let raw = std::mem::take(&mut head.body);
        Ok(Sse { stream, head, raw, text: Vec::new(), ended: false, last_id: String::new() })
    }

    /// A stream of the admin's or of whoever the token is.
    pub fn events(&self, query: &str, token: Option<&str>) -> Sse {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer.iter().map(|b| ("Authorization", b.as_str())).collect();
        match self.sse(&format!("/api/realtime/content?{query}"), &headers) {
            Ok(sse) => sse,
            Err(answer) => panic!("sse {query}: {} {}", answer.status, answer.text()),
        }
    }
}

impl Sse {
    /// The transport, e.g. to stop reading from it.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The next event within `time`, whatever it is; `None` if none came or the stream ended.
    pub fn next_event(&mut self, time: Duration) -> Option<Event> {
        let deadline = Instant::now() + time;
        loop {
            if let Some(end) = self.text.windows(2).position(|pair| pair == b"\n\n") {
                let rest = self.text.split_off(end + 2);
                let text = std::mem::replace(&mut self.text, rest);
                return Some(self.parse(std::str::from_utf8(&text).expect("UTF-8")));
            }
            if self.unchunk() {
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if self.ended || left.is_zero() {
                return None;
            }
            self.stream.set_read_timeout(Some(left)).expect("timeout set");
            let mut bytes = [0; 16 << 10];
            match self.stream.read(&mut bytes) {
                Ok(0) => self.ended = true,
                Ok(n) => self.raw.extend_from_slice(&bytes[..n]),
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) => {}
                Err(_) => self.ended = true,
            }
        }
    }

    /// Moves one chunk; `false` where none is whole.
    fn unchunk(&mut self) -> bool {
        let Some(line) = self.raw.windows(2).position(|pair| pair == b"\r\n") else {
            return false;
        };
        let length = std::str::from_utf8(&self.raw[..line]).expect("a chunk's length");
        let length = usize::from_str_radix(length.trim(), 16).expect("a chunk's length");
        let (start, end) = (line + 2, line + 2 + length);
        if self.raw.len() < end + 2 {
            return false;
        }
        self.text.extend_from_slice(&self.raw[start..end]);
        self.raw.drain(..end + 2);
        self.ended |= length == 0;
        true
    }

    fn parse(&mut self, text: &str) -> Event {
        let mut event = Event::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match name {
                "" => event.comment = true,
                "event" => event.event = Some(value),
                "data" => {
                    assert!(event.data.is_none(), "data in one line: {text}");
                    event.data = Some(value);
                }
                "id" => {
                    self.last_id.clone_from(&value);
                    event.id = Some(value);
                }
                "retry" => event.retry = Some(value),
                other => panic!("an unknown field {other}: {text}"),
            }
        }
        event
    }

    /// The next message as a WebSocket would have it: the id as `cursor`, an id alone as
    /// `position`. Panics at a close.
    pub fn next_within(&mut self, time: Duration) -> Option<Json> {
        let deadline = Instant::now() + time;
        loop {
            let event = self.next_event(deadline.saturating_duration_since(Instant::now()))?;
            assert!(event.event.is_none(), "expected a message, got {event:?}");
            let id = event.id.filter(|id| !id.is_empty());
            let mut message = match (event.data, &id) {
                (Some(data), _) => serde_json::from_str(&data).expect("a JSON message"),
                (None, Some(_)) => serde_json::json!({"event": "position"}),
                (None, None) => continue,
            };
            if let Some(id) = id {
                message["cursor"] = id.into();
            }
            return Some(message);
        }
    }

    /// The next message.
    pub fn next(&mut self) -> Json {
        self.next_within(PATIENCE).expect("a message in time")
    }

    /// The next message that is no position.
    pub fn next_change(&mut self) -> Json {
        loop {
            let message = self.next();
            if message["event"] != "position" {
                return message;
            }
        }
    }

    /// Reads up to the last event: code and reason; the stream must end after it. 1006 for a
    /// stream that ends without one.
    pub fn closed(&mut self) -> (u16, String) {
        let deadline = Instant::now() + PATIENCE;
        let left = || deadline.saturating_duration_since(Instant::now());
        while let Some(event) = self.next_event(left()) {
            if event.event.as_deref() == Some("close") {
                let close: Json = serde_json::from_str(event.data.as_deref().unwrap_or_default())
                    .expect("a close is JSON");
                assert_eq!(self.next_event(left()), None, "nothing follows a close");
                assert!(self.ended, "the stream ends with its close");
                let code = close["code"].as_u64().expect("a code") as u16;
                return (code, close["reason"].as_str().expect("a reason").to_owned());
            }
        }
        assert!(self.ended, "no close in time");
        (1006, String::new())
    }
}
