//! A small world to try the store on: `tag`s, `category`s (a tree by `parent`) and `blog`s with an
//! optional category, a required author (a `user`), tags, and see-also links that go both ways.
#![allow(dead_code)]

use std::sync::{Arc, Mutex};

use rowcast::error::Result;
use rowcast::model::change::{Commit, Op, Row};
use rowcast::model::file::{SchemaDef, parse};
use rowcast::model::schema::Schema;
use rowcast::model::system;
use rowcast::model::value::Value;
use rowcast::store::migrate::{How, plan};
use rowcast::store::{CommitSink, Options, Reader, Rows, Store, Tx};
use uuid::Uuid;

pub const TAG: &str = r#"{"name":"tag","namespace":"tags","label_field":"name","disable_timestamp":true,
    "fields":[
        {"name":"name","type":"string","unique":true},
        {"name":"blogs","type":"relation","relation":{"schema":"blog","field":"tags","type":"m2m"}}]}"#;

pub const CATEGORY: &str = r#"{"name":"category","namespace":"categories","label_field":"name",
    "fields":[
        {"name":"name","type":"string"},
        {"name":"parent","type":"relation","optional":true,
         "relation":{"schema":"category","field":"children","type":"o2m"}},
        {"name":"children","type":"relation",
         "relation":{"schema":"category","field":"parent","type":"o2m","owner":true}},
        {"name":"blogs","type":"relation",
         "relation":{"schema":"blog","field":"category","type":"o2m","owner":true}}]}"#;

pub const BLOG: &str = r#"{"name":"blog","namespace":"blogs","label_field":"title",
    "fields":[
        {"name":"title","type":"string"},
        {"name":"slug","type":"string","unique":true,"optional":true},
        {"name":"category","type":"relation","optional":true,
         "relation":{"schema":"category","field":"blogs","type":"o2m"}},
        {"name":"author","type":"relation",
         "relation":{"schema":"user","field":"blogs","type":"o2m"}},
        {"name":"tags","type":"relation","optional":true,
         "relation":{"schema":"tag","field":"blogs","type":"m2m","owner":true}},
        {"name":"see_also","type":"relation","optional":true,
         "relation":{"schema":"blog","field":"see_also","type":"m2m"}}]}"#;

pub fn defs(texts: &[&str]) -> Vec<SchemaDef> {
    let mut defs = system::schemas();
    for text in texts {
        let name: serde_json::Value = serde_json::from_str(text).unwrap();
        let file = format!("{}.json", name["name"].as_str().unwrap());
        let parsed = parse(Some(&file), text.as_bytes());
        defs.push(parsed.def.unwrap_or_else(|problems| panic!("{problems:?}")));
    }
    defs
}

/// Makes the tables those of `texts` and of the system's schemas.
pub fn migrate(tx: &mut Tx<'_>, texts: &[&str]) -> Result<()> {
    let stored = tx.stored()?;
    let migration = plan(&stored, &defs(texts), &How::default()).unwrap_or_else(|faults| {
        panic!("{:?}", faults.iter().map(|fault| &fault.problem.message).collect::<Vec<_>>())
    });
    tx.migrate(&migration)
}

/// Keeps every commit it is told.
#[derive(Clone, Default)]
pub struct Told(pub Arc<Mutex<Vec<Arc<Commit>>>>);

impl Told {
    pub fn all(&self) -> Vec<Arc<Commit>> {
        self.0.lock().unwrap().clone()
    }
}

impl CommitSink for Told {
    fn committed(&mut self, commits: &[Arc<Commit>]) {
        self.0.lock().unwrap().extend_from_slice(commits);
    }
}

/// An open store with the schemas in it, and what its sink was told since. The first entry of a
/// fresh one is the migration's.
pub fn open(options: Options) -> (Store, Told) {
    let told = Told::default();
    let store = Store::open(options, Box::new(told.clone())).unwrap_or_else(|e| panic!("{e}"));
    if store.catalog().version == 0 {
        store.write_blocking(|tx| migrate(tx, &[TAG, CATEGORY, BLOG])).unwrap();
        told.0.lock().unwrap().clear();
    }
    (store, told)
}

pub fn text(text: &str) -> Value {
    Value::Text(text.into())
}

pub fn id(n: u128) -> Value {
    Value::Uuid(Uuid::from_u128(n))
}

/// A row of `schema` in slot order; timestamps are 1, what is not given is NULL.
pub fn row(schema: &Schema, given: &[(&str, Value)]) -> Vec<Value> {
    let mut values = vec![Value::Null; schema.columns.len()];
    for slot in [schema.created_at, schema.updated_at].into_iter().flatten() {
        values[slot] = Value::Time(1);
    }
    for (name, value) in given {
        values[schema.column(name).unwrap_or_else(|| panic!("no column {name}"))] = value.clone();
    }
    values
}

/// Short words for tests within a write.
pub trait Short: Rows {
    fn of(&self, name: &str) -> Arc<Schema> {
        self.catalog().named(name).unwrap_or_else(|| panic!("no schema {name}")).clone()
    }

    fn find(&self, name: &str, key: impl Into<Key>) -> Option<Arc<Row>> {
        self.get(&self.of(name), &key.into().0).unwrap()
    }

    fn cell(&self, name: &str, key: impl Into<Key>, column: &str) -> Value {
        let schema = self.of(name);
        let row = self.find(name, key).unwrap_or_else(|| panic!("no such {name}"));
        row.get(schema.column(column).unwrap()).clone()
    }
}

impl Short for Tx<'_> {}
impl Short for Reader<'_> {}

pub struct Key(pub Value);

impl From<i64> for Key {
    fn from(n: i64) -> Key {
        Key(Value::Int(n))
    }
}

impl From<Value> for Key {
    fn from(value: Value) -> Key {
        Key(value)
    }
}

pub trait Put {
    /// Inserts and gives the primary key.
    fn put(&mut self, name: &str, given: &[(&str, Value)]) -> Result<Value>;
    /// Changes some columns.
    fn set(&mut self, name: &str, key: impl Into<Key>, given: &[(&str, Value)]) -> Result<()>;
    fn drop_it(&mut self, name: &str, key: impl Into<Key>) -> Result<bool>;
    fn tie(&mut self, relation: (&str, &str), own: i64, other: i64, on: bool) -> Result<bool>;
    fn user(&mut self, n: u128) -> Result<Value>;
}

impl Put for Tx<'_> {
    fn put(&mut self, name: &str, given: &[(&str, Value)]) -> Result<Value> {
        let schema = self.of(name);
        let made = self.insert(&schema, row(&schema, given))?;
        Ok(made.get(schema.primary).clone())
    }

    fn set(&mut self, name: &str, key: impl Into<Key>, given: &[(&str, Value)]) -> Result<()> {
        let schema = self.of(name);
        let mut values = self.find(name, key).expect("no such record").values.to_vec();
        for (column, value) in given {
            values[schema.column(column).expect(column)] = value.clone();
        }
        self.update(&schema, values).map(drop)
    }

    fn drop_it(&mut self, name: &str, key: impl Into<Key>) -> Result<bool> {
        let schema = self.of(name);
        self.delete(&schema, &key.into().0)
    }

    fn tie(&mut self, relation: (&str, &str), own: i64, other: i64, on: bool) -> Result<bool> {
        let schema = self.of(relation.0);
        let relation = &schema.relations[schema.relation(relation.1).unwrap()];
        let (own, other) = (Value::Int(own), Value::Int(other));
        match on {
            true => self.link(&schema, relation, &own, &other),
            false => self.unlink(&schema, relation, &own, &other),
        }
    }

    fn user(&mut self, n: u128) -> Result<Value> {
        let username = text(&format!("user{n}"));
        self.put("user", &[("id", id(n)), ("username", username), ("active", Value::Bool(true))])
    }
}

/// `create blog 1`, one line a change.
pub fn told(store: &Store, commit: &Commit) -> Vec<String> {
    let catalog = store.catalog();
    let mut lines = Vec::new();
    for change in &commit.changes {
        let op = match change.op {
            Op::Create => "create",
            Op::Update => "update",
            Op::Delete => "delete",
        };
        let key = match &change.key {
            Value::Uuid(id) => id.as_u128().to_string(),
            Value::Int(n) => n.to_string(),
            other => format!("{other:?}"),
        };
        lines.push(format!("{op} {} {key}", catalog.get(change.schema).unwrap().name));
    }
    lines
}
