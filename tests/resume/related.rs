//! Plans that read through relations: a replay has the values of then.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use crate::client::Client;
use crate::common::{Options, Server, encode};

fn options() -> Options {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/realtime/schemas");
    Options::default().schemas_from(folder)
}

struct Desk<'a> {
    server: &'a Server,
    admin: String,
}

impl Desk<'_> {
    fn write(&self, method: &str, path: &str, body: Json) -> Json {
        let path = format!("/api/content/{path}");
        let (status, answer) = self.server.request(method, &path, Some(&self.admin), Some(&body));
        assert_eq!(status, 200, "{method} {path} {body}: {answer}");
        answer["data"].clone()
    }

    fn id(&self, schema: &str, body: Json) -> i64 {
        self.write("POST", schema, body)["id"].as_i64().expect("an id")
    }
}

/// What happens while one stays and one is away.
fn happen(desk: &Desk) {
    let news = desk.id("category", json!({"name": "news"}));
    let sport = desk.id("category", json!({"name": "sport"}));
    let tags: Vec<_> = ["a", "b"].map(|name| desk.id("tag", json!({"name": name}))).into();
    let mut blogs = Vec::new();
    for n in 0..4 {
        let category = if n % 2 == 0 { news } else { sport };
        let body = json!({"title": format!("t{n}"), "category": {"id": category},
                          "tags": [{"id": tags[n % 2]}]});
        blogs.push(desk.id("blog", body));
    }
    for round in 0..3 {
        desk.write("PUT", &format!("category/{news}"), json!({"name": format!("news{round}")}));
        desk.write("PUT", &format!("blog/{}", blogs[0]), json!({"title": format!("r{round}")}));
        let to = if round % 2 == 0 { sport } else { news };
        desk.write("PUT", &format!("blog/{}", blogs[1]), json!({"category": {"id": to}}));
        desk.write("PUT", &format!("tag/{}", tags[0]), json!({"name": format!("a{round}")}));
        desk.write(
            "PUT",
            &format!("blog/{}", blogs[2]),
            json!({"tags": {"$set": [{"id": tags[1]}]}}),
        );
        desk.write(
            "PUT",
            &format!("blog/{}", blogs[2]),
            json!({"tags": {"$set": [{"id": tags[0]}]}}),
        );
    }
    desk.write("DELETE", &format!("blog/{}", blogs[3]), Json::Null);
    desk.write("DELETE", &format!("tag/{}", tags[0]), Json::Null);
    desk.write("DELETE", &format!("category/{news}"), Json::Null);
}

#[test]
fn a_replay_has_the_values_of_then() {
    let server = Server::start(options());
    let desk = Desk { server: &server, admin: server.admin_token() };
    let by_name = encode(r#"{"category.name":{"$like":"news%"}}"#);
    let by_tag = encode(r#"{"tags.name":"b"}"#);
    let queries = BTreeMap::from([
        ("shown", "schema=blog&select=title,category.name,tags.name".to_owned()),
        ("filtered", format!("schema=blog&filter={by_name}&select=title")),
        ("to-many", format!("schema=blog&filter={by_tag}&select=title,tags")),
        ("transitions", format!("schema=blog&filter={by_name}&transitions=true&changes=true")),
        ("links", "schema=blog&select=title,tags.name&transitions=true".to_owned()),
    ]);
    let connect = |query: &String| {
        let mut client = Client::new(query, &desk.admin);
        client.connect(&server);
        client.hear_until(|client| client.cursor.is_some());
        client
    };
    let mut stay: Vec<_> = queries.values().map(connect).collect();
    let away: Vec<_> = stay.iter().map(|client| client.cursor.clone()).collect();
    happen(&desk);
    let last = desk.id("category", json!({"name": "news at last"}));
    let body = json!({"title": "last", "category": {"id": last}, "tags": [{"id": desk.id("tag", json!({"name": "b"}))}]});
    let last = desk.id("blog", body);
    let ended = |client: &Client| {
        client.applied.last().is_some_and(|message| message["data"]["id"] == last)
    };
    for ((name, query), (stays, since)) in queries.iter().zip(stay.iter_mut().zip(away)) {
        stays.hear_until(ended);
        let mut comes = Client::new(query, &desk.admin);
        comes.cursor = since;
        comes.connect(&server);
        comes.hear_until(ended);
        assert_eq!(comes.applied, stays.applied, "{name}");
        assert_eq!(comes.cursors, stays.cursors, "{name}");
        assert!(comes.applied.len() > 3, "{name}: {:?}", comes.applied);
    }
}

#[test]
fn over_a_restart_too() {
    let mut server = Server::start(options());
    let admin = server.admin_token();
    let query = "schema=blog&select=title,category.name,tags.name&transitions=true";
    let mut stays = Client::new(query, &admin);
    stays.connect(&server);
    stays.hear_until(|client| client.cursor.is_some());
    let mut comes = Client::new(query, &admin);
    comes.cursor = stays.cursor.clone();
    let desk = Desk { server: &server, admin: admin.clone() };
    happen(&desk);
    let last = desk.id("blog", json!({"title": "last"}));
    let ended = |client: &Client| {
        client.applied.last().is_some_and(|message| message["data"]["id"] == last)
    };
    stays.hear_until(ended);
    server.restart();
    comes.connect(&server);
    comes.hear_until(ended);
    assert_eq!(comes.applied, stays.applied);
}
