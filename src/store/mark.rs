//! Part of a write, tried and taken back.

use crate::error::Result;

use super::fault::fault;
use super::touched::Stood;
use super::tx::Tx;

/// Where a write stood, to go back to.
#[must_use]
pub struct Mark {
    stood: Stood,
    notices: usize,
    unlinked: usize,
}

impl Tx<'_> {
    /// Notes where the write stands. Marks nest; each must be given to [`Tx::undo`] or
    /// [`Tx::keep`], unless the whole write fails.
    pub fn mark(&mut self) -> Result<Mark> {
        self.run("SAVEPOINT mark")?;
        let stood = self.touched.mark();
        Ok(Mark { stood, notices: self.notices.len(), unlinked: self.unlinked.steps() })
    }

    /// Takes back everything since the newest mark. Not for catalogs.
    pub fn undo(&mut self, mark: Mark) -> Result<()> {
        self.run("ROLLBACK TO mark")?;
        self.run("RELEASE mark")?;
        self.desk.given.clear();
        self.touched.back_to(&mark.stood);
        self.notices.truncate(mark.notices);
        self.unlinked.back_to(mark.unlinked);
        Ok(())
    }

    /// Lets everything since the newest mark stand.
    pub fn keep(&mut self, _: Mark) -> Result<()> {
        self.touched.go_on();
        self.run("RELEASE mark")
    }

    fn run(&self, text: &str) -> Result<()> {
        self.connection
            .prepare_cached(text)
            .and_then(|mut statement| statement.execute(()))
            .map(drop)
            .map_err(fault)
    }
}
