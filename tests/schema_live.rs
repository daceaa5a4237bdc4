//! The schemas folder of a running server, seen from outside.

mod common;

use std::time::{Duration, Instant};

use common::{Options, Server};
use serde_json::{Value as Json, json};

/// A second is promised and a quarter of it taken; a machine that runs other tests may need longer.
const SOON: Duration = Duration::from_secs(4);

fn note() -> Json {
    json!({
        "name": "note", "namespace": "notes", "label_field": "text",
        "fields": [
            {"name": "text", "type": "string"},
            {"name": "state", "type": "enum", "default": "new", "enums": [{"value": "new"}]}
        ],
        "access": {"user": {"read": true, "create": true}}
    })
}

fn task() -> Json {
    json!({"name": "task", "namespace": "tasks", "label_field": "id", "fields": []})
}

fn with(mut schema: Json, field: Json) -> Json {
    schema["fields"].as_array_mut().unwrap().push(field);
    schema
}

/// As an editor does: a temporary file and a rename.
fn save(server: &Server, name: &str, text: &str) {
    let temporary = server.schemas().join(format!(".{name}.json.tmp"));
    std::fs::write(&temporary, text).unwrap();
    std::fs::rename(temporary, server.schemas().join(format!("{name}.json"))).unwrap();
}

fn soon(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < SOON, "{what}: not within {SOON:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn create(server: &Server, token: &str, schema: &str, body: Json) -> Json {
    let path = format!("/api/content/{schema}");
    let (status, answer) = server.request("POST", &path, Some(token), Some(&body));
    assert_eq!(status, 200, "{answer}");
    answer["data"].clone()
}

#[test]
fn files_come_and_change_under_open_sockets() {
    let server = Server::start(Options::default().schema("note", note()));
    let admin = server.admin_token();
    let mut notes = server.subscribe("schema=note", Some(&admin));

    // A new file is a table and live endpoints, and nobody else notices.
    save(&server, "task", &task().to_string());
    soon("a new file", || server.request("GET", "/api/content/task", Some(&admin), None).0 == 200);
    let mut tasks = server.subscribe("schema=task", Some(&admin));
    create(&server, &admin, "task", json!({}));
    assert_eq!(tasks.next()["event"], "create");

    // A bad file changes nothing, says so in the log, and the last good version is served.
    let mut bad = note();
    bad["fields"][0]["type"] = "strin".into();
    save(&server, "note", &serde_json::to_string_pretty(&bad).unwrap());
    server.until("the log tells of the bad file", || {
        let log = server.log();
        (log.contains("note.json:8: fields[0].type: unknown type 'strin'; use string")
            && log.contains("note.json is NOT applied"))
        .then_some(())
    });
    create(&server, &admin, "note", json!({"text": "one"}));
    assert_eq!(notes.next()["data"]["text"], "one");

    // Additions leave the socket open; what is new is in the records at once.
    let mut wider = with(note(), json!({"name": "stars", "type": "int8", "optional": true}));
    wider["fields"][1]["enums"].as_array_mut().unwrap().push(json!({"value": "done"}));
    save(&server, "note", &wider.to_string());
    let body = json!({"text": "two", "stars": 5, "state": "done"});
    soon("a new column", || {
        server.request("POST", "/api/content/note", Some(&admin), Some(&body)).0 == 200
    });
    let told = notes.next();
    assert_eq!((&told["data"]["stars"], &told["data"]["state"]), (&json!(5), &json!("done")));

    // A change of the access block is none of the schema: the socket stays, the rule holds.
    wider["access"]["guest"] = json!({"read": true});
    save(&server, "note", &wider.to_string());
    soon("a rule for guests", || server.request("GET", "/api/content/note", None, None).0 == 200);
    create(&server, &admin, "note", json!({"text": "three"}));
    assert_eq!(notes.next()["data"]["text"], "three");

    // Dropping a column is refused, and done on purpose; only then the subscription ends.
    save(&server, "note", &note().to_string());
    server.until("the refusal", || server.log().contains("migrate.data_loss").then_some(()));
    let (_, list) = server.request("GET", "/api/content/note?limit=1", Some(&admin), None);
    assert!(list["data"]["items"][0].get("stars").is_some(), "{list}");
    let mut less = note();
    less["accept_data_loss"] = json!(["stars"]);
    less["fields"][1]["enums"].as_array_mut().unwrap().push(json!({"value": "done"}));
    save(&server, "note", &less.to_string());
    assert_eq!(notes.closed().0, 4410);

    // Removed, it is gone for clients; brought back, everything is there.
    let mut notes = server.subscribe("schema=note", Some(&admin));
    std::fs::remove_file(server.schemas().join("note.json")).unwrap();
    assert_eq!(notes.closed().0, 4404);
    let (status, _) = server.request("GET", "/api/content/note", Some(&admin), None);
    assert_eq!(status, 400);
    save(&server, "note", &less.to_string());
    soon("the file is back", || {
        let (status, list) = server.request("GET", "/api/content/note", Some(&admin), None);
        status == 200 && list["data"]["total"] == 3
    });

    // Through all this, the other subscription never noticed anything.
    create(&server, &admin, "task", json!({}));
    assert_eq!(tasks.next()["event"], "create");
}

#[test]
fn a_bad_file_at_start_serves_the_last_good_version() {
    let mut server =
        Server::start(Options::default().schema("note", note()).schema("task", task()));
    let admin = server.admin_token();
    create(&server, &admin, "note", json!({"text": "one"}));
    server.terminate();
    save(&server, "note", "{");
    server.restart();
    let admin = server.admin_token();
    let (status, list) = server.request("GET", "/api/content/note", Some(&admin), None);
    assert_eq!((status, &list["data"]["total"]), (200, &json!(1)), "{list}");
    assert!(server.log().contains("note.json is NOT applied"), "{}", server.log());
    let (status, _) = server.request("GET", "/api/content/task", Some(&admin), None);
    assert_eq!(status, 200);
}

#[test]
fn the_api_answers_as_documented() {
    let server = Server::start(Options::default().schema("note", note()));
    let admin = server.admin_token();
    let mut bad = task();
    bad["fields"] = json!([{"name": "a", "type": "strin"}, {"name": "b", "type": "enum"}]);
    let (status, answer) = server.request("POST", "/api/schema", Some(&admin), Some(&bad));
    assert_eq!(status, 422, "{answer}");
    let errors = answer["data"]["field_errors"].as_array().unwrap();
    let codes: Vec<_> = errors.iter().map(|e| (&e["code"], &e["field"])).collect();
    assert_eq!(
        codes,
        [(&json!("field.type.invalid"), &json!("a")), (&json!("field.enum.required"), &json!("b"))]
    );
    let (status, answer) = server.request("POST", "/api/schema", Some(&admin), Some(&task()));
    assert_eq!(status, 200, "{answer}");
    assert!(server.schemas().join("task.json").exists());
    create(&server, &admin, "task", json!({}));
    let renamed = json!({"schema": {"name": "job", "namespace": "jobs", "label_field": "id",
                                    "fields": []},
                         "rename_tables": [{"from": "tasks", "to": "jobs"}]});
    let (status, answer) = server.request("PUT", "/api/schema/task", Some(&admin), Some(&renamed));
    assert_eq!(status, 200, "{answer}");
    let (_, list) = server.request("GET", "/api/content/job", Some(&admin), None);
    assert_eq!(list["data"]["total"], 1, "{list}");
    let (status, answer) = server.request("DELETE", "/api/schema/job", Some(&admin), None);
    assert_eq!(status, 200, "{answer}");
    assert!(!server.schemas().join("job.json").exists());

    let (_, user) = server.user("ann", &[]);
    for (token, status) in [(None, 401), (Some(user.as_str()), 403)] {
        let (found, answer) = server.request("POST", "/api/schema", token, Some(&task()));
        assert_eq!(found, status, "{answer}");
    }
    assert_eq!(server.request("GET", "/api/schema", None, None).0, 401);
    let (status, list) = server.request("GET", "/api/schema", Some(&user), None);
    let names: Vec<_> = list["data"].as_array().unwrap().iter().map(|s| &s["name"]).collect();
    assert_eq!((status, names), (200, vec![&json!("note"), &json!("role"), &json!("user")]));
    assert!(list["data"][0].get("access").is_none(), "{list}");
}

#[test]
fn kill_9_between_a_change_and_its_file() {
    let mut server = Server::start(Options::default().schema("note", note()));
    let admin = server.admin_token();
    for text in ["one", "two", "three"] {
        create(&server, &admin, "note", json!({"text": text}));
    }
    let names = |schema: &Json| -> Vec<String> {
        let fields = schema["fields"].as_array().unwrap().iter();
        fields
            .filter(|field| field.get("is_system_field").is_none())
            .map(|field| field["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut text = "text".to_owned();
    for round in 0..6u64 {
        let address = server.address;
        let (token, first) = (server.admin_token(), text.clone());
        // Renames one field over and over, until the server is gone.
        let writer = std::thread::spawn(move || {
            let mut from = first;
            for count in 0.. {
                let to = format!("text_{round}_{count}");
                let mut schema = note();
                schema["label_field"] = to.as_str().into();
                schema["fields"][0]["name"] = to.as_str().into();
                let body = json!({"schema": schema, "rename_fields": [{"from": from, "to": to}]})
                    .to_string();
                let head = format!(
                    "PUT /api/schema/note HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                     Authorization: Bearer {token}\r\nContent-Type: application/json\r\n\
                     Content-Length: {}\r\n\r\n",
                    body.len()
                );
                let Ok(mut stream) = std::net::TcpStream::connect(address) else { return };
                use std::io::{Read as _, Write as _};
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
                let mut answer = String::new();
                let _ = stream.read_to_string(&mut answer);
                if !answer.starts_with("HTTP/1.1 200") {
                    assert!(answer.is_empty(), "{answer}");
                    return;
                }
                from = to;
            }
        });
        std::thread::sleep(Duration::from_millis(150 + 37 * round));
        server.kill();
        writer.join().unwrap();
        server.restart();
        let admin = server.admin_token();
        let (_, shown) = server.request("GET", "/api/schema/note", Some(&admin), None);
        let file = std::fs::read_to_string(server.schemas().join("note.json")).unwrap();
        let file: Json = serde_json::from_str(&file).unwrap();
        assert_eq!(names(&shown["data"]), names(&file), "the folder and the catalog agree");
        assert!(!server.log().contains("NOT applied"), "{}", server.log());
        text = names(&file)[0].clone();
        let (_, list) = server.request("GET", "/api/content/note?sort=id", Some(&admin), None);
        let texts: Vec<&Json> =
            list["data"]["items"].as_array().unwrap().iter().map(|note| &note[&text]).collect();
        assert_eq!(texts, [&json!("one"), &json!("two"), &json!("three")], "{list}");
    }
    assert_ne!(text, "text", "something was renamed");
}
