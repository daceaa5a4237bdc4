//! Links through junctions.

use std::sync::Arc;

use rusqlite::OptionalExtension as _;

use crate::error::{Error, Result};
use crate::filter::sql::quote;
use crate::model::change::Row;
use crate::model::schema::{Relation, Schema, Shape, Slot};
use crate::model::value::Value;

use super::super::cell::{self, Cell};
use super::super::fault::fault;
use super::super::unlinked::Ends;
use super::Tx;
use super::rows::no_record;

impl Tx<'_> {
    /// Links through a junction (`Shape::Link`); `false` where the link stood already. A relation
    /// that is its own back reference is linked both ways.
    pub fn link(
        &mut self,
        schema: &Schema,
        relation: &Relation,
        own: &Value,
        other: &Value,
    ) -> Result<bool> {
        let schema = self.current_schema(schema)?;
        let ends = self.ends(relation)?;
        for (end, key) in [(schema.id, own), (relation.target, other)] {
            let end = self.schema(end)?;
            if self.row(&end, key)?.is_none() {
                let text = format!("{}: {}", relation.name, no_record(&end, key).message);
                return Err(Error::bad(text));
            }
        }
        let linked = self.link_row(&ends, own, other)?;
        if both_ways(&schema, relation) && own != other {
            self.link_row(&ends, other, own)?;
        }
        Ok(linked)
    }

    /// Takes a link away; `false` where there was none.
    pub fn unlink(
        &mut self,
        schema: &Schema,
        relation: &Relation,
        own: &Value,
        other: &Value,
    ) -> Result<bool> {
        let schema = self.current_schema(schema)?;
        let ends = self.ends(relation)?;
        let unlinked = self.unlink_row(&ends, own, other)?;
        if both_ways(&schema, relation) && own != other {
            self.unlink_row(&ends, other, own)?;
        }
        Ok(unlinked)
    }

    fn ends(&self, relation: &Relation) -> Result<Ends> {
        match relation.shape {
            Shape::Link { junction, own, other } => {
                Ok(Ends { junction: self.schema(junction)?, own, other })
            }
            _ => Err(Error::internal(format_args!("{} has no links", relation.name))),
        }
    }

    fn link_of(&self, ends: &Ends, own: &Value, other: &Value) -> Result<Option<Arc<Row>>> {
        let junction = &ends.junction;
        let texts = self.desk.texts.of(junction);
        let name = |slot: Slot| quote(&junction.columns[slot].name);
        let text = format!(
            "SELECT {} FROM {} WHERE r.{} = ? AND r.{} = ?",
            texts.columns,
            texts.from,
            name(ends.own),
            name(ends.other)
        );
        self.connection
            .prepare_cached(&text)
            .and_then(|mut statement| {
                statement
                    .query_row([Cell(own), Cell(other)], |row| {
                        cell::record(row, 0, junction).map(Arc::new)
                    })
                    .optional()
            })
            .map_err(fault)
    }

    fn link_row(&mut self, ends: &Ends, own: &Value, other: &Value) -> Result<bool> {
        if self.link_of(ends, own, other)?.is_some() {
            return Ok(false);
        }
        let mut values = vec![Value::Null; ends.junction.columns.len()];
        if let Some(key) = ends.name(own, other).and_then(|name| self.unlinked.remove(&name)) {
            values[ends.junction.primary] = key;
        }
        values[ends.own] = own.clone();
        values[ends.other] = other.clone();
        self.insert_row(&ends.junction, values, false)?;
        Ok(true)
    }

    fn unlink_row(&mut self, ends: &Ends, own: &Value, other: &Value) -> Result<bool> {
        let Some(row) = self.link_of(ends, own, other)? else {
            return Ok(false);
        };
        if let Some(name) = ends.name(own, other) {
            self.unlinked.insert(name, row.get(ends.junction.primary).clone());
        }
        self.delete_row(&ends.junction, row, false)?;
        Ok(true)
    }
}

/// A relation of a schema to itself that is its own back reference (friends): links go both ways.
fn both_ways(schema: &Schema, relation: &Relation) -> bool {
    relation.target == schema.id && relation.back == relation.name
}
