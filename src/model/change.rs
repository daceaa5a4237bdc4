//! What one write did.

use std::sync::{Arc, OnceLock};

use uuid::Uuid;

use super::catalog::Catalog;
use super::schema::{SchemaId, Slot};
use super::value::Value;

/// A record's own columns and foreign keys, by slot of the schema version it was read under.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub values: Box<[Value]>,
}

impl Row {
    pub fn new(values: Vec<Value>) -> Self {
        Row { values: values.into() }
    }

    pub fn get(&self, slot: Slot) -> &Value {
        &self.values[slot]
    }

    /// Roughly what it holds in memory, bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.values) + self.values.iter().map(Value::heap_bytes).sum::<usize>()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Create,
    Update,
    Delete,
}

/// One record in a commit. `before` is `None` for a create, `after` for a delete.
#[derive(Clone, Debug)]
pub struct Change {
    pub schema: SchemaId,
    pub schema_version: u32,
    pub op: Op,
    pub key: Value,
    pub before: Option<Arc<Row>>,
    pub after: Option<Arc<Row>>,
}

/// What else an entry of the log may tell.
#[derive(Clone, Debug)]
pub enum Notice {
    /// Schemas or access rules changed; the catalog that holds from this entry on.
    Catalog {
        catalog: Arc<Catalog>,
        /// Schemas whose subscriptions end here (4410): anything but additions.
        broken: Vec<SchemaId>,
    },
    /// Sessions of a user ended: one, or all of them.
    Session { user: Uuid, session: Option<Uuid> },
}

/// One entry of the log: everything one write did.
#[derive(Debug)]
pub struct Commit {
    /// 1, 2, 3 … without holes.
    pub position: u64,
    /// 64 random bits that tell this entry from one of another history at the same position.
    pub stamp: u64,
    /// Microseconds since 1970, the write's `NOW()`.
    pub time: i64,
    /// Who wrote, for echo suppression by dialects that have it.
    pub origin: Option<Uuid>,
    /// The named records first, then the consequences; each record once.
    pub changes: Vec<Change>,
    pub notices: Vec<Notice>,
    /// Related rows, before and after, for the relation paths that were wanted when the writer
    /// worked on it (see `store/related.rs`). Empty where nobody reads through relations.
    pub related: crate::model::related::RelatedRows,
    /// [`Commit::bytes`], once it was asked for.
    pub weight: OnceLock<usize>,
}

impl Commit {
    /// Roughly what it holds in memory, bytes. Counted once: ten thousand records are looked at for
    /// it, and everybody who keeps or passes on a commit asks.
    pub fn bytes(&self) -> usize {
        *self.weight.get_or_init(|| {
            let row = |row: &Option<Arc<Row>>| row.as_ref().map_or(0, |row| row.bytes());
            let change = |change: &Change| 128 + row(&change.before) + row(&change.after);
            256 + self.changes.iter().map(change).sum::<usize>() + self.related.bytes()
        })
    }
}
