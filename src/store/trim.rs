//! Keeps the log within its age and size.
//!
//! Entries go by the thousand, somewhat before they must, so that their look-ups lie close
//! together in the tables and cost little (see `lookup.rs`).

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Result};

use super::log::{self, Tail};
use super::lookup::Lines;

/// Entries and look-ups a step takes out: some milliseconds' worth.
const STEP: usize = 4_096;

/// Once the log is too large, so many bytes more than must go are taken out; less of a small log.
const SLACK_BYTES: u64 = 1 << 20;

/// The log's bounds, and what is known of its older end.
pub(crate) struct Trim {
    age_micros: i64,
    bytes: u64,
    /// The oldest entry, once looked up.
    oldest: Option<Oldest>,
}

#[derive(Clone, Copy)]
pub(crate) struct Oldest {
    pub(crate) position: u64,
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

    /// Whether an entry must go: it is not the newest, and beyond one of the bounds, each made
    /// stricter by a share of itself.
    fn beyond(&self, entry: &Oldest, tail: &Tail, now: i64, strict: bool) -> bool {
        let (mut age, mut bytes) = (self.age_micros, self.bytes);
        if strict {
            age -= age / 256;
            bytes -= (bytes / 16).min(SLACK_BYTES);
        }
        entry.position < tail.newest.position
            && (entry.time < now.saturating_sub(age) || tail.ends - entry.begins > bytes)
    }

    /// Whether [`Trim::step`] is called for.
    pub(crate) fn is_due(
        &mut self,
        connection: &Connection,
        tail: &Tail,
        now: i64,
    ) -> Result<bool> {
        Ok(self.oldest(connection)?.is_some_and(|oldest| self.beyond(&oldest, tail, now, false)))
    }

    /// Takes entries out, within the caller's transaction; `true` where more must go.
    pub(crate) fn step(&mut self, connection: &Connection, tail: &Tail, now: i64) -> Result<bool> {
        let mut lines = Lines::default();
        let mut entries = 0;
        while entries + lines.len() < STEP
            && let Some(oldest) = self.oldest(connection)?
            && self.beyond(&oldest, tail, now, true)
        {
            log::remove(connection, oldest.position, &mut lines)?;
            self.oldest = entry(connection, oldest.position + 1)?;
            entries += 1;
        }
        lines.erase(connection)?;
        self.is_due(connection, tail, now)
    }

    pub(crate) fn oldest(&mut self, connection: &Connection) -> Result<Option<Oldest>> {
        if self.oldest.is_none() {
            self.oldest = entry(connection, 0)?;
        }
        Ok(self.oldest)
    }
}

/// The first entry from `position` on.
fn entry(connection: &Connection, position: u64) -> Result<Option<Oldest>> {
    connection
        .prepare_cached(
            "SELECT position, time, ends - bytes FROM _rc_log WHERE position >= ?1
             ORDER BY position LIMIT 1",
        )?
        .query_row([position as i64], |row| {
            let number = |index| row.get::<_, i64>(index).map(|number| number as u64);
            Ok(Oldest { position: number(0)?, time: row.get(1)?, begins: number(2)? })
        })
        .optional()
}
