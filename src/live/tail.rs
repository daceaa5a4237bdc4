//! From the writer to the matcher: one queue of commits and of everything that must happen at an
//! exact place among them.
//!
//! The writer never waits here. The queue is bounded by the bytes of its commits; when the
//! matcher is so far behind that they do not fit, what waits is dropped, and the matcher reads it
//! from the log when it comes to that place (see [`super::refill`]). So memory is bounded, and
//! nobody is sent a stream with a hole.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::model::catalog::Catalog;
use crate::model::change::{Commit, Notice};
use crate::model::schema::SchemaId;
use crate::store::{CommitSink, Mark};

use super::fanout::{Late, is_little};
use super::helm::Helm;
use super::subscription::Command;

/// What the matcher takes next.
pub(super) enum Item {
    Commit(Arc<Commit>),
    /// Commits were dropped here.
    Missed(Missed),
    /// What was left of the last commit that was told.
    Late(Vec<Late>),
    Command(Command),
}

/// What must be known of commits before they are read again: the log gives them back as the
/// newest catalog has it, without their notices.
#[derive(Clone, Default)]
pub(super) struct Missed {
    /// The last one of them.
    pub(super) last: Mark,
    /// The newest catalog among them.
    pub(super) catalog: Option<Arc<Catalog>>,
    /// All schemas whose subscriptions ended at one of them.
    pub(super) broken: Vec<SchemaId>,
    /// How many they are.
    commits: usize,
}

impl Missed {
    fn add(&mut self, item: &Item) {
        match item {
            Item::Command(_) | Item::Late(_) => {}
            Item::Commit(commit) => {
                let Commit { position, stamp, time, .. } = **commit;
                self.last = Mark { position, stamp, time };
                self.commits += 1;
                for notice in &commit.notices {
                    if let Notice::Catalog { catalog, broken } = notice {
                        self.catalog = Some(catalog.clone());
                        self.broken.extend(broken);
                    }
                }
            }
            Item::Missed(missed) => {
                self.last = missed.last;
                self.commits += missed.commits;
                self.catalog = missed.catalog.clone().or(self.catalog.take());
                self.broken.extend(&missed.broken);
            }
        }
    }
}

/// The writer's end.
pub struct TailSink {
    queue: Arc<Queue>,
    /// A commit was put in that nobody was woken for.
    left: bool,
}

/// The matcher's end; see [`super::Live::start`].
pub struct Tail(pub(super) Arc<Queue>);

/// Makes both ends; at most `max_bytes` of commits wait between them (but always one, beside the
/// one at work).
pub fn channel(max_bytes: usize) -> (TailSink, Tail) {
    let queue = Arc::new(Queue {
        max_bytes,
        state: Mutex::default(),
        more: Condvar::new(),
        helm: OnceLock::new(),
    });
    (TailSink { queue: queue.clone(), left: false }, Tail(queue))
}

pub(super) struct Queue {
    max_bytes: usize,
    state: Mutex<State>,
    more: Condvar,
    /// Who takes from here.
    helm: OnceLock<Weak<Helm>>,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    /// Of the commits in `items`.
    bytes: usize,
    /// Bytes of the commit that the matcher works on.
    working: usize,
    /// Position of the last commit that came in.
    came: u64,
    /// Those at the helm sleep until something comes. Telling the condition variable is a system
    /// call whether or not somebody listens.
    asleep: bool,
    /// The last commit of little that was alone took long to tell.
    heavy: bool,
    /// No more commands are taken.
    closed: bool,
}

impl CommitSink for TailSink {
    fn committed(&mut self, commits: &[Arc<Commit>]) {
        // Counted here, not under the queue's lock.
        for commit in commits {
            commit.bytes();
        }
        let queue = &self.queue;
        let mut state = queue.lock();
        // Between the commits of an import there are others, which are not to wait for its thread.
        self.left = state.items.is_empty()
            && !state.heavy
            && matches!(commits, [commit] if is_little(commit));
        for commit in commits {
            let bytes = commit.bytes();
            // The one at work cannot be dropped.
            let waits = state.bytes > state.working;
            if waits && state.bytes + bytes > queue.max_bytes {
                state.overrun();
            }
            state.bytes += bytes;
            state.came = commit.position;
            state.items.push_back(Item::Commit(commit.clone()));
        }
        if !self.left {
            queue.rouse(state);
        }
    }

    fn answered(&mut self, idle: bool) {
        if !std::mem::take(&mut self.left) {
            return;
        }
        let helm = self.queue.helm.get().filter(|_| idle).and_then(Weak::upgrade);
        if let Some(helm) = helm {
            helm.lone();
        }
        self.queue.wake();
    }
}

impl State {
    /// Drops the waiting commits. Commands stay: who waits to become active becomes so after
    /// them, and nothing before was promised.
    fn overrun(&mut self) {
        let mut missed = Missed::default();
        self.items.retain(|item| {
            missed.add(item);
            matches!(item, Item::Command(_) | Item::Late(_))
        });
        self.bytes = self.working;
        let late = matches!(self.items.front(), Some(Item::Late(_)));
        self.items.insert(usize::from(late), Item::Missed(missed));
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes who sleeps at the helm, if anybody does.
    fn rouse(&self, state: MutexGuard<'_, State>) {
        let asleep = state.asleep;
        drop(state);
        if asleep {
            self.more.notify_one();
        }
    }

    fn sleep<'q>(
        &'q self,
        mut state: MutexGuard<'q, State>,
        left: Duration,
    ) -> MutexGuard<'q, State> {
        state.asleep = true;
        state = self.more.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        state.asleep = false;
        state
    }

    /// Says who takes from here.
    pub(super) fn manned_by(&self, helm: Weak<Helm>) {
        let _ = self.helm.set(helm);
    }

    /// `false` once closed: the command is dropped.
    pub(super) fn command(&self, command: Command) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        state.items.push_back(Item::Command(command));
        self.rouse(state);
        true
    }

    /// As [`Queue::command`], but wakes nobody: whoever brings it sees to it that it is done (see
    /// [`super::helm`]).
    pub(super) fn leave(&self, command: Command) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        state.items.push_back(Item::Command(command));
        true
    }

    /// Wakes the matcher's thread, if something waits.
    pub(super) fn wake(&self) {
        let state = self.lock();
        if !state.items.is_empty() {
            self.rouse(state);
        }
    }

    /// Waits until there is something, or `until` comes. What was popped last is done.
    pub(super) fn wait(&self, until: Instant) {
        let mut state = self.lock();
        state.bytes -= std::mem::take(&mut state.working);
        while state.items.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return;
            }
            state = self.sleep(state, left);
        }
    }

    /// The next item; what was popped before is done.
    pub(super) fn pop(&self) -> Option<Item> {
        let mut state = self.lock();
        state.bytes -= std::mem::take(&mut state.working);
        let item = state.items.pop_front()?;
        if let Item::Commit(commit) = &item {
            state.working = commit.bytes();
        }
        Some(item)
    }

    /// The next item, if it is a commit that is wanted; what was popped before is done.
    pub(super) fn pop_commit(&self, wanted: impl FnOnce(&Commit) -> bool) -> Option<Arc<Commit>> {
        let mut state = self.lock();
        let Item::Commit(commit) = state.items.front()? else { return None };
        if !wanted(commit) {
            return None;
        }
        let commit = commit.clone();
        state.items.pop_front();
        state.bytes -= std::mem::replace(&mut state.working, commit.bytes());
        Some(commit)
    }

    /// The one item that waits, if it is a commit. It stays here: see [`Queue::lone_done`].
    pub(super) fn lone(&self) -> Option<Arc<Commit>> {
        let state = self.lock();
        match state.items.front()? {
            Item::Commit(commit) if state.items.len() == 1 => Some(commit.clone()),
            _ => None,
        }
    }

    /// That commit was told, but for what is left; `None`: it was too much. For whoever
    /// wrote it and still keeps others from writing, so that none was added since, and under the
    /// matcher's lock: it is the first item still.
    pub(super) fn lone_done(&self, told: Option<Vec<Late>>) {
        let mut state = self.lock();
        state.heavy = told.is_none();
        let Some(late) = told else { return };
        if let Some(Item::Commit(commit)) = state.items.pop_front() {
            state.bytes -= commit.bytes();
        }
        if !late.is_empty() {
            state.items.push_front(Item::Late(late));
        }
    }

    /// Whether the commit now popped, which is alone and of little, takes little to tell.
    pub(super) fn set_light(&self, light: bool) {
        self.lock().heavy = !light;
    }

    /// Whether the next item is a commit.
    pub(super) fn has_commit(&self) -> bool {
        matches!(self.lock().items.front(), Some(Item::Commit(_)))
    }

    /// The next item, if it is a command that takes little.
    pub(super) fn pop_light(&self) -> Option<Command> {
        let mut state = self.lock();
        match state.items.pop_front()? {
            Item::Command(command) if command.is_light() => Some(command),
            other => {
                state.items.push_front(other);
                None
            }
        }
    }

    /// Whether [`Queue::pop_light`] would give something.
    pub(super) fn is_light(&self) -> bool {
        let state = self.lock();
        matches!(state.items.front(), Some(Item::Command(command)) if command.is_light())
    }

    /// What waits up to the commit that made the catalog of this version, which may be on its way
    /// here still; `None` if it has not come by `until`, or the queue is closed.
    pub(super) fn up_to_catalog(&self, version: u64, until: Instant) -> Option<Missed> {
        let mut state = self.lock();
        while !state.closed {
            let mut missed = Missed::default();
            for item in &state.items {
                missed.add(item);
                if missed.catalog.as_ref().is_some_and(|catalog| catalog.version >= version) {
                    return Some(missed);
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                break;
            }
            state = self.sleep(state, left);
        }
        None
    }

    #[cfg(test)]
    pub(super) fn has_late(&self) -> bool {
        matches!(self.lock().items.front(), Some(Item::Late(_)))
    }

    /// Position of the last commit that came in; 0 while none did.
    pub(super) fn came(&self) -> u64 {
        self.lock().came
    }

    /// No more commands are taken.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Takes this command and no more.
    pub(super) fn close(&self, last: Command) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.closed = true;
        state.items.push_back(Item::Command(last));
        self.rouse(state);
    }

    /// The matcher's last command, closed or not.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.items.push_back(Item::Command(Command::Stop));
        self.rouse(state);
    }

    /// Commits that wait, those that were dropped included, and the bytes of those in memory, the
    /// one at work included.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let state = self.lock();
        let commits = state.items.iter().map(|item| match item {
            Item::Commit(_) => 1,
            Item::Missed(missed) => missed.commits,
            Item::Command(_) | Item::Late(_) => 0,
        });
        (commits.sum(), state.bytes)
    }
}
