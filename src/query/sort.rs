//! `sort=name,-views` → columns and directions.

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::model::schema::{FieldRef, Schema, Shape, Slot};

/// The names of a `sort`, each with whether it descends, in order. Spaces and empty entries do no
/// harm.
pub fn parse<'t>(text: &'t str, limits: &Limits) -> Result<Vec<(&'t str, bool)>> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let names: Vec<_> = entries
        .map(|entry| match entry.strip_prefix('-') {
            Some(name) => (name.trim_start(), true),
            None => (entry, false),
        })
        .collect();
    if names.len() > limits.select_entries {
        return Err(Error::bad(format!(
            "invalid sort: {} entries; at most {} may be given",
            names.len(),
            limits.select_entries
        )));
    }
    Ok(names)
}

/// The column that sorting by `field` goes by; `None` for relations whose key lies elsewhere.
pub fn column(schema: &Schema, field: FieldRef) -> Option<Slot> {
    match field {
        FieldRef::Column(slot) => Some(slot),
        FieldRef::Relation(index) => match schema.relations[index].shape {
            Shape::Key { slot } => Some(slot),
            _ => None,
        },
    }
}

/// Whether lists may be sorted by the column.
pub fn sortable(schema: &Schema, slot: Slot) -> bool {
    let column = &schema.columns[slot];
    let always = slot == schema.primary
        || schema.created_at == Some(slot)
        || schema.updated_at == Some(slot);
    (column.sortable || always) && column.ty.is_ordered()
}
