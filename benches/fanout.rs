//! Write → frame: a commit given to the matcher until every outbox holds its frame.
//!
//! 1,000 subscribers share 20 plans; every plan matches. Aim: 30 us for one record, on one core.
//! Draining the outboxes is not counted: that is the sockets' work.
//!
//! Watchers: each has a plan of its own that all records match, and wants one record of them. What a
//! change costs must not grow with their number.

use std::cell::Cell;
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use rowcast::auth::principal::Principal;
use rowcast::dialects::fastschema::realtime::Native;
use rowcast::limits::Limits;
use rowcast::live::fanout::Fanout;
use rowcast::live::registry::{Listener, Mode, Registry};
use rowcast::live::{Close, Frame, Outbox, Request, Start, Told};
use rowcast::model::catalog::Catalog;
use rowcast::model::change::{Change, Commit, Op, Row};
use rowcast::model::related::{Key, RelatedRows};
use rowcast::model::schema::Schema;
use rowcast::model::value::Value;
use rowcast::model::{file, link, system};
use rowcast::query::{Ask, Plan};
use serde_json::json;

const SUBSCRIBERS: u64 = 1_000;
const PLANS: u64 = 20;

const EARTHQUAKE: &str = r#"{
  "name": "earthquake", "namespace": "earthquakes", "label_field": "place",
  "fields": [
    { "name": "place", "label": "Place", "type": "string" },
    { "name": "magnitude", "label": "Magnitude", "type": "float64", "optional": true },
    { "name": "depth", "label": "Depth", "type": "float64" },
    { "name": "status", "label": "Status", "type": "enum",
      "enums": [{ "value": "automatic", "label": "A" }, { "value": "reviewed", "label": "R" }] },
    { "name": "occurred_at", "label": "When", "type": "time" },
    { "name": "felt", "label": "Felt", "type": "int", "optional": true }
  ]
}"#;

fn catalog() -> Arc<Catalog> {
    let mut defs = system::schemas();
    defs.push(file::parse(None, EARTHQUAKE.as_bytes()).def.expect("a good schema"));
    let linked = link::link(&defs).expect("schemas that fit");
    Arc::new(Catalog::new(1, linked.schemas.into_iter().map(Arc::new).collect()))
}

struct Stage {
    schema: Arc<Schema>,
    registry: Registry,
    outboxes: Vec<Arc<Outbox>>,
    /// Of the newest commit: who has cursors hears none twice.
    position: Cell<u64>,
}

/// `select` of the n-th plan; `told` says how all are told.
fn stage(select: impl Fn(u64) -> Option<String>, told: fn(&mut Request)) -> Stage {
    let catalog = catalog();
    let limits = Limits::default();
    let schema = catalog.named("earthquake").expect("the schema").clone();
    let mut registry = Registry::default();
    let mut outboxes = Vec::new();
    for id in 0..SUBSCRIBERS {
        let n = id % PLANS;
        let ask = Ask {
            schema: "earthquake".into(),
            filter: Some(json!({"status": "reviewed", "magnitude": {"$gte": n as f64 / 10.0}})),
            select: select(n),
            ..Ask::default()
        };
        let principal = Arc::new(Principal::owner());
        let plan = Plan::compile(&catalog, &principal, &limits, &ask).expect("a good question");
        let mut request = Request::new(ask, Arc::new(Native), principal);
        told(&mut request);
        let outbox = Outbox::new(&limits, Close::new(4408, "slow"));
        outboxes.push(outbox.clone());
        let mode = Mode::of(&request, &plan);
        let plan = Arc::new(plan);
        let listener = Listener { request, plan, key: None, mode, hold: None, outbox, told: 0 };
        registry.attach(id, listener);
    }
    assert_eq!(registry.plans().count(), PLANS as usize);
    Stage { schema, registry, outboxes, position: Cell::new(0) }
}

fn commit(schema: &Schema, records: i64) -> Commit {
    let row = |id: i64| {
        let values = schema.columns.iter().map(|column| match &*column.name {
            "id" => Value::Int(id),
            "place" => Value::Text("10 km NE of Ridgecrest, California".into()),
            "magnitude" => Value::Float(4.5),
            "depth" => Value::Float(8.25),
            "status" => Value::Text("reviewed".into()),
            "felt" => Value::Null,
            _ => Value::Time(1_700_000_000_123_000),
        });
        Arc::new(Row::new(values.collect()))
    };
    let change = |id| Change {
        schema: schema.id,
        schema_version: schema.version,
        op: Op::Update,
        key: Value::Int(id),
        before: Some(row(id)),
        after: Some(row(id)),
    };
    Commit {
        position: 1,
        stamp: 1,
        time: 0,
        origin: None,
        changes: (1..=records).map(change).collect(),
        notices: Vec::new(),
        related: RelatedRows::default(),
        weight: Default::default(),
    }
}

fn tell(stage: &Stage, commit: &mut Commit, rounds: u64) -> Duration {
    let mut fanout = Fanout::new(&Limits::default());
    let mut cx = Context::from_waker(Waker::noop());
    let mut drained: VecDeque<Frame> = VecDeque::new();
    let mut time = Duration::ZERO;
    for _ in 0..rounds {
        stage.position.set(stage.position.get() + 1);
        commit.position = stage.position.get();
        let start = Instant::now();
        black_box(fanout.tell(&stage.registry, commit));
        time += start.elapsed();
        for outbox in &stage.outboxes {
            drained.clear();
            while outbox.poll_take(&mut cx, &mut drained, 64, usize::MAX).is_ready() {}
            assert_eq!(drained.len(), 1);
        }
    }
    time
}

fn fanout(c: &mut Criterion) {
    let mut group = c.benchmark_group("fanout: 1,000 subscribers, 20 plans");
    // 20 sets of fields, each of three or more.
    let each = |n| {
        let names = ["place", "magnitude", "depth", "status", "felt"];
        let chosen = names.iter().enumerate().filter(|(at, _)| (n + 7) & (1 << at) != 0);
        Some(chosen.map(|(_, name)| *name).collect::<Vec<_>>().join(","))
    };
    let cursors: fn(&mut Request) = |request| request.start = Start::Now;
    let all: fn(&mut Request) = |request| {
        request.start = Start::Now;
        request.told = Told { transitions: true, changes: true };
    };
    for (name, stage) in [
        ("one projection", stage(|_| None, |_| {})),
        ("a projection each", stage(each, |_| {})),
        ("a projection each, cursors", stage(each, cursors)),
        ("a projection each, cursors, transitions, changes", stage(each, all)),
    ] {
        let mut one = commit(&stage.schema, 1);
        group.bench_function(format!("{name}, 1 record"), |b| {
            b.iter_custom(|rounds| tell(&stage, &mut one, rounds));
        });
        let mut many = commit(&stage.schema, 1_000);
        group.bench_function(format!("{name}, 1,000 records"), |b| {
            b.iter_custom(|rounds| tell(&stage, &mut many, rounds));
        });
    }
    group.finish();
}

fn watchers(c: &mut Criterion) {
    let mut group = c.benchmark_group("fanout: watchers of a record each");
    for many in [100, 1_000, 10_000] {
        let catalog = catalog();
        let limits = Limits::default();
        let schema = catalog.named("earthquake").expect("the schema").clone();
        let (mut registry, outbox) = (Registry::default(), Outbox::collector());
        for n in 0..many {
            let filter = Some(json!({"$or": [{"status": "reviewed"}, {"felt": n}]}));
            let ask = Ask { schema: "earthquake".into(), filter, ..Ask::default() };
            let principal = Arc::new(Principal::owner());
            let plan = Plan::compile(&catalog, &principal, &limits, &ask).expect("a good question");
            let request = Request::new(ask, Arc::new(Native), principal);
            let (mode, plan) = (Mode::of(&request, &plan), Arc::new(plan));
            let (key, outbox) = (Some(Key::Int(n)), outbox.clone());
            registry.attach(
                n as u64,
                Listener { request, plan, key, mode, hold: None, outbox, told: 0 },
            );
        }
        let mut fanout = Fanout::new(&limits).metered();
        let mut one = commit(&schema, 1);
        group.bench_function(format!("{many}"), |b| {
            b.iter(|| {
                one.position += 1;
                black_box(fanout.tell(&registry, &one));
                assert_eq!(outbox.take_all().len(), 1);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, fanout, watchers);
criterion_main!(benches);
