//! What a filter costs before anything runs, counted in comparisons.
//!
//! A rough measure, and the same for everybody: it does not know how many records are related nor
//! how long a text is. It tells a cheap filter from a dear one, so that a client can be told which
//! part of what it asks is too much.

use std::fmt;
use std::ops::{Add, AddAssign};

use super::{Hop, Predicate, TestOp};

/// Reading a text from its beginning: `$like`, `$contains` and their kin. A long pattern reads it
/// more than once; see [`Like::readings`](super::text::Like::readings).
pub const TEXT: u64 = 16;

/// One step over a relation: its records are found, and looked at whether they may be seen.
pub const RELATION: u64 = 64;

/// How much there is of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Comparisons; one with `n` literals counts as many as looking it up among them takes, or an
    /// eighth of `n` where that is more.
    pub comparisons: u64,
    /// Texts read through.
    pub texts: u64,
    /// Steps over relations.
    pub relations: u64,
}

impl Cost {
    /// All of it in comparisons.
    pub fn total(self) -> u64 {
        self.comparisons + self.texts * TEXT + self.relations * RELATION
    }
}

impl Add for Cost {
    type Output = Cost;

    fn add(self, other: Cost) -> Cost {
        Cost {
            comparisons: self.comparisons + other.comparisons,
            texts: self.texts + other.texts,
            relations: self.relations + other.relations,
        }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        *self = *self + other;
    }
}

impl fmt::Display for Cost {
    /// `146 (2 comparisons, 1 text of 16, 2 relations of 64)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.total())?;
        let many = |number: u64| if number == 1 { "" } else { "s" };
        let mut parts = Vec::new();
        if self.comparisons > 0 {
            parts.push(format!("{} comparison{}", self.comparisons, many(self.comparisons)));
        }
        if self.texts > 0 {
            parts.push(format!("{} text{} of {TEXT}", self.texts, many(self.texts)));
        }
        if self.relations > 0 {
            let relations = self.relations;
            parts.push(format!("{relations} relation{} of {RELATION}", many(relations)));
        }
        match parts.is_empty() {
            true => Ok(()),
            false => write!(f, " ({})", parts.join(", ")),
        }
    }
}

impl Predicate {
    /// What evaluating it once takes at most, were every relation one record.
    pub fn cost(&self) -> Cost {
        match self {
            Predicate::Const(_) => Cost::default(),
            Predicate::And(parts) | Predicate::Or(parts) => {
                parts.iter().fold(Cost::default(), |cost, part| cost + part.cost())
            }
            Predicate::Not(inner) => inner.cost(),
            Predicate::Test(test) => test.op.cost(),
            Predicate::One(hop) | Predicate::Any(hop) => hop.cost(),
        }
    }
}

impl Hop {
    fn cost(&self) -> Cost {
        let visible = self.visible.as_ref().map_or_else(Cost::default, |filter| filter.cost());
        Cost { relations: 1, ..Cost::default() } + visible + self.inner.cost()
    }
}

impl TestOp {
    fn cost(&self) -> Cost {
        match self {
            TestOp::In(set) | TestOp::NotIn(set) => {
                // Few are looked at; but each is kept, and filed where changes are looked up.
                let all = set.values().len();
                let steps = u64::from(all.max(1).ilog2()) + 1;
                Cost { comparisons: steps.max(all as u64 / 8), ..Cost::default() }
            }
            TestOp::Like(like) | TestOp::NotLike(like) => {
                Cost { texts: like.readings(), ..Cost::default() }
            }
            TestOp::Contains(_)
            | TestOp::NotContains(_)
            | TestOp::ContainsFold(_)
            | TestOp::NotContainsFold(_) => Cost { texts: 1, ..Cost::default() },
            TestOp::IsNull
            | TestOp::NotNull
            | TestOp::Eq(_)
            | TestOp::Neq(_)
            | TestOp::Gt(_)
            | TestOp::Gte(_)
            | TestOp::Lt(_)
            | TestOp::Lte(_) => Cost { comparisons: 1, ..Cost::default() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_there_is() {
        let cost = |comparisons, texts, relations| Cost { comparisons, texts, relations };
        assert_eq!(cost(0, 0, 0).to_string(), "0");
        assert_eq!(cost(2, 0, 0).to_string(), "2 (2 comparisons)");
        assert_eq!(
            cost(2, 1, 2).to_string(),
            "146 (2 comparisons, 1 text of 16, 2 relations of 64)"
        );
        assert_eq!((cost(1, 2, 3) + cost(1, 0, 1)).total(), 2 + 32 + 256);
    }
}
