//! Rows and the change log, in one SQLite file, written by one at a time.
//!
//! **Does not know:** subscriptions, sockets, principals, wire formats.

pub mod accounts;
mod ahead;
mod at_once;
pub mod backup;
mod belongs;
mod beside;
mod cell;
mod checkpoint;
mod codec;
mod connection;
pub(crate) mod ddl;
mod dependants;
pub mod fair;
mod fault;
mod format;
pub mod functions;
mod given;
pub mod here;
mod job;
mod line;
mod lock;
pub mod log;
mod lookup;
mod mark;
pub mod migrate;
mod pace;
pub mod page;
mod past;
mod pen;
mod pool;
mod quick;
pub mod read;
mod readable;
mod reading;
mod refs;
mod refuse;
mod related;
mod replay;
pub(crate) mod room;
mod seal;
mod texts;
mod touched;
mod trim;
pub mod tx;
mod unlinked;
mod view;
mod watch;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use crate::error::{Error, Kind, Result};
use crate::limits::Limits;
use crate::model::catalog::Catalog;
use crate::model::change::Commit;
use crate::model::related::Want;

pub(crate) use fault::unavailable;
pub use line::Lane;
pub use log::{Entry, LogSize, Logged, Mark};
pub use page::{Scan, Scanned};
pub use read::{Query, Reader, Rows};
pub(crate) use refuse::known_only as clash_told;
pub use tx::Tx;

use at_once::AtOnce;
use job::{Job, Task, Work};
use line::{Line, Refused};
use pen::Pen;
use pool::ReadTask;
use writer::Writer;

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
    /// Look-ups of the log that wait in memory until they are written together. A search of the
    /// log reads the entries they belong to.
    pub lookups_waiting: usize,
    /// An event loop writes by itself while lone writes take no longer than this of late.
    pub quick: Duration,
    pub limits: Limits,
}

impl Options {
    /// The defaults: a log of 24 hours and 1 GiB, four readers.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Options {
            dir: dir.into(),
            log_age: Duration::from_secs(24 * 60 * 60),
            log_bytes: 1 << 30,
            readers: 4,
            lookups_waiting: 4_096,
            quick: Duration::from_millis(1),
            limits: Limits::default(),
        }
    }
}

/// Hears of every commit, in log order, after the commit is on disk and before its writers are
/// answered: on the writer's thread, or on the event loop that wrote by itself. Must not block and
/// must not fail.
pub trait CommitSink: Send {
    fn committed(&mut self, commits: &[Arc<Commit>]);

    /// Always follows `committed`: the writers were answered. `idle`: nobody else waits to write just
    /// now but what takes long, and this thread may be used for some microseconds; whoever writes
    /// meanwhile waits for that. What is done here must not wait for the writer.
    fn answered(&mut self, idle: bool) {
        let _ = idle;
    }
}

/// A job's result and the position of its entry (`None` where it changed nothing).
#[derive(Debug)]
pub struct Written<T> {
    pub value: T,
    pub commit: Option<Arc<Commit>>,
}

/// After a read of its own that took longer, an event loop sees to what else there is.
const TURN: Duration = Duration::from_micros(100);

type Answer<T> = oneshot::Receiver<Result<Written<T>>>;

/// What the threads and all handles share.
pub(crate) struct Shared {
    /// The catalog after the newest commit.
    pub(crate) catalog: ArcSwap<Catalog>,
    /// Related rows to gather into commits.
    pub(crate) want: ArcSwap<Want>,
}

/// A handle on the open store; cheap to clone. When the last one goes, what waits is still
/// written and the lock is let go of.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    writes: Arc<Line<Task>>,
    pen: Arc<Pen>,
    reads: Arc<Line<ReadTask>>,
    at_once: AtOnce,
    /// The readers', and last the writer's.
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Let go of after the threads have ended.
    _lock: lock::DirLock,
}

impl Store {
    /// Opens or makes the store: takes the lock, checks the format, starts writer and readers.
    /// Errors name the directory and are for whoever starts the server.
    pub fn open(options: Options, sink: Box<dyn CommitSink>) -> Result<Store> {
        let lock = lock::take(&options.dir)?;
        backup::restore::finish(&options.dir)?;
        belongs::check(&options.dir)?;
        let connection = format::open(&options.dir)?;
        let catalog = migrate::load(&connection)?;
        let shared =
            Arc::new(Shared { catalog: ArcSwap::from_pointee(catalog), want: ArcSwap::default() });
        let writes = Arc::new(Line::new(options.limits.waiting_writes));
        let reads = Arc::new(Line::new(options.limits.waiting_reads));
        let mut threads = pool::start(&options, &reads, &shared)?;
        let at_once = AtOnce::open(&options, &shared)?;
        let writer = Writer::new(&options, connection, writes.clone(), shared.clone(), sink)?;
        let pen = Arc::new(Pen::new(writer));
        let writing = pen.clone();
        threads.push(
            std::thread::Builder::new()
                .name("writer".into())
                .spawn(move || writing.run())
                .map_err(Error::internal)?,
        );
        let threads = Mutex::new(threads);
        let inner = Inner { shared, writes, pen, reads, at_once, threads, _lock: lock };
        Ok(Store { inner: Arc::new(inner) })
    }

    /// Has the writer's thread run `job` in a transaction of its own (a savepoint in a group). An
    /// `Err` undoes everything the job did. The answer comes after the commit is on disk.
    /// A write whose future is dropped before its turn is not begun. A panic in a job ends the
    /// process.
    pub async fn write<T, F>(&self, job: F) -> Result<Written<T>>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.hand_in(job, None)?.await.unwrap_or_else(|_| Err(ending()))
    }

    /// As [`Store::write`], for a job that takes well under a millisecond: an event loop (see
    /// [`here`]) does it by itself where nobody else writes, and is told so by [`Tx::is_brief`].
    pub async fn write_brief<T, F>(&self, job: F) -> Result<Written<T>>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        let Inner { pen, shared, .. } = &*self.inner;
        // What others read through relations is gathered too, and may be more than a few.
        if !here::is_here() || !pen.is_quick() || !shared.want.load().is_empty() {
            return self.write(job).await;
        }
        let (work, answer) = work(job, true);
        let left = pen.leave(Task::Write(work)).map_err(|why| refused(why, "writes"))?;
        if let Some(left) = left {
            // Let go of before the other: what nobody waits for is not done when that wakes the
            // writer.
            let answer = answer;
            // Whoever asks this event loop for a write at the same time has put it in the line
            // after this: the runtime looks for what has come before it goes on here.
            tokio::task::yield_now().await;
            left.see_to();
            return answer.await.unwrap_or_else(|_| Err(ending()));
        }
        answer.await.unwrap_or_else(|_| Err(ending()))
    }

    /// As [`Store::write`], for a job that may touch many records. Such jobs wait in lines of
    /// their own, one for each of those who ask, of which the writer takes one at a time and each
    /// one's in turn; between two of them it does everything else that waits.
    pub async fn write_long<T, F>(&self, whose: Lane, job: F) -> Result<Written<T>>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.hand_in(job, Some(whose))?.await.unwrap_or_else(|_| Err(ending()))
    }

    /// [`Store::write`] for threads outside the runtime. Panics within one.
    pub fn write_blocking<T, F>(&self, job: F) -> Result<Written<T>>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.hand_in(job, None)?.blocking_recv().unwrap_or_else(|_| Err(ending()))
    }

    fn hand_in<T, F>(&self, job: F, long: Option<Lane>) -> Result<Answer<T>>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        let (work, answer) = work(job, false);
        let (writes, task) = (&self.inner.writes, Task::Write(work));
        let entered = match long {
            None => writes.push(task),
            Some(whose) => writes.push_long(task, whose),
        };
        entered.map_err(|why| refused(why, "writes"))?;
        Ok(answer)
    }

    /// Runs `job` on a reader: one consistent snapshot, interrupted after `Limits::read_time` or
    /// when the future is dropped.
    pub async fn read<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    {
        let (answer, _abandon) = self.ask(job, true)?;
        answer.await.unwrap_or_else(|_| Err(lost()))
    }

    /// As [`Store::read`], for a job that is likely to be short. An event loop does it by itself
    /// within tight bounds, without waiting for anybody; where it turns out to be longer, a reader
    /// does it from its start, and the next ones of the same `kind` (any number) with it.
    pub async fn read_short<T, F>(&self, kind: u64, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Reader<'_>) -> Result<T> + Send + 'static,
    {
        let done = match here::is_here() {
            true => self.inner.at_once.read(kind, &job),
            false => None,
        };
        let Some((done, took)) = done else { return self.read(job).await };
        if took > TURN {
            // Who asks for one after the other would keep the loop from its other connections.
            tokio::task::yield_now().await;
        }
        done
    }

    /// As [`Store::read`], however many wait: for callers whose number is bounded elsewhere, and
    /// who cannot be told to come again.
    pub async fn read_always<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    {
        let (answer, _abandon) = self.ask(job, false)?;
        answer.await.unwrap_or_else(|_| Err(lost()))
    }

    /// [`Store::read_always`] for threads outside the runtime. Panics within one.
    pub fn read_always_blocking<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    {
        let (answer, _abandon) = self.ask(job, false)?;
        answer.blocking_recv().unwrap_or_else(|_| Err(lost()))
    }

    /// [`Store::read`] for threads outside the runtime. Panics within one.
    pub fn read_blocking<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    {
        let (answer, _abandon) = self.ask(job, true)?;
        answer.blocking_recv().unwrap_or_else(|_| Err(lost()))
    }

    fn ask<T, F>(&self, job: F, bounded: bool) -> Result<(oneshot::Receiver<Result<T>>, Abandon)>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let abandoned = Arc::new(AtomicBool::new(false));
        let task = ReadTask {
            job: Box::new(move |reader| {
                let _ = reply.send(reader.and_then(job));
            }),
            abandoned: abandoned.clone(),
        };
        let reads = &self.inner.reads;
        let entered = if bounded { reads.push(task) } else { reads.push_always(task) };
        entered.map_err(|why| refused(why, "reads"))?;
        Ok((answer, Abandon(abandoned)))
    }

    /// The catalog after the newest commit.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.inner.shared.catalog.load_full()
    }

    /// Says what the writer must gather into `Commit::related`. Holds for jobs that start after
    /// this returns and `barrier` was awaited.
    pub fn want(&self, want: Want) {
        self.inner.shared.want.store(Arc::new(want));
    }

    /// Waits until everything that the writer had begun before is committed and was told to the
    /// sink, and every [`Store::write`] that was handed in before; gives the newest position.
    pub async fn barrier(&self) -> Result<u64> {
        let (reply, answer) = oneshot::channel();
        self.inner
            .writes
            .push_always(Task::Barrier(reply))
            .map_err(|why| refused(why, "writes"))?;
        answer.await.unwrap_or_else(|_| Err(ending()))
    }
}

fn work<T, F>(job: F, brief: bool) -> (Box<dyn Job>, Answer<T>)
where
    T: Send + 'static,
    F: FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    (Box::new(Work { job: Some(job), value: None, reply, brief }), answer)
}

/// Tells a reader that nobody waits any more.
struct Abandon(Arc<AtomicBool>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let writer = threads.pop();
        let join = |thread: JoinHandle<()>| {
            // The last handle may have gone with a job, on one of these threads.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        };
        self.reads.close();
        threads.into_iter().for_each(join);
        self.at_once.close();
        // Last and alone: of connections that close at once, none moves the write-ahead log into
        // the file and takes it away.
        self.writes.close();
        writer.into_iter().for_each(join);
    }
}

fn refused(why: Refused, what: &str) -> Error {
    match why {
        Refused::Full => {
            Error::new(Kind::Unavailable, format!("too many {what} are waiting; try again later"))
        }
        Refused::Closed => ending(),
    }
}

fn ending() -> Error {
    Error::new(Kind::Unavailable, "the server is shutting down")
}

fn lost() -> Error {
    Error::internal("a read panicked")
}
