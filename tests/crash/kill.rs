//! kill -9 under write load.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rowcast::error::Result;
use rowcast::model::change::Op;
use rowcast::model::value::Value;
use rowcast::store::{Entry, Options, Reader};

use crate::child::Running;
use crate::common::{self, HttpAnswer, Server};
use crate::support::*;

/// All entries of the log; their positions have no holes.
pub fn entries(reader: &Reader<'_>) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let after = entries.last().map_or(0, |entry| entry.mark.position);
        let page = reader.entries(after, 1_000)?;
        if page.is_empty() {
            break;
        }
        entries.extend(page);
    }
    let positions: Vec<_> = entries.iter().map(|entry| entry.mark.position).collect();
    assert_eq!(positions, (1..=positions.len() as u64).collect::<Vec<_>>());
    Ok(entries)
}

/// Opens the store that was left behind: every acknowledged row of `schema` and its entry is
/// there, each entry's rows are there, and positions have no holes. Gives the newest position.
fn examine(dir: &Path, schema: &'static str, acknowledged: HashSet<i64>) -> u64 {
    let (store, _) = open(Options::new(dir));
    store
        .read_blocking(move |reader| {
            let entries = entries(reader)?;
            let id = reader.of(schema).id;
            let mut logged = HashSet::new();
            for change in entries.iter().flat_map(|entry| &entry.changes) {
                if change.schema == id && change.op == Op::Create {
                    let Value::Int(key) = change.key else { panic!("{:?}", change.key) };
                    assert_eq!(reader.find(schema, key), change.after);
                    logged.insert(key);
                }
            }
            for key in &acknowledged {
                assert!(reader.find(schema, *key).is_some(), "row {key} was lost");
                assert!(logged.contains(key), "the entry of row {key} was lost");
            }
            Ok(entries.len() as u64)
        })
        .unwrap()
}

#[test]
fn a_killed_store_keeps_what_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = HashSet::new();
    let mut newest = 0;
    for round in 0..8 {
        let running = Running::start("write", dir.path(), "");
        running.wait_for("ack");
        std::thread::sleep(Duration::from_millis(20 + 37 * round));
        let before = acknowledged.len();
        acknowledged.extend(running.kill("ack"));
        assert!(acknowledged.len() > before, "it was at work");
        let now = examine(dir.path(), "blog", acknowledged.clone());
        assert!(now > newest);
        newest = now;
    }
}

#[test]
fn a_killed_store_gives_no_id_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut newest = 0;
    for round in 0..8 {
        let running = Running::start("newest", dir.path(), "");
        let first: i64 = running.wait_for("ack").parse().unwrap();
        assert!(first > newest, "{first} was given again, up to {newest} were deleted");
        std::thread::sleep(Duration::from_millis(5 * round));
        newest = running.kill("ack").into_iter().fold(first, i64::max);
    }
    let (store, _) = open(Options::new(dir.path()));
    let next = store.write_blocking(|tx| tx.put("category", &[("name", text("x"))]));
    let Value::Int(next) = next.unwrap().value else { panic!("no id") };
    assert!(next > newest, "{next} was given again, up to {newest} were deleted");
}

#[test]
fn a_killed_server_keeps_what_it_acknowledged() {
    let note = r#"{"name":"note","namespace":"notes","label_field":"text",
        "fields":[{"name":"text","type":"string","unique":true}]}"#;
    let mut server = Server::start(common::Options::default().schema("note", note));
    let mut acknowledged = HashSet::new();
    for round in 0..4 {
        let token = server.admin_token();
        let ids = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..8)
            .map(|client| {
                let (ids, over, token) = (ids.clone(), over.clone(), token.clone());
                let mut stream = server.connect();
                std::thread::spawn(move || {
                    for n in 0.. {
                        let body = format!(r#"{{"text":"{round} {client} {n}"}}"#);
                        let request = format!(
                            "POST /api/content/note HTTP/1.1\r\nHost: localhost\r\n\
                             Authorization: Bearer {token}\r\nContent-Type: application/json\r\n\
                             Content-Length: {}\r\n\r\n{body}",
                            body.len()
                        );
                        let answer = stream
                            .write_all(request.as_bytes())
                            .and_then(|()| HttpAnswer::read(&mut stream));
                        let Ok(answer) = answer else {
                            assert!(over.load(Ordering::Relaxed), "the server went by itself");
                            return;
                        };
                        assert_eq!(answer.status, 200, "{}", answer.json());
                        let id = answer.json()["data"]["id"].as_i64().unwrap();
                        ids.lock().unwrap().push(id);
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(150 + 130 * round));
        over.store(true, Ordering::Relaxed);
        server.kill();
        for client in clients {
            client.join().unwrap();
        }
        let ids = ids.lock().unwrap();
        assert!(!ids.is_empty());
        acknowledged.extend(ids.iter().copied());
        examine(&server.data(), "note", acknowledged.clone());
        server.restart();
        // And it serves them.
        let token = server.admin_token();
        let last = ids.last().unwrap();
        let (status, _) =
            server.request("GET", &format!("/api/content/note/{last}"), Some(&token), None);
        assert_eq!(status, 200);
    }
}

#[cfg(unix)]
#[test]
fn a_panic_in_the_writer_ends_the_process_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start("panic", dir.path(), "");
    running.wait_for("rowcast: the writer panicked");
    let status = running.ended();
    assert!(!status.success());
    use std::os::unix::process::ExitStatusExt as _;
    assert_eq!(status.signal(), Some(6), "aborted: {status}");
    examine(dir.path(), "blog", HashSet::new());
}
