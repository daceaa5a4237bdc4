//! Reading rows: what transactions and readers have in common.

use std::sync::Arc;

use crate::error::Result;
use crate::filter::Predicate;
use crate::model::catalog::Catalog;
use crate::model::change::Row;
use crate::model::related::{Paths, RelatedSet};
use crate::model::schema::{Schema, Slot};
use crate::model::value::Value;

/// Rows of one schema.
#[derive(Clone, Debug)]
pub struct Query {
    pub schema: Arc<Schema>,
    pub filter: Predicate,
    /// Column and whether descending; ties are broken by the primary key, ascending unless it is
    /// named. Nulls first ascending, last descending.
    pub sort: Vec<(Slot, bool)>,
    pub limit: Option<u64>,
    pub offset: u64,
}

/// One consistent state of the rows.
pub trait Rows {
    fn catalog(&self) -> &Arc<Catalog>;

    fn get(&self, schema: &Schema, key: &Value) -> Result<Option<Arc<Row>>>;

    fn select(&self, query: &Query) -> Result<Vec<Arc<Row>>>;

    /// How many rows match (SQL's TRUE).
    fn count(&self, schema: &Schema, filter: &Predicate) -> Result<u64>;

    /// Everything that `paths` reads from `rows`, in a few queries, never one per row.
    fn gather(&self, schema: &Schema, rows: &[Arc<Row>], paths: &Paths) -> Result<RelatedSet>;
}

/// A reader's snapshot.
pub struct Reader<'a> {
    pub(crate) connection: &'a rusqlite::Connection,
    pub(crate) catalog: Arc<Catalog>,
}
