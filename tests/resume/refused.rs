//! Cursors that are not good, and those that stay so.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value as Json, json};

use crate::client::*;
use crate::common::Server;

fn begin(server: &Server, token: &str) -> Client {
    let mut client = Client::new("schema=note", token);
    client.connect(server);
    client.hear_until(|client| client.cursor.is_some());
    client.drop_connection();
    client
}

/// Refused with this reason and the oldest cursor, from which one may go on.
fn refused(server: &Server, client: &mut Client, reason: &str) {
    client.connect(server);
    let (code, told) = client.closed();
    assert_eq!(code, 4410, "{told}");
    let expected = format!("realtime.content: {reason}; oldest: ");
    let oldest = told.strip_prefix(&expected).unwrap_or_else(|| panic!("{told}"));
    let mut again = Client::new("schema=note", &client.token);
    again.cursor = Some(oldest.to_owned());
    again.connect(server);
    let mark = create(server, &client.token, json!({"text": "on it goes", "n": 5}));
    again.hear_until(|client| {
        client.applied.last().is_some_and(|message| message["data"]["id"] == mark)
    });
}

fn change(server: &Server, method: &str, path: &str, body: &Json) {
    let admin = server.admin_token();
    let (status, answer) = server.request(method, path, Some(&admin), Some(body));
    assert_eq!(status, 200, "{answer}");
}

/// The schema as it is, with one thing changed.
fn note(change: impl FnOnce(&mut Json)) -> Json {
    let mut schema = serde_json::from_str(NOTE).expect("JSON");
    change(&mut schema);
    schema
}

#[test]
fn trimmed() {
    let server = Server::start(options().env("ROWCAST_LOG_BYTES", "1MiB"));
    let (_, token) = server.user("ann", &[]);
    let mut client = begin(&server, &token);
    let text = "x".repeat(200_000);
    let began = std::time::Instant::now();
    loop {
        create(&server, &token, json!({"text": text}));
        let query = format!("schema=note&since={}", client.cursor.as_deref().expect("a cursor"));
        let mut ws = server.subscribe(&query, Some(&token));
        let deadline = std::time::Instant::now() + crate::common::PATIENCE;
        let first = ws.read_until(deadline).expect("a message").expect("in time");
        if first.is_close() {
            break;
        }
        assert!(began.elapsed() < crate::common::PATIENCE, "nothing was trimmed");
    }
    refused(&server, &mut client, "cursor is older than the log keeps");
}

#[test]
fn of_another_server_or_from_the_future() {
    let server = Server::start(options());
    let (_, token) = server.user("ann", &[]);
    let mut client = begin(&server, &token);
    let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(client.cursor.clone().expect("one")).unwrap();
    bytes[1] = 1;
    client.cursor = Some(BASE64_URL_SAFE_NO_PAD.encode(&bytes));
    let foreign = "cursor is of another history or from the future";
    refused(&server, &mut client, foreign);

    let other = Server::start(options());
    let (_, elsewhere) = other.user("ann", &[]);
    create(&other, &elsewhere, json!({"text": "x"}));
    client.cursor = begin(&other, &elsewhere).cursor;
    refused(&server, &mut client, foreign);

    client.cursor = Some("nonsense".into());
    client.connect(&server);
    assert_eq!(client.closed().0, 4400);
}

#[test]
fn when_access_has_changed() {
    let rules = json!({"user": {"create": true}, "editor": {"read": true},
                       "reader": {"read": {"filter": {"n": {"$gt": 3}}}}});
    let schema = note(|schema| schema["access"] = rules);
    let server = Server::start(crate::common::Options::default().schema("note", schema));
    let (id, token) = server.user("ann", &["editor", "reader"]);
    let mut client = begin(&server, &token);
    let reader = role(&server, "reader");
    // Fewer roles: another grant.
    change(&server, "PUT", &format!("/api/content/user/{id}"), &json!({"roles": [{"id": reader}]}));
    let changed = "access has changed since";
    refused(&server, &mut client, changed);
    // The same roles, another rule.
    let mut client = begin(&server, &token);
    let schema = note(|schema| {
        schema["access"] = json!({"user": {"create": true}, "editor": {"read": true},
                                  "reader": {"read": {"filter": {"n": {"$gt": 4}}}}});
    });
    change(&server, "PUT", "/api/schema/note", &json!({"schema": schema}));
    refused(&server, &mut client, changed);
    // Nothing that concerns it: a rule for somebody else.
    let mut client = begin(&server, &token);
    let schema = note(|schema| {
        schema["access"] = json!({"user": {"create": true}, "editor": {"read": false},
                                  "reader": {"read": {"filter": {"n": {"$gt": 4}}}}});
    });
    change(&server, "PUT", "/api/schema/note", &json!({"schema": schema}));
    create(&server, &token, json!({"text": "after", "n": 9}));
    client.connect(&server);
    client.hear_until(|client| client.applied.len() == 1);
    // None at all.
    client.drop_connection();
    change(&server, "PUT", &format!("/api/content/user/{id}"), &json!({"roles": []}));
    let path = format!("/api/realtime/content?schema=note&since={}", client.cursor.unwrap());
    let bearer = format!("Bearer {token}");
    let answer = server.ws(&path, &[("Authorization", &bearer)], None);
    assert_eq!(answer.err().map(|answer| answer.status), Some(403));
}

fn role(server: &Server, name: &str) -> Json {
    let admin = server.admin_token();
    let filter = crate::common::encode(&json!({"name": name}).to_string());
    let path = format!("/api/content/role?filter={filter}");
    let (_, found) = server.request("GET", &path, Some(&admin), None);
    found["data"]["items"][0]["id"].clone()
}

#[test]
fn when_the_schema_was_migrated_by_more_than_additions_and_names() {
    let server = Server::start(options());
    let (_, token) = server.user("ann", &[]);
    let mut client = begin(&server, &token);
    create(&server, &token, json!({"text": "one", "n": 1}));

    // A column more: old entries have it empty.
    let more = note(|schema| {
        let field = json!({"name": "stars", "label": "S", "type": "int", "optional": true});
        schema["fields"].as_array_mut().unwrap().push(field);
    });
    change(&server, "PUT", "/api/schema/note", &json!({"schema": more}));
    client.connect(&server);
    client.hear_until(|client| client.applied.len() == 1);
    assert_eq!(client.applied[0]["data"].get("stars"), Some(&Json::Null));
    client.drop_connection();

    // Another name: old entries are read under it.
    create(&server, &token, json!({"text": "two", "n": 2}));
    let mut renamed = more.clone();
    renamed["fields"][1]["name"] = "count".into();
    let body = json!({"schema": renamed, "rename_fields": [{"from": "n", "to": "count"}]});
    change(&server, "PUT", "/api/schema/note", &body);
    client.connect(&server);
    client.hear_until(|client| client.applied.len() == 2);
    let data = &client.applied[1]["data"];
    assert_eq!((&data["count"], data.get("n")), (&json!(2), None));
    // A plan that speaks of the old name does not compile under the new ones.
    let mut old = Client::new("schema=note&select=n", &token);
    old.cursor = client.cursor.clone();
    old.connect(&server);
    assert_eq!(old.closed().0, 4400);
    client.drop_connection();

    // A column less.
    let mut less = renamed.clone();
    less["fields"].as_array_mut().unwrap().remove(2);
    less["accept_data_loss"] = json!(["stars"]);
    change(&server, "PUT", "/api/schema/note", &json!({"schema": less}));
    client.connect(&server);
    let (code, told) = client.closed();
    assert_eq!(code, 4410, "{told}");
    assert!(
        told.starts_with("realtime.content: schema note was migrated since; oldest: "),
        "{told}"
    );
    // From the migration on everything is good.
    let mut again = Client::new("schema=note", &token);
    again.cursor = Some(told[told.len() - 34..].to_owned());
    again.connect(&server);
    create(&server, &token, json!({"text": "three"}));
    again.hear_until(|client| client.applied.len() == 1);
}

#[test]
fn a_changed_rule_ends_what_is_live() {
    let server = Server::start(options());
    let (_, token) = server.user("ann", &[]);
    let mut client = begin(&server, &token);
    client.connect(&server);
    client.hear(crate::common::PATIENCE);
    let schema = note(|schema| {
        let wide = json!({"read": {"filter": {"n": {"$gt": 0}}}, "create": true});
        schema["access"]["user"] = wide;
    });
    change(&server, "PUT", "/api/schema/note", &json!({"schema": schema}));
    let (code, told) = client.closed();
    assert_eq!(code, 4410, "{told}");
    assert!(told.contains("access has changed"), "{told}");
}
