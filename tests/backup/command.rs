//! The commands as their user meets them.

use std::path::Path;
use std::process::Stdio;

use serde_json::json;

use crate::common::{Options, Server, Ws, rowcast};
use crate::{mode, names};

const NOTE: &str = r#"{"name":"note","namespace":"notes","label_field":"text",
    "fields":[{"name":"text","label":"Text","type":"string"}]}"#;

fn run(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let output = rowcast(dir).args(args).stdin(Stdio::null()).output().expect("run");
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn write(server: &Server, token: &str, text: &str) -> i64 {
    let body = json!({"text": text});
    let (status, made) = server.request("POST", "/api/content/note", Some(token), Some(&body));
    assert_eq!(status, 200, "{made}");
    made["data"]["id"].as_i64().expect("an id")
}

fn total(server: &Server, token: &str) -> i64 {
    let (status, list) = server.request("GET", "/api/content/note", Some(token), None);
    assert_eq!(status, 200, "{list}");
    list["data"]["total"].as_i64().expect("a total")
}

#[test]
fn there_and_back() {
    let mut server = Server::start(Options::default().schema("note", NOTE));
    let dir = server.dir.path().to_owned();
    let token = server.admin_token();
    for n in 0..3 {
        write(&server, &token, &n.to_string());
    }
    // Through the running server, which works elsewhere than its client may.
    let place = dir.join("place");
    std::fs::create_dir(&place).expect("made");
    let (code, out, err) = run(&place, &["backup", "one", "--data", "../data"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let lines: Vec<_> = out.lines().collect();
    for word in ["one: 3 records of 1 schema, 1 user, ", " log entries, the newest of 20", " bytes"]
    {
        assert!(lines[0].contains(word), "no '{word}' in {out}");
    }
    assert!(lines[1].contains("../data/.env") && lines[1].contains("schemas"), "{out}");
    assert_eq!((names(&place), mode(&place.join("one"))), (vec!["one".to_owned()], 0o600));

    for (args, told) in [
        (&["backup", "place/one"][..], "place/one is there already"),
        (&["backup", "place"], "is a folder"),
        (&["backup", "nowhere/one"], "nowhere cannot be written to"),
        (&["backup", "data/rowcast.db", "--force"], "the store's own"),
        (&["backup", "data/.env", "--force"], "the store's own"),
        (&["backup", "data/lock", "--force"], "the store's own"),
        (&["backup", "data/control.sock", "--force"], "the store's own"),
        (&["backup", "/dev/null", "--force"], "is no plain file"),
        (&["backup", "/proc/one"], "/proc/.one.part cannot be made"),
        (&["restore", "place/one", "--force"], "a server runs on data; stop it first"),
    ] {
        let (code, out, err) = run(&dir, args);
        assert_eq!((code, out.as_str()), (1, ""), "{args:?}: {err}");
        assert!(err.contains(told), "{args:?}: {err}");
    }
    assert_eq!(run(&dir, &["backup"]).0, 2);

    write(&server, &token, "late");
    assert_eq!(run(&dir, &["backup", "place/one", "--force"]).0, 0);
    write(&server, &token, "later");
    assert_eq!(total(&server, &token), 5);
    server.terminate();
    let (code, out, err) = run(&dir, &["restore", "place/one"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("there is a store in data already") && err.contains("--force"), "{err}");

    // Files that will change what was restored are named.
    let other = NOTE.replace("\"Text\"", "\"Other\"");
    std::fs::write(server.schemas().join("note.json"), other).expect("written");
    std::fs::write(server.schemas().join("more.json"), NOTE.replace("note", "more"))
        .expect("written");
    let (code, out, err) = run(&dir, &["restore", "place/one", "--force"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for word in [
        "restored place/one: 4 records of 1 schema, 1 user",
        "the store that was there is data/rowcast.db.before-2",
        "sessions have ended",
        "of schemas: note differ from the backup",
        "of schemas: more are not in the backup",
    ] {
        assert!(out.contains(word), "no '{word}' in {out}");
    }
    server.restart();
    assert_eq!(server.request("GET", "/api/auth/me", Some(&token), None).0, 401);
    let token = server.admin_token();
    assert_eq!(total(&server, &token), 4);
    // An id given after the backup is given again: it was never told to what is there now.
    assert_eq!(write(&server, &token, "anew"), 5);
    server.terminate();

    // Without a server, to another place.
    let (code, out, err) = run(&dir, &["backup", "two"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("two: 5 records of 2 schemas"), "{out}");
    std::fs::remove_file(server.schemas().join("note.json")).expect("removed");
    let (code, out, err) = run(&dir, &["restore", "two", "--data", "new"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("of schemas: note have no file"), "{out}");
    assert!(!out.contains("before"), "{out}");
    assert_eq!(mode(&dir.join("new")), 0o700);
    assert_eq!(names(&dir.join("new")), ["lock", "rowcast.db"]);
    let (code, _, err) = run(&dir, &["backup", "three", "--data", "nowhere"]);
    assert_eq!(code, 1);
    assert!(err.contains("there is no store in nowhere"), "{err}");
    assert!(!dir.join("nowhere").exists() && !dir.join("three").exists());
}

/// The cursor of the next message that has one.
fn cursor(ws: &mut Ws) -> String {
    loop {
        if let Some(cursor) = ws.next()["cursor"].as_str() {
            return cursor.to_owned();
        }
    }
}

#[test]
fn cursors_of_before_the_backup_are_good_after_a_restore_later_ones_are_refused() {
    let mut server = Server::start(Options::default().schema("note", NOTE));
    let dir = server.dir.path().to_owned();
    let token = server.admin_token();
    let mut ws = server.subscribe("schema=note&since=now&select=text", Some(&token));
    let first = cursor(&mut ws);
    write(&server, &token, "one");
    let one = cursor(&mut ws);
    write(&server, &token, "two");
    let two = cursor(&mut ws);
    assert_eq!(run(&dir, &["backup", "file"]).0, 0);
    write(&server, &token, "three");
    let three = cursor(&mut ws);
    server.terminate();
    assert_eq!(run(&dir, &["restore", "file", "--force"]).0, 0);
    server.restart();
    let token = server.admin_token();
    let texts = |since: &str, count: usize| -> Vec<String> {
        let query = format!("schema=note&select=text&since={since}");
        let mut ws = server.subscribe(&query, Some(&token));
        let mut texts = Vec::new();
        while texts.len() < count {
            let message = ws.next();
            if message["event"] == "create" {
                texts.push(message["data"]["text"].as_str().expect("a text").to_owned());
            }
        }
        texts
    };
    let refused = || {
        let query = format!("schema=note&since={three}");
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str()), ("Origin", "http://a.example")];
        let path = format!("/api/realtime/content?{query}");
        let (code, reason) = server.ws(&path, &headers, None).expect("a handshake").closed();
        assert_eq!(code, 4410, "{reason}");
    };
    assert_eq!(texts(&first, 2), ["one", "two"]);
    refused();
    // Nor when another history has come as far.
    for text in ["3", "4", "5", "6"] {
        write(&server, &token, text);
        refused();
    }
    assert_eq!(texts(&first, 6), ["one", "two", "3", "4", "5", "6"]);
    assert_eq!(texts(&one, 5), ["two", "3", "4", "5", "6"]);
    assert_eq!(texts(&two, 4), ["3", "4", "5", "6"]);
}

#[test]
fn the_status_is_the_admins() {
    let server = Server::start(Options::default().schema("note", NOTE));
    let status = |token: Option<&str>| server.request("GET", "/api/realtime/status", token, None);
    assert_eq!(status(None).0, 401);
    let (_, user) = server.user("joe", &[]);
    assert_eq!(status(Some(&user)).0, 403);
    let token = server.admin_token();
    let before = status(Some(&token)).1["data"].clone();
    let _ws = server.subscribe("schema=note", Some(&token));
    let _other = server.subscribe("schema=note&event=update", Some(&token));
    write(&server, &token, "one");
    let (code, after) = status(Some(&token));
    assert_eq!(code, 200);
    let after = &after["data"];
    let entries = |status: &serde_json::Value| status["log"]["entries"].as_i64().expect("entries");
    assert_eq!(entries(after), entries(&before) + 1);
    assert!(after["log"]["bytes"].as_i64() > before["log"]["bytes"].as_i64());
    // They are cursors that an admin can use.
    let oldest = after["cursor"]["oldest"].as_str().expect("a cursor");
    let mut all = server.subscribe(&format!("schema=note&since={oldest}"), Some(&token));
    assert_eq!(all.next()["data"]["text"], "one");
    assert_eq!(after["cursor"]["oldest"], before["cursor"]["oldest"]);
    assert_ne!(after["cursor"]["newest"], before["cursor"]["newest"]);
    assert!(after["log"]["newest_time"].as_str() > before["log"]["newest_time"].as_str());
    assert_eq!(after["log"]["oldest_time"], before["log"]["oldest_time"]);
    let hours = after["log"]["hours"].as_f64().expect("hours");
    assert!((0.0..1.0).contains(&hours), "{after}");
    assert_eq!(after["log"]["most_bytes"], json!(1_u64 << 30));
    assert_eq!(after["log"]["most_hours"], json!(24.0));
    assert_eq!((&after["subscriptions"], &after["plans"]), (&json!(2), &json!(1)));
    assert_eq!(after["by_schema"], json!({"note": 2}));
    assert_eq!(after["replays"], json!({"working": 0, "waiting": 0}));
    let wrong = server.request("POST", "/api/realtime/status", Some(&token), None);
    assert_eq!(wrong.0, 405);
    assert_eq!(server.request("GET", "/api/realtime/status?x=1", Some(&token), None).0, 400);
}
