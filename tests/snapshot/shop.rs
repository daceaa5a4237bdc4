//! Items on shelves, and who changes them.

use std::sync::Mutex;

use serde_json::{Value as Json, json};

use crate::common::{Options, Server, encode};

const SHELF: &str = r#"{
  "name": "shelf", "namespace": "shelves", "label_field": "name", "disable_timestamp": true,
  "fields": [
    { "name": "name", "type": "string" },
    { "name": "open", "type": "bool" },
    { "name": "items", "type": "relation", "optional": true,
      "relation": { "schema": "item", "field": "shelf", "type": "o2m", "owner": true } }
  ],
  "access": { "user": { "read": true } }
}"#;

const ITEM: &str = r#"{
  "name": "item", "namespace": "items", "label_field": "text",
  "fields": [
    { "name": "text", "type": "text" },
    { "name": "n", "type": "int" }EXTRA,
    { "name": "owner", "type": "string", "optional": true },
    { "name": "shelf", "type": "relation", "optional": true,
      "relation": { "schema": "shelf", "field": "items", "type": "o2m" } }
  ],
  "access": { "user": { "read": { "filter": { "owner": "$user.username" },
                                  "fields": ["text", "n"] } },
              "auditor": { "read": { "filter": { "n": { "$gte": 5 } } } } }
}"#;

/// The schema of items, with further fields (`, {…}`).
pub fn item(extra: &str) -> String {
    ITEM.replace("EXTRA", extra)
}

/// A server of items and shelves whose pages are of that many records.
pub fn options(page: usize) -> Options {
    Options::default()
        .schema("shelf", SHELF)
        .schema("item", item(""))
        .env("ROWCAST_MESSAGE_RECORDS", page)
}

/// A small generator of numbers (xorshift): the same seed, the same workload.
pub struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// Someone who changes everything.
pub struct Shop<'a> {
    pub server: &'a Server,
    pub token: String,
    /// Of items, those deleted meanwhile included.
    ids: Mutex<Vec<i64>>,
    shelves: usize,
    /// Length of each item's text.
    text: usize,
}

impl<'a> Shop<'a> {
    /// Puts so many items on so many shelves.
    pub fn open(server: &'a Server, items: usize, shelves: usize, text: usize) -> Shop<'a> {
        let token = server.admin_token();
        let shop = Shop { server, token, ids: Mutex::default(), shelves, text };
        for n in 0..shelves {
            let body = json!({"name": format!("shelf {n}"), "open": n % 2 == 0});
            shop.done("POST", "/api/content/shelf", &body);
        }
        let mut rng = Rng(items as u64 + 1);
        for _ in 0..items {
            shop.create(&mut rng);
        }
        shop
    }

    /// A request that succeeds, or finds nothing to work on; gives `data`.
    pub fn done(&self, method: &str, path: &str, body: &Json) -> Json {
        let (status, answer) = self.server.request(method, path, Some(&self.token), Some(body));
        assert!(matches!(status, 200 | 404), "{method} {path} {body}: {status} {answer}");
        answer["data"].clone()
    }

    pub fn create(&self, rng: &mut Rng) -> i64 {
        let made = self.done("POST", "/api/content/item", &self.item(rng));
        let id = made["id"].as_i64().expect("an id");
        self.ids.lock().expect("ids").push(id);
        id
    }

    fn item(&self, rng: &mut Rng) -> Json {
        let text = "x".repeat(self.text);
        let owner = ["ann", "bob"][rng.below(2)];
        let mut item = json!({"text": text, "n": rng.below(10), "owner": owner});
        if self.shelves > 0 && rng.below(4) > 0 {
            item["shelf"] = json!({"id": rng.below(self.shelves) + 1});
        }
        item
    }

    /// One change: of an item, of a shelf, or of many at once.
    pub fn change(&self, rng: &mut Rng) {
        let ids = self.ids.lock().expect("ids").clone();
        let id = ids[rng.below(ids.len())];
        let one = format!("/api/content/item/{id}");
        match rng.below(20) {
            0..=3 => drop(self.create(rng)),
            4..=8 => drop(self.done("PUT", &one, &json!({"n": rng.below(10)}))),
            9..=10 => drop(self.done("PUT", &one, &self.item(rng))),
            11..=14 => drop(self.done("DELETE", &one, &Json::Null)),
            15..=17 if self.shelves > 0 => {
                let path = format!("/api/content/shelf/{}", rng.below(self.shelves) + 1);
                let name = format!("name {}", rng.below(1_000));
                let body = match rng.below(2) {
                    0 => json!({"name": name}),
                    _ => json!({"open": rng.below(2) == 0}),
                };
                self.done("PUT", &path, &body);
            }
            18 => {
                let some = encode(&json!({"n": rng.below(10)}).to_string());
                let path = format!("/api/content/item/update?filter={some}");
                self.done("PUT", &path, &json!({"n": rng.below(10)}));
            }
            _ => {
                let owner = ["ann", "bob"][rng.below(2)];
                self.done("PUT", &one, &json!({"owner": owner}));
            }
        }
    }

    /// An item that every test's filter matches and nobody changes: all before it has been told
    /// where it comes.
    pub fn last(&self) {
        let body = json!({"text": "last", "n": 7, "owner": "ann", "shelf": {"id": self.mark()}});
        self.done("POST", "/api/content/item", &body);
    }

    /// An open shelf, after all others.
    fn mark(&self) -> Json {
        let body = json!({"name": "last", "open": true});
        self.done("POST", "/api/content/shelf", &body)["id"].clone()
    }
}
