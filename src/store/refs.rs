//! Who refers to the records of a schema.

use std::sync::Arc;

use crate::model::catalog::Catalog;
use crate::model::schema::{Schema, SchemaId, Shape, Slot};

/// A key column that may hold the primary key of a record of the schema in question.
#[derive(Clone, Debug)]
pub(crate) struct Referrer {
    pub(crate) schema: Arc<Schema>,
    pub(crate) slot: Slot,
    pub(crate) kind: ReferrerKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReferrerKind {
    /// A junction: its rows go with either end.
    Link,
    /// Becomes null.
    Optional,
    /// Stands in the way; the relation's name.
    Required(Arc<str>),
}

/// In a fixed order: junctions first (they never refuse), then by schema and column.
pub(crate) fn referrers(catalog: &Catalog, to: SchemaId) -> Vec<Referrer> {
    let mut found: Vec<Referrer> = Vec::new();
    let mut link = |junction: SchemaId, slot: Slot| {
        if let Some(schema) = catalog.get(junction)
            && !found.iter().any(|known| known.schema.id == junction && known.slot == slot)
        {
            let kind = ReferrerKind::Link;
            found.push(Referrer { schema: schema.clone(), slot, kind });
        }
    };
    for schema in catalog.all() {
        for relation in &schema.relations {
            if let Shape::Link { junction, own, other } = relation.shape {
                if schema.id == to {
                    link(junction, own);
                }
                if relation.target == to {
                    link(junction, other);
                }
            }
        }
    }
    for schema in catalog.all() {
        for relation in &schema.relations {
            if let Shape::Key { slot } = relation.shape
                && relation.target == to
                && !found.iter().any(|known| known.schema.id == schema.id && known.slot == slot)
            {
                let kind = if schema.columns[slot].optional {
                    ReferrerKind::Optional
                } else {
                    ReferrerKind::Required(relation.name.clone())
                };
                found.push(Referrer { schema: schema.clone(), slot, kind });
            }
        }
    }
    found.sort_by_key(|known| (known.kind != ReferrerKind::Link, known.schema.id, known.slot));
    found
}
