//! What becomes of those who refer to a record that goes.

use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::model::schema::{Relation, Schema, SchemaId, Shape};
use crate::model::value::Value;

use super::super::refs::{Referrer, ReferrerKind, referrers};
use super::super::room::Room;
use super::super::{read, refuse};
use super::Tx;

impl Tx<'_> {
    pub(super) fn referrers(&self, schema: SchemaId) -> Arc<[Referrer]> {
        let mut known = self.desk.referrers.borrow_mut();
        known.entry(schema).or_insert_with(|| referrers(&self.catalog, schema).into()).clone()
    }

    /// Whether a delete of this record would change more than `most` others.
    ///
    /// # Errors
    /// 503 where the disk fails.
    pub fn drags(&self, schema: &Schema, key: &Value, most: usize) -> Result<bool> {
        let mut found = 0;
        for referrer in self.referrers(schema.id).iter() {
            if matches!(referrer.kind, ReferrerKind::Required(_)) {
                continue;
            }
            let from = &referrer.schema;
            let text = self.desk.texts.of(from).count_by(from, referrer.slot);
            found += read::count_by(self.connection, &text, key, most - found + 1)?;
            if found > most {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How many records a relation leads to from the record of that key, as far as `most`. Nobody
    /// waits long for one whose key is the record's own: it counts as none.
    ///
    /// # Errors
    /// 503 where the disk fails.
    pub fn leads_to(&self, relation: &Relation, key: &Value, most: usize) -> Result<usize> {
        let (holder, slot) = match relation.shape {
            Shape::Key { .. } => return Ok(0),
            Shape::BackKey { slot } | Shape::Many { slot } => (relation.target, slot),
            Shape::Link { junction, own, .. } => (junction, own),
        };
        let holder = self.schema(holder)?;
        let text = self.desk.texts.of(&holder).count_by(&holder, slot);
        read::count_by(self.connection, &text, key, most)
    }

    /// Links are taken away, optional references become null, a required one refuses.
    pub(super) fn let_go(
        &mut self,
        schema: &Schema,
        key: &Value,
        referrer: &Referrer,
    ) -> Result<()> {
        let from = &referrer.schema;
        let text = self.desk.texts.of(from).by(from, referrer.slot);
        // One more than a write may touch is enough to be refused.
        let most = match referrer.kind {
            ReferrerKind::Required(_) => 2,
            _ => self.desk.limits.write_records as u64 + 1,
        };
        // What a write may not hold it need not read either.
        let room = Room::new(self.most(self.desk.limits.write_bytes));
        let rows = self.spent(read::rows_by(self.connection, &text, from, key, most, &room))?;
        for row in rows {
            self.spend(&row.values)?;
            let itself = from.id == schema.id && row.get(from.primary) == key;
            match &referrer.kind {
                ReferrerKind::Link => self.delete_row(from, row, false)?,
                _ if itself => {}
                ReferrerKind::Optional => {
                    let mut values = row.values.to_vec();
                    values[referrer.slot] = Value::Null;
                    if let Some(slot) = from.updated_at {
                        values[slot] = Value::Time(self.now);
                    }
                    self.update_row(from, row, values, false)?;
                }
                ReferrerKind::Required(relation) => {
                    return Err(Error::new(
                        Kind::Conflict,
                        format!(
                            "{} {} cannot be deleted: {}.{relation} is required and refers to it; \
                             delete or change those records first",
                            schema.name,
                            refuse::shown(key),
                            from.name
                        ),
                    ));
                }
            }
        }
        Ok(())
    }
}
