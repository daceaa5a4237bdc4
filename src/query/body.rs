//! What is shown of a record: a projection cut by the grant, per record.

use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::filter::{Predicate, eval};
use crate::model::catalog::Catalog;
use crate::model::change::Row;
use crate::model::related::Related;
use crate::model::schema::Schema;
use crate::model::value::Value;

use super::shape::{ALWAYS, Shape, What};
use super::sight::Visible;

/// A projection, compiled for one grant. Shared by all who are shown the same.
#[derive(Debug)]
pub struct Body {
    /// Equal for bodies that show the same.
    pub key: Arc<[u8]>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) shape: Shape,
}

impl Body {
    /// Appends the record as a JSON object, cut to what may be seen of this very record. The
    /// record must be visible (its plan matches it); `related` must hold the plan's paths.
    ///
    /// Writes names and values straight into `out`: nothing is allocated, no tree is built, and
    /// where one alternative allows everything nothing is evaluated.
    pub fn encode(&self, row: &Row, related: &dyn Related, out: &mut Vec<u8>) {
        let most = usize::MAX;
        Encoder { catalog: &self.catalog, related, most }.record(&self.shape, row, out);
    }

    /// As [`Body::encode`], while `out` has no more than `most` bytes; what is left in it after a
    /// refusal is of no use. (Related records stand in the answer as often as they are related.)
    ///
    /// # Errors
    /// 413.
    pub fn encode_within(
        &self,
        row: &Row,
        related: &dyn Related,
        out: &mut Vec<u8>,
        most: usize,
    ) -> Result<()> {
        Encoder { catalog: &self.catalog, related, most }.record(&self.shape, row, out);
        if out.len() <= most {
            return Ok(());
        }
        let text = format!(
            "the answer is larger than {most} bytes; ask for less with 'limit' or 'select'"
        );
        Err(Error::new(Kind::TooLarge, text))
    }

    /// Appends an object with the primary key alone, for messages that say no more.
    pub fn encode_key(&self, row: &Row, out: &mut Vec<u8>) {
        let schema = &self.shape.schema;
        out.push(b'{');
        crate::model::json::write_string(&schema.primary_column().name, out);
        out.push(b':');
        row.get(schema.primary).write_json(out);
        out.push(b'}');
    }
}

pub(super) struct Encoder<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) related: &'a dyn Related,
    /// Nothing more is of use once so much is written.
    pub(super) most: usize,
}

impl Encoder<'_> {
    fn record(&self, shape: &Shape, row: &Row, out: &mut Vec<u8>) {
        let mask = self.mask(shape, row);
        let start = out.len();
        for shown in &shape.fields {
            if shown.mask != ALWAYS && shown.mask & mask == 0 {
                continue;
            }
            out.extend_from_slice(&shown.lead);
            match &shown.what {
                What::Column(slot) => row.get(*slot).write_json(out),
                What::Key { slot, relation, visible } => {
                    let value = row.get(*slot);
                    let seen =
                        !value.is_null() && self.one(shape, *relation, visible, row).is_some();
                    if seen { value } else { &Value::Null }.write_json(out);
                }
                What::One { relation, visible, shape: inner } => {
                    match self.one(shape, *relation, visible, row) {
                        Some(row) => self.record(inner, row, out),
                        None => out.extend_from_slice(b"null"),
                    }
                }
                What::Many { relation, visible, shape: inner } => {
                    let relation = &shape.schema.relations[*relation];
                    out.push(b'[');
                    let mut first = true;
                    for row in self.related.related(&shape.schema, relation, row) {
                        if out.len() > self.most {
                            break;
                        }
                        if !self.sees(visible, &inner.schema, row) {
                            continue;
                        }
                        if !first {
                            out.push(b',');
                        }
                        first = false;
                        self.record(inner, row, out);
                    }
                    out.push(b']');
                }
            }
        }
        // Every field came with a comma before it; the first one's becomes the brace.
        match out.get_mut(start) {
            Some(first) => *first = b'{',
            None => out.push(b'{'),
        }
        out.push(b'}');
    }

    /// One bit for each alternative that is TRUE for the row.
    pub(super) fn mask(&self, shape: &Shape, row: &Row) -> u64 {
        let mut mask = 0;
        for (bit, filter) in shape.filters.iter().enumerate() {
            mask |= u64::from(self.holds(filter, &shape.schema, row)) << bit;
        }
        mask
    }

    /// The visible record that a to-one relation leads to.
    pub(super) fn one(
        &self,
        shape: &Shape,
        relation: usize,
        visible: &Visible,
        row: &Row,
    ) -> Option<&Row> {
        if let Visible::None = visible {
            return None;
        }
        let relation = &shape.schema.relations[relation];
        let target = self.catalog.get(relation.target)?;
        let related = self.related.related(&shape.schema, relation, row).first()?;
        self.sees(visible, target, related).then_some(&**related)
    }

    pub(super) fn sees(&self, visible: &Visible, schema: &Schema, row: &Row) -> bool {
        match visible {
            Visible::All => true,
            Visible::None => false,
            Visible::When(filter) => self.holds(filter, schema, row),
        }
    }

    fn holds(&self, filter: &Predicate, schema: &Schema, row: &Row) -> bool {
        eval::matches(filter, self.catalog, schema, row, self.related)
    }
}
