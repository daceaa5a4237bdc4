//! The records that match, before the stream of their changes.
//!
//! A snapshot is read in pages by primary key, each a short read of its own: no transaction is
//! held at a client's pace. Every page knows the newest entry of the log in its read. Before a
//! page is sent, the entries since the page before are told for the primary keys that were sent
//! (by [`super::replay`], without cursors); so what the client holds is, after every page, what
//! the query gives up to that page's last key. The last page has the cursor of its read, and the
//! stream goes on from there as from any cursor.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Kind, Result};
use crate::limits::Limits;
use crate::model::change::Row;
use crate::model::cursor::Cursor;
use crate::model::related::{Key, RelatedSet};
use crate::model::value::Value;
use crate::query::Plan;
use crate::store::{Mark, Reader, Rows, Scan, Scanned};

use super::message::Records;
use super::outbox::Frame;
use super::way::{Fed, Way};

/// How long a page may look for records that match, where hardly any does. Others wait for the
/// reader meanwhile.
const PAGE_TIME: Duration = Duration::from_millis(100);

/// Entries that a page need not wait for: they are told quickly when it is read.
const NEAR: u64 = 64;

/// Where the first page stands among commits, as an outbox sees it; the others before it. The last
/// number of all stands for no commit there.
const LAST_PLACE: u64 = u64::MAX - 1;

/// What the client holds: everything that matches up to a primary key, as it stood at an entry.
struct Held {
    upto: Value,
    at: u64,
}

/// What became of a page.
enum Sent {
    /// It was the one up to this primary key; `None`: the last.
    Page(Option<Value>, Mark),
    /// It is to be read anew once so many frames of so many bytes fit.
    Full(usize, usize),
    Ended,
}

impl Way {
    /// Sends what matches, page by page. Gives the entry to go on from, or `None` where the outbox
    /// has ended.
    ///
    /// # Errors
    /// Those of [`Way::check`]; 410 where the log was trimmed past what the client holds; those
    /// of reading.
    pub(super) async fn snapshot(&mut self) -> Result<Option<Mark>> {
        let mut held: Option<Held> = None;
        // The outbox takes what belongs together by position; every page is alone.
        for page_number in 0.. {
            let place = LAST_PLACE - page_number;
            let mut need = (1, self.core.limits.frame_bytes);
            let sent = loop {
                if !self.catch_up(&mut held, need).await? {
                    return Ok(None);
                }
                match self.send_page(&mut held, place).await? {
                    Sent::Page(upto, mark) => break (upto, mark),
                    Sent::Full(frames, bytes) => need = self.wide(frames, bytes),
                    Sent::Ended => return Ok(None),
                }
            };
            match sent {
                (None, mark) => return Ok(Some(mark)),
                (Some(upto), mark) => held = Some(Held { upto, at: mark.position }),
            }
        }
        Ok(None)
    }

    /// What takes a client long comes before a page is read, so that none waits for it: room for
    /// `need`, and what was committed since the last one. `false` where the outbox has ended.
    async fn catch_up(&mut self, held: &mut Option<Held>, need: (usize, usize)) -> Result<bool> {
        loop {
            let (frames, bytes) = need;
            self.room(frames, bytes, position(held)).await?;
            let newest = self.core.recent.reach().1;
            if newest <= position(held).saturating_add(NEAR) {
                return Ok(true);
            }
            match self.tell_sent(held, newest).await? {
                Fed::Taken => {}
                Fed::Full(frames, bytes) => self.room(frames, bytes, position(held)).await?,
                Fed::Ended => return Ok(false),
            }
        }
    }

    /// Reads a page and sends it behind what was committed meanwhile. Where the client must be
    /// waited for nothing is kept: there will be another page to read.
    async fn send_page(&mut self, held: &mut Option<Held>, place: u64) -> Result<Sent> {
        let page = self.page(held).await?;
        match self.tell_sent(held, page.mark.position).await? {
            Fed::Taken => {}
            Fed::Full(frames, bytes) => return Ok(Sent::Full(frames, bytes)),
            Fed::Ended => return Ok(Sent::Ended),
        }
        // A page that found nothing but took its time is not worth a message.
        if page.upto.is_none() || !page.ranges.is_empty() {
            match self.feed(place, &[self.frame(&page)]) {
                Fed::Taken => {}
                Fed::Full(frames, bytes) => return Ok(Sent::Full(frames, bytes)),
                Fed::Ended => return Ok(Sent::Ended),
            }
        }
        Ok(Sent::Page(page.upto, page.mark))
    }

    /// What to wait for where so much did not fit: as much room as there may be, so that what comes
    /// between is not in the way of the next page too.
    fn wide(&self, frames: usize, bytes: usize) -> (usize, usize) {
        let limits = &self.core.limits;
        (frames.max(limits.outbox_frames), bytes.max(limits.outbox_bytes))
    }

    /// Reads the next page, as the client may see it.
    async fn page(&mut self, held: &Option<Held>) -> Result<Page> {
        loop {
            self.check(position(held)).await?;
            let ask = PageAsk {
                plan: self.plan.clone(),
                key: self.key.clone(),
                after: held.as_ref().map(|held| held.upto.clone()),
            };
            let read = {
                let _turn = self.core.history.turn(self.request.payer).await?;
                self.core.source.page(ask, &self.core.limits).await?
            };
            // Another catalog: the next look compiles the plan under it.
            let Read::Page(page) = read else { continue };
            // Whatever the page knows of, who may see it knows too before it is sent.
            if self.core.recent.reach().1 < page.mark.position {
                self.core.source.barrier().await?;
            }
            self.check(position(held)).await?;
            return Ok(page);
        }
    }

    /// Tells the entries up to position `upto` of the records that were sent, as far as they fit.
    async fn tell_sent(&mut self, held: &mut Option<Held>, upto: u64) -> Result<Fed> {
        let Some(held) = held else { return Ok(Fed::Taken) };
        let key = Key::of(&held.upto);
        self.tell_between(&mut held.at, upto, key.as_ref()).await
    }

    fn frame(&self, page: &Page) -> Frame {
        let Mark { position, stamp, .. } = page.mark;
        let cursor = Cursor { position, stamp, grant: self.plan.grant };
        let cursor = page.upto.is_none().then_some(cursor);
        let text = cursor.map(|cursor| cursor.to_string());
        let bytes = self.request.encoder.page(&page.records(), cursor.is_some(), text.as_deref());
        Frame::new(bytes, cursor)
    }
}

/// The entry that the client's view stands at. Before the first page nothing can have changed.
fn position(held: &Option<Held>) -> u64 {
    held.as_ref().map_or(u64::MAX, |held| held.at)
}

/// What to read next of a snapshot.
#[derive(Clone, Debug)]
pub struct PageAsk {
    pub plan: Arc<Plan>,
    /// One record only.
    pub key: Option<Key>,
    /// Records of greater primary keys only.
    pub after: Option<Value>,
}

/// A page of a snapshot.
#[derive(Debug)]
pub struct Page {
    bytes: Vec<u8>,
    ranges: Vec<Range<usize>>,
    /// Every record that matches, up to this primary key, was in a page. `None`: all of them.
    pub upto: Option<Value>,
    /// The newest entry that the page knows of.
    pub mark: Mark,
}

impl Page {
    /// The last page where nothing matches.
    #[cfg(test)]
    pub(super) fn empty(mark: Mark) -> Page {
        Page { bytes: Vec::new(), ranges: Vec::new(), upto: None, mark }
    }

    /// One record, and everything that matches up to this key.
    #[cfg(test)]
    pub(super) fn of(record: &str, upto: Value, mark: Mark) -> Page {
        let bytes = record.as_bytes().to_vec();
        Page { ranges: std::iter::once(0..bytes.len()).collect(), bytes, upto: Some(upto), mark }
    }

    /// As one message carries them; there may be none.
    pub fn records(&self) -> Records<'_> {
        Records::new(&self.bytes, &self.ranges)
    }
}

/// What came of reading a page.
#[derive(Debug)]
pub enum Read {
    Page(Page),
    /// The plan is not of the store's present catalog: nothing was read.
    Outdated,
}

/// Reads a page: at most [`Limits::message_records`] records and [`Limits::frame_bytes`], but one
/// where there is one. 413 where a single record is too large with what is related to it.
pub(super) fn read(reader: &Reader<'_>, limits: &Limits, ask: &PageAsk) -> Result<Read> {
    let plan = &*ask.plan;
    if plan.catalog.version != reader.catalog().version {
        return Ok(Read::Outdated);
    }
    let mark = reader.newest()?.unwrap_or_default();
    let scanned = match &ask.key {
        Some(key) => {
            let row = reader.get(&plan.schema, &key.value())?;
            Scanned { rows: row.into_iter().collect(), upto: None }
        }
        None => reader.scan(&Scan {
            schema: &plan.schema,
            filter: &plan.filter,
            after: ask.after.as_ref(),
            limit: limits.message_records,
            bytes: limits.frame_bytes,
            time: PAGE_TIME,
        })?,
    };
    let mut page = Page { bytes: Vec::new(), ranges: Vec::new(), upto: scanned.upto, mark };
    let mut rows = scanned.rows;
    let related = gather(reader, plan, &mut rows, &mut page.upto)?;
    if ask.key.is_some() {
        rows.retain(|row| plan.matches(row, &related));
    }
    encode(plan, &rows, &related, limits, &mut page)?;
    Ok(Read::Page(page))
}

/// What the plan reads from `rows`, of which the last are left out while that is too much.
fn gather(
    reader: &Reader<'_>,
    plan: &Plan,
    rows: &mut Vec<Arc<Row>>,
    upto: &mut Option<Value>,
) -> Result<RelatedSet> {
    if plan.paths.is_empty() || rows.is_empty() {
        return Ok(RelatedSet::default());
    }
    loop {
        match reader.gather(&plan.schema, rows, &plan.paths) {
            Err(error) if error.kind == Kind::TooLarge && rows.len() > 1 => {
                rows.truncate(rows.len() / 2);
                *upto = last(plan, rows);
            }
            gathered => return gathered,
        }
    }
}

/// Encodes as many of `rows` as a message may carry.
fn encode(
    plan: &Plan,
    rows: &[Arc<Row>],
    related: &RelatedSet,
    limits: &Limits,
    page: &mut Page,
) -> Result<()> {
    for (at, row) in rows.iter().enumerate() {
        let start = page.bytes.len();
        // Related records stand in it as often as they are related.
        plan.body.encode_within(row, related, &mut page.bytes, start + limits.answer_bytes)?;
        if at > 0 && page.bytes.len() + at > limits.frame_bytes {
            page.bytes.truncate(start);
            page.upto = last(plan, &rows[..at]);
            break;
        }
        page.ranges.push(start..page.bytes.len());
    }
    Ok(())
}

fn last(plan: &Plan, rows: &[Arc<Row>]) -> Option<Value> {
    rows.last().map(|row| row.get(plan.schema.primary).clone())
}
