//! What it costs to compile a plan and to resolve rules.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use rowcast::auth::grant::{self, Action};
use rowcast::auth::principal::Principal;
use rowcast::limits::Limits;
use rowcast::model::catalog::Catalog;
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
}

fn b(c: &mut Criterion, name: &str, mut run: impl FnMut() -> usize) {
    c.bench_function(name, |b| b.iter(&mut run));
}

criterion_group!(all, benches);
criterion_main!(all);
