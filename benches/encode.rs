//! What it costs to write a record down, by projection and grant, and to make a frame of records, by
//! what carries it. Both happen once a commit, whoever listens.

#[path = "../tests/tables/mod.rs"]
mod tables;

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rowcast::auth::principal::Principal;
use rowcast::dialects::fastschema::poll::Pages;
use rowcast::dialects::fastschema::realtime::Native;
use rowcast::dialects::fastschema::sse::Sse;
use rowcast::limits::Limits;
use rowcast::live::{Encode, Event, Message, Records};
use rowcast::model::catalog::Catalog;
use rowcast::query::{Ask, Plan};
use serde_json::{Value as Json, json};
use tables::Tables;

const CURSOR: &str = "1.123456.0190163d8694739b.9f86d081884c7d65";

fn schemas() -> [Json; 3] {
    let field =
        |name: &str, ty: &str| json!({"name": name, "label": name, "type": ty, "optional": true});
    let relation = |name: &str, schema: &str, field: &str, ty: &str, owner: bool| {
        json!({
            "name": name, "label": name, "type": "relation", "optional": true,
            "relation": { "schema": schema, "field": field, "type": ty, "owner": owner,
                          "optional": true },
        })
    };
    let quake = json!({
        "name": "quake", "namespace": "quakes", "label_field": "place", "disable_timestamp": true,
        "fields": [
            field("place", "string"), field("status", "string"), field("network", "string"),
            field("magnitude", "float64"), field("depth", "float64"), field("felt", "int"),
            field("tsunami", "bool"), field("at", "time"), field("code", "uuid"),
            relation("region", "region", "quakes", "o2m", false),
            relation("tags", "tag", "quakes", "m2m", true),
        ],
        "access": {
            "guest": { "read": { "filter": { "status": "reviewed" },
                                 "fields": ["place", "magnitude", "at"] } },
            "user": { "read": { "filter": { "magnitude": { "$gte": 4 } } } },
            "staff": { "read": true },
        },
    });
    let region = json!({
        "name": "region", "namespace": "regions", "label_field": "name", "disable_timestamp": true,
        "fields": [field("name", "string"), relation("quakes", "quake", "region", "o2m", true)],
        "access": { "staff": { "read": true } },
    });
    let tag = json!({
        "name": "tag", "namespace": "tags", "label_field": "name", "disable_timestamp": true,
        "fields": [field("name", "string"), relation("quakes", "quake", "tags", "m2m", false)],
        "access": { "staff": { "read": true } },
    });
    [quake, region, tag]
}

fn tables() -> Tables {
    let mut tables = Tables::new(&schemas());
    tables.insert("region", &json!({"id": 1, "name": "Alaska"}));
    for id in 1..=20 {
        tables.insert("tag", &json!({"id": id, "name": format!("tag number {id}")}));
    }
    tables.insert(
        "quake",
        &json!({
            "id": 123_456, "place": "68 km SSE of \"Old\" Iliamna, Alaska", "status": "reviewed",
            "network": "us", "magnitude": 4.7, "depth": 98.25, "felt": 12, "tsunami": false,
            "at": "2024-02-29T12:34:56.789Z", "code": "0190163d-8694-739b-aea5-966c26f8ad91",
            "region": 1, "tags": (1..=20).collect::<Vec<_>>(),
        }),
    );
    tables
}

fn bodies(c: &mut Criterion) {
    let tables = tables();
    let catalog = Arc::new(Catalog::new(1, tables.catalog.all().cloned().collect()));
    let limits = Limits::default();
    let staff = Principal { logged_in: true, roles: vec!["staff".into()], ..Principal::default() };
    let user = Principal { roles: Vec::new(), ..staff.clone() };
    let mut group = c.benchmark_group("encode: body");
    let mut out = Vec::with_capacity(4096);
    for (name, who, select) in [
        ("1 field", &staff, "magnitude"),
        ("3 fields", &staff, "place,magnitude,at"),
        ("all own fields", &staff, ""),
        ("all own fields, masked by two rules", &user, ""),
        ("3 fields and a record related to one", &staff, "place,magnitude,region.name"),
        ("3 fields and 20 related records", &staff, "place,magnitude,tags.name"),
    ] {
        let ask = Ask { schema: "quake".into(), select: Some(select.into()), ..Ask::default() };
        let plan = Plan::compile(&catalog, who, &limits, &ask).expect("a plan");
        let row = &tables.rows(&plan.schema)[0];
        let related = tables.gather(&plan.schema, &plan.paths);
        out.clear();
        plan.body.encode(row, &related, &mut out);
        group.throughput(Throughput::Bytes(out.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                plan.body.encode(black_box(row), &related, &mut out);
                out.len()
            });
        });
    }
    group.finish();
}

fn frames(c: &mut Criterion) {
    let record = r#"{"id":123456,"place":"68 km SSE of Old Iliamna, Alaska","status":"reviewed",
        "network":"us","magnitude":4.7,"depth":98.25,"felt":12,"at":"2024-02-29T12:34:56.789Z"}"#
        .replace("\n        ", "");
    let bytes = record.repeat(1_000).into_bytes();
    let ranges: Vec<Range<usize>> =
        (0..1_000).map(|n| n * record.len()..(n + 1) * record.len()).collect();
    let encoders: [&dyn Encode; 3] = [&Native, &Sse, &Pages];
    let changed = ["magnitude", "depth", "felt"];
    for (name, event, count, changed, cursor) in [
        ("a create", Event::Create, 1, None, None),
        ("an update, changes, cursor", Event::Update, 1, Some(&changed[..]), Some(CURSOR)),
        ("an update of 1,000", Event::Update, 1_000, None, None),
    ] {
        let mut group = c.benchmark_group(format!("encode: frame, {name}"));
        let records = Records::new(&bytes, &ranges[..count]);
        let message = Message { event, single: false, records, changed, cursor };
        for encoder in encoders {
            group.throughput(Throughput::Bytes(encoder.frame(&message).len() as u64));
            group.bench_function(BenchmarkId::from_parameter(encoder.name()), |b| {
                b.iter(|| encoder.frame(black_box(&message)));
            });
        }
        group.finish();
    }
    let mut group = c.benchmark_group("encode: frame, a page of 1,000");
    let page = Records::new(&bytes, &ranges);
    for encoder in encoders {
        let encode = || encoder.page(black_box(&page), true, Some(CURSOR));
        group.throughput(Throughput::Bytes(encode().len() as u64));
        group.bench_function(BenchmarkId::from_parameter(encoder.name()), |b| b.iter(encode));
    }
    group.finish();
}

criterion_group!(benches, bodies, frames);
criterion_main!(benches);
