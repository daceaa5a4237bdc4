//! Subscribers that live through the deaths of their server: each comes back with its last cursor,
//! and knows what it has heard, commit by commit.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rowcast::model::change::{Change, Op, Row};
use rowcast::model::cursor::Cursor;
use rowcast::model::schema::Schema;
use rowcast::model::value::Value;
use rowcast::store::Entry;
use serde_json::Value as Json;

use crate::child::PATIENCE;
use crate::common::tungstenite::protocol::{CloseFrame, Message, Role};
use crate::common::tungstenite::{Error, WebSocket};
use crate::common::{HttpAnswer, Ws};

/// `n` of the record that ends it all, which everybody hears of.
pub const LAST: i64 = -1;

/// What was told of a record: event, id, and `n` where it was shown.
pub type Told = (String, i64, Option<i64>);

/// How one hears.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Of the query string, beside the schema.
    pub query: &'static str,
    pub transitions: bool,
    /// Records whose `kind` is below this.
    pub below: i64,
}

pub struct Ear {
    pub kind: Kind,
    address: SocketAddr,
    token: String,
    pub first: Cursor,
    /// Of the last whole commit.
    pub cursor: Cursor,
    /// By commit: its position and what it told.
    pub heard: Vec<(u64, Vec<Told>)>,
    /// Of a commit whose last message has not come.
    part: Vec<Told>,
    pub resumed: usize,
}

impl Ear {
    /// Subscribes from now on; the server must be there.
    pub fn new(kind: Kind, address: SocketAddr, token: &str) -> (Ear, Ws) {
        let none = Cursor { position: 0, stamp: 0, grant: 0 };
        let mut ear = Ear {
            kind,
            address,
            token: token.to_owned(),
            first: none,
            cursor: none,
            heard: Vec::new(),
            part: Vec::new(),
            resumed: 0,
        };
        let mut socket = ear.connect("now").expect("a subscription");
        while ear.first == none {
            assert!(ear.take(&mut socket), "the server went before it began");
            ear.first = ear.cursor;
        }
        (ear, socket)
    }

    fn connect(&self, since: &str) -> Option<Ws> {
        let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let head = format!(
            "GET /api/realtime/content?schema=note&since={since}&{} HTTP/1.1\r\nHost: localhost\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Authorization: Bearer {}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.kind.query, self.token
        );
        stream.write_all(head.as_bytes()).ok()?;
        let answer = HttpAnswer::read(&mut stream).ok()?;
        assert_eq!(answer.status, 101, "{}", answer.text());
        let rest = answer.body.clone();
        let socket = WebSocket::from_partially_read(stream, rest, Role::Client, None);
        Some(Ws { socket, handshake: answer })
    }

    /// Hears until the record that ends it all, through as many servers as it takes.
    pub fn hear(mut self, mut socket: Ws) -> Ear {
        loop {
            while self.take(&mut socket) {
                let ended = |told: &Told| told.2 == Some(LAST);
                if self.heard.last().is_some_and(|(_, told)| told.iter().any(ended)) {
                    return self;
                }
            }
            // Half a commit is no commit: it comes again, whole.
            self.part.clear();
            self.resumed += 1;
            let until = Instant::now() + PATIENCE;
            socket = loop {
                if let Some(socket) = self.connect(&self.cursor.to_string()) {
                    break socket;
                }
                assert!(Instant::now() < until, "the server did not come back");
                std::thread::sleep(Duration::from_millis(5));
            };
        }
    }

    /// Takes the next message; `false` where the connection has ended.
    fn take(&mut self, socket: &mut Ws) -> bool {
        match socket.read_until(Instant::now() + PATIENCE) {
            Ok(Some(Message::Text(text))) => {
                self.message(&serde_json::from_str(&text).expect("a whole message"));
                true
            }
            Ok(Some(Message::Close(Some(CloseFrame { code, reason })))) => {
                // What else says yes to "reconnect?" with the cursor.
                assert!(matches!(u16::from(code), 1001 | 4408), "{code}: {reason}");
                false
            }
            Ok(Some(_)) => true,
            Ok(None) => panic!("nothing came: {:?} after {:?}", self.kind, self.cursor),
            Err(Error::Io(_) | Error::Protocol(_) | Error::ConnectionClosed) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn message(&mut self, message: &Json) {
        let event = message["event"].as_str().expect("an event");
        let cursor = message.get("cursor").and_then(Json::as_str);
        let cursor: Option<Cursor> = cursor.map(|text| text.parse().expect("a cursor"));
        if event == "position" {
            assert!(self.part.is_empty(), "a position within a commit");
        } else if event == "init" {
            // Nothing is there when it begins; a good cursor never needs another.
            assert_eq!(message["data"], serde_json::json!([]));
            assert!(self.heard.is_empty() && self.resumed == 0, "a second snapshot");
        } else {
            let records = match &message["data"] {
                Json::Array(records) => records.as_slice(),
                record => std::slice::from_ref(record),
            };
            for record in records {
                let id = record["id"].as_i64().expect("an id");
                self.part.push((event.to_owned(), id, record["n"].as_i64()));
            }
        }
        let Some(cursor) = cursor else { return };
        if !self.part.is_empty() {
            self.heard.push((cursor.position, std::mem::take(&mut self.part)));
        }
        assert!(cursor.position >= self.cursor.position, "back to {cursor:?}");
        self.cursor = cursor;
    }

    /// What it ought to have heard of these entries.
    pub fn due(&self, schema: &Schema, entries: &[Entry]) -> Vec<(u64, Vec<Told>)> {
        let after = entries.iter().filter(|entry| entry.mark.position > self.first.position);
        let told = after.map(|entry| (entry.mark.position, self.kind.of(schema, entry)));
        told.filter(|(_, told)| !told.is_empty()).collect()
    }
}

impl Kind {
    /// SEMANTICS in its plainest form: what an entry tells.
    fn of(&self, schema: &Schema, entry: &Entry) -> Vec<Told> {
        let changes = entry.changes.iter().filter(|change| change.schema == schema.id);
        let mut told: Vec<(usize, Told)> = Vec::new();
        for Change { op, key, before, after, .. } in changes {
            let Value::Int(id) = *key else { panic!("{key:?}") };
            let number = |row: &Option<Arc<Row>>, column: &str| -> Option<i64> {
                match row.as_ref()?.get(schema.column(column).expect(column)) {
                    Value::Int(n) => Some(*n),
                    other => panic!("{other:?}"),
                }
            };
            let matches =
                |row: &Option<Arc<Row>>| number(row, "kind").is_some_and(|kind| kind < self.below);
            let (place, event, shown) = match (op, matches(before), matches(after)) {
                (Op::Create, _, true) => (0, "create", after),
                (Op::Delete, true, _) => (4, "delete", before),
                (Op::Update, true, false) if self.transitions => (1, "leave", &None),
                (Op::Update, false, true) if self.transitions => (3, "enter", after),
                (Op::Update, _, true) => (2, "update", after),
                _ => continue,
            };
            told.push((place, (event.to_owned(), id, number(shown, "n"))));
        }
        told.sort_by_key(|(place, _)| *place);
        told.into_iter().map(|(_, told)| told).collect()
    }
}
