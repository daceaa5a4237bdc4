//! Predicate → SQL: the visible mirror of `eval`.
//!
//! | predicate | SQL |
//! | --- | --- |
//! | `Const` | `1`, `0`, `NULL` |
//! | `Test` | `a."views" > ?`, `rc_like(a."name", ?)` … |
//! | `One` | `(SELECT inner FROM target WHERE …)`: NULL where there is no row |
//! | `One`, known without a row | `(SELECT inner FROM (SELECT 1) LEFT JOIN target ON …)`: a row of NULLs |
//! | `Any` | `EXISTS (SELECT 1 FROM target WHERE … AND inner)` |
//!
//! SQLite's AND, OR, NOT and comparisons have the same three values as ours. Literals are always
//! parameters. LIKE, substrings and folding are our own functions (`store/functions.rs`).

use std::fmt::Write as _;

use super::{Hop, Predicate, Test, TestOp, Truth};
use crate::model::catalog::Catalog;
use crate::model::schema::{Schema, Shape};
use crate::model::value::Value;

/// A piece of SQL and the values of its `?`s, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SqlText {
    pub text: String,
    pub params: Vec<Value>,
}

/// An expression that is 1, 0 or NULL for a row of `schema`'s table, which the statement must
/// have under the name `alias` (a plain word; names within begin with it). The connection must
/// have the functions of `store/functions.rs`.
pub fn write(predicate: &Predicate, catalog: &Catalog, schema: &Schema, alias: &str) -> SqlText {
    let mut writer = Writer { catalog, alias, aliases: 0, out: SqlText::default() };
    writer.predicate(predicate, schema, alias);
    writer.out
}

/// An identifier, quoted. The only place where names become SQL.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

struct Writer<'a> {
    catalog: &'a Catalog,
    alias: &'a str,
    aliases: usize,
    out: SqlText,
}

impl Writer<'_> {
    fn predicate(&mut self, predicate: &Predicate, schema: &Schema, alias: &str) {
        match predicate {
            Predicate::Const(Truth::True) => self.push("1"),
            Predicate::Const(Truth::False) => self.push("0"),
            Predicate::Const(Truth::Unknown) => self.push("NULL"),
            Predicate::And(parts) => self.joined(parts, " AND ", "1", schema, alias),
            Predicate::Or(parts) => self.joined(parts, " OR ", "0", schema, alias),
            Predicate::Not(inner) => {
                self.push("NOT (");
                self.predicate(inner, schema, alias);
                self.push(")");
            }
            Predicate::Test(test) => self.test(test, schema, alias),
            Predicate::One(hop) => self.one(hop, schema, alias),
            Predicate::Any(hop) => self.any(hop, schema, alias),
        }
    }

    fn joined(
        &mut self,
        parts: &[Predicate],
        between: &str,
        empty: &str,
        schema: &Schema,
        alias: &str,
    ) {
        if parts.is_empty() {
            return self.push(empty);
        }
        self.push("(");
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                self.push(between);
            }
            self.predicate(part, schema, alias);
        }
        self.push(")");
    }

    fn test(&mut self, test: &Test, schema: &Schema, alias: &str) {
        let column = format!("{alias}.{}", quote(&schema.columns[test.slot].name));
        match &test.op {
            TestOp::IsNull => self.push(&format!("{column} IS NULL")),
            TestOp::NotNull => self.push(&format!("{column} IS NOT NULL")),
            TestOp::Eq(literal) => self.compare(&column, "=", literal),
            TestOp::Neq(literal) => self.compare(&column, "<>", literal),
            TestOp::Gt(literal) => self.compare(&column, ">", literal),
            TestOp::Gte(literal) => self.compare(&column, ">=", literal),
            TestOp::Lt(literal) => self.compare(&column, "<", literal),
            TestOp::Lte(literal) => self.compare(&column, "<=", literal),
            // SQLite's `NULL IN ()` is 0 and `NULL NOT IN ()` 1; ours are UNKNOWN.
            TestOp::In(set) if set.values().is_empty() => {
                self.push(&format!("({column} <> {column})"));
            }
            TestOp::NotIn(set) if set.values().is_empty() => {
                self.push(&format!("({column} = {column})"));
            }
            TestOp::In(set) => self.member(&column, "IN", set.values()),
            TestOp::NotIn(set) => self.member(&column, "NOT IN", set.values()),
            TestOp::Like(like) => self.call("rc_like", &column, like.source()),
            TestOp::NotLike(like) => self.call("NOT rc_like", &column, like.source()),
            TestOp::Contains(needle) => self.call("rc_contains", &column, needle.source()),
            TestOp::NotContains(needle) => {
                self.call("NOT rc_contains", &column, needle.source());
            }
            TestOp::ContainsFold(fold) => self.call("rc_contains_fold", &column, fold.source()),
            TestOp::NotContainsFold(fold) => {
                self.call("NOT rc_contains_fold", &column, fold.source());
            }
        }
    }

    fn compare(&mut self, column: &str, operator: &str, literal: &Value) {
        self.push(&format!("{column} {operator} ?"));
        self.out.params.push(literal.clone());
    }

    fn member(&mut self, column: &str, operator: &str, literals: &[Value]) {
        self.push(&format!("{column} {operator} (?"));
        self.push(&",?".repeat(literals.len().saturating_sub(1)));
        self.push(")");
        self.out.params.extend_from_slice(literals);
    }

    fn call(&mut self, function: &str, column: &str, text: &str) {
        self.push(&format!("{function}({column}, ?)"));
        self.out.params.push(Value::Text(text.into()));
    }

    fn one(&mut self, hop: &Hop, schema: &Schema, alias: &str) {
        let Some(target) = self.catalog.get(schema.relations[hop.relation].target) else {
            return self.predicate(&Predicate::Const(hop.absent), schema, alias);
        };
        let inner = self.alias();
        self.push("(SELECT ");
        self.predicate(&hop.inner, target, &inner);
        let table = quote(&target.table);
        // No row gives NULL, which is right where NULLs make `inner` UNKNOWN; and cheaper.
        let _ = match hop.absent {
            Truth::Unknown => write!(self.out.text, " FROM {table} AS {inner} WHERE "),
            _ => write!(self.out.text, " FROM (SELECT 1) LEFT JOIN {table} AS {inner} ON "),
        };
        self.joins(hop, schema, alias, target, &inner);
        self.push(")");
    }

    fn any(&mut self, hop: &Hop, schema: &Schema, alias: &str) {
        let Some(target) = self.catalog.get(schema.relations[hop.relation].target) else {
            return self.push("0");
        };
        let inner = self.alias();
        let _ = write!(
            self.out.text,
            "EXISTS (SELECT 1 FROM {} AS {inner} WHERE ",
            quote(&target.table)
        );
        self.joins(hop, schema, alias, target, &inner);
        if hop.inner != Predicate::ALL {
            self.push(" AND ");
            self.predicate(&hop.inner, target, &inner);
        }
        self.push(")");
    }

    /// Which rows `inner` of the target are the related ones that are not hidden.
    fn joins(&mut self, hop: &Hop, schema: &Schema, alias: &str, target: &Schema, inner: &str) {
        let own_key = quote(&schema.primary_column().name);
        let target_key = quote(&target.primary_column().name);
        match schema.relations[hop.relation].shape {
            Shape::Key { slot } => {
                let key = quote(&schema.columns[slot].name);
                self.push(&format!("{inner}.{target_key} = {alias}.{key}"));
            }
            Shape::BackKey { slot } | Shape::Many { slot } => {
                let key = quote(&target.columns[slot].name);
                self.push(&format!("{inner}.{key} = {alias}.{own_key}"));
            }
            Shape::Link { junction, own, other } => match self.catalog.get(junction) {
                None => self.push("0"),
                Some(junction) => {
                    let link = self.alias();
                    let own = quote(&junction.columns[own].name);
                    let other = quote(&junction.columns[other].name);
                    self.push(&format!(
                        "{inner}.{target_key} IN (SELECT {link}.{other} FROM {} AS {link} \
                         WHERE {link}.{own} = {alias}.{own_key})",
                        quote(&junction.table)
                    ));
                }
            },
        }
        if let Some(visible) = &hop.visible {
            self.push(" AND ");
            self.predicate(visible, target, inner);
        }
    }

    /// A name that no other table of the expression has.
    fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("{}_{}", self.alias, self.aliases)
    }

    fn push(&mut self, text: &str) {
        self.out.text.push_str(text);
    }
}
