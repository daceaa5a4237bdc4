//! Store, content and stream in one process, without sockets: principals are made by hand.

#![allow(dead_code)] // Each suite uses its part.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use rowcast::auth::principal::Principal;
use rowcast::content::{Content, ListAsk};
use rowcast::error::{Error, Result};
use rowcast::limits::Limits;
use rowcast::live::{
    Close, Encode, Events, Live, Message, Outbox, Principals, Records, Request, tail,
};
use rowcast::model::value::Value;
use rowcast::model::{file, system};
use rowcast::query::Ask;
use rowcast::store::migrate::{self, How};
use rowcast::store::{Options, Store};
use serde_json::{Map, Value as Json};

/// A running core over a store in a directory of its own.
pub struct Rig {
    pub content: Content,
    pub live: Arc<Live>,
    runtime: tokio::runtime::Runtime,
    // Dropped last: the store lives in it.
    _dir: tempfile::TempDir,
}

/// Principals stay as they were when they subscribed.
struct Unchanging;

impl Principals for Unchanging {
    fn current(&self, principal: &Principal) -> Option<Arc<Principal>> {
        Some(Arc::new(principal.clone()))
    }
}

/// `{"event":"update","data":[…]}`, bare.
struct Plain;

impl Encode for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn frame(&self, message: &Message<'_>) -> Bytes {
        let records: Vec<&[u8]> = message.records.iter().collect();
        let event = format!("{:?}", message.event).to_lowercase();
        let data = records.join(&b","[..]);
        let data = String::from_utf8(data).expect("records are UTF-8");
        format!("{{\"event\":\"{event}\",\"data\":[{data}]}}").into()
    }

    fn page(&self, records: &Records<'_>, complete: bool, cursor: Option<&str>) -> Bytes {
        let data = String::from_utf8(records.iter().collect::<Vec<_>>().join(&b","[..]));
        let data = data.expect("records are UTF-8");
        let cursor = serde_json::json!(cursor);
        Bytes::from(format!(
            "{{\"event\":\"init\",\"data\":[{data}],\"complete\":{complete},\"cursor\":{cursor}}}"
        ))
    }

    fn position(&self, cursor: &str) -> Bytes {
        Bytes::from(format!("{{\"event\":\"position\",\"cursor\":\"{cursor}\"}}"))
    }

    fn close(&self, error: &Error) -> Close {
        Close::new(error.close_code(), error.message.as_str())
    }
}

/// What a subscription has heard.
pub struct Ear {
    outbox: Arc<Outbox>,
    _subscription: rowcast::live::Subscription,
}

impl Ear {
    /// Every (event, record) since the last call, in order.
    pub fn heard(&self) -> Vec<(String, Json)> {
        let mut frames = VecDeque::new();
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(None) =
            self.outbox.poll_take(&mut context, &mut frames, 1 << 20, 1 << 30)
        {
            if self.outbox.waiting() == (0, 0) {
                break;
            }
        }
        let mut heard = Vec::new();
        for frame in frames {
            let message: Json = serde_json::from_slice(&frame.bytes).expect("a message is JSON");
            let event = message["event"].as_str().expect("an event").to_owned();
            for record in message["data"].as_array().expect("records") {
                heard.push((event.clone(), record.clone()));
            }
        }
        heard
    }

    /// How it ended, if it did.
    pub fn ended(&self) -> Option<Close> {
        self.outbox.ended()
    }
}

impl Rig {
    /// Serves the schemas, each as in a file, beside the system's own. Problems in them come back
    /// as the error.
    pub fn new(schemas: &[Json]) -> Result<Rig> {
        let dir = tempfile::tempdir().map_err(Error::internal)?;
        let limits = Limits::default();
        let (sink, tail) = tail::channel(64 << 20);
        let mut options = Options::new(dir.path().join("data"));
        options.readers = 1;
        let store = Store::open(options, Box::new(sink))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::internal)?;
        let limits = Arc::new(limits);
        let source = Arc::new(store.clone());
        let live = Live::start(tail, source, Arc::new(Unchanging), limits.clone())?;
        let rig = Rig { content: Content::new(store, limits), live, runtime, _dir: dir };
        rig.apply(schemas)?;
        Ok(rig)
    }

    /// Puts these schemas in the place of those served.
    pub fn apply(&self, schemas: &[Json]) -> Result<()> {
        let mut defs = system::schemas();
        for schema in schemas {
            let name = format!("{}.json", schema["name"].as_str().unwrap_or("unnamed"));
            let text = serde_json::to_string_pretty(schema).map_err(Error::internal)?;
            match file::parse(Some(&name), text.as_bytes()).def {
                Ok(def) => defs.push(def),
                Err(problems) => return Err(wrong(problems)),
            }
        }
        self.content.store.write_blocking(move |tx| {
            let stored = tx.stored()?;
            let plan = migrate::plan(&stored, &defs, &How::default());
            let plan = plan
                .map_err(|faults| wrong(faults.into_iter().map(|fault| fault.problem).collect()))?;
            tx.migrate(&plan)
        })?;
        let catalog = self.content.store.catalog();
        let problems: Vec<_> = catalog
            .all()
            .flat_map(|schema| rowcast::auth::grant::check(&catalog, schema))
            .collect();
        if problems.is_empty() { Ok(()) } else { Err(wrong(problems)) }
    }

    /// Makes a user with an id of the test's choice.
    pub fn user(&self, id: &str, username: &str) -> Result<()> {
        let catalog = self.content.store.catalog();
        let schema = catalog.named("user").expect("a system schema").clone();
        let values: Vec<Value> = schema
            .columns
            .iter()
            .map(|column| match &*column.name {
                "id" => Value::Uuid(id.parse().expect("a UUID")),
                "username" => Value::Text(username.into()),
                "active" => Value::Bool(true),
                "created_at" | "updated_at" => Value::Time(0),
                _ => Value::Null,
            })
            .collect();
        self.content.store.write_blocking(move |tx| tx.insert(&schema, values).map(drop))?;
        Ok(())
    }

    pub fn list(&self, who: &Principal, ask: ListAsk) -> Result<Json> {
        json(self.runtime.block_on(self.content.list(who, ask))?)
    }

    pub fn read(
        &self,
        who: &Principal,
        schema: &str,
        id: &str,
        select: Option<&str>,
    ) -> Result<Json> {
        json(self.runtime.block_on(self.content.read(who, schema, id, select))?)
    }

    pub fn create(&self, who: &Principal, schema: &str, body: Map<String, Json>) -> Result<Json> {
        json(self.runtime.block_on(self.content.create(who, schema, body, None))?)
    }

    pub fn update(
        &self,
        who: &Principal,
        schema: &str,
        id: &str,
        body: Map<String, Json>,
    ) -> Result<Json> {
        json(self.runtime.block_on(self.content.update(who, schema, id, body, None))?)
    }

    pub fn delete(&self, who: &Principal, schema: &str, id: &str) -> Result<Json> {
        json(self.runtime.block_on(self.content.delete(who, schema, id, None))?)
    }

    pub fn update_all(
        &self,
        who: &Principal,
        schema: &str,
        filter: Json,
        body: Map<String, Json>,
    ) -> Result<u64> {
        let ask = bulk(schema, filter);
        self.runtime.block_on(self.content.update_all(who, ask, body))
    }

    pub fn delete_all(&self, who: &Principal, schema: &str, filter: Json) -> Result<u64> {
        self.runtime.block_on(self.content.delete_all(who, bulk(schema, filter)))
    }

    pub fn subscribe(
        &self,
        who: &Principal,
        ask: Ask,
        events: Events,
        id: Option<&str>,
    ) -> Result<Ear> {
        let outbox = Outbox::new(&Limits::default(), Close::new(4408, "too slow"));
        let request = Request {
            events,
            id: id.map(str::to_owned),
            ..Request::new(ask, Arc::new(Plain), Arc::new(who.clone()))
        };
        let subscription = self.runtime.block_on(self.live.subscribe(request, outbox.clone()))?;
        Ok(Ear { outbox, _subscription: subscription })
    }

    /// Returns when every commit so far was told.
    pub fn settle(&self) {
        self.runtime.block_on(self.live.stats());
    }
}

fn json(bytes: Vec<u8>) -> Result<Json> {
    rowcast::model::json::parse(&bytes)
}

fn bulk(schema: &str, filter: Json) -> rowcast::content::bulk::BulkAsk {
    rowcast::content::bulk::BulkAsk {
        schema: schema.to_owned(),
        filter,
        untyped: false,
        address: None,
    }
}

fn wrong(problems: Vec<rowcast::error::Problem>) -> Error {
    let mut error = Error::bad("the schemas have problems");
    error.problems = problems;
    error
}
