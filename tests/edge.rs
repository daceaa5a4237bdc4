//! The HTTP edge under clients that are wrong, slow or too many: each costs itself alone.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{HttpAnswer, Options, PATIENCE, Server};
use serde_json::json;

const BLOG: &str = r#"{"name":"blog","namespace":"blogs","label_field":"title",
    "fields":[{"name":"title","label":"Title","type":"string"}],
    "access":{"guest":{"read":true,"create":true}}}"#;

fn options() -> Options {
    Options::default().schema("blog", BLOG)
}

/// Everything until the server closes.
fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn healthy(server: &Server) {
    let (status, answer) = server.request("GET", "/api/health", None, None);
    assert_eq!((status, &answer), (200, &json!({"data": {"status": "ok"}})));
}

#[test]
fn what_the_root_says() {
    let server = Server::start(options());
    let page = server.raw("GET", "/", &[("Accept", "text/html,*/*")], b"");
    assert_eq!(page.status, 200);
    assert!(page.text().contains("Rowcast") && page.text().contains("/api/realtime/content"));
    let (status, answer) = server.request("GET", "/", None, None);
    assert_eq!((status, &answer["data"]["name"]), (200, &json!("rowcast")));
}

#[test]
fn paths_and_methods() {
    let server = Server::start(options());
    for (method, path, status, allow) in [
        ("GET", "/nowhere", 404, None),
        ("GET", "/api/content", 404, None),
        ("GET", "/owner/user/list", 404, None),
        ("POST", "/owner/user/list", 404, None),
        ("POST", "/", 405, Some("GET, HEAD")),
        ("DELETE", "/api/health", 405, Some("GET, HEAD")),
        ("PATCH", "/api/content/blog/1", 405, Some("GET, HEAD, PUT, DELETE")),
        ("OPTIONS", "/api/content/blog", 405, Some("GET, HEAD, POST")),
        ("GET", "/api/realtime/content?schema=blog", 426, None),
        ("POST", "/api/realtime/content?schema=blog", 405, Some("GET")),
    ] {
        let answer = server.raw(method, path, &[], b"");
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
        assert_eq!(answer.json()["error"]["code"], json!(status.to_string()), "{method} {path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
    let head = server.raw("HEAD", "/api/content/blog", &[], b"");
    let get = server.raw("GET", "/api/content/blog", &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), get.header("content-length"));
}

#[test]
fn filters_may_be_typed_raw() {
    let server = Server::start(options());
    server.request("POST", "/api/content/blog", None, Some(&json!({"title": "a <\"> b"})));
    let get =
        "GET /api/content/blog?filter={\"title\":{\"$contains\":\"<\"}} HTTP/1.1\r\nHost: x\r\n";
    let mut stream = server.connect();
    // Two on one connection: the second has a body to be counted before it.
    write!(stream, "{get}Content-Length: 3\r\n\r\n\">\"{get}Connection: close\r\n\r\n").unwrap();
    let answers = rest(&mut stream);
    assert_eq!(answers.matches("\"total\":1").count(), 2, "{answers}");
}

#[test]
fn any_page_may_call_with_a_token_of_its_own() {
    let server = Server::start(options());
    let asked = [
        ("Origin", "https://elsewhere.example"),
        ("Access-Control-Request-Method", "PUT"),
        ("Access-Control-Request-Headers", "authorization,content-type"),
    ];
    let answer = server.raw("OPTIONS", "/api/content/blog/1", &asked, b"");
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let allowed = answer.header("access-control-allow-headers").expect("headers");
    for name in ["Authorization", "X-Auth-Token", "Content-Type"] {
        assert!(allowed.contains(name), "{allowed}");
    }
    assert!(answer.header("access-control-allow-methods").expect("methods").contains("PUT"));
    for answer in [answer, server.raw("GET", "/api/content/blog", &asked[..1], b"")] {
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
}

#[test]
fn bodies_are_bounded_in_size() {
    let server = Server::start(options().env("ROWCAST_BODY_BYTES", "1MiB"));
    let large = format!("{{\"title\":\"{}\"}}", "x".repeat(1 << 20));
    let answer = server.raw("POST", "/api/content/blog", &[], large.as_bytes());
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert!(answer.text().contains("1048576 bytes"), "{}", answer.text());

    // Told to be large, without sending it.
    let mut stream = server.connect();
    stream
        .write_all(
            b"POST /api/content/blog HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n",
        )
        .expect("sent");
    assert_eq!(HttpAnswer::read(&mut stream).expect("an answer").status, 413);

    // In chunks, without telling.
    let mut stream = server.connect();
    stream
        .write_all(
            b"POST /api/content/blog HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        .expect("sent");
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for _ in 0..20 {
        if stream.write_all(chunk.as_bytes()).is_err() {
            break;
        }
    }
    assert_eq!(HttpAnswer::read(&mut stream).expect("an answer").status, 413);

    let good = server.request("POST", "/api/content/blog", None, Some(&json!({"title": "a"})));
    assert_eq!(good.0, 200, "{}", good.1);
}

#[test]
fn bodies_together_are_bounded() {
    let env = [("ROWCAST_BODIES_BYTES", "1MiB"), ("ROWCAST_BODY_BYTES", "1MiB")];
    let options = env.iter().fold(options(), |options, (name, value)| options.env(name, value));
    let server = Server::start(options);
    let half = vec![b' '; 700 << 10];
    let begin = |length: usize| {
        let mut stream = server.connect();
        let head = format!(
            "POST /api/content/blog HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("sent");
        stream.write_all(&half).expect("sent");
        stream
    };
    let first = begin(800 << 10);
    // It must have its room before others ask for theirs.
    std::thread::sleep(Duration::from_millis(500));
    let mut second = server.until("a refusal", || {
        let mut second = begin(half.len());
        let answer = HttpAnswer::read(&mut second).expect("an answer");
        (answer.status == 503).then_some(answer)
    });
    second.headers.retain(|(name, _)| name == "retry-after");
    assert_eq!(second.headers.len(), 1);
    drop(first);
    server.until("room again", || {
        let body = json!({"title": "a"});
        (server.request("POST", "/api/content/blog", None, Some(&body)).0 == 200).then_some(())
    });
}

#[test]
fn trickling_clients_are_ended() {
    let server = Server::start(
        options().env("ROWCAST_HEAD_TIME", "400ms").env("ROWCAST_BODY_TIME", "400ms"),
    );
    // A head in drops, each in time.
    let mut stream = server.connect();
    let began = Instant::now();
    let mut ended = false;
    for byte in b"GET /api/health HTTP/1.1\r\nHost: a\r\nX: ".iter().chain([b'y'].iter().cycle()) {
        if stream.write_all(&[*byte]).is_err() {
            ended = true;
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
        assert!(began.elapsed() < PATIENCE, "the head may trickle for ever");
    }
    assert!(ended && began.elapsed() > Duration::from_millis(300));

    // Silence after connecting, and after half a head.
    for half in ["", "GET / HTTP/1.1\r\nHo"] {
        let mut stream = server.connect();
        stream.write_all(half.as_bytes()).expect("sent");
        let began = Instant::now();
        assert_eq!(rest(&mut stream), "");
        assert!(began.elapsed() < Duration::from_secs(5));
    }

    // A body that never ends.
    let mut stream = server.connect();
    stream
        .write_all(b"POST /api/content/blog HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
        .expect("sent");
    let answer = HttpAnswer::read(&mut stream).expect("an answer");
    assert_eq!(answer.status, 408, "{}", answer.text());
    assert_eq!(rest(&mut stream), "", "and the connection ends");
    healthy(&server);
}

#[test]
fn idle_connections_are_closed_and_busy_ones_kept() {
    let server = Server::start(options().env("ROWCAST_IDLE_TIME", "3s"));
    let mut stream = server.connect();
    let began = Instant::now();
    for _ in 0..4 {
        stream.write_all(b"GET /api/health HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
        assert_eq!(HttpAnswer::read(&mut stream).expect("an answer").status, 200);
        std::thread::sleep(Duration::from_secs(1));
    }
    assert!(began.elapsed() > Duration::from_secs(3));
    let began = Instant::now();
    assert_eq!(rest(&mut stream), "");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn heads_are_bounded() {
    let server = Server::start(options());
    let long = format!("/api/content/blog?filter={}", "x".repeat(70_000));
    let answer = server.raw("GET", &long, &[], b"");
    assert_eq!(answer.status, 414);
    let value = "x".repeat(200_000);
    let answer = server.raw("GET", "/api/health", &[("X-Long", &value)], b"");
    assert_eq!(answer.status, 431);
    for garbage in ["\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "hello\n\n"] {
        let mut stream = server.connect();
        stream.write_all(garbage.as_bytes()).expect("sent");
        let answer = rest(&mut stream);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{garbage:?}: {answer}");
    }
    let mut stream = server.connect();
    stream
        .write_all(b"POST /api/content/blog HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}")
        .expect("sent");
    assert!(rest(&mut stream).starts_with("HTTP/1.1 400"));
    healthy(&server);
}

#[test]
fn too_many_connections_are_told_so() {
    let server = Server::start(options().env("ROWCAST_CONNECTIONS", "3"));
    let held: Vec<_> = (0..3).map(|_| server.connect()).collect();
    let refused = server.until("a refusal", || {
        let mut stream = server.connect();
        stream.write_all(b"GET /api/health HTTP/1.1\r\nHost: a\r\n\r\n").ok()?;
        HttpAnswer::read(&mut stream).ok().filter(|answer| answer.status == 429)
    });
    assert_eq!(refused.json()["error"]["code"], json!("429"));
    assert!(refused.header("retry-after").is_some());
    drop(held);
    server.until("room again", || {
        let mut stream = server.connect();
        stream.write_all(b"GET /api/health HTTP/1.1\r\nHost: a\r\n\r\n").ok()?;
        HttpAnswer::read(&mut stream).ok().filter(|answer| answer.status == 200)
    });
}

#[test]
fn a_client_that_does_not_read_its_answer_is_ended() {
    let server = Server::start(options().env("ROWCAST_BODY_TIME", "500ms"));
    let title = "x".repeat(100_000);
    for _ in 0..100 {
        let made =
            server.request("POST", "/api/content/blog", None, Some(&json!({"title": title})));
        assert_eq!(made.0, 200, "{}", made.1);
    }
    let mut stream = server.connect();
    stream.write_all(b"GET /api/content/blog?limit=100 HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    // 10 MB; what the sockets' buffers do not take waits.
    std::thread::sleep(Duration::from_secs(6));
    let got = rest(&mut stream).len();
    assert!(got < 9_900_000, "all {got} bytes came");
    // Who reads gets everything.
    let (status, all) = server.request("GET", "/api/content/blog?limit=100", None, None);
    assert_eq!((status, all["data"]["items"].as_array().map(Vec::len)), (200, Some(100)));
}

#[test]
fn stopping_finishes_what_is_under_way() {
    let mut server = Server::start(options());
    let mut ws = server.subscribe("schema=blog", None);
    let idle = server.connect();
    let body = br#"{"title":"late"}"#;
    let mut stream = server.connect();
    let head = format!(
        "POST /api/content/blog HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(&body[..5]).expect("sent");
    std::thread::sleep(Duration::from_millis(200));
    let late = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        stream.write_all(&body[5..]).expect("sent");
        HttpAnswer::read(&mut stream).expect("an answer").status
    });
    let began = Instant::now();
    assert_eq!(server.terminate(), Some(0), "{}", server.log());
    assert!(began.elapsed() < Duration::from_secs(9), "took {:?}", began.elapsed());
    assert_eq!(late.join().expect("the late client"), 200, "{}", server.log());
    assert_eq!(ws.closed().0, 1001);
    drop(idle);
    server.restart();
    let (_, found) = server.request("GET", "/api/content/blog", None, None);
    assert_eq!(found["data"]["items"][0]["title"], json!("late"));
}

#[test]
fn stopping_takes_bounded_time() {
    let mut server = Server::start(options().env("ROWCAST_DRAIN_TIME", "500ms"));
    let mut stream = server.connect();
    stream
        .write_all(b"POST /api/content/blog HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
        .expect("sent");
    std::thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    assert_eq!(server.terminate(), Some(0), "{}", server.log());
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn logs_hold_no_secrets() {
    let server = Server::start(options().env("ROWCAST_LOG", "debug"));
    let token = server.admin_token();
    let query = format!("/api/content/blog?access_token={token}&filter=%7B%7D");
    assert_eq!(server.raw("GET", &query, &[], b"").status, 200);
    for headers in [
        [("Authorization", format!("Bearer {token}"))],
        [("X-Auth-Token", token.clone())],
        [("Cookie", format!("token={token}; other=cookiesecret"))],
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(server.raw("GET", "/api/content/blog", &headers, b"").status, 200);
    }
    let offer = format!("Authorization, {token}");
    let ws = server.ws("/api/realtime/content?schema=blog", &[], Some(&offer)).expect("a socket");
    drop(ws);
    let wrong = json!({"login": "admin", "password": "wrongpassword"});
    assert_eq!(server.request("POST", "/api/auth/local/login", None, Some(&wrong)).0, 422);
    let bad = [("Authorization", "Bearer badtokensecret")];
    assert_eq!(server.raw("GET", "/api/content/blog", &bad, b"").status, 401);
    let log = server.until("the log", || {
        let log = server.log();
        // Before it stands what a person is told to try.
        let (_, log) = log.split_once("listening on")?;
        log.contains("GET /api/content/blog 401").then(|| log.to_owned())
    });
    assert!(log.contains("GET /api/realtime/content 101"), "{log}");
    for secret in [
        token.as_str(),
        token.rsplit('.').next().expect("a signature"),
        "access_token",
        "filter",
        "cookiesecret",
        "wrongpassword",
        "badtokensecret",
        common::ADMIN_PASSWORD,
        "Bearer",
    ] {
        assert!(!log.contains(secret), "the log holds {secret:?}:\n{log}");
    }
}
