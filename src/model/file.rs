//! A schema file as its author wrote it: parsed, checked, every problem told at once.
//!
//! What can be said of one file alone is checked here; what needs the other schemas (targets, back
//! references, names taken twice) in [`super::link`]. Nothing stops at the first problem, and
//! each one says where it stands, which of FastSchema's codes it is and what would be right.

mod access;
mod check;
mod fields;
mod primary;
mod relation;

use std::sync::{Arc, LazyLock};

use regex::Regex;
use serde_json::{Map, Value as Json};

use super::lines::Lines;
use super::near::nearest;
use super::schema::{AccessRules, Column, RelationKind, SchemaKind};
use crate::error::Problem;

use check::Check;
pub use fields::{FieldDef, RelationDef, What};

/// The largest schema file, in bytes: far beyond any real one, so that no stray dump is read.
pub const FILE_BYTES: u64 = 1 << 20;

/// What some editors begin a file with; it is no part of the JSON.
pub(crate) const BYTE_ORDER_MARK: char = '\u{feff}';

/// The most fields one schema may declare: SQLite's own limit is 2,000 columns.
pub const FIELDS: usize = 1_000;

/// The longest name: PostgreSQL cuts longer identifiers.
pub const NAME_CHARS: usize = 63;

/// Prefix of everything in the store that is the system's own.
pub const OWN_PREFIX: &str = "_rc_";

/// One schema file, good in itself.
#[derive(Clone, Debug)]
pub struct SchemaDef {
    /// The schema's name: the file's stem.
    pub name: Arc<str>,
    /// `namespace`: the table's name.
    pub table: Arc<str>,
    /// The field that stands for a record where one text must do.
    pub label_field: Arc<str>,
    /// As declared, a missing `id` put first.
    pub fields: Vec<FieldDef>,
    /// Index of the primary field.
    pub primary: usize,
    /// Whether `created_at` and `updated_at` are kept.
    pub timestamps: bool,
    /// `db.indexes`.
    pub indexes: Vec<IndexDef>,
    /// Structure checked, filters not.
    pub access: AccessRules,
    /// `accept_data_loss`: fields whose data this version of the file may destroy.
    pub accept_data_loss: Vec<String>,
    /// A file's, or built in.
    pub kind: SchemaKind,
    /// File, text, lines.
    pub origin: Origin,
}

/// Where a definition comes from, for messages and for `GET /api/schema`.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The file's name within the schemas folder; `None` for what came by API or is built in.
    pub file: Option<Arc<str>>,
    /// The text as read or written.
    pub text: Arc<str>,
    /// The parsed text, keys in the author's order.
    pub source: Arc<Json>,
    /// Where in the text what stands.
    pub lines: Arc<Lines>,
}

/// One index of `db.indexes`.
#[derive(Clone, Debug)]
pub struct IndexDef {
    /// Its name in the store, too.
    pub name: Arc<str>,
    /// Names of columns or to-one relations.
    pub columns: Vec<Arc<str>>,
    /// No two records with the same values, nulls aside.
    pub unique: bool,
    /// Its JSON path in the file.
    pub path: String,
}

impl SchemaDef {
    /// A declared field by name.
    pub fn field(&self, name: &str) -> Option<&FieldDef> {
        self.fields.iter().find(|field| &*field.name == name)
    }

    /// A problem at `path` of this file.
    pub fn problem(&self, code: &str, path: &str, field: &str, message: String) -> Problem {
        self.origin.problem(code, path, field, message)
    }
}

impl Origin {
    fn problem(&self, code: &str, path: &str, field: &str, message: String) -> Problem {
        Problem {
            code: code.to_owned(),
            file: self.file.as_deref().map(str::to_owned),
            // A text that came by API is no file: its lines mean nothing to who sent it.
            line: self.file.as_ref().and_then(|_| self.lines.line(path)),
            path: path.to_owned(),
            field: field.to_owned(),
            message,
        }
    }
}

/// What parsing a file gives: the definition if it is good, and warnings in either case.
#[derive(Debug)]
pub struct Parsed {
    /// The definition, or everything that is wrong with it.
    pub def: Result<SchemaDef, Vec<Problem>>,
    /// Of a bad file, as much as can be understood: to be checked against other schemas, so that
    /// all is told at once, and for nothing else.
    pub draft: Option<SchemaDef>,
    /// Unknown keys and keys without effect.
    pub warnings: Vec<Problem>,
}

/// Parses one schema text. `file` is its name within the folder (`blog.json`), `None` for a body
/// sent to the API. Fields marked `is_system_field` are left out: they are what `GET
/// /api/schema` adds, and come by themselves.
pub fn parse(file: Option<&str>, bytes: &[u8]) -> Parsed {
    parse_as(file, bytes, SchemaKind::User)
}

/// As [`parse`]; only built-in texts are [`SchemaKind::System`].
pub fn parse_as(file: Option<&str>, bytes: &[u8], kind: SchemaKind) -> Parsed {
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
    let mut origin = Origin {
        file: file.map(Arc::from),
        text: text.into(),
        source: Arc::new(Json::Null),
        lines: Arc::default(),
    };
    let failed = |origin: &Origin, line, code, message| {
        let mut problem = origin.problem(code, "", "", message);
        problem.line = line;
        Parsed { def: Err(vec![problem]), draft: None, warnings: Vec::new() }
    };
    if bytes.len() as u64 > FILE_BYTES {
        let message = format!("{} bytes are too many; a schema has at most 1 MiB", bytes.len());
        return failed(&origin, None, "schema.io.read_error", message);
    }
    if std::str::from_utf8(bytes).is_err() {
        let message = "the file is not UTF-8; save it as UTF-8".to_owned();
        return failed(&origin, None, "schema.json.invalid", message);
    }
    match serde_json::from_str(text) {
        Ok(value) => origin.source = Arc::new(value),
        Err(error) => {
            let line = file.map(|_| error.line());
            let message = format!("not valid JSON: {error}");
            return failed(&origin, line, "schema.json.invalid", message);
        }
    }
    origin.lines = Arc::new(Lines::of(text));
    let source = origin.source.clone();
    let mut check = Check { origin, kind, problems: Vec::new(), warnings: Vec::new() };
    for (path, line) in check.origin.lines.duplicates.clone() {
        let message = format!("the key '{}' stands twice; take one out", leaf(&path));
        let mut problem = check.origin.problem("schema.json.invalid", &path, "", message);
        problem.line = check.origin.file.as_ref().map(|_| line);
        check.problems.push(problem);
    }
    let Json::Object(root) = &*source else {
        check.bad("schema.json.invalid", "", "", "a schema is a JSON object".to_owned());
        return Parsed { def: Err(check.problems), draft: None, warnings: check.warnings };
    };
    let def = schema(&mut check, root, kind);
    let Check { problems, warnings, .. } = check;
    match def {
        Some(def) if problems.is_empty() => Parsed { def: Ok(def), draft: None, warnings },
        draft => Parsed { def: Err(problems), draft, warnings },
    }
}

/// Every key of a schema. Those without effect here are kept and shown (FastSchema's panel writes
/// them).
const KEYS: [&str; 11] = [
    "name",
    "namespace",
    "label_field",
    "primary_field",
    "fields",
    "disable_timestamp",
    "db",
    "access",
    "accept_data_loss",
    "is_system_schema",
    "is_junction_schema",
];

fn schema(check: &mut Check, root: &Map<String, Json>, kind: SchemaKind) -> Option<SchemaDef> {
    check.known(root, "", &KEYS, "");
    let name = check.required(root, "", "name", "schema.name.required");
    if let Some(name) = name {
        check.name_of_schema(name);
    }
    let table = check.required(root, "", "namespace", "schema.namespace.required");
    if let Some(table) = table {
        check.identifier("schema.namespace.invalid", "namespace", "", table);
        check.not_reserved("schema.namespace.reserved", "namespace", table);
    }
    let label = check.required(root, "", "label_field", "schema.label_field.required");
    let timestamps = !check.flag(root, "", "disable_timestamp", "").unwrap_or(false);
    let (mut fields, primary) = fields::fields(check, root, timestamps);
    if let Some(label) = label {
        label_exists(check, label, &fields);
    }
    let indexes = indexes(check, root);
    let access = root.get("access").map(|rules| access::rules(check, rules)).unwrap_or_default();
    let accept_data_loss = check.strings(root, "", "accept_data_loss").unwrap_or_default();
    // What is missing is a problem already; the draft goes on with something in its place.
    let stem = check.origin.file.as_deref().and_then(|file| file.strip_suffix(".json"));
    let name = name.or(stem)?.to_owned();
    let primary = primary.unwrap_or_else(|| {
        let column = plain_column("", super::value::FieldType::Uint64);
        let what = What::Column(column);
        fields.push(FieldDef { name: "".into(), what, path: String::new() });
        fields.len() - 1
    });
    Some(SchemaDef {
        table: table.map_or_else(|| format!("{OWN_PREFIX}{name}").into(), Arc::from),
        name: name.into(),
        label_field: label.unwrap_or_default().into(),
        fields,
        primary,
        timestamps,
        indexes,
        access,
        accept_data_loss,
        kind,
        origin: check.origin.clone(),
    })
}

fn label_exists(check: &mut Check, label: &str, fields: &[FieldDef]) {
    let good = |field: &&FieldDef| !matches!(field.what, What::Relation(_));
    if fields.iter().filter(good).any(|field| &*field.name == label) {
        return;
    }
    let names: Vec<&str> = fields.iter().filter(good).map(|field| &*field.name).collect();
    let message = match nearest(label, names.iter().copied()) {
        Some(near) => format!("label_field '{label}' is no field; did you mean '{near}'?"),
        None => format!("label_field '{label}' is no field; use one of {}", list(&names)),
    };
    check.bad("schema.label_field.not_found", "label_field", "", message);
}

fn indexes(check: &mut Check, root: &Map<String, Json>) -> Vec<IndexDef> {
    let mut found = Vec::new();
    let Some(db) = check.object(root, "", "db", "") else { return found };
    check.known(db, "db", &["indexes"], "");
    let Some(list) = check.array(db, "db", "indexes", "") else { return found };
    for (at, item) in list.iter().enumerate() {
        let path = format!("db.indexes[{at}]");
        let Json::Object(item) = item else {
            let message = "an index is an object {name, columns, unique}".to_owned();
            check.bad("schema.index.invalid", &path, "", message);
            continue;
        };
        check.known(item, &path, &["name", "columns", "unique"], "");
        let name = check.required(item, &path, "name", "schema.index.invalid");
        if let Some(name) = name {
            let at = format!("{path}.name");
            check.identifier("schema.index.invalid", &at, "", name);
            check.not_reserved("schema.index.invalid", &at, name);
        }
        let columns = check.strings(item, &path, "columns").unwrap_or_default();
        if columns.is_empty() {
            let message = "an index needs \"columns\": the names of one or more fields".to_owned();
            check.bad("schema.index.invalid", &format!("{path}.columns"), "", message);
        }
        let unique = check.flag(item, &path, "unique", "").unwrap_or(false);
        let columns = columns.into_iter().map(Arc::from).collect();
        found.push(IndexDef { name: name.unwrap_or_default().into(), columns, unique, path });
    }
    found
}

/// What names of schemas, tables, fields, indexes and junctions must look like.
static IDENTIFIER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new("^[A-Za-z][A-Za-z0-9_]{0,62}$").expect("a constant, tried by every test of a schema")
});

/// Whether `name` can be a name.
pub fn is_identifier(name: &str) -> bool {
    IDENTIFIER.is_match(name)
}

/// The name of the column that holds a to-one relation's key.
pub fn key_name(relation: &str) -> String {
    format!("{relation}_id")
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn leaf(path: &str) -> &str {
    path.rsplit(['.', '[']).next().unwrap_or(path)
}

/// `a, b or c`, cut where it grows long.
pub(crate) fn list(names: &[&str]) -> String {
    match names {
        [] => "nothing".to_owned(),
        [one] => (*one).to_owned(),
        _ if names.len() > 12 => format!("{}, …", names[..12].join(", ")),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// Used where a relation's kind is read and shown.
pub(crate) fn kind_name(kind: RelationKind) -> &'static str {
    match kind {
        RelationKind::O2O => "o2o",
        RelationKind::O2M => "o2m",
        RelationKind::M2M => "m2m",
    }
}

/// A column with nothing but a name and a type.
pub(crate) fn plain_column(name: &str, ty: super::value::FieldType) -> Column {
    Column {
        id: super::schema::FieldId(0),
        name: name.into(),
        ty,
        optional: false,
        unique: false,
        default: None,
        sortable: true,
        filterable: true,
        enums: Vec::new(),
        size: None,
        automatic: false,
        key_of: None,
    }
}
