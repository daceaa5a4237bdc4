//! A connection that reads, one snapshot after the other.

use std::cell::{Cell, OnceCell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::error::{Error, Kind, Result};
use crate::model::catalog::Catalog;

use super::beside::Bounds;
use super::connection::{self, Use};
use super::fault::{Trouble, fault};
use super::format;
use super::lookup::Recent;
use super::read::{Reader, Time};
use super::texts::TextCache;
use super::watch::Watch;
use super::{Options, Shared};

/// Steps of SQLite's machine between two looks at the bounds. A step may be a search in a long
/// text, which takes longer than the other thousand together.
const STEPS: u32 = 250;

/// How often a long read looks whether the writer has published the catalog that it needs.
const LOOK: Duration = Duration::from_micros(100);

/// What one read is held to.
pub(crate) enum Hold {
    /// The store's own bounds, and that somebody waits: until this is set.
    Long(Arc<AtomicBool>),
    /// The bounds of a read that others wait for. It waits for nobody either.
    Short(Short),
}

#[derive(Clone, Copy)]
pub(crate) struct Short {
    /// Steps of SQLite's machine.
    pub(crate) steps: u32,
    /// By the clock.
    pub(crate) time: Duration,
    /// Memory of the rows; again as much for those they lead to, and for the answer.
    pub(crate) bytes: usize,
}

/// The read panicked.
pub(crate) struct Panicked;

/// A connection and what is kept with it between two reads.
pub(crate) struct Reading {
    dir: PathBuf,
    read_time: Duration,
    bounds: Bounds,
    shared: Arc<Shared>,
    watch: Watch,
    texts: TextCache,
    recent: RefCell<Recent>,
    /// Version of the catalog that `texts` were spelt for.
    catalog: Option<u64>,
    role: Use,
    /// `None` after a failure, until the next read.
    connection: Option<Connection>,
}

impl Reading {
    /// Not opened yet.
    pub(crate) fn new(options: &Options, shared: &Arc<Shared>) -> Reading {
        Reading {
            dir: options.dir.clone(),
            read_time: options.limits.read_time,
            bounds: Bounds::new(&options.limits),
            shared: shared.clone(),
            watch: Watch::default(),
            texts: TextCache::default(),
            recent: RefCell::default(),
            catalog: None,
            role: Use::Read,
            connection: None,
        }
    }

    /// As [`Reading::new`], for a thread that may wait for nobody.
    pub(crate) fn hasty(options: &Options, shared: &Arc<Shared>) -> Reading {
        Reading { role: Use::ReadHastily, ..Reading::new(options, shared) }
    }

    /// Opens the connection; a read does so too where it is not open.
    pub(crate) fn open(&mut self) -> rusqlite::Result<()> {
        self.connection = Some(self.opened()?);
        Ok(())
    }

    pub(crate) fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    /// The next read opens it again.
    pub(crate) fn close(&mut self) {
        self.connection = None;
    }

    fn opened(&self) -> rusqlite::Result<Connection> {
        let mut connection = connection::open(&self.dir, self.role)?;
        self.watch.over_by(&mut connection, STEPS)?;
        Ok(connection)
    }

    /// Runs `job` on a snapshot, or with the reason that there is none.
    pub(crate) fn read<T>(
        &mut self,
        hold: Hold,
        job: impl FnOnce(Result<&Reader<'_>>) -> T,
    ) -> std::result::Result<T, Panicked> {
        let connection = match self.connection.take().map_or_else(|| self.opened(), Ok) {
            Ok(connection) => connection,
            Err(error) => return Ok(job(Err(fault(error)))),
        };
        let (until, most, may_wait, abandoned);
        match hold {
            Hold::Long(flag) => {
                until = Instant::now() + self.read_time;
                (most, may_wait) = (usize::MAX, true);
                self.watch.hold(until, Some(flag.clone()));
                abandoned = flag;
            }
            Hold::Short(short) => {
                until = Instant::now() + short.time;
                (most, may_wait) = (short.bytes, false);
                self.watch.hold_steps(until, short.steps);
                abandoned = Arc::default();
            }
        }
        // A panic is the request's own.
        let done = catch_unwind(AssertUnwindSafe(|| {
            let catalog = match self.snapshot(&connection, may_wait) {
                Ok(catalog) => catalog,
                Err(error) => {
                    let good = error.kind == Kind::Timeout;
                    return (job(Err(error)), good);
                }
            };
            if self.catalog != Some(catalog.version) {
                self.texts.clear();
                self.catalog = Some(catalog.version);
            }
            let reader = Reader {
                connection: &connection,
                catalog,
                texts: &self.texts,
                bounds: self.bounds,
                most,
                recent: &self.recent,
                is_recent: Cell::new(false),
                filled: OnceCell::new(),
                time: Time { watch: &self.watch, until, abandoned },
            };
            (job(Ok(&reader)), true)
        }));
        self.watch.release();
        let ended = connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok();
        // After a panic the connection is as good as before; after a failure it may not be.
        if ended && done.as_ref().map_or(true, |(_, good)| *good) {
            self.connection = Some(connection);
        }
        done.map(|(done, _)| done).map_err(|_| Panicked)
    }

    /// Begins a transaction whose rows are those of a catalog we hold. The writer publishes a new
    /// catalog a moment after its commit, so either may be ahead: waits for it if it `may_wait`.
    fn snapshot(&self, connection: &Connection, may_wait: bool) -> Result<Arc<Catalog>> {
        let until = Instant::now() + self.read_time;
        loop {
            connection
                .prepare_cached("BEGIN")
                .and_then(|mut statement| statement.execute(()))
                .map_err(fault)?;
            // The first row that is read takes the snapshot: only here another process may be in
            // the way.
            let version = match format::catalog_version(connection) {
                Err(error) if !may_wait && Trouble::of(&error) == Trouble::Busy => {
                    return Err(Error::new(Kind::Timeout, "another process holds the database"));
                }
                version => version.map_err(fault)?,
            };
            let catalog = self.shared.catalog.load_full();
            if catalog.version == version {
                return Ok(catalog);
            }
            connection.execute_batch("ROLLBACK").map_err(fault)?;
            if !may_wait {
                return Err(Error::new(Kind::Timeout, "a new catalog is on its way"));
            }
            if Instant::now() > until {
                return Err(Error::internal(format_args!(
                    "the rows have catalog {version}, the writer {}",
                    catalog.version
                )));
            }
            std::thread::sleep(LOOK);
        }
    }
}
