//! Who matches: the matcher's own thread, or for a moment whoever brings something little.
//!
//! Coming and going takes the matcher some microseconds; waking its thread for it, and being woken
//! by its answer, takes more than that. So whoever comes or goes does it, while nobody is at the
//! helm: the matcher's thread had 16 us of a handshake's 95, most of it to fall asleep and wake up.
//!
//! A commit that is alone and concerns few is told by whoever wrote it, the writer's thread or an
//! event loop, while nobody else waits to write but what takes long: there were 8 us to do, and to
//! wake the thread for it took some tenth of the CPU of such a write (median of nine pairs). The
//! answer was handed over before; where an event loop wrote, its bytes go out afterwards. What might
//! wait for anybody is left to the thread. All other commits are the thread's alone.
//!
//! Whatever is in the queue is done in the queue's order whoever does it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use super::matcher::Matcher;
use super::outbox::Carrier;
use super::subscription::Command;
use super::tail::Queue;

/// Commands that one brings to an end besides its own, before it leaves the rest to the thread.
const MOST: usize = 64;

pub(super) struct Helm {
    queue: Arc<Queue>,
    /// `None` once stopped. Nothing is popped from the queue but under this lock.
    matcher: Mutex<Option<Matcher>>,
}

impl Helm {
    pub(super) fn new(matcher: Matcher) -> Arc<Helm> {
        let queue = matcher.queue.clone();
        let helm = Arc::new(Helm { queue, matcher: Mutex::new(Some(matcher)) });
        helm.queue.manned_by(Arc::downgrade(&helm));
        helm
    }

    /// The life of the matcher's thread: runs until stopped.
    pub(super) fn run(&self) {
        or_abort(|| {
            while let Some(due) = self.step() {
                self.queue.wait(due);
            }
        });
    }

    /// One step of the matcher; gives when the next is due, if nothing comes before. `None` when
    /// it has stopped.
    pub(super) fn step(&self) -> Option<std::time::Instant> {
        // Poisoned: the process is ending.
        let mut place = self.matcher.lock().ok()?;
        or_abort(|| {
            let matcher = place.as_mut()?;
            if !matcher.step() {
                // Whoever waits for an answer hears that none comes.
                *place = None;
                return None;
            }
            Some(matcher.due())
        })
    }

    /// See [`super::Live::carry_with`].
    pub(super) fn carry_with(&self, carrier: Box<dyn Carrier>) {
        let Ok(mut place) = self.matcher.lock() else { return };
        or_abort(|| {
            if let Some(matcher) = place.as_mut() {
                matcher.fanout.carry_with(carrier);
            }
        });
    }

    #[cfg(test)]
    pub(super) fn look<T>(&self, at: impl FnOnce(&Matcher) -> T) -> T {
        at(self.matcher.lock().expect("no panic").as_ref().expect("a matcher"))
    }

    /// For whoever wrote while nobody else waits to write but what takes long: tells the one commit
    /// that waits, if that takes little and nobody is at the helm. What waits afterwards is the
    /// thread's, which the caller wakes.
    pub(super) fn lone(&self) {
        let Ok(mut place) = self.matcher.try_lock() else { return };
        or_abort(|| {
            let Some(matcher) = place.as_mut() else { return };
            if let Some(commit) = self.queue.lone() {
                self.queue.lone_done(matcher.lone(&commit));
            }
        });
    }

    /// Has the command done in its turn, here and now if possible. `false` once closed: it is
    /// dropped.
    pub(super) fn command(&self, command: Command) -> bool {
        if !command.is_light() {
            return self.queue.command(command);
        }
        if !self.queue.leave(command) {
            return false;
        }
        self.help();
        true
    }

    /// Does the little that waits, unless somebody is at the helm, who then sees to it: the lock
    /// is let go of before the queue is looked at for the last time.
    fn help(&self) {
        let mut done = 0;
        while self.queue.is_light() {
            let Ok(mut place) = self.matcher.try_lock() else { return };
            let stays = or_abort(|| {
                let Some(matcher) = place.as_mut() else { return false };
                while done < MOST
                    && let Some(command) = self.queue.pop_light()
                {
                    matcher.command(command);
                    done += 1;
                }
                true
            });
            drop(place);
            if !stays {
                return;
            }
            if done == MOST {
                return self.queue.wake();
            }
        }
    }
}

/// A panic in the matcher leaves nobody who could be told the truth: the process ends, non-zero,
/// at once. Called within the lock, which so stays shut until then: nobody else goes on with the matcher.
fn or_abort<T>(work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        tracing::error!("the matcher panicked: ending the process");
        std::process::abort()
    })
}
