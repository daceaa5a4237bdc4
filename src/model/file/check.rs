//! Collecting what is wrong with one file, and the checks that all parts of it share.

use serde_json::{Map, Value as Json};

use super::{NAME_CHARS, OWN_PREFIX, Origin, is_identifier, join, leaf};
use crate::error::Problem;
use crate::model::json;
use crate::model::near::nearest;
use crate::model::schema::SchemaKind;
use crate::model::system;

/// Collects what is wrong with one file.
pub(super) struct Check {
    pub origin: Origin,
    pub kind: SchemaKind,
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
}

impl Check {
    pub fn bad(&mut self, code: &str, path: &str, field: &str, message: String) {
        let problem = self.origin.problem(code, path, field, message);
        // The same thing found by two checks is one problem.
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    pub fn warn(&mut self, code: &str, path: &str, field: &str, message: String) {
        self.warnings.push(self.origin.problem(code, path, field, message));
    }

    /// Warns of every key that is not in `known`.
    pub fn known(&mut self, object: &Map<String, Json>, path: &str, known: &[&str], field: &str) {
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            let message = match nearest(key, known.iter().copied()) {
                Some(near) => format!("unknown key '{key}' is ignored; did you mean '{near}'?"),
                None => format!("unknown key '{key}' is ignored"),
            };
            self.warn("key.unknown", &join(path, key), field, message);
        }
    }

    pub fn wrong(&mut self, path: &str, field: &str, what: &str, got: &Json) {
        let got = json::brief(got);
        let message = format!("'{}' must be {what}, got {got}", leaf(path));
        self.bad("key.type.invalid", path, field, message);
    }

    /// A text that must be there and not be empty; `code` where it is not.
    pub fn required<'a>(
        &mut self,
        object: &'a Map<String, Json>,
        path: &str,
        key: &str,
        code: &str,
    ) -> Option<&'a str> {
        let at = join(path, key);
        match object.get(key) {
            None | Some(Json::Null) => {
                // There is no line of what is missing: name the object that lacks it.
                let message = format!("\"{key}\" is missing; add it");
                self.bad(code, if path.is_empty() { key } else { path }, "", message);
                None
            }
            Some(Json::String(text)) if text.is_empty() => {
                self.bad(code, &at, "", format!("\"{key}\" is empty; name it"));
                None
            }
            Some(Json::String(text)) => Some(text),
            Some(other) => {
                self.wrong(&at, "", "a string", other);
                None
            }
        }
    }

    pub fn text<'a>(
        &mut self,
        object: &'a Map<String, Json>,
        path: &str,
        key: &str,
        field: &str,
    ) -> Option<&'a str> {
        match object.get(key)? {
            Json::String(text) => Some(text),
            Json::Null => None,
            other => {
                self.wrong(&join(path, key), field, "a string", other);
                None
            }
        }
    }

    pub fn flag(
        &mut self,
        object: &Map<String, Json>,
        path: &str,
        key: &str,
        field: &str,
    ) -> Option<bool> {
        match object.get(key)? {
            Json::Bool(flag) => Some(*flag),
            Json::Null => None,
            other => {
                self.wrong(&join(path, key), field, "true or false", other);
                None
            }
        }
    }

    pub fn object<'a>(
        &mut self,
        object: &'a Map<String, Json>,
        path: &str,
        key: &str,
        field: &str,
    ) -> Option<&'a Map<String, Json>> {
        match object.get(key)? {
            Json::Object(inner) => Some(inner),
            Json::Null => None,
            other => {
                self.wrong(&join(path, key), field, "an object", other);
                None
            }
        }
    }

    pub fn array<'a>(
        &mut self,
        object: &'a Map<String, Json>,
        path: &str,
        key: &str,
        field: &str,
    ) -> Option<&'a [Json]> {
        match object.get(key)? {
            Json::Array(items) => Some(items),
            Json::Null => None,
            other => {
                self.wrong(&join(path, key), field, "an array", other);
                None
            }
        }
    }

    pub fn strings(
        &mut self,
        object: &Map<String, Json>,
        path: &str,
        key: &str,
    ) -> Option<Vec<String>> {
        let items = self.array(object, path, key, "")?;
        let mut texts = Vec::new();
        for (at, item) in items.iter().enumerate() {
            match item {
                Json::String(text) => texts.push(text.clone()),
                other => {
                    let what = "an array of names";
                    self.wrong(&format!("{}[{at}]", join(path, key)), "", what, other);
                }
            }
        }
        Some(texts)
    }

    /// Whether `name` can be a name, and the problem where it cannot.
    pub fn identifier(&mut self, code: &str, path: &str, field: &str, name: &str) -> bool {
        let good = is_identifier(name);
        if !good {
            let message = format!(
                "'{}' is no name: a letter, then letters, digits and '_', at most {NAME_CHARS}",
                json::cut(name)
            );
            self.bad(code, path, field, message);
        }
        good
    }

    /// Whether the name of a schema, table, junction or index is free to be taken.
    pub fn not_reserved(&mut self, code: &str, path: &str, name: &str) {
        let lower = name.to_ascii_lowercase();
        let message = if lower.starts_with("sqlite_") || lower.starts_with(OWN_PREFIX) {
            format!("names that begin with 'sqlite_' or '{OWN_PREFIX}' are taken; rename it")
        } else if system::is_reserved(&lower) && self.kind == SchemaKind::User {
            let what = if path == "name" { "relate to it, or choose" } else { "choose" };
            format!("'{name}' is a system schema and comes by itself; {what} another name")
        } else {
            return;
        };
        self.bad(code, path, "", message);
    }

    pub fn name_of_schema(&mut self, name: &str) {
        if !self.identifier("schema.name.invalid", "name", "", name) {
            return;
        }
        self.not_reserved("schema.name.reserved", "name", name);
        let stem = self.origin.file.as_deref().map(|file| file.trim_end_matches(".json"));
        if let Some(stem) = stem.filter(|stem| *stem != name) {
            let message = format!(
                "the schema is named '{name}' but its file '{stem}.json': rename the file to \
                 '{name}.json' or the schema to '{stem}'"
            );
            self.bad("schema.name.file_mismatch", "name", "", message);
        }
    }
}
