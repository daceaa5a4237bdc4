//! Canonical bytes of plans and bodies: equal for those that match and show the same.

use std::collections::BTreeMap;
use std::io::Write as _;

use crate::filter::{Hop, Predicate};
use crate::model::catalog::Catalog;
use crate::model::related::Paths;
use crate::model::schema::{Schema, SchemaId};

use super::shape::{ALWAYS, Shape, What};
use super::sight::Visible;

/// Appends a predicate. Parts of AND and OR are sorted and repeats left out, as neither changes
/// what is TRUE.
pub fn predicate(predicate: &Predicate, out: &mut Vec<u8>) {
    match predicate {
        Predicate::Const(truth) => text(out, format_args!("{truth:?}")),
        Predicate::Test(test) => text(out, format_args!("{test:?}")),
        Predicate::And(parts) => list(b'&', parts, out),
        Predicate::Or(parts) => list(b'|', parts, out),
        Predicate::Not(inner) => {
            out.push(b'!');
            self::predicate(inner, out);
        }
        Predicate::One(inner) => hop(b'1', inner, out),
        Predicate::Any(inner) => hop(b'*', inner, out),
    }
}

fn text(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    // Writing to a Vec cannot fail.
    let _ = out.write_fmt(arguments);
}

fn list(kind: u8, parts: &[Predicate], out: &mut Vec<u8>) {
    let bytes = |part| {
        let mut bytes = Vec::new();
        predicate(part, &mut bytes);
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

fn hop(kind: u8, hop: &Hop, out: &mut Vec<u8>) {
    text(out, format_args!("{}{}.{}", char::from(kind), hop.schema.0, hop.relation));
    if let Some(visible) = &hop.visible {
        out.push(b'?');
        predicate(visible, out);
    }
    out.push(b':');
    predicate(&hop.inner, out);
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
        predicate(filter, &mut bytes);
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
            predicate(filter, &mut bytes);
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
