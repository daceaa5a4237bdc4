//! While a replay waits for its client: who may, how many may, and how it ends.

use std::time::Duration;

use serde_json::json;

use crate::client::*;
use crate::common::{Options, Server};

/// Replays that have not reached the live stream.
fn replays(server: &Server) -> u64 {
    let admin = server.admin_token();
    let (status, answer) = server.request("GET", "/api/realtime/status", Some(&admin), None);
    assert_eq!(status, 200, "{answer}");
    let replays = &answer["data"]["replays"];
    replays["working"].as_u64().unwrap_or(0) + replays["waiting"].as_u64().unwrap_or(0)
}

fn wait_for(server: &Server, count: u64) {
    server.until(&format!("{count} replays"), || (replays(server) == count).then_some(()));
}

/// A server with more to replay than sockets and outboxes hold.
fn server(options: Options, clients: &mut [&mut Client]) -> Server {
    let server = Server::start(options.env("ROWCAST_OUTBOX_BYTES", "1MiB"));
    for (at, client) in clients.iter_mut().enumerate() {
        let (_, token) = server.user(&format!("user{at}"), &[]);
        client.token = token;
        client.connect(&server);
        client.hear_until(|client| client.cursor.is_some());
        client.drop_connection();
    }
    let token = server.admin_token();
    let text = "x".repeat(20_000);
    for n in 0..100 {
        create(&server, &token, json!({"text": text, "n": n}));
    }
    for n in 0..10 {
        set_all(&server, &token, json!({}), n);
    }
    server
}

fn user(server: &Server, client: &Client) -> String {
    let (_, me) = server.request("GET", "/api/auth/me", Some(&client.token), None);
    me["data"]["id"].as_str().unwrap_or_else(|| panic!("{me}")).to_owned()
}

#[test]
fn access_is_looked_at_all_the_while() {
    let (mut gone, mut changed, mut last) = (
        Client::new("schema=note", ""),
        Client::new("schema=note", ""),
        Client::new("schema=note", ""),
    );
    let mut server = server(options(), &mut [&mut gone, &mut changed, &mut last]);
    for client in [&mut gone, &mut changed, &mut last] {
        client.connect(&server);
    }
    wait_for(&server, 3);
    let admin = server.admin_token();
    // Its user is no more: that is seen though it takes nothing.
    let path = format!("/api/content/user/{}", user(&server, &gone));
    let (status, answer) = server.request("DELETE", &path, Some(&admin), None);
    assert_eq!(status, 200, "{answer}");
    wait_for(&server, 2);
    assert_eq!(gone.closed().0, 4401);
    // Who leaves is gone from the line.
    changed.drop_connection();
    wait_for(&server, 1);
    changed.connect(&server);
    wait_for(&server, 2);
    // Another rule: another grant.
    let mut schema: serde_json::Value = serde_json::from_str(NOTE).expect("JSON");
    schema["access"]["user"]["read"] = json!({"filter": {"n": {"$gt": 0}}});
    let body = json!({"schema": schema});
    let (status, answer) = server.request("PUT", "/api/schema/note", Some(&admin), Some(&body));
    assert_eq!(status, 200, "{answer}");
    wait_for(&server, 0);
    let (code, reason) = changed.closed();
    assert_eq!(code, 4410, "{reason}");
    assert!(reason.contains("access has changed"), "{reason}");
    assert!(last.cursors.len() < 10);
    assert_eq!(last.closed().0, 4410);
    // Under the new rule from now; and the server may stop while somebody is waited for.
    last.cursor = None;
    last.connect(&server);
    last.hear_until(|client| client.cursor.is_some());
    last.drop_connection();
    for n in 1..10 {
        set_all(&server, &admin, json!({}), n);
    }
    last.connect(&server);
    wait_for(&server, 1);
    let closed = std::thread::spawn(move || last.closed().0);
    server.terminate();
    assert_eq!(closed.join().expect("closed"), 1001);
}

#[test]
fn an_addition_under_way_is_taken_along() {
    let mut client = Client::new("schema=note", "");
    let server = server(options(), &mut [&mut client]);
    client.connect(&server);
    wait_for(&server, 1);
    let mut schema: serde_json::Value = serde_json::from_str(NOTE).expect("JSON");
    let field = json!({"name": "stars", "label": "S", "type": "int", "optional": true});
    schema["fields"].as_array_mut().expect("fields").push(field);
    let admin = server.admin_token();
    let body = json!({"schema": schema});
    let (status, answer) = server.request("PUT", "/api/schema/note", Some(&admin), Some(&body));
    assert_eq!(status, 200, "{answer}");
    let last = create(&server, &admin, json!({"text": "last", "stars": 3}));
    client.hear_until(|client| {
        client.applied.last().is_some_and(|message| message["data"]["id"] == last)
    });
    assert_eq!(client.applied.last().expect("the last")["data"]["stars"], 3);
    let updates = client.applied.iter().filter(|message| message["event"] == "update");
    let records = updates.map(|message| message["data"].as_array().map_or(0, Vec::len));
    assert_eq!(records.sum::<usize>(), 1_000);
}

#[test]
fn the_log_may_be_trimmed_under_way() {
    let mut client = Client::new("schema=note", "");
    let bounds = options().env("ROWCAST_LOG_BYTES", "48MiB").env("ROWCAST_RECENT_BYTES", "1MiB");
    let server = server(bounds, &mut [&mut client]);
    client.connect(&server);
    wait_for(&server, 1);
    let admin = server.admin_token();
    let oldest = || {
        let (_, answer) = server.request("GET", "/api/realtime/status", Some(&admin), None);
        position(answer["data"]["cursor"]["oldest"].as_str().expect("a cursor"))
    };
    let newest = {
        let (_, answer) = server.request("GET", "/api/realtime/status", Some(&admin), None);
        position(answer["data"]["cursor"]["newest"].as_str().expect("a cursor"))
    };
    let mut n = 0;
    server.until("the log is trimmed past the client", || {
        n += 1;
        set_all(&server, &admin, json!({}), n);
        (oldest() > newest).then_some(())
    });
    let (code, reason) = client.closed();
    assert_eq!(code, 4410, "{reason}");
    assert!(reason.contains("cursor is older than the log keeps; oldest: "), "{reason}");
}

#[test]
fn the_line_is_bounded() {
    let mut clients: Vec<_> = (0..3).map(|_| Client::new("schema=note", "")).collect();
    let mut all: Vec<&mut Client> = clients.iter_mut().collect();
    let bounds = options().env("ROWCAST_REPLAYS", "1").env("ROWCAST_REPLAYS_WAITING", "1");
    let server = server(bounds, &mut all);
    for client in &mut clients[..2] {
        client.connect(&server);
    }
    wait_for(&server, 2);
    let third = &mut clients[2];
    let since = third.cursor.clone().expect("a cursor");
    let path = format!("/api/realtime/content?schema=note&since={since}");
    let bearer = format!("Bearer {}", third.token);
    let answer = server.ws(&path, &[("Authorization", &bearer)], None).err().expect("refused");
    assert_eq!(answer.status, 429, "{}", answer.text());
    let page = server.ws(
        &path,
        &[("Origin", "http://app.example")],
        Some(&format!("Authorization, {}", third.token)),
    );
    let (code, reason) = page.unwrap_or_else(|answer| panic!("{}", answer.text())).closed();
    assert_eq!(code, 4429, "{reason}");
    // What is live needs no place in it.
    let mut live = server.subscribe("schema=note&since=now", Some(&third.token));
    assert_eq!(live.next()["event"], "position");
    // Whoever has arrived makes room.
    clients[0].hear_until(|client| client.cursors.len() == 110);
    clients[0].hear(Duration::from_millis(1));
    wait_for(&server, 1);
    clients[2].connect(&server);
    wait_for(&server, 2);
}
