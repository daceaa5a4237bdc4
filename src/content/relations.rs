//! Relations written: keys on the other side, links, and relations that are their own back side.
//!
//! A record whose key changes is updated like any other, under what the principal may update
//! there; links need no such right. A related record that is hidden is left alone.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::model::change::Row;
use crate::model::related::{Key, Paths, Related};
use crate::model::schema::{Relation, Schema, Shape, Slot};
use crate::model::value::Value;
use crate::store::Rows;

use super::input::{Clear, ColumnWrite, Input, RelationWrite};
use super::job::{Job, Origin, Rules, show};

impl Job<'_, '_> {
    /// Carries out what is written to a relation whose key is not an own column of `row`.
    pub(super) fn relate(
        &mut self,
        schema: &Arc<Schema>,
        index: usize,
        row: &Arc<Row>,
        write: &RelationWrite,
        by_rule: bool,
    ) -> Result<()> {
        let relation = &schema.relations[index];
        let target = self.schema(relation.target)?;
        let own = row.get(schema.primary).clone();
        let mut added = Vec::with_capacity(write.add.len());
        for key in &write.add {
            added.push(match by_rule {
                false => self.related(&relation.name, &target, key)?,
                true => self.tx.get(&target, key)?.ok_or_else(|| {
                    Error::internal(format_args!("{}: set to nothing", relation.name))
                })?,
            });
        }
        let cleared = self.cleared(schema, relation, &target, row, write)?;
        match relation.shape {
            // Its key is an own column, written with the others.
            Shape::Key { .. } => {}
            Shape::BackKey { slot } | Shape::Many { slot } => {
                for key in &cleared {
                    self.repoint(relation, &target, key, slot, Value::Null)?;
                }
                for other in &added {
                    if *other.get(slot) != own {
                        let key = other.get(target.primary).clone();
                        self.repoint(relation, &target, &key, slot, own.clone())?;
                    }
                }
            }
            Shape::Link { .. } => {
                for key in &cleared {
                    self.tx.unlink(schema, relation, &own, key)?;
                }
                for other in &added {
                    self.tx.link(schema, relation, &own, other.get(target.primary))?;
                }
            }
        }
        Ok(())
    }

    /// Whether there are more than `most` related records of which this write takes some away: all
    /// of them are read for that.
    pub(super) fn takes_from(
        &self,
        schema: &Schema,
        rules: &Rules,
        row: &Row,
        input: &Input,
        most: usize,
    ) -> Result<bool> {
        let writes = rules.sets.iter().chain([input]).flat_map(|input| &input.relations);
        let taking = writes.filter(|(_, write)| write.clear != Clear::Nothing);
        let taking: BTreeSet<usize> = taking.map(|(index, _)| *index).collect();
        let mut found = 0;
        for index in taking {
            let relation = &schema.relations[index];
            found += self.tx.leads_to(relation, row.get(schema.primary), most - found + 1)?;
            if found > most {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Keys of the related records that `write` takes away and does not add again.
    fn cleared(
        &mut self,
        schema: &Schema,
        relation: &Relation,
        target: &Schema,
        row: &Arc<Row>,
        write: &RelationWrite,
    ) -> Result<Vec<Value>> {
        let only: Option<HashSet<Key>> = match &write.clear {
            Clear::Nothing => return Ok(Vec::new()),
            Clear::All => None,
            Clear::These(keys) => {
                for key in keys {
                    self.related(&relation.name, target, key)?;
                }
                Some(keys.iter().filter_map(Key::of).collect())
            }
        };
        let kept: HashSet<Key> = write.add.iter().filter_map(Key::of).collect();
        let mut paths = Paths::default();
        paths.0.insert(relation.name.clone(), Paths::default());
        let related = self.tx.gather(schema, std::slice::from_ref(row), &paths)?;
        let mut cleared = Vec::new();
        for other in related.related(schema, relation, row) {
            let Some(key) = Key::of(other.get(target.primary)) else { continue };
            let wanted = only.as_ref().is_none_or(|only| only.contains(&key));
            if wanted && !kept.contains(&key) && self.visible(target, other)? {
                cleared.push(other.get(target.primary).clone());
            }
        }
        Ok(cleared)
    }

    /// Changes the key that another record holds.
    fn repoint(
        &mut self,
        relation: &Relation,
        target: &Arc<Schema>,
        key: &Value,
        slot: Slot,
        to: Value,
    ) -> Result<()> {
        if to.is_null() && !target.columns[slot].optional {
            let back = &relation.back;
            return Err(Error::bad(format!(
                "{}: '{}' {} requires its '{back}'; delete it or give it another",
                relation.name,
                target.name,
                show(target, key)
            )));
        }
        let rules = self.update_rules(target).map_err(|error| Error {
            message: format!("{} (to change '{}')", error.message, relation.name),
            ..error
        })?;
        // Read anew: an earlier step of this write may have changed it.
        let Some(old) = self.tx.get(target, key)? else { return Ok(()) };
        let mut input = Input::default();
        input.columns.insert(slot, ColumnWrite::Set(to));
        self.write(target, &rules, Some(&old), &input, Origin::Related)?;
        Ok(())
    }

    /// Before a record is written: relations that are their own back side let go of whoever the
    /// record, or its new partner, was with.
    pub(super) fn loosen(
        &mut self,
        schema: &Arc<Schema>,
        old: Option<&Arc<Row>>,
        values: &[Value],
    ) -> Result<()> {
        for (relation, slot) in mutual_keys(schema) {
            let before = old.map_or(&Value::Null, |row| row.get(slot));
            let after = &values[slot];
            if before == after {
                continue;
            }
            let own = &values[schema.primary];
            if !before.is_null() && before != own {
                self.repoint(relation, schema, &before.clone(), slot, Value::Null)?;
            }
            if after.is_null() || after == own {
                continue;
            }
            let partner = self.tx.get(schema, after)?;
            let third = partner.map_or(Value::Null, |partner| partner.get(slot).clone());
            if !third.is_null() && third != *own && third != *after {
                self.repoint(relation, schema, &third, slot, Value::Null)?;
            }
        }
        Ok(())
    }

    /// After a record is written: relations that are their own back side point back.
    pub(super) fn fasten(&mut self, schema: &Arc<Schema>, row: &Arc<Row>) -> Result<()> {
        let own = row.get(schema.primary);
        for (relation, slot) in mutual_keys(schema) {
            let to = row.get(slot);
            if to.is_null() || to == own {
                continue;
            }
            let partner = self.tx.get(schema, to)?;
            if partner.is_some_and(|partner| partner.get(slot) != own) {
                self.repoint(relation, schema, to, slot, own.clone())?;
            }
        }
        Ok(())
    }
}

/// Whether the relation's two ends are one field: `spouse`, `friends`.
fn mutual(schema: &Schema, relation: &Relation) -> bool {
    relation.target == schema.id && relation.back == relation.name
}

fn mutual_keys(schema: &Schema) -> impl Iterator<Item = (&Relation, Slot)> {
    schema.relations.iter().filter(|relation| mutual(schema, relation)).filter_map(|relation| {
        match relation.shape {
            Shape::Key { slot } => Some((relation, slot)),
            _ => None,
        }
    })
}
