//! A few threads that read.

use std::cell::{Cell, OnceCell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::error::{Error, Result};

use super::beside::Bounds;
use super::connection::{self, Use};
use super::fault::fault;
use super::format;
use super::line::Line;
use super::lookup::Recent;
use super::read::{Reader, Time};
use super::texts::TextCache;
use super::watch::Watch;
use super::{Options, Shared};

/// What a read does with its snapshot, or with the reason that there is none.
type ReadJob = Box<dyn FnOnce(Result<&Reader<'_>>) + Send>;

/// A read, its type forgotten.
pub(crate) struct ReadTask {
    pub(crate) job: ReadJob,
    /// Set when nobody waits for the answer any more.
    pub(crate) abandoned: Arc<AtomicBool>,
}

pub(crate) fn start(
    options: &Options,
    line: &Arc<Line<ReadTask>>,
    shared: &Arc<Shared>,
) -> Result<Vec<JoinHandle<()>>> {
    (0..options.readers.max(1))
        .map(|index| {
            let mut thread = Thread {
                dir: options.dir.clone(),
                read_time: options.limits.read_time,
                bounds: Bounds::new(&options.limits),
                shared: shared.clone(),
                watch: Watch::default(),
                texts: TextCache::default(),
                recent: RefCell::default(),
                catalog: None,
                connection: None,
            };
            let connection = thread.open().map_err(|error| format::at_open(&options.dir, error))?;
            thread.connection = Some(connection);
            let line = line.clone();
            std::thread::Builder::new()
                .name(format!("reader-{index}"))
                .spawn(move || {
                    while let Some(task) = line.take() {
                        if !task.abandoned.load(Ordering::Relaxed) {
                            thread.serve(task);
                        }
                    }
                })
                .map_err(Error::internal)
        })
        .collect()
}

struct Thread {
    dir: PathBuf,
    read_time: Duration,
    bounds: Bounds,
    shared: Arc<Shared>,
    watch: Watch,
    texts: TextCache,
    recent: RefCell<Recent>,
    /// Version of the catalog that `texts` were spelt for.
    catalog: Option<u64>,
    /// `None` after a failure, until the next read.
    connection: Option<Connection>,
}

impl Thread {
    fn open(&self) -> rusqlite::Result<Connection> {
        let mut connection = connection::open(&self.dir, Use::Read)?;
        self.watch.over(&mut connection)?;
        Ok(connection)
    }

    fn serve(&mut self, task: ReadTask) {
        let connection = match self.connection.take().map_or_else(|| self.open(), Ok) {
            Ok(connection) => connection,
            Err(error) => return (task.job)(Err(fault(error))),
        };
        let until = Instant::now() + self.read_time;
        self.watch.hold(until, Some(task.abandoned.clone()));
        // A panic is the request's own: its future hears of it because the answer never comes.
        let good = catch_unwind(AssertUnwindSafe(|| {
            self.read(&connection, until, task.abandoned, task.job)
        }));
        self.watch.release();
        let ended = connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok();
        if ended && good.unwrap_or(true) {
            self.connection = Some(connection);
        }
    }

    /// `false` where the connection is not to be used again.
    fn read(
        &mut self,
        connection: &Connection,
        until: Instant,
        abandoned: Arc<AtomicBool>,
        job: ReadJob,
    ) -> bool {
        let catalog = match self.snapshot(connection) {
            Ok(catalog) => catalog,
            Err(error) => {
                job(Err(error));
                return false;
            }
        };
        if self.catalog != Some(catalog.version) {
            self.texts.clear();
            self.catalog = Some(catalog.version);
        }
        let reader = Reader {
            connection,
            catalog,
            texts: &self.texts,
            bounds: self.bounds,
            recent: &self.recent,
            is_recent: Cell::new(false),
            filled: OnceCell::new(),
            time: Time { watch: &self.watch, until, abandoned },
        };
        job(Ok(&reader));
        true
    }

    /// Begins a transaction whose rows are those of a catalog we hold. The writer publishes a new
    /// catalog a moment after its commit, so either may be ahead.
    fn snapshot(&self, connection: &Connection) -> Result<Arc<crate::model::catalog::Catalog>> {
        let until = Instant::now() + self.read_time;
        loop {
            connection
                .prepare_cached("BEGIN")
                .and_then(|mut statement| statement.execute(()))
                .map_err(fault)?;
            let version = format::catalog_version(connection)?;
            let catalog = self.shared.catalog.load_full();
            if catalog.version == version {
                return Ok(catalog);
            }
            connection.execute_batch("ROLLBACK").map_err(fault)?;
            if Instant::now() > until {
                return Err(Error::internal(format_args!(
                    "the rows have catalog {version}, the writer {}",
                    catalog.version
                )));
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}
