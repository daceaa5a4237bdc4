//! Schemas, records and relations held twice: in memory for the evaluator, in SQLite for the SQL.
//!
//! Used by the filter suites and the filter bench. Knows nothing of the store: tables are made
//! here, so that what is tested is the filters alone.
#![allow(dead_code)]

use std::collections::HashMap;
use std::sync::Arc;

use rowcast::filter::compile::Reader;
use rowcast::filter::{Predicate, Truth, eval, sql};
use rowcast::model::catalog::Catalog;
use rowcast::model::change::Row;
use rowcast::model::related::{Key, Paths, RelatedSet};
use rowcast::model::schema::{FieldRef, Schema, SchemaId, Shape};
use rowcast::model::value::{FieldType, Value};
use rowcast::model::{file, link};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, params_from_iter};
use serde_json::Value as Json;

/// What the suites need of a small database.
pub struct Tables {
    pub catalog: Catalog,
    pub rows: HashMap<SchemaId, Vec<Arc<Row>>>,
    pub connection: Connection,
}

/// A value as a parameter.
pub struct Param<'a>(pub &'a Value);

impl ToSql for Param<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            Value::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            Value::Bool(flag) => ToSqlOutput::from(*flag),
            Value::Int(number) | Value::Time(number) => ToSqlOutput::from(*number),
            Value::Float(number) => ToSqlOutput::from(*number),
            Value::Text(text) | Value::Json(text) => {
                ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes()))
            }
            Value::Uuid(id) => ToSqlOutput::Borrowed(ValueRef::Blob(id.as_bytes())),
            Value::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        })
    }
}

/// The truth of an expression's value.
pub fn truth(value: Option<i64>) -> Truth {
    value.map_or(Truth::Unknown, |value| Truth::from(value != 0))
}

impl Tables {
    /// Makes tables for schemas given as schema files hold them.
    pub fn new(schemas: &[Json]) -> Tables {
        let defs: Vec<_> = schemas
            .iter()
            .map(|schema| {
                file::parse(None, schema.to_string().as_bytes())
                    .def
                    .unwrap_or_else(|problems| panic!("a schema is wrong: {problems:#?}"))
            })
            .collect();
        let linked = link::link(&defs).unwrap_or_else(|faults| panic!("{faults:#?}"));
        let schemas: Vec<_> = linked.schemas.into_iter().map(Arc::new).collect();
        let connection = Connection::open_in_memory().expect("a database in memory");
        rowcast::store::functions::register(&connection).expect("functions");
        for schema in &schemas {
            let columns: Vec<_> = schema
                .columns
                .iter()
                .enumerate()
                .map(|(slot, column)| {
                    let ty = match column.ty {
                        FieldType::Float32 | FieldType::Float64 => "REAL",
                        FieldType::Uuid | FieldType::Bytes => "BLOB",
                        FieldType::Json => "TEXT",
                        ty if ty.is_text() => "TEXT",
                        _ => "INTEGER",
                    };
                    let key = if slot == schema.primary { " PRIMARY KEY" } else { "" };
                    format!("{} {ty}{key}", sql::quote(&column.name))
                })
                .collect();
            let table = sql::quote(&schema.table);
            connection
                .execute(&format!("CREATE TABLE {table} ({}) STRICT", columns.join(", ")), [])
                .expect("a table");
        }
        Tables { catalog: Catalog::new(1, schemas), rows: HashMap::new(), connection }
    }

    pub fn schema(&self, name: &str) -> Arc<Schema> {
        self.catalog.named(name).unwrap_or_else(|| panic!("no schema '{name}'")).clone()
    }

    /// Adds a record: own fields by name, to-one relations by the related key under the
    /// relation's name, links (m2m, on either side) as an array of related keys.
    pub fn insert(&mut self, schema: &str, record: &Json) {
        let schema = self.schema(schema);
        let record = record.as_object().expect("a record is an object");
        for name in record.keys() {
            assert!(schema.field(name).is_some(), "{}: no field '{name}'", schema.name);
        }
        let values = schema.columns.iter().map(|column| {
            let name = match column.key_of {
                Some(relation) => &schema.relations[relation].name,
                None => &column.name,
            };
            let value = record.get(&**name).unwrap_or(&Json::Null);
            Value::from_json(value, column)
                .unwrap_or_else(|wrong| panic!("{}.{name}: {wrong}", schema.name))
        });
        let row = Row::new(values.collect());
        let own = row.get(schema.primary).clone();
        self.insert_row(&schema, row);
        for relation in &schema.relations {
            let Some(keys) = record.get(&*relation.name) else { continue };
            match relation.shape {
                Shape::Key { .. } => {}
                Shape::Link { junction, own: own_slot, other } => {
                    let target = self.catalog.get(relation.target).expect("a target").clone();
                    let junction = self.catalog.get(junction).expect("a junction").clone();
                    for key in keys.as_array().expect("links are an array of keys") {
                        let number = self.rows.get(&junction.id).map_or(0, Vec::len) as i64 + 1;
                        let mut values = vec![Value::Null; junction.columns.len()];
                        values[junction.primary] = Value::Int(number);
                        values[own_slot] = own.clone();
                        values[other] = Value::from_json(key, target.primary_column())
                            .unwrap_or_else(|wrong| panic!("{}: {wrong}", relation.name));
                        self.insert_row(&junction, Row::new(values));
                    }
                }
                _ => panic!("give '{}' on the other side, which holds its key", relation.name),
            }
        }
    }

    pub fn insert_row(&mut self, schema: &Schema, row: Row) {
        let marks = vec!["?"; row.values.len()].join(",");
        let table = sql::quote(&schema.table);
        self.connection
            .prepare_cached(&format!("INSERT INTO {table} VALUES ({marks})"))
            .and_then(|mut insert| insert.execute(params_from_iter(row.values.iter().map(Param))))
            .unwrap_or_else(|error| panic!("{}: {error}", schema.name));
        let rows = self.rows.entry(schema.id).or_default();
        rows.push(Arc::new(row));
        rows.sort_by(|a, b| a.get(schema.primary).sort_order(b.get(schema.primary)));
    }

    pub fn rows(&self, schema: &Schema) -> &[Arc<Row>] {
        self.rows.get(&schema.id).map_or(&[], Vec::as_slice)
    }

    /// What `paths` reads from the rows of `schema`, and nothing else: a path that a predicate
    /// forgets to name is missed by the evaluator and found by comparing with the SQL.
    pub fn gather(&self, schema: &Schema, paths: &Paths) -> RelatedSet {
        let mut set = RelatedSet::default();
        self.gather_into(schema, paths, &mut set);
        set
    }

    fn gather_into(&self, schema: &Schema, paths: &Paths, set: &mut RelatedSet) {
        for (name, deeper) in &paths.0 {
            let relation = &schema.relations[schema.relation(name).expect("a relation")];
            let target = self.catalog.get(relation.target).expect("a target");
            for row in self.rows(schema) {
                let own = row.get(schema.primary);
                let related = self.rows(target).iter().filter(|other| match relation.shape {
                    Shape::Key { slot } => row.get(slot) == other.get(target.primary),
                    Shape::BackKey { slot } | Shape::Many { slot } => other.get(slot) == own,
                    Shape::Link { junction, own: own_slot, other: slot } => {
                        let junction = self.catalog.get(junction).expect("a junction");
                        self.rows(junction).iter().any(|link| {
                            link.get(own_slot) == own && link.get(slot) == other.get(target.primary)
                        })
                    }
                });
                let key = Key::of(own).expect("a key");
                set.insert(schema.id, &relation.name, key, related.cloned().collect());
            }
            self.gather_into(target, deeper, set);
        }
    }

    /// The predicate's truth for every record, by key in order, from the evaluator.
    pub fn by_eval(&self, schema: &Schema, predicate: &Predicate) -> Vec<(Value, Truth)> {
        let related = self.gather(schema, &predicate.paths(&self.catalog, schema));
        self.rows(schema)
            .iter()
            .map(|row| {
                let truth = eval::eval(predicate, &self.catalog, schema, row, &related);
                let matches = eval::matches(predicate, &self.catalog, schema, row, &related);
                assert_eq!(matches, truth == Truth::True, "matches and eval: {predicate:?}");
                (row.get(schema.primary).clone(), truth)
            })
            .collect()
    }

    /// The same from SQLite.
    pub fn by_sql(&self, schema: &Schema, predicate: &Predicate) -> Vec<(Value, Truth)> {
        let expression = sql::write(predicate, &self.catalog, schema, "r");
        let text = format!(
            "SELECT {} FROM {} AS r ORDER BY r.{}",
            expression.text,
            sql::quote(&schema.table),
            sql::quote(&schema.primary_column().name)
        );
        let keys = self.rows(schema).iter().map(|row| row.get(schema.primary).clone());
        let truths: Vec<Option<i64>> = self
            .connection
            .prepare(&text)
            .and_then(|mut query| {
                query
                    .query_map(params_from_iter(expression.params.iter().map(Param)), |row| {
                        row.get(0)
                    })?
                    .collect()
            })
            .unwrap_or_else(|error| panic!("{error}\n{text}"));
        keys.zip(truths.into_iter().map(truth)).collect()
    }
}

/// A principal's sight, by schema name; schemas that are not named are seen whole.
#[derive(Default)]
pub struct Sight(pub HashMap<String, Seen>);

/// What is seen of one schema.
#[derive(Default)]
pub struct Seen {
    /// Names of columns and relations; `None`: all.
    pub fields: Option<Vec<String>>,
    /// Records that are seen; `None`: all.
    pub visible: Option<Arc<Predicate>>,
}

impl Sight {
    fn name(schema: &Schema, field: FieldRef) -> &str {
        match field {
            FieldRef::Column(slot) => &schema.columns[slot].name,
            FieldRef::Relation(index) => &schema.relations[index].name,
        }
    }

    fn sees(&self, schema: &Schema, field: FieldRef) -> bool {
        let fields = self.0.get(&*schema.name).and_then(|seen| seen.fields.as_ref());
        fields.is_none_or(|fields| fields.iter().any(|name| name == Self::name(schema, field)))
    }
}

impl Reader for Sight {
    fn own(&self, schema: &Schema, field: FieldRef) -> bool {
        self.sees(schema, field)
    }

    fn hop(&self, target: &Schema, field: FieldRef) -> Option<Option<Arc<Predicate>>> {
        let seen = || self.0.get(&*target.name).and_then(|seen| seen.visible.clone());
        self.sees(target, field).then(seen)
    }
}
