//! kill -9 in a storm of writes, again and again, while subscribers come back with their cursors.
//!
//! `ROWCAST_CRASH_ROUNDS` says how often (12).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use rowcast::model::change::Op;
use rowcast::model::value::Value;
use rowcast::store::{Entry, Options, Rows as _};
use serde_json::{Value as Json, json};

use crate::child::PATIENCE;
use crate::common::view::View;
use crate::common::{self, HttpAnswer, Server};
use crate::hear::{Ear, Kind, LAST};
use crate::kill::entries;
use crate::support::*;

const NOTE: &str = r#"{
  "name": "note", "namespace": "notes", "label_field": "text", "disable_timestamp": true,
  "fields": [
    { "name": "text", "type": "string" },
    { "name": "writer", "type": "int" },
    { "name": "kind", "type": "int" },
    { "name": "n", "type": "int" }
  ]
}"#;

const EARS: [Kind; 6] = [
    Kind { query: "", transitions: false, below: 100 },
    Kind { query: "transitions=true", transitions: true, below: 100 },
    Kind { query: "filter[kind][$lt]=4", transitions: false, below: 4 },
    Kind { query: "transitions=true&filter[kind][$lt]=4", transitions: true, below: 4 },
    Kind { query: "transitions=1&filter[kind][$lt]=7&select=n", transitions: true, below: 7 },
    Kind { query: "snapshot=true&filter[kind][$lt]=5", transitions: true, below: 5 },
];

const WRITERS: usize = 6;

/// What a writer was told is done, by its `n`: nobody else uses that.
#[derive(Default)]
struct Acknowledged {
    /// Id.
    created: Vec<(i64, i64)>,
    updated: Vec<(i64, i64)>,
    deleted: Vec<i64>,
    /// How many.
    bulk: Vec<(i64, u64)>,
}

struct Writer {
    address: SocketAddr,
    token: String,
    number: usize,
    n: Arc<AtomicI64>,
    stream: Option<TcpStream>,
    done: Acknowledged,
    mine: Vec<i64>,
    rng: u64,
}

impl Writer {
    fn below(&mut self, n: usize) -> usize {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        (self.rng % n as u64) as usize
    }

    /// `None` where nobody knows what became of it.
    fn send(&mut self, method: &str, path: &str, body: &Json) -> Option<Json> {
        if self.stream.is_none() {
            let stream = TcpStream::connect_timeout(&self.address, PATIENCE).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).ok()?;
            self.stream = Some(stream);
        }
        let body = body.to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        let stream = self.stream.as_mut()?;
        let sent = stream.write_all(request.as_bytes());
        let Ok(answer) = sent.and_then(|()| HttpAnswer::read(stream)) else {
            self.stream = None;
            return None;
        };
        // A record whose deletion was never acknowledged may be gone.
        assert!(matches!(answer.status, 200 | 404), "{method} {path}: {}", answer.text());
        (answer.status == 200).then(|| answer.json()["data"].clone())
    }

    fn write(&mut self) {
        let n = self.n.fetch_add(1, Ordering::Relaxed);
        let kind = self.below(10);
        let one = |id: i64| format!("/api/content/note/{id}");
        match self.below(20) {
            0..=7 => {
                let body = json!({"text": "x", "writer": self.number, "kind": kind, "n": n});
                if let Some(made) = self.send("POST", "/api/content/note", &body) {
                    let id = made["id"].as_i64().expect("an id");
                    self.done.created.push((n, id));
                    self.mine.push(id);
                }
            }
            8..=15 if !self.mine.is_empty() => {
                let at = self.below(self.mine.len());
                let id = self.mine[at];
                if self.send("PUT", &one(id), &json!({"kind": kind, "n": n})).is_some() {
                    self.done.updated.push((n, id));
                }
            }
            16..=18 if !self.mine.is_empty() => {
                let at = self.below(self.mine.len());
                let id = self.mine.swap_remove(at);
                if self.send("DELETE", &one(id), &Json::Null).is_some() {
                    self.done.deleted.push(id);
                }
            }
            _ => {
                let some =
                    common::encode(&json!({"writer": self.number, "kind": kind}).to_string());
                let path = format!("/api/content/note/update?filter={some}");
                let body = json!({"kind": self.below(10), "n": n});
                if let Some(count) = self.send("PUT", &path, &body) {
                    self.done.bulk.push((n, count.as_u64().expect("a count")));
                }
            }
        }
    }

    fn run(mut self, over: &AtomicBool) -> Acknowledged {
        while !over.load(Ordering::Relaxed) {
            if self.stream.is_none() {
                // Perhaps there is no server just now.
                std::thread::sleep(Duration::from_millis(2));
            }
            self.write();
        }
        self.done
    }
}

/// Every acknowledged write is in the log.
fn nothing_is_lost(entries: &[Entry], acknowledged: &Acknowledged) -> usize {
    let mut written: HashMap<(Op, i64), HashSet<i64>> = HashMap::new();
    for change in entries.iter().flat_map(|entry| &entry.changes) {
        let (Value::Int(id), Some(row)) = (&change.key, change.after.as_ref()) else {
            if let Value::Int(id) = change.key {
                written.entry((change.op, id)).or_default().insert(0);
            }
            continue;
        };
        // The last column; other schemas' are none of ours.
        if let Some(Value::Int(n)) = row.values.last() {
            written.entry((change.op, *n)).or_default().insert(*id);
        }
    }
    let has = |op, n, id| written.get(&(op, n)).is_some_and(|ids| ids.contains(&id));
    let Acknowledged { created, updated, deleted, bulk } = acknowledged;
    created.iter().for_each(|(n, id)| assert!(has(Op::Create, *n, *id), "create {n} was lost"));
    updated.iter().for_each(|(n, id)| assert!(has(Op::Update, *n, *id), "update {n} was lost"));
    deleted.iter().for_each(|id| assert!(has(Op::Delete, *id, 0), "delete of {id} was lost"));
    for (n, count) in bulk {
        let found = written.get(&(Op::Update, *n)).map_or(0, HashSet::len);
        assert_eq!(found as u64, *count, "of bulk {n}");
    }
    created.len() + updated.len() + deleted.len() + bulk.len()
}

#[test]
fn subscribers_lose_nothing_however_often_the_server_is_killed() {
    let rounds = std::env::var("ROWCAST_CRASH_ROUNDS")
        .map_or(12, |rounds| rounds.parse::<u64>().expect("ROWCAST_CRASH_ROUNDS is a number"));
    let mut server = Server::start(common::Options::default().schema("note", NOTE));
    let (address, token) = (server.address, server.admin_token());
    let ears = EARS.map(|kind| Ear::new(kind, address, &token));
    let over = AtomicBool::new(false);
    let n = Arc::new(AtomicI64::new(1));
    let began = Instant::now();
    let (acknowledged, ears) = std::thread::scope(|scope| {
        let over = &over;
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let (token, n) = (token.clone(), n.clone());
                let (done, rng) = (Acknowledged::default(), 0x9e37_79b9 * (number as u64 + 1));
                let mine = Vec::new();
                let writer = Writer { address, token, number, n, stream: None, done, mine, rng };
                scope.spawn(move || writer.run(over))
            })
            .collect();
        let ears: Vec<_> =
            ears.into_iter().map(|(ear, socket)| scope.spawn(move || ear.hear(socket))).collect();
        for round in 0..rounds {
            // From nearly at once to well under way.
            std::thread::sleep(Duration::from_millis(30 + round * 53 % 400));
            server.kill();
            server.restart();
        }
        std::thread::sleep(Duration::from_millis(100));
        over.store(true, Ordering::Relaxed);
        let acknowledged: Vec<_> = writers.into_iter().map(|w| w.join().expect("w")).collect();
        let last = json!({"text": "last", "writer": 99, "kind": 0, "n": LAST});
        let (status, answer) =
            server.request("POST", "/api/content/note", Some(&token), Some(&last));
        assert_eq!(status, 200, "{answer}");
        let ears: Vec<_> = ears.into_iter().map(|ear| ear.join().expect("an ear")).collect();
        (acknowledged, ears)
    });
    // What a new client sees, and what one sees who was there.
    let mut view = View::new();
    let mut socket = server.subscribe("schema=note&snapshot=true", Some(&token));
    view.complete_from(&mut socket);
    view.is_what_lists(&server, &token, "note", "");
    drop(socket);
    server.kill();

    let (store, _) = open(Options::new(server.data()));
    let (schema, entries) = store
        .read_blocking(|reader| {
            let schema = reader.catalog().named("note").expect("notes").clone();
            Ok((schema, entries(reader)?))
        })
        .expect("entries");
    let writes: usize = acknowledged.iter().map(|some| nothing_is_lost(&entries, some)).sum();
    let (mut events, mut resumed) = (0, 0);
    for ear in &ears {
        let due = ear.due(&schema, &entries);
        for (at, (heard, due)) in ear.heard.iter().zip(&due).enumerate() {
            assert_eq!(heard, due, "{:?}, commit {at} of those it hears", ear.kind);
        }
        assert_eq!(ear.heard.len(), due.len(), "{:?}", ear.kind);
        events += due.iter().map(|(_, told)| told.len()).sum::<usize>();
        resumed += ear.resumed;
    }
    assert!(resumed as u64 >= rounds, "{resumed} times resumed in {rounds} rounds");
    assert!(writes > 0);
    // The view is what the log adds up to.
    let mut rows: BTreeMap<String, ()> = BTreeMap::new();
    for change in entries.iter().flat_map(|entry| &entry.changes) {
        if change.schema == schema.id {
            let key = change.key.to_json().to_string();
            match change.op {
                Op::Delete => drop(rows.remove(&key)),
                _ => drop(rows.insert(key, ())),
            }
        }
    }
    assert!(rows.keys().eq(view.records.keys()));
    eprintln!(
        "{rounds} kills in {:?}: {writes} acknowledged writes, {} entries, {events} events heard \
         by {} subscribers who resumed {resumed} times; lost, doubled, out of order: 0",
        began.elapsed(),
        entries.len(),
        ears.len(),
    );
}
