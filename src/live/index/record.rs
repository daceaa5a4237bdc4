//! `id`: by the primary key of the one record that listeners want.
//!
//! That is no part of a plan's predicate, so whoever files plans here takes them out of the other
//! files as long as nobody listens for more: a million who each watch a record of their own, and
//! may see them all, would otherwise come by with every change.

use crate::live::table::Table;
use crate::model::related::Key;
use crate::model::value::Value;

use super::id;
use super::posting::Posting;

/// Plans of one schema.
#[derive(Debug, Default)]
pub struct Records(Table<Key, Posting>);

impl Records {
    /// Files `plan` under a record; once, however often.
    pub fn add(&mut self, record: &Key, plan: usize) {
        self.0.get_or_insert_with(record.clone(), || Posting::One(id(plan))).add(id(plan));
    }

    pub fn remove(&mut self, record: &Key, plan: usize) {
        self.0.remove_if(record, |plans| plans.remove(id(plan)));
    }

    /// How many plans a record has.
    pub fn len(&self, record: &Value) -> usize {
        self.posting(record).map_or(0, Posting::len)
    }

    /// The plans of a record, each once.
    pub fn plans(&self, record: &Value) -> impl Iterator<Item = usize> {
        self.posting(record).into_iter().flat_map(Posting::iter).map(|plan| plan as usize)
    }

    fn posting(&self, record: &Value) -> Option<&Posting> {
        // Mostly nobody asks so, and most records nobody asks for.
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&Key::of(record)?)
    }

    /// Whether nothing is filed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
