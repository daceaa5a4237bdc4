//! A bounded waiting line between tasks and the store's threads.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::fair::Fair;

/// Whose something is that takes long: a user's, or that of all who are none.
pub(crate) type Lane = Option<uuid::Uuid>;

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

    /// Lets `item`, which takes long, into the lane of `whose` unless `limit` such items wait.
    pub(crate) fn push_long(&self, item: T, whose: Lane) -> Result<(), Refused> {
        self.enter(item, Some(whose), true)
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
        let before = if long.is_some() { state.long.len() } else { state.waiting.len() };
        if bounded && before >= self.limit {
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

    /// The next of those that take long.
    pub(crate) fn take_long(&self) -> Option<T> {
        self.lock().long.pop()
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
        let line = Line::new(2);
        let user = Some(uuid::Uuid::from_u128(1));
        assert_eq!(line.push_long(1, user), Ok(()));
        assert_eq!(line.push_long(2, user), Ok(()));
        assert_eq!(line.push_long(3, None), Err(Refused::Full));
        assert_eq!(line.push(4), Ok(()));
        let mut rest = VecDeque::new();
        assert!(line.take_all(&mut rest, Duration::ZERO));
        assert_eq!(rest, [4]);
        line.close();
        rest.clear();
        assert!(line.take_all(&mut rest, Duration::MAX), "two are left");
        assert_eq!(
            [line.take_long(), line.take_long(), line.take_long()],
            [Some(1), Some(2), None]
        );
        assert!(!line.take_all(&mut rest, Duration::MAX));
    }
}
