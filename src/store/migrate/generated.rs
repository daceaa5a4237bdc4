//! Random changes of random schemas: whatever the plan lets through must leave tables that are
//! exactly what the catalog says, with every foreign key good and every value readable.

use rusqlite::Connection;
use serde_json::{Value as Json, json};

use super::{How, Rename, plan, stored};
use crate::model::catalog::Catalog;
use crate::model::file::{SchemaDef, parse};
use crate::model::schema::{Schema, SchemaKind};
use crate::model::system;
use crate::model::value::FieldType;
use crate::store::{ddl, format};

/// A small generator whose sequence is its seed's: a failing run can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

const TYPES: [&str; 12] = [
    "bool", "int8", "int64", "uint32", "float32", "float64", "string", "text", "enum", "uuid",
    "time", "json",
];

fn field(random: &mut Random, name: String) -> Json {
    let ty = TYPES[random.below(TYPES.len())];
    let mut field = json!({"name": name, "type": ty, "optional": random.chance(60)});
    if ty == "enum" {
        let words: Vec<Json> =
            ["a", "b", "c"][..=random.below(3)].iter().map(|word| json!({"value": word})).collect();
        field["enums"] = words.into();
    }
    // What is required has a default mostly: without one, a filled table refuses it.
    if random.chance(if field["optional"] == false { 92 } else { 40 }) {
        field["default"] = match ty {
            "bool" => json!(true),
            "int8" | "int64" | "uint32" => json!(random.below(100)),
            "float32" | "float64" => json!(0.5),
            "string" | "text" | "enum" => json!("a"),
            "uuid" => json!("0190163d-8694-739b-aea5-966c26f8ad91"),
            "time" => json!("NOW()"),
            _ => json!({"a": 1}),
        };
    }
    if matches!(ty, "string" | "text") && random.chance(30) {
        field["size"] = json!(1 + random.below(5));
    }
    if random.chance(5) {
        field["unique"] = json!(true);
    }
    field
}

/// One state of the world: a schema for some of the names, relations between those that are there.
fn world(random: &mut Random, keys: &[Option<&str>; 3]) -> Vec<Json> {
    let mut schemas: Vec<Json> = Vec::new();
    for (at, key) in keys.iter().enumerate() {
        if random.chance(15) {
            continue;
        }
        let table = if random.chance(90) { format!("t{at}") } else { format!("t{at}_other") };
        let mut fields = Vec::new();
        if let Some(ty) = key {
            fields.push(json!({"name": "id", "type": ty}));
        }
        for at in 0..4 {
            if random.chance(70) {
                fields.push(field(random, format!("f{at}")));
            }
        }
        schemas.push(json!({
            "name": format!("s{at}"), "namespace": table, "label_field": "id", "fields": fields,
            "disable_timestamp": random.chance(20),
        }));
    }
    for at in 0..4 {
        if schemas.is_empty() || random.chance(40) {
            continue;
        }
        let (one, two) = (random.below(schemas.len()), random.below(schemas.len()));
        let kind = ["o2o", "o2m", "m2m"][random.below(3)];
        let (here, there) = (format!("r{at}"), format!("b{at}"));
        let names = [schemas[one]["name"].clone(), schemas[two]["name"].clone()];
        let end = |name: &str, to: &Json, back: &str, owner: bool, optional: bool| {
            json!({"name": name, "type": "relation", "optional": optional,
                   "relation": {"schema": to, "field": back, "type": kind, "owner": owner}})
        };
        let optional = random.chance(92);
        let push = |schema: &mut Json, field: Json| {
            schema["fields"].as_array_mut().expect("fields").push(field);
        };
        if random.chance(25) {
            let to_user = end(&here, &json!("user"), &format!("u{one}{at}"), false, optional);
            push(&mut schemas[one], to_user);
        } else {
            push(&mut schemas[one], end(&here, &names[1], &there, false, optional));
            push(&mut schemas[two], end(&there, &names[0], &here, true, true));
        }
    }
    schemas
}

/// A random renaming of fields that the stored schema has and the new one has not.
fn renames(random: &mut Random, catalog: &Catalog, schemas: &mut [Json]) -> Vec<Rename> {
    let mut found = Vec::new();
    for schema in schemas {
        let name = schema["name"].as_str().expect("a name").to_owned();
        let Some(old) = catalog.named(&name) else { continue };
        let fields = schema["fields"].as_array_mut().expect("fields");
        for field in fields.iter_mut() {
            let from = field["name"].as_str().expect("a name").to_owned();
            let plain = field["type"] != "relation" && old.column(&from).is_some();
            if plain && from != "id" && random.chance(15) {
                let to = format!("{from}x");
                field["name"] = json!(to);
                found.push(Rename { schema: name.clone(), from, to });
            }
        }
    }
    found
}

fn parsed(schemas: &[Json]) -> Option<Vec<SchemaDef>> {
    let mut defs = system::schemas();
    for schema in schemas {
        let file = format!("{}.json", schema["name"].as_str()?);
        defs.push(parse(Some(&file), schema.to_string().as_bytes()).def.ok()?);
    }
    Some(defs)
}

/// Fills a table with rows that fit its columns; keys point to what is there.
fn fill(random: &mut Random, connection: &Connection, catalog: &Catalog, schema: &Schema) {
    for _ in 0..random.below(3) {
        let mut names = Vec::new();
        let mut values = Vec::new();
        for (slot, column) in schema.columns.iter().enumerate() {
            if slot == schema.primary && column.ty.is_int() {
                continue;
            }
            names.push(crate::filter::sql::quote(&column.name));
            let key = ddl::points_to(catalog, schema, slot);
            values.push(match key {
                Some((table, key)) => {
                    format!("(SELECT \"{key}\" FROM \"{table}\" LIMIT 1)")
                }
                None if column.optional && random.chance(40) => "NULL".into(),
                None => match column.ty {
                    FieldType::Bool => "1".into(),
                    ty if ty.is_int() => random.below(120).to_string(),
                    FieldType::Time => "1700000000000000".into(),
                    FieldType::Float32 | FieldType::Float64 => format!("{}.5", random.below(9)),
                    FieldType::Uuid => format!("x'{:032x}'", random.next()),
                    FieldType::Json => "'[1]'".into(),
                    FieldType::Enum => format!("'{}'", column.enums[0]),
                    _ => {
                        let size = column.size.unwrap_or(5) as usize;
                        format!("'{}'", &"abcde"[..1 + random.below(size.min(5))])
                    }
                },
            });
        }
        let columns = match names.is_empty() {
            true => "DEFAULT VALUES".to_owned(),
            false => format!("({}) VALUES ({})", names.join(", "), values.join(", ")),
        };
        let sql = format!("INSERT OR IGNORE INTO \"{}\" {columns}", schema.table);
        // A required key to an empty table is told at the commit; such a row is not wanted here.
        connection.execute(&sql, ()).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

/// The tables are what the catalog says.
fn verify(connection: &Connection, catalog: &Catalog, history: &str) {
    for schema in catalog.all() {
        let mut statement =
            connection.prepare("SELECT name, type FROM pragma_table_info(?1)").expect("a pragma");
        let mut found: Vec<(String, String)> = statement
            .query_map([&*schema.table], |row| Ok((row.get(0)?, row.get(1)?)))
            .and_then(Iterator::collect)
            .expect("columns");
        let mut wanted: Vec<(String, String)> = schema
            .columns
            .iter()
            .map(|column| (column.name.to_string(), ddl::storage(column.ty).to_owned()))
            .collect();
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted, "{}\n{history}", schema.name);
        let mut statement = connection
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = ?1")
            .expect("a query");
        let mut found: Vec<String> = statement
            .query_map([&*schema.table], |row| row.get(0))
            .and_then(Iterator::collect)
            .expect("indexes");
        found.retain(|name| !name.starts_with("sqlite_"));
        found.sort();
        let wanted: Vec<String> = ddl::indexes(schema).into_keys().collect();
        assert_eq!(found, wanted, "{}\n{history}", schema.name);
        for column in &schema.columns {
            let (table, name) = (&schema.table, &column.name);
            let bad = match column.ty {
                FieldType::Enum => {
                    let words: Vec<String> =
                        column.enums.iter().map(|word| format!("'{word}'")).collect();
                    format!("\"{name}\" NOT IN ({})", words.join(","))
                }
                ty if ty.is_int() => {
                    let (least, most) = ty.int_range().expect("a range");
                    format!("\"{name}\" NOT BETWEEN {least} AND {most}")
                }
                FieldType::String | FieldType::Text if column.size.is_some() => {
                    format!("length(\"{name}\") > {}", column.size.unwrap_or(0))
                }
                _ => "0".to_owned(),
            };
            let null = if column.optional || column.key_of.is_some() { "0" } else { "1" };
            let sql = format!(
                "SELECT count(*) FROM \"{table}\" WHERE {bad} OR ({null} AND \"{name}\" IS NULL)"
            );
            let count: i64 =
                connection.query_row(&sql, (), |row| row.get(0)).expect("the values are asked");
            assert_eq!(count, 0, "{sql}\n{history}");
        }
    }
    let broken: i64 = connection
        .query_row("SELECT count(*) FROM pragma_foreign_key_check", (), |row| row.get(0))
        .expect("a pragma");
    assert_eq!(broken, 0, "foreign keys\n{history}");
}

#[test]
fn random_changes_leave_what_the_catalog_says() {
    let (mut applied, mut refused) = (0, 0);
    for seed in 1..=20u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let dir = tempfile::tempdir().expect("a directory");
        let connection = format::open(dir.path()).expect("a store");
        connection.pragma_update(None, "synchronous", "OFF").expect("a pragma");
        // A primary key never changes: it is chosen once.
        let types = [Some("int"), Some("uuid"), Some("string"), None];
        let keys = [(); 3].map(|()| types[random.below(types.len())]);
        let mut history = format!("seed {seed}\n");
        for _ in 0..10 {
            let stored = stored::read(&connection).expect("the catalog");
            let mut schemas = world(&mut random, &keys);
            let fields = renames(&mut random, &stored.catalog, &mut schemas);
            let Some(defs) = parsed(&schemas) else { continue };
            let how = How { accept_all: true, fields, ..How::default() };
            let Ok(migration) = plan(&stored, &defs, &how) else {
                refused += 1;
                continue;
            };
            history.push_str(&format!("{}\n", json!(schemas)));
            for step in &migration.steps {
                history.push_str(&format!("  {step}: {:?}\n", step.sql));
            }
            let faults =
                migration.examine(&connection).unwrap_or_else(|error| panic!("{error}\n{history}"));
            if !faults.is_empty() || migration.is_empty() {
                refused += 1;
                continue;
            }
            connection.execute_batch("BEGIN").expect("begin");
            match migration.apply(&connection, 1_700_000_000_000_000) {
                Ok(()) => {}
                // Values that replace others may clash with each other where they must be unique.
                Err(error) if error.kind == crate::error::Kind::Unprocessable => {
                    connection.execute_batch("ROLLBACK").expect("rollback");
                    refused += 1;
                    continue;
                }
                Err(error) => panic!("{error}\n{history}"),
            }
            format::set_catalog_version(&connection, migration.catalog.version).expect("set");
            connection.execute_batch("COMMIT").unwrap_or_else(|error| panic!("{error}\n{history}"));
            applied += 1;
            verify(&connection, &migration.catalog, &history);
            let mut schemas: Vec<_> = migration.catalog.all().collect();
            schemas.sort_by_key(|schema| schema.id);
            for schema in schemas.iter().filter(|s| s.kind == SchemaKind::User) {
                fill(&mut random, &connection, &migration.catalog, schema);
            }
            for schema in schemas.iter().filter(|s| s.kind == SchemaKind::Junction) {
                let any = |slot| ddl::points_to(&migration.catalog, schema, slot).expect("a key");
                let (from, to) = (any(1), any(2));
                let sql = format!(
                    "INSERT OR IGNORE INTO \"{}\" (source_id, target_id) SELECT a.\"{}\", b.\"{}\" \
                     FROM \"{}\" a, \"{}\" b LIMIT 2",
                    schema.table, from.1, to.1, from.0, to.0
                );
                connection.execute(&sql, ()).unwrap_or_else(|error| panic!("{sql}: {error}"));
            }
        }
    }
    println!("{applied} applied, {refused} refused");
    assert!(applied > 100, "{applied} applied, {refused} refused");
}
