//! The three ways to hear: WebSocket, server-sent events, and asking again and again.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::common::tungstenite::protocol::{CloseFrame, Message, Role, WebSocket};
use crate::common::tungstenite::{Bytes, Error};
use crate::common::{HttpAnswer, PATIENCE};
use crate::writers::call;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    #[default]
    Socket,
    Events,
    Polls,
}

/// How a connection ended, or was not to be.
#[derive(Debug)]
pub enum End {
    Lost(#[expect(dead_code, reason = "shown in reports")] String),
    Closed(u16, String),
}

pub enum Incoming {
    /// As a WebSocket has it: with the cursor.
    Message(String),
    Pong,
    /// Answer of a poll.
    Page(Json),
}

/// A connection.
pub enum Wire {
    Socket(Box<WebSocket<TcpStream>>),
    Events(Events),
    Polls { address: SocketAddr, query: String, token: Option<String>, next: Instant },
}

/// An event stream, in chunks.
pub struct Events {
    stream: TcpStream,
    /// Chunks as they come.
    raw: Vec<u8>,
    /// What was in them.
    text: Vec<u8>,
}

fn lost(error: std::io::Error) -> End {
    End::Lost(error.to_string())
}

impl Wire {
    /// Connects; `query` has everything but where to begin, which is `since` (a cursor, or `now`).
    pub fn connect(
        kind: Kind,
        address: SocketAddr,
        mut query: String,
        since: Option<&str>,
        token: Option<&str>,
    ) -> Result<Wire, End> {
        if kind == Kind::Polls {
            let token = token.map(str::to_owned);
            return Ok(Wire::Polls { address, query, token, next: Instant::now() });
        }
        let mut headers = String::new();
        if let Some(token) = token {
            headers += &format!("Authorization: Bearer {token}\r\n");
        }
        match (kind, since) {
            (Kind::Events, Some(cursor)) if cursor != "now" => {
                headers += &format!("Last-Event-ID: {cursor}\r\n");
                if !query.contains("snapshot=") {
                    // What a browser's URL still says.
                    query += "&since=now";
                }
            }
            (_, Some(since)) => query += &format!("&since={since}"),
            (_, None) => {}
        }
        headers += match kind {
            Kind::Socket => {
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            }
            _ => "Accept: text/event-stream\r\n",
        };
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(lost)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(lost)?;
        let head = format!(
            "GET /api/realtime/content?{query} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).map_err(lost)?;
        let answer = HttpAnswer::read(&mut stream).map_err(lost)?;
        if !matches!((kind, answer.status), (Kind::Socket, 101) | (Kind::Events, 200)) {
            // What HTTP tells has the same meaning as the code with the same end.
            return Err(End::Closed(4000 + answer.status, answer.text()));
        }
        stream.set_nonblocking(true).map_err(lost)?;
        Ok(match kind {
            Kind::Socket => {
                let socket =
                    WebSocket::from_partially_read(stream, answer.body, Role::Client, None);
                Wire::Socket(Box::new(socket))
            }
            _ => Wire::Events(Events { stream, raw: answer.body, text: Vec::new() }),
        })
    }

    /// Asks for an answer behind all that was told.
    pub fn ping(&mut self) {
        if let Wire::Socket(socket) = self {
            let _ = socket.send(Message::Ping(Bytes::from_static(b"done?")));
        }
    }

    /// What has come; `None`: nothing yet. `since` is where a poll begins.
    pub fn read(&mut self, since: &str, hurry: bool) -> Result<Option<Incoming>, End> {
        match self {
            Wire::Socket(socket) => loop {
                return match socket.read() {
                    Ok(Message::Text(text)) => Ok(Some(Incoming::Message(text.to_string()))),
                    Ok(Message::Pong(payload)) if payload == b"done?"[..] => {
                        Ok(Some(Incoming::Pong))
                    }
                    Ok(Message::Close(Some(CloseFrame { code, reason }))) => {
                        Err(End::Closed(code.into(), reason.to_string()))
                    }
                    Ok(Message::Close(None)) => Err(End::Closed(1005, String::new())),
                    Ok(_) => continue,
                    Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                        Ok(None)
                    }
                    Err(error) => Err(End::Lost(error.to_string())),
                };
            },
            Wire::Events(events) => events.read(),
            Wire::Polls { address, query, token, next } => {
                if *next > Instant::now() {
                    return Ok(None);
                }
                *next = Instant::now() + Duration::from_millis(if hurry { 30 } else { 400 });
                let path = format!("/api/realtime/changes?{query}&since={since}");
                match call(*address, "GET", &path, token.as_deref(), None) {
                    Some((200, answer)) => Ok(Some(Incoming::Page(answer["data"].clone()))),
                    Some((status, answer)) => Err(End::Closed(4000 + status, answer.to_string())),
                    None => Err(End::Lost("no answer".into())),
                }
            }
        }
    }
}

impl Events {
    fn read(&mut self) -> Result<Option<Incoming>, End> {
        loop {
            self.unchunk()?;
            while let Some(event) = self.event() {
                if let Some(message) = read_event(&event)? {
                    return Ok(Some(Incoming::Message(message)));
                }
            }
            let mut chunk = [0; 16 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(End::Lost("the stream ended without a last event".into())),
                Ok(count) => self.raw.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(lost(error)),
            }
        }
    }

    /// Moves whole chunks to `text`.
    fn unchunk(&mut self) -> Result<(), End> {
        while let Some(line) = self.raw.windows(2).position(|two| two == b"\r\n") {
            let size = std::str::from_utf8(&self.raw[..line]).ok();
            let size = size.and_then(|size| usize::from_str_radix(size, 16).ok());
            let size = size.ok_or_else(|| End::Lost("a chunk without a size".into()))?;
            let end = line + 2 + size;
            if self.raw.len() < end + 2 {
                break;
            }
            self.text.extend_from_slice(&self.raw[line + 2..end]);
            self.raw.drain(..end + 2);
        }
        Ok(())
    }

    fn event(&mut self) -> Option<String> {
        let end = self.text.windows(2).position(|two| two == b"\n\n")?;
        let event = self.text.drain(..end + 2).take(end).collect();
        String::from_utf8(event).ok()
    }
}

/// What a socket would have said; `None` for what is no message.
fn read_event(event: &str) -> Result<Option<String>, End> {
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
    let (data, id) = (field("data: "), field("id: ").filter(|id| !id.is_empty()));
    if field("event: ") == Some("close") {
        let close: Json = data.and_then(|data| serde_json::from_str(data).ok()).unwrap_or_default();
        let code = close["code"].as_u64().and_then(|code| u16::try_from(code).ok());
        let reason = close["reason"].as_str().unwrap_or_default();
        return Err(End::Closed(code.unwrap_or_default(), reason.to_owned()));
    }
    let Some(data) = data else {
        return Ok(id.map(|id| json!({ "event": "position", "cursor": id }).to_string()));
    };
    let mut message: Json =
        serde_json::from_str(data).map_err(|error| End::Lost(error.to_string()))?;
    if let Some(id) = id {
        message["cursor"] = json!(id);
    }
    Ok(Some(message.to_string()))
}
