//! Canonical bytes of plans and bodies: equal only for those that match and show the same.
//!
//! Subscribers whose plans have equal keys are told the same bytes, so everything that tells two
//! plans apart must stand here, written out: nothing is left to `Debug`.

use std::collections::BTreeMap;
use std::io::Write as _;

use crate::filter::{Hop, Predicate, Test, TestOp, Truth, ValueSet};
use crate::model::catalog::Catalog;
use crate::model::related::Paths;
use crate::model::schema::{Schema, SchemaId};
use crate::model::value::Value;

use super::shape::{ALWAYS, Shape, What};
use super::sight::Visible;

/// How columns and relations are written down.
#[derive(Clone, Copy)]
pub enum By<'a> {
    /// By their places in one version of their schema.
    Place,
    /// By their ids, which outlive versions and names; the predicate is about rows of the schema.
    Id(&'a Catalog, &'a Schema),
}

impl<'a> By<'a> {
    fn column(self, slot: usize, out: &mut Vec<u8>) {
        match self {
            By::Place => text(out, format_args!("{slot}")),
            By::Id(_, schema) => text(out, format_args!("{}", schema.columns[slot].id.0)),
        }
    }

    /// Writes down the hop's relation and gives what is behind it.
    fn relation(self, hop: &Hop, out: &mut Vec<u8>) -> By<'a> {
        let By::Id(catalog, schema) = self else {
            text(out, format_args!("{}.{}", hop.schema.0, hop.relation));
            return self;
        };
        let relation = &schema.relations[hop.relation];
        text(out, format_args!("{}", relation.id.0));
        // A relation leads to a schema of its catalog.
        catalog.get(relation.target).map_or(self, |target| By::Id(catalog, target))
    }
}

/// Appends a predicate. Parts of AND and OR are sorted and repeats left out, as neither changes
/// what is TRUE.
pub fn predicate(predicate: &Predicate, by: By<'_>, out: &mut Vec<u8>) {
    match predicate {
        Predicate::Const(Truth::True) => out.push(b'T'),
        Predicate::Const(Truth::False) => out.push(b'F'),
        Predicate::Const(Truth::Unknown) => out.push(b'U'),
        Predicate::Test(test) => self::test(test, by, out),
        Predicate::And(parts) => list(b'&', parts, by, out),
        Predicate::Or(parts) => list(b'|', parts, by, out),
        Predicate::Not(inner) => {
            out.push(b'!');
            self::predicate(inner, by, out);
        }
        Predicate::One(inner) => hop(b'1', inner, by, out),
        Predicate::Any(inner) => hop(b'*', inner, by, out),
    }
}

fn test(test: &Test, by: By<'_>, out: &mut Vec<u8>) {
    let mut literal = Vec::new();
    let operator = match &test.op {
        TestOp::IsNull => "null",
        TestOp::NotNull => "set",
        TestOp::Eq(value) => with("=", value, &mut literal),
        TestOp::Neq(value) => with("!=", value, &mut literal),
        TestOp::Gt(value) => with(">", value, &mut literal),
        TestOp::Gte(value) => with(">=", value, &mut literal),
        TestOp::Lt(value) => with("<", value, &mut literal),
        TestOp::Lte(value) => with("<=", value, &mut literal),
        TestOp::In(set) => among("in", set, &mut literal),
        TestOp::NotIn(set) => among("nin", set, &mut literal),
        TestOp::Like(like) => of("like", like.source(), &mut literal),
        TestOp::NotLike(like) => of("notlike", like.source(), &mut literal),
        TestOp::Contains(needle) => of("has", needle.source(), &mut literal),
        TestOp::NotContains(needle) => of("hasnot", needle.source(), &mut literal),
        TestOp::ContainsFold(fold) => of("fold", fold.source(), &mut literal),
        TestOp::NotContainsFold(fold) => of("notfold", fold.source(), &mut literal),
    };
    by.column(test.slot, out);
    text(out, format_args!(" {operator} "));
    block(&literal, out);
}

/// A column's type is known by its slot, and within one type no two values have the same JSON.
fn with(operator: &'static str, value: &Value, literal: &mut Vec<u8>) -> &'static str {
    value.write_json(literal);
    operator
}

fn among(operator: &'static str, set: &ValueSet, literal: &mut Vec<u8>) -> &'static str {
    for value in set.values() {
        value.write_json(literal);
        literal.push(b',');
    }
    operator
}

fn of(operator: &'static str, source: &str, literal: &mut Vec<u8>) -> &'static str {
    literal.extend_from_slice(source.as_bytes());
    operator
}

fn text(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    // Writing to a Vec cannot fail.
    let _ = out.write_fmt(arguments);
}

fn list(kind: u8, parts: &[Predicate], by: By<'_>, out: &mut Vec<u8>) {
    let bytes = |part| {
        let mut bytes = Vec::new();
        predicate(part, by, &mut bytes);
        bytes
    };
    let mut parts: Vec<Vec<u8>> = parts.iter().map(bytes).collect();
    parts.sort_unstable();
    parts.dedup();
    out.push(kind);
    for part in parts {
        block(&part, out);
    }
    out.push(b'.');
}

fn hop(kind: u8, hop: &Hop, by: By<'_>, out: &mut Vec<u8>) {
    out.push(kind);
    let by = by.relation(hop, out);
    if let Some(visible) = &hop.visible {
        out.push(b'?');
        predicate(visible, by, out);
    }
    out.push(b':');
    predicate(&hop.inner, by, out);
}

/// Appends bytes with their length, so that what follows cannot be taken for a part of them.
pub fn block(bytes: &[u8], out: &mut Vec<u8>) {
    text(out, format_args!("{}:", bytes.len()));
    out.extend_from_slice(bytes);
}

/// Appends a shape.
pub fn shape(shape: &Shape, out: &mut Vec<u8>) {
    text(out, format_args!("{}{{", shape.schema.id.0));
    for filter in &shape.filters {
        out.push(b'/');
        let mut bytes = Vec::new();
        predicate(filter, By::Place, &mut bytes);
        block(&bytes, out);
    }
    for shown in &shape.fields {
        out.extend_from_slice(&shown.lead);
        if shown.mask != ALWAYS {
            text(out, format_args!("{:x}", shown.mask));
        }
        match &shown.what {
            What::Column(slot) => text(out, format_args!("#{slot}")),
            What::Key { slot, visible: seen, .. } => {
                text(out, format_args!("@{slot}"));
                visible(seen, out);
            }
            What::One { relation, visible: seen, shape: inner }
            | What::Many { relation, visible: seen, shape: inner } => {
                text(out, format_args!(">{relation}"));
                visible(seen, out);
                shape_block(inner, out);
            }
        }
    }
    out.push(b'}');
}

fn shape_block(inner: &Shape, out: &mut Vec<u8>) {
    let mut bytes = Vec::new();
    shape(inner, &mut bytes);
    block(&bytes, out);
}

fn visible(visible: &Visible, out: &mut Vec<u8>) {
    match visible {
        Visible::All => out.push(b'+'),
        Visible::None => out.push(b'-'),
        Visible::When(filter) => {
            let mut bytes = Vec::new();
            predicate(filter, By::Place, &mut bytes);
            block(&bytes, out);
        }
    }
}

/// Appends the versions of all schemas on `paths`: slots mean something else in another version.
pub fn versions(catalog: &Catalog, schema: &Schema, paths: &Paths, out: &mut Vec<u8>) {
    let mut versions = BTreeMap::new();
    collect(catalog, schema, paths, &mut versions);
    for (id, version) in versions {
        text(out, format_args!("v{}.{version}", id.0));
    }
}

fn collect(
    catalog: &Catalog,
    schema: &Schema,
    paths: &Paths,
    versions: &mut BTreeMap<SchemaId, u32>,
) {
    versions.insert(schema.id, schema.version);
    for (name, deeper) in &paths.0 {
        let relation = schema.relation(name).map(|index| &schema.relations[index]);
        if let Some(target) = relation.and_then(|relation| catalog.get(relation.target)) {
            collect(catalog, target, deeper, versions);
        }
    }
}
