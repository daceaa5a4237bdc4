//! Commits that did not fit in the queue, told from the log.
//!
//! The log gives entries back as the newest catalog has them, so that catalog holds from here on,
//! a little before its place; what the dropped commits did to subscriptions (schemas changed,
//! access, sessions) is done to all before any of them is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};

use super::matcher::Matcher;
use super::outbox::{Close, TOO_SLOW};
use super::round::Round;
use super::tail::Missed;

/// Entries read at once.
const PAGE: usize = 256;
/// How long a commit may take from the store's catalog to the queue: the writer is between two
/// statements.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a failed read is tried again, and how often.
const RETRY_TIME: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

impl Matcher {
    /// Tells what was dropped. Where the log does not have it any more, every subscription ends.
    pub(super) fn refill(&mut self, missed: Missed) {
        tracing::warn!(
            "matching is more than {} bytes behind: entries {} to {} are read from the log",
            self.limits.tail_bytes,
            self.mark.position + 1,
            missed.last.position
        );
        let mut last = missed.last;
        self.jump(&missed);
        while self.mark.position < last.position {
            if self.queue.is_closed() {
                // Nobody is told what comes after a hole, not even now.
                return self.close_all(&Close::new(1001, "the server is shutting down"));
            }
            match self.refill_page(last.position) {
                Ok(None) => {}
                Ok(Some(ahead)) => {
                    self.jump(&ahead);
                    last = ahead.last;
                }
                Err(_) if self.queue.is_closed() => {}
                Err(error) => {
                    tracing::error!("reading the log: {error}: all subscriptions end");
                    self.close_all(&Close::new(
                        TOO_SLOW,
                        "the server fell behind: subscribe again",
                    ));
                    self.mark = last;
                    self.forget();
                }
            }
            self.clockwork();
        }
        self.unpark();
    }

    /// What these commits did to the subscriptions, and may have done.
    fn jump(&mut self, missed: &Missed) {
        if let Some(catalog) = &missed.catalog
            && catalog.version > self.catalog.version
        {
            self.new_catalog(catalog, &missed.broken);
            // Those that are kept have the layout of before.
            self.forget();
        }
        super::regrant::everybody(self);
    }

    /// Tells the next entries up to position `last`. Where they come with a catalog that is newer
    /// still, they are not told, and what waits up to that one is given.
    fn refill_page(&mut self, last: u64) -> Result<Option<Missed>> {
        let stretch = self.read()?;
        let version = stretch.catalog.version;
        if version > self.catalog.version {
            let ahead = self.queue.up_to_catalog(version, Instant::now() + PATIENCE);
            return match ahead {
                Some(ahead) => Ok(Some(ahead)),
                None => Err(Error::new(Kind::Unavailable, "a catalog's commit did not come")),
            };
        }
        let first = stretch.commits.first().map_or(0, |first| first.position);
        if first != self.mark.position + 1 {
            let next = self.mark.position + 1;
            return Err(Error::new(Kind::Gone, format!("entry {next} was trimmed")));
        }
        let mut round = Round::new();
        for commit in stretch.commits.iter().take_while(|commit| commit.position <= last) {
            if !round.takes(commit) {
                self.flush();
                round = Round::new();
                round.takes(commit);
            }
            self.commit(commit);
        }
        self.flush();
        Ok(None)
    }

    fn read(&self) -> Result<super::source::Stretch> {
        let until = Instant::now() + RETRY_TIME;
        loop {
            let want = Arc::new(self.wanted.want());
            let read = self.source.replay_blocking(self.mark.position, PAGE, want);
            match read {
                Err(error)
                    if matches!(error.kind, Kind::Unavailable | Kind::Timeout)
                        && Instant::now() < until
                        && !self.queue.is_closed() =>
                {
                    tracing::warn!("reading the log: {error}");
                    std::thread::sleep(RETRY_PAUSE);
                }
                read => return read,
            }
        }
    }
}
