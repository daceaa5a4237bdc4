//! `GET /api/realtime/changes`: the stream in pages.

mod common;

use std::time::{Duration, Instant};

use common::{Options, PATIENCE, Server};
use serde_json::{Value as Json, json};

fn start(env: &[(&str, &str)]) -> Server {
    let mut options = Options::default();
    let note = |name: &str, access: Json| {
        json!({
            "name": name, "namespace": format!("{name}s"), "label_field": "title",
            "disable_timestamp": true,
            "fields": [
                {"name": "title", "label": "Title", "type": "string"},
                {"name": "rank", "label": "Rank", "type": "int", "optional": true}
            ],
            "access": access
        })
    };
    options =
        options.schema("note", note("note", json!({"user": {"read": {"fields": ["title"]}}})));
    options = options.schema("open", note("open", json!({"guest": {"read": true}})));
    for (name, value) in env {
        options = options.env(name, value);
    }
    Server::start(options)
}

/// A page: status and `data`, or `error`.
fn ask(server: &Server, query: &str, token: Option<&str>) -> (u16, Json) {
    let query = common::exchange::target_encoded(query);
    let (status, answer) =
        server.request("GET", &format!("/api/realtime/changes?{query}"), token, None);
    (status, answer[if status == 200 { "data" } else { "error" }].clone())
}

/// A page of the admin's.
fn page(server: &Server, query: &str) -> Json {
    let (status, page) = ask(server, query, Some(&server.admin_token()));
    assert_eq!(status, 200, "{query}: {page}\n{}", server.log());
    let keys: Vec<&String> = page.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["events", "next", "complete"]);
    page
}

fn next(page: &Json) -> String {
    page["next"].as_str().expect("a cursor").to_owned()
}

fn call(server: &Server, method: &str, path: &str, body: Json) -> Json {
    let admin = server.admin_token();
    let (status, answer) = server.request(method, path, Some(&admin), Some(&body));
    assert_eq!(status, 200, "{method} {path}: {answer}");
    answer["data"].clone()
}

fn create(server: &Server, schema: &str, rank: u64) {
    let body = json!({"title": format!("n{rank}"), "rank": rank});
    call(server, "POST", &format!("/api/content/{schema}"), body);
}

fn ranks(page: &Json) -> Vec<u64> {
    let events = page["events"].as_array().expect("events");
    events.iter().map(|event| event["data"]["rank"].as_u64().expect("a rank")).collect()
}

#[test]
fn page_after_page_nothing_is_missed() {
    let server = start(&[]);
    let begin = page(&server, "schema=note&since=now");
    assert_eq!((&begin["events"], &begin["complete"]), (&json!([]), &json!(true)));
    for rank in 0..25 {
        create(&server, "note", rank);
        create(&server, "open", rank);
    }
    let all = page(&server, &format!("schema=note&since={}", next(&begin)));
    assert_eq!(ranks(&all), (0..25).collect::<Vec<_>>());
    assert_eq!(all["complete"], true);
    assert_eq!(
        all["events"][3],
        json!({"event": "create", "data": {"id": 4, "title": "n3", "rank": 3}}),
    );
    let (mut since, mut heard, mut pages) = (next(&begin), Vec::new(), 0);
    loop {
        let page = page(&server, &format!("schema=note&select=rank&limit=10&since={since}"));
        heard.extend(ranks(&page));
        since = next(&page);
        pages += 1;
        if page["complete"] == true {
            break;
        }
        assert_eq!(ranks(&page).len(), 10);
    }
    assert_eq!((heard, pages), ((0..25).collect(), 3));
    let again = page(&server, &format!("schema=note&since={since}"));
    assert_eq!((&again["events"], &again["complete"]), (&json!([]), &json!(true)));
    create(&server, "note", 99);
    assert_eq!(ranks(&page(&server, &format!("schema=note&since={}", next(&again)))), [99]);
}

#[test]
fn the_same_questions_as_a_stream() {
    let server = start(&[]);
    let since = next(&page(&server, "schema=note&since=now"));
    for rank in 1..=3 {
        create(&server, "note", rank);
    }
    call(&server, "PUT", "/api/content/note/2", json!({"rank": 20}));
    call(&server, "PUT", "/api/content/note/1", json!({"title": "x"}));
    call(&server, "DELETE", "/api/content/note/2", json!({}));
    let told = |query: &str| {
        let page = page(&server, &format!("schema=note&since={since}&{query}"));
        page["events"].as_array().expect("events").clone()
    };
    let events = told("event=delete&select=id");
    assert_eq!(events, [json!({"event": "delete", "data": [{"id": 2}]})]);
    let events = told("id=1&select=title&event=update");
    assert_eq!(events, [json!({"event": "update", "data": {"id": 1, "title": "x"}})]);
    let events = told("filter={\"rank\":{\"$lt\":10}}&transitions=true&changes=true&select=rank");
    let expected = [
        json!({"event": "create", "data": {"id": 1, "rank": 1}}),
        json!({"event": "create", "data": {"id": 2, "rank": 2}}),
        json!({"event": "create", "data": {"id": 3, "rank": 3}}),
        json!({"event": "leave", "data": [{"id": 2}]}),
        json!({"event": "update", "data": [{"id": 1, "rank": 1}], "changed": []}),
    ];
    assert_eq!(events, expected);
    let events = told("watch=rank&event=update&select=rank");
    assert_eq!(events, [json!({"event": "update", "data": [{"id": 2, "rank": 20}]})]);
}

#[test]
fn commits_are_whole() {
    let server = start(&[]);
    for rank in 0..30 {
        create(&server, "note", rank);
    }
    let since = next(&page(&server, "schema=note&since=now"));
    call(&server, "PUT", "/api/content/note/1", json!({"rank": 1}));
    call(&server, "PUT", "/api/content/note/update?filter=%7B%7D", json!({"rank": 5}));
    call(&server, "PUT", "/api/content/note/2", json!({"rank": 2}));
    let mut sizes = Vec::new();
    let mut since = since;
    loop {
        let page = page(&server, &format!("schema=note&select=id&limit=10&since={since}"));
        let records = page["events"].as_array().expect("events").iter();
        sizes.push(
            records.map(|event| event["data"].as_array().expect("data").len()).sum::<usize>(),
        );
        since = next(&page);
        if page["complete"] == true {
            break;
        }
    }
    assert_eq!(sizes, [1, 30, 1]);
}

#[test]
fn waiting_ends_with_the_first_change_or_with_time() {
    let server = start(&[]);
    let since = next(&page(&server, "schema=note&since=now"));
    let began = Instant::now();
    let quiet = page(&server, &format!("schema=note&since={since}&wait=1"));
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!((&quiet["events"], &quiet["complete"]), (&json!([]), &json!(true)));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| page(&server, &format!("schema=note&since={since}&wait=50")));
        subscribers(&server, 1);
        // What is not for it does not wake it.
        create(&server, "open", 1);
        create(&server, "note", 7);
        assert_eq!(ranks(&waiting.join().expect("answered")), [7]);
    });
    subscribers(&server, 0);
    // Without a cursor it waits for what comes next.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| page(&server, "schema=note&since=now&wait=50"));
        subscribers(&server, 1);
        create(&server, "note", 8);
        assert_eq!(ranks(&waiting.join().expect("answered")), [8]);
    });
    // There is something already: no waiting.
    assert_eq!(ranks(&page(&server, &format!("schema=note&since={since}&wait=50"))), [7, 8]);
}

/// Waits until so many are subscribed.
fn subscribers(server: &Server, count: u64) {
    let admin = server.admin_token();
    server.until("subscribers", || {
        let (status, answer) = server.request("GET", "/api/realtime/status", Some(&admin), None);
        assert_eq!(status, 200, "{answer}");
        (answer["data"]["subscriptions"].as_u64().expect("a count") == count).then_some(())
    });
}

#[test]
fn who_leaves_is_no_subscriber() {
    use std::io::Write;
    let server = start(&[]);
    let admin = server.admin_token();
    let mut stream = server.connect();
    let request = format!(
        "GET /api/realtime/changes?schema=note&since=now&wait=60 HTTP/1.1\r\nHost: a\r\n\
         Authorization: Bearer {admin}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("sent");
    subscribers(&server, 1);
    drop(stream);
    subscribers(&server, 0);
}

#[test]
fn what_is_refused() {
    let server = start(&[]);
    let admin = server.admin_token();
    let admin = Some(admin.as_str());
    for (query, token, status, text) in [
        ("schema=note", admin, 400, "begin with since=now"),
        ("since=now", admin, 400, "parameter 'schema' is missing"),
        ("schema=note&since=rubbish", admin, 400, "invalid since"),
        ("schema=note&since=now&snapshot=true", admin, 400, "'snapshot'"),
        ("schema=note&since=now&wait=61", admin, 400, "'wait'"),
        ("schema=note&since=now&limit=0", admin, 400, "'limit'"),
        ("schema=note&since=now&sort=id", admin, 400, "unknown parameter 'sort'"),
        ("schema=note&since=now&filter={\"nope\":1}", admin, 400, "unknown field 'nope'"),
        ("schema=note&since=now&watch=nope", admin, 400, "unknown field 'nope'"),
        ("schema=nope&since=now", admin, 404, "schema not found: nope"),
        ("schema=note&since=now", None, 401, "Unauthorized"),
        ("schema=note&since=now", Some("rubbish"), 401, "Unauthorized"),
    ] {
        let (code, error) = ask(&server, query, token);
        assert_eq!(code, status, "{query}: {error}");
        assert!(error["message"].as_str().expect("text").contains(text), "{query}: {error}");
    }
    assert_eq!(ask(&server, "schema=open&since=now", None).0, 200, "a guest with a rule");
    let answer = server.raw("POST", "/api/realtime/changes?schema=open&since=now", &[], b"");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
    // A cookie reads without an origin, as it does everywhere.
    let cookie = format!("token={}", server.admin_token());
    let path = "/api/realtime/changes?schema=note&since=now";
    assert_eq!(server.raw("GET", path, &[("Cookie", &cookie)], b"").status, 200);
}

#[test]
fn a_cursor_that_does_not_fit_is_gone() {
    let (one, other) = (start(&[]), start(&[]));
    create(&one, "note", 1);
    create(&other, "note", 1);
    let since = next(&page(&one, "schema=note&since=now"));
    let admin = other.admin_token();
    let (status, error) = ask(&other, &format!("schema=note&since={since}"), Some(&admin));
    assert_eq!(status, 410, "{error}");
    assert_eq!(error["code"], "410");
    let oldest = error["detail"].as_str().expect("the oldest cursor").to_owned();
    let (status, answer) = ask(&other, &format!("schema=note&since={oldest}"), Some(&admin));
    assert_eq!(status, 200, "{answer}");
    // One given under another grant.
    let (_, ann) = one.user("ann", &[]);
    let query = format!("schema=note&since={since}");
    let (status, error) = ask(&one, &query, Some(&ann));
    assert_eq!(status, 410, "{error}");
    assert!(error["message"].as_str().expect("text").contains("access has changed"), "{error}");
    assert_eq!(ask(&one, &query, Some(&one.admin_token())).0, 200);
}

#[test]
fn a_stopping_server_answers() {
    let mut server = start(&[]);
    let admin = server.admin_token();
    let address = server.address;
    let waiting = std::thread::spawn(move || {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout set");
        let request = format!(
            "GET /api/realtime/changes?schema=note&since=now&wait=60 HTTP/1.1\r\nHost: a\r\n\
             Authorization: Bearer {admin}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("sent");
        common::HttpAnswer::read(&mut stream).expect("an answer")
    });
    subscribers(&server, 1);
    assert_eq!(server.terminate(), Some(0));
    let answer = waiting.join().expect("answered");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
}
