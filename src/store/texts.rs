//! The statements of each schema, spelt once.

use std::cell::RefCell;
use std::sync::Arc;

use crate::filter::sql::quote;
use crate::model::map::IdMap;
use crate::model::schema::{Schema, SchemaId, Slot};

/// SQL for one schema. Tables go by the alias `r`.
pub(crate) struct Texts {
    /// `r."a", r."b", …` in slot order.
    pub(crate) columns: String,
    /// `"table" AS r`
    pub(crate) from: String,
    /// `r."id"`
    pub(crate) primary: String,
    /// One row by primary key, in slot order.
    pub(crate) get: String,
    pub(crate) insert: String,
    pub(crate) delete: String,
    /// The largest integer key that the table holds, or was noted for the schema of that id; 0 if there
    /// was none.
    pub(crate) newest: String,
}

impl Texts {
    pub(crate) fn new(schema: &Schema) -> Self {
        let names: Vec<_> = schema.columns.iter().map(|column| quote(&column.name)).collect();
        let table = quote(&schema.table);
        let columns = format!("r.{}", names.join(", r."));
        let primary = &names[schema.primary];
        let marks = vec!["?"; names.len()].join(", ");
        Texts {
            get: format!("SELECT {columns} FROM {table} AS r WHERE r.{primary} = ?"),
            insert: format!("INSERT INTO {table} ({}) VALUES ({marks})", names.join(", ")),
            delete: format!("DELETE FROM {table} WHERE {primary} = ?"),
            newest: format!(
                "SELECT max(0, ifnull((SELECT max({primary}) FROM {table}), 0), \
                 ifnull((SELECT id FROM _rc_given WHERE schema = ?), 0))"
            ),
            from: format!("{table} AS r"),
            primary: format!("r.{primary}"),
            columns,
        }
    }

    /// Rows by one column, by primary key in order, at most as many as the second parameter says.
    pub(crate) fn by(&self, schema: &Schema, slot: Slot) -> String {
        format!(
            "SELECT {} FROM {} WHERE r.{} = ? ORDER BY {} LIMIT ?",
            self.columns,
            self.from,
            quote(&schema.columns[slot].name),
            self.primary
        )
    }

    /// How many rows hold a value in one column, at most as many as the second parameter says.
    pub(crate) fn count_by(&self, schema: &Schema, slot: Slot) -> String {
        format!(
            "SELECT count(*) FROM (SELECT 1 FROM {} WHERE r.{} = ? LIMIT ?)",
            self.from,
            quote(&schema.columns[slot].name)
        )
    }

    /// Sets the given columns of one row; the primary key is the last parameter.
    pub(crate) fn update(&self, schema: &Schema, slots: &[Slot]) -> String {
        let sets: Vec<_> = slots
            .iter()
            .map(|slot| format!("{} = ?", quote(&schema.columns[*slot].name)))
            .collect();
        format!(
            "UPDATE {} SET {} WHERE {} = ?",
            quote(&schema.table),
            sets.join(", "),
            quote(&schema.primary_column().name)
        )
    }
}

/// Spelt statements, kept by a thread for its connection.
#[derive(Default)]
pub(crate) struct TextCache(RefCell<IdMap<(SchemaId, u32), Arc<Texts>>>);

impl TextCache {
    pub(crate) fn of(&self, schema: &Schema) -> Arc<Texts> {
        let mut known = self.0.borrow_mut();
        known
            .entry((schema.id, schema.version))
            .or_insert_with(|| Arc::new(Texts::new(schema)))
            .clone()
    }

    /// Forgets everything: after migrations, done or undone, a version may mean another shape.
    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}
