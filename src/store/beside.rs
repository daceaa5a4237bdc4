//! What a commit carries beside its changes: the related rows that somebody reads, and the records
//! that read what it touched. One for the writer and for replays.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::limits::Limits;
use crate::model::catalog::Catalog;
use crate::model::change::{Change, Op, Row};
use crate::model::related::{Dependants, Key, Paths, RelatedRows, RelatedSet, Want};
use crate::model::schema::{Schema, SchemaId};

use super::dependants::{ByRecord, Finder, Records, concerns};
use super::related::gather;
use super::view::{Budget, View};

/// The states right before and right after a commit.
pub(crate) struct Sides<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) before: &'a dyn View,
    pub(crate) after: &'a dyn View,
    pub(crate) bounds: Bounds,
    /// Called before each piece of work with the number of pieces left.
    pub(crate) turn: &'a dyn Fn(usize),
    /// Whether a piece that takes too long is left out, as one that is too large is.
    pub(crate) hasty: bool,
}

/// How much may be read for one commit and one schema.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    rows: usize,
    bytes: usize,
    dependants: usize,
}

impl Bounds {
    pub(crate) fn new(limits: &Limits) -> Self {
        Bounds {
            rows: limits.related_records,
            bytes: limits.answer_bytes,
            dependants: limits.dependants,
        }
    }

    pub(crate) fn budget(self) -> Budget {
        self.budget_of(self.bytes)
    }

    /// A budget of fewer bytes.
    pub(crate) fn budget_of(self, bytes: usize) -> Budget {
        Budget::new(self.rows, bytes.min(self.bytes))
    }
}

/// What `want` asks for of a commit.
pub(crate) fn related(
    sides: &Sides<'_>,
    want: &Arc<Want>,
    changes: &[Change],
) -> Result<RelatedRows> {
    let mut both = RelatedRows { gathered: want.clone(), ..RelatedRows::default() };
    if want.is_empty() || changes.is_empty() {
        return Ok(both);
    }
    let touched: HashSet<SchemaId> = changes.iter().map(|change| change.schema).collect();
    let own = sides.schemas(&want.paths).filter(|(schema, _)| touched.contains(&schema.id));
    let own: Vec<_> = own.collect();
    let back = sides.schemas(&want.dependants);
    let back = back.filter(|(schema, paths)| concerns(sides.catalog, schema, paths, &touched));
    let back: Vec<_> = back.collect();
    let mut left = own.len() + back.len();
    let mut next = || {
        (sides.turn)(left);
        left -= 1;
    };
    for (schema, paths) in own {
        next();
        let rows = |side: fn(&Change) -> &Option<Arc<Row>>| -> Vec<Arc<Row>> {
            let changes = changes.iter().filter(|change| change.schema == schema.id);
            changes.filter_map(|change| side(change).clone()).collect()
        };
        let (before, after) = (rows(|change| &change.before), rows(|change| &change.after));
        match sides.gather(schema, paths, &before, &after) {
            Ok((before, after)) => {
                both.before.merge(before);
                both.after.merge(after);
            }
            // What subscribers read must not keep others from writing.
            Err(error) if sides.may_lack(&error) => {
                tracing::warn!("a commit without the related records of {}: {error}", schema.name);
                both.incomplete.insert(schema.id);
            }
            Err(error) => return Err(error),
        }
    }
    // Most commits concern nobody else.
    let touched = ByRecord::new(if back.is_empty() { &[] } else { changes });
    for (schema, paths) in back {
        next();
        sides.dependants(schema, paths, want.paths.get(&schema.id), &touched, &mut both)?;
    }
    Ok(both)
}

/// Records of one schema that a commit concerns, by the relation they read through; `None` where
/// they are too many.
type Found<'a> = BTreeMap<&'a Arc<str>, Option<Records>>;

impl Sides<'_> {
    /// Whether the commit does without what this error kept from it.
    fn may_lack(&self, error: &Error) -> bool {
        error.kind == Kind::TooLarge || (self.hasty && error.kind == Kind::Timeout)
    }

    /// Those schemas that there are and from which something is wanted, in a fixed order.
    fn schemas<'w>(
        &self,
        wanted: &'w HashMap<SchemaId, Paths>,
    ) -> impl Iterator<Item = (&Arc<Schema>, &'w Paths)> {
        let wanted = wanted.iter().filter(|(_, paths)| !paths.is_empty());
        let found = wanted.filter_map(|(id, paths)| Some((self.catalog.get(*id)?, paths)));
        let mut found: Vec<_> = found.collect();
        found.sort_by_key(|(schema, _)| schema.id);
        found.into_iter()
    }

    fn gather(
        &self,
        schema: &Schema,
        paths: &Paths,
        before: &[Arc<Row>],
        after: &[Arc<Row>],
    ) -> Result<(RelatedSet, RelatedSet)> {
        let read = |view: &dyn View, rows: &[Arc<Row>]| {
            gather(view, self.catalog, schema, rows, paths, &self.bounds.budget())
        };
        Ok((read(self.before, before)?, read(self.after, after)?))
    }

    /// Adds the records of `schema` that depend on what was touched by `back`, and what `paths`
    /// read from them.
    fn dependants(
        &self,
        schema: &Schema,
        back: &Paths,
        paths: Option<&Paths>,
        touched: &ByRecord<'_>,
        both: &mut RelatedRows,
    ) -> Result<()> {
        let mut found: Found<'_> = BTreeMap::new();
        for (name, deeper) in &back.0 {
            let Some(index) = schema.relation(name) else { continue };
            let finder = Finder {
                view: self.after,
                catalog: self.catalog,
                touched,
                most: self.bounds.dependants,
                budget: self.bounds.budget(),
            };
            match finder.through(schema, &schema.relations[index], deeper) {
                Ok(records) if records.is_empty() => {}
                Ok(records) => drop(found.insert(name, Some(records))),
                Err(error) if self.may_lack(&error) => drop(found.insert(name, None)),
                Err(error) => return Err(error),
            }
        }
        let all: Records = found
            .values()
            .flatten()
            .flatten()
            .map(|(key, row)| (key.clone(), row.clone()))
            .collect();
        if let Some(paths) = paths.filter(|_| !all.is_empty()) {
            let rows: Vec<_> = all.values().cloned().collect();
            match self.gather(schema, paths, &rows, &rows) {
                Ok((before, after)) => {
                    both.before.merge(before);
                    both.after.merge(after);
                }
                Err(error) if self.may_lack(&error) => {
                    found.values_mut().for_each(|records| *records = None);
                }
                Err(error) => return Err(error),
            }
        }
        if found.values().any(Option::is_none) {
            let name = &schema.name;
            tracing::warn!("a commit without the records of {name} that it concerns: too many");
        }
        add(schema, found, &mut both.dependants);
        Ok(())
    }
}

/// Lists the records, each once, as updates that change nothing of their own: by primary key, in
/// whatever relation they were found, so that the order does not tell who else listens.
fn add(schema: &Schema, found: Found<'_>, to: &mut Dependants) {
    let all: BTreeMap<&Key, &Arc<Row>> = found.values().flatten().flatten().collect();
    let first = to.changes.len();
    let listed: HashMap<&Key, usize> = all.keys().copied().zip(first..).collect();
    to.changes.extend(all.iter().map(|(key, row)| Change {
        schema: schema.id,
        schema_version: schema.version,
        op: Op::Update,
        key: key.value(),
        before: Some((*row).clone()),
        after: Some((*row).clone()),
    }));
    for (name, records) in &found {
        let indexes = |records: &Records| records.keys().map(|key| listed[key]).collect();
        to.by.insert((schema.id, (*name).clone()), records.as_ref().map(indexes));
    }
}
