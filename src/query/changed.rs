//! What a commit changed of what is shown: a body's two sides compared, nothing written.

use std::sync::Arc;

use crate::model::change::Row;
use crate::model::related::Related;
use crate::model::value::Value;

use super::body::{Body, Encoder};
use super::shape::{ALWAYS, Shape, Shown, What};
use super::sight::Visible;

/// One side of a record: what it was, or what it is.
struct Side<'a> {
    sees: Encoder<'a>,
    row: &'a Row,
    mask: u64,
}

impl Body {
    /// Indexes, in order, of the fields shown whose shown value is not the same on both sides, or
    /// that one side shows alone; [`Body::name`] tells which they are. Each side comes with the
    /// related rows of its own time, which must hold the plan's paths.
    pub fn changed(&self, before: (&Row, &dyn Related), after: (&Row, &dyn Related)) -> Vec<usize> {
        let before = self.side(&self.shape, before.0, before.1);
        let after = self.side(&self.shape, after.0, after.1);
        let fields = self.shape.fields.iter().enumerate();
        let differ =
            |(_, shown): &(usize, &Shown)| !same_field(&self.shape, shown, &before, &after);
        fields.filter(differ).map(|(index, _)| index).collect()
    }

    /// Indexes, in order, of the fields that are shown of this very record beside its primary key.
    pub fn shown(&self, row: &Row, related: &dyn Related) -> Vec<usize> {
        let side = self.side(&self.shape, row, related);
        let primary = self.shape.schema.primary;
        let shows = |(_, shown): &(usize, &Shown)| {
            (shown.mask == ALWAYS || shown.mask & side.mask != 0)
                && !matches!(shown.what, What::Column(slot) if slot == primary)
        };
        let fields = self.shape.fields.iter().enumerate();
        fields.filter(shows).map(|(index, _)| index).collect()
    }

    /// The name of the field at `index` (as [`Body::changed`] gives it); empty where there is none.
    pub fn name(&self, index: usize) -> &str {
        let schema = &self.shape.schema;
        match self.shape.fields.get(index).map(|shown| &shown.what) {
            Some(What::Column(slot) | What::Key { slot, .. }) => &schema.columns[*slot].name,
            Some(What::One { relation, .. } | What::Many { relation, .. }) => {
                &schema.relations[*relation].name
            }
            None => "",
        }
    }

    fn side<'a>(&'a self, shape: &Shape, row: &'a Row, related: &'a dyn Related) -> Side<'a> {
        let sees = Encoder { catalog: &self.catalog, related, most: usize::MAX };
        let mask = sees.mask(shape, row);
        Side { sees, row, mask }
    }
}

fn same_field(shape: &Shape, shown: &Shown, before: &Side<'_>, after: &Side<'_>) -> bool {
    let shows = |side: &Side<'_>| shown.mask == ALWAYS || shown.mask & side.mask != 0;
    match (shows(before), shows(after)) {
        (false, false) => return true,
        (true, true) => {}
        _ => return false,
    }
    match &shown.what {
        What::Column(slot) => before.row.get(*slot) == after.row.get(*slot),
        What::Key { slot, relation, visible } => {
            let key = |side: &Side<'_>| -> Value {
                let value = side.row.get(*slot);
                let seen = !value.is_null()
                    && side.sees.one(shape, *relation, visible, side.row).is_some();
                if seen { value.clone() } else { Value::Null }
            };
            key(before) == key(after)
        }
        What::One { relation, visible, shape: inner } => {
            let one = |side: &Side<'_>| side.sees.one(shape, *relation, visible, side.row).cloned();
            match (one(before), one(after)) {
                (None, None) => true,
                (Some(was), Some(is)) => same_record(inner, (&was, before), (&is, after)),
                _ => false,
            }
        }
        What::Many { relation, visible, shape: inner } => {
            let was = many(shape, *relation, visible, inner, before);
            let is = many(shape, *relation, visible, inner, after);
            was.len() == is.len()
                && was
                    .iter()
                    .zip(is)
                    .all(|(was, is)| same_record(inner, (was, before), (is, after)))
        }
    }
}

fn many<'a>(
    shape: &Shape,
    relation: usize,
    visible: &Visible,
    inner: &Shape,
    side: &Side<'a>,
) -> Vec<&'a Arc<Row>> {
    let relation = &shape.schema.relations[relation];
    let rows = side.sees.related.related(&shape.schema, relation, side.row).iter();
    rows.filter(|row| side.sees.sees(visible, &inner.schema, row)).collect()
}

/// Whether two related records look the same.
fn same_record(shape: &Shape, was: (&Row, &Side<'_>), is: (&Row, &Side<'_>)) -> bool {
    let before = along(shape, was.0, was.1);
    let after = along(shape, is.0, is.1);
    shape.fields.iter().all(|shown| same_field(shape, shown, &before, &after))
}

/// Another record of the same side.
fn along<'a>(shape: &Shape, row: &'a Row, side: &Side<'a>) -> Side<'a> {
    let Encoder { catalog, related, most } = side.sees;
    let sees = Encoder { catalog, related, most };
    let mask = sees.mask(shape, row);
    Side { sees, row, mask }
}
