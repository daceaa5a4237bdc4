//! Tables, columns and indexes as SQLite's SQL.
//!
//! What the engine checks here is a net under what Rowcast checks itself: types by STRICT, keys by
//! foreign keys without actions. These are checked statement by statement: a deferred one would
//! fail at the COMMIT, and with it every other write of the group. A key's column is never NOT
//! NULL in the store, whatever the schema says: SQLite cannot add such a column to a filled table.

use std::collections::BTreeMap;

use crate::filter::sql::quote;
use crate::model::catalog::Catalog;
use crate::model::file::OWN_PREFIX;
use crate::model::schema::{Column, Default, FieldId, Schema, SchemaKind, Shape, Slot};
use crate::model::value::{FieldType, Value};

/// The STRICT type a field type is stored as.
pub(crate) fn storage(ty: FieldType) -> &'static str {
    match ty {
        FieldType::Bool
        | FieldType::Int8
        | FieldType::Int16
        | FieldType::Int32
        | FieldType::Int64
        | FieldType::Uint8
        | FieldType::Uint16
        | FieldType::Uint32
        | FieldType::Uint64
        | FieldType::Time => "INTEGER",
        FieldType::Float32 | FieldType::Float64 => "REAL",
        FieldType::String | FieldType::Text | FieldType::Enum | FieldType::Json => "TEXT",
        FieldType::Uuid | FieldType::Bytes => "BLOB",
    }
}

/// A value as an SQL literal. Statements that run once, over whole tables, are written out.
pub(crate) fn literal(value: &Value) -> String {
    let hex = |bytes: &[u8]| {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("x'{digits}'")
    };
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bool(value) => i64::from(*value).to_string(),
        Value::Int(value) | Value::Time(value) => value.to_string(),
        // Seventeen digits give every f64 back exactly.
        Value::Float(value) => format!("{value:.17e}"),
        Value::Text(text) | Value::Json(text) => format!("'{}'", text.replace('\'', "''")),
        Value::Uuid(id) => hex(id.as_bytes()),
        Value::Bytes(bytes) => hex(bytes),
    }
}

/// What a NOT NULL column added to a filled table holds until it is filled.
fn nothing(ty: FieldType) -> &'static str {
    match storage(ty) {
        "INTEGER" => "0",
        "REAL" => "0.0",
        "TEXT" => "''",
        _ => "x''",
    }
}

/// What the key in `slot` points to: (table, column).
pub(crate) fn points_to(
    catalog: &Catalog,
    schema: &Schema,
    slot: Slot,
) -> Option<(String, String)> {
    let target = match schema.columns[slot].key_of {
        Some(relation) => schema.relations[relation].target,
        None if schema.kind == SchemaKind::Junction => catalog.all().find_map(|other| {
            other.relations.iter().find_map(|relation| match relation.shape {
                Shape::Link { junction, own, .. } if junction == schema.id && own == slot => {
                    Some(other.id)
                }
                Shape::Link { junction, other: far, .. }
                    if junction == schema.id && far == slot =>
                {
                    Some(relation.target)
                }
                _ => None,
            })
        })?,
        None => return None,
    };
    let target = catalog.get(target)?;
    Some((target.table.to_string(), target.primary_column().name.to_string()))
}

/// The column as `CREATE TABLE` has it. `references` is left out while a schema is not served:
/// its rows must not stand in the way of records it points to.
pub(crate) fn column(schema: &Schema, slot: Slot, to: Option<(String, String)>) -> String {
    let column = &schema.columns[slot];
    let mut sql = format!("{} {}", quote(&column.name), storage(column.ty));
    if slot == schema.primary {
        sql.push_str(if column.ty.is_int() {
            // Not AUTOINCREMENT: see `given.rs`.
            " PRIMARY KEY"
        } else {
            " PRIMARY KEY NOT NULL"
        });
    } else if is_not_null(schema, slot) {
        sql.push_str(" NOT NULL");
    }
    if let Some((table, key)) = to {
        sql.push_str(&references(&table, &key));
    }
    sql
}

fn references(table: &str, key: &str) -> String {
    format!(" REFERENCES {}({}) ON UPDATE NO ACTION ON DELETE NO ACTION", quote(table), quote(key))
}

/// Whether the store itself refuses NULL in a column.
pub(crate) fn is_not_null(schema: &Schema, slot: Slot) -> bool {
    let column = &schema.columns[slot];
    let is_key = column.key_of.is_some() || (schema.kind == SchemaKind::Junction && slot > 0);
    !column.optional && !is_key
}

/// `CREATE TABLE`.
pub(crate) fn create_table(catalog: &Catalog, schema: &Schema) -> String {
    let columns: Vec<String> = (0..schema.columns.len())
        .map(|slot| column(schema, slot, points_to(catalog, schema, slot)))
        .collect();
    format!("CREATE TABLE {} ({}) STRICT", quote(&schema.table), columns.join(", "))
}

/// `ALTER TABLE … ADD COLUMN` under `name`. A column the store keeps NOT NULL gets a value for
/// the rows that are there already; that value is only the store's, never a client's default.
pub(crate) fn add_column(
    schema: &Schema,
    slot: Slot,
    name: &str,
    to: Option<(String, String)>,
) -> String {
    let column = &schema.columns[slot];
    let mut sql = format!(
        "ALTER TABLE {} ADD COLUMN {} {}",
        quote(&schema.table),
        quote(name),
        storage(column.ty)
    );
    if is_not_null(schema, slot) {
        let value = match &column.default {
            Some(Default::Value(value)) => literal(value),
            _ => nothing(column.ty).to_owned(),
        };
        sql.push_str(&format!(" NOT NULL DEFAULT {value}"));
    } else if let Some(Default::Value(value)) = &column.default {
        sql.push_str(&format!(" DEFAULT {}", literal(value)));
    }
    if let Some((table, key)) = to {
        sql.push_str(&references(&table, &key));
    }
    sql
}

/// An index that a schema has: its own or one that a column needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub columns: Vec<FieldId>,
    pub unique: bool,
}

/// Every index of a schema's table by name. Those that columns need are named after ids, so that
/// no rename touches them.
pub(crate) fn indexes(schema: &Schema) -> BTreeMap<String, Wanted> {
    let mut found = BTreeMap::new();
    let id_of = |slot: Slot| schema.columns[slot].id;
    for (slot, column) in schema.columns.iter().enumerate() {
        let wanted = |unique| Wanted { columns: vec![column.id], unique };
        if slot == schema.primary {
            continue;
        }
        let is_target = schema.kind == SchemaKind::Junction && slot == 2;
        if column.unique {
            found.insert(format!("{OWN_PREFIX}u{}", column.id.0), wanted(true));
        } else if column.key_of.is_some() || is_target {
            found.insert(format!("{OWN_PREFIX}k{}", column.id.0), wanted(false));
        }
    }
    for index in &schema.indexes {
        let name = if schema.kind == SchemaKind::Junction {
            format!("{OWN_PREFIX}l{}", schema.id.0)
        } else {
            index.name.to_string()
        };
        let columns = index.columns.iter().map(|slot| id_of(*slot)).collect();
        found.insert(name, Wanted { columns, unique: index.unique });
    }
    found
}

/// `CREATE INDEX`.
pub(crate) fn create_index(schema: &Schema, name: &str, index: &Wanted) -> String {
    let name_of = |id: &FieldId| -> Option<&Column> { schema.columns.iter().find(|c| c.id == *id) };
    let columns: Vec<String> =
        index.columns.iter().filter_map(name_of).map(|column| quote(&column.name)).collect();
    format!(
        "CREATE {}INDEX {} ON {} ({})",
        if index.unique { "UNIQUE " } else { "" },
        quote(name),
        quote(&schema.table),
        columns.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_keep_every_value() {
        let connection = rusqlite::Connection::open_in_memory().expect("in memory");
        let float = |value: f64| {
            let sql = format!("SELECT {}", literal(&Value::Float(value)));
            connection.query_row(&sql, (), |row| row.get::<_, f64>(0)).expect(&sql)
        };
        for value in [0.1, 1.0, -3.5e300, 5e-324, f64::MAX, 1.0 / 3.0] {
            assert_eq!(float(value), value);
        }
        let text = literal(&Value::Text("it's \"one\"".into()));
        let sql = format!("SELECT {text}");
        let back: String = connection.query_row(&sql, (), |row| row.get(0)).expect(&sql);
        assert_eq!(back, "it's \"one\"");
    }
}
