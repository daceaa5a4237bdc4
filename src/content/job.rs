//! One write in its transaction: which rule allows it, what it changes.
//!
//! A write is allowed by one single alternative of the grant: for the old state, the new state and
//! every field written. The first in the file that allows it decides, and its `set` goes over what
//! the client sent.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::auth::grant::{self, Action, FieldSet, Grant};
use crate::auth::principal::Principal;
use crate::error::{Error, Result};
use crate::filter::{Predicate, Truth, eval};
use crate::limits::Limits;
use crate::model::catalog::Catalog;
use crate::model::change::Row;
use crate::model::related::NoRelated;
use crate::model::schema::{FieldRef, Schema, SchemaId};
use crate::model::value::Value;
use crate::store::{Rows, Tx, clash_told};

use super::input::{self, ColumnWrite, Input};
use super::read::{holds, shown};

/// A write under way.
pub(super) struct Job<'a, 't> {
    pub tx: &'a mut Tx<'t>,
    pub catalog: Arc<Catalog>,
    pub principal: &'a Principal,
    pub limits: &'a Limits,
    reads: HashMap<SchemaId, Arc<Grant>>,
    updates: HashMap<SchemaId, Arc<Rules>>,
    /// New states whose rule reads through relations: looked at when all is written.
    pending: Vec<Pending>,
}

struct Pending {
    schema: Arc<Schema>,
    rules: Arc<Rules>,
    alternative: usize,
    key: Value,
}

/// What a principal may do to records of a schema, each alternative's `set` worked out.
pub(super) struct Rules {
    pub action: Action,
    pub grant: Grant,
    pub sets: Vec<Input>,
    /// Refusals tell a guest to log in.
    guest: bool,
}

impl Rules {
    pub(super) fn new(
        catalog: &Catalog,
        schema: &Schema,
        principal: &Principal,
        limits: &Limits,
        grant: Grant,
        action: Action,
    ) -> Result<Rules> {
        let set = |held: &grant::Alternative| input::from_rule(catalog, schema, limits, &held.set);
        let sets = grant.alternatives.iter().map(set).collect::<Result<_>>()?;
        Ok(Rules { action, grant, sets, guest: !principal.logged_in })
    }

    /// The alternatives that hold every field written. What a rule sets itself is not the
    /// client's to be allowed.
    ///
    /// # Errors
    /// 403 naming a field, where there is none.
    pub(super) fn counting(&self, schema: &Schema, input: &Input) -> Result<Vec<usize>> {
        let mut counting: Vec<usize> = (0..self.grant.alternatives.len()).collect();
        for field in input.fields() {
            counting.retain(|at| {
                self.grant.alternatives[*at].fields.has(field)
                    || self.sets[*at].fields().any(|set| set == field)
            });
            if counting.is_empty() {
                let field = input::field_name(schema, field);
                return Err(self.refuse(format_args!("'{field}' of '{}'", schema.name)));
            }
        }
        Ok(counting)
    }

    /// 403, or 401 for a guest.
    fn refuse(&self, what: impl std::fmt::Display) -> Error {
        let message = format!("no rule lets you {} {what}", self.action.name());
        match self.guest {
            false => Error::forbidden(message),
            true => Error::unauthorized(message),
        }
    }

    fn refuse_record(&self, schema: &Schema, row: &Row) -> Error {
        let key = show(schema, row.get(schema.primary));
        self.refuse(format_args!("this '{}' {key}", schema.name))
    }

    fn refuse_state(&self, schema: &Schema) -> Error {
        self.refuse(format_args!("'{}' to this state", schema.name))
    }

    pub(super) fn filter(&self, alternative: usize) -> &Predicate {
        &self.grant.alternatives[alternative].filter
    }
}

/// Whose wish a write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The record that the request names.
    Named,
    /// A record whose key a relation of the named one changes.
    Related,
}

impl<'a, 't> Job<'a, 't> {
    pub(super) fn new(tx: &'a mut Tx<'t>, principal: &'a Principal, limits: &'a Limits) -> Self {
        let catalog = tx.catalog().clone();
        Job {
            tx,
            catalog,
            principal,
            limits,
            reads: HashMap::new(),
            updates: HashMap::new(),
            pending: Vec::new(),
        }
    }

    pub(super) fn schema(&self, id: SchemaId) -> Result<Arc<Schema>> {
        let schema = self.catalog.get(id).cloned();
        schema.ok_or_else(|| Error::internal(format_args!("no schema {}", id.0)))
    }

    fn read_grant(&mut self, schema: &Schema) -> Arc<Grant> {
        let (catalog, principal) = (&self.catalog, self.principal);
        self.reads
            .entry(schema.id)
            .or_insert_with(|| Arc::new(grant::resolve(catalog, schema, principal, Action::Read)))
            .clone()
    }

    /// What the principal may do to records that a relation changes.
    pub(super) fn update_rules(&mut self, schema: &Schema) -> Result<Arc<Rules>> {
        if let Some(rules) = self.updates.get(&schema.id) {
            return Ok(rules.clone());
        }
        let (catalog, principal, limits) = (&self.catalog, self.principal, self.limits);
        let grant = grant::require(catalog, schema, principal, Action::Update)?;
        let rules =
            Arc::new(Rules::new(catalog, schema, principal, limits, grant, Action::Update)?);
        self.updates.insert(schema.id, rules.clone());
        Ok(rules)
    }

    /// Whether the principal may read something of the record.
    pub(super) fn visible(&mut self, schema: &Schema, row: &Arc<Row>) -> Result<bool> {
        let grant = self.read_grant(schema);
        for held in &grant.alternatives {
            if holds(self.tx, schema, &held.filter, row)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// `$add` and `$expr` start from what the principal may read of this very record.
    ///
    /// # Errors
    /// 400, as for an unknown field.
    pub(super) fn may_start_from(
        &mut self,
        schema: &Schema,
        row: &Arc<Row>,
        input: &Input,
    ) -> Result<()> {
        let reads = input.reads();
        if reads.is_empty() {
            return Ok(());
        }
        let grant = self.read_grant(schema);
        let shown = shown(self.tx, schema, &grant, row)?;
        match reads.iter().find(|slot| **slot != schema.primary && !shown.columns[**slot]) {
            None => Ok(()),
            Some(slot) => Err(input::unknown(&schema.columns[*slot].name)),
        }
    }

    /// A record that a request names as related: it must be there and readable.
    ///
    /// # Errors
    /// 400, the same for records that are not there and for hidden ones.
    pub(super) fn related(
        &mut self,
        relation: &str,
        target: &Schema,
        key: &Value,
    ) -> Result<Arc<Row>> {
        if let Some(row) = self.tx.get(target, key)?
            && self.visible(target, &row)?
        {
            return Ok(row);
        }
        Err(no_related(relation, target, key))
    }

    /// Creates (`old` is `None`) or updates one record under `rules`.
    ///
    /// # Errors
    /// 400 for values and relations, 403 where no alternative allows it.
    pub(super) fn write(
        &mut self,
        schema: &Arc<Schema>,
        rules: &Arc<Rules>,
        old: Option<&Arc<Row>>,
        input: &Input,
        origin: Origin,
    ) -> Result<Arc<Row>> {
        let allowed = self.allowed(schema, rules, old, input)?;
        self.write_allowed(schema, rules, old, input, allowed, origin)
    }

    /// The alternatives that hold every field written and are TRUE for the old state; never none.
    ///
    /// # Errors
    /// 403.
    pub(super) fn allowed(
        &self,
        schema: &Schema,
        rules: &Rules,
        old: Option<&Arc<Row>>,
        input: &Input,
    ) -> Result<Vec<usize>> {
        let counting = rules.counting(schema, input)?;
        let Some(old) = old else { return Ok(counting) };
        let mut allowed = Vec::with_capacity(counting.len());
        for at in counting {
            if holds(self.tx, schema, rules.filter(at), old)? {
                allowed.push(at);
            }
        }
        if allowed.is_empty() {
            return Err(rules.refuse_record(schema, old));
        }
        Ok(allowed)
    }

    /// [`Job::write`] under the first of `allowed` that is TRUE for the new state.
    ///
    /// # Errors
    /// As there.
    pub(super) fn write_allowed(
        &mut self,
        schema: &Arc<Schema>,
        rules: &Arc<Rules>,
        old: Option<&Arc<Row>>,
        input: &Input,
        allowed: Vec<usize>,
        origin: Origin,
    ) -> Result<Arc<Row>> {
        let last = allowed.len().saturating_sub(1);
        for (turn, at) in allowed.into_iter().enumerate() {
            let set = &rules.sets[at];
            let full = match set.columns.is_empty() && set.relations.is_empty() {
                true => Cow::Borrowed(input),
                false => Cow::Owned(input.overridden(set)),
            };
            let now = self.tx.now();
            let values = full.values(schema, old.map(|row| &**row), now, self.limits)?;
            if origin == Origin::Named {
                self.check_keys(schema, input, set)?;
            }
            let filter = rules.filter(at);
            let crosses = !filter.paths(&self.catalog, schema).is_empty();
            // A key that the store gives is part of the new state too.
            let complete = !values[schema.primary].is_null();
            if !crosses && complete {
                let row = Row::new(values);
                if eval::eval(filter, &self.catalog, schema, &row, &NoRelated) == Truth::True {
                    return self.apply(schema, old, row.values.into_vec(), &full, set, origin);
                }
                continue;
            }
            let mark = (turn < last).then(|| self.tx.mark()).transpose()?;
            let waiting = self.pending.len();
            let row = self.apply(schema, old, values, &full, set, origin)?;
            // The last one has no other after it: it may wait until all is written, as it must
            // hold for the state after the whole write.
            if (mark.is_none() && crosses) || holds(self.tx, schema, filter, &row)? {
                if crosses {
                    self.pending.push(Pending {
                        schema: schema.clone(),
                        rules: rules.clone(),
                        alternative: at,
                        key: row.get(schema.primary).clone(),
                    });
                }
                mark.map_or(Ok(()), |mark| self.tx.keep(mark))?;
                return Ok(row);
            }
            match mark {
                Some(mark) => {
                    self.tx.undo(mark)?;
                    self.pending.truncate(waiting);
                }
                None => break,
            }
        }
        Err(rules.refuse_state(schema))
    }

    /// Every key that the client gives in own columns leads to a readable record.
    fn check_keys(&mut self, schema: &Schema, input: &Input, set: &Input) -> Result<()> {
        for (slot, write) in &input.columns {
            let Some(index) = schema.columns[*slot].key_of else { continue };
            if set.columns.contains_key(slot) {
                continue;
            }
            let relation = &schema.relations[index];
            let target = self.schema(relation.target)?;
            let keys = match write {
                ColumnWrite::Set(Value::Null) => &[],
                ColumnWrite::Set(key) => std::slice::from_ref(key),
                ColumnWrite::Unset(keys) => keys.as_slice(),
                ColumnWrite::Add(_) | ColumnWrite::Expr(_) => &[],
            };
            for key in keys {
                self.related(&relation.name, &target, key)?;
            }
        }
        Ok(())
    }

    fn apply(
        &mut self,
        schema: &Arc<Schema>,
        old: Option<&Arc<Row>>,
        values: Vec<Value>,
        full: &Input,
        set: &Input,
        origin: Origin,
    ) -> Result<Arc<Row>> {
        if origin == Origin::Named {
            self.loosen(schema, old, &values)?;
        }
        let done = match (old, origin) {
            (None, _) => self.tx.insert(schema, values),
            (Some(old), origin) => {
                self.tx.update_read(schema, old, values, origin == Origin::Named)
            }
        };
        let row = done.map_err(|error| {
            let read = self.read_grant(schema);
            // A clash tells of what was written and of what may be read of every record.
            let open = |slot| {
                read.alternatives.iter().any(|held| {
                    held.filter == Predicate::ALL && held.fields.has(FieldRef::Column(slot))
                })
            };
            clash_told(error, |name| {
                let slot = schema.column(name);
                slot.is_some_and(|slot| full.columns.contains_key(&slot) || open(slot))
            })
        })?;
        if origin == Origin::Named {
            self.fasten(schema, &row)?;
        }
        for (index, write) in &full.relations {
            let by_rule = set.relations.contains_key(index);
            self.relate(schema, *index, &row, write, by_rule)?;
        }
        match full.relations.is_empty() {
            true => Ok(row),
            // A record may be related to itself.
            false => Ok(self.tx.get(schema, row.get(schema.primary))?.unwrap_or(row)),
        }
    }

    /// Looks at the new states that wait for the whole write. To be called at its end.
    ///
    /// # Errors
    /// 403 where one is not allowed.
    pub(super) fn finish(&mut self) -> Result<()> {
        for pending in std::mem::take(&mut self.pending) {
            let Pending { schema, rules, alternative, key } = pending;
            // Deleted by the same write: there is no new state.
            let Some(row) = self.tx.get(&schema, &key)? else { continue };
            if !holds(self.tx, &schema, rules.filter(alternative), &row)? {
                return Err(rules.refuse_state(&schema));
            }
        }
        Ok(())
    }

    /// Whether a record that is readable may be deleted.
    ///
    /// # Errors
    /// 403 where no alternative allows it.
    pub(super) fn may_delete(
        &self,
        schema: &Arc<Schema>,
        rules: &Rules,
        row: &Arc<Row>,
    ) -> Result<()> {
        match holds(self.tx, schema, &rules.grant.filter(), row)? {
            true => Ok(()),
            false => Err(rules.refuse_record(schema, row)),
        }
    }
}

/// A record that is not there, or hidden, named as related.
pub(super) fn no_related(relation: &str, target: &Schema, key: &Value) -> Error {
    Error::bad(format!("{relation}: no '{}' {}", target.name, show(target, key)))
}

/// `with id 5`.
pub(super) fn show(schema: &Schema, key: &Value) -> String {
    let mut text = Vec::new();
    key.write_json(&mut text);
    format!("with {} {}", schema.primary_column().name, String::from_utf8_lossy(&text))
}

/// Fields that a principal may name when it writes: what it may read or write of some record.
pub(super) fn known(grants: &[&Grant], schema: &Schema) -> FieldSet {
    let mut fields = FieldSet::none(schema);
    fields.add(schema, FieldRef::Column(schema.primary));
    for held in grants.iter().flat_map(|grant| &grant.alternatives) {
        fields.union(&held.fields);
        for (field, _) in &held.set {
            fields.add(schema, *field);
        }
    }
    fields
}
