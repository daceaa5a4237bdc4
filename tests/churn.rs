//! Coming and going leaves nothing behind: no handle, no subscription, no plan, no place in line.
//!
//! By counts alone: what the server holds after many rounds is what it held after the first.

mod common;

use std::io::Write;
use std::net::TcpStream;

use common::tungstenite::protocol::Message;
use common::{Options, Server};
use serde_json::{Value as Json, json};

const NOTE: &str = r#"{
  "name": "note", "namespace": "notes", "label_field": "text",
  "fields": [
    { "name": "text", "label": "Text", "type": "text" },
    { "name": "n", "label": "N", "type": "int", "optional": true }
  ],
  "access": { "user": { "read": true, "create": true } }
}"#;

/// Rounds, and clients in each.
const ROUNDS: usize = 5;
const CLIENTS: usize = 60;

fn files(server: &Server) -> usize {
    let dir = format!("/proc/{}/fd", server.pid());
    std::fs::read_dir(dir).expect("the server's files").count()
}

fn status(server: &Server, admin: &str) -> Json {
    let (status, answer) = server.request("GET", "/api/realtime/status", Some(admin), None);
    assert_eq!(status, 200, "{answer}");
    answer["data"].clone()
}

/// Waits until nobody is subscribed and no more files are open than `most`; gives how many are.
fn settled(server: &Server, admin: &str, most: usize) -> usize {
    server.until("everybody's end", || {
        let told = status(server, admin);
        let nobody =
            told["subscriptions"] == 0 && told["plans"] == 0 && told["by_schema"] == json!({});
        let open = files(server);
        (nobody && open <= most).then_some(open)
    })
}

/// A handshake as bytes, and as many of them as wished.
fn handshake(server: &Server, query: &str, token: &str, upto: usize) -> TcpStream {
    let mut stream = server.connect();
    let head = format!(
        "GET /api/realtime/content?{query} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(&head.as_bytes()[..upto.min(head.len())]).expect("written");
    stream
}

/// One of the ways to come and go, by its number.
fn come_and_go(server: &Server, token: &str, n: usize) {
    // Half of them ask what nobody else asks.
    let query = match n % 2 {
        0 => "schema=note".to_owned(),
        _ => format!("schema=note&filter=%7B%22n%22%3A{n}%7D"),
    };
    match n % 7 {
        // Says goodbye.
        0 | 1 => {
            let mut socket = server.subscribe(&query, Some(token));
            socket.socket.close(None).expect("closing");
            socket.closed();
        }
        // Is gone after the 101, and before it.
        2 => drop(server.subscribe(&query, Some(token))),
        3 => drop(handshake(server, &query, token, usize::MAX)),
        // Leaves in the middle of its head, or of a message.
        4 => drop(handshake(server, &query, token, 40)),
        5 => {
            let mut socket = server.subscribe(&query, Some(token));
            socket.send(Message::Ping(b"still here".to_vec().into()));
            drop(socket);
        }
        // Is refused.
        _ => {
            let path = format!("/api/realtime/content?{query}");
            let Err(answer) = server.ws(&path, &[("Authorization", "Bearer no.such.token")], None)
            else {
                panic!("let in");
            };
            assert_eq!(answer.status, 401);
        }
    }
}

#[test]
fn nothing_is_left_of_those_who_left() {
    let server = Server::start(Options::default().schema("note", NOTE));
    let admin = server.admin_token();
    let (_, token) = server.user("ann", &[]);
    let mut first = None;
    for round in 0..ROUNDS {
        std::thread::scope(|scope| {
            for half in 0..2 {
                let (server, token) = (&server, &token);
                scope.spawn(move || {
                    for n in (half..CLIENTS).step_by(2) {
                        come_and_go(server, token, round * CLIENTS + n);
                    }
                });
            }
        });
        // The first round opens what is kept open: the readers' files.
        let open = settled(&server, &admin, first.unwrap_or(usize::MAX));
        first.get_or_insert(open);
    }
    // And whoever comes now is told as ever.
    let mut socket = server.subscribe("schema=note", Some(&token));
    let note = json!({"text": "after all"});
    let (status, answer) = server.request("POST", "/api/content/note", Some(&token), Some(&note));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(socket.next()["data"]["text"], "after all");
}

/// A token that was proven before is looked at anew each time.
#[test]
fn a_token_that_was_good_is_refused_at_once_when_it_ends() {
    let server = Server::start(Options::default().schema("note", NOTE));
    let (_, token) = server.user("ann", &[]);
    let path = "/api/realtime/content?schema=note";
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str())];
    for _ in 0..3 {
        drop(server.subscribe("schema=note", Some(&token)));
    }
    let mut open = server.subscribe("schema=note", Some(&token));
    let (status, _) = server.request("POST", "/api/auth/logout", Some(&token), None);
    assert_eq!(status, 200);
    let Err(answer) = server.ws(path, &headers, None) else { panic!("let in") };
    assert_eq!(answer.status, 401, "{}", answer.text());
    assert_eq!(open.closed().0, 4401);
}
