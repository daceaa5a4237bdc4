//! The log on stderr. Lines about requests, one each, are gathered for a moment and written
//! together by a thread of their own: a system call less a request, and no request waits for a
//! slow disk or pipe behind stderr. Everything else is written at once, behind what was gathered.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long lines are gathered: nobody watching sees it.
const MOMENT: Duration = Duration::from_millis(100);

/// More than this is written by whoever comes with it: a stuck stderr holds requests up then, and
/// takes no memory without bound.
const BYTES: usize = 256 << 10;

/// Where the lines of requests come from.
const REQUESTS: &str = "rowcast::http";

static STARTED: OnceLock<Arc<Shared>> = OnceLock::new();

/// Lines on their way to stderr.
pub(super) struct Log(Arc<Shared>);

#[derive(Default)]
struct Shared {
    gathered: Mutex<Vec<u8>>,
    some: Condvar,
    /// Held while writing, so that lines stay in order.
    out: Mutex<()>,
}

/// Starts the thread.
///
/// # Errors
/// There is none to be had.
pub(super) fn start() -> io::Result<Log> {
    let shared = STARTED.get_or_init(Arc::default).clone();
    let gathered = shared.clone();
    std::thread::Builder::new().name("log".into()).spawn(move || {
        loop {
            gathered.wait();
            std::thread::sleep(MOMENT);
            gathered.flush();
        }
    })?;
    Ok(Log(shared))
}

/// Writes what was gathered: before the process ends.
pub(super) fn flush() {
    if let Some(shared) = STARTED.get() {
        shared.flush();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until there is something.
    fn wait(&self) {
        let gathered = self.some.wait_while(self.lock(), |gathered| gathered.is_empty());
        drop(gathered.unwrap_or_else(PoisonError::into_inner));
    }

    /// Nobody can be told that stderr fails.
    fn flush(&self) {
        let _out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let gathered = std::mem::take(&mut *self.lock());
        let _ = io::stderr().write_all(&gathered);
    }

    fn gather(&self, line: &[u8], at_once: bool) {
        let mut gathered = self.lock();
        let first = gathered.is_empty();
        gathered.extend_from_slice(line);
        let full = gathered.len() > BYTES;
        drop(gathered);
        if at_once || full {
            self.flush();
        } else if first {
            self.some.notify_one();
        }
    }
}

/// Takes the line of one event.
pub(super) struct Line<'a> {
    shared: &'a Shared,
    at_once: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.shared.gather(line, self.at_once);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { shared: &self.0, at_once: true }
    }

    fn make_writer_for(&'a self, of: &Metadata<'_>) -> Line<'a> {
        Line { shared: &self.0, at_once: of.target() != REQUESTS || *of.level() < Level::INFO }
    }
}
