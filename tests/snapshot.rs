//! What is there, page by page, and the changes from there on: through real sockets, while others
//! write.

mod common;
#[path = "snapshot/ends.rs"]
mod ends;
#[path = "snapshot/shop.rs"]
mod shop;

use std::sync::atomic::{AtomicBool, Ordering};

use common::view::{View, filter, list};
use common::{Options, Server, Ws};
use serde_json::{Value as Json, json};
use shop::{Rng, Shop, options};

fn snapshot(server: &Server, token: &str, query: &str) -> Ws {
    server.subscribe(&format!("schema=item&snapshot=true&{query}"), Some(token))
}

fn is_last(record: &Json) -> bool {
    record["text"] == "last"
}

/// The next message that is no mere position.
fn event(socket: &mut Ws) -> Json {
    loop {
        let message = socket.next();
        if message["event"] != "position" {
            return message;
        }
    }
}

/// Large pages for small outboxes: a client must read some before the server makes more.
fn paced(page: usize) -> Options {
    options(page).env("ROWCAST_OUTBOX_BYTES", "1MiB")
}

#[test]
fn views_are_right_while_others_write() {
    let server = Server::start(options(40));
    let shop = Shop::open(&server, 500, 6, 200);
    let (_, ann) = server.user("ann", &[]);
    let admin = shop.token.clone();
    let some = json!({"$or": [{"n": 1}, {"shelf.name": {"$contains": "1"}}, {"n": 7}]});
    let queries = [
        (&admin, String::new()),
        (&admin, filter(&json!({"n": {"$gte": 5}}))),
        (&admin, filter(&json!({"shelf.open": true})) + "&select=text,n,shelf.name"),
        (&admin, filter(&some)),
        (&admin, "select=text,shelf.name,shelf.open".to_owned()),
        (&ann, filter(&json!({"n": {"$gt": 2}}))),
    ];
    let over = AtomicBool::new(false);
    let (shop, server, over) = (&shop, &server, &over);
    let mut views = std::thread::scope(|scope| {
        for writer in 0..3 {
            scope.spawn(move || {
                let mut rng = Rng(77 + writer);
                while !over.load(Ordering::Relaxed) {
                    shop.change(&mut rng);
                }
            });
        }
        let reader = |(token, query): &(&String, String)| {
            let mut views = Vec::new();
            for _ in 0..3 {
                let mut socket = snapshot(server, token, query);
                let mut view = View::new();
                view.complete_from(&mut socket);
                views.push((socket, view));
            }
            views
        };
        let readers: Vec<_> =
            queries.iter().map(|query| scope.spawn(move || reader(query))).collect();
        let views: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
        over.store(true, Ordering::Relaxed);
        views
    });
    shop.last();
    for (views, (token, query)) in views.iter_mut().zip(&queries) {
        for (socket, view) in views.as_mut().expect("a reader") {
            view.until(socket, is_last);
            assert!(view.pages > 1 || !query.is_empty(), "{query}: {} pages", view.pages);
            view.is_what_lists(server, token, "item", query);
        }
    }
}

/// The client reads a page, then others write, and so on: the server is a few pages ahead at most.
/// At `complete` the view is what a list gives, though nothing has come after it.
#[test]
fn at_complete_a_slow_readers_view_is_the_list() {
    let server = Server::start(paced(10));
    // Some 20 MB each: what sockets hold by themselves is less.
    let shop = Shop::open(&server, 250, 4, 100_000);
    let mut rng = Rng(4_711);
    let some = json!({"$or": [{"shelf.open": true}, {"n": {"$lt": 8}}]});
    let queries = [
        String::new(),
        filter(&json!({"n": {"$gte": 1}})),
        filter(&some) + "&select=text,n,shelf.name",
    ];
    let mut readers: Vec<_> = queries
        .iter()
        .map(|query| (snapshot(&server, &shop.token, query), View::new(), query))
        .collect();
    for _ in 0..4 {
        for (socket, view, _) in &mut readers {
            view.next(socket);
        }
        for _ in 0..10 {
            shop.change(&mut rng);
        }
    }
    for (socket, view, query) in &mut readers {
        assert!(!view.complete, "{query}: the reader is the slower one");
        view.complete_from(socket);
        assert!(view.events > 0, "{query}: changes came between the pages");
        view.is_what_lists(&server, &shop.token, "item", query);
    }
    std::thread::scope(|scope| {
        for (socket, view, _) in &mut readers {
            scope.spawn(|| view.until(socket, is_last));
        }
        for _ in 0..20 {
            shop.change(&mut rng);
        }
        shop.last();
    });
    for (_, view, query) in &readers {
        view.is_what_lists(&server, &shop.token, "item", query);
    }
}

#[test]
fn pages_are_as_large_as_they_may_be() {
    let server = Server::start(options(25));
    let shop = Shop::open(&server, 100, 0, 10);
    for (query, records, pages) in [
        // Exactly four pages: the end is known when nothing follows.
        ("", 100, 5),
        ("filter[n][$gte]=0&select=n", 100, 5),
        ("filter[n][$gt]=99", 0, 1),
        ("filter[id][$lte]=25", 25, 2),
        ("filter[id][$lte]=24", 24, 1),
        ("filter[id][$gt]=99", 1, 1),
    ] {
        let mut socket = snapshot(&server, &shop.token, query);
        let mut view = View::new();
        view.complete_from(&mut socket);
        assert_eq!((view.records.len(), view.pages), (records, pages), "{query}");
        view.is_what_lists(&server, &shop.token, "item", query);
    }
    // Bytes bound a page as well, but a record always fits.
    let server = Server::start(options(1_000).env("ROWCAST_FRAME_BYTES", "4KiB"));
    let shop = Shop::open(&server, 40, 0, 1_000);
    let mut rng = Rng(1);
    let large = json!({"text": "y".repeat(20_000), "n": 3});
    shop.done("POST", "/api/content/item", &large);
    shop.create(&mut rng);
    let mut socket = snapshot(&server, &shop.token, "");
    let mut view = View::new();
    view.complete_from(&mut socket);
    assert!((15..25).contains(&view.pages), "{}", view.pages);
    view.is_what_lists(&server, &shop.token, "item", "");
}

#[test]
fn an_empty_table_is_complete_at_once() {
    let server = Server::start(options(10));
    let shop = Shop::open(&server, 0, 0, 10);
    let mut socket = snapshot(&server, &shop.token, "");
    let message = socket.next();
    assert_eq!(message["data"], json!([]));
    assert_eq!(message["complete"], true);
    assert!(message["cursor"].is_string());
    let id = shop.create(&mut Rng(1));
    let message = event(&mut socket);
    assert_eq!((&message["event"], &message["data"]["id"]), (&json!("create"), &json!(id)));
    assert!(message["cursor"].is_string());
}

#[test]
fn nothing_carries_a_cursor_before_the_end_and_the_stream_goes_on_from_it() {
    let server = Server::start(options(10));
    let shop = Shop::open(&server, 35, 2, 10);
    let mut rng = Rng(5);
    let mut socket = snapshot(&server, &shop.token, "filter[n][$gte]=2");
    // The view holds every message to where cursors may be.
    let mut view = View::new();
    view.complete_from(&mut socket);
    let first = view.clone();
    for _ in 0..30 {
        shop.change(&mut rng);
    }
    shop.last();
    view.until(&mut socket, is_last);
    // A client that was away since the snapshot hears the same.
    let cursor = first.cursor.clone().expect("a cursor");
    let query = format!("schema=item&filter[n][$gte]=2&transitions=true&since={cursor}");
    let mut later = server.subscribe(&query, Some(&shop.token));
    let mut resumed = first.clone();
    resumed.until(&mut later, is_last);
    assert_eq!(resumed.records, view.records);
    assert_eq!(resumed.cursor, view.cursor);
    view.is_what_lists(&server, &shop.token, "item", "filter[n][$gte]=2");
}

#[test]
fn one_url_for_a_client_that_wants_to_be_right() {
    let server = Server::start(options(10));
    let shop = Shop::open(&server, 15, 0, 10);
    let mut rng = Rng(5);
    let mut socket = snapshot(&server, &shop.token, "");
    let mut view = View::new();
    view.complete_from(&mut socket);
    drop(socket);
    // Good: resumed, no page.
    shop.create(&mut rng);
    let since = format!("since={}", view.cursor.clone().expect("a cursor"));
    let mut socket = snapshot(&server, &shop.token, &since);
    shop.last();
    view.until(&mut socket, is_last);
    assert_eq!(view.pages, 2);
    view.is_what_lists(&server, &shop.token, "item", "");
    // Of nobody: a snapshot.
    let stranger = rowcast::model::cursor::Cursor { position: 3, stamp: 5, grant: 7 };
    let future = rowcast::model::cursor::Cursor { position: 1 << 40, stamp: 5, grant: 0 };
    for cursor in [stranger, future] {
        let mut socket = snapshot(&server, &shop.token, &format!("since={cursor}"));
        let mut view = View::new();
        view.complete_from(&mut socket);
        assert_eq!(view.pages, 2);
        view.is_what_lists(&server, &shop.token, "item", "");
    }
    let mut plain = server.subscribe(&format!("schema=item&since={stranger}"), Some(&shop.token));
    assert_eq!(plain.closed().0, 4410);
}

#[test]
fn keys_of_text_and_uuids() {
    let plain = |key: &str, ty: &str| {
        json!({"name": key, "namespace": format!("{key}s"), "label_field": "n",
            "primary_field": "key", "disable_timestamp": true,
            "fields": [{"name": "key", "type": ty}, {"name": "n", "type": "int"}]})
    };
    let server = Server::start(
        Options::default()
            .schema("word", plain("word", "string"))
            .schema("thing", plain("thing", "uuid"))
            .env("ROWCAST_MESSAGE_RECORDS", 7),
    );
    let token = server.admin_token();
    let words = ["", "a", "A", "Z", "z", "ä", "aa", "a%", "é", "ß", "日本", "\u{10ffff}", "b/c"];
    for schema in ["word", "thing"] {
        let over = AtomicBool::new(false);
        let write = |rng: &mut Rng| {
            let mut body = json!({"n": rng.below(10)});
            let mut path = format!("/api/content/{schema}");
            if schema == "word" {
                let word = format!("{}{}", words[rng.below(words.len())], rng.below(40));
                body["key"] = word.into();
            }
            let known = list(&server, &token, schema, "", "key");
            let at = rng.below(known.len().max(1));
            let one = known.values().nth(at).map(|record| record["key"].clone());
            let method = match (rng.below(4), one.as_ref().and_then(Json::as_str)) {
                (2, Some(key)) => {
                    path = format!("{path}/{}", common::encode(key));
                    body = json!({"n": rng.below(10)});
                    "PUT"
                }
                (3, Some(key)) => {
                    path = format!("{path}/{}", common::encode(key));
                    "DELETE"
                }
                _ => "POST",
            };
            let (status, answer) = server.request(method, &path, Some(&token), Some(&body));
            // A word may be there already, or gone.
            assert!(matches!(status, 200 | 404 | 409 | 422 | 400), "{status} {answer}");
        };
        let mut rng = Rng(99);
        (0..120).for_each(|_| write(&mut rng));
        let filters = ["", "filter[n][$lt]=6"];
        let views = std::thread::scope(|scope| {
            let over = &over;
            let write = &write;
            scope.spawn(move || {
                let mut rng = Rng(3);
                while !over.load(Ordering::Relaxed) {
                    write(&mut rng);
                }
            });
            let views: Vec<_> = (0..6)
                .map(|round| {
                    let query = format!("schema={schema}&snapshot=1&{}", filters[round % 2]);
                    let mut socket = server.subscribe(&query, Some(&token));
                    let mut view = View::by("key");
                    view.complete_from(&mut socket);
                    (socket, view)
                })
                .collect();
            over.store(true, Ordering::Relaxed);
            views
        });
        let mut last = json!({"n": -1});
        if schema == "word" {
            last["key"] = "last".into();
        }
        let path = format!("/api/content/{schema}");
        assert_eq!(server.request("POST", &path, Some(&token), Some(&last)).0, 200);
        for (round, (mut socket, mut view)) in views.into_iter().enumerate() {
            view.until(&mut socket, |record| record["n"] == -1);
            view.is_what_lists(&server, &token, schema, filters[round % 2]);
        }
    }
}

#[test]
fn one_record() {
    let server = Server::start(options(10));
    let shop = Shop::open(&server, 5, 1, 10);
    shop.done("PUT", "/api/content/item/3", &json!({"n": 3, "shelf": {"id": 1}}));
    let mut there = snapshot(&server, &shop.token, "id=3&filter[shelf.open]=true");
    let page = there.next();
    assert_eq!(page["data"][0]["id"], 3);
    assert_eq!(
        (&page["complete"], page["data"].as_array().expect("a page").len()),
        (&json!(true), 1)
    );
    let mut not_yet = snapshot(&server, &shop.token, "id=6");
    let page = not_yet.next();
    assert_eq!((&page["complete"], &page["data"]), (&json!(true), &json!([])));
    let mut other = snapshot(&server, &shop.token, "id=3&filter[n]=4");
    assert_eq!(other.next()["data"], json!([]));
    shop.create(&mut Rng(1));
    assert_eq!(event(&mut not_yet)["event"], "create");
    shop.done("PUT", "/api/content/item/3", &json!({"n": 4}));
    assert_eq!(event(&mut there)["event"], "update");
    let entered = event(&mut other);
    assert_eq!((&entered["event"], &entered["data"]["n"]), (&json!("enter"), &json!(4)));
    shop.done("PUT", "/api/content/shelf/1", &json!({"open": false}));
    assert_eq!(event(&mut there)["event"], "leave");
}

/// An `EventSource` that always asks for a snapshot gets one where it has no id yet.
#[test]
fn server_sent_events() {
    let server = Server::start(options(10));
    let shop = Shop::open(&server, 25, 2, 10);
    let query = "schema=item&snapshot=true&filter[n][$gte]=0";
    let mut stream = server.events(query, Some(&shop.token));
    let mut view = View::new();
    while !view.complete {
        // As a WebSocket would have it: strict about what carries an id.
        view.apply(&stream.next());
    }
    assert_eq!((view.pages, view.records.len()), (3, 25));
    drop(stream);
    shop.change(&mut Rng(9));
    shop.last();
    let token = format!("Bearer {}", shop.token);
    let id = view.cursor.clone().expect("an id");
    let headers = [("Authorization", &*token), ("Last-Event-ID", &id)];
    let path = format!("/api/realtime/content?{query}");
    let mut stream = server.sse(&path, &headers).expect("a stream");
    while !view.records.values().any(is_last) {
        view.apply(&stream.next());
    }
    assert_eq!(view.pages, 3, "resumed");
    view.is_what_lists(&server, &shop.token, "item", "");
}

#[test]
fn what_a_snapshot_cannot_be_asked_with() {
    let server = Server::start(options(10));
    let token = server.admin_token();
    for query in ["sort=n", "limit=5", "event=create", "watch=n", "transitions=false"] {
        let (code, reason) = snapshot(&server, &token, query).closed();
        assert_eq!(code, 4400, "{query}: {reason}");
    }
}
