//! Input and old state → the new state's columns.

use crate::error::Result;
use crate::limits::Limits;
use crate::model::change::Row;
use crate::model::schema::{Column, Default, FieldRef, Schema, Slot};
use crate::model::value::Value;

use super::expr;
use super::input::{Clear, ColumnWrite, Input, wrong};

impl Input {
    /// Fields written: key columns stand for their relations.
    pub fn fields(&self) -> impl Iterator<Item = FieldRef> + '_ {
        let columns = self.columns.keys().map(|slot| FieldRef::Column(*slot));
        columns.chain(self.relations.keys().map(|index| FieldRef::Relation(*index)))
    }

    /// How many related records it names.
    pub fn names(&self) -> usize {
        let columns = self.columns.values().map(|write| match write {
            ColumnWrite::Unset(keys) => keys.len(),
            _ => 0,
        });
        let relations = self.relations.values().map(|write| match &write.clear {
            Clear::These(keys) => write.add.len() + keys.len(),
            _ => write.add.len(),
        });
        columns.chain(relations).sum()
    }

    /// Columns whose old value shows in the result.
    pub fn reads(&self) -> Vec<Slot> {
        let mut slots = Vec::new();
        for (slot, write) in &self.columns {
            match write {
                ColumnWrite::Add(_) => slots.push(*slot),
                ColumnWrite::Expr(expr) => slots.extend(expr.fields()),
                _ => {}
            }
        }
        slots
    }

    /// Whether it joins texts of the old state.
    pub fn joins(&self) -> bool {
        let joins = |write: &ColumnWrite| matches!(write, ColumnWrite::Expr(expr) if expr.joins());
        self.columns.values().any(joins)
    }

    /// This input with what `other` writes put over it.
    pub fn overridden(&self, other: &Input) -> Input {
        let mut input = self.clone();
        input.columns.extend(other.columns.clone());
        input.relations.extend(other.relations.clone());
        input
    }

    /// The new state's columns: `old`'s (an update) or defaults (a create), with this written over
    /// and the timestamps set to `now`.
    ///
    /// # Errors
    /// 400 naming the field: required and missing, overflow, out of range.
    pub fn values(
        &self,
        schema: &Schema,
        old: Option<&Row>,
        now: i64,
        limits: &Limits,
    ) -> Result<Vec<Value>> {
        if let (Some(same), Some(old)) = (&self.same, old)
            && same != old.get(schema.primary)
        {
            let name = &schema.primary_column().name;
            return Err(wrong(name, "is the primary key, which never changes"));
        }
        let mut values = Vec::with_capacity(schema.columns.len());
        for (slot, column) in schema.columns.iter().enumerate() {
            values.push(match (self.columns.get(&slot), old) {
                (Some(ColumnWrite::Set(value)), _) => value.clone(),
                (Some(write), Some(old)) => computed(schema, slot, write, old, limits)?,
                _ if schema.updated_at == Some(slot) => Value::Time(now),
                (None, Some(old)) => old.get(slot).clone(),
                _ if schema.created_at == Some(slot) => Value::Time(now),
                (_, None) => missing(schema, column, now)?,
            });
        }
        Ok(values)
    }
}

fn computed(
    schema: &Schema,
    slot: Slot,
    write: &ColumnWrite,
    old: &Row,
    limits: &Limits,
) -> Result<Value> {
    let column = &schema.columns[slot];
    let old_value = old.get(slot);
    let result = match write {
        ColumnWrite::Add(number) => expr::add(old_value, number),
        ColumnWrite::Expr(expr) => expr.run(old, limits.record_bytes),
        ColumnWrite::Unset(keys) if keys.contains(old_value) => return Ok(Value::Null),
        ColumnWrite::Unset(_) => return Ok(old_value.clone()),
        ColumnWrite::Set(value) => return Ok(value.clone()),
    };
    let value = result.map_err(|why| wrong(&column.name, why))?;
    // Range, enum words and size are those of any written value.
    let value = Value::from_json(&value.to_json(), column)
        .map_err(|why| wrong(&column.name, format_args!("computed value: {why}")))?;
    if value.is_null() && !column.optional {
        return Err(wrong(&column.name, "is required, and the computed value is null"));
    }
    Ok(value)
}

/// What stands in a column that a create leaves out.
fn missing(schema: &Schema, column: &Column, now: i64) -> Result<Value> {
    match &column.default {
        Some(Default::Value(value)) => Ok(value.clone()),
        Some(Default::Now) => Ok(Value::Time(now)),
        None if column.optional || column.automatic => Ok(Value::Null),
        None => {
            let name = match column.key_of {
                Some(index) => &schema.relations[index].name,
                None => &column.name,
            };
            Err(wrong(name, "is required"))
        }
    }
}
