//! Whatever a generated filter is TRUE of is found through the index: every plan that matches a
//! record is among its candidates, while plans come and go.

use std::collections::BTreeMap;
use std::sync::Arc;

use rowcast::filter::compile::compile;
use rowcast::filter::{Predicate, Truth, ast};
use rowcast::limits::Limits;
use rowcast::live::index::{Filed, Index};
use rowcast::model::schema::Schema;

use serde_json::{Value as Json, json};

use super::generate::filter;
use super::tables::{Sight, Tables};
use super::world::{Random, world};
use super::{Coverage, seed, sight};

const WORLDS: usize = 6;
const STEPS: usize = 900;

struct Plan {
    predicate: Predicate,
    filed: Filed,
    /// Places of the records that match, in the order the tables have them.
    matches: Vec<usize>,
    said: String,
}

/// What was filed, by the plan's number.
type Plans = BTreeMap<usize, (Arc<Schema>, Plan)>;

/// How well plans were found.
#[derive(Default, Debug)]
struct Tally {
    pairs: usize,
    matches: usize,
    candidates: usize,
    plans: usize,
    scanned: usize,
}

#[test]
fn every_match_is_a_candidate() {
    let seed = seed();
    let mut random = Random(seed);
    let mut tally = Tally::default();
    for _ in 0..WORLDS {
        let tables = world(&mut random);
        let (mut index, mut plans) = (Index::default(), Plans::new());
        for step in 0..STEPS {
            // Numbers are used again, as a registry uses them again.
            let number = random.below(STEPS / 4);
            if let Some((schema, plan)) = plans.remove(&number) {
                index.remove(number, &plan.filed);
                assert!(index.unfiled(schema.id) <= index.scanned(schema.id));
                assert!(index.scanned(schema.id) <= plans.len());
            } else {
                let (schema, plan) = add(&mut random, &tables, &mut index, number, &mut tally);
                plans.insert(number, (schema, plan));
            }
            if step % 40 == 0 || step + 1 == STEPS {
                check(seed, &tables, &index, &["node", "tag", "badge"], &plans, &mut tally);
            }
        }
        for (number, (_, plan)) in plans {
            index.remove(number, &plan.filed);
        }
        assert!(index.is_empty(), "ROWCAST_SEED={seed}: something is left of those who left");
    }
    println!("{tally:?}");
    assert!(tally.pairs > 20_000 && tally.matches * 50 > tally.pairs, "{tally:?}");
    // What is scanned is about related records, or about all.
    assert!(tally.scanned > 100 && tally.scanned * 3 < tally.plans * 2, "{tally:?}");
    assert!(tally.candidates < tally.pairs, "{tally:?}");
}

fn add(
    random: &mut Random,
    tables: &Tables,
    index: &mut Index,
    number: usize,
    tally: &mut Tally,
) -> (Arc<Schema>, Plan) {
    let schema = tables.schema(random.pick(&["node", "node", "node", "tag", "badge"]));
    let hiding = sight(random, tables);
    let said = filter(random, tables, &schema, 0, &mut 12, &mut Coverage::default());
    let before = index.unfiled(schema.id);
    let plan = file(tables, &schema, index, number, &said, &hiding.sight);
    tally.plans += 1;
    if index.unfiled(schema.id) > before {
        tally.scanned += 1;
        let related = !plan.predicate.paths(&tables.catalog, &schema).is_empty();
        assert!(related || plan.predicate == Predicate::ALL, "scanned: {said}");
    }
    (schema, plan)
}

fn file(
    tables: &Tables,
    schema: &Arc<Schema>,
    index: &mut Index,
    number: usize,
    said: &Json,
    sight: &Sight,
) -> Plan {
    let limits = Limits::default();
    let tree = ast::parse(said, &limits, false).expect("a filter");
    let predicate = compile(&tree, &tables.catalog, schema, sight, &limits).expect("compiles");
    let truths = tables.by_eval(schema, &predicate);
    let matching = |(at, (_, truth))| (truth == Truth::True).then_some(at);
    let matches = truths.into_iter().enumerate().filter_map(matching).collect();
    let filed = index.add(number, &tables.catalog, schema, &predicate);
    Plan { predicate, filed, matches, said: said.to_string() }
}

/// Texts long enough to be filed by what stands in them.
#[test]
fn texts_are_found_by_what_stands_in_them() {
    let seed = seed();
    let mut random = Random(seed);
    let mut tables = Tables::new(&[json!({
        "name": "note", "namespace": "notes", "label_field": "text", "disable_timestamp": true,
        "fields": [{"name": "text", "label": "T", "type": "text", "optional": true}],
    })]);
    let word = |random: &mut Random, most: usize| -> String {
        (0..random.below(most))
            .map(|_| *random.pick(&[&'a', &'b', &'A', &'é', &'É', &'-']))
            .collect()
    };
    for id in 1..60 {
        let text = word(&mut random, [6, 40, 400][id % 3]);
        tables.insert("note", &json!({"id": id, "text": text}));
    }
    let schema = tables.schema("note");
    let (mut index, mut plans) = (Index::default(), Plans::new());
    for number in 0..600 {
        let text = word(&mut random, 8);
        let said = match random.below(8) {
            0 => json!({"text": {"$contains": text}}),
            1 => json!({"text": {"$containsfold": text}}),
            2 => json!({"text": {"$like": format!("{text}%")}}),
            3 => json!({"text": {"$like": format!("%{text}")}}),
            4 => json!({"text": {"$like": format!("%{text}%{}%", word(&mut random, 5))}}),
            5 => json!({"$not": {"text": {"$notcontains": text}}}),
            6 => json!({"$not": {"$or": [{"text": {"$notcontainsfold": text}}, {"id": 7}]}}),
            _ => json!({"$or": [{"text": text}, {"text": {"$contains": format!("{text}a")}}]}),
        };
        let plan = file(&tables, &schema, &mut index, number, &said, &Sight::default());
        plans.insert(number, (schema.clone(), plan));
    }
    let mut tally = Tally::default();
    check(seed, &tables, &index, &["note"], &plans, &mut tally);
    // Some left, some came back.
    for number in (0..600).filter(|number| number % 3 > 0) {
        index.remove(number, &plans.remove(&number).expect("it was filed").1.filed);
    }
    check(seed, &tables, &index, &["note"], &plans, &mut tally);
    plans.into_iter().for_each(|(number, (_, plan))| index.remove(number, &plan.filed));
    assert!(index.is_empty());
    println!("{tally:?}");
    assert!(tally.matches > 1_000 && tally.candidates * 3 < tally.pairs * 2, "{tally:?}");
}

/// What is said to be scanned: whatever all rows come by, or all that have a value.
#[test]
fn what_is_scanned_is_counted() {
    let field =
        |name: &str, ty: &str| json!({"name": name, "label": name, "type": ty, "optional": true});
    let tables = Tables::new(&[json!({
        "name": "note", "namespace": "notes", "label_field": "text", "disable_timestamp": true,
        "fields": [field("text", "text"), field("views", "int"), field("open", "bool")],
    })]);
    let schema = tables.schema("note");
    let cases = [
        (1, json!({})),
        (1, json!({"text": {"$contains": "ab"}})),
        (1, json!({"text": {"$containsfold": "ab"}})),
        (1, json!({"text": {"$like": "%ab_"}})),
        (1, json!({"text": {"$neq": "abc"}})),
        (1, json!({"text": {"$notcontains": "abc"}})),
        (1, json!({"views": {"$nin": [1, 2]}})),
        (1, json!({"$or": [{"views": 7}, {"text": {"$like": "_b_"}}]})),
        (1, json!({"$or": [{"views": {"$neq": 1}}, {"text": {"$neq": "a"}}]})),
        (1, json!({"$and": [{"text": {"$null": false}}, {"text": {"$neq": "a"}}]})),
        (1, json!({"text": {"$null": false}, "$or": [{"text": {"$neq": "a"}}, {"views": 7}]})),
        (1, json!({"$or": [{"views": 7}, {"text": {"$null": false}}]})),
        (1, json!({"$or": [{"views": {"$neq": 7}}, {"views": {"$null": false}}]})),
        (0, json!({"text": {"$contains": "abc"}})),
        (0, json!({"text": {"$like": "a%"}})),
        (0, json!({"text": {"$null": true}})),
        // Asked for, and nothing else: whoever comes by matches.
        (0, json!({"text": {"$null": false}})),
        (0, json!({"$not": {"text": {"$null": true}}})),
        (0, json!({"open": {"$neq": true}})),
        (0, json!({"views": {"$gt": 1}})),
        (0, json!({"views": 7, "text": {"$contains": "ab"}})),
        (0, json!({"$or": [{"views": 7}, {"text": {"$containsfold": "abc"}}]})),
    ];
    let (mut index, mut filed, mut all) = (Index::default(), Vec::new(), 0);
    for (number, (scanned, said)) in cases.iter().enumerate() {
        filed.push(file(&tables, &schema, &mut index, number, said, &Sight::default()).filed);
        all += scanned;
        assert_eq!(index.scanned(schema.id), all, "{said}");
        assert_eq!(index.unfiled(schema.id), 1, "{said}");
    }
    for (number, (scanned, said)) in cases.iter().enumerate() {
        index.remove(number, &filed[number]);
        all -= scanned;
        assert_eq!(index.scanned(schema.id), all, "{said}");
    }
    assert!(index.is_empty());
}

fn check(
    seed: u64,
    tables: &Tables,
    index: &Index,
    names: &[&str],
    plans: &Plans,
    tally: &mut Tally,
) {
    for name in names {
        let schema = tables.schema(name);
        for (at, row) in tables.rows(&schema).iter().enumerate() {
            let mut found = Vec::new();
            index.look_up(schema.id, schema.version, [&**row], &mut found);
            tally.candidates += found.len();
            found.sort_unstable();
            assert!(found.windows(2).all(|two| two[0] < two[1]), "ROWCAST_SEED={seed}: twice");
            for (number, (_, plan)) in plans.iter().filter(|(_, (of, _))| of.id == schema.id) {
                tally.pairs += 1;
                if plan.matches.contains(&at) {
                    tally.matches += 1;
                    assert!(
                        found.binary_search(number).is_ok(),
                        "ROWCAST_SEED={seed}\n{name}: {} matches {row:?}\n{:?}\nfiled {:?}",
                        plan.said,
                        plan.predicate,
                        plan.filed,
                    );
                }
            }
            for number in found {
                assert!(plans.get(&number).is_some_and(|(of, _)| of.id == schema.id));
            }
        }
    }
}
