//! Tree and schema → predicate: names, operators and literals checked once.

use std::sync::Arc;

use serde_json::Value as Json;

use super::ast::{self, Ast, Comparison, Field, Literal, Node, Operator, fault};
use super::fold::Fold;
use super::text::{Like, Needle};
use super::{Hop, Predicate, Test, TestOp, Truth, ValueSet, eval};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::model::catalog::Catalog;
use crate::model::change::Row;
use crate::model::near;
use crate::model::related::NoRelated;
use crate::model::schema::{Column, FieldRef, Schema, Shape, Slot};
use crate::model::value::{FieldType, Value};

/// What the asking principal may read. What it may not read is answered exactly as what does not
/// exist. A foreign key column is asked for as its relation.
pub trait Reader {
    /// Whether a field of the filtered schema may be named.
    fn own(&self, schema: &Schema, field: FieldRef) -> bool;

    /// Whether `field` of `target` may be read over a relation: `None` no, `Some(None)` on every
    /// record, `Some(Some(p))` on records for which `p` is TRUE; the others count as absent.
    fn hop(&self, target: &Schema, field: FieldRef) -> Option<Option<Arc<Predicate>>>;
}

/// Reads everything: access rules' own filters, and admins.
pub struct Unrestricted;

impl Reader for Unrestricted {
    fn own(&self, _: &Schema, _: FieldRef) -> bool {
        true
    }

    fn hop(&self, _: &Schema, _: FieldRef) -> Option<Option<Arc<Predicate>>> {
        Some(None)
    }
}

/// Checks a filter against a schema and makes it ready to run. Errors (400) begin with the JSON
/// path of the part at fault and say what would be right; they name nothing that `reader` refuses.
pub fn compile(
    ast: &Ast,
    catalog: &Catalog,
    schema: &Schema,
    reader: &dyn Reader,
    limits: &Limits,
) -> Result<Predicate> {
    Compiler { catalog, schema, reader, limits }.node(&ast.root)
}

struct Compiler<'a> {
    catalog: &'a Catalog,
    schema: &'a Schema,
    reader: &'a dyn Reader,
    limits: &'a Limits,
}

/// One relation on the way to a field.
struct Step<'a> {
    from: &'a Schema,
    relation: usize,
    visible: Option<Arc<Predicate>>,
}

/// Where a path ends: the relations to cross, then the column to compare.
struct Target<'a> {
    steps: Vec<Step<'a>>,
    slot: Slot,
    column: &'a Column,
    /// The path ends with the bare name of a to-many relation.
    bare_many: bool,
}

impl<'a> Compiler<'a> {
    fn node(&self, node: &Node) -> Result<Predicate> {
        let all =
            |nodes: &[Node]| nodes.iter().map(|node| self.node(node)).collect::<Result<Vec<_>>>();
        Ok(match node {
            Node::And(nodes) => Predicate::and(all(nodes)?),
            Node::Or(nodes) => Predicate::or(all(nodes)?),
            Node::Not(inner) => !self.node(inner)?,
            Node::Field(field) => self.field(field)?,
        })
    }

    fn field(&self, field: &Field) -> Result<Predicate> {
        let target = self.resolve(field)?;
        let to_many = target.steps.iter().any(|step| step.from.relations[step.relation].to_many());
        if !to_many {
            let tests = field
                .comparisons
                .iter()
                .map(|comparison| self.test(comparison, &target))
                .collect::<Result<Vec<_>>>()?;
            return Ok(self.along(&target.steps, Predicate::and(tests)));
        }
        // Positive tests speak of one related record; each negative one says that no related
        // record passes its positive twin.
        let (mut positive, mut parts) = (Vec::new(), Vec::new());
        for comparison in &field.comparisons {
            let test = self.test(comparison, &target)?;
            match twin(&test, target.bare_many) {
                Some(twin) => parts.push(!self.along(&target.steps, twin)),
                None => positive.push(test),
            }
        }
        if !positive.is_empty() {
            parts.push(self.along(&target.steps, Predicate::and(positive)));
        }
        Ok(Predicate::and(parts))
    }

    /// `inner` on what the steps lead to.
    fn along(&self, steps: &[Step], inner: Predicate) -> Predicate {
        steps.iter().rev().fold(inner, |inner, step| {
            let relation = &step.from.relations[step.relation];
            let to_many = relation.to_many();
            // To-many relations have no row of NULLs to speak of.
            let absent = if to_many { Truth::False } else { self.on_nulls(&inner, step) };
            let hop = Box::new(Hop {
                schema: step.from.id,
                relation: step.relation,
                visible: step.visible.clone(),
                inner,
                absent,
            });
            if to_many { Predicate::Any(hop) } else { Predicate::One(hop) }
        })
    }

    /// What a predicate over the step's target says of a record that is not there.
    fn on_nulls(&self, inner: &Predicate, step: &Step) -> Truth {
        self.catalog.get(step.from.relations[step.relation].target).map_or(
            Truth::Unknown,
            |target| {
                let nulls = Row::new(vec![Value::Null; target.columns.len()]);
                eval::eval(inner, self.catalog, target, &nulls, &NoRelated)
            },
        )
    }

    fn resolve(&self, field: &Field) -> Result<Target<'a>> {
        let unknown = |hint: String| {
            fault(parent(field), format!("unknown field '{}'{hint}", shown(&field.name)))
        };
        let mut steps: Vec<Step<'a>> = Vec::new();
        let mut schema = self.schema;
        let mut parts = field.name.split('.').peekable();
        while let Some(name) = parts.next() {
            let last = parts.peek().is_none();
            // A key column is another name of its relation.
            let found = schema.field(name).map(|found| match found {
                FieldRef::Column(slot) => {
                    schema.columns[slot].key_of.map_or(found, FieldRef::Relation)
                }
                FieldRef::Relation(_) => found,
            });
            let sight = found.and_then(|found| self.readable(schema, &steps, found));
            let (Some(found), Some(sight)) = (found, sight) else {
                return Err(unknown(self.hint(schema, &steps, field, name)));
            };
            // Which of the records we came to may be seen depends on the field read there.
            if let Some(step) = steps.last_mut() {
                step.visible = sight;
            }
            let relation = match found {
                FieldRef::Column(slot) if last => {
                    let column = &schema.columns[slot];
                    return Ok(Target { steps, slot, column, bare_many: false });
                }
                FieldRef::Column(_) => return Err(unknown(format!("; '{name}' is no relation"))),
                FieldRef::Relation(relation) => relation,
            };
            let step = &schema.relations[relation];
            let Some(target) = self.catalog.get(step.target) else {
                return Err(unknown(String::new()));
            };
            if !last {
                if schema.column(name).is_some() {
                    // `category_id.name`: the key is a value, paths go by the relation's name.
                    return Err(unknown(self.hint(schema, &steps, field, name)));
                }
                self.check_hops(&steps, field)?;
                steps.push(Step { from: schema, relation, visible: None });
                schema = target;
                continue;
            }
            // A bare relation: the related primary key.
            let Some(visible) = self.reader.hop(target, FieldRef::Column(target.primary)) else {
                return Err(unknown(self.hint(schema, &steps, field, name)));
            };
            // Counted even where the key lies here and nothing has to be crossed: what a path may
            // be shall not depend on where keys lie or on what is hidden.
            self.check_hops(&steps, field)?;
            if let (Shape::Key { slot }, None) = (step.shape, &visible) {
                let column = &schema.columns[slot];
                return Ok(Target { steps, slot, column, bare_many: false });
            }
            steps.push(Step { from: schema, relation, visible });
            return Ok(Target {
                steps,
                slot: target.primary,
                column: target.primary_column(),
                bare_many: step.to_many(),
            });
        }
        Err(unknown(String::new()))
    }

    /// Whether one more relation may be crossed.
    fn check_hops(&self, steps: &[Step], field: &Field) -> Result<()> {
        if steps.len() >= self.limits.filter_hops {
            return Err(fault(&field.at, ast::too_many_hops(self.limits)));
        }
        Ok(())
    }

    /// Whether a field may be read where the steps lead: `None` no; else where (see
    /// [`Reader::hop`]).
    fn readable(
        &self,
        schema: &Schema,
        steps: &[Step],
        field: FieldRef,
    ) -> Option<Option<Arc<Predicate>>> {
        if steps.is_empty() {
            self.reader.own(schema, field).then_some(None)
        } else {
            self.reader.hop(schema, field)
        }
    }

    /// "Did you mean" among what may be read.
    fn hint(&self, schema: &Schema, steps: &[Step], field: &Field, name: &str) -> String {
        let columns = schema
            .columns
            .iter()
            .enumerate()
            .filter(|(_, column)| column.key_of.is_none())
            .map(|(slot, column)| (FieldRef::Column(slot), &*column.name));
        let relations = schema
            .relations
            .iter()
            .enumerate()
            .filter(|(_, relation)| {
                self.catalog.get(relation.target).is_some_and(|target| {
                    self.reader.hop(target, FieldRef::Column(target.primary)).is_some()
                })
            })
            .map(|(index, relation)| (FieldRef::Relation(index), &*relation.name));
        let candidates = columns
            .chain(relations)
            .filter(|(found, _)| self.readable(schema, steps, *found).is_some())
            .map(|(_, name)| name);
        near::nearest(name, candidates).map_or_else(String::new, |meant| {
            let path: Vec<&str> = field
                .name
                .split('.')
                .enumerate()
                .map(|(index, part)| if index == steps.len() { meant } else { part })
                .collect();
            format!("; did you mean '{}'?", shown(&path.join(".")))
        })
    }

    fn test(&self, comparison: &Comparison, target: &Target) -> Result<Predicate> {
        let operator = comparison.operator;
        let column = target.column;
        if !takes(operator, column.ty) {
            return Err(fault(
                &comparison.at,
                format!(
                    "{} does not work on type {}; use {}",
                    operator.name(),
                    column.ty.name(),
                    operators_of(column.ty)
                ),
            ));
        }
        let literal = match &comparison.literal {
            Literal::Unknown => return Ok(Predicate::Const(Truth::Unknown)),
            literal => Source { literal, at: &comparison.at, column },
        };
        let op = match operator {
            Operator::Eq => match literal.value()? {
                Value::Null => TestOp::IsNull,
                value => TestOp::Eq(value),
            },
            Operator::Neq => match literal.value()? {
                Value::Null => TestOp::NotNull,
                value => TestOp::Neq(value),
            },
            Operator::Null if literal.flag()? => TestOp::IsNull,
            Operator::Null => TestOp::NotNull,
            Operator::Gt => TestOp::Gt(literal.not_null(operator)?),
            Operator::Gte => TestOp::Gte(literal.not_null(operator)?),
            Operator::Lt => TestOp::Lt(literal.not_null(operator)?),
            Operator::Lte => TestOp::Lte(literal.not_null(operator)?),
            Operator::In => TestOp::In(Arc::new(literal.set(self.limits)?)),
            Operator::Nin => TestOp::NotIn(Arc::new(literal.set(self.limits)?)),
            Operator::Like => TestOp::Like(Arc::new(literal.like()?)),
            Operator::NotLike => TestOp::NotLike(Arc::new(literal.like()?)),
            Operator::Contains => TestOp::Contains(Arc::new(Needle::new(&literal.text()?))),
            Operator::NotContains => TestOp::NotContains(Arc::new(Needle::new(&literal.text()?))),
            Operator::ContainsFold => TestOp::ContainsFold(Arc::new(Fold::new(&literal.text()?))),
            Operator::NotContainsFold => {
                TestOp::NotContainsFold(Arc::new(Fold::new(&literal.text()?)))
            }
        };
        Ok(Predicate::Test(Test { slot: target.slot, op }))
    }
}

/// The positive twin of a negative test through to-many. `$null: true` is negative on a bare
/// relation only: there it means that nothing is related.
fn twin(test: &Predicate, bare_many: bool) -> Option<Predicate> {
    let Predicate::Test(Test { slot, op }) = test else {
        return None;
    };
    let op = match op {
        TestOp::Neq(value) => TestOp::Eq(value.clone()),
        TestOp::NotIn(set) => TestOp::In(set.clone()),
        TestOp::NotLike(like) => TestOp::Like(like.clone()),
        TestOp::NotContains(needle) => TestOp::Contains(needle.clone()),
        TestOp::NotContainsFold(fold) => TestOp::ContainsFold(fold.clone()),
        TestOp::IsNull if bare_many => return Some(Predicate::ALL),
        _ => return None,
    };
    Some(Predicate::Test(Test { slot: *slot, op }))
}

/// Whether an operator works on a type.
fn takes(operator: Operator, ty: FieldType) -> bool {
    match operator {
        Operator::Eq | Operator::Neq | Operator::Null => true,
        Operator::In | Operator::Nin => ty != FieldType::Json,
        Operator::Gt | Operator::Gte | Operator::Lt | Operator::Lte => ty.is_ordered(),
        Operator::Like
        | Operator::NotLike
        | Operator::Contains
        | Operator::NotContains
        | Operator::ContainsFold
        | Operator::NotContainsFold => ty.is_text(),
    }
}

fn operators_of(ty: FieldType) -> String {
    let names: Vec<&str> = Operator::ALL
        .into_iter()
        .filter(|operator| takes(*operator, ty))
        .map(Operator::name)
        .collect();
    names.join(" ")
}

/// A literal on its way to the column's type.
struct Source<'a> {
    literal: &'a Literal,
    at: &'a str,
    column: &'a Column,
}

impl Source<'_> {
    fn json(&self) -> (&Json, bool) {
        match self.literal {
            Literal::Typed(json) => (json, false),
            Literal::Untyped(json) => (json, true),
            Literal::Unknown => (&Json::Null, false),
        }
    }

    fn read(&self, json: &Json, untyped: bool, at: &str) -> Result<Value> {
        let Column { ty, enums, .. } = self.column;
        match json {
            // Text has no null of its own, so only where `null` can be no value it means NULL.
            Json::String(text) if untyped && text == "null" && !ty.is_text() => Ok(Value::Null),
            Json::String(text) if untyped => Value::text_of_type(text, *ty, enums),
            Json::Array(_) | Json::Object(_) if untyped && *ty == FieldType::Json => {
                Err("expected JSON as text, got brackets".to_owned())
            }
            Json::Array(_) if *ty != FieldType::Json => {
                Err(format!("expected {}, got an array; use $in", ty.expects(enums)))
            }
            json => Value::of_type(json, *ty, enums),
        }
        .map_err(|wrong| fault(at, wrong))
    }

    fn value(&self) -> Result<Value> {
        let (json, untyped) = self.json();
        self.read(json, untyped, self.at)
    }

    fn not_null(&self, operator: Operator) -> Result<Value> {
        match self.value()? {
            Value::Null => Err(fault(
                self.at,
                format!("{} takes no null; use {{\"$null\": true}}", operator.name()),
            )),
            value => Ok(value),
        }
    }

    fn flag(&self) -> Result<bool> {
        match self.json() {
            (Json::Bool(flag), _) => Ok(*flag),
            (Json::String(text), true) if text == "true" => Ok(true),
            (Json::String(text), true) if text == "false" => Ok(false),
            (json, _) => Err(self.expected("true or false", json)),
        }
    }

    fn text(&self) -> Result<Arc<str>> {
        let (json, _) = self.json();
        let Json::String(text) = json else {
            return Err(self.expected("a string", json));
        };
        match Value::text_of_type(text, FieldType::Text, &[]) {
            Ok(Value::Text(text)) => Ok(text),
            Ok(_) => Err(self.expected("a string", json)),
            Err(wrong) => Err(fault(self.at, wrong)),
        }
    }

    fn like(&self) -> Result<Like> {
        Like::new(&self.text()?).map_err(|wrong| fault(self.at, wrong))
    }

    fn set(&self, limits: &Limits) -> Result<ValueSet> {
        let (json, untyped) = self.json();
        let Json::Array(elements) = json else {
            return Err(self.expected("an array", json));
        };
        ast::check_elements(elements.len(), limits, self.at)?;
        let mut values = Vec::with_capacity(elements.len());
        for (index, element) in elements.iter().enumerate() {
            let at = format!("{}[{index}]", self.at);
            match self.read(element, untyped, &at)? {
                Value::Null => {
                    return Err(fault(
                        &at,
                        "null is no element; add {\"$null\": true} with $or where it is meant",
                    ));
                }
                value => values.push(value),
            }
        }
        Ok(ValueSet::new(values))
    }

    fn expected(&self, what: &str, got: &Json) -> Error {
        fault(self.at, format!("expected {what}, got {}", crate::model::json::brief(got)))
    }
}

/// The path of the filter a field stands in.
fn parent(field: &Field) -> &str {
    field.at.strip_suffix(field.name.as_str()).unwrap_or(&field.at).trim_end_matches('.')
}

fn shown(name: &str) -> String {
    crate::model::json::cut(name)
}
