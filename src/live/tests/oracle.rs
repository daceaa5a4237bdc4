//! A client that applies transitions to what it has must hold what a query finds, commit by
//! commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::desk::*;
use super::world::user;
use crate::auth::principal::Principal;
use crate::limits::Limits;
use crate::live::*;
use crate::query::Plan;

/// A small generator of numbers; equal seeds give equal runs.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

struct Client {
    name: String,
    plan: Arc<Plan>,
    outbox: Arc<Outbox>,
    holds: BTreeMap<i64, Json>,
    cursors: bool,
}

impl Client {
    fn new(desk: &mut Desk, name: &str, change: impl FnOnce(&mut Request)) -> Client {
        let request = desk.request(|r| {
            change(r);
            r.told.transitions = true;
        });
        let (plan, cursors) = (desk.plan(&request), request.start != Start::Live);
        let (outbox, joined) = desk.join(request, None);
        joined.expect("active");
        heard(&outbox);
        let mut client =
            Client { name: name.to_owned(), plan, outbox, holds: BTreeMap::new(), cursors };
        client.holds = client.finds(desk);
        client
    }

    /// What a query with the client's plan would give.
    fn finds(&self, desk: &Desk) -> BTreeMap<i64, Json> {
        let related = desk.related();
        let rows = desk.blogs.iter().filter(|(_, row)| self.plan.matches(row, &related));
        let show = |(id, row): (&i64, &Arc<crate::model::change::Row>)| {
            let mut bytes = Vec::new();
            self.plan.body.encode(row, &related, &mut bytes);
            (*id, serde_json::from_slice(&bytes).expect("JSON"))
        };
        rows.map(show).collect()
    }

    /// Applies what it was told of one commit.
    fn apply(&mut self, position: u64) {
        let messages = heard(&self.outbox);
        for (at, message) in messages.iter().enumerate() {
            let last = at + 1 == messages.len();
            let cursor = (self.cursors && last).then_some(position);
            assert_eq!(message.get("cursor").and_then(Json::as_u64), cursor, "{}", self.name);
            let records = match &message["data"] {
                Json::Array(records) => records.clone(),
                one => vec![one.clone()],
            };
            for record in records {
                let id = record["id"].as_i64().expect("an id");
                let (had, now) = match message["event"].as_str().expect("an event") {
                    "create" | "enter" => (false, true),
                    "update" => (true, true),
                    "leave" | "delete" => (true, false),
                    other => panic!("what is {other}"),
                };
                let held = self.holds.contains_key(&id);
                assert_eq!(held, had, "{} at {position}: {message}", self.name);
                match now {
                    true => self.holds.insert(id, record),
                    false => self.holds.remove(&id),
                };
            }
        }
    }
}

fn clients(desk: &mut Desk) -> Vec<Client> {
    let guest = Arc::new(Principal::guest());
    let editor = Arc::new(user(Uuid::from_u128(5), &["editor"]));
    let mut clients = vec![
        Client::new(desk, "all", |_| {}),
        Client::new(desk, "popular", |r| {
            r.ask.filter = Some(json!({"views": {"$gte": 5}}));
            r.start = Start::Now;
        }),
        Client::new(desk, "news", |r| r.ask.filter = Some(json!({"category.name": "n0"}))),
        Client::new(desk, "no news", |r| {
            r.ask.filter = Some(json!({"$not": {"category.name": {"$in": ["n0", "n1"]}}}));
            r.ask.select = Some("title,category.name".into());
            r.start = Start::Now;
            r.told.changes = true;
        }),
        Client::new(desk, "a guest", |r| {
            r.principal = guest.clone();
            r.ask.select = Some("title,category".into());
        }),
        Client::new(desk, "a guest's crowd", |r| {
            r.principal = guest;
            r.ask.filter = Some(json!({"category.blogs.views": {"$gte": 8}}));
            r.start = Start::Now;
        }),
        Client::new(desk, "siblings", |r| {
            r.principal = editor;
            r.ask.select = Some("title,category.blogs.title".into());
        }),
    ];
    // Half of them share plans with somebody who is told otherwise.
    clients.push(Client::new(desk, "popular again", |r| {
        r.ask.filter = Some(json!({"views": {"$gte": 5}}));
        r.told.changes = true;
    }));
    clients
}

#[test]
fn a_view_kept_by_transitions_is_what_a_query_finds() {
    for seed in 0..6 {
        let mut dice = Dice(seed);
        let mut desk = Desk::new(Limits { message_records: 3, ..Limits::default() });
        let mut clients = clients(&mut desk);
        // Somebody without transitions beside them.
        let plain = desk.listen(|r| r.ask.filter = Some(json!({"views": {"$gte": 5}})));
        for _ in 0..120 {
            let mut puts: BTreeMap<(bool, i64), Option<Json>> = BTreeMap::new();
            for _ in 0..=dice.roll(4) {
                let (is_blog, id) = (dice.roll(3) > 0, 1 + dice.roll(6) as i64);
                let category = match dice.roll(5) {
                    0 => Json::Null,
                    id => json!(id),
                };
                let record = match (dice.roll(6), is_blog) {
                    (0, _) => None,
                    (1, true) => Some(json!({"category_id": category})),
                    (2, true) => Some(json!({})),
                    (_, true) => Some(json!({
                        "title": (["a", "b", "secret"][dice.roll(3) as usize]),
                        "views": dice.roll(10),
                        "category_id": category,
                    })),
                    (_, false) => Some(json!({"name": format!("n{}", dice.roll(3))})),
                };
                puts.insert((is_blog, id), record);
            }
            // A deletion of what is not there is none.
            puts.retain(|(is_blog, id), record| record.is_some() || desk.has(*is_blog, *id));
            let puts: Vec<Put> = puts
                .into_iter()
                .map(|((is_blog, id), put)| (if is_blog { "blog" } else { "category" }, id, put))
                .collect();
            let commit = desk.put(&puts);
            for client in &mut clients {
                client.apply(commit.position);
                let name = &client.name;
                assert_eq!(client.holds, client.finds(&desk), "{name}, seed {seed}, {puts:?}");
            }
            assert_eq!(end(&plain), None);
        }
    }
}
