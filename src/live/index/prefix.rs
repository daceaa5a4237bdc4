//! `$like 'abc%'`: by the column and the first bytes of the value.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use crate::model::change::Row;
use crate::model::schema::Slot;
use crate::model::value::Value;

use super::posting::{Finds, Id, Postings};

/// Longer beginnings are filed by so many of their bytes: a value is looked up once per length.
const MOST: usize = 32;

/// One list per column and beginning.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    key: RandomState,
    postings: Postings,
    /// How many are filed by beginnings of each length.
    lengths: BTreeMap<(Slot, u8), usize>,
}

impl Prefixes {
    /// The length and the hash that a beginning is filed by; it is not empty.
    pub(super) fn place(&self, slot: Slot, prefix: &str) -> (u8, u64) {
        let bytes = &prefix.as_bytes()[..prefix.len().min(MOST)];
        (bytes.len() as u8, self.hash(slot, bytes))
    }

    fn hash(&self, slot: Slot, bytes: &[u8]) -> u64 {
        let mut hash = self.key.build_hasher();
        hash.write_usize(slot);
        hash.write_usize(bytes.len());
        hash.write(bytes);
        hash.finish()
    }

    pub(super) fn add(&mut self, slot: Slot, (length, hash): (u8, u64), plan: Id) {
        *self.lengths.entry((slot, length)).or_default() += 1;
        self.postings.add(hash, plan);
    }

    pub(super) fn remove(&mut self, slot: Slot, (length, hash): (u8, u64), plan: Id) {
        if let Some(count) = self.lengths.get_mut(&(slot, length)) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&(slot, length));
            }
        }
        self.postings.remove(hash, plan);
    }

    pub(super) fn len(&self, hash: u64) -> usize {
        self.postings.len(hash)
    }

    pub(super) fn look_up(&self, row: &Row, out: &mut Finds) {
        for (slot, length) in self.lengths.keys() {
            if let Value::Text(text) = row.get(*slot)
                && let Some(bytes) = text.as_bytes().get(..usize::from(*length))
            {
                self.postings.give(self.hash(*slot, bytes), out);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.postings.is_empty()
    }
}
