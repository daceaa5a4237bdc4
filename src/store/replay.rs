//! Commits made anew from the log.
//!
//! Related rows and dependants are gathered as the writer gathers them (`beside.rs`), from the
//! states right before and right after each entry (`past.rs`).

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::error::{Kind, Result};
use crate::model::catalog::Catalog;
use crate::model::change::{Commit, Row};
use crate::model::related::{RelatedRows, Want};
use crate::model::schema::SchemaId;

use super::beside::{self, Sides};
use super::log::Entry;
use super::past::Page;
use super::read::Reader;
use super::related::gather;

/// A page's entries, as they stand in the log, are read up to this many bytes, and one more.
const ENTRY_BYTES: usize = 4 << 20;

/// A page ends with the commit for which its related rows take this much memory.
const ROW_BYTES: usize = 16 << 20;

/// Entries that a page begins with; then more, while they take little time. What is read for them
/// at once is read in vain where the page ends among them.
const FIRST: usize = 32;

/// Nor does a page go on for longer: readers are few.
const PATIENCE: Duration = Duration::from_millis(200);

/// For what must come to an end, however long it takes.
const LONG: Duration = Duration::from_secs(3600);

/// See [`Reader::replay`].
pub(crate) fn page(
    reader: &Reader<'_>,
    after: u64,
    limit: usize,
    want: &Arc<Want>,
) -> Result<Vec<Arc<Commit>>> {
    if want.is_empty() {
        let entries = reader.entries_within(after, limit, ENTRY_BYTES)?;
        let related = || RelatedRows { gathered: want.clone(), ..RelatedRows::default() };
        let made = entries.into_iter().map(|entry| commit(&reader.catalog, entry, related()));
        return Ok(made.collect());
    }
    let began = Instant::now();
    let left = reader.time.until.saturating_duration_since(began);
    let mut work = Work { made: Vec::new(), until: began + PATIENCE.min(left / 2), bytes: 0 };
    let mut some = FIRST.min(limit);
    while some > 0 {
        let after = work.made.last().map_or(after, |commit| commit.position);
        let entries = match reader.entries_within(after, some, ENTRY_BYTES) {
            Err(_) if !work.made.is_empty() => break,
            entries => entries?,
        };
        let all = entries.len() == some;
        if !work.on(reader, entries, want)? || !all {
            break;
        }
        some = (some * 8).min(limit - work.made.len());
    }
    Ok(work.made)
}

/// What there is of a page.
struct Work {
    made: Vec<Arc<Commit>>,
    /// The page ends then,
    until: Instant,
    /// or when the related rows have more than their bytes.
    bytes: usize,
}

impl Work {
    /// Adds the commits of some entries; `false` where the page ends with or among them.
    fn on(&mut self, reader: &Reader<'_>, entries: Vec<Entry>, want: &Arc<Want>) -> Result<bool> {
        let page = Page::new(reader, &entries)?;
        warm(reader, &page, &entries, want)?;
        for entry in entries {
            let related = match related(reader, &page, &entry, want) {
                // The next page tries again, and tells.
                Err(_) if !self.made.is_empty() => return Ok(false),
                // The first must come with this page, however long it takes.
                Err(error) if error.kind == Kind::Timeout => {
                    reader.time.extend(LONG);
                    let related = related(reader, &page, &entry, want);
                    reader.time.extend(Duration::ZERO);
                    related?
                }
                related => related?,
            };
            self.made.push(commit(&reader.catalog, entry, related));
            if Instant::now() >= self.until || self.bytes + page.bytes() >= ROW_BYTES {
                return Ok(false);
            }
        }
        self.bytes += page.bytes();
        Ok(true)
    }
}

/// Reads much of what the entries will need in a few statements, instead of a few an entry.
fn warm(reader: &Reader<'_>, page: &Page<'_>, entries: &[Entry], want: &Want) -> Result<()> {
    let mut rows: BTreeMap<SchemaId, Vec<Arc<Row>>> = BTreeMap::new();
    for change in entries.iter().flat_map(|entry| &entry.changes) {
        if want.paths.get(&change.schema).is_some_and(|paths| !paths.is_empty()) {
            let states = [&change.before, &change.after].into_iter().flatten().cloned();
            rows.entry(change.schema).or_default().extend(states);
        }
    }
    for (schema, rows) in rows {
        let (Some(schema), Some(paths)) = (reader.catalog.get(schema), want.paths.get(&schema))
        else {
            continue;
        };
        let (view, budget) = (page.end(), reader.bounds.budget_of(ROW_BYTES / 2));
        match gather(&view, &reader.catalog, schema, &rows, paths, &budget) {
            // What is missing is read when it is needed.
            Err(error) if matches!(error.kind, Kind::TooLarge | Kind::Timeout) => {}
            other => drop(other?),
        }
    }
    Ok(())
}

fn related(
    reader: &Reader<'_>,
    page: &Page<'_>,
    entry: &Entry,
    want: &Arc<Want>,
) -> Result<RelatedRows> {
    let position = entry.mark.position;
    let (before, after) = (page.at(position - 1), page.at(position));
    let sides = Sides {
        catalog: &reader.catalog,
        before: &before,
        after: &after,
        bounds: reader.bounds,
        turn: &|_| (),
        hasty: false,
    };
    beside::related(&sides, want, &entry.changes)
}

/// The commit that an entry tells of. Its records are in the layout of `catalog`, whatever it was
/// then.
fn commit(catalog: &Catalog, entry: Entry, related: RelatedRows) -> Arc<Commit> {
    let mut changes = entry.changes;
    for change in &mut changes {
        if let Some(schema) = catalog.get(change.schema) {
            change.schema_version = schema.version;
        }
    }
    Arc::new(Commit {
        position: entry.mark.position,
        stamp: entry.mark.stamp,
        time: entry.mark.time,
        origin: entry.origin,
        changes,
        notices: Vec::new(),
        related,
        weight: OnceLock::new(),
    })
}
