//! Who writes: the writer's own thread, or for a moment an event loop that brings one brief write.
//!
//! A lone write keeps one core busy for a tenth of a millisecond at best. To wake the writer's thread
//! for it, and to be woken by its answer, took as long again, as each time a core that had fallen
//! asleep was woken. So an event loop whose write waits alone takes the pen and does it. Where others
//! write too they wait for one another anyway: the thread does them in one transaction.
//!
//! **Nothing is left lying.** Whatever is put in the line while the thread sleeps wakes it, but for
//! brief writes that event loops put in: of each of these there is a [`Left`], which wakes the thread
//! when it goes, however it goes, if anything waits then. The thread looks into the line before it
//! sleeps, both under the line's lock. So what waits while the thread sleeps has a `Left` that is yet
//! to go: its own, or that of an event loop that holds the pen, which lets go of it first.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::job::Task;
use super::line::{Line, Refused};
use super::writer::Writer;

pub(super) struct Pen {
    line: Arc<Line<Task>>,
    /// `None` once ended. Nothing is taken from the line but under this lock.
    writer: Mutex<Option<Writer>>,
    /// Lone writes have taken little of late.
    quick: AtomicBool,
}

/// Ends the process when whoever holds `T` panics: nobody could tell what of the writer's state is
/// still true, and what is committed must be told to the sink before anything after it. `T` goes last:
/// around the lock's guard this keeps the lock shut until the process has ended, so nobody else writes
/// meanwhile.
struct AbortOnPanic<T>(T);

impl<T> Drop for AbortOnPanic<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Not to stderr by itself: what the log has gathered comes first.
            tracing::error!(target: "rowcast", "the writer panicked; ending the process");
            std::process::abort();
        }
    }
}

impl Pen {
    pub(super) fn new(writer: Writer) -> Pen {
        let line = writer.line.clone();
        Pen { line, writer: Mutex::new(Some(writer)), quick: AtomicBool::new(true) }
    }

    /// The life of the writer's thread: serves the line until it is closed and empty.
    pub(super) fn run(&self) {
        // Without its thread the line would fill, and nobody would be answered.
        let _alive = AbortOnPanic(());
        let mut patience = Duration::ZERO;
        loop {
            // Without the pen.
            let open = self.line.wait(patience);
            // Poisoned: the process is ending.
            let Ok(place) = self.writer.lock() else { return };
            let mut held = AbortOnPanic(place);
            let Some(writer) = held.0.as_mut() else { return };
            match writer.step(open) {
                Some(until_next) => patience = until_next,
                None => {
                    *held.0 = None;
                    return;
                }
            }
            self.quick.store(writer.is_quick(), Ordering::Relaxed);
        }
    }

    /// Whether an event loop may try.
    pub(super) fn is_quick(&self) -> bool {
        self.quick.load(Ordering::Relaxed)
    }

    /// Puts a brief write in the line and wakes nobody. `None`: the thread is awake and does it.
    pub(super) fn leave(&self, task: Task) -> Result<Option<Left<'_>>, Refused> {
        let asleep = self.line.leave(task)?;
        Ok(asleep.then_some(Left(self)))
    }

    /// Does the one write that waits, if nobody is at the pen.
    fn lone(&self) {
        // Whoever is at it looks into the line afterwards, be it the thread or another event loop.
        // Poisoned: the process is ending.
        let Ok(place) = self.writer.try_lock() else { return };
        let mut held = AbortOnPanic(place);
        let Some(writer) = held.0.as_mut() else { return };
        let errand = writer.lone();
        self.quick.store(writer.is_quick(), Ordering::Relaxed);
        drop(held);
        if errand {
            self.line.rouse();
        }
    }
}

/// A brief write was put in the line while the writer's thread slept: sees to it that it is done.
pub(super) struct Left<'p>(&'p Pen);

impl Left<'_> {
    /// Does it here and now, if it is alone and nobody is at the pen; else wakes the thread.
    pub(super) fn see_to(self) {
        self.0.lone();
    }
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.0.line.wake();
    }
}
