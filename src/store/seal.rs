//! What a finished job leaves: its entry in the log, and the commit that the sink is told.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::model::change::{Change, Commit};
use crate::model::related::{RelatedRows, Want};

use super::beside::{self, Bounds, Sides};
use super::codec;
use super::fault::fault;
use super::log::{self, Mark, Tail};
use super::lookup::Lines;
use super::readable;
use super::tx::Tx;
use super::view::Present;

/// Random numbers for entries, asked of the system many at once.
#[derive(Default)]
pub(crate) struct Stamps(Vec<u64>);

impl Stamps {
    fn next(&mut self) -> Result<u64> {
        if self.0.is_empty() {
            let mut bytes = [0; 512];
            getrandom::fill(&mut bytes).map_err(Error::internal)?;
            let (numbers, _) = bytes.as_chunks();
            self.0.extend(numbers.iter().map(|number| u64::from_ne_bytes(*number)));
        }
        self.0.pop().ok_or_else(|| Error::internal("no random numbers"))
    }
}

/// Writes the job's entry and adds its look-ups to `lines`; `None` where it changed nothing.
pub(crate) fn seal(
    tx: &Tx<'_>,
    tail: &mut Tail,
    lines: &mut Lines,
    stamps: &mut Stamps,
    want: &Arc<Want>,
) -> Result<Option<Arc<Commit>>> {
    let (changes, schemas) = tx.touched.changes();
    if changes.is_empty() && tx.notices.is_empty() {
        return Ok(None);
    }
    let mark = Mark { position: tail.newest.position + 1, stamp: stamps.next()?, time: tx.now };
    let mut entry = Vec::with_capacity(256);
    codec::encode(tx.origin, &changes, &schemas, &tx.notices, &mut entry);
    let bytes = log::append(tx.connection, mark, tail.ends, &entry, &changes, &schemas, lines)
        .map_err(fault)?;
    readable::note(tx.connection, &tx.unreadable, mark.position).map_err(fault)?;
    let related = related(tx, want, &changes)?;
    *tail = Tail { newest: mark, ends: tail.ends + bytes };
    Ok(Some(Arc::new(Commit {
        position: mark.position,
        stamp: mark.stamp,
        time: mark.time,
        origin: tx.origin,
        changes,
        notices: tx.notices.clone(),
        related,
        weight: OnceLock::new(),
    })))
}

/// What is wanted beside the changes. Each piece gets its share of the time that reading may take,
/// so that one that takes too long spoils no other.
fn related(tx: &Tx<'_>, want: &Arc<Want>, changes: &[Change]) -> Result<RelatedRows> {
    // Mostly; then nothing is read, and no clock looked at.
    if want.is_empty() {
        return Ok(RelatedRows { gathered: want.clone(), ..RelatedRows::default() });
    }
    let present = |undo| Present { connection: tx.connection, texts: &tx.desk.texts, undo };
    let (before, after) = (present(Some(&tx.touched)), present(None));
    let until = Instant::now() + tx.desk.limits.read_time;
    let turn = |left: usize| {
        let now = Instant::now();
        let share = until.saturating_duration_since(now) / u32::try_from(left).unwrap_or(u32::MAX);
        tx.desk.watch.hold(now + share, None);
    };
    let sides = Sides {
        catalog: &tx.catalog,
        before: &before,
        after: &after,
        bounds: Bounds::new(&tx.desk.limits),
        turn: &turn,
        hasty: true,
    };
    let related = beside::related(&sides, want, changes);
    tx.desk.watch.release();
    related
}
