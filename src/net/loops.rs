//! Event loops: one thread each that serves its own connections, as many as there are cores.
//!
//! A connection's tasks stay on the loop that it was given. tokio's own runtime for many threads
//! would share them out, and for that it wakes a second thread with each wake-up from outside,
//! mostly to find nothing: of a lone write's processor time that took a sixth.
//!
//! In return nothing on a loop may take long, as it holds up the loop's other connections. What
//! may take more than about a millisecond, short work on the store within its bounds excepted, is
//! done [`beside`] the loops, in the runtime for many
//! threads that all else runs in.

use std::future::poll_fn;
use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task;

use crate::error::{Error, Kind, Result};
use crate::nice;
use crate::store::here;

/// After so many polls of its tasks a loop looks what its sockets have to say, and after so many
/// which tasks other threads have woken. A client that always has another request ready keeps a
/// task ready; with tokio's 61 and 31 an answer of the writer's would wait for that many of its
/// turns. Both looks take well under a microsecond.
const EVENTS: u32 = 8;
const ANSWERS: u32 = 2;

/// The running loops. Dropped, they end by themselves; [`Loops::end`] waits for it.
pub struct Loops {
    handles: Arc<[Handle]>,
    /// Dropped to end them.
    stops: Vec<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

/// A loop's thread ends with a panic only where tokio itself fails, as tasks keep theirs. Its
/// connections would hang without a word.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(target: "rowcast", "an event loop panicked; ending the process");
            std::process::abort();
        }
    }
}

impl Loops {
    /// Starts so many.
    ///
    /// # Errors
    /// No thread or no descriptors.
    pub fn start(count: usize) -> io::Result<Loops> {
        let (mut handles, mut stops, mut threads) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..count {
            let mut runtime = Builder::new_current_thread();
            runtime.event_interval(EVENTS).global_queue_interval(ANSWERS);
            // Those are the threads of `spawn_blocking`: pages of the log that are told again, and
            // the passwords of users that are created or updated, which are hashed there.
            let runtime = runtime.enable_all().on_thread_start(nice::step_back).build()?;
            handles.push(runtime.handle().clone());
            let (stop, stopped) = oneshot::channel();
            stops.push(stop);
            let run = move || {
                let _guard = AbortOnPanic;
                here::settle();
                let _ = runtime.block_on(stopped);
                // Its tasks end with it, here.
                drop(runtime);
            };
            threads.push(std::thread::Builder::new().name(format!("loop-{number}")).spawn(run)?);
        }
        Ok(Loops { handles: handles.into(), stops, threads })
    }

    /// Where tasks are given to each.
    pub fn handles(&self) -> &Arc<[Handle]> {
        &self.handles
    }

    /// Ends all tasks that are left, and then the loops.
    pub async fn end(self) {
        drop(self.stops);
        let join = move || self.threads.into_iter().for_each(|thread| drop(thread.join()));
        let _ = task::spawn_blocking(join).await;
    }
}

/// A task elsewhere, which ends when nobody waits for it any more.
struct Working<T>(task::JoinHandle<T>);

impl<T> Drop for Working<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Does `work` in `pool` and waits for it, so that the loop can go on with others meanwhile; the
/// loops have the core in between where the work pauses (see [`nice`]). A panic comes back as one.
///
/// # Errors
/// Those of the work; 503 where the pool has ended.
pub async fn beside<T, F>(pool: &Handle, work: F) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let mut work = Box::pin(work);
    let by_turns = poll_fn(move |cx| nice::by_turns(|| work.as_mut().poll(cx)));
    let mut working = Working(pool.spawn(by_turns));
    match (&mut working.0).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => Err(Error::new(Kind::Unavailable, "the server is shutting down")),
        },
    }
}
