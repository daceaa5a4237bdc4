//! Which field is the primary key.

use serde_json::{Map, Value as Json};

use super::{Check, FieldDef, What, join, list, plain_column};
use crate::model::value::FieldType;

/// Finds the primary field, or puts an automatic `id` first.
pub(super) fn primary(
    check: &mut Check,
    root: &Map<String, Json>,
    fields: &mut Vec<FieldDef>,
    marked: &[usize],
) -> Option<usize> {
    let at = |fields: &[FieldDef], name: &str| fields.iter().position(|f| &*f.name == name);
    let named = check.text(root, "", "primary_field", "").filter(|name| !name.is_empty());
    if let [_, second, ..] = marked {
        let field = fields[*second].name.clone();
        let names: Vec<&str> = marked.iter().map(|at| &*fields[*at].name).collect();
        let message = format!("only one field can be the primary key: {}", list(&names));
        let path = join(&fields[*second].path, "db.key");
        check.bad("field.primary.invalid", &path, &field, message);
        return None;
    }
    let chosen = match (named, marked) {
        (Some(name), _) => match at(fields, name) {
            Some(found) => Some(found),
            None if name == "id" => None,
            None => {
                let names: Vec<&str> = fields.iter().map(|f| &*f.name).collect();
                let message = format!(
                    "primary_field '{name}' is no field of this schema; use one of {}",
                    list(&names)
                );
                check.bad("schema.primary_field.not_found", "primary_field", "", message);
                return None;
            }
        },
        (None, [one]) => Some(*one),
        (None, _) => at(fields, "id"),
    };
    // Only the primary key is filled in by the server, whichever field that turns out to be.
    for (index, field) in fields.iter_mut().enumerate() {
        if let What::Column(column) = &mut field.what
            && Some(index) != chosen
        {
            column.automatic = false;
        }
    }
    let Some(chosen) = chosen else {
        if let Some(field) = fields.iter().find(|f| f.name.eq_ignore_ascii_case("id")) {
            let (path, name) = (join(&field.path, "name"), field.name.clone());
            let message = format!(
                "'{name}' stands in the way of the automatic 'id'; name it 'id' or rename it"
            );
            check.bad("field.name.duplicate", &path, &name, message);
            return None;
        }
        let mut id = plain_column("id", FieldType::Uint64);
        (id.unique, id.automatic) = (true, true);
        fields.insert(
            0,
            FieldDef { name: id.name.clone(), what: What::Column(id), path: String::new() },
        );
        return Some(0);
    };
    let field = &mut fields[chosen];
    let (name, path) = (field.name.clone(), field.path.clone());
    let mut bad = |key: &str, message: String| {
        check.bad("field.primary.invalid", &join(&path, key), &name, message);
    };
    let column = match &mut field.what {
        What::Column(column) => column,
        What::Broken => return None,
        What::Relation(_) => {
            bad("type", format!("'{name}' is a relation and cannot be the primary key"));
            return None;
        }
    };
    if !column.ty.is_int() && !matches!(column.ty, FieldType::String | FieldType::Uuid) {
        let ty = column.ty.name();
        bad("type", format!("a primary key is an integer, a string or a uuid, not '{ty}'"));
    }
    if column.optional {
        bad("optional", "a primary key cannot be optional; take it out".to_owned());
    }
    if column.default.is_some() {
        bad("default", "a primary key has no default; take it out".to_owned());
    }
    if column.automatic && !column.ty.is_int() {
        bad("db.increment", format!("only integers count up, not '{}'", column.ty.name()));
    }
    (column.optional, column.default, column.unique) = (false, None, true);
    (column.sortable, column.filterable) = (true, true);
    column.automatic |= column.ty == FieldType::Uuid;
    Some(chosen)
}
