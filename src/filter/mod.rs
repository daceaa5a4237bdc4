//! Filters: JSON → [`ast::Ast`] → [`Predicate`] → TRUE, FALSE or UNKNOWN, or SQL.
//!
//! One tree, one compile step, two engines: [`eval`] for the stream, [`sql`] for lists and bulk
//! calls. A predicate is typed and cannot fail.

pub mod ast;
pub mod compile;
pub mod eval;
pub mod sql;
pub mod text;

use std::sync::Arc;

use crate::model::schema::{SchemaId, Slot};
use crate::model::value::Value;

/// A compiled filter over rows of one schema version.
#[derive(Clone, Debug, PartialEq)]
pub enum Predicate {
    Const(Truth),
    And(Box<[Predicate]>),
    Or(Box<[Predicate]>),
    Not(Box<Predicate>),
    Test(Test),
    /// To-one: `inner` on the related row, or on a row of NULLs where there is none.
    One(Box<Hop>),
    /// To-many: TRUE when `inner` is TRUE for some related row, else FALSE.
    Any(Box<Hop>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    True,
    False,
    Unknown,
}

/// One column against literals of its own type.
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    pub slot: Slot,
    pub op: TestOp,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TestOp {
    IsNull,
    NotNull,
    Eq(Value),
    Neq(Value),
    Gt(Value),
    Gte(Value),
    Lt(Value),
    Lte(Value),
    In(Arc<text::ValueSet>),
    NotIn(Arc<text::ValueSet>),
    Like(Arc<text::Like>),
    NotLike(Arc<text::Like>),
    Contains(Arc<text::Needle>),
    NotContains(Arc<text::Needle>),
    ContainsFold(Arc<text::Fold>),
    NotContainsFold(Arc<text::Fold>),
}

/// One step over a relation.
#[derive(Clone, Debug, PartialEq)]
pub struct Hop {
    /// The schema the step starts from and the relation's index there.
    pub schema: SchemaId,
    pub relation: usize,
    /// Related records for which this is not TRUE are hidden: they count as absent.
    pub visible: Option<Arc<Predicate>>,
    pub inner: Predicate,
}
