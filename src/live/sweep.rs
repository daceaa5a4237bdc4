//! Large commits are freed by a thread of their own.
//!
//! Freeing ten thousand records takes milliseconds. Whoever lets go of the last handle would pay
//! for it: the matcher, while others' changes wait to be told.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};

use crate::model::change::Commit;
use crate::nice;

/// A commit of fewer changes is freed on the spot: that takes less than waking a thread.
const CHANGES: usize = 256;

/// Commits that may wait to be freed; beyond it whoever brings one frees it itself, so that memory
/// stays bounded.
const WAITING: usize = 4;

/// Where commits go that nobody needs any more.
#[derive(Default)]
pub(super) struct Sweep {
    /// The thread's end; it is started for the first large commit, and ends with this.
    thread: OnceLock<Option<SyncSender<Arc<Commit>>>>,
}

impl Sweep {
    /// Lets go of `commit`; if nobody else holds it, it is freed, but not here if it is large.
    pub(super) fn away(&self, commit: Arc<Commit>) {
        if commit.changes.len() < CHANGES {
            return;
        }
        if let Some(thread) = self.thread.get_or_init(start) {
            // Given back where there is no room: then it is freed here.
            let _ = thread.try_send(commit);
        }
    }
}

/// `None` where there is no thread to be had.
fn start() -> Option<SyncSender<Arc<Commit>>> {
    let (bring, brought) = sync_channel::<Arc<Commit>>(WAITING);
    let run = move || {
        nice::step_back();
        for commit in brought {
            // What the last holder leaves.
            let Some(commit) = Arc::into_inner(commit) else { continue };
            nice::by_turns(|| {
                for change in commit.changes {
                    drop(change);
                    nice::pause();
                }
            });
        }
    };
    let thread = std::thread::Builder::new().name("sweep".into()).spawn(run);
    thread.ok().map(|_| bring)
}
