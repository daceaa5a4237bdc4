//! A server whose disk fails under it, and what its clients see.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::common::{HttpAnswer, Options, Server, Ws, rowcast};

const NOTE: &str = r#"{"name":"note","namespace":"notes","label_field":"text",
    "fields":[{"name":"text","label":"Text","type":"text"}]}"#;

/// What runs the server: the shell text before it takes the shell's place, in a mount namespace
/// of its own. `None` where the machine does not allow that.
fn through(text: &str, own_mounts: bool) -> Option<Vec<String>> {
    let mut through: Vec<String> = Vec::new();
    if own_mounts {
        let unshare = ["unshare", "--user", "--map-root-user", "--mount"];
        let tried = Command::new(unshare[0])
            .args(&unshare[1..])
            .args(["sh", "-c", "mkdir -p t && mount -t tmpfs tmpfs t"])
            .current_dir(tempfile::tempdir().unwrap().path())
            .stderr(Stdio::null())
            .status();
        if !tried.is_ok_and(|status| status.success()) {
            eprintln!("left out: no file system can be mounted here");
            return None;
        }
        through.extend(unshare.map(String::from));
    }
    through.extend(["sh".into(), "-c".into(), format!("{text}\nexec \"$0\" \"$@\"")]);
    Some(through)
}

fn options(through: Vec<String>) -> Options {
    Options { through, ..Options::default().schema("note", NOTE) }
}

fn create(server: &Server, token: &str, text: &str) -> HttpAnswer {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let body = json!({"text": text}).to_string();
    server.raw("POST", "/api/content/note", &headers, body.as_bytes())
}

fn id(answer: &HttpAnswer) -> i64 {
    answer.json()["data"]["id"].as_i64().expect("an id")
}

/// The next record that was created; positions apart.
fn told(ws: &mut Ws) -> (i64, String) {
    loop {
        let message = ws.next();
        if message["event"] == "create" {
            let cursor = message["cursor"].as_str().expect("a cursor").to_owned();
            return (message["data"]["id"].as_i64().expect("an id"), cursor);
        }
        assert_eq!(message["event"], "position", "{message}");
    }
}

/// Writes until the disk refuses, has it mended, writes again: refusals say why, reading goes on,
/// subscribers hear exactly what was acknowledged, on the connection and when they resume.
fn across(server: &Server, why: &str, mend: impl FnOnce()) {
    let token = server.admin_token();
    let mut ws = server.subscribe("schema=note&since=now&select=id", Some(&token));
    let long = "x".repeat(50_000);
    let mut acknowledged = vec![id(&create(server, &token, "first"))];
    let (_, first) = told(&mut ws);
    let refused = loop {
        let answer = create(server, &token, &long);
        match answer.status {
            200 => acknowledged.push(id(&answer)),
            _ => break answer,
        }
        assert!(acknowledged.len() < 10_000);
    };
    assert_eq!(refused.status, 503, "{}", refused.json());
    assert!(refused.header("retry-after").is_some());
    let message = refused.json()["error"]["message"].as_str().expect("a message").to_owned();
    assert!(message.starts_with(why), "{message}");
    // The log has the same id, and the cause.
    let error = message.split("(error ").nth(1).expect("an id").trim_end_matches(')').to_owned();
    server.until("the cause in the log", || server.log().contains(&error).then_some(()));

    // Reading goes on, subscribing and resuming too.
    let list = |query: &str| {
        let path = format!("/api/content/note?select=id&limit=1000{query}");
        let (status, list) = server.request("GET", &path, Some(&token), None);
        assert_eq!(status, 200, "{list}");
        list["data"].clone()
    };
    assert_eq!(list("")["total"], json!(acknowledged.len()));
    assert_eq!(server.request("GET", "/api/health", None, None).0, 200);
    let (status, told_status) = server.request("GET", "/api/realtime/status", Some(&token), None);
    assert_eq!((status, &told_status["data"]["subscriptions"]), (200, &json!(1)));
    let query = format!("schema=note&select=id&since={first}");
    let mut resumed = server.subscribe(&query, Some(&token));
    for expected in &acknowledged[1..] {
        assert_eq!(told(&mut resumed).0, *expected);
    }
    // What is small may find a place still; it is acknowledged or not like all else.
    for _ in 0..5 {
        let answer = create(server, &token, &long);
        assert!([200, 503].contains(&answer.status), "{}", answer.json());
        if answer.status == 200 {
            acknowledged.push(id(&answer));
        }
    }

    mend();
    let back = server.until("writes to come back", || {
        let answer = create(server, &token, &long);
        assert!([200, 503].contains(&answer.status), "{}", answer.json());
        (answer.status == 200).then_some(answer)
    });
    acknowledged.push(id(&back));
    acknowledged.push(id(&create(server, &token, "last")));
    // Each once, in order, nothing else: on the connection that lived through it, on the one
    // that came meanwhile, and on one that comes now.
    let mut late = server.subscribe(&query, Some(&token));
    for expected in &acknowledged[1..] {
        assert_eq!(told(&mut ws).0, *expected);
        assert_eq!(told(&mut late).0, *expected);
    }
    let rows = list("")["total"].clone();
    assert_eq!(rows, json!(acknowledged.len()), "what was refused is not there");
}

#[test]
fn a_full_disk_under_a_server() {
    let mount = "mkdir -p data && mount -t tmpfs -o size=12m,mode=700 tmpfs data && \
                 head -c 7M /dev/zero > data/filler || exit";
    let Some(through) = through(mount, true) else { return };
    let mut server = Server::start(options(through));
    let filler = PathBuf::from(format!("/proc/{}/root", server.pid()))
        .join(server.data().strip_prefix("/").expect("absolute"))
        .join("filler");
    if std::fs::metadata(&filler).is_err() {
        eprintln!("left out: another process's files cannot be reached here");
        return;
    }
    across(&server, "the disk is full", || std::fs::remove_file(&filler).expect("removed"));
    assert_eq!(server.terminate(), Some(0), "{}", server.log());
}

#[cfg(target_os = "linux")]
#[test]
fn a_failing_disk_under_a_server() {
    // A file that grows past the soft limit gets EFBIG, since the signal is ignored.
    let Some(through) = through("trap '' XFSZ; ulimit -S -f 8000", false) else { return };
    let mut server = Server::start(options(through));
    let pid = server.pid().to_string();
    let lift = |limit: &str| {
        let lifted = Command::new("prlimit").args(["--pid", &pid, limit]).status();
        lifted.is_ok_and(|status| status.success())
    };
    if !lift("--fsize=4096000:unlimited") {
        eprintln!("left out: no prlimit here");
        return;
    }
    across(&server, "the disk does not answer", || assert!(lift("--fsize=unlimited:unlimited")));
    assert!(server.log().contains("the disk is back"), "{}", server.log());
    assert_eq!(server.terminate(), Some(0), "{}", server.log());
}

/// A data directory that cannot be written to: told by name, whatever is in it, and left alone.
#[test]
fn a_read_only_directory_is_told_at_the_start() {
    let mut server = Server::start(options(Vec::new()));
    let token = server.admin_token();
    let made = id(&create(&server, &token, "there"));
    server.kill();
    let dir = server.dir.path().to_owned();
    let sealed = |from: &str, commands: &[&[&str]]| {
        let mount =
            format!("mount --bind {from} {from} && mount -o remount,bind,ro {from} || exit");
        let Some(through) = through(&mount, true) else { return };
        for args in commands {
            let env = rowcast(&dir);
            let output = Command::new(&through[0])
                .args(&through[1..])
                .arg(env.get_program())
                .args(*args)
                .current_dir(&dir)
                .stdin(Stdio::null())
                .output()
                .expect("run");
            let err = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{args:?}: {err}");
            assert!(err.contains(from) && err.contains("Read-only"), "{args:?}: {err}");
            assert!(!err.contains("internal error"), "{args:?}: {err}");
        }
    };
    let port = server.address.port().to_string();
    sealed("data", &[&["serve", "--port", &port], &["backup", "file"]]);
    std::fs::create_dir(dir.join("sealed")).expect("made");
    sealed("sealed", &[&["serve", "--port", &port, "--data", "sealed/data"]]);
    sealed("sealed", &[&["backup", "sealed/file"]]);
    server.restart();
    let token = server.admin_token();
    let path = format!("/api/content/note/{made}");
    assert_eq!(server.request("GET", &path, Some(&token), None).0, 200);
    assert!(!dir.join("file").exists());
}

/// What a dead server, or anybody, may have left beside the store.
#[test]
fn leftovers_do_not_keep_a_server_from_starting() {
    let mut server = Server::start(options(Vec::new()));
    let token = server.admin_token();
    let made = id(&create(&server, &token, "there"));
    let data = server.data();
    server.kill();
    std::fs::write(data.join("lock"), "1\nnot a number\n").expect("written");
    let _ = std::fs::remove_file(data.join("control.sock"));
    std::fs::write(data.join("control.sock"), "a file").expect("written");
    std::fs::create_dir_all(data.join(".control")).expect("made");
    std::fs::write(data.join(".control/sock"), "").expect("written");
    std::fs::write(data.join("rowcast.db-shm"), vec![0x5a; 32_768]).expect("written");
    std::fs::write(data.join(".rowcast.db.restoring-20260101T000000Z"), "half").expect("written");
    std::fs::write(data.join("rowcast.db-journal"), "").expect("written");
    server.restart();
    let token = server.admin_token();
    let path = format!("/api/content/note/{made}");
    assert_eq!(server.request("GET", &path, Some(&token), None).0, 200);
    assert_eq!(create(&server, &token, "more").status, 200);
    let listed = Command::new(env!("CARGO_BIN_EXE_rowcast"))
        .args(["user", "list"])
        .current_dir(server.dir.path())
        .output()
        .expect("run");
    assert!(listed.status.success(), "the owner's socket is there again");
    server.kill();

    std::fs::remove_file(data.join("lock")).expect("removed");
    std::fs::create_dir(data.join("lock")).expect("made");
    let refused = refused(server.dir.path());
    assert!(refused.contains("data directory data") && refused.contains("directory"), "{refused}");
    std::fs::remove_dir(data.join("lock")).expect("removed");
    server.restart();
}

/// What a server says that does not start.
fn refused(dir: &Path) -> String {
    let output =
        rowcast(dir).args(["serve", "--port", "0"]).stdin(Stdio::null()).output().expect("run");
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The place of a backup is full: told with its name, nothing left there, and the server goes on.
#[test]
fn a_backup_to_a_full_disk_leaves_nothing() {
    let mount = "mkdir -p data small && mount -t tmpfs -o size=200k,mode=700 tmpfs small || exit";
    let Some(through) = through(mount, true) else { return };
    let mut server = Server::start(options(through));
    let token = server.admin_token();
    for _ in 0..5 {
        assert_eq!(create(&server, &token, &"x".repeat(100_000)).status, 200);
    }
    let backup = |to: &str| {
        let output =
            rowcast(server.dir.path()).args(["backup", to]).stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // The server writes it, where the folder is another file system.
    let (code, err) = backup("small/file");
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("small/.file.part: the disk is full"), "{err}");
    let inside = PathBuf::from(format!("/proc/{}/root", server.pid()))
        .join(server.dir.path().strip_prefix("/").expect("absolute"))
        .join("small");
    if let Ok(left) = std::fs::read_dir(inside) {
        assert_eq!(left.count(), 0);
    }
    assert_eq!(create(&server, &token, "more").status, 200);
    assert_eq!(backup("file"), (Some(0), String::new()));
    assert_eq!(server.terminate(), Some(0), "{}", server.log());
}
