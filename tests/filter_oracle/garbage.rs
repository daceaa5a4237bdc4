//! What is no filter: refused with a 400, never a panic, and never taken for something else.

use rowcast::filter::ast;
use rowcast::filter::compile::{Unrestricted, compile};
use rowcast::limits::Limits;
use serde_json::{Map, Value as Json, json};

use crate::world::{Random, world};

const KEYS: [&str; 24] = [
    "$and",
    "$or",
    "$not",
    "$eq",
    "$neq",
    "$gt",
    "$like",
    "$contains",
    "$in",
    "$nin",
    "$null",
    "$x",
    "a_int8",
    "a_string",
    "a_json",
    "a_time",
    "tags",
    "tags.a_text",
    "parent",
    "parent_id",
    "0",
    "",
    "parent.children.tags.badge",
    "nothing",
];

fn garbage(random: &mut Random, depth: usize) -> Json {
    let scalars = [
        Json::Null,
        json!(true),
        json!(5),
        json!(-1.5),
        json!(1e300),
        json!(u64::MAX),
        json!("a%"),
        json!("\\"),
        json!("null"),
        json!("5"),
        json!("2024-01-01"),
        json!(""),
    ];
    match random.below(if depth > 5 { 1 } else { 6 }) {
        0 => scalars[random.below(scalars.len())].clone(),
        1 => (0..random.below(3)).map(|_| garbage(random, depth + 1)).collect(),
        _ => {
            let entries = (0..random.below(3))
                .map(|_| (random.pick(&KEYS).to_owned(), garbage(random, depth + 1)));
            Json::Object(Map::from_iter(entries))
        }
    }
}

#[test]
fn garbage_is_refused() {
    let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_nanos() as u64);
    println!("seed {seed}");
    let mut random = Random(seed);
    let tables = world(&mut random);
    let schema = tables.schema("node");
    let limits = Limits { filter_nodes: 8, filter_depth: 4, ..Limits::default() };
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..40_000 {
        let filter = garbage(&mut random, 0);
        let untyped = random.chance(50);
        let compiled = ast::parse(&filter, &limits, untyped).and_then(|ast| {
            assert!(ast.fields().iter().all(|name| !name.contains('.')), "{filter}");
            compile(&ast, &tables.catalog, &schema, &Unrestricted, &limits)
        });
        match compiled {
            Ok(predicate) => {
                taken += 1;
                let (by_eval, by_sql) =
                    (tables.by_eval(&schema, &predicate), tables.by_sql(&schema, &predicate));
                assert_eq!(by_eval, by_sql, "seed {seed}: {filter}");
            }
            Err(error) => {
                refused += 1;
                assert_eq!(error.status(), 400, "{filter}");
                assert!(error.message.len() < 1_000, "{filter}: {}", error.message);
            }
        }
    }
    assert!(taken > 1_000 && refused > 10_000, "{taken} taken, {refused} refused");
}
