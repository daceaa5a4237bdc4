//! `$contains`, `$containsfold`, `$like '%abc%'`: by the column and three characters in a row that
//! a value must have somewhere.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use crate::filter::fold;
use crate::model::change::Row;
use crate::model::schema::Slot;
use crate::model::value::Value;

use super::posting::{Finds, Id, Mixed, Posting, Postings};

/// What looking for one fragment in a value takes, per byte, against checking one plan: some
/// nanoseconds for what plans have in the value's place, 1/8 of one for a search of the text, 50
/// for a candidate whatever it is.
const PROBE: usize = 8;
const CHECK: usize = 50;

/// One list per column and fragment, another for fragments without regard to case.
#[derive(Debug)]
pub(super) struct Fragments {
    /// Random and odd: where a fragment is filed cannot be known from outside.
    keys: [u64; 3],
    postings: Postings,
    /// All plans of a column: a few are checked sooner than a value's fragments are looked for.
    all: BTreeMap<(Slot, bool), Posting>,
}

impl Default for Fragments {
    fn default() -> Self {
        let keys = std::array::from_fn(|_| RandomState::new().hash_one(0) | 1);
        Fragments { keys, postings: Postings::default(), all: BTreeMap::new() }
    }
}

impl Fragments {
    /// Of the fragments of texts that a value must have, the one that fewest plans are filed
    /// under: its hash, and how many those are. `None` where all are shorter than three.
    pub(super) fn rarest<'t>(
        &self,
        slot: Slot,
        texts: impl Iterator<Item = &'t str>,
    ) -> Option<(u64, usize)> {
        let bytes = texts.flat_map(|text| text.as_bytes().windows(3));
        let hashes = bytes.map(|three| self.hash(slot, false, three.iter().map(|b| u32::from(*b))));
        self.rarest_of(hashes)
    }

    /// The same of a folded text.
    pub(super) fn rarest_folded(&self, slot: Slot, text: &[u32]) -> Option<(u64, usize)> {
        let threes = text.windows(3);
        self.rarest_of(threes.map(|three| self.hash(slot, true, three.iter().copied())))
    }

    fn rarest_of(&self, hashes: impl Iterator<Item = u64>) -> Option<(u64, usize)> {
        hashes.map(|hash| (hash, self.postings.len(hash))).min_by_key(|(_, crowd)| *crowd)
    }

    fn hash(&self, slot: Slot, folded: bool, three: impl Iterator<Item = u32>) -> u64 {
        let column = (slot as u64) << 33 | u64::from(folded) << 32;
        let mixed = three.zip(self.keys).fold(0_u64, |hash, (part, key)| {
            hash.wrapping_add((column | u64::from(part)).wrapping_mul(key))
        });
        mixed ^ mixed >> 32
    }

    pub(super) fn add(&mut self, slot: Slot, folded: bool, hash: u64, plan: Id) {
        self.all.entry((slot, folded)).or_insert(Posting::One(plan)).add(plan);
        self.postings.add(hash, plan);
    }

    pub(super) fn remove(&mut self, slot: Slot, folded: bool, hash: u64, plan: Id) {
        self.postings.remove(hash, plan);
        let all = self.all.get_mut(&(slot, folded));
        if all.is_some_and(|all| all.remove(plan)) {
            self.all.remove(&(slot, folded));
        }
    }

    pub(super) fn look_up(&self, row: &Row, out: &mut Finds) {
        for ((slot, folded), all) in &self.all {
            let Value::Text(text) = row.get(*slot) else { continue };
            if all.len() * (CHECK + text.len() / 8) <= text.len() * PROBE {
                all.give(out);
            } else if *folded {
                self.probe(*slot, true, text.chars().map(fold::fold), out);
            } else {
                self.probe(*slot, false, text.bytes().map(u32::from), out);
            }
        }
    }

    fn probe(&self, slot: Slot, folded: bool, text: impl Iterator<Item = u32>, out: &mut Finds) {
        // A fragment may come again and again; its plans are given once.
        let mut met: HashSet<u64, Mixed> = HashSet::default();
        let mut three = [0; 3];
        for (at, part) in text.enumerate() {
            three = [three[1], three[2], part];
            if out.is_over() {
                return;
            }
            if at < 2 {
                continue;
            }
            let hash = self.hash(slot, folded, three.into_iter());
            if let Some(list) = self.postings.get(hash)
                && met.insert(hash)
            {
                list.give(out);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty() && self.postings.is_empty()
    }
}
