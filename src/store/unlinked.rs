//! Links that a write took away: put back by the same write, they are the rows they were.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::related::Key;
use crate::model::schema::{Schema, SchemaId, Slot};
use crate::model::value::Value;

/// A link: its junction and the primary keys of both ends.
pub(super) type Name = (SchemaId, Key, Key);

/// A junction and which of its columns are which end.
pub(super) struct Ends {
    pub junction: Arc<Schema>,
    pub own: Slot,
    pub other: Slot,
}

impl Ends {
    /// How the link between two records is known.
    pub fn name(&self, own: &Value, other: &Value) -> Option<Name> {
        let (own, other) = (Key::of(own)?, Key::of(other)?);
        let (first, second) = if self.own < self.other { (own, other) } else { (other, own) };
        Some((self.junction.id, first, second))
    }
}

/// Primary keys of the link rows that are gone.
#[derive(Default)]
pub(crate) struct Unlinked {
    keys: HashMap<Name, Value>,
    /// What stood in `keys` before each step. A mark is a place in here: a copy of `keys` for each
    /// would cost a large write the square of its size.
    before: Vec<(Name, Option<Value>)>,
}

impl Unlinked {
    /// Notes the key of a row that goes.
    pub fn insert(&mut self, name: Name, key: Value) {
        let before = self.keys.insert(name.clone(), key);
        self.before.push((name, before));
    }

    /// The key that the link had.
    pub fn remove(&mut self, name: &Name) -> Option<Value> {
        let key = self.keys.remove(name)?;
        self.before.push((name.clone(), Some(key.clone())));
        Some(key)
    }

    /// How many steps there were.
    pub fn steps(&self) -> usize {
        self.before.len()
    }

    /// Takes back all steps but the first `steps`.
    pub fn back_to(&mut self, steps: usize) {
        for (name, before) in self.before.drain(steps..).rev() {
            match before {
                Some(key) => self.keys.insert(name, key),
                None => self.keys.remove(&name),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_taken_back_in_turn() {
        let name = |id| (SchemaId(1), Key::Int(1), Key::Int(id));
        let mut unlinked = Unlinked::default();
        unlinked.insert(name(1), Value::Int(10));
        let mark = unlinked.steps();
        assert_eq!(unlinked.remove(&name(1)), Some(Value::Int(10)));
        unlinked.insert(name(1), Value::Int(11));
        unlinked.insert(name(2), Value::Int(20));
        assert_eq!(unlinked.remove(&name(3)), None);
        unlinked.back_to(mark);
        assert_eq!(unlinked.remove(&name(2)), None);
        assert_eq!(unlinked.remove(&name(1)), Some(Value::Int(10)));
    }
}
