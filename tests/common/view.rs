//! What a client holds that applies every message to what it had: strict, so that a message that
//! does not fit is a fault of the stream.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::{Server, Ws, encode};

/// Records by primary key (its JSON text), as the stream has told them so far.
#[derive(Clone, Debug, Default)]
pub struct View {
    primary: String,
    pub records: BTreeMap<String, Json>,
    /// The last one that a message carried.
    pub cursor: Option<String>,
    /// The snapshot is over (or there is none).
    pub complete: bool,
    /// Pages of the snapshot.
    pub pages: usize,
    /// Messages other than pages and positions.
    pub events: usize,
}

impl View {
    /// Before a snapshot.
    pub fn new() -> View {
        View::by("id")
    }

    /// The same for records of that primary key.
    pub fn by(primary: &str) -> View {
        View { primary: primary.into(), ..View::default() }
    }

    pub fn key(&self, record: &Json) -> String {
        let key = &record[&*self.primary];
        assert!(!key.is_null(), "a record without its primary key: {record}");
        key.to_string()
    }

    /// Applies a message; panics where it does not fit what is held.
    pub fn apply(&mut self, message: &Json) {
        let event = message["event"].as_str().expect("an event");
        let cursor = message.get("cursor").map(|cursor| cursor.as_str().expect("text").to_owned());
        if event == "position" {
            assert!(self.complete, "a position before the snapshot is complete");
            self.cursor = Some(cursor.expect("a position is a cursor"));
            return;
        }
        let records: Vec<Json> = match &message["data"] {
            Json::Array(records) => records.clone(),
            record => vec![record.clone()],
        };
        if event == "init" {
            assert!(!self.complete, "a page after the last: {message}");
            self.pages += 1;
            self.complete = message["complete"].as_bool().expect("complete");
            assert_eq!(cursor.is_some(), self.complete, "only the last page has a cursor");
        } else {
            self.events += 1;
            assert!(self.complete || cursor.is_none(), "a cursor before the end: {message}");
        }
        for record in records {
            let key = self.key(&record);
            let held = self.records.contains_key(&key);
            let is_new = matches!(event, "init" | "create" | "enter");
            assert_ne!(held, is_new, "{event} of {key}, held: {held}, after {} pages", self.pages);
            match event {
                "init" | "create" | "enter" | "update" => drop(self.records.insert(key, record)),
                "leave" | "delete" => drop(self.records.remove(&key)),
                other => panic!("an event {other}"),
            }
        }
        self.cursor = cursor.or(self.cursor.take());
    }

    /// Reads and applies the next message, and gives it.
    pub fn next(&mut self, socket: &mut Ws) -> Json {
        let message = socket.next();
        self.apply(&message);
        message
    }

    /// Up to the last page.
    pub fn complete_from(&mut self, socket: &mut Ws) {
        while !self.complete {
            self.next(socket);
        }
    }

    /// Until a record is held for which `is` holds.
    pub fn until(&mut self, socket: &mut Ws, is: impl Fn(&Json) -> bool) {
        while !self.records.values().any(&is) {
            self.next(socket);
        }
    }

    /// Asserts that a list with the same filter and selection gives the same records.
    #[track_caller]
    pub fn is_what_lists(&self, server: &Server, token: &str, schema: &str, query: &str) {
        let listed = list(server, token, schema, query, &self.primary);
        let missing: Vec<_> =
            listed.keys().filter(|key| !self.records.contains_key(*key)).collect();
        let extra: Vec<_> = self.records.keys().filter(|key| !listed.contains_key(*key)).collect();
        assert!(missing.is_empty() && extra.is_empty(), "{query}: {missing:?} {extra:?}");
        for (key, record) in &listed {
            assert_eq!(&self.records[key], record, "{query}: {key}");
        }
    }
}

/// All records that match, by primary key.
pub fn list(
    server: &Server,
    token: &str,
    schema: &str,
    query: &str,
    primary: &str,
) -> BTreeMap<String, Json> {
    let mut listed = BTreeMap::new();
    for page in 1.. {
        let path = format!("/api/content/{schema}?limit=1000&sort={primary}&page={page}&{query}");
        let (status, answer) = server.request("GET", &path, Some(token), None);
        assert_eq!(status, 200, "{answer}");
        for record in answer["data"]["items"].as_array().expect("items") {
            listed.insert(record[primary].to_string(), record.clone());
        }
        if page >= answer["data"]["last_page"].as_u64().expect("a number") {
            break;
        }
    }
    listed
}

/// `filter=…` for a query string.
pub fn filter(filter: &Json) -> String {
    format!("filter={}", encode(&filter.to_string()))
}
