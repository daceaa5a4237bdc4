//! What it costs to compile a plan, to resolve rules, and to write a record down.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use rowcast::auth::grant::{self, Action};
use rowcast::auth::principal::Principal;
use rowcast::limits::Limits;
use rowcast::model::catalog::Catalog;
use rowcast::model::change::Row;
use rowcast::model::related::NoRelated;
use rowcast::model::value::Value;
use rowcast::model::{file, system};
use rowcast::query::{Ask, Plan};
use rowcast::store::migrate;
use serde_json::json;

fn catalog() -> Arc<Catalog> {
    let quake = json!({
        "name": "quake", "namespace": "quakes", "label_field": "place",
        "fields": [
            { "name": "place", "label": "Place", "type": "string" },
            { "name": "magnitude", "label": "Magnitude", "type": "float64" },
            { "name": "depth", "label": "Depth", "type": "float64" },
            { "name": "felt", "label": "Felt", "type": "int", "optional": true },
            { "name": "tsunami", "label": "Tsunami", "type": "bool" },
            { "name": "status", "label": "Status", "type": "string" },
            { "name": "at", "label": "At", "type": "time" },
            { "name": "owner", "label": "Owner", "type": "relation", "optional": true, "relation":
              { "schema": "user", "field": "quakes", "type": "o2m" } }
        ],
        "access": {
            "guest": { "read": { "filter": { "status": "reviewed" }, "fields": ["place", "magnitude", "at"] } },
            "user": { "read": { "filter": { "owner": "$user.id" } } },
            "staff": { "read": true }
        }
    });
    let mut defs = system::schemas();
    defs.push(file::parse(None, quake.to_string().as_bytes()).def.expect("a good schema"));
    Arc::new(migrate::catalog_of(&defs).expect("good schemas"))
}

fn row(plan: &Plan) -> Row {
    let of = |name: &str| match name {
        "id" => Value::Int(123_456),
        "place" => Value::Text("12 km NNE of Somewhere, far \"away\"".into()),
        "magnitude" => Value::Float(4.7),
        "depth" => Value::Float(10.25),
        "felt" => Value::Int(17),
        "tsunami" => Value::Bool(false),
        "status" => Value::Text("reviewed".into()),
        "owner_id" => Value::Null,
        _ => Value::Time(1_700_000_000_123_000),
    };
    Row::new(plan.schema.columns.iter().map(|column| of(&column.name)).collect())
}

fn benches(c: &mut Criterion) {
    let catalog = catalog();
    let limits = Limits::default();
    let user = Principal {
        user: Some(uuid::Uuid::from_u128(7)),
        username: Some("ann".into()),
        logged_in: true,
        ..Principal::default()
    };
    let staff = Principal { roles: vec!["staff".into()], ..user.clone() };
    let ask = |select: &str| Ask {
        schema: "quake".into(),
        filter: Some(json!({ "magnitude": { "$gte": 4.5 }, "place": { "$neq": "x" } })),
        select: Some(select.to_owned()),
        ..Ask::default()
    };
    let quake = catalog.named("quake").expect("the schema").clone();

    c.bench_function("resolve a user's grant", |b| {
        b.iter(|| grant::resolve(&catalog, black_box(&quake), &user, Action::Read));
    });
    for (name, who) in
        [("compile a plan, all may be read", &staff), ("compile a plan, masked", &user)]
    {
        let ask = ask("");
        b(c, name, || {
            Plan::compile(&catalog, who, &limits, black_box(&ask)).expect("a plan").key.len()
        });
    }
    let mut out = Vec::with_capacity(1024);
    for (name, who, select) in [
        ("encode 11 fields, all may be read", &staff, ""),
        ("encode 3 fields, all may be read", &staff, "place,magnitude"),
        ("encode 11 fields, masked by two rules", &user, ""),
    ] {
        let plan = Plan::compile(&catalog, who, &limits, &ask(select)).expect("a plan");
        let row = row(&plan);
        b(c, name, || {
            out.clear();
            plan.body.encode(black_box(&row), &NoRelated, &mut out);
            out.len()
        });
    }
}

fn b(c: &mut Criterion, name: &str, mut run: impl FnMut() -> usize) {
    c.bench_function(name, |b| b.iter(&mut run));
}

criterion_group!(all, benches);
criterion_main!(all);
