//! From a cursor to the live stream.
//!
//! A cursor is held against the log before the client hears anything. What was committed after it
//! is then told page by page as [`super::history`] gives it, as fast as the client takes it, until
//! nothing is left to read; there the subscription joins the live stream, behind exactly the last
//! entry that was told.

use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};
use crate::model::cursor::Cursor;
use crate::model::related::Key;
use crate::store::Mark;

use super::source::Place;
use super::way::{Begin, Fed, Replayed, Way, schemas};

/// How long what is behind the log is waited for: the live stream, and the writer's word.
const PAUSE: Duration = Duration::from_millis(2);

impl Way {
    /// Looks whether `cursor` is good: its entry is in the log with its stamp, it was given under
    /// the plan's grant, and all that came after it can be read through the plan.
    ///
    /// # Errors
    /// 410 saying which of these is not so, with the oldest good cursor as `detail`.
    pub(super) async fn verify(&mut self, cursor: Cursor) -> Result<Mark> {
        loop {
            let plan = self.plan.clone();
            let schemas = schemas(&plan.catalog, &plan.schema, &plan.paths);
            let place = self.place(cursor.position, schemas).await?;
            if place.catalog.version != plan.catalog.version {
                // It has not begun: it is compiled as if it came now.
                self.adopt(place.catalog, self.request.principal.clone()).await?;
                continue;
            }
            return match self.judge(&place, cursor) {
                Ok(mark) => Ok(mark),
                Err(why) => Err(gone(why, place.readable, plan.grant)),
            };
        }
    }

    /// Begins behind `cursor` if it is good; where it is gone, with a `snapshot` if one was asked
    /// for.
    pub(super) async fn after(&mut self, cursor: Cursor, snapshot: bool) -> Result<Begin> {
        match self.verify(cursor).await {
            Ok(mark) => {
                self.check(mark.position).await?;
                self.outbox.set_since(cursor);
                Ok(Begin::After(mark))
            }
            Err(error) if snapshot && error.kind == Kind::Gone => Ok(Begin::Snapshot),
            Err(error) => Err(error),
        }
    }

    fn judge(&self, place: &Place, cursor: Cursor) -> Result<Mark, String> {
        let foreign = "cursor is of another history or from the future";
        let old = "cursor is older than the log keeps";
        // Before the first entry there is nothing to be told apart by.
        let start = Mark::default();
        let entry = if cursor.position == 0 { Some(start) } else { place.entry };
        let oldest = place.oldest.map_or(0, |oldest| oldest.position);
        let Some(entry) = entry else {
            let trimmed = cursor.position < oldest;
            return Err(if trimmed { old } else { foreign }.to_owned());
        };
        if entry.stamp != cursor.stamp {
            return Err(foreign.to_owned());
        }
        if entry.position + 1 < oldest {
            return Err(old.to_owned());
        }
        if cursor.grant != self.plan.grant {
            return Err("access has changed since".to_owned());
        }
        if let Some(schema) = place.unreadable {
            let schema = self.plan.catalog.get(schema).map_or("", |schema| &schema.name);
            return Err(format!("schema {schema} was migrated since"));
        }
        Ok(entry)
    }

    /// Tells everything after `at`, and joins the live stream.
    pub(super) async fn replay(&mut self, mut at: Mark) -> Result<Replayed> {
        let mut newest = at.position >= self.core.recent.reach().1;
        let mut fresh = Instant::now();
        loop {
            // With pages that somebody else has been told there may be nothing to wait for.
            tokio::task::yield_now().await;
            if newest {
                // Room for what is told on joining.
                self.room(0, 0, at.position).await?;
            }
            self.check(at.position).await?;
            if newest && self.join(at).await? {
                return Ok(Replayed::Over);
            }
            newest = false;
            let listener = self.listener(true);
            let told = match self.core.history.told(&listener, at.position).await {
                Err(error) if error.kind == Kind::Internal => {
                    return Ok(Replayed::Untellable(error));
                }
                told => told?,
            };
            // Another catalog: the next look compiles the plan under it.
            let Some(page) = &*told else { continue };
            if self.changed_by(page.last.position, at.position).await? {
                continue;
            }
            if page.after > at.position {
                return Err(self.trimmed(at.position).await);
            }
            let mut full = None;
            let skip = page.commits.partition_point(|(mark, _)| mark.position <= at.position);
            for (mark, frames) in &page.commits[skip..] {
                let frames = match frames {
                    Ok(frames) => frames,
                    Err(error) => return Ok(Replayed::Untellable(error.clone())),
                };
                match self.feed(mark.position, frames) {
                    Fed::Taken => (at, fresh) = (*mark, Instant::now()),
                    Fed::Ended => return Ok(Replayed::Over),
                    Fed::Full(frames, bytes) => {
                        full = Some((frames, bytes));
                        break;
                    }
                }
            }
            if let Some((frames, bytes)) = full {
                drop((told, listener));
                self.room(frames, bytes, at.position).await?;
                continue;
            }
            if page.last.position > at.position {
                at = page.last;
                self.passed(at);
                if fresh.elapsed() >= self.core.limits.ping_every {
                    self.tell_position(at);
                    fresh = Instant::now();
                }
            }
            newest = page.newest;
        }
    }

    /// Tells what was committed after `at` up to `upto`, without cursors: of records whose primary
    /// key is at most `key`, or of all. `at` is moved with what was told: not all, where something
    /// does not fit.
    ///
    /// # Errors
    /// As a replay ends.
    pub(super) async fn tell_between(
        &mut self,
        at: &mut u64,
        upto: u64,
        key: Option<&Key>,
    ) -> Result<Fed> {
        while *at < upto {
            self.check(*at).await?;
            let within = (*at, upto);
            let listener = self.listener(false);
            let history = &self.core.history;
            let told = history.told_below(&listener, within, key.cloned()).await?;
            drop(listener);
            let Some(page) = told else { continue };
            if self.changed_by(page.last.position, *at).await? {
                continue;
            }
            if page.after > *at {
                return Err(self.trimmed(*at).await);
            }
            let last = page.last.position;
            let further = last > *at;
            for (mark, frames) in page.commits {
                match self.feed(mark.position, &frames?) {
                    Fed::Taken => *at = mark.position,
                    other => return Ok(other),
                }
            }
            if further {
                *at = last;
            } else {
                // What is kept in memory of the log is behind what was read of it.
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(Fed::Taken)
    }

    /// [`Way::check`] again, after a page up to position `upto` was waited for: whoever lost access
    /// at one of its entries must not hear the next one. A read may see an entry a moment before
    /// the writer has told who it was about.
    async fn changed_by(&mut self, upto: u64, position: u64) -> Result<bool> {
        while self.core.queue.came().max(self.core.recent.reach().1) < upto {
            tokio::time::sleep(PAUSE).await;
        }
        self.check(position).await
    }

    /// The log was trimmed past `at` under way.
    pub(super) async fn trimmed(&self, at: u64) -> Error {
        let plan = &self.plan;
        let schemas = schemas(&plan.catalog, &plan.schema, &plan.paths);
        match self.place(at, schemas).await {
            Ok(place) => {
                gone("cursor is older than the log keeps".into(), place.readable, plan.grant)
            }
            Err(error) => error,
        }
    }
}

/// Refuses a cursor; `oldest` is where one may resume from instead.
fn gone(why: String, oldest: Option<Mark>, grant: u64) -> Error {
    let error = Error::new(Kind::Gone, why);
    match oldest {
        None => error,
        Some(Mark { position, stamp, .. }) => {
            error.detail(Cursor { position, stamp, grant }.to_string())
        }
    }
}
