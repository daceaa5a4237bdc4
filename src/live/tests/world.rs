//! A matcher with a store and users made of paper, and someone who listens.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use serde_json::Value as Json;
use uuid::Uuid;

use crate::auth::principal::Principal;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::live::history::mark;
use crate::live::source::{Place, Reading, Stretch};
use crate::live::*;
use crate::model::catalog::Catalog;
use crate::model::change::{Change, Commit, Notice, Op, Row};
use crate::model::related::{RelatedRows, Want};
use crate::model::schema::{Column, Schema, SchemaId};
use crate::model::value::Value;
use crate::model::{file, link, system};
use crate::query::Ask;
use crate::store::{CommitSink, Mark};

const BLOG: &str = r#"{
  "name": "blog", "namespace": "blogs", "label_field": "title", "disable_timestamp": true,
  "fields": [
    { "name": "title", "label": "T", "type": "string" },
    { "name": "views", "label": "V", "type": "int", "optional": true }EXTRA,
    { "name": "category", "label": "C", "type": "relation", "optional": true,
      "relation": { "schema": "category", "field": "blogs", "type": "o2m" } }
  ],
  "access": { "guest": { "read": { "filter": { "title": { "$neq": "secret" } } } },
              "editor": { "read": true } }
}"#;

const CATEGORY: &str = r#"{
  "name": "category", "namespace": "categories", "label_field": "name", "disable_timestamp": true,
  "fields": [
    { "name": "name", "label": "N", "type": "string" },
    { "name": "blogs", "label": "B", "type": "relation", "optional": true,
      "relation": { "schema": "blog", "field": "category", "type": "o2m", "owner": true } }
  ],
  "access": { "guest": { "read": true }, "user": { "read": true } }
}"#;

/// `files` beside the system schemas; equal texts of one version give equal plans.
pub(crate) fn catalog(version: u64, files: &[String]) -> Arc<Catalog> {
    let mut defs = system::schemas();
    for text in files {
        defs.push(file::parse(None, text.as_bytes()).def.expect("a good schema"));
    }
    let mut linked = link::link(&defs).expect("schemas that fit").schemas;
    linked.iter_mut().for_each(|schema| schema.version = version as u32);
    Arc::new(Catalog::new(version, linked.into_iter().map(Arc::new).collect()))
}

pub(crate) fn files(extra: &str) -> Vec<String> {
    vec![BLOG.replace("EXTRA", extra), CATEGORY.to_owned()]
}

/// A dialect of its own: this room knows none.
pub(crate) struct Plain;

impl Encode for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn frame(&self, message: &Message<'_>) -> Bytes {
        let parse = |record: &[u8]| serde_json::from_slice::<Json>(record).expect("JSON");
        let mut data: Json = message.records.iter().map(parse).collect();
        if message.single || message.event == Event::Create {
            assert_eq!(message.records.iter().len(), 1);
            data = data[0].take();
        }
        let event = format!("{:?}", message.event).to_lowercase();
        let mut json = serde_json::json!({"event": event, "data": data});
        if let Some(changed) = message.changed {
            json["changed"] = changed.into();
        }
        if let Some(cursor) = message.cursor {
            json["cursor"] = cursor.into();
        }
        text(json.to_string())
    }

    fn page(&self, records: &Records<'_>, complete: bool, cursor: Option<&str>) -> Bytes {
        let data = String::from_utf8(records.iter().collect::<Vec<_>>().join(&b","[..]));
        let data = data.expect("records are UTF-8");
        let cursor = serde_json::json!(cursor);
        text(format!(
            "{{\"event\":\"init\",\"data\":[{data}],\"complete\":{complete},\"cursor\":{cursor}}}"
        ))
    }

    fn position(&self, cursor: &str) -> Bytes {
        text(format!("{{\"event\":\"position\",\"cursor\":\"{cursor}\"}}"))
    }

    fn close(&self, error: &Error) -> Close {
        Close::new(error.close_code(), error.message.as_str())
    }
}

fn text(text: String) -> Bytes {
    frame::text(text.len(), |out| out.extend_from_slice(text.as_bytes()))
}

/// An entry of the log that did nothing.
pub(crate) fn entry(position: u64) -> Commit {
    Commit {
        position,
        stamp: 0,
        time: 0,
        origin: None,
        changes: Vec::new(),
        notices: Vec::new(),
        related: RelatedRows::default(),
        weight: Default::default(),
    }
}

pub(crate) struct Ground {
    pub(crate) catalog: Mutex<Arc<Catalog>>,
    pub(crate) wants: Mutex<Vec<Want>>,
    pub(crate) barriers: AtomicUsize,
    /// Without notices, as a log gives its entries back.
    pub(crate) log: Mutex<Vec<Arc<Commit>>>,
    pub(crate) replays: AtomicUsize,
    /// Of snapshots, that were asked for.
    pub(crate) pages: AtomicUsize,
    /// The entry that they stand at, and nothing is on them. `None`: there are none.
    pub(crate) empty: Mutex<Option<Mark>>,
    /// But on the first, which has a record and goes up to this key.
    pub(crate) upto: Mutex<Option<Value>>,
    /// Happens while the log is read next.
    pub(crate) meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Ground {
    pub(crate) fn new(catalog: Arc<Catalog>) -> Self {
        Ground {
            catalog: Mutex::new(catalog),
            wants: Mutex::default(),
            barriers: AtomicUsize::new(0),
            log: Mutex::default(),
            replays: AtomicUsize::new(0),
            pages: AtomicUsize::new(0),
            empty: Mutex::default(),
            upto: Mutex::default(),
            meanwhile: Mutex::default(),
        }
    }
}

impl Source for Arc<Ground> {
    fn newest(&self) -> Result<Mark> {
        Ok(Mark { position: 0, stamp: 0, time: 0 })
    }

    fn catalog(&self) -> Arc<Catalog> {
        self.catalog.lock().unwrap().clone()
    }

    fn want(&self, want: Want) {
        self.wants.lock().unwrap().push(want);
    }

    fn barrier(&self) -> Reading<'_, ()> {
        self.barriers.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(()) })
    }

    fn page(&self, ask: snapshot::PageAsk, _: &Arc<Limits>) -> Reading<'_, snapshot::Read> {
        self.pages.fetch_add(1, Ordering::SeqCst);
        let upto = self.upto.lock().unwrap().clone().filter(|_| ask.after.is_none());
        let first = upto.map(|upto| snapshot::Page::of("{\"id\":1}", upto, Mark::default()));
        let empty = self.empty.lock().unwrap().map(snapshot::Page::empty);
        Box::pin(async move {
            let page = first.or(empty).map(snapshot::Read::Page);
            page.ok_or_else(|| Error::internal("a store of paper has no pages"))
        })
    }

    fn replay(&self, after: u64, limit: usize, want: Arc<Want>) -> Reading<'_, Stretch> {
        Box::pin(async move { self.replay_blocking(after, limit, want) })
    }

    fn replay_blocking(&self, after: u64, limit: usize, _: Arc<Want>) -> Result<Stretch> {
        if let Some(happens) = self.meanwhile.lock().unwrap().take() {
            happens();
        }
        let log = self.log.lock().unwrap();
        self.replays.fetch_add(1, Ordering::SeqCst);
        let newest = log.last().map(|commit| mark(commit)).unwrap_or_default();
        let after = log.iter().filter(|commit| commit.position > after);
        let commits = after.take(limit).cloned().collect();
        Ok(Stretch { catalog: self.catalog(), commits, newest })
    }

    fn place(&self, position: u64, _: Vec<SchemaId>) -> Reading<'_, Place> {
        Box::pin(async move {
            let log = self.log.lock().unwrap();
            let marks = || log.iter().map(|commit| mark(commit));
            Ok(Place {
                catalog: self.catalog(),
                oldest: marks().next(),
                newest: marks().next_back(),
                entry: marks().find(|mark| mark.position == position),
                unreadable: None,
                readable: marks().next(),
            })
        })
    }
}

/// Who is still there, by user; whoever is unknown stays as it was.
#[derive(Default)]
pub(crate) struct People {
    pub(crate) known: Mutex<HashMap<Uuid, Option<Arc<Principal>>>>,
    /// Makes the matcher wait where it asks for somebody.
    pub(crate) hold: Mutex<Option<mpsc::Receiver<()>>>,
    /// Whom the subjects of outside tokens are linked to.
    pub(crate) linked: Mutex<HashMap<String, Uuid>>,
    /// Whom the matcher asked for.
    pub(crate) asked: Mutex<Vec<Principal>>,
}

impl Principals for Arc<People> {
    fn current(&self, principal: &Principal) -> Option<Arc<Principal>> {
        let hold = self.hold.lock().unwrap().take();
        if let Some(hold) = hold {
            let _ = hold.recv();
        }
        self.asked.lock().unwrap().push(principal.clone());
        if let Some(subject) = principal.claims.get("sub").and_then(Json::as_str) {
            let user = self.linked.lock().unwrap().get(subject).copied();
            return Some(Arc::new(Principal { user, ..principal.clone() }));
        }
        let id = principal.user.expect("a user");
        let known = self.known.lock().unwrap();
        known.get(&id).cloned().unwrap_or_else(|| Some(Arc::new(principal.clone())))
    }
}

pub(crate) struct World {
    pub(crate) live: Arc<Live>,
    pub(crate) sink: TailSink,
    pub(crate) ground: Arc<Ground>,
    pub(crate) people: Arc<People>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) position: u64,
}

pub(crate) struct Ear {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) _subscription: Subscription,
}

impl World {
    pub(crate) fn new(limits: Limits) -> World {
        let limits = Arc::new(limits);
        let (sink, tail) = tail::channel(limits.tail_bytes);
        let ground = Arc::new(Ground::new(catalog(1, &files(""))));
        let people = Arc::new(People::default());
        let source = Arc::new(ground.clone());
        let live = Live::start(tail, source, Arc::new(people.clone()), limits.clone()).unwrap();
        World { live, sink, ground, people, limits, position: 0 }
    }

    pub(crate) fn schema(&self, name: &str) -> Arc<Schema> {
        self.ground.catalog.lock().unwrap().named(name).expect("a schema").clone()
    }

    pub(crate) fn request(&self, principal: Principal) -> Request {
        let ask = Ask { schema: "blog".into(), ..Ask::default() };
        Request::new(ask, Arc::new(Plain), Arc::new(principal))
    }

    pub(crate) async fn ear(&self, request: Request) -> Ear {
        let outbox = Outbox::new(&self.limits, Close::new(4408, "slow"));
        let subscription = self.live.subscribe(request, outbox.clone()).await.expect("subscribed");
        Ear { outbox, _subscription: subscription }
    }

    /// As the owner, with changes to the request.
    pub(crate) async fn listen(&self, change: impl FnOnce(&mut Request)) -> Ear {
        let mut request = self.request(Principal::owner());
        change(&mut request);
        self.ear(request).await
    }

    pub(crate) fn commit(&mut self, changes: Vec<Change>, notices: Vec<Notice>) {
        let commit = self.made(changes, notices);
        self.committed(&[commit]);
    }

    /// As the writer does it; every other time it has something else to do afterwards.
    pub(crate) fn committed(&mut self, commits: &[Arc<Commit>]) {
        self.sink.committed(commits);
        self.sink.answered(self.position.is_multiple_of(2));
    }

    /// A commit that is in the log, and has yet to reach the matcher.
    pub(crate) fn made(&mut self, changes: Vec<Change>, notices: Vec<Notice>) -> Arc<Commit> {
        self.position += 1;
        let gathered = self.ground.wants.lock().unwrap().last().cloned().unwrap_or_default();
        let gathered = Arc::new(gathered);
        let position = self.position;
        let commit = |notices| {
            let related = RelatedRows { gathered: gathered.clone(), ..RelatedRows::default() };
            let changes = changes.clone();
            Arc::new(Commit { changes, notices, related, ..entry(position) })
        };
        self.ground.log.lock().unwrap().push(commit(vec![]));
        commit(notices)
    }

    pub(crate) fn migrate(&mut self, to: Arc<Catalog>, broken: Vec<SchemaId>) {
        *self.ground.catalog.lock().unwrap() = to.clone();
        self.commit(vec![], vec![Notice::Catalog { catalog: to, broken }]);
    }

    /// One record of `blog`, given as its columns by name.
    pub(crate) fn blog(&self, op: Op, id: i64, record: Json) -> Change {
        let schema = self.schema("blog");
        let row = |schema: &Schema| {
            let value = |column: &Column| match &*column.name {
                "id" => Value::Int(id),
                name => match record.get(name) {
                    Some(json) => Value::from_json(json, column).expect("a good value"),
                    None => Value::Null,
                },
            };
            Arc::new(Row::new(schema.columns.iter().map(value).collect()))
        };
        Change {
            schema: schema.id,
            schema_version: schema.version,
            op,
            key: Value::Int(id),
            before: (op != Op::Create).then(|| row(&schema)),
            after: (op != Op::Delete).then(|| row(&schema)),
        }
    }

    /// Everything that was committed has been told when this returns.
    pub(crate) async fn told(&self) {
        self.live.stats().await;
    }

    pub(crate) async fn heard(&self, ear: &Ear) -> Vec<Json> {
        self.told().await;
        take(&ear.outbox).0.iter().map(|frame| payload(&frame.bytes)).collect()
    }

    pub(crate) async fn ended(&self, ear: &Ear) -> u16 {
        self.told().await;
        take(&ear.outbox).1.expect("an end").code
    }
}

pub(crate) fn take(outbox: &Outbox) -> (VecDeque<Frame>, Option<Close>) {
    let mut out = VecDeque::new();
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        match outbox.poll_take(&mut cx, &mut out, usize::MAX, usize::MAX) {
            Poll::Ready(None) => {}
            Poll::Ready(close) => return (out, close),
            Poll::Pending => return (out, None),
        }
    }
}

pub(crate) fn payload(frame: &[u8]) -> Json {
    let start = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    serde_json::from_slice(&frame[start..]).expect("JSON")
}

pub(crate) fn user(id: Uuid, roles: &[&str]) -> Principal {
    Principal {
        user: Some(id),
        roles: roles.iter().map(|role| Arc::from(*role)).collect(),
        session: Some(Uuid::from_u128(9)),
        expires: Some(i64::MAX),
        logged_in: true,
        ..Principal::default()
    }
}
