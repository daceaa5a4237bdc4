//! The plans filed under one thing, and such lists by a keyed hash of the thing.

use std::collections::BTreeSet;
use std::hash::{BuildHasherDefault, Hasher};

use crate::live::table::Table;

/// A plan as the index writes it down: 2^32 plans do not fit into memory.
pub(super) type Id = u32;

/// What a look-up found, perhaps several times, as long as it is not too much.
#[derive(Debug)]
pub(super) struct Finds {
    /// One more than `most` where there were more.
    plans: Vec<Id>,
    most: usize,
}

impl Finds {
    pub(super) fn new(most: usize) -> Finds {
        Finds { plans: Vec::new(), most }
    }

    /// Whether there were too many: no more are taken.
    pub(super) fn is_over(&self) -> bool {
        self.plans.len() > self.most
    }

    /// `None`: there were too many.
    pub(super) fn all(self) -> Option<Vec<Id>> {
        (!self.is_over()).then_some(self.plans)
    }
}

impl Extend<Id> for Finds {
    fn extend<I: IntoIterator<Item = Id>>(&mut self, plans: I) {
        let room = self.most.saturating_add(1) - self.plans.len();
        self.plans.extend(plans.into_iter().take(room));
    }
}

/// Plans, each once. Most things are asked for by one plan alone, and that one takes no memory of
/// its own.
#[derive(Debug)]
pub(super) enum Posting {
    One(Id),
    /// Two or more. A tree: it grows a node at a time, and is told in the time of its length,
    /// however long it once was.
    #[expect(clippy::box_collection, reason = "a table of these is half as large")]
    Many(Box<BTreeSet<Id>>),
}

impl Posting {
    pub(super) fn len(&self) -> usize {
        match self {
            Posting::One(_) => 1,
            Posting::Many(plans) => plans.len(),
        }
    }

    pub(super) fn add(&mut self, plan: Id) {
        match self {
            Posting::One(first) if *first == plan => {}
            Posting::One(first) => {
                *self = Posting::Many(Box::new(BTreeSet::from_iter([*first, plan])));
            }
            Posting::Many(plans) => {
                plans.insert(plan);
            }
        }
    }

    /// Takes a plan out; whether nobody is left.
    pub(super) fn remove(&mut self, plan: Id) -> bool {
        match self {
            Posting::One(first) => *first == plan,
            Posting::Many(plans) => {
                plans.remove(&plan);
                if let (1, Some(&last)) = (plans.len(), plans.first()) {
                    *self = Posting::One(last);
                }
                false
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Id> {
        let (one, many) = match self {
            Posting::One(plan) => (Some(*plan), None),
            Posting::Many(plans) => (None, Some(plans)),
        };
        one.into_iter().chain(many.into_iter().flat_map(|plans| plans.iter().copied()))
    }

    pub(super) fn give(&self, out: &mut Finds) {
        match self {
            Posting::One(plan) => out.extend([*plan]),
            Posting::Many(plans) => out.extend(plans.iter().copied()),
        }
    }
}

/// Lists by a hash of what their plans ask for. Who hashes keys it, so that nobody can choose
/// things that meet; where two meet all the same, both lists are one, and a candidate too many is
/// found out when it is checked.
#[derive(Debug, Default)]
pub(super) struct Postings(Table<u64, Posting, BuildHasherDefault<Plain>>);

impl Postings {
    pub(super) fn add(&mut self, hash: u64, plan: Id) {
        self.0.get_or_insert_with(hash, || Posting::One(plan)).add(plan);
    }

    pub(super) fn remove(&mut self, hash: u64, plan: Id) {
        self.0.remove_if(&hash, |list| list.remove(plan));
    }

    pub(super) fn get(&self, hash: u64) -> Option<&Posting> {
        self.0.get(&hash)
    }

    pub(super) fn give(&self, hash: u64, out: &mut Finds) {
        if let Some(list) = self.get(hash) {
            list.give(out);
        }
    }

    pub(super) fn len(&self, hash: u64) -> usize {
        self.0.get(&hash).map_or(0, Posting::len)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// For keys that are hashes.
#[derive(Default)]
pub(in crate::live) struct Plain(u64);

impl Hasher for Plain {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// For numbers of our own making.
pub(super) type Mixed = BuildHasherDefault<Mix>;

#[derive(Default)]
pub(super) struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        // Fibonacci hashing; the high bits are the good ones, and tables look at the low ones too.
        let mixed = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
