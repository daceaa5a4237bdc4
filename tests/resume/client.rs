//! A client as README describes it: it applies a commit when the message with its cursor has come.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value as Json, json};

use crate::common::tungstenite::protocol::Message;
use crate::common::{Options, PATIENCE, Server, Ws, encode};

pub const NOTE: &str = r#"{
  "name": "note", "namespace": "notes", "label_field": "text",
  "fields": [
    { "name": "text", "label": "Text", "type": "text" },
    { "name": "n", "label": "N", "type": "int", "optional": true }
  ],
  "access": { "user": { "read": true, "create": true, "update": true, "delete": true } }
}"#;

pub fn options() -> Options {
    Options::default().schema("note", NOTE)
}

pub fn create(server: &Server, token: &str, body: Json) -> i64 {
    let (status, answer) = server.request("POST", "/api/content/note", Some(token), Some(&body));
    assert_eq!(status, 200, "{answer}");
    answer["data"]["id"].as_i64().expect("an id")
}

/// Sets `n` of all records that match; how many there were.
pub fn set_all(server: &Server, token: &str, filter: Json, n: i64) -> u64 {
    let path = format!("/api/content/note/update?filter={}", encode(&filter.to_string()));
    let (status, answer) = server.request("PUT", &path, Some(token), Some(&json!({"n": n})));
    assert_eq!(status, 200, "{answer}");
    answer["data"].as_u64().expect("a count")
}

/// The position that a cursor names: its text is not opaque to its server.
pub fn position(cursor: &str) -> u64 {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).expect("base64url");
    u64::from_be_bytes(bytes[1..9].try_into().expect("eight bytes"))
}

/// What a client has of a stream, over all its connections.
pub struct Client {
    query: String,
    pub token: String,
    /// What it resumes from.
    pub cursor: Option<String>,
    /// Messages of commits that came whole, in order, their cursors apart.
    pub applied: Vec<Json>,
    /// Cursors of commits in order; positions told alone are not among them.
    pub cursors: Vec<String>,
    /// Of a commit whose last message has not come.
    pending: Vec<Json>,
    ws: Option<Ws>,
}

/// What came of waiting.
#[derive(Debug, PartialEq)]
pub enum Heard {
    /// A message, or a position.
    Message,
    Closed(u16, String),
    Nothing,
}

impl Client {
    pub fn new(query: &str, token: &str) -> Client {
        Client {
            query: query.into(),
            token: token.into(),
            cursor: None,
            applied: Vec::new(),
            cursors: Vec::new(),
            pending: Vec::new(),
            ws: None,
        }
    }

    /// Connects anew, from the cursor or from now.
    pub fn connect(&mut self, server: &Server) {
        let since = self.cursor.as_deref().unwrap_or("now");
        let query = format!("{}&since={since}", self.query);
        self.pending.clear();
        self.ws = Some(server.subscribe(&query, Some(&self.token)));
    }

    /// Is gone, as a client whose train enters a tunnel.
    pub fn drop_connection(&mut self) {
        self.ws = None;
        self.pending.clear();
    }

    pub fn ws(&mut self) -> &mut Ws {
        self.ws.as_mut().expect("connected")
    }

    /// Waits for one message.
    pub fn hear(&mut self, time: Duration) -> Heard {
        let deadline = Instant::now() + time;
        loop {
            match self.ws().read_until(deadline) {
                Ok(Some(Message::Text(text))) => {
                    self.take(serde_json::from_str(&text).expect("JSON"));
                    return Heard::Message;
                }
                Ok(Some(Message::Close(frame))) => {
                    let frame = frame.expect("a close with a code");
                    return Heard::Closed(frame.code.into(), frame.reason.to_string());
                }
                Ok(Some(_)) => {}
                Ok(None) => return Heard::Nothing,
                Err(error) => return Heard::Closed(1006, error.to_string()),
            }
        }
    }

    fn take(&mut self, mut message: Json) {
        let cursor = message.as_object_mut().expect("an object").remove("cursor");
        let cursor = cursor.map(|cursor| cursor.as_str().expect("a text").to_owned());
        let alone = message["event"] == "position";
        if let Some(cursor) = &cursor {
            let last = self.cursor.as_deref().map_or(0, position);
            let now = position(cursor);
            assert!(now > last || (alone && now == last), "{last} then {now}: {message}");
        }
        if alone {
            assert!(self.pending.is_empty(), "a position between the messages of a commit");
        } else {
            self.pending.push(message);
        }
        let Some(cursor) = cursor else { return };
        if !alone {
            self.cursors.push(cursor.clone());
            self.applied.append(&mut self.pending);
        }
        self.cursor = Some(cursor);
    }

    /// Hears until `done`.
    pub fn hear_until(&mut self, done: impl Fn(&Client) -> bool) {
        let began = Instant::now();
        while !done(self) {
            assert!(began.elapsed() < PATIENCE * 3, "{} applied", self.applied.len());
            match self.hear(PATIENCE) {
                Heard::Message => {}
                other => panic!("{other:?} after {} messages", self.applied.len()),
            }
        }
    }

    /// How it is refused, or closed.
    pub fn closed(&mut self) -> (u16, String) {
        loop {
            match self.hear(PATIENCE) {
                Heard::Message => {}
                Heard::Closed(code, reason) => return (code, reason),
                Heard::Nothing => panic!("not closed"),
            }
        }
    }
}
