//! `$null`: by the column and whether there is a value in it. What can be filed by nothing better
//! than that it is never TRUE of NULL stands here too.

use std::collections::BTreeMap;

use crate::model::change::Row;
use crate::model::schema::Slot;

use super::posting::{Finds, Id, Posting};

/// Two lists per column.
#[derive(Debug, Default)]
pub(super) struct Presence(BTreeMap<(Slot, bool), Posting>);

impl Presence {
    /// `null`: for rows that have NULL there; else for those that have something.
    pub(super) fn add(&mut self, slot: Slot, null: bool, plan: Id) {
        self.0.entry((slot, null)).or_insert(Posting::One(plan)).add(plan);
    }

    pub(super) fn remove(&mut self, slot: Slot, null: bool, plan: Id) {
        let list = self.0.get_mut(&(slot, null));
        if list.is_some_and(|list| list.remove(plan)) {
            self.0.remove(&(slot, null));
        }
    }

    pub(super) fn len(&self, slot: Slot, null: bool) -> usize {
        self.0.get(&(slot, null)).map_or(0, Posting::len)
    }

    pub(super) fn look_up(&self, row: &Row, out: &mut Finds) {
        for ((slot, null), list) in &self.0 {
            if row.get(*slot).is_null() == *null {
                list.give(out);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
