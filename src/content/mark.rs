//! Stand-ins until the store's transaction stands.

use std::sync::Arc;

use crate::error::Result;
use crate::model::change::Row;
use crate::model::schema::Schema;
use crate::model::value::Value;
use crate::store::Tx;

pub struct Mark;

impl Tx<'_> {
    /// As `update`, for a record that the request does not name.
    pub fn update_consequence(&mut self, schema: &Schema, values: Vec<Value>) -> Result<Arc<Row>> {
        self.update(schema, values)
    }

    pub fn mark(&mut self) -> Result<Mark> {
        todo!()
    }

    pub fn undo(&mut self, _: Mark) -> Result<()> {
        todo!()
    }
}
