//! The `fields` of a schema file.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::{Check, FIELDS, join, key_name, plain_column, primary, relation};
use crate::model::near::nearest;
use crate::model::schema::{Column, Default, RelationKind};
use crate::model::value::{FieldType, Value};

/// One declared field.
#[derive(Clone, Debug)]
pub struct FieldDef {
    /// As declared.
    pub name: Arc<str>,
    /// A column or a relation.
    pub what: What,
    /// Its JSON path in the file; empty for an `id` that came by itself.
    pub path: String,
}

/// What a field is.
#[derive(Clone, Debug)]
pub enum What {
    /// A column, but for its id.
    Column(Column),
    /// One end of a relation.
    Relation(RelationDef),
    /// Not understood: only in drafts, where the name alone is known.
    Broken,
}

/// One end of a relation as declared.
#[derive(Clone, Debug)]
pub struct RelationDef {
    /// The schema it leads to.
    pub schema: Arc<str>,
    /// The field on the other schema that points back.
    pub field: Arc<str>,
    /// `type` in the file.
    pub kind: RelationKind,
    /// In `o2o` and `o2m` the side *without* `owner` holds the key.
    pub owner: bool,
    /// Whether the key may be null.
    pub optional: bool,
    /// Whether no two records may have the same key.
    pub unique: bool,
    /// Of the key's column, as of any other.
    pub sortable: bool,
    /// Of the key's column, as of any other.
    pub filterable: bool,
    /// The junction's table, where it is named.
    pub junction_table: Option<Arc<str>>,
}

impl RelationDef {
    /// Whether the foreign key lies with the schema that declares this end.
    pub fn holds_key(&self) -> bool {
        !self.owner && self.kind != RelationKind::M2M
    }
}

const KEYS: [&str; 17] = [
    "type",
    "name",
    "label",
    "multiple",
    "size",
    "unique",
    "optional",
    "default",
    "sortable",
    "filterable",
    "enums",
    "relation",
    "db",
    "renderer",
    "immutable",
    "is_system_field",
    "is_locked",
];

/// What other systems call our types.
const OTHER_NAMES: [(&str, &str); 15] = [
    ("boolean", "bool"),
    ("integer", "int64"),
    ("number", "float64"),
    ("float", "float64"),
    ("double", "float64"),
    ("datetime", "time"),
    ("timestamp", "time"),
    ("date", "time"),
    ("varchar", "string"),
    ("longtext", "text"),
    ("object", "json"),
    ("array", "json"),
    ("file", "string (an address)"),
    ("bigint", "int64"),
    ("blob", "bytes"),
];

/// All good fields, and the index of the primary one (`None` where that cannot be told).
pub(super) fn fields(
    check: &mut Check,
    root: &Map<String, Json>,
    timestamps: bool,
) -> (Vec<FieldDef>, Option<usize>) {
    let mut found: Vec<FieldDef> = Vec::new();
    let mut marked: Vec<usize> = Vec::new();
    let mut generated = Vec::new();
    let items = match root.get("fields") {
        None => {
            let message = "\"fields\" is missing; add an array, even an empty one".to_owned();
            check.bad("schema.fields.required", "fields", "", message);
            &[]
        }
        Some(_) => check.array(root, "", "fields", "").unwrap_or_default(),
    };
    if items.len() > FIELDS {
        let message = format!("{} fields are too many; a schema has at most {FIELDS}", items.len());
        check.bad("schema.fields.required", "fields", "", message);
    }
    for (at, item) in items.iter().take(FIELDS).enumerate() {
        let path = format!("fields[{at}]");
        let Json::Object(item) = item else {
            check.wrong(&path, "", "an object", item);
            continue;
        };
        if item.get("is_system_field") == Some(&Json::Bool(true)) {
            generated.push((item.get("name").and_then(Json::as_str).unwrap_or_default(), path));
            continue;
        }
        let Some((field, primary)) = field(check, item, &path, timestamps) else { continue };
        if let Some(twin) = found.iter().find(|f| f.name.eq_ignore_ascii_case(&field.name)) {
            let message = format!(
                "the name '{}' is taken by {} (upper and lower case are the same); rename one",
                field.name, twin.path
            );
            check.bad("field.name.duplicate", &join(&path, "name"), &field.name, message);
            continue;
        }
        if primary {
            marked.push(found.len());
        }
        found.push(field);
    }
    not_generated(check, &found, &generated);
    shadowed_keys(check, &found);
    let primary = primary::primary(check, root, &mut found, &marked);
    (found, primary)
}

/// What is marked as a system field is what `GET /api/schema` adds, and is left out; a field of the
/// author's own under that mark would be lost without a word.
fn not_generated(check: &mut Check, fields: &[FieldDef], marked: &[(&str, String)]) {
    for (name, path) in marked {
        let own = ["id", "created_at", "updated_at", "deleted_at"].contains(name);
        if !own && !fields.iter().any(|field| key_name(&field.name) == *name) {
            let message = format!(
                "'{name}' is left out, because it is marked \"is_system_field\"; take the mark \
                 out if the field is yours"
            );
            check.warn("key.unused", &join(path, "is_system_field"), name, message);
        }
    }
}

/// `<relation>_id` is another name of a relation's key: no field may be declared under it.
fn shadowed_keys(check: &mut Check, fields: &[FieldDef]) {
    for relation in fields.iter().filter(|f| matches!(f.what, What::Relation(_))) {
        let key = key_name(&relation.name);
        for field in fields.iter().filter(|f| f.name.eq_ignore_ascii_case(&key)) {
            let message = format!(
                "'{key}' is another name of the key of relation '{}'; rename the field",
                relation.name
            );
            check.bad("field.name.reserved", &join(&field.path, "name"), &field.name, message);
        }
    }
}

fn field(
    check: &mut Check,
    item: &Map<String, Json>,
    path: &str,
    timestamps: bool,
) -> Option<(FieldDef, bool)> {
    let name = check.required(item, path, "name", "field.name.required");
    let shown = name.unwrap_or_default();
    check.known(item, path, &KEYS, shown);
    if let Some(name) = name {
        let at = join(path, "name");
        if check.identifier("field.name.invalid", &at, name, name) && timestamps {
            let lower = name.to_ascii_lowercase();
            if lower == "created_at" || lower == "updated_at" {
                let message = format!(
                    "'{name}' comes by itself; take the field out, or set \"disable_timestamp\": \
                     true to declare your own"
                );
                check.bad("field.name.reserved", &at, name, message);
            }
        }
    }
    for key in ["label", "renderer"] {
        if key == "label" || item.get(key).is_some_and(|value| !value.is_object()) {
            check.text(item, path, key, shown);
        }
    }
    for key in ["multiple", "immutable", "is_system_field", "is_locked"] {
        if check.flag(item, path, key, shown) == Some(true) && key == "multiple" {
            let message = "\"multiple\" has no effect; use a relation or a json field".to_owned();
            check.warn("key.unused", &join(path, key), shown, message);
        }
    }
    let (what, primary) = match check.required(item, path, "type", "field.type.missing") {
        None => (What::Broken, false),
        Some("relation") => (
            relation::relation(check, item, path, shown).map_or(What::Broken, What::Relation),
            false,
        ),
        Some(ty) => match FieldType::named(ty) {
            Some(ty) => {
                let (column, primary) = column(check, item, path, shown, ty);
                (What::Column(column), primary)
            }
            None => {
                unknown_type(check, &join(path, "type"), shown, ty);
                (What::Broken, false)
            }
        },
    };
    Some((FieldDef { name: name?.into(), what, path: path.to_owned() }, primary))
}

fn unknown_type(check: &mut Check, path: &str, field: &str, ty: &str) {
    let known: Vec<&str> = FieldType::NAMES.iter().map(|(name, _)| *name).collect();
    let lower = ty.to_ascii_lowercase();
    let other = OTHER_NAMES.iter().find(|(name, _)| *name == lower).map(|(_, ours)| *ours);
    let message = match other.or_else(|| nearest(ty, known.iter().copied())) {
        Some(near) => format!("unknown type '{}'; use {near}", crate::model::json::cut(ty)),
        None => format!(
            "unknown type '{}'; use one of {}, int, uint or relation",
            crate::model::json::cut(ty),
            known.join(", ")
        ),
    };
    check.bad("field.type.invalid", path, field, message);
}

/// A column, and whether the file marks it as the primary key.
fn column(
    check: &mut Check,
    item: &Map<String, Json>,
    path: &str,
    name: &str,
    ty: FieldType,
) -> (Column, bool) {
    let mut column = plain_column(name, ty);
    let mut flag = |key| check.flag(item, path, key, name);
    column.optional = flag("optional").unwrap_or(false);
    column.unique = flag("unique").unwrap_or(false);
    column.sortable = flag("sortable").unwrap_or(false);
    column.filterable = flag("filterable").unwrap_or(false);
    if item.get("relation").is_some_and(|relation| !relation.is_null()) {
        let message = format!("\"relation\" needs \"type\": \"relation\", not '{}'", ty.name());
        check.bad("field.type.invalid", &join(path, "type"), name, message);
    }
    enums(check, item, path, &mut column);
    size(check, item, path, &mut column);
    let primary = db(check, item, path, &mut column);
    default(check, item, path, &mut column);
    (column, primary)
}

fn enums(check: &mut Check, item: &Map<String, Json>, path: &str, column: &mut Column) {
    let name = column.name.clone();
    let at = join(path, "enums");
    let items = check.array(item, path, "enums", &name).unwrap_or_default();
    if column.ty != FieldType::Enum {
        if !items.is_empty() {
            let message = format!("\"enums\" needs \"type\": \"enum\", not '{}'", column.ty.name());
            check.bad("field.enum.invalid", &at, &name, message);
        }
        return;
    }
    if items.is_empty() {
        let message = "an enum needs \"enums\": [{\"value\": \"…\", \"label\": \"…\"}, …]";
        let at = if item.contains_key("enums") { &at } else { path };
        check.bad("field.enum.required", at, &name, message.to_owned());
    }
    for (index, word) in items.iter().enumerate() {
        let at = format!("{at}[{index}]");
        let word = match word {
            Json::Object(word) => {
                check.known(word, &at, &["value", "label"], &name);
                check.text(word, &at, "label", &name);
                check.required(word, &at, "value", "field.enum.invalid")
            }
            other => {
                let got = crate::model::json::brief(other);
                let message =
                    format!("an enum's word is {{\"value\": \"…\", \"label\": \"…\"}}, got {got}");
                check.bad("field.enum.invalid", &at, &name, message);
                None
            }
        };
        let Some(word) = word else { continue };
        if word.contains('\0') || column.enums.iter().any(|known| &**known == word) {
            let message = format!("'{word}' stands twice or holds U+0000; take it out");
            check.bad("field.enum.invalid", &at, &name, message);
        } else {
            column.enums.push(word.into());
        }
    }
}

fn size(check: &mut Check, item: &Map<String, Json>, path: &str, column: &mut Column) {
    let at = join(path, "size");
    match item.get("size") {
        None | Some(Json::Null) => {}
        // FastSchema leaves 0 for "no limit".
        Some(Json::Number(size)) if size.as_u64() == Some(0) => {}
        Some(Json::Number(size)) if size.as_u64().is_some() => {
            let sized = matches!(column.ty, FieldType::String | FieldType::Text | FieldType::Bytes);
            if sized {
                column.size = size.as_u64();
            } else {
                let message = format!("\"size\" has no effect on type '{}'", column.ty.name());
                check.warn("key.unused", &at, &column.name, message);
            }
        }
        Some(other) => {
            let name = column.name.clone();
            check.wrong(&at, &name, "a whole number, 1 or more", other);
        }
    }
}

/// The `db` of a column; gives whether it is marked as the primary key.
fn db(check: &mut Check, item: &Map<String, Json>, path: &str, column: &mut Column) -> bool {
    let name = column.name.clone();
    let Some(db) = check.object(item, path, "db", &name) else {
        column.automatic = column.ty.is_int();
        return false;
    };
    let path = join(path, "db");
    check.known(db, &path, &["attr", "collation", "increment", "key"], &name);
    let bad = |check: &mut Check, key: &str, message: String| {
        check.bad("field.db.invalid", &join(&path, key), &name, message);
    };
    let unsigned = matches!(
        column.ty,
        FieldType::Uint8 | FieldType::Uint16 | FieldType::Uint32 | FieldType::Uint64
    );
    match check.text(db, &path, "attr", &name) {
        None | Some("") => {}
        Some(attr) if attr.eq_ignore_ascii_case("UNSIGNED") && unsigned => {}
        Some(attr) if attr.eq_ignore_ascii_case("UNSIGNED") => {
            bad(check, "attr", "UNSIGNED needs an unsigned type such as uint64".to_owned());
        }
        Some(attr) => {
            let attr = crate::model::json::cut(attr);
            bad(check, "attr", format!("'{attr}' is not known; use UNSIGNED or leave it out"));
        }
    }
    match check.text(db, &path, "collation", &name) {
        None | Some("") => {}
        Some(collation) if is_binary(collation) => {}
        Some(collation) => bad(
            check,
            "collation",
            format!(
                "'{}' is no binary collation: text is ordered by code point on every store; leave \
                 it out, or use $containsfold to search without case",
                crate::model::json::cut(collation)
            ),
        ),
    }
    column.automatic = check.flag(db, &path, "increment", &name).unwrap_or(false);
    let key = check.text(db, &path, "key", &name).unwrap_or_default();
    match key {
        "" | "MUL" | "PRI" => {}
        "UNI" => column.unique = true,
        _ => {
            let key = crate::model::json::cut(key);
            bad(check, "key", format!("'{key}' is not known; use PRI, UNI or MUL"));
        }
    }
    key == "PRI"
}

fn is_binary(collation: &str) -> bool {
    let lower = collation.to_ascii_lowercase();
    lower == "binary" || lower == "c" || lower.ends_with("_bin")
}

fn default(check: &mut Check, item: &Map<String, Json>, path: &str, column: &mut Column) {
    let at = join(path, "default");
    column.default = match item.get("default") {
        None | Some(Json::Null) => None,
        Some(Json::String(word))
            if column.ty == FieldType::Time && word.eq_ignore_ascii_case("NOW()") =>
        {
            Some(Default::Now)
        }
        Some(value) => match Value::from_json(value, column) {
            Ok(value) => Some(Default::Value(value)),
            Err(message) => {
                let now = if column.ty == FieldType::Time { ", or NOW()" } else { "" };
                let name = column.name.clone();
                let message = format!("this default does not fit: {message}{now}");
                check.bad("field.default.invalid", &at, &name, message);
                None
            }
        },
    };
}
