//! The stream from commit to frames, with commits made by hand.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use crate::auth::principal::Principal;
use crate::dialects::fastschema::realtime::Native;
use crate::error::{Kind, Result};
use crate::limits::Limits;
use crate::model::catalog::Catalog;
use crate::model::change::{Change, Commit, Notice, Op, Row};
use crate::model::related::{Key, Paths, RelatedRows};
use crate::model::schema::{Schema, SchemaId};
use crate::model::value::Value;
use crate::model::{file, link, system};
use crate::query::Ask;
use crate::store::CommitSink;

use super::*;

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
fn catalog(version: u64, files: &[String]) -> Arc<Catalog> {
    let mut defs = system::schemas();
    for text in files {
        defs.push(file::parse(None, text.as_bytes()).def.expect("a good schema"));
    }
    let mut linked = link::link(&defs).expect("schemas that fit").schemas;
    linked.iter_mut().for_each(|schema| schema.version = version as u32);
    Arc::new(Catalog::new(version, linked.into_iter().map(Arc::new).collect()))
}

fn files(extra: &str) -> Vec<String> {
    vec![BLOG.replace("EXTRA", extra), CATEGORY.to_owned()]
}

struct Ground {
    catalog: Mutex<Arc<Catalog>>,
    wants: Mutex<Vec<HashMap<SchemaId, Paths>>>,
    barriers: AtomicUsize,
}

impl Source for Arc<Ground> {
    fn catalog(&self) -> Arc<Catalog> {
        self.catalog.lock().unwrap().clone()
    }

    fn want(&self, paths: HashMap<SchemaId, Paths>) {
        self.wants.lock().unwrap().push(paths);
    }

    fn barrier(&self) -> Pin<Box<dyn Future<Output = Result<()>> + Send + '_>> {
        self.barriers.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(()) })
    }
}

/// Who is still there, by user; whoever is unknown stays as it was.
#[derive(Default)]
struct People {
    known: Mutex<HashMap<Uuid, Option<Arc<Principal>>>>,
    /// Makes the matcher wait where it asks for somebody.
    hold: Mutex<Option<mpsc::Receiver<()>>>,
}

impl Principals for Arc<People> {
    fn current(&self, principal: &Principal) -> Option<Arc<Principal>> {
        let hold = self.hold.lock().unwrap().take();
        if let Some(hold) = hold {
            let _ = hold.recv();
        }
        let id = principal.user.expect("a user");
        let known = self.known.lock().unwrap();
        known.get(&id).cloned().unwrap_or_else(|| Some(Arc::new(principal.clone())))
    }
}

struct World {
    live: Arc<Live>,
    sink: TailSink,
    ground: Arc<Ground>,
    people: Arc<People>,
    limits: Arc<Limits>,
    position: u64,
}

struct Ear {
    outbox: Arc<Outbox>,
    _subscription: Subscription,
}

impl World {
    fn new(limits: Limits) -> World {
        let limits = Arc::new(limits);
        let (sink, tail) = tail::channel(limits.tail_bytes);
        let ground = Arc::new(Ground {
            catalog: Mutex::new(catalog(1, &files(""))),
            wants: Mutex::default(),
            barriers: AtomicUsize::new(0),
        });
        let people = Arc::new(People::default());
        let source = Arc::new(ground.clone());
        let live = Live::start(tail, source, Arc::new(people.clone()), limits.clone()).unwrap();
        World { live, sink, ground, people, limits, position: 0 }
    }

    fn schema(&self, name: &str) -> Arc<Schema> {
        self.ground.catalog.lock().unwrap().named(name).expect("a schema").clone()
    }

    fn request(&self, principal: Principal) -> Request {
        Request {
            ask: Ask { schema: "blog".into(), ..Ask::default() },
            events: Events::ALL,
            id: None,
            encoder: Arc::new(Native),
            principal: Arc::new(principal),
        }
    }

    async fn ear(&self, request: Request) -> Ear {
        let outbox = Outbox::new(&self.limits, Close::new(4408, "slow"));
        let subscription = self.live.subscribe(request, outbox.clone()).await.expect("subscribed");
        Ear { outbox, _subscription: subscription }
    }

    /// As the owner, with changes to the request.
    async fn listen(&self, change: impl FnOnce(&mut Request)) -> Ear {
        let mut request = self.request(Principal::owner());
        change(&mut request);
        self.ear(request).await
    }

    fn commit(&mut self, changes: Vec<Change>, notices: Vec<Notice>) {
        self.position += 1;
        self.sink.committed(&[Arc::new(Commit {
            position: self.position,
            stamp: 0,
            time: 0,
            origin: None,
            changes,
            notices,
            related: RelatedRows::default(),
        })]);
    }

    fn migrate(&mut self, to: Arc<Catalog>, broken: Vec<SchemaId>) {
        *self.ground.catalog.lock().unwrap() = to.clone();
        self.commit(vec![], vec![Notice::Catalog { catalog: to, broken }]);
    }

    /// One record of `blog`, given as its columns by name.
    fn blog(&self, op: Op, id: i64, record: Json) -> Change {
        let schema = self.schema("blog");
        let row = |schema: &Schema| {
            let value = |column: &crate::model::schema::Column| match &*column.name {
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
    async fn told(&self) {
        self.live.stats().await;
    }

    async fn heard(&self, ear: &Ear) -> Vec<Json> {
        self.told().await;
        take(&ear.outbox).0.iter().map(|frame| payload(frame)).collect()
    }

    async fn ended(&self, ear: &Ear) -> u16 {
        self.told().await;
        take(&ear.outbox).1.expect("an end").code
    }
}

fn take(outbox: &Outbox) -> (VecDeque<Bytes>, Option<Close>) {
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

fn payload(frame: &[u8]) -> Json {
    let start = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    serde_json::from_slice(&frame[start..]).expect("JSON")
}

fn user(id: Uuid, roles: &[&str]) -> Principal {
    Principal {
        user: Some(id),
        roles: roles.iter().map(|role| Arc::from(*role)).collect(),
        session: Some(Uuid::from_u128(9)),
        expires: Some(i64::MAX),
        logged_in: true,
        ..Principal::default()
    }
}

#[tokio::test]
async fn messages_of_a_commit() {
    let mut world = World::new(Limits::default());
    let all = world.listen(|_| {}).await;
    let popular = world
        .listen(|request| {
            request.ask.filter = Some(json!({"views": {"$gte": 10}}));
            request.ask.select = Some("views".into());
        })
        .await;
    let deletes = world.listen(|r| r.events = Events::only(Event::Delete)).await;
    let second = world.listen(|r| r.id = Some("2".into())).await;
    let changes = vec![
        world.blog(Op::Delete, 4, json!({"title": "d", "views": 40})),
        world.blog(Op::Create, 1, json!({"title": "a", "views": 1})),
        world.blog(Op::Update, 2, json!({"title": "b", "views": 10})),
        world.blog(Op::Update, 3, json!({"title": "c", "views": 11})),
        world.blog(Op::Create, 5, json!({"title": "e"})),
    ];
    world.commit(changes, vec![]);
    let full = |id: i64, title: &str, views: Json| json!({"id": id, "title": title, "views": views, "category_id": null});
    assert_eq!(
        world.heard(&all).await,
        [
            json!({"event": "create", "data": full(1, "a", json!(1))}),
            json!({"event": "create", "data": full(5, "e", Json::Null)}),
            json!({"event": "update", "data": [full(2, "b", json!(10)), full(3, "c", json!(11))]}),
            json!({"event": "delete", "data": [full(4, "d", json!(40))]}),
        ]
    );
    assert_eq!(
        world.heard(&popular).await,
        [
            json!({"event": "update", "data": [{"id": 2, "views": 10}, {"id": 3, "views": 11}]}),
            json!({"event": "delete", "data": [{"id": 4, "views": 40}]}),
        ]
    );
    assert_eq!(
        world.heard(&deletes).await,
        [json!({"event": "delete", "data": [full(4, "d", json!(40))]})]
    );
    assert_eq!(
        world.heard(&second).await,
        [json!({"event": "update", "data": full(2, "b", json!(10))})]
    );
    drop((all, popular, deletes, second));
    assert_eq!(world.live.stats().await.plans, 0);
}

#[tokio::test]
async fn long_messages_are_cut() {
    let limits = Limits { message_records: 2, frame_bytes: 150, ..Limits::default() };
    let mut world = World::new(limits);
    let ear = world.listen(|r| r.ask.select = Some("title".into())).await;
    let long = "x".repeat(100);
    let titles = ["a", "b", "c", &long, &long, &"y".repeat(500), "d"];
    let change = |(at, title): (usize, &&str)| {
        world.blog(Op::Update, at as i64 + 1, json!({"title": title}))
    };
    let changes = titles.iter().enumerate().map(change).collect();
    world.commit(changes, vec![]);
    let heard = world.heard(&ear).await;
    let ids = |message: &Json| -> Vec<i64> {
        let records = message["data"].as_array().expect("an array").iter();
        records.map(|record| record["id"].as_i64().expect("an id")).collect()
    };
    let ids: Vec<_> = heard.iter().map(ids).collect();
    assert_eq!(ids, [vec![1, 2], vec![3, 4], vec![5], vec![6], vec![7]]);
}

#[tokio::test]
async fn bytes_are_shared() {
    let mut world = World::new(Limits::default());
    let mut ears = Vec::new();
    for n in 0..4 {
        // Two plans, one projection.
        let filter = json!({"views": {"$gt": n % 2}});
        ears.push(world.listen(|r| r.ask.filter = Some(filter)).await);
    }
    assert_eq!(world.live.stats().await.plans, 2);
    let change = world.blog(Op::Create, 1, json!({"title": "a", "views": 9}));
    world.commit(vec![change], vec![]);
    world.told().await;
    let frames: Vec<_> = ears.iter().map(|ear| take(&ear.outbox).0[0].as_ptr()).collect();
    assert!(frames.iter().all(|frame| *frame == frames[0]), "one frame for all");
}

#[tokio::test]
async fn a_guest_hears_what_its_rule_shows() {
    let mut world = World::new(Limits::default());
    let ear = world.ear(world.request(Principal::guest())).await;
    let changes = vec![
        world.blog(Op::Create, 1, json!({"title": "secret"})),
        world.blog(Op::Delete, 2, json!({"title": "secret"})),
        world.blog(Op::Delete, 3, json!({"title": "public"})),
    ];
    world.commit(changes, vec![]);
    let heard = world.heard(&ear).await;
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0]["data"][0]["id"], 3);
}

#[tokio::test]
async fn refusals() {
    let world = World::new(Limits::default());
    let outbox = || Outbox::new(&world.limits, Close::new(4408, "slow"));
    let refused = async |request: Request| {
        let answer = world.live.subscribe(request, outbox()).await;
        answer.err().expect("a refusal").kind
    };
    let mut request = world.request(Principal::owner());
    request.ask.schema = "blgo".into();
    assert_eq!(refused(request).await, Kind::NoSchema);
    let mut request = world.request(Principal::owner());
    request.id = Some("x".into());
    assert_eq!(refused(request).await, Kind::Bad);
    let gone = Uuid::from_u128(1);
    world.people.known.lock().unwrap().insert(gone, None);
    assert_eq!(refused(world.request(user(gone, &["editor"]))).await, Kind::Unauthorized);
    world.live.close_all(Close::new(1001, "bye"));
    assert_eq!(refused(world.request(Principal::owner())).await, Kind::Unavailable);
}

#[tokio::test]
async fn access_holds_while_connected() {
    let mut world = World::new(Limits::default());
    let [kept, demoted, renamed, disabled] = [1, 2, 3, 4].map(Uuid::from_u128);
    let mut ears = Vec::new();
    for id in [kept, demoted, renamed, disabled] {
        ears.push(world.ear(world.request(user(id, &["editor"]))).await);
    }
    {
        let mut known = world.people.known.lock().unwrap();
        known.insert(demoted, Some(Arc::new(user(demoted, &[]))));
        let named = Principal { username: Some("new".into()), ..user(renamed, &["editor"]) };
        known.insert(renamed, Some(Arc::new(named)));
        known.insert(disabled, None);
    }
    let before = world.blog(Op::Create, 1, json!({"title": "secret"}));
    world.commit(vec![before], vec![]);
    assert_eq!(world.heard(&ears[3]).await.len(), 1, "nothing was logged about anyone yet");

    let role = world.schema("role");
    let row = Arc::new(Row::new(vec![Value::Null; role.columns.len()]));
    let change = Change {
        schema: role.id,
        schema_version: role.version,
        op: Op::Update,
        key: Value::Uuid(Uuid::from_u128(7)),
        before: Some(row.clone()),
        after: Some(row),
    };
    let after = world.blog(Op::Create, 2, json!({"title": "secret"}));
    world.commit(vec![change, after], vec![]);
    world.told().await;
    let heard = |ear: &Ear| {
        let (frames, close) = take(&ear.outbox);
        (frames.len(), close.map(|close| close.code))
    };
    assert_eq!(heard(&ears[0]), (2, None));
    // What a guest may read is left; the secret told before stays told.
    assert_eq!(heard(&ears[1]), (1, None));
    assert_eq!(heard(&ears[2]), (2, None));
    assert_eq!(heard(&ears[3]), (0, Some(4401)));

    world.people.known.lock().unwrap().insert(kept, None);
    world.commit(vec![], vec![Notice::Session { user: kept, session: None }]);
    assert_eq!(world.ended(&ears[0]).await, 4401);
}

#[tokio::test]
async fn nothing_left_is_4403() {
    let mut world = World::new(Limits::default());
    let guest = world.ear(world.request(Principal::guest())).await;
    let closed = files("").into_iter().map(|text| text.replace("\"guest\"", "\"other\""));
    world.migrate(catalog(2, &closed.collect::<Vec<_>>()), vec![]);
    assert_eq!(world.ended(&guest).await, 4403);
}

#[tokio::test]
async fn additions_are_swapped_in() {
    let mut world = World::new(Limits::default());
    let ear = world.listen(|_| {}).await;
    let extra = r#", { "name": "note", "label": "N", "type": "string", "optional": true }"#;
    world.migrate(catalog(2, &files(extra)), vec![]);
    let change = world.blog(Op::Create, 1, json!({"title": "a", "note": "n"}));
    world.commit(vec![change], vec![]);
    assert_eq!(world.heard(&ear).await[0]["data"]["note"], "n");
}

#[tokio::test]
async fn broken_and_gone_schemas_end_their_subscriptions_alone() {
    let mut world = World::new(Limits::default());
    let blog = world.listen(|_| {}).await;
    let other = world.listen(|r| r.ask.schema = "category".into()).await;
    let id = world.schema("blog").id;
    world.migrate(catalog(2, &files("")), vec![id]);
    assert_eq!(world.ended(&blog).await, 4410);
    assert_eq!(take(&other.outbox), (VecDeque::new(), None));
    world.migrate(catalog(3, &[]), vec![]);
    assert_eq!(world.ended(&other).await, 4404);
}

#[tokio::test]
async fn a_row_that_no_plan_can_read_is_a_fault() {
    let mut world = World::new(Limits::default());
    let ear = world.listen(|_| {}).await;
    let other = world.listen(|r| r.ask.schema = "category".into()).await;
    let mut change = world.blog(Op::Create, 1, json!({"title": "a"}));
    change.schema_version += 1;
    world.commit(vec![change], vec![]);
    assert_eq!(world.ended(&ear).await, 1011);
    assert_eq!(take(&other.outbox), (VecDeque::new(), None));
}

#[tokio::test]
async fn a_token_ends_within_the_second() {
    let world = World::new(Limits::default());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let mut principal = user(Uuid::from_u128(1), &["editor"]);
    principal.expires = Some(now + 1);
    let ear = world.ear(world.request(principal)).await;
    let began = Instant::now();
    let close = loop {
        if let Some(close) = take(&ear.outbox).1 {
            break close;
        }
        assert!(began.elapsed() < Duration::from_secs(2));
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!((close.code, &*close.reason), (4401, "[401] Unauthorized: the token has expired"));
}

#[tokio::test]
async fn a_new_schema_waits_for_its_place() {
    let mut world = World::new(Limits::default());
    // The store knows the new catalog, the matcher has not come to it.
    let extra = r#", { "name": "note", "label": "N", "type": "string", "optional": true }"#;
    let new = catalog(2, &files(extra));
    *world.ground.catalog.lock().unwrap() = new.clone();
    let live = world.live.clone();
    let mut request = world.request(Principal::owner());
    request.ask.filter = Some(json!({"note": "n"}));
    let outbox = Outbox::new(&world.limits, Close::new(4408, "slow"));
    let waiting = tokio::spawn({
        let outbox = outbox.clone();
        async move { live.subscribe(request, outbox).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    world.migrate(new, vec![]);
    let _subscription = waiting.await.unwrap().expect("active now");
    let change = world.blog(Op::Create, 1, json!({"title": "a", "note": "n"}));
    world.commit(vec![change], vec![]);
    world.told().await;
    assert_eq!(take(&outbox).0.len(), 1);
}

#[tokio::test]
async fn who_falls_too_far_behind_is_closed_not_robbed() {
    let limits = Limits { tail_bytes: 4 << 10, ..Limits::default() };
    let mut world = World::new(limits);
    let before = world.listen(|_| {}).await;
    // The matcher waits where it asks for this user, and commits pile up.
    let (go, hold) = mpsc::channel();
    *world.people.hold.lock().unwrap() = Some(hold);
    let live = world.live.clone();
    let request = world.request(user(Uuid::from_u128(1), &["editor"]));
    let outbox = Outbox::new(&world.limits, Close::new(4408, "slow"));
    let attaching = tokio::spawn({
        let outbox = outbox.clone();
        async move { live.subscribe(request, outbox).await }
    });
    while world.people.hold.lock().unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for id in 0..50 {
        let change = world.blog(Op::Create, id, json!({"title": "a"}));
        world.commit(vec![change], vec![]);
    }
    go.send(()).unwrap();
    // Active where commits were lost after it: closed too.
    let _subscription = attaching.await.unwrap().expect("attached");
    assert_eq!(world.ended(&before).await, 4408);
    assert_eq!(take(&outbox).1.map(|close| close.code), Some(4408));
    let after = world.listen(|_| {}).await;
    let change = world.blog(Op::Create, 99, json!({"title": "b"}));
    world.commit(vec![change], vec![]);
    assert_eq!(world.heard(&after).await.len(), 1);
}

#[tokio::test]
async fn relations_are_wanted_before_and_only_while_they_are_read() {
    let mut world = World::new(Limits::default());
    let wants = |world: &World| world.ground.wants.lock().unwrap().clone();
    let plain = world.listen(|_| {}).await;
    assert!(wants(&world).is_empty());
    let select = |request: &mut Request| request.ask.select = Some("title,category".into());
    let first = world.listen(select).await;
    let blog = world.schema("blog");
    assert!(wants(&world)[0][&blog.id].0.contains_key("category"));
    assert_eq!(world.ground.barriers.load(Ordering::SeqCst), 1);
    let second = world.listen(select).await;
    assert_eq!(wants(&world).len(), 1, "known already");
    assert_eq!(world.ground.barriers.load(Ordering::SeqCst), 1);

    let category = world.schema("category");
    let row = Arc::new(Row::new(vec![Value::Int(3), Value::Text("news".into())]));
    let mut related = RelatedRows::default();
    related.after.insert(blog.id, &blog.relations[0].name, Key::Int(1), vec![row]);
    assert_eq!(category.columns.len(), 2);
    let change = world.blog(Op::Create, 1, json!({"title": "a", "category_id": 3}));
    world.position += 1;
    world.sink.committed(&[Arc::new(Commit {
        position: world.position,
        stamp: 0,
        time: 0,
        origin: None,
        changes: vec![change],
        notices: vec![],
        related,
    })]);
    let heard = world.heard(&second).await;
    assert_eq!(heard[0]["data"]["category"], json!({"id": 3, "name": "news"}));
    drop((first, plain));
    world.told().await;
    assert_eq!(wants(&world).len(), 1);
    drop(second);
    world.told().await;
    assert!(wants(&world)[1].is_empty());
}
