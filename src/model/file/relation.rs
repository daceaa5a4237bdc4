//! The `relation` of a field: one end, as declared.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::{Check, NAME_CHARS, RelationDef, join, key_name};
use crate::model::json;
use crate::model::schema::RelationKind;

/// `None` where it lacks what it must have.
pub(super) fn relation(
    check: &mut Check,
    item: &Map<String, Json>,
    path: &str,
    name: &str,
) -> Option<RelationDef> {
    let mut flag = |key| check.flag(item, path, key, name).unwrap_or(false);
    let (optional, unique) = (flag("optional"), flag("unique"));
    let (sortable, filterable) = (flag("sortable"), flag("filterable"));
    if item.get("default").is_some_and(|default| !default.is_null()) {
        let message = "a relation has no default; take it out".to_owned();
        check.bad("field.default.invalid", &join(path, "default"), name, message);
    }
    let at = join(path, "relation");
    let Some(relation) = check.object(item, path, "relation", name) else {
        if item.get("relation").is_none_or(Json::is_null) {
            let message = "a relation field needs \"relation\": {\"schema\": \"…\", \"field\": \
                           \"…\", \"type\": \"o2o|o2m|m2m\"}";
            check.bad("field.relation.required", path, name, message.to_owned());
        }
        return None;
    };
    let keys = ["schema", "field", "type", "owner", "optional", "fk_columns", "junction_table"];
    check.known(relation, &at, &keys, name);
    let mut need = |key: &str| {
        let code = format!("field.relation.{key}.required");
        match relation.get(key) {
            Some(Json::String(text)) if !text.is_empty() => Some(text.as_str()),
            None | Some(Json::Null | Json::String(_)) => {
                let message = format!("\"relation\" needs \"{key}\"; add it");
                check.bad(&code, &at, name, message);
                None
            }
            Some(other) => {
                check.wrong(&join(&at, key), name, "a string", other);
                None
            }
        }
    };
    let (schema, field, kind) = (need("schema"), need("field"), need("type"));
    let kind = kind.and_then(|kind| match kind {
        "o2o" => Some(RelationKind::O2O),
        // FastSchema's other name for the same thing seen from the other end.
        "o2m" | "m2o" => Some(RelationKind::O2M),
        "m2m" => Some(RelationKind::M2M),
        other => {
            let other = json::cut(other);
            let message = format!("unknown relation type '{other}'; use o2o, o2m or m2m");
            check.bad("field.relation.type.required", &join(&at, "type"), name, message);
            None
        }
    });
    let owner = check.flag(relation, &at, "owner", name).unwrap_or(false);
    let optional = check.flag(relation, &at, "optional", name).unwrap_or(false) || optional;
    let junction = check.text(relation, &at, "junction_table", name).filter(|t| !t.is_empty());
    if let Some(table) = junction {
        let at = join(&at, "junction_table");
        check.identifier("relation.junction_table.invalid", &at, name, table);
        check.not_reserved("relation.junction_table.invalid", &at, table);
        if kind.is_some_and(|kind| kind != RelationKind::M2M) {
            let message = "\"junction_table\" has no effect but with m2m".to_owned();
            check.warn("key.unused", &at, name, message);
        }
    }
    if let Some(columns) = check.object(relation, &at, "fk_columns", name) {
        let given: Vec<&str> = columns.values().filter_map(Json::as_str).collect();
        if given.iter().any(|column| !column.is_empty() && *column != key_name(name)) {
            let message =
                format!("\"fk_columns\" has no effect; the key's column is '{}'", key_name(name));
            check.warn("key.unused", &join(&at, "fk_columns"), name, message);
        }
    }
    let relation = RelationDef {
        schema: schema?.into(),
        field: field?.into(),
        kind: kind?,
        owner,
        optional,
        unique,
        sortable,
        filterable,
        junction_table: junction.map(Arc::from),
    };
    if relation.holds_key() && key_name(name).len() > NAME_CHARS {
        let message = format!(
            "'{name}' is too long for a relation that holds a key ('{}'): at most {} characters",
            key_name(name),
            NAME_CHARS - 3
        );
        check.bad("field.name.invalid", &join(path, "name"), name, message);
    }
    Some(relation)
}
