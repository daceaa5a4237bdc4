//! `$gt`, `$gte`, `$lt`, `$lte`: by the column and the interval of values between them.

mod key;
mod tree;

use std::collections::BTreeMap;

use crate::model::change::Row;
use crate::model::schema::Slot;

use super::posting::{Finds, Id};

use key::Point;
pub(super) use key::{Span, Spans};
use tree::Tree;

/// One tree per column.
#[derive(Debug, Default)]
pub(super) struct Ranges(BTreeMap<Slot, Trees>);

/// A column has values of one type, so one of the two is empty.
#[derive(Debug, Default)]
struct Trees {
    narrow: Tree<u64>,
    wide: Tree<u128>,
}

impl Ranges {
    pub(super) fn add(&mut self, slot: Slot, span: Span, plan: Id) {
        let trees = self.0.entry(slot).or_default();
        match span {
            Span::Narrow(low, high) => trees.narrow.add(low, high, plan),
            Span::Wide(low, high) => trees.wide.add(low, high, plan),
        }
    }

    pub(super) fn remove(&mut self, slot: Slot, span: Span, plan: Id) {
        let Some(trees) = self.0.get_mut(&slot) else { return };
        match span {
            Span::Narrow(low, high) => trees.narrow.remove(low, high, plan),
            Span::Wide(low, high) => trees.wide.remove(low, high, plan),
        }
        if trees.narrow.is_empty() && trees.wide.is_empty() {
            self.0.remove(&slot);
        }
    }

    /// How many intervals lie where this one would.
    pub(super) fn crowd(&self, slot: Slot, span: Span) -> usize {
        self.0.get(&slot).map_or(0, |trees| match span {
            Span::Narrow(low, high) => trees.narrow.crowd(low, high),
            Span::Wide(low, high) => trees.wide.crowd(low, high),
        })
    }

    pub(super) fn look_up(&self, row: &Row, out: &mut Finds) {
        for (slot, trees) in &self.0 {
            match Point::of(row.get(*slot)) {
                Some(Point::Narrow(point)) => trees.narrow.stab(point, out),
                Some(Point::Wide(point)) => trees.wide.stab(point, out),
                None => {}
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
