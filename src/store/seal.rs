//! What a finished job leaves: its entry in the log, and the commit that the sink is told.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::model::change::{Change, Commit, Row};
use crate::model::related::{Paths, RelatedRows, Want};
use crate::model::schema::{Schema, SchemaId};

use super::codec;
use super::fault::fault;
use super::log::{self, Mark, Tail};
use super::lookup::Lines;
use super::readable;
use super::related::gather;
use super::tx::Tx;

/// Writes the job's entry and adds its look-ups to `lines`; `None` where it changed nothing.
pub(crate) fn seal(
    tx: &Tx<'_>,
    tail: &mut Tail,
    lines: &mut Lines,
    want: &Arc<Want>,
) -> Result<Option<Arc<Commit>>> {
    let (changes, schemas) = tx.touched.changes();
    if changes.is_empty() && tx.notices.is_empty() {
        return Ok(None);
    }
    let mark = Mark {
        position: tail.newest.position + 1,
        stamp: getrandom::u64().map_err(Error::internal)?,
        time: tx.now,
    };
    let mut entry = Vec::with_capacity(256);
    codec::encode(tx.origin, &changes, &schemas, &tx.notices, &mut entry);
    let bytes = log::append(tx.connection, mark, tail.ends, &entry, &changes, &schemas, lines)
        .map_err(fault)?;
    readable::note(tx.connection, &tx.unreadable, mark.position).map_err(fault)?;
    let related = related(tx, want, &changes, &schemas)?;
    *tail = Tail { newest: mark, ends: tail.ends + bytes };
    Ok(Some(Arc::new(Commit {
        position: mark.position,
        stamp: mark.stamp,
        time: mark.time,
        origin: tx.origin,
        changes,
        notices: tx.notices.clone(),
        related,
    })))
}

/// What the wanted paths read from the changed records, after the write and before it.
fn related(
    tx: &Tx<'_>,
    want: &Arc<Want>,
    changes: &[Change],
    schemas: &[Arc<Schema>],
) -> Result<RelatedRows> {
    let mut both = RelatedRows { gathered: want.clone(), ..RelatedRows::default() };
    if want.is_empty() {
        return Ok(both);
    }
    let source = tx.source();
    let mut wanted: HashMap<SchemaId, (&Arc<Schema>, &Paths, Vec<usize>)> = HashMap::new();
    for (index, schema) in schemas.iter().enumerate() {
        if let Some(paths) = want.paths.get(&schema.id).filter(|paths| !paths.is_empty()) {
            wanted.entry(schema.id).or_insert((schema, paths, Vec::new())).2.push(index);
        }
    }
    for (schema, paths, indexes) in wanted.into_values() {
        let side = |pick: fn(&Change) -> &Option<Arc<Row>>| -> Vec<Arc<Row>> {
            indexes.iter().filter_map(|index| pick(&changes[*index]).clone()).collect()
        };
        let read =
            |rows: &[Arc<Row>], undo| tx.reading(|| gather(&source, schema, rows, paths, undo));
        let (before, after) = (side(|change| &change.before), side(|change| &change.after));
        let sides =
            read(&after, None).and_then(|after| Ok((after, read(&before, Some(&tx.touched))?)));
        match sides {
            Ok((after, before)) => {
                both.after.merge(after);
                both.before.merge(before);
            }
            // What subscribers read must not keep others from writing.
            Err(error) if matches!(error.kind, Kind::TooLarge | Kind::Timeout) => {
                tracing::warn!("a commit without the related records of {}: {error}", schema.name);
                both.incomplete.insert(schema.id);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(both)
}
