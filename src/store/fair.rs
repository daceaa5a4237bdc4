//! Many lines, one from each in turn.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// What waits, in a line for each of those who wait. Whoever has a thousand things in its line is
/// served as often as who has one.
#[derive(Debug)]
pub struct Fair<K, T> {
    lines: HashMap<K, VecDeque<T>>,
    /// Those with something in their line, in the order of their turns.
    turns: VecDeque<K>,
    len: usize,
}

impl<K, T> Default for Fair<K, T> {
    fn default() -> Self {
        Fair { lines: HashMap::new(), turns: VecDeque::new(), len: 0 }
    }
}

impl<K: Clone + Eq + Hash, T> Fair<K, T> {
    /// Puts `item` at the end of the line of `whose`.
    pub fn push(&mut self, whose: K, item: T) {
        let line = self.lines.entry(whose.clone()).or_default();
        if line.is_empty() {
            self.turns.push_back(whose);
        }
        line.push_back(item);
        self.len += 1;
    }

    /// The first in the line of whoever has the turn; the turn goes on.
    pub fn pop(&mut self) -> Option<T> {
        let whose = self.turns.pop_front()?;
        let line = self.lines.get_mut(&whose)?;
        let item = line.pop_front();
        if line.is_empty() {
            self.lines.remove(&whose);
        } else {
            self.turns.push_back(whose);
        }
        self.len -= usize::from(item.is_some());
        item
    }

    /// How many wait, in all lines.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_in_turn() {
        let mut fair = Fair::default();
        for n in 0..4 {
            fair.push("many", n);
        }
        fair.push("one", 10);
        fair.push("two", 20);
        fair.push("two", 21);
        assert_eq!(fair.len(), 7);
        let first: Vec<i32> = std::iter::from_fn(|| fair.pop()).take(4).collect();
        assert_eq!(first, [0, 10, 20, 1]);
        // Who comes back stands behind those who have not had their turn since.
        fair.push("one", 11);
        let rest: Vec<i32> = std::iter::from_fn(|| fair.pop()).collect();
        assert_eq!(rest, [21, 2, 11, 3]);
        assert!(fair.is_empty() && fair.lines.is_empty() && fair.turns.is_empty());
    }
}
