//! The schemas that every server has, as texts like any other.
//!
//! They are no files: they cannot be changed, and other schemas relate to them without their
//! declaring the way back (`model/link.rs` adds it).

use super::file::{SchemaDef, parse_as};
use super::schema::SchemaKind;

/// `user`: who can log in. Passwords are no column; they live in a table of their own.
pub const USER: &str = r#"{
  "name": "user",
  "namespace": "users",
  "label_field": "username",
  "fields": [
    { "name": "id", "label": "ID", "type": "uuid", "db": { "key": "PRI" } },
    { "name": "username", "label": "Username", "type": "string", "size": 255, "unique": true, "sortable": true, "filterable": true },
    { "name": "email", "label": "Email", "type": "string", "size": 255, "unique": true, "optional": true, "sortable": true, "filterable": true },
    { "name": "active", "label": "Active", "type": "bool", "default": true, "sortable": true, "filterable": true },
    { "name": "provider", "label": "Issuer of outside tokens", "type": "string", "optional": true, "filterable": true },
    { "name": "provider_id", "label": "Subject at the issuer", "type": "string", "optional": true, "filterable": true },
    { "name": "roles", "label": "Roles", "type": "relation", "optional": true, "relation": { "schema": "role", "field": "users", "type": "m2m", "owner": true } }
  ],
  "db": { "indexes": [ { "name": "users_provider", "columns": ["provider", "provider_id"], "unique": true } ] }
}"#;

/// `role`: what access rules speak of. `admin` is always there.
pub const ROLE: &str = r#"{
  "name": "role",
  "namespace": "roles",
  "label_field": "name",
  "fields": [
    { "name": "id", "label": "ID", "type": "uuid", "db": { "key": "PRI" } },
    { "name": "name", "label": "Name", "type": "string", "size": 255, "unique": true, "sortable": true, "filterable": true },
    { "name": "description", "label": "Description", "type": "text", "optional": true },
    { "name": "users", "label": "Users", "type": "relation", "optional": true, "relation": { "schema": "user", "field": "roles", "type": "m2m" } }
  ]
}"#;

/// Whether a schema of that name, in lower case, is built in.
pub fn is_reserved(name: &str) -> bool {
    matches!(name, "user" | "role")
}

/// The built-in schemas, parsed.
pub fn schemas() -> Vec<SchemaDef> {
    [USER, ROLE]
        .iter()
        // A test holds the texts to being good, so nothing is lost here.
        .filter_map(|text| parse_as(None, text.as_bytes(), SchemaKind::System).def.ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_good() {
        for text in [USER, ROLE] {
            let parsed = parse_as(None, text.as_bytes(), SchemaKind::System);
            assert!(parsed.def.is_ok(), "{parsed:?}");
            assert!(parsed.warnings.is_empty(), "{parsed:?}");
        }
        assert_eq!(schemas().len(), 2);
    }
}
