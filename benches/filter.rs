//! What one filter costs on one record: an equality with a range (the aim is 60 ns or less), and
//! each operator by itself.

#[path = "../tests/tables/mod.rs"]
mod tables;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use rowcast::filter::compile::{Unrestricted, compile};
use rowcast::filter::{ast, eval};
use rowcast::limits::Limits;
use rowcast::model::change::Row;
use rowcast::model::schema::Schema;
use serde_json::{Value as Json, json};
use tables::Tables;

fn tables() -> Tables {
    let field =
        |name: &str, ty: &str| json!({"name": name, "label": name, "type": ty, "optional": true});
    let mut tables = Tables::new(&[
        json!({
            "name": "quake", "namespace": "quakes", "label_field": "place",
            "disable_timestamp": true,
            "fields": [
                field("place", "string"), field("status", "string"), field("network", "string"),
                field("magnitude", "float64"), field("depth", "float64"), field("felt", "int"),
                field("at", "time"), field("code", "uuid"), field("felt_by", "json"),
                field("tsunami", "bool"), field("report", "text"),
                {"name": "kind", "label": "Kind", "type": "enum", "optional": true, "enums": [
                    {"value": "earthquake", "label": "Earthquake"},
                    {"value": "quarry blast", "label": "Quarry blast"},
                ]},
                {"name": "region", "label": "Region", "type": "relation", "optional": true,
                 "relation": {"schema": "region", "field": "quakes", "type": "o2m",
                              "optional": true}},
            ],
        }),
        json!({
            "name": "region", "namespace": "regions", "label_field": "name",
            "disable_timestamp": true,
            "fields": [
                field("name", "string"),
                {"name": "quakes", "label": "Quakes", "type": "relation", "optional": true,
                 "relation": {"schema": "quake", "field": "region", "type": "o2m",
                              "owner": true, "optional": true}},
            ],
        }),
    ]);
    tables.insert("region", &json!({"id": 1, "name": "Alaska"}));
    tables.insert(
        "quake",
        &json!({
            "id": 1, "place": "68 km SSE of Old Iliamna, Alaska", "status": "reviewed",
            "network": "us", "magnitude": 4.7, "depth": 98.25, "felt": 12,
            "at": "2024-02-29T12:34:56.789Z", "code": "0190163d-8694-739b-aea5-966c26f8ad91",
            "felt_by": {"b": [1, 2, 3], "a": "x"}, "region": 1, "tsunami": false,
            "kind": "earthquake", "report": "A sentence like many others. ".repeat(140),
        }),
    );
    tables
}

fn bench(criterion: &mut Criterion) {
    let tables = tables();
    let schema: Arc<Schema> = tables.schema("quake");
    let row: Arc<Row> = tables.rows(&schema)[0].clone();
    let cases: Vec<(&str, Json)> = vec![
        ("equality and range", json!({"status": "reviewed", "magnitude": {"$gte": 4.5, "$lt": 6}})),
        ("equality and range, refused", json!({"status": "draft", "magnitude": {"$gte": 4.5}})),
        (
            "four ranges",
            json!({"magnitude": {"$gte": 4.5, "$lt": 6}, "depth": {"$gt": 10, "$lte": 100}}),
        ),
        ("$eq text", json!({"network": "us"})),
        ("$eq int", json!({"felt": 12})),
        ("$eq float", json!({"magnitude": 4.7})),
        ("$eq time", json!({"at": "2024-02-29T12:34:56.789Z"})),
        ("$eq uuid", json!({"code": "0190163d-8694-739b-aea5-966c26f8ad91"})),
        ("$eq json", json!({"felt_by": {"$eq": {"a": "x", "b": [1, 2, 3]}}})),
        ("$eq bool", json!({"tsunami": false})),
        ("$eq enum", json!({"kind": "earthquake"})),
        ("$neq", json!({"status": {"$neq": "draft"}})),
        ("$gt", json!({"felt": {"$gt": 3}})),
        ("$gte", json!({"felt": {"$gte": 3}})),
        ("$lt time", json!({"at": {"$lt": "2030-01-01"}})),
        ("$lte", json!({"felt": {"$lte": 30}})),
        ("$like prefix", json!({"place": {"$like": "68 km%"}})),
        ("$like middle", json!({"place": {"$like": "%Iliamna%"}})),
        ("$like mixed", json!({"place": {"$like": "%O_d Il_amna%"}})),
        ("$like of a long text", json!({"report": {"$like": "%never%said%"}})),
        ("$notlike", json!({"place": {"$notlike": "%California%"}})),
        ("$contains", json!({"place": {"$contains": "Alaska"}})),
        ("$contains of a long text", json!({"report": {"$contains": "never said"}})),
        ("$notcontains", json!({"place": {"$notcontains": "Chile"}})),
        ("$containsfold", json!({"place": {"$containsfold": "alaska"}})),
        ("$containsfold of a long text", json!({"report": {"$containsfold": "Never said"}})),
        ("$notcontainsfold", json!({"place": {"$notcontainsfold": "chile"}})),
        ("$in of 3", json!({"network": {"$in": ["ak", "ci", "us"]}})),
        ("$in of 1000", json!({"felt": {"$in": (0..1000).collect::<Vec<i32>>()}})),
        ("$nin", json!({"network": {"$nin": ["ak", "ci"]}})),
        ("$null", json!({"place": {"$null": false}})),
        (
            "$and of 5",
            json!({"$and": [
                {"status": "reviewed"}, {"network": "us"}, {"felt": {"$gt": 3}},
                {"depth": {"$lt": 100}}, {"at": {"$gt": "2000-01-01"}},
            ]}),
        ),
        ("$or of 3", json!({"$or": [{"felt": 1}, {"felt": 2}, {"felt": 12}]})),
        ("$not", json!({"$not": {"felt": 1}})),
        ("to-one key", json!({"region": 1})),
        ("to-one path", json!({"region.name": "Alaska"})),
    ];
    for (name, filter) in cases {
        let limits = Limits::default();
        let ast = ast::parse(&filter, &limits, false).expect("a filter");
        let predicate =
            compile(&ast, &tables.catalog, &schema, &Unrestricted, &limits).expect("compiles");
        let related = tables.gather(&schema, &predicate.paths(&tables.catalog, &schema));
        criterion.bench_function(&format!("filter/{name}"), |bencher| {
            bencher.iter(|| {
                eval::matches(
                    black_box(&predicate),
                    &tables.catalog,
                    &schema,
                    black_box(&row),
                    &related,
                )
            });
        });
    }
    let filter = json!({"status": "reviewed", "magnitude": {"$gte": 4.5, "$lt": 6}});
    criterion.bench_function("filter/parse and compile", |bencher| {
        let limits = Limits::default();
        bencher.iter(|| {
            let ast = ast::parse(black_box(&filter), &limits, false).expect("a filter");
            compile(&ast, &tables.catalog, &schema, &Unrestricted, &limits).expect("compiles")
        });
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
