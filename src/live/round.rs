//! How many commits are told before any of them is written.
//!
//! What waits is told together, so that each socket gets the frames of many commits in one write:
//! the writes are most of what a broadcast costs, and a server that falls behind saves them first.
//! Who keeps up has one commit a round, which is written at once.

use std::time::{Duration, Instant};

use crate::model::change::Commit;

const COMMITS: usize = 64;
/// Of all together, unless the first alone has more: each may be a frame in every outbox.
const CHANGES: usize = 256;
/// Memory of the commits, and roughly of each projection's frames.
const BYTES: usize = 1 << 20;
/// The first one waits no longer than this for the others to be told.
const TIME: Duration = Duration::from_millis(10);

/// What is told until the next write.
pub(super) struct Round {
    began: Instant,
    commits: usize,
    changes: usize,
    bytes: usize,
}

impl Round {
    pub(super) fn new() -> Round {
        Round { began: Instant::now(), commits: 0, changes: 0, bytes: 0 }
    }

    /// Whether this commit is told before the next write too; the first always is. One that does
    /// more than tell records begins a round of its own: that may take its time.
    pub(super) fn takes(&mut self, commit: &Commit) -> bool {
        let (changes, bytes) = (commit.changes.len(), commit.bytes());
        let first = self.commits == 0;
        let fits = commit.notices.is_empty()
            && self.commits < COMMITS
            && self.changes + changes <= CHANGES
            && self.bytes + bytes <= BYTES
            && self.began.elapsed() < TIME;
        if first || fits {
            self.commits += 1;
            self.changes += changes;
            self.bytes += bytes;
        }
        first || fits
    }
}
