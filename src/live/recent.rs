//! The commits that were told last, kept for those who come back after a short while.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::change::Commit;

use super::sweep::Sweep;

/// A bounded run of commits without holes, the newest one told at its end. The matcher adds;
/// anyone reads.
///
/// All of them, and what was gathered with them, have rows of one catalog's layouts: it is cleared
/// where the catalog changes.
pub struct Recent {
    max_bytes: usize,
    state: Mutex<State>,
    sweep: Sweep,
}

#[derive(Default)]
struct State {
    /// Each with its bytes.
    commits: VecDeque<(Arc<Commit>, usize)>,
    bytes: usize,
    /// Everything that was told after this position is in `commits`.
    after: u64,
    /// Version of the catalog that `commits` were made under.
    catalog: u64,
}

impl Recent {
    /// Keeps at most `max_bytes` of commits, from those after position `after` on, made under the
    /// catalog of this version.
    pub fn new(max_bytes: usize, after: u64, catalog: u64) -> Arc<Self> {
        let state = Mutex::new(State { after, catalog, ..State::default() });
        Arc::new(Recent { max_bytes, state, sweep: Sweep::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the next commit. One that does not follow the last begins a new run.
    pub fn push(&self, commit: &Arc<Commit>) {
        let bytes = commit.bytes();
        let mut gone = Vec::new();
        let mut state = self.lock();
        let newest = state.after + state.commits.len() as u64;
        if commit.position != newest + 1 {
            state.clear(commit.position.saturating_sub(1));
        }
        state.bytes += bytes;
        state.commits.push_back((commit.clone(), bytes));
        while state.bytes > self.max_bytes {
            let Some((old, bytes)) = state.commits.pop_front() else { break };
            state.bytes -= bytes;
            state.after += 1;
            gone.push(old);
        }
        drop(state);
        gone.into_iter().for_each(|old| self.sweep.away(old));
    }

    /// Forgets everything; what comes after `position` is kept again, made under the catalog of
    /// this version.
    pub fn clear(&self, position: u64, catalog: u64) {
        let mut state = self.lock();
        state.clear(position);
        state.catalog = catalog;
    }

    /// What was told after position `after`, in order, at most `most` commits; `None` where that
    /// is no longer all here. Empty: nothing was told after it.
    pub fn since(&self, after: u64, most: usize) -> Option<Vec<Arc<Commit>>> {
        self.lock().since(after, most)
    }

    /// As [`Recent::since`], for whoever reads through the catalog of this version: `None` too
    /// where it is another, which the store has before the matcher comes to it.
    pub fn since_under(&self, catalog: u64, after: u64, most: usize) -> Option<Vec<Arc<Commit>>> {
        let state = self.lock();
        if state.catalog == catalog { state.since(after, most) } else { None }
    }

    /// The positions it reaches from (exclusive) and to (inclusive).
    pub fn reach(&self) -> (u64, u64) {
        let state = self.lock();
        (state.after, state.after + state.commits.len() as u64)
    }
}

impl State {
    fn since(&self, after: u64, most: usize) -> Option<Vec<Arc<Commit>>> {
        let skip = usize::try_from(after.checked_sub(self.after)?).ok()?;
        Some(self.commits.iter().skip(skip).take(most).map(|(commit, _)| commit.clone()).collect())
    }

    fn clear(&mut self, after: u64) {
        self.commits = VecDeque::new();
        self.bytes = 0;
        self.after = after;
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::live::tests::world::entry;
    use crate::model::change::{Change, Op};
    use crate::model::schema::SchemaId;
    use crate::model::value::Value;

    fn commit(position: u64) -> Arc<Commit> {
        Arc::new(entry(position))
    }

    #[test]
    fn what_is_large_is_freed_all_the_same() {
        let large = |position| {
            let change = Change {
                schema: SchemaId(1),
                schema_version: 1,
                op: Op::Create,
                key: Value::Int(1),
                before: None,
                after: None,
            };
            let mut commit = Arc::into_inner(commit(position)).expect("the only one");
            commit.changes = vec![change; 10_000];
            Arc::new(commit)
        };
        let recent = Recent::new(1 << 20, 0, 1);
        let commits: Vec<_> = (1..=20).map(large).collect();
        let mut kept: Vec<_> = commits.iter().map(Arc::downgrade).collect();
        commits.iter().for_each(|commit| recent.push(commit));
        drop(commits);
        drop(recent);
        let until = Instant::now() + Duration::from_secs(20);
        while !kept.is_empty() {
            assert!(Instant::now() < until, "{} are kept", kept.len());
            std::thread::yield_now();
            kept.retain(|commit| commit.strong_count() > 0);
        }
    }

    fn since(recent: &Recent, after: u64, most: usize) -> Option<Vec<u64>> {
        let commits = recent.since(after, most)?;
        Some(commits.iter().map(|commit| commit.position).collect())
    }

    #[test]
    fn it_reaches_back_as_far_as_its_bytes() {
        let one = commit(1).bytes();
        let recent = Recent::new(3 * one, 4, 1);
        assert_eq!(since(&recent, 4, 9), Some(vec![]));
        assert_eq!(since(&recent, 3, 9), None);
        for position in 5..=9 {
            recent.push(&commit(position));
        }
        assert_eq!(recent.reach(), (6, 9));
        assert_eq!(since(&recent, 6, 9), Some(vec![7, 8, 9]));
        assert_eq!(since(&recent, 6, 2), Some(vec![7, 8]));
        assert_eq!(since(&recent, 8, 9), Some(vec![9]));
        assert_eq!(since(&recent, 9, 9), Some(vec![]));
        assert_eq!(since(&recent, 5, 9), None);
    }

    #[test]
    fn a_hole_or_a_new_catalog_begins_anew() {
        let recent = Recent::new(1 << 20, 0, 1);
        recent.push(&commit(1));
        assert!(recent.since_under(1, 0, 9).is_some());
        assert!(recent.since_under(2, 0, 9).is_none(), "a catalog that has yet to come here");
        recent.clear(2, 2);
        assert_eq!(since(&recent, 1, 9), None);
        recent.push(&commit(3));
        assert_eq!(since(&recent, 2, 9), Some(vec![3]));
        assert!(recent.since_under(1, 2, 9).is_none() && recent.since_under(2, 2, 9).is_some());
        recent.push(&commit(7));
        assert_eq!(since(&recent, 3, 9), None);
        assert_eq!(since(&recent, 6, 9), Some(vec![7]));
    }
}
