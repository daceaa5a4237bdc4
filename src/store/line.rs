//! A bounded waiting line between tasks and the store's threads.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::fair::{Fair, Payer};

/// Whose something is that takes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    Of(Payer),
    /// Changes of the schemas. They come one at a time, and are always let in.
    Schemas,
}

/// What takes long and comes from one may take so much of the line: a quarter.
const SHARE: usize = 4;

/// Why something was not let into the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Closed,
}

/// First in, first out. Whoever takes may take all at once, so that a writer under load pays for
/// the lock once a group and not once a job.
///
/// What takes long has lanes of its own, one for each of those it comes from, and is taken one at
/// a time from each in turn.
pub(crate) struct Line<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    limit: usize,
}

struct State<T> {
    waiting: VecDeque<T>,
    long: Fair<Lane, T>,
    /// Threads that sleep until something comes. Telling the condition variable is a system call
    /// whether or not somebody listens, and a busy writer does not.
    asleep: usize,
    /// The one who sleeps in [`Line::wait`] was told, and is about to wake up.
    roused: bool,
    /// It has other things to do than what waits.
    errand: bool,
    closed: bool,
}

impl<T> Line<T> {
    pub(crate) fn new(limit: usize) -> Self {
        Line {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                long: Fair::default(),
                asleep: 0,
                roused: false,
                errand: false,
                closed: false,
            }),
            filled: Condvar::new(),
            limit,
        }
    }

    /// Nothing panics while the lock is held, so a poisoned lock still guards good data.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `item` in unless `limit` items wait.
    pub(crate) fn push(&self, item: T) -> Result<(), Refused> {
        self.enter(item, None, true, true).map(drop)
    }

    /// As [`Line::push`], but wakes nobody. `true`: who sleeps in [`Line::wait`] must be woken, or
    /// the item taken.
    pub(crate) fn leave(&self, item: T) -> Result<bool, Refused> {
        self.enter(item, None, true, false)
    }

    /// Lets `item`, which takes long, into the lane of `whose` unless `limit` such items wait, or
    /// a quarter of that in this lane.
    pub(crate) fn push_long(&self, item: T, whose: Lane) -> Result<(), Refused> {
        self.enter(item, Some(whose), whose != Lane::Schemas, true).map(drop)
    }

    /// Lets `item` in however many wait: for the few that are not clients' requests.
    pub(crate) fn push_always(&self, item: T) -> Result<(), Refused> {
        self.enter(item, None, false, true).map(drop)
    }

    /// `true`: somebody sleeps and was not told.
    fn enter(
        &self,
        item: T,
        long: Option<Lane>,
        bounded: bool,
        wakes: bool,
    ) -> Result<bool, Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        // Bounded each by itself: the ones must not keep the others out.
        let full = match long {
            Some(whose) => {
                let share = self.limit.div_ceil(SHARE);
                state.long.len() >= self.limit || state.long.of(&whose) >= share
            }
            None => state.waiting.len() >= self.limit,
        };
        if bounded && full {
            return Err(Refused::Full);
        }
        match long {
            Some(whose) => state.long.push(whose, item),
            None => state.waiting.push_back(item),
        }
        let asleep = state.asleep > 0;
        if !wakes {
            return Ok(asleep && !state.roused);
        }
        if asleep {
            self.tell(state);
        }
        Ok(false)
    }

    fn tell(&self, mut state: MutexGuard<'_, State<T>>) {
        state.roused = true;
        drop(state);
        self.filled.notify_one();
    }

    /// Wakes who sleeps in [`Line::wait`], if something waits and it was not told yet.
    pub(crate) fn wake(&self) {
        let state = self.lock();
        let waits = !state.waiting.is_empty() || !state.long.is_empty();
        if waits && state.asleep > 0 && !state.roused {
            self.tell(state);
        }
    }

    /// Wakes who sleeps in [`Line::wait`], whatever waits.
    pub(crate) fn rouse(&self) {
        let mut state = self.lock();
        state.errand = true;
        if state.asleep > 0 && !state.roused {
            self.tell(state);
        }
    }

    /// Waits for one item; `None` when the line is closed and empty.
    pub(crate) fn take(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(item) = state.waiting.pop_front() {
                return Some(item);
            }
            if state.closed {
                return None;
            }
            state.asleep += 1;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.asleep -= 1;
            state.roused = false;
        }
    }

    /// The next of those that take long. Those whom nobody waits for any more (`left`) cost their
    /// lane no turn.
    pub(crate) fn take_long(&self, left: impl Fn(&T) -> bool) -> Option<T> {
        // Dropped after the lock: a job may hold what closes the line when it goes.
        let mut gone = Vec::new();
        self.lock().long.pop(left, &mut gone)
    }

    /// Sleeps until something waits or the line is closed, for `patience` at most. `false` when it
    /// is closed and empty. For one thread.
    pub(crate) fn wait(&self, patience: Duration) -> bool {
        let mut state = self.lock();
        let mut until = None;
        while state.waiting.is_empty() && state.long.is_empty() && !state.closed {
            if std::mem::take(&mut state.errand) || patience.is_zero() {
                return true;
            }
            let now = Instant::now();
            let left = until.get_or_insert(now + patience).saturating_duration_since(now);
            if left.is_zero() {
                return true;
            }
            state.asleep += 1;
            state = match self.filled.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
            state.asleep -= 1;
            state.roused = false;
        }
        !(state.waiting.is_empty() && state.long.is_empty() && state.closed)
    }

    /// Moves everything that waits into `into`, but for what takes long.
    pub(crate) fn take_all(&self, into: &mut VecDeque<T>) {
        into.append(&mut self.lock().waiting);
    }

    /// The one item that waits, of any kind, if it is `wanted`.
    pub(crate) fn take_lone(&self, wanted: impl FnOnce(&T) -> bool) -> Option<T> {
        let mut state = self.lock();
        let lone = state.waiting.len() == 1 && state.long.is_empty();
        if lone && state.waiting.front().is_some_and(wanted) {
            state.waiting.pop_front()
        } else {
            None
        }
    }

    /// Whether something waits that does not take long.
    pub(crate) fn has_short(&self) -> bool {
        !self.lock().waiting.is_empty()
    }

    /// Lets nobody in any more; what waits is still served.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_closed_and_in_order() {
        let line = Line::new(2);
        assert_eq!(line.push(1), Ok(()));
        assert_eq!(line.push(2), Ok(()));
        assert_eq!(line.push(3), Err(Refused::Full));
        assert_eq!(line.push_always(4), Ok(()));
        assert_eq!(line.take(), Some(1));
        line.close();
        assert_eq!(line.push(5), Err(Refused::Closed));
        assert!(line.wait(Duration::MAX));
        let mut rest = VecDeque::new();
        line.take_all(&mut rest);
        assert_eq!(rest, [2, 4]);
        assert!(!line.wait(Duration::MAX));
        assert_eq!(line.take(), None);
    }

    #[test]
    fn an_errand_wakes_once() {
        let line = Line::<u8>::new(2);
        line.rouse();
        assert!(line.wait(Duration::MAX), "not asleep");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| line.wait(Duration::from_secs(60)));
            while line.lock().asleep == 0 {
                std::thread::yield_now();
            }
            line.wake();
            assert!(!line.lock().roused, "nothing waits");
            line.rouse();
            assert!(waits.join().expect("no panic"));
        });
    }

    #[test]
    fn what_is_left_is_somebody_elses_to_wake_for() {
        let line = Line::new(2);
        assert_eq!(line.leave(1), Ok(false), "nobody sleeps");
        assert_eq!(line.take_lone(|_| false), None);
        assert_eq!(line.take_lone(|_| true), Some(1));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| line.wait(Duration::from_secs(60)));
            while line.lock().asleep == 0 {
                std::thread::yield_now();
            }
            assert_eq!(line.leave(2), Ok(true));
            assert_eq!(line.leave(3), Ok(true));
            assert_eq!(line.take_lone(|_| true), None, "two");
            line.wake();
            assert!(waits.join().expect("no panic"));
        });
        assert_eq!(line.leave(4), Err(Refused::Full));
    }

    #[test]
    fn what_takes_long_keeps_nobody_out() {
        let line = Line::new(8);
        let user = |n| Lane::Of(Payer::User(uuid::Uuid::from_u128(n)));
        assert_eq!(line.push_long(1, user(1)), Ok(()));
        assert_eq!(line.push_long(2, user(1)), Ok(()));
        assert_eq!(line.push_long(-1, user(1)), Err(Refused::Full), "a quarter is one's");
        for n in 2..5 {
            assert_eq!(line.push_long(3, user(n)), Ok(()));
            assert_eq!(line.push_long(4, user(n)), Ok(()));
        }
        assert_eq!(line.push_long(-1, user(5)), Err(Refused::Full));
        assert_eq!(line.push_long(5, Lane::Schemas), Ok(()));
        assert_eq!(line.push(6), Ok(()));
        let mut rest = VecDeque::new();
        assert!(line.wait(Duration::MAX));
        line.take_all(&mut rest);
        assert_eq!(rest, [6]);
        assert_eq!(line.leave(7), Ok(false));
        assert_eq!(line.take_lone(|_| true), None, "not alone");
        line.take_all(&mut rest);
        line.close();
        assert!(line.wait(Duration::MAX), "nine are left");
        let long: Vec<_> = std::iter::from_fn(|| line.take_long(|n| *n == 3)).collect();
        assert_eq!(long, [1, 4, 4, 4, 5, 2]);
        assert!(!line.wait(Duration::MAX));
    }

    #[test]
    fn what_leaves_may_come_back_to_the_line() {
        /// Closes the line when it goes, as the last handle on a store does.
        struct Last(std::sync::Weak<Line<Last>>);
        impl Drop for Last {
            fn drop(&mut self) {
                if let Some(line) = self.0.upgrade() {
                    line.close();
                }
            }
        }
        let line = std::sync::Arc::new(Line::new(8));
        let last = Last(std::sync::Arc::downgrade(&line));
        assert_eq!(line.push_long(last, Lane::Schemas), Ok(()));
        assert!(line.take_long(|_| true).is_none());
        assert!(!line.wait(Duration::MAX));
    }
}
