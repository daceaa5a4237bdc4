//! How much one read may hold in memory.

use std::cell::Cell;

use crate::error::{Error, Kind, Result};
use crate::model::change::Row;
use crate::model::value::Value;

/// Memory of a row beside its values.
const ROW_BYTES: usize = 64;

/// A budget of bytes, spent row by row.
pub(crate) struct Room {
    most: usize,
    left: Cell<usize>,
}

impl Room {
    pub(crate) fn new(most: usize) -> Self {
        Room { most, left: Cell::new(most) }
    }

    /// For what must be read whole.
    pub(crate) fn unbounded() -> Self {
        Room::new(usize::MAX)
    }

    /// What a row takes of a budget, bytes.
    pub(crate) fn weigh(row: &Row) -> usize {
        Room::weigh_values(&row.values)
    }

    fn weigh_values(values: &[Value]) -> usize {
        ROW_BYTES + size_of_val(values) + values.iter().map(Value::heap_bytes).sum::<usize>()
    }

    pub(crate) fn left(&self) -> usize {
        self.left.get()
    }

    /// 413 where the row no longer fits.
    pub(crate) fn take(&self, row: &Row) -> Result<()> {
        self.take_values(&row.values)
    }

    /// As [`Room::take`], for a row of these values.
    pub(crate) fn take_values(&self, values: &[Value]) -> Result<()> {
        match self.left.get().checked_sub(Room::weigh_values(values)) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(Error::new(
                Kind::TooLarge,
                format!(
                    "the records are larger than {} bytes together; ask for fewer with 'limit', \
                     'filter' or 'select'",
                    self.most
                ),
            )),
        }
    }
}
