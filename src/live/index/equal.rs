//! `$eq`, `$in`, ids, booleans, enums: by the column and the value.

use std::hash::{BuildHasher, Hasher, RandomState};

use crate::model::change::Row;
use crate::model::schema::Slot;
use crate::model::value::Value;

use super::posting::{Finds, Id, Postings};
use super::slots::Slots;

/// Of a long text this much is hashed at either end: two that differ in the middle alone are
/// parted when the candidate is checked.
const END: usize = 128;

/// One list per column and value.
#[derive(Debug, Default)]
pub(super) struct Equal {
    key: RandomState,
    postings: Postings,
    slots: Slots,
}

impl Equal {
    /// What a value in a column is filed under.
    pub(super) fn hash(&self, slot: Slot, value: &Value) -> u64 {
        let mut hash = self.key.build_hasher();
        hash.write_usize(slot);
        match value {
            Value::Null => {}
            Value::Bool(truth) => hash.write_u8(u8::from(*truth)),
            Value::Int(number) | Value::Time(number) => hash.write_i64(*number),
            // Adding nothing makes one zero of the two.
            Value::Float(number) => hash.write_u64((number + 0.0).to_bits()),
            Value::Text(text) | Value::Json(text) => bytes(text.as_bytes(), &mut hash),
            Value::Uuid(id) => hash.write_u128(id.as_u128()),
            Value::Bytes(all) => bytes(all, &mut hash),
        }
        hash.finish()
    }

    pub(super) fn add(&mut self, slot: Slot, hash: u64, plan: Id) {
        self.slots.add(slot);
        self.postings.add(hash, plan);
    }

    pub(super) fn remove(&mut self, slot: Slot, hash: u64, plan: Id) {
        self.slots.remove(slot);
        self.postings.remove(hash, plan);
    }

    pub(super) fn len(&self, hash: u64) -> usize {
        self.postings.len(hash)
    }

    pub(super) fn look_up(&self, row: &Row, out: &mut Finds) {
        for slot in self.slots.iter() {
            let value = row.get(slot);
            if !value.is_null() {
                self.postings.give(self.hash(slot, value), out);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.postings.is_empty()
    }
}

fn bytes(all: &[u8], hash: &mut impl Hasher) {
    hash.write_usize(all.len());
    match (all.first_chunk::<END>(), all.last_chunk::<END>()) {
        (Some(first), Some(last)) if all.len() > 2 * END => {
            hash.write(first);
            hash.write(last);
        }
        _ => hash.write(all),
    }
}
