//! Schemas as `GET /api/schema` shows them: the file, and what comes by itself.

use serde_json::{Map, Value as Json, json};

use super::Service;
use crate::auth::grant::{self, Action, Grant};
use crate::auth::principal::Principal;
use crate::error::{Error, Kind, Result};
use crate::model::catalog::Catalog;
use crate::model::schema::{Column, FieldRef, Relation, RelationKind, Schema, SchemaKind, Shape};

impl Service {
    /// Every schema that `principal` may read, by name: an array in the file format plus system
    /// fields. A guest who may read nothing gets 401.
    pub fn list(&self, principal: &Principal) -> Result<Json> {
        let catalog = self.store.catalog();
        let mut schemas: Vec<_> =
            catalog.all().filter(|schema| schema.kind != SchemaKind::Junction).collect();
        schemas.sort_by(|a, b| a.name.cmp(&b.name));
        let shown: Vec<Json> = schemas
            .into_iter()
            .filter_map(|schema| {
                let grant = grant::resolve(&catalog, schema, principal, Action::Read);
                (!grant.is_nothing()).then(|| show(&catalog, schema, principal, &grant))
            })
            .collect();
        if shown.is_empty() && !principal.logged_in {
            return Err(Error::unauthorized("log in to see schemas"));
        }
        Ok(Json::Array(shown))
    }

    /// One schema. 404 where there is none, 403 where it is not readable; a guest gets 401 for
    /// both.
    pub fn get(&self, principal: &Principal, name: &str) -> Result<Json> {
        let catalog = self.store.catalog();
        let schema = grant::schema(&catalog, principal, name, Action::Read).map_err(not_found)?;
        let grant = grant::require(&catalog, &schema, principal, Action::Read)?;
        Ok(show(&catalog, &schema, principal, &grant))
    }
}

/// Here the schema itself is what is asked for: that there is none is 404, not a bad request.
pub(super) fn not_found(error: Error) -> Error {
    if error.kind == Kind::NoSchema { Error { kind: Kind::NotFound, ..error } } else { error }
}

/// What is shown to those who may not see all: nothing of the store, nothing of others' rules.
const OPEN_KEYS: [&str; 5] =
    ["name", "namespace", "label_field", "primary_field", "disable_timestamp"];

fn show(catalog: &Catalog, schema: &Schema, principal: &Principal, grant: &Grant) -> Json {
    let empty = Map::new();
    let source = schema.source.as_object().unwrap_or(&empty);
    let declared = source.get("fields").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    let mut fields = Vec::new();
    let mut seen = Vec::new();
    let mut declared_fields = Vec::new();
    for field in declared.iter().filter_map(Json::as_object) {
        let Some(name) = field.get("name").and_then(Json::as_str) else { continue };
        let Some(found) = schema.field(name) else { continue };
        seen.push(name);
        if sees(catalog, schema, principal, grant, found) {
            let mut field = field.clone();
            field.entry("label").or_insert_with(|| name.into());
            if schema.kind == SchemaKind::System {
                field.insert("is_system_field".into(), true.into());
            }
            if !principal.admin {
                field.shift_remove("db");
            }
            declared_fields.push(Json::Object(field));
        }
    }
    // An `id` that came by itself stands first, as in records; everything else of ours last.
    for (slot, column) in schema.columns.iter().enumerate() {
        let visible = sees(catalog, schema, principal, grant, FieldRef::Column(slot));
        if !seen.contains(&&*column.name) && slot == schema.primary && visible {
            fields.push(own_column(column, principal));
        }
    }
    fields.append(&mut declared_fields);
    for (index, relation) in schema.relations.iter().enumerate() {
        let visible = sees(catalog, schema, principal, grant, FieldRef::Relation(index));
        if !seen.contains(&&*relation.name) && visible {
            fields.push(own_relation(catalog, relation));
        }
    }
    for (slot, column) in schema.columns.iter().enumerate() {
        let visible = sees(catalog, schema, principal, grant, FieldRef::Column(slot));
        if !seen.contains(&&*column.name) && slot != schema.primary && visible {
            fields.push(own_column(column, principal));
        }
    }
    let mut shown = source.clone();
    if !principal.admin {
        shown.retain(|key, _| OPEN_KEYS.contains(&key.as_str()));
        let hidden = |key: &str| {
            let name = source.get(key).and_then(Json::as_str);
            name.and_then(|name| schema.field(name))
                .is_some_and(|field| !sees(catalog, schema, principal, grant, field))
        };
        if hidden("label_field") {
            shown.insert("label_field".into(), (&*schema.primary_column().name).into());
        }
    }
    shown.insert("fields".into(), Json::Array(fields));
    if schema.kind == SchemaKind::System {
        shown.insert("is_system_schema".into(), true.into());
    }
    Json::Object(shown)
}

/// Whether the field is one that `principal` can select.
fn sees(
    catalog: &Catalog,
    schema: &Schema,
    principal: &Principal,
    grant: &Grant,
    field: FieldRef,
) -> bool {
    if principal.admin {
        return true;
    }
    let relation = match field {
        FieldRef::Relation(index) => Some(index),
        FieldRef::Column(slot) => schema.columns[slot].key_of,
    };
    let is_primary = matches!(field, FieldRef::Column(slot) if slot == schema.primary);
    let reachable = relation.is_none_or(|index| {
        let target = catalog.get(schema.relations[index].target);
        target.is_some_and(|target| {
            let there = grant::resolve(catalog, target, principal, Action::Read);
            !there.is_nothing() && !there.crosses(catalog, target)
        })
    });
    reachable && (is_primary || grant.offers(field))
}

fn own_column(column: &Column, principal: &Principal) -> Json {
    let mut field = json!({
        "type": column.ty.name(),
        "name": &*column.name,
        "label": &*column.name,
        "is_system_field": true,
    });
    if column.unique {
        field["unique"] = true.into();
    }
    if column.optional {
        field["optional"] = true.into();
    }
    if column.sortable {
        field["sortable"] = true.into();
    }
    if column.filterable {
        field["filterable"] = true.into();
    }
    if column.automatic && principal.admin {
        field["db"] = json!({"attr": "UNSIGNED", "key": "PRI", "increment": true});
    }
    field
}

fn own_relation(catalog: &Catalog, relation: &Relation) -> Json {
    let target = catalog.get(relation.target).map(|target| target.name.to_string());
    let mut inner = json!({
        "schema": target.unwrap_or_default(),
        "field": &*relation.back,
        "type": match relation.kind {
            RelationKind::O2O => "o2o",
            RelationKind::O2M => "o2m",
            RelationKind::M2M => "m2m",
        },
    });
    if matches!(relation.shape, Shape::Many { .. } | Shape::BackKey { .. }) {
        inner["owner"] = true.into();
    }
    json!({
        "type": "relation",
        "name": &*relation.name,
        "label": &*relation.name,
        "optional": true,
        "is_system_field": true,
        "relation": inner,
    })
}
