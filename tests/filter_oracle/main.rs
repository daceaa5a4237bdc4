//! Generated filters on generated records: the evaluator, SQLite and a naive reading of the rules
//! must agree on every pair, relations, hidden records and nulls included.
//!
//! `ROWCAST_SEED=… cargo test --test filter_oracle` repeats a run.

mod garbage;
mod generate;
mod index;
mod naive;
#[path = "../tables/mod.rs"]
mod tables;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use generate::{filter, operand, takes};
use rowcast::filter::compile::{Unrestricted, compile};
use rowcast::filter::{Predicate, Truth, ast, eval};
use rowcast::limits::Limits;
use rowcast::model::change::Row;
use rowcast::model::related::NoRelated;
use rowcast::model::schema::{Column, FieldRef, Schema};
use rowcast::model::value::FieldType;
use serde_json::{Value as Json, json};
use tables::{Seen, Sight, Tables};
use world::{Random, world};

const WORLDS: usize = 8;
const FILTERS: usize = 400;

#[test]
fn evaluator_and_sqlite_agree() {
    let seed = seed();
    let mut random = Random(seed);
    let mut seen = Coverage::default();
    for _ in 0..WORLDS {
        let tables = world(&mut random);
        for _ in 0..FILTERS {
            let schema = tables.schema(random.pick(&["node", "node", "node", "tag", "badge"]));
            let sight = sight(&mut random, &tables);
            let mut budget = 12;
            let filter = filter(&mut random, &tables, &schema, 0, &mut budget, &mut seen);
            seen.hidden += usize::from(!sight.filters.is_empty());
            if let Some(apart) = disagreement(&tables, &schema, &sight, &filter, &mut seen) {
                let small = shrink(&tables, &schema, &sight, &filter);
                panic!(
                    "ROWCAST_SEED={seed}\n{apart}\nof {}: {filter}\nsmallest: {small}\nseen: {:?}",
                    schema.name, sight.filters
                );
            }
        }
    }
    seen.check();
}

/// A new one each run, unless one is given.
fn seed() -> u64 {
    let seed = std::env::var("ROWCAST_SEED").ok().map_or_else(
        || std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_nanos() as u64),
        |seed| seed.parse().expect("ROWCAST_SEED is a number"),
    );
    println!("ROWCAST_SEED={seed}");
    seed
}

/// What the generator reached.
#[derive(Default)]
struct Coverage {
    pairs: usize,
    truths: BTreeMap<&'static str, usize>,
    /// (operator, type) of every comparison.
    tests: BTreeSet<(&'static str, &'static str)>,
    /// Shapes crossed, by name.
    shapes: BTreeMap<&'static str, usize>,
    hops: [usize; 4],
    bare: usize,
    several: usize,
    hidden: usize,
}

impl Coverage {
    fn check(&self) {
        println!(
            "{} pairs {:?}, {} operators × types, {:?}, hops {:?}, {} bare, {} hidden",
            self.pairs,
            self.truths,
            self.tests.len(),
            self.shapes,
            self.hops,
            self.bare,
            self.hidden
        );
        assert!(self.pairs >= 20_000, "{} pairs", self.pairs);
        for truth in ["true", "false", "unknown"] {
            let part = self.truths.get(truth).copied().unwrap_or(0);
            assert!(part > self.pairs / 50, "{truth}: {part} of {}", self.pairs);
        }
        for operator in ast::Operator::ALL {
            for (name, ty) in FieldType::NAMES {
                let covered = self.tests.contains(&(operator.name(), name));
                assert_eq!(covered, takes(operator.name(), ty), "{} on {name}", operator.name());
            }
        }
        for shape in ["key", "back key", "many", "link"] {
            assert!(self.shapes.get(shape).is_some_and(|count| *count > 100), "{:?}", self.shapes);
        }
        assert!(self.hops.iter().all(|count| *count > 100), "{:?}", self.hops);
        assert!(self.bare > 100 && self.several > 100 && self.hidden > 100);
    }
}

/// Which records may be seen: for the compile step as predicates, for the naive reading as
/// filters.
#[derive(Default)]
struct Hiding {
    sight: Sight,
    filters: BTreeMap<String, Json>,
    predicates: BTreeMap<String, Arc<Predicate>>,
}

fn sight(random: &mut Random, tables: &Tables) -> Hiding {
    let mut hiding = Hiding::default();
    if random.chance(60) {
        return hiding;
    }
    for name in ["node", "tag", "badge"] {
        if random.chance(40) {
            continue;
        }
        let schema = tables.schema(name);
        let own: Vec<&Column> =
            schema.columns.iter().filter(|c| c.key_of.is_none() && c.ty.is_ordered()).collect();
        let column = random.pick(&own);
        let operator = random.pick(&["$eq", "$neq", "$gt", "$lte", "$nin", "$null"]);
        let filter = json!({&*column.name: {operator: operand(random, operator, column)}});
        // `$gt: null` and the like are refused; hide nothing then.
        let limits = Limits::default();
        let predicate = ast::parse(&filter, &limits, false)
            .and_then(|ast| compile(&ast, &tables.catalog, &schema, &Unrestricted, &limits));
        let Ok(predicate) = predicate.map(Arc::new) else { continue };
        hiding.filters.insert(name.to_owned(), filter);
        hiding.predicates.insert(name.to_owned(), predicate.clone());
        let seen = Seen { fields: None, visible: Some(predicate) };
        hiding.sight.0.insert(name.to_owned(), seen);
    }
    hiding
}

/// Where the three part, if they do.
fn disagreement(
    tables: &Tables,
    schema: &Arc<Schema>,
    hiding: &Hiding,
    filter: &Json,
    seen: &mut Coverage,
) -> Option<String> {
    let limits = Limits::default();
    let predicate = ast::parse(filter, &limits, false)
        .and_then(|ast| compile(&ast, &tables.catalog, schema, &hiding.sight, &limits));
    let predicate = match predicate {
        Ok(predicate) => predicate,
        Err(error) => return Some(format!("refused: {error}")),
    };
    let visible = |schema: &Schema, row: &Row| {
        hiding.predicates.get(&*schema.name).is_none_or(|predicate| {
            eval::matches(predicate, &tables.catalog, schema, row, &NoRelated)
        })
    };
    let by_eval = tables.by_eval(schema, &predicate);
    let by_sql = tables.by_sql(schema, &predicate);
    for ((row, (key, truth)), (_, sql)) in tables.rows(schema).iter().zip(by_eval).zip(by_sql) {
        seen.pairs += 1;
        let name = match truth {
            Truth::True => "true",
            Truth::False => "false",
            Truth::Unknown => "unknown",
        };
        *seen.truths.entry(name).or_default() += 1;
        let naive = naive::eval(tables, &visible, schema, row, filter);
        if truth != sql || truth != naive {
            return Some(format!(
                "record {}: evaluator {truth:?}, SQLite {sql:?}, naive {naive:?}\n{predicate:?}\n{row:?}",
                key.to_json()
            ));
        }
    }
    None
}

/// The smallest part of the filter on which they still part.
fn shrink(tables: &Tables, schema: &Arc<Schema>, hiding: &Hiding, filter: &Json) -> Json {
    let object = filter.as_object().expect("a filter");
    let mut smaller: Vec<Json> = Vec::new();
    for (key, value) in object {
        if object.len() > 1 {
            smaller.push(json!({key: value}));
        }
        match value {
            Json::Array(filters) if key.starts_with('$') => smaller.extend(filters.iter().cloned()),
            Json::Object(_) if key == "$not" => smaller.push(value.clone()),
            Json::Object(operators) if operators.len() > 1 => smaller
                .extend(operators.iter().map(|(name, literal)| json!({key: {name: literal}}))),
            _ => {}
        }
    }
    smaller
        .iter()
        .find(|part| disagreement(tables, schema, hiding, part, &mut Coverage::default()).is_some())
        .map_or_else(|| filter.clone(), |part| shrink(tables, schema, hiding, part))
}

#[test]
fn paths_name_what_is_read() {
    let tables = world(&mut Random(1));
    let schema = tables.schema("node");
    let limits = Limits::default();
    let ast = ast::parse(
        &json!({"parent.tags.a_string": "a", "parent": 1, "children": {"$neq": 2}}),
        &limits,
        false,
    )
    .expect("a filter");
    assert_eq!(ast.fields(), ["parent", "children"]);
    let predicate =
        compile(&ast, &tables.catalog, &schema, &Unrestricted, &limits).expect("compiles");
    let paths = predicate.paths(&tables.catalog, &schema);
    let names = |paths: &rowcast::model::related::Paths| -> Vec<String> {
        paths.0.keys().map(|name| name.to_string()).collect()
    };
    assert_eq!(names(&paths), ["children", "parent"]);
    assert_eq!(names(&paths.0["parent"]), ["tags"]);
    assert!(matches!(schema.field("parent_id"), Some(FieldRef::Column(_))));
}
