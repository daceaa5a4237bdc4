//! Nobody's dear filter, bulk call or unread socket is paid for by the others.

mod common;

use std::fs;

use common::{Options, Server, Ws, rowcast};
use serde_json::{Value as Json, json};

const NOTE: &str = r#"{
  "name": "note", "namespace": "notes", "label_field": "text", "disable_timestamp": true,
  "fields": [
    { "name": "text", "label": "Text", "type": "text" },
    { "name": "n", "label": "N", "type": "int", "optional": true }
  ],
  "access": { "user": { "read": true, "create": true, "update": true, "delete": true } }
}"#;

/// A server with so many notes.
fn start(notes: usize, env: &[(&str, &str)]) -> Server {
    let mut options = Options::default().schema("note", NOTE);
    for (name, value) in env {
        options = options.env(name, value);
    }
    let server = Server::start(options);
    let lines: String = (0..notes).map(|n| format!("{{\"text\":\"{n}\",\"n\":0}}\n")).collect();
    fs::write(server.dir.path().join("notes.ndjson"), lines).expect("written");
    let import = rowcast(server.dir.path()).args(["import", "note", "notes.ndjson"]).output();
    let import = import.expect("run");
    assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
    server
}

fn set_all(server: &Server, token: &str, change: &Json) {
    let path = "/api/content/note/update?filter=%7B%7D";
    let (status, answer) = server.request("PUT", path, Some(token), Some(change));
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn a_plan_that_costs_too_much_is_refused_on_every_way_in() {
    let server = start(0, &[("ROWCAST_PLAN_COST", "40")]);
    let (_, token) = server.user("ann", &[]);
    let bearer = format!("Bearer {token}");
    let dear =
        r#"{"$or":[{"text":{"$contains":"a"}},{"text":{"$like":"%b"}},{"text":{"$like":"%c"}}]}"#;
    let query = format!("schema=note&filter={}", common::encode(dear));
    let told = "would cost 48 for every change, and plan_cost is 40: filter 48 (3 texts of 16)";
    let mut socket = server.subscribe(&query, Some(&token));
    let (code, reason) = socket.closed();
    assert_eq!(code, 4400, "{reason}");
    assert!(reason.contains(told), "{reason}");
    let auth = [("Authorization", bearer.as_str())];
    let events = server.sse(&format!("/api/realtime/content?{query}"), &auth);
    let refused = events.expect_err("a refusal");
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains(told), "{}", refused.text());
    let path = format!("/api/realtime/changes?{query}&since=now");
    let (status, answer) = server.request("GET", &path, Some(&token), None);
    assert_eq!(status, 400, "{answer}");
    // Lists are bounded by their time, and admins may.
    let list = format!("/api/content/note?filter={}", common::encode(dear));
    assert_eq!(server.request("GET", &list, Some(&token), None).0, 200);
    server.subscribe(&query, Some(&server.admin_token())).socket.close(None).expect("closing");
    server.subscribe("schema=note", Some(&token)).socket.close(None).expect("closing");
}

#[test]
fn single_writes_come_between_bulk_ones() {
    const BULKS: usize = 10;
    let server = start(600, &[]);
    let (_, ann) = server.user("ann", &[]);
    let (_, bob) = server.user("bob", &[]);
    let mut socket = server.subscribe("schema=note&select=n", Some(&bob));
    let mut heard = Vec::new();
    std::thread::scope(|scope| {
        for n in 1..=BULKS {
            let (server, ann) = (&server, &ann);
            scope.spawn(move || set_all(server, ann, &json!({"n": n})));
        }
        // The first is done: by now the others wait.
        heard.push(socket.next());
        for _ in 0..3 {
            let note = json!({"text": "single", "n": -1});
            let (status, answer) =
                server.request("POST", "/api/content/note", Some(&bob), Some(&note));
            assert_eq!(status, 200, "{answer}");
        }
    });
    while heard.len() < BULKS + 3 {
        heard.push(socket.next());
    }
    let last = heard.iter().rposition(|message| message["event"] == "create").expect("creates");
    let before = heard[..last].iter().filter(|message| message["event"] == "update").count();
    assert!(before < BULKS, "the third single write came after all {before} bulk writes");
}

/// Kilobytes of memory that the server has in use.
fn resident(server: &Server) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[cfg(target_os = "linux")]
#[test]
fn a_bulk_commit_is_held_once_for_all_who_do_not_read() {
    const NOTES: usize = 1_000;
    const READERS: usize = 60;
    let server = start(NOTES, &[]);
    let token = server.admin_token();
    let mut sockets: Vec<Ws> =
        (0..READERS).map(|_| server.subscribe("schema=note", Some(&token))).collect();
    // Warm: what the first bulk write needs anyway.
    set_all(&server, &token, &json!({"n": 1}));
    let before = resident(&server);
    // Some 10 MB of messages, much more than a socket's buffers take.
    set_all(&server, &token, &json!({"n": 2, "text": "x".repeat(10 << 10)}));
    let grown = resident(&server).saturating_sub(before);
    // Each for itself would be 600 MB.
    assert!(grown < 300 << 10, "{grown} kB for a commit of {} kB", NOTES * 10);
    // And everybody gets all of it.
    let mut rest = vec![2 * NOTES; READERS];
    for (socket, rest) in sockets.iter_mut().zip(&mut rest) {
        while *rest > 0 {
            *rest -= socket.next()["data"].as_array().map_or(0, Vec::len);
        }
    }
}
