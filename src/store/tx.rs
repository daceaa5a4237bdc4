//! One write: rows changed, consequences drawn, the log entry collected.

use std::sync::Arc;

use crate::error::Result;
use crate::model::change::{Notice, Row};
use crate::model::schema::{Relation, Schema};
use crate::model::value::Value;

/// A job's view of the rows: sees its own changes. Implements [`super::Rows`].
///
/// Every method that changes rows records the before- and after-image; a record touched several
/// times stands in the commit once (first before-image, last after-image). Changes that end where
/// they began are dropped, except updates, which always count.
pub struct Tx<'a> {
    pub(crate) connection: &'a rusqlite::Connection,
}

impl Tx<'_> {
    /// `NOW()` of this write: microseconds since 1970, the same for the whole write.
    pub fn now(&self) -> i64 {
        todo!("helper T")
    }

    /// Inserts a row given in slot order. `Value::Null` in an automatic primary key column is
    /// filled in (counter or UUID v7). Timestamps and defaults are the caller's to fill. A unique
    /// clash is a 400 naming the field; a foreign key to nothing a 400 naming the relation.
    pub fn insert(&mut self, schema: &Schema, values: Vec<Value>) -> Result<Arc<Row>> {
        let _ = (schema, values);
        todo!("helper T")
    }

    /// Replaces the row whose primary key stands in `values`; it must exist (404 otherwise).
    pub fn update(&mut self, schema: &Schema, values: Vec<Value>) -> Result<Arc<Row>> {
        let _ = (schema, values);
        todo!("helper T")
    }

    /// Deletes a row and draws the consequences: optional references become null (an update of
    /// each referring record, `updated_at` set), links are unlinked, a required reference makes
    /// it a 409 that names who refers. `false` where there is no such row.
    pub fn delete(&mut self, schema: &Schema, key: &Value) -> Result<bool> {
        let _ = (schema, key);
        todo!("helper T")
    }

    /// Links through a junction (`Shape::Link`); `false` where the link stood already.
    pub fn link(
        &mut self,
        schema: &Schema,
        relation: &Relation,
        own: &Value,
        other: &Value,
    ) -> Result<bool> {
        let _ = (schema, relation, own, other);
        todo!("helper T")
    }

    /// Takes a link away; `false` where there was none.
    pub fn unlink(
        &mut self,
        schema: &Schema,
        relation: &Relation,
        own: &Value,
        other: &Value,
    ) -> Result<bool> {
        let _ = (schema, relation, own, other);
        todo!("helper T")
    }

    /// Adds a notice to this write's entry.
    pub fn notice(&mut self, notice: Notice) {
        let _ = notice;
        todo!("helper T")
    }

    /// For echo suppression: who wrote.
    pub fn origin(&mut self, origin: uuid::Uuid) {
        let _ = origin;
        todo!("helper T")
    }

    /// The image a record had before this write, if this write touched it
    /// (`Some(None)`: it did not exist).
    pub fn before(&self, schema: &Schema, key: &Value) -> Option<Option<Arc<Row>>> {
        let _ = (schema, key);
        todo!("helper T")
    }
}
