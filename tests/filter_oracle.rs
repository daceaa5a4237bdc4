//! Generated filters on generated records: the evaluator, SQLite and a naive reading of the rules
//! must agree on every pair, relations, hidden records and nulls included.
//!
//! `ROWCAST_SEED=… cargo test --test filter_oracle` repeats a run.

mod naive;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rowcast::filter::compile::{Unrestricted, compile};
use rowcast::filter::{Predicate, Truth, ast, eval};
use rowcast::limits::Limits;
use rowcast::model::change::Row;
use rowcast::model::related::NoRelated;
use rowcast::model::schema::{Column, FieldRef, Schema, Shape};
use rowcast::model::value::FieldType;
use serde_json::{Map, Value as Json, json};
use tables::{Seen, Sight, Tables};

const WORLDS: usize = 8;
const FILTERS: usize = 400;
const NODES: usize = 10;

#[test]
fn evaluator_and_sqlite_agree() {
    let seed = std::env::var("ROWCAST_SEED").ok().map_or_else(
        || std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_nanos() as u64),
        |seed| seed.parse().expect("ROWCAST_SEED is a number"),
    );
    println!("ROWCAST_SEED={seed}");
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

/// SplitMix64: small, good enough, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

const ENUMS: [&str; 3] = ["draft", "published", "in review"];

fn world(random: &mut Random) -> Tables {
    let relation = |name: &str, schema: &str, back: &str, kind: &str, owner: bool| {
        json!({"type": "relation", "name": name, "label": name, "optional": true,
               "relation": {"schema": schema, "field": back, "type": kind, "owner": owner,
                            "optional": true}})
    };
    let columns = || -> Vec<Json> {
        let column = |(ty, _): (&str, FieldType)| {
            let mut field = json!({"type": ty, "name": format!("a_{ty}"), "label": ty,
                                   "optional": true});
            if ty == "enum" {
                let words = ENUMS.map(|word| json!({"value": word, "label": word}));
                field["enums"] = words.as_slice().into();
            }
            field
        };
        FieldType::NAMES.into_iter().map(column).collect()
    };
    let schema = |name: &str, relations: &[Json]| {
        let mut fields = columns();
        fields.extend_from_slice(relations);
        json!({"name": name, "namespace": format!("{name}s"), "label_field": "a_string",
               "disable_timestamp": true, "fields": fields})
    };
    let mut badge = schema(
        "badge",
        &[
            relation("node", "node", "badge", "o2o", false),
            relation("tags", "tag", "badge", "o2m", true),
        ],
    );
    let key = json!({"type": "uuid", "name": "id", "label": "id", "db": {"key": "PRI"}});
    badge["fields"].as_array_mut().expect("fields").push(key);
    let mut tables = Tables::new(&[
        schema(
            "node",
            &[
                relation("parent", "node", "children", "o2m", false),
                relation("children", "node", "parent", "o2m", true),
                relation("tags", "tag", "nodes", "m2m", true),
                relation("badge", "badge", "node", "o2o", true),
            ],
        ),
        schema(
            "tag",
            &[
                relation("nodes", "node", "tags", "m2m", false),
                relation("badge", "badge", "tags", "o2m", false),
            ],
        ),
        badge,
    ]);
    let record = |random: &mut Random, schema: &Schema, id: Json| {
        let mut record = Map::from_iter([("id".to_owned(), id)]);
        for column in schema.columns.iter().filter(|column| column.name.starts_with("a_")) {
            if random.chance(75) {
                record.insert(column.name.to_string(), literal(random, column.ty));
            }
        }
        record
    };
    let (node, tag, badge) = (tables.schema("node"), tables.schema("tag"), tables.schema("badge"));
    // Each node may have one badge; some badges lie about.
    for index in 0..6 {
        let mut badge = record(random, &badge, json!(uuid(index)));
        if random.chance(70) {
            badge.insert("node".to_owned(), json!(index + 1));
        }
        tables.insert("badge", &badge.into());
    }
    for id in 1..=6 {
        let mut tag = record(random, &tag, json!(id));
        if random.chance(60) {
            tag.insert("badge".to_owned(), json!(uuid(random.below(6))));
        }
        tables.insert("tag", &tag.into());
    }
    for id in 1..=NODES {
        let mut node = record(random, &node, json!(id));
        if random.chance(70) {
            node.insert("parent".to_owned(), json!(random.below(NODES) + 1));
        }
        let tags: Vec<usize> = (1..=6).filter(|_| random.chance(30)).collect();
        node.insert("tags".to_owned(), json!(tags));
        tables.insert("node", &node.into());
    }
    tables
}

fn uuid(index: usize) -> String {
    format!("0190163d-8694-739b-aea5-{:012x}", [0x2a_u64, 0xffff, 1, 0x80_0000_0000, 7, 9][index])
}

/// A value of the type out of a few, so that equal ones meet.
fn literal(random: &mut Random, ty: FieldType) -> Json {
    let one = |random: &mut Random, from: &[Json]| from[random.below(from.len())].clone();
    if let Some((least, most)) = ty.int_range() {
        let far = most.min(9_007_199_254_740_993);
        return one(
            random,
            &[json!(least), json!(0), json!(5), json!(far - 1), json!(far), json!(most)],
        );
    }
    match ty {
        FieldType::Bool => json!(random.chance(50)),
        FieldType::Float32 => one(random, &[json!(0), json!(0.1), json!(-1.5), json!(3.4e38)]),
        FieldType::Float64 => {
            one(random, &[json!(0), json!(0.1), json!(-1.5), json!(1e300), json!(7)])
        }
        FieldType::Enum => json!(random.pick(&ENUMS)),
        FieldType::Uuid => json!(uuid(random.below(6))),
        FieldType::Time => one(
            random,
            &[
                json!("2024-02-29"),
                json!("2024-02-29T01:00:00+01:00"),
                json!("1969-12-31T23:59:59.9999999Z"),
                json!("0001-01-01"),
                json!("9999-12-31 23:59:59"),
            ],
        ),
        FieldType::Json => one(
            random,
            &[
                json!(1),
                json!(1.0),
                json!([1, null]),
                json!({"b": 1, "a": "x"}),
                json!("x"),
                json!(false),
            ],
        ),
        FieldType::Bytes => one(random, &[json!(""), json!("AA=="), json!("AAEC"), json!("/+8=")]),
        _ => json!(word(random)),
    }
}

/// Text over an alphabet in which patterns, escapes and letter case mean something.
fn word(random: &mut Random) -> String {
    (0..random.below(5))
        .map(|_| *random.pick(&[&'a', &'b', &'B', &'é', &'É', &'%', &'_', &'\n']))
        .collect()
}

fn pattern(random: &mut Random) -> String {
    let pieces = ["a", "b", "B", "é", "%", "%", "_", "\\%", "\\_", "\\\\", "\n"];
    (0..random.below(5)).map(|_| random.pick(&pieces)).collect()
}

fn takes(operator: &str, ty: FieldType) -> bool {
    match operator {
        "$eq" | "$neq" | "$null" => true,
        "$in" | "$nin" => ty != FieldType::Json,
        "$gt" | "$gte" | "$lt" | "$lte" => !matches!(ty, FieldType::Json | FieldType::Bytes),
        _ => matches!(ty, FieldType::String | FieldType::Text | FieldType::Enum),
    }
}

fn filter(
    random: &mut Random,
    tables: &Tables,
    schema: &Arc<Schema>,
    depth: usize,
    budget: &mut usize,
    seen: &mut Coverage,
) -> Json {
    let mut object = Map::new();
    let keys = if random.chance(75) { 1 } else { random.below(3) };
    for _ in 0..keys {
        *budget = budget.saturating_sub(1);
        let mut deeper =
            |random: &mut Random| filter(random, tables, schema, depth + 1, budget, seen);
        match random.below(10) {
            0 | 1 if depth < 4 => {
                let count = random.below(4);
                let filters: Vec<Json> = (0..count).map(|_| deeper(random)).collect();
                let name = if random.chance(50) { "$and" } else { "$or" };
                object.insert(name.to_owned(), filters.into());
            }
            2 if depth < 4 => {
                let inner = deeper(random);
                object.insert("$not".to_owned(), inner);
            }
            _ => {
                let (path, value) = comparison(random, tables, schema, seen);
                object.insert(path, value);
            }
        }
    }
    object.into()
}

/// A path and what it is compared with.
fn comparison(
    random: &mut Random,
    tables: &Tables,
    schema: &Arc<Schema>,
    seen: &mut Coverage,
) -> (String, Json) {
    let mut path: Vec<String> = Vec::new();
    let mut at = schema.clone();
    let hops = [0, 0, 1, 1, 2, 3][random.below(6)];
    let mut column: Option<Column> = None;
    for hop in 0..hops {
        let relation = at.relations[random.below(at.relations.len())].clone();
        let shape = match relation.shape {
            Shape::Key { .. } => "key",
            Shape::BackKey { .. } => "back key",
            Shape::Many { .. } => "many",
            Shape::Link { .. } => "link",
        };
        *seen.shapes.entry(shape).or_default() += 1;
        let last = hop + 1 == hops;
        let bare = last && random.chance(35);
        let by_key = bare && matches!(relation.shape, Shape::Key { .. }) && random.chance(50);
        path.push(if by_key { format!("{}_id", relation.name) } else { relation.name.to_string() });
        at = tables.catalog.get(relation.target).expect("a target").clone();
        if bare {
            column = Some(at.primary_column().clone());
            seen.bare += 1;
        }
    }
    seen.hops[hops] += 1;
    let bare = column.is_some();
    let column = column.unwrap_or_else(|| {
        let own: Vec<&Column> = at.columns.iter().filter(|c| c.key_of.is_none()).collect();
        let column = random.pick(&own).clone();
        path.push(column.name.to_string());
        column
    });
    let mut operators = Map::new();
    let count = if random.chance(70) { 1 } else { 1 + random.below(3) };
    for _ in 0..count {
        let name = random.pick(&ast::Operator::ALL.map(|operator| operator.name()));
        if takes(name, column.ty) {
            if !bare {
                seen.tests.insert((name, column.ty.name()));
            }
            operators.insert(name.to_owned(), operand(random, name, &column));
        }
    }
    seen.several += usize::from(operators.len() > 1);
    let path = path.join(".");
    match operators.get("$eq") {
        Some(value) if operators.len() == 1 && !value.is_object() && random.chance(50) => {
            (path, value.clone())
        }
        _ if operators.is_empty() => (path, json!({"$null": random.chance(50)})),
        _ => (path, operators.into()),
    }
}

fn operand(random: &mut Random, operator: &str, column: &Column) -> Json {
    let value = |random: &mut Random| match &*column.name {
        "id" if column.ty != FieldType::Uuid => json!(random.below(NODES + 1)),
        _ => literal(random, column.ty),
    };
    match operator {
        "$null" => json!(random.chance(50)),
        "$eq" | "$neq" if random.chance(10) => Json::Null,
        "$in" | "$nin" => {
            let count = random.below(7);
            (0..count).map(|_| value(random)).collect::<Vec<_>>().into()
        }
        "$like" | "$notlike" => json!(pattern(random)),
        "$contains" | "$notcontains" | "$containsfold" | "$notcontainsfold" => json!(word(random)),
        _ => value(random),
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
