//! Plans that want to hear of records which read what a commit changed, by what they read.
//!
//! Many plans read through the same relations and part in their literals alone: what a commit's
//! dependants are to them, and whether they are known at all, is looked at once for all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::catalog::Catalog;
use crate::model::related::Paths;
use crate::model::schema::{Schema, SchemaId, Shape};
use crate::query::Plan;

use super::PlanId;

/// Names a [`Reading`]; never used again.
pub type ReadingId = usize;

/// What plans read through relations.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct What {
    /// Whose records read.
    pub schema: SchemaId,
    pub paths: Paths,
    /// The schemas whose records are read, and the junctions between.
    pub reach: Vec<SchemaId>,
}

/// Plans that read the same and have listeners who are told transitions.
pub struct Reading {
    what: Arc<What>,
    plans: BTreeSet<PlanId>,
}

/// All of them.
#[derive(Default)]
pub struct Readings {
    /// By number: they are all walked, so those that have gone must leave nothing.
    all: BTreeMap<ReadingId, Reading>,
    /// How many there ever were.
    ever: usize,
    by_what: HashMap<Arc<What>, ReadingId>,
}

impl What {
    fn of(plan: &Plan) -> What {
        let mut reach = Vec::new();
        follow(&plan.catalog, &plan.schema, &plan.paths, &mut reach);
        reach.sort_unstable();
        reach.dedup();
        What { schema: plan.schema.id, paths: plan.paths.clone(), reach }
    }
}

impl Reading {
    pub fn what(&self) -> &What {
        &self.what
    }

    pub fn plans(&self) -> impl ExactSizeIterator<Item = PlanId> + '_ {
        self.plans.iter().copied()
    }
}

impl Readings {
    /// Adds a plan that reads through relations.
    pub(super) fn add(&mut self, id: PlanId, plan: &Plan) -> ReadingId {
        let what = What::of(plan);
        let reading = match self.by_what.get(&what) {
            Some(&reading) => reading,
            None => {
                let what = Arc::new(what);
                let reading = Reading { what: what.clone(), plans: BTreeSet::new() };
                let id = self.ever;
                self.ever += 1;
                self.all.insert(id, reading);
                self.by_what.insert(what, id);
                id
            }
        };
        if let Some(known) = self.all.get_mut(&reading) {
            known.plans.insert(id);
        }
        reading
    }

    pub(super) fn remove(&mut self, id: PlanId, reading: ReadingId) {
        let Some(known) = self.all.get_mut(&reading) else { return };
        known.plans.remove(&id);
        if known.plans.is_empty() {
            self.by_what.remove(&known.what);
            self.all.remove(&reading);
        }
    }

    /// Those that read records of some of these schemas, given in order.
    pub fn reaching(&self, some: &[SchemaId]) -> impl Iterator<Item = (ReadingId, &Reading)> {
        let reads = |schema: &SchemaId| some.binary_search(schema).is_ok();
        let all = self.all.iter().map(|(id, reading)| (*id, reading));
        all.filter(move |(_, reading)| reading.what.reach.iter().any(reads))
    }

    /// How many there are, each of which [`Readings::reaching`] looks at.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

/// Adds the schemas that `paths` lead through from `schema`.
fn follow(catalog: &Catalog, schema: &Schema, paths: &Paths, out: &mut Vec<SchemaId>) {
    for (name, deeper) in &paths.0 {
        let Some(index) = schema.relation(name) else { continue };
        let relation = &schema.relations[index];
        if let Shape::Link { junction, .. } = relation.shape {
            out.push(junction);
        }
        out.push(relation.target);
        if let Some(target) = catalog.get(relation.target) {
            follow(catalog, target, deeper, out);
        }
    }
}
