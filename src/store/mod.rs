//! Rows and the change log, in one SQLite file, written by one thread.
//!
//! **Does not know:** subscriptions, sockets, principals, wire formats.

pub mod accounts;
pub mod functions;
pub mod read;
mod stubs;
pub mod tx;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::model::catalog::Catalog;
use crate::model::change::Commit;
use crate::model::related::Paths;
use crate::model::schema::SchemaId;

pub use read::{Query, Reader, Rows};
pub use tx::Tx;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory; made with mode 0700 when missing.
    pub dir: PathBuf,
    /// Entries of the log older than this are trimmed (the newest never).
    pub log_age: Duration,
    /// The log is trimmed to this many bytes (the newest entry always stays).
    pub log_bytes: u64,
    pub readers: usize,
    pub limits: Limits,
}

/// Hears of every commit, in log order, on the writer's thread, after the commit is on disk and
/// before its writers are answered. Must not block and must not fail.
pub trait CommitSink: Send {
    fn committed(&mut self, commits: &[Arc<Commit>]);
}

/// A job's result and the position of its entry (`None` where it changed nothing).
#[derive(Debug)]
pub struct Written<T> {
    pub value: T,
    pub commit: Option<Arc<Commit>>,
}

/// A handle on the open store; cheap to clone.
#[derive(Clone)]
pub struct Store {}

impl Store {
    /// Opens or makes the store: takes the lock, checks the format, starts writer and readers.
    pub fn open(options: Options, sink: Box<dyn CommitSink>) -> Result<Store> {
        let _ = (options, sink);
        todo!("helper T")
    }

    /// Runs `job` in the writer's thread in a transaction of its own (a savepoint in a group).
    /// An `Err` undoes everything the job did. The answer comes after the commit is on disk.
    pub async fn write<T, F>(&self, job: F) -> Result<Written<T>>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        let _ = job;
        Err(Error::internal("todo: helper T"))
    }

    /// Runs `job` on a reader: one consistent snapshot, interrupted after `Limits::read_time` or
    /// when the future is dropped.
    pub async fn read<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    {
        let _ = job;
        Err(Error::internal("todo: helper T"))
    }

    /// The catalog after the newest commit.
    pub fn catalog(&self) -> Arc<Catalog> {
        todo!("helper T")
    }

    /// Says which relation paths the writer must gather into `Commit::related`, by schema.
    /// Holds for jobs that start after this returns and `barrier` was awaited.
    pub fn want(&self, paths: std::collections::HashMap<SchemaId, Paths>) {
        let _ = paths;
        todo!("helper T")
    }

    /// Waits until everything that was handed to the writer before is committed and was told to
    /// the sink; gives the newest position.
    pub async fn barrier(&self) -> Result<u64> {
        todo!("helper T")
    }
}
