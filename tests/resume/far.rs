//! Far behind: long replays, slow clients, a matcher that cannot keep up.

use std::io::{BufReader, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::client::*;
use crate::common::{HttpAnswer, PATIENCE, Server, encode};

/// Requests in flight on one connection of [`pour`].
const PIPELINE: usize = 32;

/// Makes `count` records, each a write of its own, as fast as one connection goes.
fn pour(server: &Server, token: &str, count: usize) {
    let mut stream = server.connect();
    let mut answers = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut asked = 0;
    for answered in 0..count {
        while asked < count && asked < answered + PIPELINE {
            let body = json!({"text": "poured", "n": asked}).to_string();
            let request = format!(
                "POST /api/content/note HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                server.address,
                body.len()
            );
            stream.write_all(request.as_bytes()).expect("sent");
            asked += 1;
        }
        let answer = HttpAnswer::read(&mut OneByOne(&mut answers)).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// Never reads beyond one answer's head.
struct OneByOne<'a, R>(&'a mut R);

impl<R: Read> Read for OneByOne<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let some = bytes.len().min(1);
        self.0.read(&mut bytes[..some])
    }
}

fn begin(server: &Server, query: &str, token: &str) -> Client {
    let mut client = Client::new(query, token);
    client.connect(server);
    client.hear_until(|client| client.cursor.is_some());
    client.drop_connection();
    client
}

#[test]
fn a_long_replay_while_others_write() {
    let server = Server::start(options());
    let (_, token) = server.user("ann", &[]);
    let mut clients: Vec<_> = (0..3).map(|_| begin(&server, "schema=note", &token)).collect();
    // Nothing matches: it is positions that bring this one on.
    let filter = encode(r#"{"text":"last"}"#);
    clients.push(begin(&server, &format!("schema=note&filter={filter}"), &token));
    let entries = std::env::var("ROWCAST_RESUME_ENTRIES").ok().and_then(|n| n.parse().ok());
    let entries: usize = entries.unwrap_or(8_000);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| pour(&server, &token, entries / 4));
        }
    });
    let (server, token, done) = (&server, &token, &AtomicBool::new(false));
    let last = std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let mut live = server.subscribe("schema=note", Some(token));
            let mut written = 0;
            while !done.load(Ordering::Relaxed) {
                let id = create(server, token, json!({"text": "meanwhile"}));
                assert_eq!(live.next()["data"]["id"], id, "live delivery goes on");
                written += 1;
            }
            (written, create(server, token, json!({"text": "last"})))
        });
        let hearing: Vec<_> = clients[..3]
            .iter_mut()
            .map(|client| {
                scope.spawn(move || {
                    client.connect(server);
                    client.hear_until(|client| client.applied.len() >= entries);
                })
            })
            .collect();
        hearing.into_iter().for_each(|hearing| hearing.join().expect("heard"));
        done.store(true, Ordering::Relaxed);
        writer.join().expect("a writer")
    });
    let (written, last) = last;
    let ended = |client: &Client| {
        client.applied.last().is_some_and(|message| message["data"]["id"] == last)
    };
    for client in &mut clients {
        if client.applied.is_empty() {
            client.connect(server);
            client.hear_until(ended);
            assert_eq!(client.applied.len(), 1);
            continue;
        }
        client.hear_until(ended);
        let ids: Vec<_> = client.applied.iter().map(|m| m["data"]["id"].as_i64()).collect();
        assert_eq!(ids.len(), entries / 4 * 4 + written + 1);
        assert!(ids.is_sorted() && ids.windows(2).all(|two| two[0] != two[1]));
    }
}

/// Resident bytes of the server, where the system tells.
fn resident(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()));
    let Ok(status) = status else { return 0 };
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    let kib: usize = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("KiB");
    kib << 10
}

#[test]
fn slow_clients_cost_neither_memory_nor_the_writer() {
    const CLIENTS: usize = 12;
    const ROUNDS: i64 = 10;
    let bounds = [("RECENT_BYTES", "1MiB"), ("OUTBOX_BYTES", "1MiB"), ("WRITE_TIME", "10m")];
    let options = bounds
        .iter()
        .fold(options(), |options, (name, value)| options.env(&format!("ROWCAST_{name}"), value));
    let server = Server::start(options);
    let (_, token) = server.user("ann", &[]);
    let text = "x".repeat(20_000);
    for n in 0..100 {
        create(&server, &token, json!({"text": text, "n": n}));
    }
    // Each a plan of its own: no two share what is told.
    let query = |at: usize| {
        let filter = json!({"n": {"$gte": 0, "$lt": 1_000 + at}});
        format!("schema=note&filter={}", encode(&filter.to_string()))
    };
    let mut clients: Vec<_> = (0..CLIENTS).map(|at| begin(&server, &query(at), &token)).collect();
    for round in 0..ROUNDS {
        assert_eq!(set_all(&server, &token, json!({}), round), 100);
    }
    let before = resident(&server);
    // 20 MB are to be told to each, and none of them reads.
    for client in &mut clients {
        client.connect(&server);
    }
    // Live is live all the same: each of these is told before the next is written.
    let mut live = server.subscribe("schema=note&select=n", Some(&token));
    let until = Instant::now() + Duration::from_secs(2);
    let mut most = 0;
    while Instant::now() < until {
        let id = create(&server, &token, json!({"text": "live", "n": -1}));
        assert_eq!(live.next()["data"]["id"], id);
        most = most.max(resident(&server));
    }
    // Twelve times 20 MB would be 240.
    assert!(most < before + 150_000_000, "{} MiB, then {}", before >> 20, most >> 20);
    // When they read, they get all of it.
    for client in &mut clients[..3] {
        client.hear_until(|client| client.cursors.len() == ROUNDS as usize);
        let records = client.applied.iter().map(|m| m["data"].as_array().map_or(0, Vec::len));
        assert_eq!(records.sum::<usize>(), 100 * ROUNDS as usize);
    }
}

#[test]
fn who_is_too_slow_for_the_live_stream_is_told_where_to_resume() {
    let server = Server::start(options().env("ROWCAST_OUTBOX_FRAMES", "4"));
    let (_, token) = server.user("ann", &[]);
    let text = "x".repeat(30_000);
    for n in 0..100 {
        create(&server, &token, json!({"text": text, "n": n}));
    }
    let mut client = begin(&server, "schema=note", &token);
    client.connect(&server);
    assert_eq!(client.hear(PATIENCE), Heard::Message, "its position");
    // As much as it takes: how much the system holds for who does not read, and how far behind the
    // writes the stream is, differs from machine to machine.
    let admin = server.admin_token();
    let mut rounds = 0;
    server.until("it is too slow", || {
        set_all(&server, &token, json!({}), rounds);
        rounds += 1;
        let (_, answer) = server.request("GET", "/api/realtime/status", Some(&admin), None);
        (answer["data"]["subscriptions"] == 0).then_some(())
    });
    let (code, reason) = client.closed();
    assert_eq!(code, 4408, "{reason}");
    let (_, cursor) = reason.split_once("resume from ").expect("a cursor");
    // It names the last commit that came whole, and from there everything is to be had.
    assert_eq!(Some(cursor), client.cursor.as_deref());
    while client.cursors.len() < rounds as usize {
        client.connect(&server);
        while client.cursors.len() < rounds as usize && client.hear(PATIENCE) == Heard::Message {}
    }
    let heard = client.applied.iter().map(|message| message["data"][0]["n"].as_i64());
    let mut heard: Vec<_> = heard.collect();
    heard.dedup();
    assert_eq!(heard, (0..rounds).map(Some).collect::<Vec<_>>());
}

#[test]
fn a_matcher_that_cannot_keep_up_reads_the_log() {
    let options = options().env("ROWCAST_TAIL_BYTES", "1MiB").env("ROWCAST_OUTBOX_BYTES", "256MiB");
    let server = Server::start(options);
    let (_, token) = server.user("ann", &[]);
    let text = "x".repeat(5_000);
    let body = |n: i64| json!({"text": text, "n": n});
    for n in 0..200 {
        create(&server, &token, body(n));
    }
    let mut plain = server.subscribe("schema=note&select=n", Some(&token));
    let mut cursors = begin(&server, "schema=note", &token);
    cursors.connect(&server);
    // Plans enough to keep the matcher busy.
    let _others: Vec<_> = (0..40)
        .map(|at| {
            let filter = encode(&json!({"text": {"$containsfold": format!("Y{at}")}}).to_string());
            server.subscribe(&format!("schema=note&filter={filter}"), Some(&token))
        })
        .collect();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (server, token) = (&server, &token);
            scope.spawn(move || {
                for round in 0..8 {
                    set_all(server, token, json!({}), writer * 100 + round);
                }
            });
        }
    });
    let last = create(&server, &token, json!({"text": "last"}));
    let mut heard = Vec::new();
    loop {
        let message = plain.next();
        if message["data"]["id"] == last {
            break;
        }
        heard.push(message["data"][0]["n"].clone());
    }
    cursors.hear_until(|client| {
        client.applied.last().is_some_and(|message| message["data"]["id"] == last)
    });
    let told = cursors.applied.iter().filter(|message| message["event"] == "update");
    let records: usize = told.map(|message| message["data"].as_array().map_or(0, Vec::len)).sum();
    assert_eq!(records, 200 * 32);
    heard.dedup();
    let mut numbers: Vec<_> = heard.iter().filter_map(Json::as_i64).collect();
    assert_eq!(numbers.len(), 32);
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 32, "each write once");
    assert!(server.log().contains("are read from the log"), "the queue never overran");
}
