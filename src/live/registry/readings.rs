//! Plans that want to hear of records which read what a commit changed, by what they read.
//!
//! Many plans read through the same relations and part in their literals alone: what a commit's
//! dependants are to them, and whether they are known at all, is looked at once for all.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::catalog::Catalog;
use crate::model::related::{Paths, RelatedRows, Want};
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
    all: BTreeMap<ReadingId, Reading>,
    /// How many there ever were.
    ever: usize,
    by_what: HashMap<Arc<What>, ReadingId>,
    /// Clients choose what they read, so there may be thousands: none is looked at for a commit
    /// unless it reads what was touched.
    by_reach: HashMap<SchemaId, BTreeSet<ReadingId>>,
    /// What the writer was asked to gather when last that was found to be enough for all: mostly
    /// it is the same from commit to commit.
    enough: RefCell<Option<Arc<Want>>>,
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

    /// Whether it reads records of one of these schemas, given in order.
    pub fn reaches(&self, some: &[SchemaId]) -> bool {
        self.what.reach.iter().any(|schema| some.binary_search(schema).is_ok())
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
                for schema in &what.reach {
                    self.by_reach.entry(*schema).or_default().insert(id);
                }
                self.by_what.insert(what, id);
                *self.enough.get_mut() = None;
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
        if !known.plans.is_empty() {
            return;
        }
        self.by_what.remove(&known.what);
        let Some(gone) = self.all.remove(&reading) else { return };
        for schema in &gone.what.reach {
            if let Some(readings) = self.by_reach.get_mut(schema) {
                readings.remove(&reading);
                if readings.is_empty() {
                    self.by_reach.remove(schema);
                }
            }
        }
    }

    pub fn get(&self, id: ReadingId) -> Option<&Reading> {
        self.all.get(&id)
    }

    /// Those that read records of some of these schemas.
    pub fn reaching(&self, some: &[SchemaId]) -> impl Iterator<Item = (ReadingId, &Reading)> {
        let ids = some.iter().filter_map(|schema| self.by_reach.get(schema)).flatten();
        let ids: BTreeSet<ReadingId> = ids.copied().collect();
        ids.into_iter().filter_map(|id| Some((id, self.all.get(&id)?)))
    }

    /// Whether there is one of them.
    pub fn is_reached(&self, some: &[SchemaId]) -> bool {
        some.iter().any(|schema| self.by_reach.contains_key(schema))
    }

    /// Whether the writer was asked to gather all that any of them reads, back and forth.
    pub fn are_gathered(&self, related: &RelatedRows) -> bool {
        let gathered = &related.gathered;
        if self.enough.borrow().as_ref().is_some_and(|enough| Arc::ptr_eq(enough, gathered)) {
            return true;
        }
        let mut all = self.all.values();
        let enough =
            all.all(|Reading { what, .. }| related.gathers(what.schema, &what.paths, true));
        if enough {
            *self.enough.borrow_mut() = Some(gathered.clone());
        }
        enough
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
