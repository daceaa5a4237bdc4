//! Filters: JSON → [`ast::Ast`] → [`Predicate`] → TRUE, FALSE or UNKNOWN, or SQL.
//!
//! One tree, one compile step, two engines: [`eval`] for the stream, [`sql`] for lists and bulk
//! calls. A predicate is typed and cannot fail.

pub mod ast;
pub mod compile;
pub mod cost;
pub mod eval;
pub mod fold;
pub mod sql;
pub mod text;

use std::cmp::Ordering;
use std::sync::Arc;

use crate::model::catalog::Catalog;
use crate::model::related::Paths;
use crate::model::schema::{Schema, SchemaId, Slot};
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

/// SQL's three values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Truth {
    True,
    False,
    Unknown,
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Truth::True } else { Truth::False }
    }
}

impl std::ops::Not for Truth {
    type Output = Truth;

    /// NOT UNKNOWN is UNKNOWN.
    fn not(self) -> Truth {
        match self {
            Truth::True => Truth::False,
            Truth::False => Truth::True,
            Truth::Unknown => Truth::Unknown,
        }
    }
}

/// One column against literals of its own type.
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    pub slot: Slot,
    pub op: TestOp,
}

/// What a column's value is tested for. Literals have the column's type and are never NULL; all
/// but the first two are UNKNOWN for NULL.
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
    In(Arc<ValueSet>),
    NotIn(Arc<ValueSet>),
    Like(Arc<text::Like>),
    NotLike(Arc<text::Like>),
    Contains(Arc<text::Needle>),
    NotContains(Arc<text::Needle>),
    ContainsFold(Arc<fold::Fold>),
    NotContainsFold(Arc<fold::Fold>),
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
    /// What `inner` is on a row of NULLs: the result of [`Predicate::One`] where there is no
    /// related record.
    pub absent: Truth,
}

/// Literals of `$in` and `$nin`, all of one type and none NULL: sorted, each once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ValueSet(Box<[Value]>);

impl ValueSet {
    /// Collects literals of one column's type; NULLs are dropped.
    pub fn new(mut values: Vec<Value>) -> Self {
        values.retain(|value| !value.is_null());
        values.sort_by(order);
        values.dedup();
        ValueSet(values.into())
    }

    /// Whether a value of that type (not NULL) is in the set.
    pub fn contains(&self, value: &Value) -> bool {
        // A few are compared faster than searched.
        if self.0.len() <= 4 {
            return self.0.contains(value);
        }
        self.0.binary_search_by(|literal| order(literal, value)).is_ok()
    }

    /// The literals in order.
    pub fn values(&self) -> &[Value] {
        &self.0
    }
}

/// Any total order will do for looking up; `bytes` have none of their own.
fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        _ => a.compare(b).unwrap_or(Ordering::Equal),
    }
}

/// Parts of an AND or OR that are compared each with each, so that one asked twice costs once:
/// some 50 us for all of them. What is longer is left as it is.
const COMPARED: usize = 256;

impl Predicate {
    /// TRUE for every row.
    pub const ALL: Predicate = Predicate::Const(Truth::True);
    /// TRUE for no row.
    pub const NONE: Predicate = Predicate::Const(Truth::False);

    /// TRUE when all parts are; simplified, cheap parts first.
    pub fn and(parts: impl IntoIterator<Item = Predicate>) -> Predicate {
        let mut flat = Vec::new();
        for part in parts {
            match part {
                Predicate::Const(Truth::True) => {}
                Predicate::And(inner) => flat.extend(inner),
                part => flat.push(part),
            }
        }
        Predicate::join(flat, Predicate::NONE, Predicate::ALL, Predicate::And)
    }

    /// TRUE when some part is; simplified, cheap parts first.
    pub fn or(parts: impl IntoIterator<Item = Predicate>) -> Predicate {
        let mut flat = Vec::new();
        for part in parts {
            match part {
                Predicate::Const(Truth::False) => {}
                Predicate::Or(inner) => flat.extend(inner),
                part => flat.push(part),
            }
        }
        Predicate::join(flat, Predicate::ALL, Predicate::NONE, Predicate::Or)
    }

    /// `deciding` settles the whole, whatever the other parts are; `empty` is the value of none.
    fn join(
        mut parts: Vec<Predicate>,
        deciding: Predicate,
        empty: Predicate,
        make: fn(Box<[Predicate]>) -> Predicate,
    ) -> Predicate {
        if parts.contains(&deciding) {
            return deciding;
        }
        // A rule's part and a client's are often the same.
        if parts.len() <= COMPARED {
            let mut distinct = Vec::with_capacity(parts.len());
            for part in parts {
                if !distinct.contains(&part) {
                    distinct.push(part);
                }
            }
            parts = distinct;
        }
        // AND and OR do not care for order, the evaluator stops at the first part that decides.
        parts.sort_by_key(Predicate::rank);
        match parts.pop() {
            None => empty,
            Some(only) if parts.is_empty() => only,
            Some(last) => {
                parts.push(last);
                make(parts.into())
            }
        }
    }

    /// What of several to look at first: 0 nothing, 1 a comparison, 2 reading text, 3 related rows.
    fn rank(&self) -> u8 {
        match self {
            Predicate::Const(_) => 0,
            Predicate::And(parts) | Predicate::Or(parts) => {
                parts.iter().map(Predicate::rank).max().unwrap_or(0)
            }
            Predicate::Not(inner) => inner.rank(),
            Predicate::Test(test) => match test.op {
                TestOp::Like(_)
                | TestOp::NotLike(_)
                | TestOp::Contains(_)
                | TestOp::NotContains(_)
                | TestOp::ContainsFold(_)
                | TestOp::NotContainsFold(_) => 2,
                _ => 1,
            },
            Predicate::One(_) | Predicate::Any(_) => 3,
        }
    }

    /// The relations that have to be gathered for [`eval::eval`]: those of the predicate itself
    /// and of what hides related records. `schema` is the one whose rows it is about.
    pub fn paths(&self, catalog: &Catalog, schema: &Schema) -> Paths {
        let mut paths = Paths::default();
        self.add_paths(catalog, schema, &mut paths);
        paths
    }

    fn add_paths(&self, catalog: &Catalog, schema: &Schema, paths: &mut Paths) {
        match self {
            Predicate::Const(_) | Predicate::Test(_) => {}
            Predicate::And(parts) | Predicate::Or(parts) => {
                parts.iter().for_each(|part| part.add_paths(catalog, schema, paths));
            }
            Predicate::Not(inner) => inner.add_paths(catalog, schema, paths),
            Predicate::One(hop) | Predicate::Any(hop) => {
                let relation = &schema.relations[hop.relation];
                let deeper = paths.0.entry(relation.name.clone()).or_default();
                if let Some(target) = catalog.get(relation.target) {
                    hop.inner.add_paths(catalog, target, deeper);
                    if let Some(visible) = &hop.visible {
                        visible.add_paths(catalog, target, deeper);
                    }
                }
            }
        }
    }
}

impl std::ops::Not for Predicate {
    type Output = Predicate;

    fn not(self) -> Predicate {
        match self {
            Predicate::Const(truth) => Predicate::Const(!truth),
            Predicate::Not(inner) => *inner,
            other => Predicate::Not(Box::new(other)),
        }
    }
}
