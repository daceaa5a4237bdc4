//! `$contains`, `$containsfold`, `$like '%abc%'`: by the column and some characters in a row that a
//! value must have somewhere.

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

/// Characters a fragment. There are some 17,000 of three letters, so that among a million plans each
/// has its crowd, and a text comes by thousands of them; of five there are 12 million. Texts are
/// gone through once for each length that is in use.
const SHORT: usize = 3;
const LONG: usize = 5;

/// How a column's texts are cut into fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Cut {
    /// Without regard to case: characters, not bytes.
    folded: bool,
    /// [`LONG`], not [`SHORT`].
    long: bool,
}

/// A fragment's cut and hash, and how many plans are filed under it.
pub(super) type Crowd = (Cut, u64, usize);

/// One list per column, cut and fragment.
#[derive(Debug)]
pub(super) struct Fragments {
    /// Random and odd: where a fragment is filed cannot be known from outside.
    keys: [u64; LONG],
    postings: Postings,
    /// All plans of a column: a few are checked sooner than a value's fragments are looked for.
    all: BTreeMap<(Slot, Cut), Posting>,
}

impl Default for Fragments {
    fn default() -> Self {
        let keys = std::array::from_fn(|_| RandomState::new().hash_one(0) | 1);
        Fragments { keys, postings: Postings::default(), all: BTreeMap::new() }
    }
}

impl Fragments {
    /// Of the fragments of texts that a value must have, the one that fewest plans are filed
    /// under; a long one, where there is one. `None` where all texts are too short.
    pub(super) fn rarest<'t>(
        &self,
        slot: Slot,
        texts: impl Iterator<Item = &'t str> + Clone,
    ) -> Option<Crowd> {
        let of = |length, long| {
            let parts = texts.clone().flat_map(move |text| text.as_bytes().windows(length));
            let cut = Cut { folded: false, long };
            self.rarest_of(slot, cut, parts.map(|part| part.iter().map(|b| u32::from(*b))))
        };
        of(LONG, true).or_else(|| of(SHORT, false))
    }

    /// The same of a folded text.
    pub(super) fn rarest_folded(&self, slot: Slot, text: &[u32]) -> Option<Crowd> {
        let of = |length, long| {
            let parts = text.windows(length).map(|part| part.iter().copied());
            self.rarest_of(slot, Cut { folded: true, long }, parts)
        };
        of(LONG, true).or_else(|| of(SHORT, false))
    }

    fn rarest_of(
        &self,
        slot: Slot,
        cut: Cut,
        parts: impl Iterator<Item = impl Iterator<Item = u32>>,
    ) -> Option<Crowd> {
        let crowds = parts.map(|part| {
            let hash = self.hash(slot, cut, part);
            (cut, hash, self.postings.len(hash))
        });
        crowds.min_by_key(|(_, _, crowd)| *crowd)
    }

    fn hash(&self, slot: Slot, cut: Cut, part: impl Iterator<Item = u32>) -> u64 {
        let column = (slot as u64) << 34 | u64::from(cut.folded) << 33 | u64::from(cut.long) << 32;
        let mixed = part.zip(self.keys).fold(0_u64, |hash, (part, key)| {
            hash.wrapping_add((column | u64::from(part)).wrapping_mul(key))
        });
        mixed ^ mixed >> 32
    }

    pub(super) fn add(&mut self, slot: Slot, cut: Cut, hash: u64, plan: Id) {
        self.all.entry((slot, cut)).or_insert(Posting::One(plan)).add(plan);
        self.postings.add(hash, plan);
    }

    pub(super) fn remove(&mut self, slot: Slot, cut: Cut, hash: u64, plan: Id) {
        self.postings.remove(hash, plan);
        let all = self.all.get_mut(&(slot, cut));
        if all.is_some_and(|all| all.remove(plan)) {
            self.all.remove(&(slot, cut));
        }
    }

    pub(super) fn look_up(&self, row: &Row, out: &mut Finds) {
        for ((slot, cut), all) in &self.all {
            let Value::Text(text) = row.get(*slot) else { continue };
            if all.len() * (CHECK + text.len() / 8) <= text.len() * PROBE {
                all.give(out);
                continue;
            }
            let bytes = text.bytes().map(u32::from);
            let folded = text.chars().map(fold::fold);
            match (cut.folded, cut.long) {
                (false, false) => self.probe::<SHORT>(*slot, *cut, bytes, out),
                (false, true) => self.probe::<LONG>(*slot, *cut, bytes, out),
                (true, false) => self.probe::<SHORT>(*slot, *cut, folded, out),
                (true, true) => self.probe::<LONG>(*slot, *cut, folded, out),
            }
        }
    }

    fn probe<const LENGTH: usize>(
        &self,
        slot: Slot,
        cut: Cut,
        text: impl Iterator<Item = u32>,
        out: &mut Finds,
    ) {
        // A fragment may come again and again; its plans are given once.
        let mut met: HashSet<u64, Mixed> = HashSet::default();
        let mut last = [0; LENGTH];
        for (at, part) in text.enumerate() {
            last.rotate_left(1);
            last[LENGTH - 1] = part;
            if out.is_over() {
                return;
            }
            if at + 1 < LENGTH {
                continue;
            }
            let hash = self.hash(slot, cut, last.into_iter());
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
