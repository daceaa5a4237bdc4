//! Which intervals hold a number: an interval tree whose centres are given by the numbers'
//! bits, so that nothing is ever rebalanced.
//!
//! Halve the range of all numbers, halve the halves, and so on: an interval lies at the one
//! place where it is cut for the first time (the highest bit in which its two ends differ). There
//! it holds the middle. A number in the lower half of a place is then held by those intervals
//! there that begin at it or below, one in the upper half by those that end at it or above: with
//! the intervals of a place in both orders, exactly those that hold the number are walked. A
//! number lies in one place of each size, so a look-up probes one place for each size in use.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;

use crate::live::index::posting::Id;
use crate::live::table::Table;

/// Numbers that are cut into halves.
pub(super) trait Number: Copy + Ord + Hash + Debug {
    /// The size of the place where an interval is cut: 0 for one number alone, else one more than
    /// the highest bit in which the ends differ.
    fn size(low: Self, high: Self) -> u8;
    /// The place of a size that the number lies in.
    fn place(self, size: u8) -> Self;
    /// Whether the number lies in the upper half of such a place.
    fn is_upper(self, size: u8) -> bool;
}

macro_rules! number {
    ($type:ty) => {
        impl Number for $type {
            fn size(low: Self, high: Self) -> u8 {
                (Self::BITS - (low ^ high).leading_zeros()) as u8
            }

            fn place(self, size: u8) -> Self {
                self.checked_shr(u32::from(size)).unwrap_or(0)
            }

            fn is_upper(self, size: u8) -> bool {
                size > 0 && self >> (size - 1) & 1 == 1
            }
        }
    };
}

number!(u64);
number!(u128);

/// Intervals, both ends within, by the plan they were filed for.
#[derive(Debug)]
pub(super) struct Tree<N> {
    places: Table<(u8, N), Crowd<N>>,
    /// The sizes of places in use, with the number of intervals in each.
    sizes: Vec<(u8, usize)>,
}

/// The intervals of one place; most are alone.
#[derive(Debug)]
enum Crowd<N> {
    One(N, N, Id),
    Many(Box<Orders<N>>),
}

#[derive(Debug)]
struct Orders<N> {
    by_low: BTreeSet<(N, Id)>,
    by_high: BTreeSet<(N, Id)>,
}

impl<N> Default for Tree<N> {
    fn default() -> Self {
        Tree { places: Table::default(), sizes: Vec::new() }
    }
}

impl<N: Number> Tree<N> {
    pub(super) fn add(&mut self, low: N, high: N, plan: Id) {
        let size = N::size(low, high);
        match self.sizes.binary_search_by_key(&size, |(size, _)| *size) {
            Ok(at) => self.sizes[at].1 += 1,
            Err(at) => self.sizes.insert(at, (size, 1)),
        }
        let place = (size, low.place(size));
        match self.places.get_mut(&place) {
            Some(crowd) => crowd.add(low, high, plan),
            None => {
                self.places.insert(place, Crowd::One(low, high, plan));
            }
        }
    }

    pub(super) fn remove(&mut self, low: N, high: N, plan: Id) {
        let size = N::size(low, high);
        if let Ok(at) = self.sizes.binary_search_by_key(&size, |(size, _)| *size) {
            self.sizes[at].1 -= 1;
            if self.sizes[at].1 == 0 {
                self.sizes.remove(at);
            }
        }
        let place = (size, low.place(size));
        self.places.remove_if(&place, |crowd| crowd.remove(low, high, plan));
    }

    /// How many lie where this interval would.
    pub(super) fn crowd(&self, low: N, high: N) -> usize {
        let size = N::size(low, high);
        match self.places.get(&(size, low.place(size))) {
            None => 0,
            Some(Crowd::One(..)) => 1,
            Some(Crowd::Many(orders)) => orders.by_low.len(),
        }
    }

    /// Gives the plans whose interval holds the number.
    pub(super) fn stab(&self, point: N, out: &mut impl Extend<Id>) {
        for (size, _) in &self.sizes {
            match self.places.get(&(*size, point.place(*size))) {
                None => {}
                Some(Crowd::One(low, high, plan)) => {
                    out.extend((*low <= point && point <= *high).then_some(*plan));
                }
                Some(Crowd::Many(orders)) if point.is_upper(*size) => {
                    let held = orders.by_high.iter().rev().take_while(|(high, _)| point <= *high);
                    out.extend(held.map(|(_, plan)| *plan));
                }
                Some(Crowd::Many(orders)) => {
                    let held = orders.by_low.iter().take_while(|(low, _)| *low <= point);
                    out.extend(held.map(|(_, plan)| *plan));
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

impl<N: Number> Crowd<N> {
    fn add(&mut self, low: N, high: N, plan: Id) {
        match self {
            Crowd::One(from, to, first) => {
                let by_low = [(*from, *first), (low, plan)].into();
                let by_high = [(*to, *first), (high, plan)].into();
                *self = Crowd::Many(Box::new(Orders { by_low, by_high }));
            }
            Crowd::Many(orders) => {
                orders.by_low.insert((low, plan));
                orders.by_high.insert((high, plan));
            }
        }
    }

    /// Whether nobody is left.
    fn remove(&mut self, low: N, high: N, plan: Id) -> bool {
        let orders = match self {
            Crowd::One(.., first) => return *first == plan,
            Crowd::Many(orders) => orders,
        };
        orders.by_low.remove(&(low, plan));
        orders.by_high.remove(&(high, plan));
        if let (1, Some((low, last)), Some((high, _))) =
            (orders.by_low.len(), orders.by_low.first(), orders.by_high.first())
        {
            *self = Crowd::One(*low, *high, *last);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every interval of a few numbers near the edges of places, and every number.
    #[test]
    fn holds_what_a_walk_finds() {
        let edges = [0, 1, 2, 3, 7, 8, 9, 15, 16, 1 << 62, u64::MAX / 2, 1 << 63, u64::MAX];
        let mut tree = Tree::default();
        let mut all = Vec::new();
        for low in edges {
            for high in edges.into_iter().filter(|high| low <= *high) {
                let plan = all.len() as Id;
                tree.add(low, high, plan);
                all.push((low, high));
            }
        }
        let check = |tree: &Tree<u64>, there: &dyn Fn(usize) -> bool| {
            for point in edges.into_iter().chain([4, 100, (1 << 63) + 1]) {
                let mut found = Vec::new();
                tree.stab(point, &mut found);
                found.sort_unstable();
                let holds = |(plan, (low, high)): (usize, &(u64, u64))| {
                    (there(plan) && *low <= point && point <= *high).then_some(plan as Id)
                };
                let walked: Vec<Id> = all.iter().enumerate().filter_map(holds).collect();
                assert_eq!(found, walked, "{point}");
            }
        };
        check(&tree, &|_| true);
        for (plan, (low, high)) in all.iter().enumerate().filter(|(plan, _)| plan % 3 > 0) {
            tree.remove(*low, *high, plan as Id);
        }
        check(&tree, &|plan| plan % 3 == 0);
        for (plan, (low, high)) in all.iter().enumerate().filter(|(plan, _)| plan % 3 == 0) {
            tree.remove(*low, *high, plan as Id);
        }
        assert!(tree.is_empty() && tree.sizes.is_empty());
    }

    #[test]
    fn wide_numbers_too() {
        let mut tree = Tree::default();
        tree.add(0, u128::MAX, 1);
        tree.add(1 << 100, 1 << 101, 2);
        let found = |point: u128| {
            let mut found = Vec::new();
            tree.stab(point, &mut found);
            found.sort_unstable();
            found
        };
        assert_eq!(found(0), [1]);
        assert_eq!(found(1 << 100), [1, 2]);
        assert_eq!(found((1 << 101) + 1), [1]);
        assert_eq!(found(u128::MAX), [1]);
    }
}
