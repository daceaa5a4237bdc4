//! What a change by API means for the texts: the other ends of relations follow.
//!
//! As in FastSchema, a relation added through the API gets its way back on the other schema, one
//! that is removed takes it along, and one that is renamed is renamed there. All of it works on
//! JSON as the authors wrote it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json};

use super::Rename;
use crate::model::file::{self, What};
use crate::model::link::back_field;
use crate::model::system;

/// The schemas' sources by name, while they are edited.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub all: BTreeMap<String, Json>,
    /// Names whose source is not what it was.
    pub changed: BTreeSet<String>,
}

impl Sources {
    fn fields(&mut self, schema: &str) -> Option<&mut Vec<Json>> {
        self.all.get_mut(schema)?.get_mut("fields")?.as_array_mut()
    }

    fn position(&self, schema: &str, field: &str) -> Option<usize> {
        let fields = self.all.get(schema)?.get("fields")?.as_array()?;
        fields.iter().position(|item| item["name"] == field)
    }

    /// Every relation that a schema declares: (field, target, field there, relation).
    fn relations(&self, schema: &str) -> Vec<(String, String, String)> {
        let fields = self.all.get(schema).and_then(|s| s.get("fields")).and_then(Json::as_array);
        fields
            .into_iter()
            .flatten()
            .filter_map(|item| {
                let text = |value: &Json| value.as_str().map(str::to_owned);
                let relation = item.get("relation")?;
                Some((
                    text(item.get("name")?)?,
                    text(relation.get("schema")?)?,
                    text(relation.get("field")?)?,
                ))
            })
            .collect()
    }

    /// Adds to other schemas the way back of every relation of `schema` that has none.
    pub fn add_backs(&mut self, schema: &str) {
        let Some(source) = self.all.get(schema) else { return };
        let parsed = file::parse(None, source.to_string().as_bytes());
        let Ok(def) = parsed.def else { return };
        for field in &def.fields {
            let What::Relation(relation) = &field.what else { continue };
            let target = &*relation.schema;
            let needs = target != schema
                && !system::is_reserved(target)
                && self.position(target, &relation.field).is_none();
            if !needs {
                continue;
            }
            if let Some(fields) = self.fields(target) {
                fields.push(back_field(schema, &field.name, relation));
                self.changed.insert(target.to_owned());
            }
        }
    }

    /// Puts `new` in the place of `old` (which may bear another name), and makes the other
    /// schemas follow.
    pub fn replace(&mut self, old: &str, new: &str, source: Json, renames: &[Rename]) {
        let before = self.relations(old);
        self.all.remove(old);
        self.all.insert(new.to_owned(), source);
        self.changed.insert(new.to_owned());
        for (field, target, back) in before {
            if target == old || system::is_reserved(&target) {
                continue;
            }
            let renamed = renames.iter().find(|rename| rename.from == field);
            let now = renamed.map_or(&field, |rename| &rename.to);
            let stays = self
                .relations(new)
                .iter()
                .any(|(name, to, way)| name == now && *to == target && *way == back);
            let Some(at) = self.position(&target, &back) else { continue };
            let Some(fields) = self.fields(&target) else { continue };
            let points_here = fields[at]["relation"]["schema"] == old
                && fields[at]["relation"]["field"] == field.as_str();
            if !points_here {
                continue;
            }
            if !stays {
                fields.remove(at);
            } else if *now != field || new != old {
                fields[at]["relation"]["field"] = now.as_str().into();
                fields[at]["relation"]["schema"] = new.into();
            } else {
                continue;
            }
            self.changed.insert(target);
        }
        self.add_backs(new);
    }
}

/// A body's schema as it goes into a file: without what comes by itself, and without what holds
/// for this change only.
pub(super) fn for_file(mut source: Map<String, Json>) -> Json {
    for key in ["is_system_schema", "is_junction_schema", "accept_data_loss"] {
        source.shift_remove(key);
    }
    if let Some(Json::Array(fields)) = source.get_mut("fields") {
        fields.retain(|field| field.get("is_system_field") != Some(&Json::Bool(true)));
        for field in fields.iter_mut().filter_map(Json::as_object_mut) {
            field.shift_remove("is_system_field");
        }
    }
    Json::Object(source)
}

/// The text of a file.
pub(super) fn text(source: &Json) -> String {
    // A tree of JSON values always has a text.
    let mut text = serde_json::to_string_pretty(source).unwrap_or_default();
    text.push('\n');
    text
}
