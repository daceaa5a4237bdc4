//! Who is who: wanted schemas and fields are matched with stored ones, and all get their ids.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{How, Stored, StoredSchema};
use crate::model::file::SchemaDef;
use crate::model::link::{Fault, Linked};
use crate::model::schema::{FieldId, Relation, Schema, SchemaId, SchemaKind, Shape, Slot};
use crate::model::value::FieldType;

/// Linked schemas with their ids, each beside what it was.
pub(super) struct Numbered {
    pub schemas: Vec<Match>,
    pub next_schema: u32,
    pub next_field: u32,
}

pub(super) struct Match {
    pub new: Schema,
    /// Index of its definition; `None` for junctions.
    pub def: Option<usize>,
    pub old: Option<StoredSchema>,
    /// For each new column, the old one that its values come from.
    pub columns: Vec<Option<Slot>>,
}

/// The name a field had, if it can have had one.
pub(super) fn old_name<'a>(how: &'a How, schema: &str, field: &'a str) -> Option<&'a str> {
    let mut renames = how.fields.iter().filter(|rename| rename.schema == schema);
    if let Some(rename) = renames.clone().find(|rename| rename.to == field) {
        return Some(&rename.from);
    }
    // What is called `field` now is another one if the old `field` was given a new name.
    (!renames.any(|rename| rename.from == field)).then_some(field)
}

/// Types whose values are the same variant in the log keep their field's id.
fn variant(ty: FieldType) -> u8 {
    match ty {
        FieldType::Bool => 0,
        ty if ty.is_int() => 1,
        FieldType::Float32 | FieldType::Float64 => 2,
        FieldType::Uuid => 3,
        FieldType::Time => 4,
        FieldType::Json => 5,
        FieldType::Bytes => 6,
        _ => 7,
    }
}

pub(super) fn number(
    stored: &Stored,
    defs: &[SchemaDef],
    linked: Linked,
    how: &How,
) -> Result<Numbered, Vec<Fault>> {
    let Linked { mut schemas, defs: def_of, owners } = linked;
    let mut next_schema = stored.next_schema.max(1);
    let mut next_field = stored.next_field.max(1);
    let mut olds: Vec<Option<StoredSchema>> = Vec::new();
    for schema in &schemas {
        let old = match owners.get(&schema.id) {
            // Junctions come after the schemas they join, so both ends are matched by now.
            Some((owner, at)) => junction_of(stored, &schemas, &olds, *owner, *at, how),
            None => {
                let name = how.schemas.get(&*schema.name).map_or(&*schema.name, String::as_str);
                find(stored, |old| &*old.schema.name == name && old.schema.kind == schema.kind)
            }
        };
        olds.push(old.cloned());
    }
    names_kept(stored, defs, &schemas, &owners, &olds)?;
    let ids: Vec<SchemaId> = olds
        .iter()
        .map(|old| match old {
            Some(old) => old.schema.id,
            None => {
                next_schema += 1;
                SchemaId(next_schema - 1)
            }
        })
        .collect();
    for schema in &mut schemas {
        schema.id = ids[schema.id.0 as usize];
        for relation in &mut schema.relations {
            relation.target = ids[relation.target.0 as usize];
            if let Shape::Link { junction, .. } = &mut relation.shape {
                *junction = ids[junction.0 as usize];
            }
        }
    }
    keep_orientation(&mut schemas, &olds, how);
    let mut fresh = || {
        next_field += 1;
        FieldId(next_field - 1)
    };
    let mut matches = Vec::new();
    for ((mut new, def), old) in schemas.into_iter().zip(def_of).zip(olds) {
        let columns: Vec<Option<Slot>> = (0..new.columns.len())
            .map(|slot| old.as_ref().and_then(|old| old_column(&old.schema, &new, slot, how)))
            .collect();
        for (column, was) in new.columns.iter_mut().zip(&columns) {
            let was = was.and_then(|slot| old.as_ref().map(|old| &old.schema.columns[slot]));
            column.id = match was {
                Some(was) if variant(was.ty) == variant(column.ty) => was.id,
                _ => fresh(),
            };
        }
        for at in 0..new.relations.len() {
            let relation = &new.relations[at];
            new.relations[at].id = match relation.shape {
                Shape::Key { slot } => new.columns[slot].id,
                _ => {
                    let was = old.as_ref().and_then(|old| old_relation(&old.schema, &new, at, how));
                    was.map_or_else(&mut fresh, |was| was.id)
                }
            };
        }
        matches.push(Match { new, def, old, columns });
    }
    Ok(Numbered { schemas: matches, next_schema, next_field })
}

fn find(stored: &Stored, is: impl Fn(&StoredSchema) -> bool) -> Option<&StoredSchema> {
    stored.schemas.values().find(|old| is(old))
}

/// The stored junction of a relation, found through either end: the owner may have moved.
fn junction_of<'a>(
    stored: &'a Stored,
    schemas: &[Schema],
    olds: &[Option<StoredSchema>],
    owner: SchemaId,
    at: usize,
    how: &How,
) -> Option<&'a StoredSchema> {
    let here = &schemas[owner.0 as usize];
    let relation = &here.relations[at];
    let there = &schemas[relation.target.0 as usize];
    let ends = [(here, &relation.name, there), (there, &relation.back, here)];
    ends.into_iter().find_map(|(schema, field, other)| {
        let old = olds.get(schema.id.0 as usize)?.as_ref()?;
        let target = olds.get(other.id.0 as usize)?.as_ref()?;
        let name = old_name(how, &schema.name, field)?;
        let was = &old.schema.relations[old.schema.relation(name)?];
        match was.shape {
            Shape::Link { junction, .. } if was.target == target.schema.id => {
                stored.schemas.get(&junction)
            }
            _ => None,
        }
    })
}

/// A junction's two columns keep their meaning even when the other end becomes its owner.
fn keep_orientation(schemas: &mut [Schema], olds: &[Option<StoredSchema>], how: &How) {
    for at in 0..schemas.len() {
        let Some(old) = &olds[at] else { continue };
        for index in 0..schemas[at].relations.len() {
            let was = old_relation(&old.schema, &schemas[at], index, how).map(|was| was.shape);
            let relation = &mut schemas[at].relations[index];
            if let (Some(Shape::Link { own, other, junction }), Shape::Link { junction: now, .. }) =
                (was, relation.shape)
                && junction == now
            {
                relation.shape = Shape::Link { own, other, junction };
            }
        }
    }
}

fn old_relation<'a>(old: &'a Schema, new: &Schema, at: usize, how: &How) -> Option<&'a Relation> {
    let relation = &new.relations[at];
    let name = old_name(how, &new.name, &relation.name)?;
    let was = &old.relations[old.relation(name)?];
    (was.target == relation.target && was.kind == relation.kind).then_some(was)
}

/// The stored column that a new column's values come from.
fn old_column(old: &Schema, new: &Schema, slot: Slot, how: &How) -> Option<Slot> {
    let column = &new.columns[slot];
    let Some(relation) = column.key_of.map(|at| &new.relations[at]) else {
        let name = old_name(how, &new.name, &column.name)?;
        return old.column(name).filter(|slot| old.columns[*slot].key_of.is_none());
    };
    let name = old_name(how, &new.name, &relation.name)?;
    let was = &old.relations[old.relation(name)?];
    // A key means something only in the table it points into. (An o2o may become an o2m and back:
    // that is the index's matter.)
    match was.shape {
        Shape::Key { slot } if was.target == relation.target => Some(slot),
        _ => None,
    }
}

/// Names of tables and schemas whose data is kept though they are not served stay theirs.
fn names_kept(
    stored: &Stored,
    defs: &[SchemaDef],
    schemas: &[Schema],
    owners: &HashMap<SchemaId, (SchemaId, usize)>,
    olds: &[Option<StoredSchema>],
) -> Result<(), Vec<Fault>> {
    let matched: HashSet<SchemaId> = olds.iter().flatten().map(|old| old.schema.id).collect();
    let mut faults = Vec::new();
    // What is served and not wanted any more is on its way to being kept.
    for kept in stored.schemas.values().filter(|kept| !matched.contains(&kept.schema.id)) {
        let ends = ends(stored, kept.schema.id);
        if !ends.is_empty() && ends.iter().all(|(id, _)| matched.contains(id)) {
            // A junction that goes altogether, or else is a fault of its own.
            continue;
        }
        for schema in schemas {
            let Some((def, path, name)) = takes(defs, schemas, owners, schema, &kept.schema) else {
                continue;
            };
            let table = &kept.schema.table;
            let owner = kept.schema.name.split('.').next().unwrap_or_default();
            let message = format!(
                "the name '{name}' belongs to the kept data of the removed schema '{owner}' \
                 (table '{table}'); choose another, or bring {owner}.json back (PUT \
                 /api/schema/{owner} renames a schema)"
            );
            faults.push(Fault {
                problem: def.problem("schema.namespace.duplicate", &path, "", message),
                schemas: vec![def.name.clone()],
            });
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// Whether `schema` takes a name of `kept`: the definition that says so, where, and the name.
fn takes<'a>(
    defs: &'a [SchemaDef],
    schemas: &[Schema],
    owners: &HashMap<SchemaId, (SchemaId, usize)>,
    schema: &Schema,
    kept: &Schema,
) -> Option<(&'a SchemaDef, String, Arc<str>)> {
    let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
    if let Some((owner, relation)) = owners.get(&schema.id) {
        let def = &defs[owner.0 as usize];
        let field = &schemas[owner.0 as usize].relations[*relation].name;
        let path = def.field(field).map_or_else(String::new, |field| field.path.clone());
        return same(&schema.table, &kept.table).then(|| (def, path, schema.table.clone()));
    }
    let def = &defs[schema.id.0 as usize];
    let index = def.indexes.iter().find(|index| same(&index.name, &kept.table));
    if same(&schema.name, &kept.name) {
        Some((def, "name".to_owned(), schema.name.clone()))
    } else if same(&schema.table, &kept.table) {
        Some((def, "namespace".to_owned(), schema.table.clone()))
    } else {
        index.map(|index| (def, format!("{}.name", index.path), index.name.clone()))
    }
}

/// The ends of a junction: (schema, relation's name).
pub(super) fn ends(stored: &Stored, junction: SchemaId) -> Vec<(SchemaId, Arc<str>)> {
    let mut found = Vec::new();
    for other in stored.schemas.values() {
        for relation in &other.schema.relations {
            if matches!(relation.shape, Shape::Link { junction: id, .. } if id == junction) {
                found.push((other.schema.id, relation.name.clone()));
            }
        }
    }
    found.sort();
    found
}

/// Whether a stored schema joins others and is no file's own.
pub(super) fn is_junction(schema: &Arc<Schema>) -> bool {
    schema.kind == SchemaKind::Junction
}
