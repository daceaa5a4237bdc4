//! Whatever a generated filter is TRUE of is found through the index: every plan that matches a
//! record is among its candidates, while plans come and go.

use std::collections::BTreeMap;
use std::sync::Arc;

use rowcast::filter::compile::compile;
use rowcast::filter::{Predicate, Truth, ast};
use rowcast::limits::Limits;
use rowcast::live::index::{Filed, Index};
use rowcast::model::schema::Schema;

use super::generate::filter;
use super::tables::Tables;
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
                assert!(index.scanned(schema.id) <= plans.len());
            } else {
                let (schema, plan) = add(&mut random, &tables, &mut index, number, &mut tally);
                plans.insert(number, (schema, plan));
            }
            if step % 40 == 0 || step + 1 == STEPS {
                check(seed, &tables, &index, &plans, &mut tally);
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
    let limits = Limits::default();
    let tree = ast::parse(&said, &limits, false).expect("a filter");
    let predicate = compile(&tree, &tables.catalog, &schema, &hiding.sight, &limits);
    let predicate = predicate.expect("compiles");
    let truths = tables.by_eval(&schema, &predicate);
    let matching = |(at, (_, truth))| (truth == Truth::True).then_some(at);
    let matches = truths.into_iter().enumerate().filter_map(matching).collect();
    let before = index.scanned(schema.id);
    let filed = index.add(number, &tables.catalog, &schema, &predicate);
    tally.plans += 1;
    if index.scanned(schema.id) > before {
        tally.scanned += 1;
        let related = !predicate.paths(&tables.catalog, &schema).is_empty();
        assert!(related || predicate == Predicate::ALL, "scanned: {said}");
    }
    (schema, Plan { predicate, filed, matches, said: said.to_string() })
}

fn check(seed: u64, tables: &Tables, index: &Index, plans: &Plans, tally: &mut Tally) {
    for name in ["node", "tag", "badge"] {
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
