//! One change against very many plans: what the index finds, each checked exactly, as the fan-out
//! does it; and what a plan costs that comes or goes while the others are there.
//!
//! Aims, on one core: 5 us a change against a million distinct equalities, 50 us against 100,000
//! mixed ones, and neither grows with the number of plans. `cargo bench --bench index` takes some two
//! minutes; the longest stop of a single insert while the index fills is printed beside.
//! `INDEX_KINDS=ranges,mixed` measures those alone.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rowcast::filter::compile::{Unrestricted, compile};
use rowcast::filter::{Predicate, ast, eval};
use rowcast::limits::Limits;
use rowcast::live::index::{Filed, Index};
use rowcast::model::catalog::Catalog;
use rowcast::model::change::Row;
use rowcast::model::related::NoRelated;
use rowcast::model::schema::Schema;
use rowcast::model::value::Value;
use rowcast::model::{file, link, system};
use serde_json::{Value as Json, json};

const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// Plans that come and go at a time.
const GUESTS: usize = 1_000;
const ROWS: usize = 1_000;

const PARCEL: &str = r#"{
  "name": "parcel", "namespace": "parcels", "label_field": "owner", "disable_timestamp": true,
  "fields": [
    { "name": "owner", "label": "Owner", "type": "string" },
    { "name": "weight", "label": "Weight", "type": "int" },
    { "name": "route", "label": "Route", "type": "string" },
    { "name": "status", "label": "Status", "type": "enum",
      "enums": [{ "value": "sent", "label": "S" }, { "value": "there", "label": "T" }] },
    { "name": "at", "label": "At", "type": "time", "optional": true },
    { "name": "note", "label": "Note", "type": "text", "optional": true }
  ]
}"#;

/// The n-th filter of a kind; every row matches one or two of each.
type Kind = fn(usize) -> Json;

fn equality(n: usize) -> Json {
    json!({"owner": format!("owner-{n}"), "status": "sent"})
}

fn range(n: usize) -> Json {
    json!({"weight": {"$gte": 10 * n, "$lt": 10 * n + 15}})
}

fn mixed(n: usize) -> Json {
    match n % 6 {
        0 | 3 => equality(n),
        1 | 4 => range(n),
        2 => json!({"route": {"$like": format!("route-{n}-%")}}),
        _ => json!({"$or": [{"owner": format!("owner-{n}")}, {"route": format!("route-{n}")}]}),
    }
}

fn substring(n: usize) -> Json {
    json!({"note": {"$contains": letters(n as u64, 8)}})
}

/// Letters by chance, always the same of one number.
fn letters(of: u64, count: usize) -> String {
    let mut state = of.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let letters = std::iter::repeat_with(|| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + ((state >> 33) % 26) as u8)
    });
    letters.take(count).collect()
}

struct Stage {
    catalog: Catalog,
    schema: Arc<Schema>,
    index: Index,
    plans: Vec<(Predicate, Filed)>,
    kind: Kind,
}

impl Stage {
    fn new(kind: Kind) -> Stage {
        let mut defs = system::schemas();
        defs.push(file::parse(None, PARCEL.as_bytes()).def.expect("a good schema"));
        let linked = link::link(&defs).expect("schemas that fit");
        let catalog = Catalog::new(1, linked.schemas.into_iter().map(Arc::new).collect());
        let schema = catalog.named("parcel").expect("it is there").clone();
        Stage { catalog, schema, index: Index::default(), plans: Vec::new(), kind }
    }

    /// Adds plans until there are so many. What that took, and the longest of them.
    fn fill(&mut self, size: usize) -> (Duration, Duration) {
        let (mut longest, mut all) = (Duration::ZERO, Duration::ZERO);
        for n in self.plans.len()..size {
            let predicate = self.predicate(n);
            let started = Instant::now();
            let filed = self.index.add(n, &self.catalog, &self.schema, &predicate);
            let took = started.elapsed();
            (longest, all) = (longest.max(took), all + took);
            self.plans.push((predicate, filed));
        }
        (all, longest)
    }

    fn predicate(&self, n: usize) -> Predicate {
        let limits = Limits::default();
        let tree = ast::parse(&(self.kind)(n), &limits, false).expect("a filter");
        compile(&tree, &self.catalog, &self.schema, &Unrestricted, &limits).expect("compiles")
    }

    /// Rows spread over all plans.
    fn rows(&self) -> Vec<Row> {
        let row = |at: usize| {
            // A step that shares no divisor with the sizes, so that all kinds of plans are met.
            let n = at.wrapping_mul(7_919_777) % self.plans.len();
            let value = |name: &str| match name {
                "id" => Value::Int(at as i64),
                "owner" => Value::Text(format!("owner-{n}").into()),
                "weight" => Value::Int(10 * n as i64 + 7),
                "route" => Value::Text(format!("route-{n}-{at}").into()),
                "status" => Value::Text("sent".into()),
                // Two hundred letters, of which some plan asks for eight.
                "note" => {
                    let around = |half: u64| letters(u64::MAX - 2 * at as u64 - half, 96);
                    let note = format!("{}{}{}", around(0), letters(n as u64, 8), around(1));
                    Value::Text(note.into())
                }
                _ => Value::Null,
            };
            Row::new(self.schema.columns.iter().map(|column| value(&column.name)).collect())
        };
        (0..ROWS).map(row).collect()
    }

    /// Looks one row up and checks what was found; how many match.
    fn matching(&self, row: &Row, found: &mut Vec<usize>) -> usize {
        found.clear();
        self.index.look_up(self.schema.id, self.schema.version, [row], found);
        let (catalog, schema) = (&self.catalog, &self.schema);
        let matches =
            |plan: &&usize| eval::matches(&self.plans[**plan].0, catalog, schema, row, &NoRelated);
        found.iter().filter(matches).count()
    }
}

fn index(criterion: &mut Criterion) {
    let kinds: [(&str, Kind); 4] =
        [("equality", equality), ("ranges", range), ("mixed", mixed), ("substrings", substring)];
    // Filling takes longer than measuring.
    let chosen = std::env::var("INDEX_KINDS").ok();
    let is_chosen =
        |name: &str| chosen.as_ref().is_none_or(|all| all.split(',').any(|one| one == name));
    for (name, kind) in kinds.into_iter().filter(|(name, _)| is_chosen(name)) {
        let mut stage = Stage::new(kind);
        for size in SIZES {
            let (all, longest) = stage.fill(size);
            println!("{name}, {size}: filled in {all:?}, longest insert {longest:?}");
            let rows = stage.rows();
            let mut found = Vec::new();
            let all: usize = rows.iter().map(|row| stage.matching(row, &mut found)).sum();
            assert!((ROWS..=3 * ROWS).contains(&all), "{all} matches of {ROWS} rows");

            let mut group = criterion.benchmark_group(format!("index/{name}"));
            group.bench_function(BenchmarkId::new("look-up", size), |bencher| {
                let mut at = 0;
                bencher.iter(|| {
                    at = (at + 1) % rows.len();
                    stage.matching(black_box(&rows[at]), &mut found)
                });
            });
            let guests: Vec<Predicate> =
                (size..size + GUESTS).map(|n| stage.predicate(n)).collect();
            for coming in [true, false] {
                let name = if coming { "insert" } else { "remove" };
                group.bench_function(BenchmarkId::new(name, size), |bencher| {
                    bencher.iter_custom(|rounds| come_and_go(&mut stage, &guests, rounds, coming));
                });
            }
            group.finish();
        }
    }
}

/// What inserting (or removing) a plan takes, `rounds` times.
fn come_and_go(stage: &mut Stage, guests: &[Predicate], rounds: u64, coming: bool) -> Duration {
    let (mut inserting, mut removing, mut left) = (Duration::ZERO, Duration::ZERO, rounds as usize);
    let Stage { catalog, schema, index, plans, .. } = stage;
    let mut filed = Vec::with_capacity(guests.len());
    while left > 0 {
        let some = &guests[..left.min(guests.len())];
        left -= some.len();
        let started = Instant::now();
        for (n, predicate) in some.iter().enumerate() {
            filed.push(index.add(plans.len() + n, catalog, schema, predicate));
        }
        inserting += started.elapsed();
        let started = Instant::now();
        for (n, filed) in filed.drain(..).enumerate() {
            index.remove(plans.len() + n, &filed);
        }
        removing += started.elapsed();
    }
    if coming { inserting } else { removing }
}

criterion_group! {
    name = benches;
    // Of the whole, so that what the command line says goes before.
    config = Criterion::default()
        .sample_size(20)
        .measurement_time(Duration::from_secs(1))
        .warm_up_time(Duration::from_millis(200));
    targets = index
}
criterion_main!(benches);
