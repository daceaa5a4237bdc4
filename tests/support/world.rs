//! A store with schemas of one's own and the content commands on it, without a server: calls come
//! as requests, principals as they are.

#![allow(dead_code)] // Each suite uses what it needs.

use std::sync::{Arc, Mutex};
use std::thread::{ThreadId, current};
use std::time::Duration;

use rowcast::auth::principal::Principal;
use rowcast::content::{BulkAsk, Content, ListAsk};
use rowcast::dialects::fastschema::rest::{self, Call};
use rowcast::error::{Error, Result};
use rowcast::limits::Limits;
use rowcast::model::change::{Commit, Op};
use rowcast::model::schema::{Column, Schema};
use rowcast::model::value::Value;
use rowcast::model::{file, system};
use rowcast::store::migrate::{How, plan};
use rowcast::store::{CommitSink, Options, Rows, Store, Tx, here};
use serde_json::{Value as Json, json};

#[derive(Clone, Default)]
pub struct Told(pub Arc<Mutex<Vec<Arc<Commit>>>>, Arc<Mutex<Option<ThreadId>>>);

impl CommitSink for Told {
    fn committed(&mut self, commits: &[Arc<Commit>]) {
        self.0.lock().unwrap().extend_from_slice(commits);
        *self.1.lock().unwrap() = Some(current().id());
    }
}

pub struct World {
    pub store: Store,
    pub content: Content,
    pub told: Told,
    pub runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

impl World {
    /// `schemas` are schema files' contents.
    pub fn open(schemas: &[Json]) -> World {
        World::with(schemas, |_| {})
    }

    /// Where lone writes are never too slow for an event loop.
    pub fn patient(schemas: &[Json]) -> World {
        World::with(schemas, |options| options.quick = Duration::from_secs(60))
    }

    fn with(schemas: &[Json], change: impl FnOnce(&mut Options)) -> World {
        // As on a server's event loops.
        here::settle();
        let dir = tempfile::tempdir().unwrap();
        let told = Told::default();
        let mut options = Options::new(dir.path());
        change(&mut options);
        let store = Store::open(options, Box::new(told.clone())).unwrap();
        let mut defs = system::schemas();
        for schema in schemas {
            let parsed = file::parse(None, schema.to_string().as_bytes());
            defs.push(parsed.def.unwrap_or_else(|problems| panic!("{problems:?}")));
        }
        store
            .write_blocking(move |tx| {
                let stored = tx.stored()?;
                let migration = plan(&stored, &defs, &How::default())
                    .unwrap_or_else(|faults| panic!("{faults:?}"));
                tx.migrate(&migration)?;
                first_admin(tx)
            })
            .unwrap();
        let content = Content::new(store.clone(), Arc::new(Limits::default()));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        World { store, content, told, runtime, _dir: dir }
    }

    /// Sends a request; gives `data`.
    pub fn call(&self, who: &Principal, call: &str, body: Json) -> Result<Json> {
        let (method, target) = call.split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let body = body.to_string();
        let call = rest::parse(method, path, query, body.as_bytes(), &self.content.limits)?;
        let content = &self.content;
        let answer = self.runtime.block_on(async {
            match call {
                Call::List { ask, page, limit } => {
                    content.list(who, ListAsk { ask, page, limit }).await
                }
                Call::Read { schema, id, select } => {
                    content.read(who, &schema, &id, select.as_deref()).await
                }
                Call::Create { schema, body } => content.create(who, &schema, body, None).await,
                Call::Update { schema, id, body } => {
                    content.update(who, &schema, &id, body, None).await
                }
                Call::Delete { schema, id } => content.delete(who, &schema, &id, None).await,
                Call::BulkUpdate { schema, filter, body } => {
                    let ask = BulkAsk {
                        schema,
                        filter: filter.json,
                        untyped: filter.untyped,
                        address: None,
                    };
                    let count = content.update_all(who, ask, body).await?;
                    Ok(count.to_string().into_bytes())
                }
                Call::BulkDelete { schema, filter } => {
                    let ask = BulkAsk {
                        schema,
                        filter: filter.json,
                        untyped: filter.untyped,
                        address: None,
                    };
                    let count = content.delete_all(who, ask).await?;
                    Ok(count.to_string().into_bytes())
                }
                _ => Err(Error::not_found("no content call")),
            }
        })?;
        Ok(serde_json::from_slice(&answer).unwrap())
    }

    /// Sends a write that must succeed while nobody else writes, as far as one can know. Whether
    /// this thread did it.
    #[track_caller]
    pub fn writes_here(&self, who: &Principal, call: &str, body: Json) -> bool {
        self.runtime.block_on(self.store.barrier()).unwrap();
        // The writer's thread falls asleep.
        std::thread::sleep(Duration::from_millis(20));
        self.ok(who, call, body);
        *self.told.1.lock().unwrap() == Some(current().id())
    }

    /// A request that must succeed.
    #[track_caller]
    pub fn ok(&self, who: &Principal, call: &str, body: Json) -> Json {
        match self.call(who, call, body) {
            Ok(json) => json,
            Err(error) => panic!("{call}: {} {}", error.status(), error.message),
        }
    }

    /// A request that must be refused so.
    #[track_caller]
    pub fn refused(&self, who: &Principal, call: &str, body: Json, status: u16, text: &str) {
        match self.call(who, call, body) {
            Ok(json) => panic!("{call}: expected {status}, got {json}"),
            Err(error) => {
                let shown = format!("{call}: {} {}", error.status(), error.message);
                assert_eq!(error.status(), status, "{shown}");
                assert!(error.message.contains(text), "{shown}");
            }
        }
    }

    /// A user made in the store, and the principal it is.
    pub fn user(&self, name: &str, roles: &[&str]) -> Principal {
        let made =
            self.ok(&Principal::owner(), "POST /api/content/user", json!({"username": name}));
        let id = made["id"].as_str().unwrap().parse().unwrap();
        Principal { user: Some(id), username: Some(name.into()), ..role(roles) }
    }

    /// The newest entry's changes: schema, op, primary key as JSON.
    pub fn newest(&self) -> Vec<(String, Op, Json)> {
        let told = self.told.0.lock().unwrap();
        let catalog = self.store.catalog();
        let name = |change: &rowcast::model::change::Change| {
            let schema = catalog.get(change.schema).unwrap();
            (schema.name.to_string(), change.op, change.key.to_json())
        };
        told.last().unwrap().changes.iter().map(name).collect()
    }

    pub fn entries(&self) -> usize {
        self.told.0.lock().unwrap().len()
    }
}

/// What the server's first start makes: writes of users are refused where no admin is left.
fn first_admin(tx: &mut Tx<'_>) -> Result<()> {
    let (user, role) = ("user", "role");
    let [user, role] = [user, role].map(|name| tx.catalog().named(name).unwrap().clone());
    let now = Value::Time(tx.now());
    let filled = |schema: &Schema, name: &str| -> Vec<Value> {
        let value = |column: &Column| match &*column.name {
            "username" | "name" => Value::Text(name.into()),
            "active" => Value::Bool(true),
            "created_at" | "updated_at" => now.clone(),
            _ => Value::Null,
        };
        schema.columns.iter().map(value).collect()
    };
    let made = tx.insert(&user, filled(&user, "root"))?;
    let admin = tx.insert(&role, filled(&role, "admin"))?;
    let roles = &user.relations[user.relation("roles").unwrap()];
    tx.link(&user, roles, made.get(user.primary), admin.get(role.primary)).map(drop)
}

/// Somebody logged in with these roles, who is no record.
pub fn role(roles: &[&str]) -> Principal {
    let mut roles: Vec<Arc<str>> = roles.iter().map(|role| (*role).into()).collect();
    roles.sort();
    Principal { roles, logged_in: true, ..Principal::default() }
}
