//! WebSockets as browsers, native programs and enemies use them, against a real server.

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use common::tungstenite::protocol::{CloseFrame, Message};
use common::{Options, PATIENCE, Server, Ws};
use serde_json::{Value as Json, json};

const NOTE: &str = r#"{
  "name": "note", "namespace": "notes", "label_field": "text",
  "fields": [
    { "name": "text", "label": "Text", "type": "text" },
    { "name": "n", "label": "N", "type": "int", "optional": true }
  ],
  "access": { "user": { "read": true, "create": true, "update": true, "delete": true } }
}"#;

fn options() -> Options {
    Options::default().schema("note", NOTE)
}

fn create(server: &Server, token: &str, body: Json) -> i64 {
    let (status, answer) = server.request("POST", "/api/content/note", Some(token), Some(&body));
    assert_eq!(status, 200, "{answer}");
    answer["data"]["id"].as_i64().expect("an id")
}

/// Sets `n` of all records; how many there were.
fn set_all(server: &Server, token: &str, n: i64) -> u64 {
    let path = "/api/content/note/update?filter=%7B%7D";
    let (status, answer) = server.request("PUT", path, Some(token), Some(&json!({"n": n})));
    assert_eq!(status, 200, "{answer}");
    answer["data"].as_u64().expect("a count")
}

/// As a browser does it: token in the subprotocol, an origin, no other headers.
fn browser(server: &Server, query: &str, token: &str) -> Ws {
    let path = format!("/api/realtime/content?{query}");
    let origin = [("Origin", "http://app.example")];
    let ws = server.ws(&path, &origin, Some(&format!("Authorization, {token}")));
    let ws = ws.unwrap_or_else(|answer| panic!("no 101: {}", answer.text()));
    assert_eq!(ws.handshake.header("sec-websocket-protocol"), Some("Authorization"));
    ws
}

#[test]
fn browsers_and_programs_hear_the_same() {
    let server = Server::start(options());
    let (_, token) = server.user("ann", &[]);
    let mut page = browser(&server, "schema=note", &token);
    let mut program = server.subscribe("schema=note", Some(&token));
    assert_eq!(program.handshake.header("sec-websocket-protocol"), None);
    create(&server, &token, json!({"text": "hello"}));
    let heard = page.next();
    assert_eq!(heard["data"]["text"], "hello");
    assert_eq!(heard, program.next());
    // What a client says changes nothing.
    page.send(Message::text(r#"{"event":"create"}"#));
    page.send(Message::binary(vec![0, 255]));
    page.send(Message::Ping(b"here".to_vec().into()));
    let until = Instant::now() + PATIENCE;
    assert!(matches!(page.read_until(until), Ok(Some(Message::Pong(p))) if p == b"here"[..]));
    create(&server, &token, json!({"text": "again"}));
    assert_eq!(page.next()["data"]["text"], "again");
    program.socket.close(None).expect("closing");
    assert_eq!(program.closed(), (1005, String::new()), "no code is answered with none");
}

#[test]
fn many_hear_the_same_whether_they_are_written_together_or_one_by_one() {
    for together in ["true", "false"] {
        let server = Server::start(options().env("ROWCAST_IO_URING", together));
        let (_, token) = server.user("ann", &[]);
        let mut all: Vec<Ws> =
            (0..150).map(|_| server.subscribe("schema=note", Some(&token))).collect();
        // Who goes meanwhile, and whose descriptors are taken by who comes.
        all.drain(..40);
        all.extend((0..30).map(|_| server.subscribe("schema=note", Some(&token))));
        let id = create(&server, &token, json!({"text": "hello"}));
        for n in 0..20 {
            set_all(&server, &token, n);
        }
        for ws in &mut all {
            let heard = ws.next();
            assert_eq!((&heard["event"], &heard["data"]["id"]), (&json!("create"), &json!(id)));
            for n in 0..20 {
                assert_eq!(ws.next()["data"][0]["n"], n);
            }
        }
    }
}

#[test]
fn a_plain_request_is_told_to_upgrade() {
    let server = Server::start(options());
    let token = format!("Bearer {}", server.admin_token());
    let answer =
        server.raw("GET", "/api/realtime/content?schema=note", &[("Authorization", &token)], b"");
    assert_eq!(answer.status, 426, "{}", answer.text());
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    assert_eq!(answer.json()["error"]["code"], "426");
}

#[test]
fn one_order_for_everybody() {
    let server = Server::start(options());
    let token = server.admin_token();
    let mut full = server.subscribe("schema=note", Some(&token));
    let mut slim = browser(&server, "schema=note&select=n&filter[n][$gte]=0", &token);
    let writers = 4;
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let (server, token) = (&server, &token);
            scope.spawn(move || {
                for round in 0..10 {
                    create(server, token, json!({"text": "x", "n": writer * 100 + round}));
                    set_all(server, token, writer * 100 + round);
                }
            });
        }
    });
    create(&server, &token, json!({"text": "last", "n": 9999}));
    // Applied one after the other, the messages give what a list shows.
    let apply = |socket: &mut Ws| {
        let (mut view, mut seen) = (BTreeMap::new(), Vec::new());
        loop {
            let message = socket.next();
            let data = match &message["data"] {
                Json::Array(records) => records.clone(),
                record => vec![record.clone()],
            };
            for record in &data {
                view.insert(record["id"].as_i64().expect("an id"), record["n"].clone());
            }
            let ids: Vec<_> = data.iter().map(|r| (r["id"].clone(), r["n"].clone())).collect();
            seen.push((message["event"].clone(), ids));
            if data[0]["n"] == 9999 {
                return (view, seen);
            }
        }
    };
    let (view, seen) = apply(&mut full);
    assert_eq!((view.clone(), seen), apply(&mut slim));
    let (_, list) = server.request("GET", "/api/content/note?limit=100", Some(&token), None);
    let items = list["data"]["items"].as_array().expect("items");
    let listed: BTreeMap<_, _> =
        items.iter().map(|r| (r["id"].as_i64().expect("an id"), r["n"].clone())).collect();
    assert_eq!(view, listed);
}

#[test]
fn what_commits_after_the_101_is_heard() {
    let server = Server::start(options());
    let token = server.admin_token();
    std::thread::scope(|scope| {
        let (server, token) = (&server, &token);
        let noise = scope.spawn(move || {
            for _ in 0..150 {
                create(server, token, json!({"text": "noise"}));
            }
        });
        for n in 0..20 {
            let mut socket = server.subscribe(&format!("schema=note&filter[n]={n}"), Some(token));
            create(server, token, json!({"text": "mine", "n": n}));
            assert_eq!(socket.next()["data"]["n"], n);
        }
        noise.join().expect("noise");
    });
}

#[test]
fn a_slow_reader_is_closed_alone() {
    let server = Server::start(
        options().env("ROWCAST_OUTBOX_BYTES", "128KiB").env("ROWCAST_FRAME_BYTES", "64KiB"),
    );
    let token = server.admin_token();
    let text = "x".repeat(60_000);
    for _ in 0..150 {
        create(&server, &token, json!({"text": text}));
    }
    let mut slow = server.subscribe("schema=note", Some(&token));
    let mut slim = server.subscribe("schema=note&select=n", Some(&token));
    let quick = server.subscribe("schema=note", Some(&token));
    let reader = std::thread::spawn(move || {
        let mut quick = quick;
        let mut records = 0;
        while records < 450 {
            records += quick.next()["data"].as_array().expect("records").len();
        }
        records
    });
    // Each is 9 MB: more than the pipes hold.
    for n in 1..=3 {
        assert_eq!(set_all(&server, &token, n), 150);
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(reader.join().expect("the quick reader"), 450);
    for n in 1..=3 {
        let mut records = 0;
        while records < 150 {
            let data = slim.next()["data"].clone();
            let data = data.as_array().expect("records");
            assert!(data.iter().all(|record| record["n"] == n));
            records += data.len();
        }
    }
    // It has a beginning without holes, and then the truth.
    let mut next = 1;
    let deadline = Instant::now() + PATIENCE;
    let (code, reason) = loop {
        match slow.read_until(deadline) {
            Ok(Some(Message::Text(text))) => {
                let message: Json = serde_json::from_str(&text).expect("whole messages");
                for record in message["data"].as_array().expect("records") {
                    let id = (next - 1) % 150 + 1;
                    assert_eq!(record["id"], id, "in order");
                    next += 1;
                }
            }
            Ok(Some(Message::Close(Some(CloseFrame { code, reason })))) => {
                break (u16::from(code), reason.to_string());
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, 4408, "{reason}");
    assert!(next < 450);
}

#[test]
fn a_client_that_never_reads_is_ended() {
    let server = Server::start(
        options()
            .env("ROWCAST_OUTBOX_BYTES", "128KiB")
            .env("ROWCAST_FRAME_BYTES", "64KiB")
            .env("ROWCAST_WRITE_TIME", "500ms"),
    );
    let token = server.admin_token();
    for _ in 0..150 {
        create(&server, &token, json!({"text": "x".repeat(60_000)}));
    }
    let mut never = server.subscribe("schema=note", Some(&token));
    set_all(&server, &token, 1);
    // Long enough for a busy machine to encode it all and to begin to wait.
    std::thread::sleep(Duration::from_secs(5));
    // What the pipes held, and no close: nobody was there to take one.
    assert_eq!(never.closed().0, 1006);
}

/// `claims` of a good token under the server's key, with another end.
fn token_until(token: &str, key: &str, expires: i64) -> String {
    let payload = token.split('.').nth(1).expect("a payload");
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).expect("base64");
    let mut claims: Json = serde_json::from_slice(&payload).expect("claims");
    claims["exp"] = expires.into();
    let key = jsonwebtoken::EncodingKey::from_secret(key.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a token")
}

#[test]
fn a_token_that_ends_takes_its_sockets_along() {
    let key = "0123456789abcdef0123456789abcdef";
    let server = Server::start(options().env("APP_KEY", key));
    let (_, token) = server.user("ann", &[]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("now").as_secs() as i64;
    let mut brief = server.subscribe("schema=note", Some(&token_until(&token, key, now + 2)));
    let mut lasting = server.subscribe("schema=note", Some(&token));
    let (code, reason) = brief.closed();
    assert_eq!((code, &*reason), (4401, "[401] Unauthorized: the token has expired"));
    let ended = SystemTime::now().duration_since(UNIX_EPOCH).expect("now").as_secs_f64();
    let late = ended - (now + 2) as f64;
    assert!((0.0..1.0).contains(&late), "closed {late} s after the token's end");
    create(&server, &token, json!({"text": "on"}));
    assert_eq!(lasting.next()["data"]["text"], "on");
}

#[test]
fn stopping_closes_with_1001() {
    let mut server = Server::start(options());
    let token = server.admin_token();
    let mut sockets: Vec<_> =
        (0..10).map(|_| server.subscribe("schema=note", Some(&token))).collect();
    create(&server, &token, json!({"text": "last"}));
    let closing = std::thread::spawn(move || {
        let mut close = |socket: &mut Ws| {
            assert_eq!(socket.next()["data"]["text"], "last");
            socket.closed().0
        };
        sockets.iter_mut().map(&mut close).collect::<Vec<_>>()
    });
    assert_eq!(server.terminate(), Some(0), "{}", server.log());
    assert_eq!(closing.join().expect("closed"), [1001; 10]);
}

#[test]
fn pings_are_sent_and_two_may_be_missed() {
    let server = Server::start(options().env("ROWCAST_PING_EVERY", "300ms"));
    let token = server.admin_token();
    let dead = server.subscribe("schema=note", Some(&token));
    let mut alive = server.subscribe("schema=note", Some(&token));
    let began = Instant::now();
    let mut pings = 0;
    while began.elapsed() < Duration::from_millis(2_000) {
        match alive.read_until(Instant::now() + Duration::from_millis(100)) {
            Ok(Some(Message::Ping(_))) => pings += 1,
            Ok(None) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!((4..=7).contains(&pings), "{pings} pings");
    let mut bytes = Vec::new();
    let mut stream = dead.socket.get_ref();
    // Two pings, and then the end.
    let _ = stream.read_to_end(&mut bytes);
    assert_eq!(bytes, [0x89, 0, 0x89, 0]);
    create(&server, &token, json!({"text": "on"}));
    assert_eq!(alive.next()["data"]["text"], "on");
}

/// A client's frame; `first` is FIN and opcode.
fn frame(first: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let mut bytes = vec![first];
    let mask = if masked { 0x80 } else { 0 };
    match payload.len() {
        length @ 0..=125 => bytes.push(mask | length as u8),
        length @ 126..=0xffff => {
            bytes.push(mask | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(mask | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    if masked {
        bytes.extend([0; 4]);
    }
    bytes.extend(payload);
    bytes
}

#[test]
fn hostile_frames_end_their_own_connection() {
    let server = Server::start(options().env("ROWCAST_BODY_TIME", "1s"));
    let token = server.admin_token();
    let mut witness = server.subscribe("schema=note", Some(&token));
    const TEXT: u8 = 0x81;
    const BINARY: u8 = 0x82;
    let long = vec![b'x'; (64 << 10) + 1];
    let half = &long[..40 << 10];
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("unmasked", frame(TEXT, b"hi", false), 1002),
        ("too big", frame(TEXT, &long, true), 1009),
        ("said to be huge", vec![BINARY, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1009),
        ("too big in parts", [frame(0x02, half, true), frame(0x80, half, true)].concat(), 1009),
        (
            "fragments for ever",
            [frame(0x01, b"", true), frame(0x00, b"", true).repeat(200_000)].concat(),
            1009,
        ),
        ("not UTF-8", frame(TEXT, &[0xff, 0xfe], true), 1007),
        (
            "not UTF-8 in parts",
            [frame(0x01, &[0xc3], true), frame(0x80, b"x", true)].concat(),
            1007,
        ),
        ("unknown opcode", frame(0x83, b"", true), 1002),
        ("reserved bits", frame(0xf1, b"", true), 1002),
        ("continues nothing", frame(0x80, b"x", true), 1002),
        ("long ping", frame(0x89, &[b'x'; 126], true), 1002),
        ("fragmented ping", frame(0x09, b"x", true), 1002),
        ("begun and left", frame(TEXT, b"hello", true)[..8].to_vec(), 1008),
        ("a fragment and silence", frame(0x01, b"x", true), 1008),
        ("bad close", frame(0x88, &[0x03, 0xe7], true), 1002),
        ("short close", frame(0x88, &[0x03], true), 1002),
    ];
    for (what, bytes, code) in cases {
        let mut socket = server.subscribe("schema=note", Some(&token));
        let began = Instant::now();
        // The server may have ended it before all is written.
        let _ = socket.socket.get_mut().write_all(&bytes);
        assert_eq!(socket.closed().0, code, "{what}");
        assert!(began.elapsed() < Duration::from_secs(3), "{what}: {:?}", began.elapsed());
    }
    create(&server, &token, json!({"text": "on"}));
    assert_eq!(witness.next()["data"]["text"], "on");
}

#[test]
fn a_ping_cut_anywhere_is_answered() {
    let server = Server::start(options().env("ROWCAST_MESSAGES_PER_SECOND", "100000"));
    let token = server.admin_token();
    let mut socket = server.subscribe("schema=note", Some(&token));
    let ping = frame(0x89, b"cut here", true);
    let pong = |socket: &mut Ws| match socket.read_until(Instant::now() + PATIENCE) {
        Ok(Some(Message::Pong(payload))) => assert_eq!(&payload[..], b"cut here"),
        other => panic!("{other:?}"),
    };
    // On a connection that is as idle as can be, in the midst of a message, and behind it.
    let between = [vec![], frame(0x01, b"some", true), frame(0x80, b"thing", true)];
    for before in between {
        socket.socket.get_mut().write_all(&before).expect("written");
        for cut in 1..ping.len() {
            let (head, tail) = ping.split_at(cut);
            // The whole one's pong says that the server has read so far, the other's head too.
            socket.socket.get_mut().write_all(&[&ping, head].concat()).expect("written");
            pong(&mut socket);
            socket.socket.get_mut().write_all(tail).expect("written");
            pong(&mut socket);
        }
    }
    create(&server, &token, json!({"text": "on"}));
    assert_eq!(socket.next()["data"]["text"], "on");
}

#[test]
fn who_has_to_pause_is_answered_all_the_same() {
    // The last ping that a second allows, and it comes in two pieces.
    let options = options().env("ROWCAST_MESSAGES_PER_SECOND", "5");
    let server = Server::start(options.env("ROWCAST_BODY_TIME", "1s"));
    let token = server.admin_token();
    let mut socket = server.subscribe("schema=note", Some(&token));
    let ping = frame(0x89, b"all of them", true);
    let (head, tail) = ping.split_at(4);
    let pongs = |socket: &mut Ws, number| {
        for at in 1..=number {
            match socket.read_until(Instant::now() + PATIENCE) {
                Ok(Some(Message::Pong(payload))) => assert_eq!(&payload[..], b"all of them"),
                other => panic!("pong {at} of {number}: {other:?}"),
            }
        }
    };
    socket.socket.get_mut().write_all(&[&ping.repeat(4), head].concat()).expect("written");
    pongs(&mut socket, 4);
    socket.socket.get_mut().write_all(tail).expect("written");
    pongs(&mut socket, 1);
    // Nothing is unfinished: longer than a message may take it stays open.
    let quiet = socket.read_until(Instant::now() + Duration::from_secs(3));
    assert!(matches!(quiet, Ok(None)), "{quiet:?}");
    create(&server, &token, json!({"text": "on"}));
    assert_eq!(socket.next()["data"]["text"], "on");
}

#[test]
fn a_flood_is_read_slowly_and_harms_nobody() {
    let server = Server::start(options());
    let token = server.admin_token();
    let mut witness = server.subscribe("schema=note", Some(&token));
    let flood = server.subscribe("schema=note", Some(&token));
    let mut stream = flood.socket.get_ref().try_clone().expect("a second handle");
    stream.set_write_timeout(Some(Duration::from_millis(300))).expect("set");
    let message = frame(0x82, &vec![0; 60 << 10], true);
    let began = Instant::now();
    let mut written = 0;
    while began.elapsed() < Duration::from_secs(2) && written < 1_000 {
        match stream.write_all(&message) {
            Ok(()) => written += 1,
            Err(_) => break,
        }
    }
    // 20 a second, and what the pipes hold (some megabytes).
    assert!(written < 300, "{written} messages of 60 KiB were taken");
    create(&server, &token, json!({"text": "on"}));
    assert_eq!(witness.next()["data"]["text"], "on");
    drop(flood);
    stream.shutdown(Shutdown::Both).expect("shut");
}

#[test]
fn a_client_that_vanishes_is_forgotten() {
    let server = Server::start(options());
    let token = server.admin_token();
    let mut witness = server.subscribe("schema=note", Some(&token));
    for _ in 0..20 {
        let socket = server.subscribe("schema=note", Some(&token));
        socket.socket.get_ref().shutdown(Shutdown::Both).expect("shut");
    }
    for n in 0..20 {
        create(&server, &token, json!({"text": "on", "n": n}));
        assert_eq!(witness.next()["data"]["n"], n);
    }
}

#[test]
fn half_a_handshake_is_given_up() {
    let server = Server::start(options().env("ROWCAST_HEAD_TIME", "500ms"));
    let mut stream = server.connect();
    stream.write_all(b"GET /api/realtime/content?schema=note HTTP/1.1\r\nHost: x\r\nUpg").unwrap();
    let began = Instant::now();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    assert!(began.elapsed() < Duration::from_secs(3));
    // Without a key, or of another version, it is no handshake.
    for (header, status) in [("Sec-WebSocket-Version: 13", 400), ("Sec-WebSocket-Version: 8", 426)]
    {
        let mut stream = server.connect();
        let key =
            if status == 426 { "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" } else { "" };
        let head = format!(
            "GET /api/realtime/content?schema=note HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\n{header}\r\n{key}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let answer = common::HttpAnswer::read(&mut stream).expect("an answer");
        assert_eq!(answer.status, status, "{}", answer.text());
    }
}
