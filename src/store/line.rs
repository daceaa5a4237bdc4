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
    closed: bool,
}

impl<T> Line<T> {
    pub(crate) fn new(limit: usize) -> Self {
        Line {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                long: Fair::default(),
                asleep: 0,
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
        self.enter(item, None, true)
    }

    /// Lets `item`, which takes long, into the lane of `whose` unless `limit` such items wait, or
    /// a quarter of that in this lane.
    pub(crate) fn push_long(&self, item: T, whose: Lane) -> Result<(), Refused> {
        self.enter(item, Some(whose), whose != Lane::Schemas)
    }

    /// Lets `item` in however many wait: for the few that are not clients' requests.
    pub(crate) fn push_always(&self, item: T) -> Result<(), Refused> {
        self.enter(item, None, false)
    }

    fn enter(&self, item: T, long: Option<Lane>, bounded: bool) -> Result<(), Refused> {
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
        drop(state);
        if asleep {
            self.filled.notify_one();
        }
        Ok(())
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
        }
    }

    /// The next of those that take long. Those whom nobody waits for any more (`left`) cost their
    /// lane no turn.
    pub(crate) fn take_long(&self, left: impl Fn(&T) -> bool) -> Option<T> {
        // Dropped after the lock: a job may hold what closes the line when it goes.
        let mut gone = Vec::new();
        self.lock().long.pop(left, &mut gone)
    }

    /// Moves everything that waits into `into`, but for what takes long, waiting up to `patience`
    /// for the first item of any kind. `false` when the line is closed and empty.
    pub(crate) fn take_all(&self, into: &mut VecDeque<T>, patience: Duration) -> bool {
        let mut state = self.lock();
        let mut until = None;
        while state.waiting.is_empty() && state.long.is_empty() && !state.closed {
            if patience.is_zero() {
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
        }
        into.append(&mut state.waiting);
        !(into.is_empty() && state.long.is_empty() && state.closed)
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.lock();
        state.waiting.is_empty() && state.long.is_empty()
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
        let mut rest = VecDeque::new();
        assert!(line.take_all(&mut rest, Duration::ZERO));
        assert_eq!(rest, [2, 4]);
        rest.clear();
        assert!(!line.take_all(&mut rest, Duration::ZERO));
        assert_eq!(line.take(), None);
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
        assert!(line.take_all(&mut rest, Duration::ZERO));
        assert_eq!(rest, [6]);
        line.close();
        rest.clear();
        assert!(line.take_all(&mut rest, Duration::MAX), "nine are left");
        let long: Vec<_> = std::iter::from_fn(|| line.take_long(|n| *n == 3)).collect();
        assert_eq!(long, [1, 4, 4, 4, 5, 2]);
        assert!(!line.take_all(&mut rest, Duration::MAX));
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
        assert!(!line.take_all(&mut VecDeque::new(), Duration::MAX));
    }
}
