//! Plans, and the changes that are told among them.

use std::sync::{Arc, OnceLock};

use serde_json::{Value as Json, json};

use crate::auth::principal::Principal;
use crate::dialects::fastschema::realtime::Native;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::live::registry::{Listener, Mode};
use crate::live::{Outbox, Request};
use crate::model::catalog::Catalog;
use crate::model::change::{Change, Commit, Op, Row};
use crate::model::file;
use crate::model::related::RelatedRows;
use crate::model::schema::Schema;
use crate::model::system;
use crate::model::value::Value;
use crate::query::{Ask, Plan};
use crate::store::migrate;

/// What the plans have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Family {
    /// `owner = n`: one plan matches a change
    Equality,
    /// `value` in an interval that overlaps its neighbour's half: two match
    Ranges,
    /// A third equality, a third ranges, a third a prefix or an OR of two equalities
    Mixed,
    /// `text` has eight letters within its two hundred: one matches
    Substrings,
}

impl Family {
    /// As it is told.
    pub fn name(self) -> &'static str {
        match self {
            Family::Equality => "equality",
            Family::Ranges => "ranges",
            Family::Mixed => "mixed",
            Family::Substrings => "substrings",
        }
    }

    /// The filter of the n-th plan; each is another one.
    fn filter(self, n: usize) -> Json {
        let range = |length: usize| json!({ "value": { "$gte": n, "$lt": n + length } });
        match (self, n % 6) {
            (Family::Equality, _) | (Family::Mixed, 0 | 3) => json!({ "owner": n }),
            (Family::Ranges, _) => range(2),
            (Family::Substrings, _) => json!({ "text": { "$contains": word(n) } }),
            (Family::Mixed, 1 | 4) => range(3),
            (Family::Mixed, 2) => json!({ "code": { "$like": format!("{}%", code(n)) } }),
            (Family::Mixed, _) => json!({ "$or": [{ "owner": n }, { "level": n }] }),
        }
    }
}

/// Seven letters and digits, other ones for every n.
fn code(n: usize) -> String {
    let mut rest = n;
    let letters = std::iter::repeat_with(|| {
        let letter = b'a' + (rest % 26) as u8;
        rest /= 26;
        char::from(letter)
    });
    letters.take(7).collect()
}

/// Eight letters by chance, the same ones for the same n.
fn word(n: usize) -> String {
    Chance::new(n as u64).letters(8)
}

/// A schema, and who asks.
pub struct Stage {
    limits: Limits,
    catalog: Arc<Catalog>,
    schema: Arc<Schema>,
    principal: Arc<Principal>,
    /// Everybody's: what is told is counted, not sent.
    pub outbox: Arc<Outbox>,
    commits: u64,
}

impl Stage {
    /// # Errors
    /// None that input could reach.
    pub fn new() -> Result<Stage> {
        let field = |name: &str, ty: &str| json!({ "name": name, "label": name, "type": ty });
        let item = json!({
            "name": "item", "namespace": "items", "label_field": "title",
            "fields": [
                field("title", "string"), field("text", "string"), field("code", "string"),
                field("owner", "int"), field("level", "int"), field("value", "float64"),
                field("at", "time"),
            ],
        });
        let mut defs = system::schemas();
        defs.extend(file::parse(None, item.to_string().as_bytes()).def);
        let catalog = migrate::catalog_of(&defs)
            .map_err(|faults| Error::internal(format!("the bench's schema: {faults:?}")))?;
        let schema = catalog.named("item").cloned();
        let schema = schema.ok_or_else(|| Error::internal("the bench's schema is missing"))?;
        Ok(Stage {
            limits: Limits::default(),
            catalog: Arc::new(catalog),
            schema,
            principal: Arc::new(Principal::owner()),
            outbox: Outbox::collector(),
            commits: 0,
        })
    }

    fn ask(&self, family: Family, n: usize) -> Ask {
        let filter = Some(family.filter(n));
        Ask { schema: self.schema.name.to_string(), filter, ..Ask::default() }
    }

    /// Compiles the n-th plan.
    ///
    /// # Errors
    /// None that input could reach.
    pub fn plan(&self, family: Family, n: usize) -> Result<(Ask, Arc<Plan>)> {
        let ask = self.ask(family, n);
        let plan = Plan::compile(&self.catalog, &self.principal, &self.limits, &ask)?;
        Ok((ask, Arc::new(plan)))
    }

    /// Who listens to it.
    pub fn listener(&self, ask: Ask, plan: Arc<Plan>) -> Listener {
        let request = Request::new(ask, Arc::new(Native), self.principal.clone());
        let mode = Mode::of(&request, &plan);
        let outbox = self.outbox.clone();
        Listener { request, plan, key: None, mode, hold: None, outbox, told: 0 }
    }

    /// A record that is made among `plans` plans, all its values by chance.
    pub fn commit(&mut self, plans: usize, chance: &mut Chance) -> Commit {
        self.commits += 1;
        let number = |chance: &mut Chance| chance.below(plans);
        let values = self.schema.columns.iter().map(|column| match &*column.name {
            "id" => Value::Int(self.commits as i64),
            "title" => Value::Text("A record like any other".into()),
            "text" => {
                let (before, after) = (chance.letters(96), chance.letters(96));
                Value::Text(format!("{before}{}{after}", word(number(chance))).into())
            }
            "code" => Value::Text(format!("{}-{}", code(number(chance)), self.commits).into()),
            "owner" | "level" => Value::Int(number(chance) as i64),
            "value" => Value::Float(number(chance) as f64 + 0.5),
            _ => Value::Time(1_700_000_000_000_000 + self.commits as i64),
        });
        let row = Arc::new(Row::new(values.collect()));
        Commit {
            position: self.commits,
            stamp: self.commits,
            time: 0,
            origin: None,
            changes: vec![Change {
                schema: self.schema.id,
                schema_version: self.schema.version,
                op: Op::Create,
                key: Value::Int(self.commits as i64),
                before: None,
                after: Some(row),
            }],
            notices: Vec::new(),
            related: RelatedRows::default(),
            weight: OnceLock::new(),
        }
    }
}

/// Numbers by chance (SplitMix64), the same ones every time.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Chance(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn letters(&mut self, count: usize) -> String {
        (0..count).map(|_| char::from(b'a' + self.below(26) as u8)).collect()
    }

    /// One of 0 to `end` - 1.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plan_is_another_one() {
        let stage = Stage::new().expect("a stage");
        for family in [Family::Equality, Family::Ranges, Family::Mixed] {
            let keys: std::collections::HashSet<_> =
                (0..500).map(|n| stage.plan(family, n).expect("a plan").1.key.clone()).collect();
            assert_eq!(keys.len(), 500, "{family:?}");
        }
    }

    #[test]
    fn a_change_matches_a_few() {
        let mut stage = Stage::new().expect("a stage");
        let mut chance = Chance::new(1);
        for (family, expected) in
            [(Family::Equality, 1.0), (Family::Ranges, 2.0), (Family::Mixed, 2.0)]
        {
            let plans: Vec<_> =
                (0..300).map(|n| stage.plan(family, n).expect("a plan").1).collect();
            let mut matches = 0;
            for _ in 0..200 {
                let commit = stage.commit(plans.len(), &mut chance);
                let row = commit.changes[0].after.as_ref().expect("a row");
                let related = &commit.related.after;
                matches += plans.iter().filter(|plan| plan.matches(row, related)).count();
            }
            let mean = f64::from(matches as u32) / 200.0;
            assert!((mean - expected).abs() < 0.2, "{family:?}: {mean}");
        }
    }
}
