//! What the writer is asked to do.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::error::{Error, Result};
use crate::model::change::Commit;

use super::Written;
use super::tx::Tx;

/// What stands in the writer's line.
pub(crate) enum Task {
    Write(Box<dyn Job>),
    /// Answered with the newest position once everything before it is done.
    Barrier(oneshot::Sender<Result<u64>>),
}

impl Task {
    /// Nobody waits for it any more.
    pub(crate) fn left(&self) -> bool {
        matches!(self, Task::Write(job) if job.abandoned())
    }

    /// An event loop may do it.
    pub(crate) fn is_brief(&self) -> bool {
        matches!(self, Task::Write(job) if job.is_brief())
    }
}

/// A write, its type forgotten.
pub(crate) trait Job: Send {
    /// Nobody waits for the answer any more.
    fn abandoned(&self) -> bool;
    /// An event loop may do it.
    fn is_brief(&self) -> bool;
    /// Runs it and keeps its value. The error is a copy for the writer.
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()>;
    fn answer(self: Box<Self>, outcome: Result<Option<Arc<Commit>>>);
}

pub(crate) struct Work<T, F> {
    pub(crate) job: Option<F>,
    pub(crate) value: Option<T>,
    pub(crate) reply: oneshot::Sender<Result<Written<T>>>,
    pub(crate) brief: bool,
}

impl<T, F> Job for Work<T, F>
where
    T: Send,
    F: FnOnce(&mut Tx<'_>) -> Result<T> + Send,
{
    fn abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn is_brief(&self) -> bool {
        self.brief
    }

    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        let Some(job) = self.job.take() else {
            return Err(Error::internal("a job was run twice"));
        };
        self.value = Some(job(tx)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<Option<Arc<Commit>>>) {
        let answer = match (outcome, self.value) {
            (Ok(commit), Some(value)) => Ok(Written { value, commit }),
            (Ok(_), None) => Err(Error::internal("a job without a value")),
            (Err(error), _) => Err(error),
        };
        // Who left meanwhile does not hear of it.
        let _ = self.reply.send(answer);
    }
}
