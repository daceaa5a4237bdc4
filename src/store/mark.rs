//! Part of a write, tried and taken back.

use crate::error::Result;

use super::fault::fault;
use super::touched::Touched;
use super::tx::{Tx, Unlinked};

/// Where a write stood, to go back to.
#[must_use]
pub struct Mark {
    touched: Touched,
    notices: usize,
    unlinked: Unlinked,
}

impl Tx<'_> {
    /// Notes where the write stands. Marks nest; each must be given to [`Tx::undo`] or
    /// [`Tx::keep`], unless the whole write fails.
    pub fn mark(&mut self) -> Result<Mark> {
        self.connection.execute_batch("SAVEPOINT mark").map_err(fault)?;
        let (touched, unlinked) = (self.touched.clone(), self.unlinked.clone());
        Ok(Mark { touched, notices: self.notices.len(), unlinked })
    }

    /// Takes back everything since the newest mark. Not for catalogs.
    pub fn undo(&mut self, mark: Mark) -> Result<()> {
        self.connection.execute_batch("ROLLBACK TO mark; RELEASE mark").map_err(fault)?;
        self.touched = mark.touched;
        self.notices.truncate(mark.notices);
        self.unlinked = mark.unlinked;
        Ok(())
    }

    /// Lets everything since the newest mark stand.
    pub fn keep(&mut self, _: Mark) -> Result<()> {
        self.connection.execute_batch("RELEASE mark").map_err(fault)
    }
}
