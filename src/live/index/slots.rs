//! Which columns a family has anything filed under: only those of a row are looked up.

use crate::model::schema::Slot;

/// Columns with a count each, in order. There are few: they are walked, never searched by hash.
#[derive(Debug, Default)]
pub(super) struct Slots(Vec<(Slot, usize)>);

impl Slots {
    pub(super) fn add(&mut self, slot: Slot) {
        match self.0.binary_search_by_key(&slot, |(known, _)| *known) {
            Ok(at) => self.0[at].1 += 1,
            Err(at) => self.0.insert(at, (slot, 1)),
        }
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        if let Ok(at) = self.0.binary_search_by_key(&slot, |(known, _)| *known) {
            self.0[at].1 -= 1;
            if self.0[at].1 == 0 {
                self.0.remove(at);
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.0.iter().map(|(slot, _)| *slot)
    }
}
