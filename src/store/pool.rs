//! A few threads that read.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::error::{Error, Result};

use super::Shared;
use super::connection::{self, Use};
use super::fault::fault;
use super::format;
use super::line::Line;
use super::read::Reader;
use super::texts::TextCache;

/// Steps of SQLite's machine between two looks at the clock: some microseconds.
const STEPS: i32 = 1_000;

/// What a read does with its snapshot, or with the reason that there is none.
type ReadJob = Box<dyn FnOnce(Result<&Reader<'_>>) + Send>;

/// A read, its type forgotten.
pub(crate) struct ReadTask {
    pub(crate) job: ReadJob,
    /// Set when nobody waits for the answer any more.
    pub(crate) abandoned: Arc<AtomicBool>,
}

/// What the progress handler looks at.
#[derive(Default)]
struct Watch(Mutex<Option<(Instant, Arc<AtomicBool>)>>);

impl Watch {
    fn set(&self, to: Option<(Instant, Arc<AtomicBool>)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = to;
    }

    fn over(&self) -> bool {
        let watch = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watch.as_ref().is_some_and(|(until, abandoned)| {
            abandoned.load(Ordering::Relaxed) || Instant::now() >= *until
        })
    }
}

pub(crate) fn start(
    number: usize,
    dir: &Path,
    read_time: Duration,
    line: &Arc<Line<ReadTask>>,
    shared: &Arc<Shared>,
) -> Result<Vec<JoinHandle<()>>> {
    (0..number.max(1))
        .map(|index| {
            let mut thread = Thread {
                dir: dir.to_owned(),
                read_time,
                shared: shared.clone(),
                watch: Arc::default(),
                texts: TextCache::default(),
                catalog: None,
                connection: None,
            };
            let connection = thread.open().map_err(|error| format::at_open(dir, error))?;
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
    shared: Arc<Shared>,
    watch: Arc<Watch>,
    texts: TextCache,
    /// Version of the catalog that `texts` were spelt for.
    catalog: Option<u64>,
    /// `None` after a failure, until the next read.
    connection: Option<Connection>,
}

impl Thread {
    fn open(&self) -> rusqlite::Result<Connection> {
        let mut connection = connection::open(&self.dir, Use::Read)?;
        let watch = self.watch.clone();
        connection.progress_handler(STEPS, Some(move || watch.over()))?;
        Ok(connection)
    }

    fn serve(&mut self, task: ReadTask) {
        let connection = match self.connection.take().map_or_else(|| self.open(), Ok) {
            Ok(connection) => connection,
            Err(error) => return (task.job)(Err(fault(error))),
        };
        self.watch.set(Some((Instant::now() + self.read_time, task.abandoned)));
        // A panic is the request's own: its future hears of it because the answer never comes.
        let good = catch_unwind(AssertUnwindSafe(|| self.read(&connection, task.job)));
        self.watch.set(None);
        let ended = connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok();
        if ended && good.unwrap_or(true) {
            self.connection = Some(connection);
        }
    }

    /// `false` where the connection is not to be used again.
    fn read(&mut self, connection: &Connection, job: ReadJob) -> bool {
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
        job(Ok(&Reader { connection, catalog, texts: &self.texts }));
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
