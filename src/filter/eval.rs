//! Predicate × row → TRUE, FALSE or UNKNOWN.
//!
//! The other reading of a predicate is [`super::sql`]; the two must agree on every row
//! (`tests/filter_oracle.rs` holds them to it).

use std::sync::Arc;

use super::{Hop, Predicate, Test, TestOp, Truth};
use crate::model::catalog::Catalog;
use crate::model::change::Row;
use crate::model::related::Related;
use crate::model::schema::Schema;
use crate::model::value::Value;

/// What the predicate says of a row of `schema`. `related` must hold what
/// [`Predicate::paths`] names; what is missing there counts as absent.
pub fn eval(
    predicate: &Predicate,
    catalog: &Catalog,
    schema: &Schema,
    row: &Row,
    related: &dyn Related,
) -> Truth {
    match predicate {
        Predicate::Const(truth) => *truth,
        Predicate::Test(test) => test.eval(row),
        Predicate::And(parts) => {
            let mut all = Truth::True;
            for part in parts {
                match eval(part, catalog, schema, row, related) {
                    Truth::True => {}
                    Truth::False => return Truth::False,
                    Truth::Unknown => all = Truth::Unknown,
                }
            }
            all
        }
        Predicate::Or(parts) => {
            let mut some = Truth::False;
            for part in parts {
                match eval(part, catalog, schema, row, related) {
                    Truth::True => return Truth::True,
                    Truth::False => {}
                    Truth::Unknown => some = Truth::Unknown,
                }
            }
            some
        }
        Predicate::Not(inner) => !eval(inner, catalog, schema, row, related),
        Predicate::One(hop) => hop
            .rows(catalog, schema, row, related)
            .and_then(|mut rows| rows.next())
            .map_or(hop.absent, |(target, row)| eval(&hop.inner, catalog, target, row, related)),
        Predicate::Any(hop) => hop
            .rows(catalog, schema, row, related)
            .is_some_and(|mut rows| {
                rows.any(|(target, row)| matches(&hop.inner, catalog, target, row, related))
            })
            .into(),
    }
}

/// Whether the predicate is TRUE: as [`eval`], but stops at the first part that is not.
pub fn matches(
    predicate: &Predicate,
    catalog: &Catalog,
    schema: &Schema,
    row: &Row,
    related: &dyn Related,
) -> bool {
    match predicate {
        Predicate::And(parts) => {
            parts.iter().all(|part| matches(part, catalog, schema, row, related))
        }
        Predicate::Or(parts) => {
            parts.iter().any(|part| matches(part, catalog, schema, row, related))
        }
        other => eval(other, catalog, schema, row, related) == Truth::True,
    }
}

impl Hop {
    /// The related rows that are not hidden, with their schema.
    fn rows<'a>(
        &'a self,
        catalog: &'a Catalog,
        schema: &Schema,
        row: &Row,
        related: &'a dyn Related,
    ) -> Option<impl Iterator<Item = (&'a Schema, &'a Row)>> {
        let relation = &schema.relations[self.relation];
        let target: &Schema = catalog.get(relation.target)?;
        let rows: &'a [Arc<Row>] = related.related(schema, relation, row);
        Some(rows.iter().map(move |row| (target, &**row)).filter(move |(target, row)| {
            self.visible
                .as_ref()
                .is_none_or(|visible| matches(visible, catalog, target, row, related))
        }))
    }
}

impl Test {
    /// Comparisons with NULL are UNKNOWN.
    fn eval(&self, row: &Row) -> Truth {
        let value = row.get(self.slot);
        match &self.op {
            TestOp::IsNull => return value.is_null().into(),
            TestOp::NotNull => return (!value.is_null()).into(),
            _ if value.is_null() => return Truth::Unknown,
            TestOp::Eq(literal) => value == literal,
            TestOp::Neq(literal) => value != literal,
            TestOp::Gt(literal) => value.compare(literal).is_some_and(|order| order.is_gt()),
            TestOp::Gte(literal) => value.compare(literal).is_some_and(|order| order.is_ge()),
            TestOp::Lt(literal) => value.compare(literal).is_some_and(|order| order.is_lt()),
            TestOp::Lte(literal) => value.compare(literal).is_some_and(|order| order.is_le()),
            TestOp::In(set) => set.contains(value),
            TestOp::NotIn(set) => !set.contains(value),
            TestOp::Like(like) => like.matches(text(value)),
            TestOp::NotLike(like) => !like.matches(text(value)),
            TestOp::Contains(needle) => needle.is_in(text(value)),
            TestOp::NotContains(needle) => !needle.is_in(text(value)),
            TestOp::ContainsFold(fold) => fold.is_in(text(value)),
            TestOp::NotContainsFold(fold) => !fold.is_in(text(value)),
        }
        .into()
    }
}

/// The compile step lets text operators near text columns only.
fn text(value: &Value) -> &str {
    match value {
        Value::Text(text) => text,
        _ => "",
    }
}
