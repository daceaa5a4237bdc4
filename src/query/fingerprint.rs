//! A number for what a principal may read, the same as long as that is the same.
//!
//! Cursors carry it. It speaks in ids and values only, so neither a restart nor a rename nor an
//! added column changes it; and it knows nothing of what the client asked, but for the schemas
//! that the answer touches.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use crate::auth::grant::{Alternative, Grant};
use crate::filter::Predicate;
use crate::model::catalog::Catalog;
use crate::model::related::Paths;
use crate::model::schema::{Schema, SchemaId};

use super::key::{self, By};
use super::shape::{Shape, What};
use super::sight::Sight;

/// Schemas whose grants decide what is seen through relations.
#[derive(Debug, Default)]
pub struct Touched(BTreeSet<SchemaId>);

impl Touched {
    /// Adds what a client's filter leads to.
    pub fn paths(&mut self, catalog: &Catalog, schema: &Schema, paths: &Paths) {
        for (name, deeper) in &paths.0 {
            let relation = schema.relation(name).map(|index| &schema.relations[index]);
            if let Some(target) = relation.and_then(|relation| catalog.get(relation.target)) {
                self.0.insert(target.id);
                self.paths(catalog, target, deeper);
            }
        }
    }

    /// Adds what is shown: related records, and keys, which show whether there is one to see.
    pub fn shape(&mut self, shape: &Shape) {
        for shown in &shape.fields {
            match &shown.what {
                What::Column(slot) => {
                    let key = shape.schema.columns[*slot].key_of;
                    self.0.extend(key.map(|relation| shape.schema.relations[relation].target));
                }
                What::Key { relation, .. } => {
                    self.0.insert(shape.schema.relations[*relation].target);
                }
                What::One { shape: inner, .. } | What::Many { shape: inner, .. } => {
                    self.0.insert(inner.schema.id);
                    self.shape(inner);
                }
            }
        }
    }
}

/// The fingerprint of `grant` on `schema` and of the grants on what is touched; 0 where all of
/// them are unrestricted.
pub fn of(sight: &Sight<'_>, schema: &Schema, grant: &Grant, touched: &Touched) -> u64 {
    let catalog = sight.catalog;
    let mut bytes = Vec::new();
    one(catalog, schema, Some(grant), &mut bytes);
    for target in touched.0.iter().filter_map(|id| catalog.get(*id)) {
        let grant = sight.through(target);
        bytes.push(b'>');
        let empty = bytes.len();
        one(catalog, target, grant.as_deref(), &mut bytes);
        if bytes.len() == empty {
            bytes.pop();
        }
    }
    if bytes.is_empty() {
        return 0;
    }
    let hash = Sha256::digest(&bytes);
    let number = hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    // 0 has a meaning of its own.
    number.max(1)
}

/// Appends a grant, or nothing where it is unrestricted. `None`: no way to see anything.
fn one(catalog: &Catalog, schema: &Schema, grant: Option<&Grant>, out: &mut Vec<u8>) {
    let alternatives = grant.map_or(&[][..], |grant| &grant.alternatives);
    if let [only] = alternatives
        && only.filter == Predicate::ALL
        && all_fields(only)
    {
        return;
    }
    key::block(schema.id.0.to_string().as_bytes(), out);
    // What is seen is the union, in whatever order the file has the rules.
    let mut parts: Vec<Vec<u8>> = alternatives
        .iter()
        .map(|alternative| {
            let mut bytes = Vec::new();
            key::predicate(&alternative.filter, By::Id(catalog, schema), &mut bytes);
            fields(schema, alternative, &mut bytes);
            bytes
        })
        .collect();
    parts.sort_unstable();
    for part in &parts {
        key::block(part, out);
    }
    out.push(b'.');
}

/// All fields stay all when one is added; a list of fields stays that list.
fn fields(schema: &Schema, alternative: &Alternative, out: &mut Vec<u8>) {
    if all_fields(alternative) {
        out.extend_from_slice(b" all");
        return;
    }
    let held = &alternative.fields;
    let columns = schema.columns.iter().zip(&held.columns).map(|(column, held)| (column.id, held));
    let relations = schema.relations.iter().zip(&held.relations);
    let relations = relations.map(|(relation, held)| (relation.id, held));
    let held = columns.chain(relations).filter(|(_, held)| **held);
    let ids: BTreeSet<u32> = held.map(|(id, _)| id.0).collect();
    for id in ids {
        out.push(b' ');
        out.extend_from_slice(id.to_string().as_bytes());
    }
}

fn all_fields(alternative: &Alternative) -> bool {
    let fields = &alternative.fields;
    fields.columns.iter().chain(&fields.relations).all(|held| *held)
}
