//! Commits made anew from the log.

use std::sync::Arc;

use crate::error::Result;
use crate::model::catalog::Catalog;
use crate::model::change::Commit;
use crate::model::related::{RelatedRows, Want};

use super::log::Entry;
use super::read::Reader;

/// See [`Reader::replay`].
pub(crate) fn page(
    reader: &Reader<'_>,
    after: u64,
    limit: usize,
    want: &Arc<Want>,
) -> Result<Vec<Arc<Commit>>> {
    let entries = reader.entries(after, limit)?;
    let commits = entries.into_iter().map(|entry| {
        let related = RelatedRows { gathered: want.clone(), ..RelatedRows::default() };
        Arc::new(commit(&reader.catalog, entry, related))
    });
    Ok(commits.collect())
}

/// The commit that an entry tells of. Its records are in the layout of `catalog`, whatever it was
/// then.
fn commit(catalog: &Catalog, entry: Entry, related: RelatedRows) -> Commit {
    let mut changes = entry.changes;
    for change in &mut changes {
        if let Some(schema) = catalog.get(change.schema) {
            change.schema_version = schema.version;
        }
    }
    Commit {
        position: entry.mark.position,
        stamp: entry.mark.stamp,
        time: entry.mark.time,
        origin: entry.origin,
        changes,
        notices: Vec::new(),
        related,
    }
}
