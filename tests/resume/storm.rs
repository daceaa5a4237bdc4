//! Coming back while others write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::client::*;
use crate::common::{PATIENCE, Server};

/// Reproducible chance.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % below
    }
}

fn write(server: &Server, token: &str, seed: u64, rounds: usize) {
    let mut dice = Dice(seed);
    for round in 0..rounds {
        match dice.roll(4) {
            0 => {
                let filter = json!({"n": {"$lt": dice.roll(8)}});
                set_all(server, token, filter, dice.roll(10) as i64);
            }
            1 => {
                let filter = crate::common::encode(&json!({"n": dice.roll(40)}).to_string());
                let path = format!("/api/content/note/delete?filter={filter}");
                let (status, answer) = server.request("DELETE", &path, Some(token), None);
                assert_eq!(status, 200, "{answer}");
            }
            _ => {
                let n = dice.roll(10);
                create(server, token, json!({"text": format!("{seed} {round}"), "n": n}));
            }
        }
    }
}

#[test]
fn who_comes_and_goes_hears_what_who_stays_hears() {
    let server = Server::start(options());
    let (_, token) = server.user("ann", &[]);
    let filter = crate::common::encode(r#"{"n":{"$lt":7}}"#);
    for query in [
        "schema=note".to_owned(),
        format!("schema=note&filter={filter}&select=n"),
        format!("schema=note&filter={filter}&transitions=true&changes=true"),
    ] {
        let mut stays = Client::new(&query, &token);
        stays.connect(&server);
        stays.hear_until(|client| client.cursor.is_some());
        let mut clients: Vec<_> = (0..3).map(|_| Client::new(&query, &token)).collect();
        for client in &mut clients {
            client.cursor = stays.cursor.clone();
        }
        let done = AtomicBool::new(false);
        let (server, done) = (&server, &done);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..3)
                .map(|seed| {
                    let token = &token;
                    scope.spawn(move || write(server, token, seed, 60))
                })
                .collect();
            for (seed, client) in clients.iter_mut().enumerate() {
                scope.spawn(move || {
                    let mut dice = Dice(100 + seed as u64);
                    while !done.load(Ordering::Relaxed) {
                        client.connect(server);
                        for _ in 0..dice.roll(30) {
                            if client.hear(Duration::from_millis(20)) != Heard::Message {
                                break;
                            }
                        }
                        client.drop_connection();
                    }
                });
            }
            writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
            done.store(true, Ordering::Relaxed);
        });
        let last = create(server, &token, json!({"text": "last", "n": 0}));
        let ended = |client: &Client| {
            client.applied.last().is_some_and(|message| message["data"]["id"] == last)
        };
        stays.hear_until(ended);
        assert!(stays.applied.len() > 50, "{}", stays.applied.len());
        for client in &mut clients {
            client.connect(server);
            client.hear_until(ended);
            assert_eq!(client.cursors, stays.cursors);
            assert_eq!(client.applied, stays.applied);
        }
    }
}

#[test]
fn a_killed_server_is_resumed_as_if_nothing_had_been() {
    let mut server = Server::start(options());
    let (_, token) = server.user("ann", &[]);
    let mut client = Client::new("schema=note", &token);
    client.connect(&server);
    client.hear_until(|client| client.cursor.is_some());
    let mut made = Vec::new();
    for round in 0..5 {
        for n in 0..20 {
            made.push(create(&server, &token, json!({"text": "x", "n": n})));
        }
        // Some of it is heard before the end, some not.
        for _ in 0..round * 5 {
            assert_eq!(client.hear(PATIENCE), Heard::Message);
        }
        server.restart();
        client.connect(&server);
    }
    made.push(create(&server, &token, json!({"text": "last"})));
    client.hear_until(|client| client.applied.len() >= made.len());
    let heard: Vec<_> = client.applied.iter().map(|m| m["data"]["id"].as_i64()).collect();
    assert_eq!(heard, made.iter().map(|id| Some(*id)).collect::<Vec<_>>());
}

#[test]
fn now_is_the_newest_entry() {
    let server = Server::start(options());
    let (_, token) = server.user("ann", &[]);
    create(&server, &token, json!({"text": "before"}));
    let mut client = Client::new("schema=note", &token);
    client.connect(&server);
    assert_eq!(client.hear(PATIENCE), Heard::Message);
    let first = client.cursor.clone().expect("a position at once");
    assert!(client.applied.is_empty());
    create(&server, &token, json!({"text": "after"}));
    client.hear_until(|client| client.applied.len() == 1);
    assert_eq!(client.applied[0]["data"]["text"], "after");
    assert_eq!(position(&client.cursors[0]), position(&first) + 1);
    // The same cursor twice gives the same.
    for _ in 0..2 {
        let mut again = Client::new("schema=note", &token);
        again.cursor = Some(first.clone());
        again.connect(&server);
        again.hear_until(|client| client.applied.len() == 1);
        assert_eq!((&again.applied, &again.cursors), (&client.applied, &client.cursors));
        again.hear_until(|client| client.cursor == client.cursors.last().cloned());
    }
    // Without `since` there are none.
    let mut plain = server.subscribe("schema=note", Some(&token));
    create(&server, &token, json!({"text": "plain"}));
    let heard = plain.next();
    assert_eq!(heard["data"]["text"], "plain");
    assert_eq!(heard.get("cursor"), None::<&Json>);
}

#[test]
fn one_record_and_one_event_are_resumed_too() {
    let server = Server::start(options());
    let (_, token) = server.user("ann", &[]);
    let mut start = Client::new("schema=note", &token);
    start.connect(&server);
    start.hear_until(|client| client.cursor.is_some());
    let one = create(&server, &token, json!({"text": "one", "n": 1}));
    create(&server, &token, json!({"text": "two", "n": 1}));
    set_all(&server, &token, json!({}), 2);
    let events = |query: &str, count: usize| {
        let mut client = Client::new(query, &token);
        client.cursor = start.cursor.clone();
        client.connect(&server);
        client.hear_until(|client| client.applied.len() == count);
        client.applied
    };
    let heard = events(&format!("schema=note&id={one}"), 2);
    assert_eq!((&heard[0]["event"], &heard[0]["data"]["n"]), (&json!("create"), &json!(1)));
    assert_eq!((&heard[1]["event"], &heard[1]["data"]["n"]), (&json!("update"), &json!(2)));
    let heard = events("schema=note&event=update", 1);
    assert_eq!(heard[0]["data"].as_array().map(Vec::len), Some(2));
}
