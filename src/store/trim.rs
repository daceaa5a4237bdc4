//! Keeps the log within its age and size, a few entries at a time.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Result};

use super::log::{self, Tail};

/// Entries a step takes out: a few milliseconds' worth.
pub(crate) const STEP: usize = 256;

/// The log's bounds, and what is known of its older end.
pub(crate) struct Trim {
    age_micros: i64,
    bytes: u64,
    /// The oldest entry, once looked up.
    oldest: Option<Oldest>,
}

#[derive(Clone, Copy)]
struct Oldest {
    position: u64,
    time: i64,
    /// Bytes ever trimmed: where this entry begins.
    begins: u64,
}

impl Trim {
    pub(crate) fn new(age: Duration, bytes: u64) -> Self {
        let age_micros = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        Trim { age_micros, bytes, oldest: None }
    }

    /// Forgets what it knows: after anything was rolled back.
    pub(crate) fn forget(&mut self) {
        self.oldest = None;
    }

    /// Whether the oldest entry must go: it is not the newest, and too old or one too many.
    fn due(&self, oldest: &Oldest, tail: &Tail, now: i64) -> bool {
        oldest.position < tail.newest.position
            && (oldest.time < now.saturating_sub(self.age_micros)
                || tail.ends - oldest.begins > self.bytes)
    }

    /// Takes out up to `most` entries that must go, within the caller's transaction. `true` where
    /// more must go.
    pub(crate) fn step(
        &mut self,
        connection: &Connection,
        tail: &Tail,
        now: i64,
        most: usize,
    ) -> Result<bool> {
        for _ in 0..most {
            let Some(oldest) = self.oldest(connection)? else { return Ok(false) };
            if !self.due(&oldest, tail, now) {
                return Ok(false);
            }
            self.take_out(connection, oldest)?;
        }
        match self.oldest(connection)? {
            Some(oldest) => Ok(self.due(&oldest, tail, now)),
            None => Ok(false),
        }
    }

    /// Whether [`Trim::step`] would find something to do.
    pub(crate) fn is_due(
        &mut self,
        connection: &Connection,
        tail: &Tail,
        now: i64,
    ) -> Result<bool> {
        Ok(self.oldest(connection)?.is_some_and(|oldest| self.due(&oldest, tail, now)))
    }

    fn oldest(&mut self, connection: &Connection) -> Result<Option<Oldest>> {
        if self.oldest.is_none() {
            let first = connection
                .prepare_cached(
                    "SELECT position, time, ends - bytes FROM _rc_log ORDER BY position LIMIT 1",
                )?
                .query_row((), |row| {
                    Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get::<_, i64>(2)?))
                })
                .optional()?;
            self.oldest = first.map(|(position, time, begins)| Oldest {
                position: position as u64,
                time,
                begins: begins as u64,
            });
        }
        Ok(self.oldest)
    }

    fn take_out(&mut self, connection: &Connection, oldest: Oldest) -> Result<()> {
        let position = oldest.position;
        log::remove(connection, position)?;
        let next: Option<(i64, i64)> = connection
            .prepare_cached("SELECT time, ends - bytes FROM _rc_log WHERE position = ?1")?
            .query_row([position as i64 + 1], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        self.oldest = next.map(|(time, begins)| Oldest {
            position: position + 1,
            time,
            begins: begins as u64,
        });
        Ok(())
    }
}
