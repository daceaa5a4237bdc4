//! What can be filed nowhere: every change of the schema comes by. Its length is part of a metric.

use std::collections::BTreeSet;

use super::posting::Id;

#[derive(Debug, Default)]
pub(super) struct Scan(BTreeSet<Id>);

impl Scan {
    pub(super) fn add(&mut self, plan: Id) {
        self.0.insert(plan);
    }

    pub(super) fn remove(&mut self, plan: Id) {
        self.0.remove(&plan);
    }

    pub(super) fn plans(&self) -> impl Iterator<Item = Id> + '_ {
        self.0.iter().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
