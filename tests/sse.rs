//! The realtime endpoint as server-sent events, over raw HTTP.

mod common;

use std::io::Read;
use std::time::Instant;

use common::sse::Sse;
use common::{HttpAnswer, Options, PATIENCE, Server};
use serde_json::{Value as Json, json};

const PATH: &str = "/api/realtime/content";

fn options() -> Options {
    Options::default()
        .schema(
            "note",
            json!({
                "name": "note", "namespace": "notes", "label_field": "title",
                "disable_timestamp": true,
                "fields": [
                    {"name": "title", "label": "Title", "type": "string"},
                    {"name": "text", "label": "Text", "type": "text", "optional": true}
                ],
                "access": {"user": {"read": true}}
            }),
        )
        .schema(
            "open",
            json!({
                "name": "open", "namespace": "opens", "label_field": "title",
                "disable_timestamp": true,
                "fields": [{"name": "title", "label": "Title", "type": "string"}],
                "access": {"guest": {"read": true}}
            }),
        )
}

fn create(server: &Server, title: &str) {
    let admin = server.admin_token();
    let body = json!({"title": title});
    let (status, answer) = server.request("POST", "/api/content/note", Some(&admin), Some(&body));
    assert_eq!(status, 200, "{answer}");
}

fn title(message: &Json) -> &str {
    message["data"]["title"].as_str().unwrap_or_else(|| panic!("no title: {message}"))
}

/// What came instead of a stream.
fn refusal(answered: Result<Sse, HttpAnswer>) -> (u16, Json) {
    let answer = answered.expect_err("a refusal");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    (answer.status, answer.json()["error"].clone())
}

#[test]
fn a_stream_of_events() {
    let server = Server::start(options());
    let admin = server.admin_token();
    let mut sse = server.events("schema=note", Some(&admin));
    assert_eq!(sse.head.status, 200);
    for (name, value) in [
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
        ("access-control-allow-origin", "*"),
        ("transfer-encoding", "chunked"),
    ] {
        assert_eq!(sse.head.header(name), Some(value), "{name}");
    }
    let first = sse.next_event(PATIENCE).expect("a first event");
    let wait: u32 = first.retry.expect("retry comes first").parse().expect("milliseconds");
    assert!((1_000..=30_000).contains(&wait), "{wait}");
    create(&server, "one\ntwo");
    let event = sse.next_event(PATIENCE).expect("an event");
    assert_eq!((event.event, event.id), (None, None), "no cursor without since");
    let message: Json = serde_json::from_str(&event.data.expect("data")).expect("JSON");
    assert_eq!(
        message,
        json!({"event": "create", "data": {"id": 1, "title": "one\ntwo", "text": null}})
    );
    // The other base, and more than one type.
    let headers = [
        ("Authorization", &*format!("Bearer {admin}")),
        ("Accept", "text/html, Text/Event-Stream;q=0.9"),
    ];
    let mut other =
        server.sse("/realtime/content?schema=note&select=title", &headers).expect("a stream");
    create(&server, "three");
    assert_eq!(other.next(), json!({"event": "create", "data": {"id": 2, "title": "three"}}));
}

#[test]
fn refusals_are_plain_http() {
    let server = Server::start(options());
    let admin = server.admin_token();
    let (_, user) = server.user("ann", &[]);
    let ask = |query: &str, token: Option<&str>, more: &[(&str, &str)]| {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut headers = more.to_vec();
        headers.extend(bearer.iter().map(|bearer| ("Authorization", bearer.as_str())));
        refusal(server.sse(&format!("{PATH}?{query}"), &headers))
    };
    for (query, token, status, text) in [
        ("", Some(&*admin), 400, "parameter 'schema' is missing"),
        ("schema=note&event=drop", Some(&*admin), 400, "invalid event 'drop'"),
        ("schema=note&filter={", Some(&*admin), 400, "invalid filter"),
        ("schema=note&since=rubbish", Some(&*admin), 400, "invalid since"),
        ("schema=note&nope=1", Some(&*admin), 400, "unknown parameter 'nope'"),
        ("schema=nope", Some(&*admin), 404, "schema not found: nope"),
        ("schema=note", None, 401, "Unauthorized"),
        ("schema=nope", None, 401, "Unauthorized"),
        ("schema=note", Some("rubbish"), 401, "Unauthorized"),
        ("schema=open&access_token=rubbish", None, 401, "Unauthorized"),
        ("schema=role&filter={\"id\":1}", Some(&*user), 400, "id"),
    ] {
        let query = common::exchange::target_encoded(query);
        let (code, error) = ask(&query, token, &[]);
        assert_eq!(code, status, "{query}: {error}");
        assert_eq!(error["code"], status.to_string(), "{query}: {error}");
        assert!(error["message"].as_str().expect("text").contains(text), "{query}: {error}");
    }
    let (code, error) = ask("schema=note", Some(&admin), &[("Last-Event-ID", "rubbish")]);
    assert_eq!(code, 400);
    assert!(error["message"].as_str().expect("text").contains("Last-Event-ID"), "{error}");
    // Without naming the type there is no stream.
    for accept in ["*/*", "application/json", "text/event-stream;q=0"] {
        assert_eq!(ask("schema=open", None, &[("Accept", accept)]).0, 426, "{accept}");
    }
    let answer =
        server.raw("POST", &format!("{PATH}?schema=open"), &[("Accept", "text/event-stream")], b"");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET")));
}

#[test]
fn head_has_the_head_alone() {
    let server = Server::start(options());
    let path = format!("{PATH}?schema=open");
    let answer = server.raw("HEAD", &path, &[("Accept", "text/event-stream")], b"");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!((answer.header("content-length"), answer.body.len()), (None, 0));
    let answer =
        server.raw("HEAD", &format!("{PATH}?schema=note"), &[("Accept", "text/event-stream")], b"");
    assert_eq!((answer.status, answer.body.len()), (401, 0));
}

#[test]
fn browsers_may_say_where_they_were() {
    let server = Server::start(options());
    let headers = [
        ("Origin", "http://elsewhere.example"),
        ("Access-Control-Request-Method", "GET"),
        ("Access-Control-Request-Headers", "authorization, last-event-id"),
    ];
    let answer = server.raw("OPTIONS", PATH, &headers, b"");
    assert_eq!(answer.status, 204);
    let allowed = answer.header("access-control-allow-headers").expect("allowed headers");
    for name in ["authorization", "last-event-id"] {
        assert!(allowed.to_ascii_lowercase().contains(name), "{allowed}");
    }
}

#[test]
fn tokens_by_every_way_and_none_in_the_log() {
    let server = Server::start(options().env("ROWCAST_LOG", "trace"));
    let (_, token) = server.user("ann", &[]);
    let own = format!("http://{}", server.address);
    let cookie = format!("token={token}");
    let with = |query: String, headers: &[(&str, &str)]| {
        let path = format!("{PATH}?schema=note{query}");
        server.sse(&path, headers).map_or_else(|answer| answer.status, |sse| sse.head.status)
    };
    assert_eq!(with(format!("&access_token={token}"), &[]), 200);
    assert_eq!(with(String::new(), &[("X-Auth-Token", &token)]), 200);
    let cookies: &[(u16, &[(&str, &str)])] = &[
        (200, &[("Origin", &own)]),
        (200, &[("Sec-Fetch-Site", "same-origin")]),
        (401, &[]),
        (401, &[("Sec-Fetch-Site", "same-site")]),
        (401, &[("Sec-Fetch-Site", "cross-site")]),
        (401, &[("Origin", "http://evil.example")]),
        (401, &[("Origin", "http://evil.example"), ("Sec-Fetch-Site", "same-origin")]),
    ];
    for (status, more) in cookies {
        let mut headers = vec![("Cookie", cookie.as_str())];
        headers.extend_from_slice(more);
        assert_eq!(with(String::new(), &headers), *status, "{more:?}");
    }
    let path = format!("{PATH}?schema=note&nope=1&access_token={token}");
    assert_eq!(refusal(server.sse(&path, &[])).0, 400);
    assert!(server.log().contains(PATH), "requests are logged");
    let secret = token.rsplit('.').next().expect("a signature");
    assert!(!server.log().contains(secret), "a token is in the log");
}

#[test]
fn a_quiet_stream_has_heartbeats_and_outlives_all_other_bounds() {
    let server = Server::start(
        options()
            .env("ROWCAST_PING_EVERY", "300ms")
            .env("ROWCAST_HEAD_TIME", "200ms")
            .env("ROWCAST_IDLE_TIME", "200ms")
            .env("ROWCAST_BODY_TIME", "200ms")
            .env("ROWCAST_WRITE_TIME", "400ms"),
    );
    let mut sse = server.events("schema=open", None);
    assert!(sse.next_event(PATIENCE).expect("retry").retry.is_some());
    for _ in 0..5 {
        let event = sse.next_event(PATIENCE).expect("a heartbeat");
        assert!(event.comment && event.data.is_none() && event.id.is_none(), "{event:?}");
    }
}

#[test]
fn whoever_takes_nothing_is_ended_and_costs_nobody_else() {
    let server = Server::start(
        options()
            .env("ROWCAST_LOG", "rowcast=debug")
            .env("ROWCAST_WRITE_TIME", "500ms")
            .env("ROWCAST_BODY_TIME", "60s")
            .env("ROWCAST_OUTBOX_BYTES", "64MiB"),
    );
    let admin = server.admin_token();
    let deaf = server.events("schema=note", Some(&admin));
    let mut good = server.events("schema=note&select=title", Some(&admin));
    let text = "x".repeat(900 << 10);
    for n in 0..24 {
        let body = json!({"title": n.to_string(), "text": text});
        let (status, answer) =
            server.request("POST", "/api/content/note", Some(&admin), Some(&body));
        assert_eq!(status, 200, "{answer}");
        assert_eq!(title(&good.next()), n.to_string());
    }
    // What the kernel holds can still be read; then the connection has ended, without a close.
    let began = Instant::now();
    let mut bytes = vec![0; 1 << 20];
    let mut stream = deaf.stream();
    server.until("the end", || server.log().contains("connection ended").then_some(()));
    while !matches!(stream.read(&mut bytes), Ok(0) | Err(_)) {
        assert!(began.elapsed() < PATIENCE, "it is still there");
    }
    create(&server, "after");
    assert_eq!(title(&good.next()), "after");
}

#[test]
fn the_end_is_told() {
    let mut server = Server::start(options());
    let (id, token) = server.user("ann", &[]);
    let admin = server.admin_token();
    let mut ann = server.events("schema=note", Some(&token));
    let mut open = server.events("schema=open", None);
    let body = json!({"active": false});
    let path = format!("/api/content/user/{id}");
    let (status, answer) = server.request("PUT", &path, Some(&admin), Some(&body));
    assert_eq!(status, 200, "{answer}");
    let (code, reason) = ann.closed();
    assert_eq!(code, 4401);
    assert!(reason.starts_with("[401] Unauthorized"), "{reason}");
    let stopping = std::thread::spawn(move || open.closed());
    assert_eq!(server.terminate(), Some(0));
    let (code, reason) = stopping.join().expect("told");
    assert_eq!((code, reason.as_str()), (1001, "the server is shutting down"));
}

#[test]
fn who_leaves_is_gone() {
    let server = Server::start(options().env("ROWCAST_CONNECTIONS", "3"));
    for _ in 0..10 {
        let sse =
            server.until("room again", || server.sse(&format!("{PATH}?schema=open"), &[]).ok());
        drop(sse);
    }
}

#[test]
fn a_browser_that_comes_back_misses_nothing() {
    let server = Server::start(options());
    let admin = server.admin_token();
    let bearer = format!("Bearer {admin}");
    let query = "schema=note&select=title&since=now";
    let mut sse = server.events(query, Some(&admin));
    let position = sse.next();
    assert_eq!(position["event"], "position");
    let mut heard = Vec::new();
    for round in 0..5 {
        for n in 0..3 {
            create(&server, &format!("{round}.{n} heard"));
            heard.push(title(&sse.next_change()).to_owned());
        }
        let last = sse.last_id.clone();
        drop(sse);
        create(&server, &format!("{round} missed"));
        // The same URL, as a browser does it.
        let headers = [("Authorization", bearer.as_str()), ("Last-Event-ID", last.as_str())];
        sse = server.sse(&format!("{PATH}?{query}"), &headers).expect("a stream");
        heard.push(title(&sse.next_change()).to_owned());
    }
    let expected = (0..5).flat_map(|round| {
        let heard = (0..3).map(move |n| format!("{round}.{n} heard"));
        heard.chain([format!("{round} missed")])
    });
    assert_eq!(heard, expected.collect::<Vec<_>>());
}

#[test]
fn positions_are_ids_alone() {
    let server = Server::start(options().env("ROWCAST_PING_EVERY", "200ms"));
    let admin = server.admin_token();
    let query = "schema=note&since=now&filter=%7B%22title%22%3A%22nothing%22%7D";
    let mut sse = server.events(query, Some(&admin));
    let first = sse.next()["cursor"].clone();
    create(&server, "of no interest");
    let next = loop {
        let event = sse.next_event(PATIENCE).expect("an event");
        assert_eq!((&event.data, &event.event), (&None, &None), "{event:?}");
        if let Some(id) = event.id {
            break id;
        }
    };
    assert_ne!(first, Json::from(next.as_str()));
    // Without cursors there are none.
    let mut plain = server.events("schema=open", None);
    create(&server, "of no interest");
    for _ in 0..3 {
        assert_eq!(plain.next_event(PATIENCE).expect("an event").id, None);
    }
}

#[test]
fn a_snapshot_cut_off_leaves_no_id_to_resume_from() {
    let server = Server::start(options().env("ROWCAST_MESSAGE_RECORDS", "1"));
    for n in 0..3 {
        create(&server, &n.to_string());
    }
    let admin = server.admin_token();
    let mut sse = server.events("schema=note&select=title&snapshot=true", Some(&admin));
    loop {
        let Some(event) = sse.next_event(PATIENCE) else { panic!("no end of the snapshot") };
        let Some(data) = event.data else { continue };
        let message: Json = serde_json::from_str(&data).expect("JSON");
        assert_eq!(message["event"], "init");
        if message["complete"] == true {
            break;
        }
        assert_eq!(event.id.as_deref(), Some(""), "{message}");
    }
    assert!(!sse.last_id.is_empty());
}

#[test]
fn who_is_too_slow_is_told_where_to_go_on() {
    let server = Server::start(options().env("ROWCAST_OUTBOX_FRAMES", "4"));
    let admin = server.admin_token();
    let bearer = format!("Bearer {admin}");
    let mut slow = server.events("schema=note&since=now", Some(&admin));
    let text = "x".repeat(500 << 10);
    let mut written = 0;
    while !server.log().contains("a reader is too slow") {
        assert!(written < 200, "it takes all");
        let body = json!({"title": written.to_string(), "text": text});
        let (status, answer) =
            server.request("POST", "/api/content/note", Some(&admin), Some(&body));
        assert_eq!(status, 200, "{answer}");
        written += 1;
    }
    let mut next = 0;
    let close = loop {
        let event = slow.next_event(PATIENCE).expect("an end");
        if event.event.as_deref() == Some("close") {
            break serde_json::from_str::<Json>(&event.data.expect("data")).expect("JSON");
        }
        if let Some(data) = event.data {
            let message: Json = serde_json::from_str(&data).expect("JSON");
            assert_eq!(title(&message), next.to_string());
            next += 1;
        }
    };
    assert_eq!(close["code"], 4408);
    let reason = close["reason"].as_str().expect("a reason");
    assert!(reason.ends_with(&format!("resume from {}", slow.last_id)), "{reason}");
    let headers = [("Authorization", bearer.as_str()), ("Last-Event-ID", slow.last_id.as_str())];
    let path = format!("{PATH}?schema=note&select=title");
    let mut again = server.sse(&path, &headers).expect("a stream");
    assert!(next < written);
    for n in next..written {
        assert_eq!(title(&again.next_change()), n.to_string());
    }
}
