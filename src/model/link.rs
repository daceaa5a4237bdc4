//! Schema files seen together: targets, back references, names taken twice; and what each schema
//! then is. Ids are given later (`store/migrate.rs`): here a schema's id is its place in the list.

mod relations;

pub use relations::back_field;

use std::collections::HashMap;
use std::sync::Arc;

use super::file::{FieldDef, SchemaDef, What, key_name, list, plain_column};
use super::schema::{FieldRef, Index, Schema, SchemaId, SchemaKind, Slot};
use super::value::FieldType;
use crate::error::Problem;

/// A problem, and the schemas that are in it: where the problem is between two files, either may
/// be the one at fault.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What is told.
    pub problem: Problem,
    /// Names; the first is that of the file where the problem is told.
    pub schemas: Vec<Arc<str>>,
}

/// All schemas, resolved but for their ids.
#[derive(Debug)]
pub struct Linked {
    /// `SchemaId(n)` is the n-th of these; every `FieldId` is 0.
    pub schemas: Vec<Schema>,
    /// The definition each comes from, by index; `None` for junctions.
    pub defs: Vec<Option<usize>>,
    /// For junctions, the relation that owns it: (schema, index of the relation).
    pub owners: HashMap<SchemaId, (SchemaId, usize)>,
}

/// Links definitions, the system's among them. All faults are told.
pub fn link(defs: &[SchemaDef]) -> Result<Linked, Vec<Fault>> {
    let (linked, faults) = link_all(defs);
    if faults.is_empty() { Ok(linked) } else { Err(faults) }
}

/// As [`link`], and in any case what can be linked, drafts of bad files included: good for finding
/// further faults, not for use.
pub fn link_all(defs: &[SchemaDef]) -> (Linked, Vec<Fault>) {
    let mut faults = Vec::new();
    same_names(defs, &mut faults);
    let pairs = relations::pair(defs, &mut faults);
    let mut linked = Linked {
        schemas: Vec::new(),
        defs: (0..defs.len()).map(Some).collect(),
        owners: HashMap::new(),
    };
    for (at, def) in defs.iter().enumerate() {
        linked.schemas.push(columns_of(defs, def, at));
    }
    relations::resolve(defs, &pairs, &mut linked);
    for (at, def) in defs.iter().enumerate() {
        linked.schemas[at].indexes = indexes(def, &linked.schemas[at], &mut faults);
    }
    same_tables(defs, &linked, &mut faults);
    (linked, faults)
}

fn fault(
    def: &SchemaDef,
    others: &[&SchemaDef],
    code: &str,
    path: &str,
    field: &str,
    message: String,
) -> Fault {
    let schemas = std::iter::once(&def).chain(others).map(|def| def.name.clone()).collect();
    Fault { problem: def.problem(code, path, field, message), schemas }
}

fn same_names(defs: &[SchemaDef], faults: &mut Vec<Fault>) {
    let mut seen: HashMap<String, &SchemaDef> = HashMap::new();
    for def in defs {
        let twin = seen.insert(def.name.to_ascii_lowercase(), def);
        // That a system schema's name is taken is told by the file's own check.
        if let Some(other) = twin.filter(|other| other.kind == def.kind) {
            let message = format!(
                "the name '{}' is taken by '{}' (upper and lower case are the same); rename one",
                def.name, other.name
            );
            faults.push(fault(def, &[other], "builder.schema.duplicate", "name", "", message));
        }
    }
}

/// A schema with its columns; relations come later.
fn columns_of(defs: &[SchemaDef], def: &SchemaDef, at: usize) -> Schema {
    let mut columns = Vec::new();
    let mut primary = 0;
    for (index, field) in def.fields.iter().enumerate() {
        match &field.what {
            What::Column(column) => {
                if index == def.primary {
                    primary = columns.len();
                }
                columns.push(column.clone());
            }
            What::Relation(relation) if relation.holds_key() || is_mutual(def, field) => {
                if relation.kind == super::schema::RelationKind::M2M {
                    continue;
                }
                let target = defs.iter().find(|other| other.name == relation.schema);
                let template = target.map(|target| &target.fields[target.primary].what);
                let Some(What::Column(template)) = template else { continue };
                let mut key = plain_column(&key_name(&field.name), template.ty);
                key.size = template.size;
                key.optional = relation.optional;
                key.unique = relation.unique || relation.kind == super::schema::RelationKind::O2O;
                (key.sortable, key.filterable) = (relation.sortable, relation.filterable);
                columns.push(key);
            }
            What::Relation(_) | What::Broken => {}
        }
    }
    let mut stamp = |name: &str| -> Option<Slot> {
        def.timestamps.then(|| {
            columns.push(plain_column(name, FieldType::Time));
            columns.len() - 1
        })
    };
    let (created_at, updated_at) = (stamp("created_at"), stamp("updated_at"));
    Schema {
        id: SchemaId(at as u32),
        version: 1,
        name: def.name.clone(),
        table: def.table.clone(),
        label_field: def.label_field.clone(),
        columns,
        relations: Vec::new(),
        primary,
        created_at,
        updated_at,
        indexes: Vec::new(),
        access: def.access.clone(),
        kind: def.kind,
        source: def.origin.source.clone(),
    }
}

/// Whether a relation's two ends are one field: `spouse` of `user` pointing to `user.spouse`.
fn is_mutual(def: &SchemaDef, field: &FieldDef) -> bool {
    matches!(&field.what, What::Relation(relation)
        if relation.schema == def.name && relation.field == field.name)
}

fn indexes(def: &SchemaDef, schema: &Schema, faults: &mut Vec<Fault>) -> Vec<Index> {
    let mut found = Vec::new();
    for index in &def.indexes {
        let mut columns: Vec<Slot> = Vec::new();
        for (at, name) in index.columns.iter().enumerate() {
            let slot = match schema.field(name) {
                Some(FieldRef::Column(slot)) => Some(slot),
                Some(FieldRef::Relation(_)) => schema.column(&key_name(name)),
                None => None,
            };
            match slot {
                Some(slot) if !columns.contains(&slot) => columns.push(slot),
                Some(_) => {
                    let path = format!("{}.columns[{at}]", index.path);
                    let message = format!("'{name}' stands twice in this index; take one out");
                    faults.push(fault(def, &[], "schema.index.invalid", &path, name, message));
                }
                // The field is there, but something else is wrong with it.
                None if is_hidden(def, name) => {}
                None => {
                    let names: Vec<&str> = schema.columns.iter().map(|c| &*c.name).collect();
                    let path = format!("{}.columns[{at}]", index.path);
                    let message = format!(
                        "'{name}' is no column of '{}'; use one of {}",
                        def.name,
                        list(&names)
                    );
                    faults.push(fault(def, &[], "field.not_found", &path, name, message));
                }
            }
        }
        found.push(Index { name: index.name.clone(), columns, unique: index.unique });
    }
    found
}

/// Whether `name` is a field that is wrong for another reason, told elsewhere.
fn is_hidden(def: &SchemaDef, name: &str) -> bool {
    def.fields.iter().any(|field| match &field.what {
        What::Broken => *field.name == *name,
        What::Relation(relation) if relation.holds_key() => {
            *field.name == *name || key_name(&field.name) == name
        }
        _ => false,
    })
}

/// Tables, junctions and indexes share one space of names, in which case does not count.
fn same_tables(defs: &[SchemaDef], linked: &Linked, faults: &mut Vec<Fault>) {
    let mut seen: HashMap<String, (&SchemaDef, String)> = HashMap::new();
    let mut take = |def, path: &str, what: String, name: &str, faults: &mut Vec<Fault>| {
        let lower = name.to_ascii_lowercase();
        if let Some((other, taken)) = seen.get(&lower) {
            let message = format!("the name '{name}' is taken by {taken}; choose another");
            let code = "schema.namespace.duplicate";
            faults.push(fault(def, &[other], code, path, "", message));
        } else {
            seen.insert(lower, (def, what));
        }
    };
    for def in defs {
        take(def, "namespace", format!("the table of '{}'", def.name), &def.table, faults);
    }
    for junction in linked.schemas.iter().filter(|s| s.kind == SchemaKind::Junction) {
        let Some((owner, relation)) = linked.owners.get(&junction.id) else { continue };
        let def = &defs[owner.0 as usize];
        let field = linked.schemas[owner.0 as usize].relations[*relation].name.clone();
        let path = def.field(&field).map_or(String::new(), |field| field.path.clone());
        let what = format!("the junction of '{}.{field}'", def.name);
        take(def, &format!("{path}.relation"), what, &junction.table, faults);
    }
    for def in defs {
        for index in &def.indexes {
            let path = format!("{}.name", index.path);
            let what = format!("an index of '{}'", def.name);
            take(def, &path, what, &index.name, faults);
        }
    }
}
