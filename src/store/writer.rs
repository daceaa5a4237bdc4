//! Writes, one transaction at a time: the writer's thread, or who has its pen (see `pen`).
//!
//! It takes whatever waits into one transaction, each job after the first in a savepoint of its own,
//! so that one fsync serves them all while each succeeds or fails alone. After the COMMIT it tells the sink,
//! in log order, and then answers.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::error::{self, Error, Result};
use crate::model::catalog::Catalog;
use crate::model::change::Commit;
use crate::nice;

use super::accounts::of_rights;
use super::checkpoint::Checkpoints;
use super::connection::{self, Use};
use super::fault::{Trouble, fault};
use super::job::{Job, Task};
use super::line::Line;
use super::log::{self, Tail};
use super::lookup::Lines;
use super::quick::Pace;
use super::seal::{Stamps, seal};
use super::trim::Trim;
use super::tx::{Desk, Tx};
use super::{CommitSink, Shared};

/// Jobs one transaction takes at most: who came first should not wait for ever.
const GROUP_JOBS: usize = 256;

/// And how long it goes on taking jobs, those that come meanwhile too.
const GROUP_TIME: Duration = Duration::from_millis(10);

/// How often an idle writer looks whether entries of the log have become too old.
const IDLE: Duration = Duration::from_secs(10);

/// Of what kind the jobs of a group are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One alone, on an event loop.
    Lone,
    Short,
    /// They may touch many records: many make a group only where they turn out to be short.
    Long,
}

type Done = (Box<dyn Job>, Result<Option<Arc<Commit>>>);

/// A failed group: what its jobs are told, and what it means for the connection.
struct Failed {
    error: Error,
    trouble: Trouble,
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        let trouble = Trouble::of(&error);
        Failed { trouble, error: fault(error) }
    }
}

pub(crate) struct Writer {
    dir: PathBuf,
    /// `None` after the disk failed, until it can be opened again.
    connection: Option<Connection>,
    checkpoints: Checkpoints,
    tail: Tail,
    /// Look-ups of entries that are not in their tables yet, and how many may wait.
    lines: Lines,
    lines_waiting: usize,
    trim: Trim,
    stamps: Stamps,
    desk: Desk,
    pub(super) line: Arc<Line<Task>>,
    /// Taken from the line, and not begun.
    waiting: VecDeque<Task>,
    long: VecDeque<Task>,
    /// How long the last that took long did, but for what was done for others since.
    owed: Duration,
    pace: Pace,
    shared: Arc<Shared>,
    sink: Box<dyn CommitSink>,
}

impl Writer {
    pub(crate) fn new(
        options: &super::Options,
        mut connection: Connection,
        line: Arc<Line<Task>>,
        shared: Arc<Shared>,
        sink: Box<dyn CommitSink>,
    ) -> Result<Writer> {
        let checkpoints = Checkpoints::start(options.dir.clone()).map_err(Error::internal)?;
        checkpoints.watch(&mut connection).map_err(fault)?;
        let desk = Desk::new(options.limits.clone());
        desk.watch.over(&mut connection).map_err(fault)?;
        Ok(Writer {
            dir: options.dir.clone(),
            checkpoints,
            tail: log::tail(&connection).map_err(fault)?,
            lines: Lines::waiting(&connection).map_err(fault)?,
            lines_waiting: options.lookups_waiting,
            connection: Some(connection),
            trim: Trim::new(options.log_age, options.log_bytes),
            stamps: Stamps::default(),
            desk,
            line,
            waiting: VecDeque::new(),
            long: VecDeque::new(),
            owed: Duration::ZERO,
            pace: Pace::new(options.quick),
            shared,
            sink,
        })
    }

    /// Does some of what waits, or what is to be done now and then. Gives how long to wait for more;
    /// `None` once the line is not `open` and all is done. For the writer's thread.
    pub(super) fn step(&mut self, open: bool) -> Option<Duration> {
        self.line.take_all(&mut self.waiting);
        let mut worked = !self.waiting.is_empty();
        if worked {
            let took = self.group(Kind::Short);
            self.owed = self.owed.saturating_sub(took);
        }
        // What takes long comes in a transaction of its own, and after each everybody else that
        // waits: nobody waits for more than one, unless so many wait that their work would
        // take longer than that one did.
        if self.waiting.is_empty() || self.owed.is_zero() {
            if self.long.is_empty() {
                self.long.extend(self.line.take_long(Task::left));
            }
            if !self.long.is_empty() {
                worked = true;
                self.owed = self.group(Kind::Long);
            }
        }
        if !(worked || open) {
            return None;
        }
        let patience = if worked { Duration::ZERO } else { self.idle() };
        // Whoever waits: with more writers than fit into a group some always do.
        if let Some(connection) = &self.connection {
            self.checkpoints.after_group(connection);
        }
        Some(patience)
    }

    /// Does the one write that waits, if it is brief and nothing else is to be done. For event
    /// loops. `true`: the writer's thread is to do what would take longer.
    pub(super) fn lone(&mut self) -> bool {
        let others = !self.waiting.is_empty() || !self.long.is_empty();
        let full = self.lines.len() >= self.lines_waiting;
        // Since the write was let in, somebody may have come who reads through relations.
        let gathers = !self.shared.want.load().is_empty();
        if others || full || gathers || self.connection.is_none() || !self.is_quick() {
            return false;
        }
        let Some(task) = self.line.take_lone(Task::is_brief) else { return false };
        self.waiting.push_back(task);
        self.group(Kind::Lone);
        let Some(connection) = &self.connection else { return true };
        self.checkpoints.after_lone()
            || !self.waiting.is_empty()
            || !matches!(self.trim.is_due(connection, &self.tail, self.tail.newest.time), Ok(false))
    }

    /// Whether a lone write may hold an event loop.
    pub(super) fn is_quick(&self) -> bool {
        self.pace.is_quick()
    }

    /// One transaction, as [`Writer::transaction`] makes it, and what follows. Gives how long the
    /// transaction took.
    fn group(&mut self, kind: Kind) -> Duration {
        let own = if kind == Kind::Long { &mut self.long } else { &mut self.waiting };
        let mut waiting = std::mem::take(own);
        let took = if kind == Kind::Long {
            // Nobody who waits to write shall wait for others' turns.
            let (taken, line) = (!self.waiting.is_empty(), self.line.clone());
            nice::by_turns_unless(
                move || taken || line.has_short(),
                || self.transaction(&mut waiting, kind),
            )
        } else {
            self.transaction(&mut waiting, kind)
        };
        let own = if kind == Kind::Long { &mut self.long } else { &mut self.waiting };
        *own = waiting;
        // Lends the sink this thread for a moment, if nobody waits for it but what takes long.
        let idle = self.waiting.is_empty() && !self.line.has_short();
        self.sink.answered(idle);
        took
    }

    /// One transaction: everything that waits and what comes meanwhile. Gives how long it took.
    fn transaction(&mut self, waiting: &mut VecDeque<Task>, kind: Kind) -> Duration {
        let mut begun = Instant::now();
        let mut done: Vec<Done> = Vec::with_capacity(waiting.len());
        let mut barriers = Vec::new();
        let tail = self.tail;
        let outcome = match self.connection.take().map_or_else(|| self.reopen(), Ok) {
            Ok(connection) => {
                let group = (&mut *waiting, kind, &mut begun);
                let outcome = self.transact(&connection, group, &mut done, &mut barriers);
                let broken = outcome.as_ref().is_err_and(|failed| self.undo(&connection, failed));
                if !broken {
                    self.connection = Some(connection);
                }
                outcome
            }
            Err(failed) => Err(failed),
        };
        if done.len() == 1 && kind != Kind::Long {
            let wrote = outcome.is_ok() && matches!(done.as_slice(), [(_, Ok(Some(_)))]);
            let now = Instant::now();
            let took = now.saturating_duration_since(begun);
            self.pace.add(now, took, wrote, kind == Kind::Lone);
        }
        match outcome {
            Ok(catalog) => {
                if let Some(catalog) = catalog {
                    self.shared.catalog.store(catalog);
                }
                let commits: Vec<_> =
                    done.iter().filter_map(|(_, outcome)| outcome.as_ref().ok()?.clone()).collect();
                if !commits.is_empty() {
                    self.sink.committed(&commits);
                }
                for (job, outcome) in done {
                    job.answer(outcome);
                }
            }
            Err(failed) => {
                self.tail = tail;
                self.lines.keep_until(tail.newest.position);
                self.trim.forget();
                self.desk.clear();
                for (job, _) in done {
                    job.answer(Err(failed.error.clone()));
                }
                // Who waited for the same disk hears the same.
                for task in waiting.drain(..) {
                    match task {
                        Task::Write(job) => job.answer(Err(failed.error.clone())),
                        Task::Barrier(reply) => barriers.push(reply),
                    }
                }
            }
        }
        for barrier in barriers {
            let _ = barrier.send(Ok(self.tail.newest.position));
        }
        begun.elapsed()
    }

    /// Gives the catalog if a job replaced it.
    fn transact(
        &mut self,
        connection: &Connection,
        (waiting, kind, begun): (&mut VecDeque<Task>, Kind, &mut Instant),
        done: &mut Vec<Done>,
        barriers: &mut Vec<oneshot::Sender<Result<u64>>>,
    ) -> Result<Option<Arc<Catalog>>, Failed> {
        let before = self.shared.catalog.load_full();
        let mut catalog = before.clone();
        // A transaction is open: it holds a job that stands.
        let mut open = false;
        while done.len() < GROUP_JOBS && (done.is_empty() || begun.elapsed() < GROUP_TIME) {
            let Some(task) = waiting.pop_front() else {
                // Jobs that come while this group is at work join it.
                if open {
                    match kind {
                        Kind::Lone => {}
                        Kind::Short => self.line.take_all(waiting),
                        Kind::Long => waiting.extend(self.line.take_long(Task::left)),
                    }
                }
                if waiting.is_empty() {
                    break;
                }
                continue;
            };
            match task {
                Task::Barrier(reply) => barriers.push(reply),
                Task::Write(job) if job.abandoned() => {}
                Task::Write(mut job) => {
                    if !open && let Err(error) = statement(connection, "BEGIN IMMEDIATE") {
                        // The thread waits for another process, and an event loop does not.
                        if kind == Kind::Lone && Trouble::of(&error) == Trouble::Busy {
                            waiting.push_front(Task::Write(job));
                            break;
                        }
                        done.push((job, Ok(None)));
                        return Err(error.into());
                    }
                    if kind != Kind::Lone && done.is_empty() {
                        // What another process kept us waiting says nothing of the disk.
                        *begun = Instant::now();
                    }
                    let outcome = self.run_job(connection, &mut *job, &mut catalog, (open, kind));
                    match outcome {
                        Ok(outcome) => {
                            open = !connection.is_autocommit();
                            let last = outcome.as_ref().is_ok_and(|commit| {
                                commit.as_ref().is_some_and(|commit| of_rights(&catalog, commit))
                            });
                            done.push((job, outcome));
                            // Who asks is looked up in what the sink holds: the next job must
                            // find there what this one took away.
                            if last {
                                break;
                            }
                        }
                        Err(failed) => {
                            done.push((job, Ok(None)));
                            return Err(failed);
                        }
                    }
                }
            }
        }
        if open {
            let full = kind != Kind::Lone && self.lines.len() >= self.lines_waiting;
            if kind != Kind::Lone {
                self.trim_some(connection)?;
            }
            if full {
                let oldest = self.trim.oldest(connection)?.map_or(0, |oldest| oldest.position);
                self.lines.write(connection, oldest, self.tail.newest.position)?;
            }
            statement(connection, "COMMIT")?;
            if full {
                self.lines.clear();
            }
        }
        Ok((!Arc::ptr_eq(&before, &catalog)).then_some(catalog))
    }

    /// One job, in a savepoint if the transaction holds jobs before it; else its failure takes the
    /// whole transaction back, and a lone job costs two statements less. The outer error ends the
    /// group.
    fn run_job(
        &mut self,
        connection: &Connection,
        job: &mut dyn Job,
        catalog: &mut Arc<Catalog>,
        (others, kind): (bool, Kind),
    ) -> Result<Result<Option<Arc<Commit>>>, Failed> {
        if others {
            statement(connection, "SAVEPOINT job")?;
        }
        let now = self.now();
        let mut tail = self.tail;
        let mut tx = Tx::new(connection, &self.desk, catalog.clone(), now);
        if kind == Kind::Lone {
            tx.be_brief();
        }
        let outcome = job.run(&mut tx).and_then(|()| {
            if tx.given_back {
                return Ok(None);
            }
            // Nothing was wanted when a lone job was taken from the line. Who wants something since
            // can count only on jobs that begin later.
            let want = match kind {
                Kind::Lone => Arc::default(),
                _ => self.shared.want.load_full(),
            };
            seal(&tx, &mut tail, &mut self.lines, &mut self.stamps, &want)
        });
        let migrated = tx.migrated.then(|| tx.catalog.clone());
        let stands = outcome.is_ok() && !tx.given_back;
        drop(tx);
        // SQLite itself rolls everything back on some errors; then the jobs before are lost too.
        if connection.is_autocommit() {
            let error = outcome.err().unwrap_or_else(|| Error::internal("a job ended the group"));
            return Err(Failed { error: unwritten(error), trouble: Trouble::Disk });
        }
        if stands {
            if others {
                statement(connection, "RELEASE job")?;
            }
            self.tail = tail;
            if let Some(new) = migrated {
                *catalog = new;
            }
        } else {
            if others {
                statement(connection, "ROLLBACK TO job")?;
                statement(connection, "RELEASE job")?;
            } else {
                statement(connection, "ROLLBACK")?;
            }
            self.lines.keep_until(self.tail.newest.position);
            self.desk.given.clear();
            if migrated.is_some() {
                self.desk.clear();
            }
        }
        Ok(outcome)
    }

    /// Never before the newest entry's time, whatever the clock says.
    fn now(&self) -> i64 {
        clock().max(self.tail.newest.time)
    }

    /// Leaves no transaction open after a failed group. `true`: the connection must go.
    fn undo(&self, connection: &Connection, failed: &Failed) -> bool {
        let rolled_back = connection.is_autocommit() || statement(connection, "ROLLBACK").is_ok();
        !rolled_back || failed.trouble == Trouble::Disk
    }

    fn reopen(&mut self) -> Result<Connection, Failed> {
        let mut connection = connection::open(&self.dir, Use::Write)?;
        self.checkpoints.watch(&mut connection)?;
        self.desk.watch.over(&mut connection)?;
        let tail = log::tail(&connection)?;
        if tail != self.tail {
            // A group that failed is in the log all the same (or an acknowledged one is not). The
            // sink would never hear of it: a stream with a hole. A fresh start has no such past.
            tracing::error!(
                "after a disk failure the log ends at {} and not at {}; ending the process",
                tail.newest.position,
                self.tail.newest.position
            );
            std::process::abort();
        }
        tracing::info!("the disk is back; writing goes on");
        Ok(connection)
    }

    /// A log that cannot be trimmed must not keep rows from being written.
    fn trim_some(&mut self, connection: &Connection) -> Result<bool, Failed> {
        let now = clock();
        match self.trim.is_due(connection, &self.tail, now) {
            Ok(false) => return Ok(false),
            Ok(true) => {}
            Err(error) => {
                tracing::error!("trimming the log: {error}");
                return Ok(false);
            }
        }
        statement(connection, "SAVEPOINT trim")?;
        match self.trim.step(connection, &self.tail, now) {
            Ok(more) => {
                statement(connection, "RELEASE trim")?;
                Ok(more)
            }
            Err(error) if connection.is_autocommit() => Err(error.into()),
            Err(error) => {
                tracing::error!("trimming the log: {error}");
                self.trim.forget();
                statement(connection, "ROLLBACK TO trim")?;
                statement(connection, "RELEASE trim")?;
                Ok(false)
            }
        }
    }

    /// Nothing waits: trims, a step at a time. Gives how long to wait for jobs.
    fn idle(&mut self) -> Duration {
        let Some(connection) = self.connection.take() else { return IDLE };
        let mut more = false;
        if matches!(self.trim.is_due(&connection, &self.tail, clock()), Ok(true)) {
            let outcome = statement(&connection, "BEGIN IMMEDIATE")
                .map_err(Failed::from)
                .and_then(|()| self.trim_some(&connection))
                .and_then(|more| {
                    statement(&connection, "COMMIT")?;
                    Ok(more)
                });
            match outcome {
                Ok(left) => more = left,
                Err(failed) => {
                    self.trim.forget();
                    if self.undo(&connection, &failed) {
                        return IDLE;
                    }
                }
            }
        }
        self.connection = Some(connection);
        if more { Duration::ZERO } else { IDLE }
    }
}

/// The error of a job whose failure took the whole group with it.
fn unwritten(error: Error) -> Error {
    match error.kind {
        error::Kind::Unavailable | error::Kind::Internal => error,
        _ => super::fault::unavailable("nothing could be written", &error),
    }
}

/// Microseconds since 1970.
pub(crate) fn clock() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn statement(connection: &Connection, text: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(text)?.execute(()).map(drop)
}
