//! Many records at once, each good or bad by itself.

use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::auth::grant::Action;
use crate::auth::principal::Principal;
use crate::error::{Error, Kind, Result};
use crate::filter::{Predicate, Test, TestOp};
use crate::model::change::Row;
use crate::model::schema::Schema;
use crate::model::value::Value;
use crate::store::{Query, Rows, Tx};

use super::input::{ColumnWrite, Input};
use super::job::{Job, Origin, Rules};
use super::write::{Asked, Prepared};
use super::{Content, accounts};

/// What becomes of a record whose primary key or unique value is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// It is refused.
    #[default]
    Error,
    /// What is there stays.
    Skip,
    /// What is there is updated.
    Update,
}

/// How records are imported.
#[derive(Clone, Copy, Debug, Default)]
pub struct ImportAsk {
    pub on_conflict: OnConflict,
    /// The first refused record refuses all.
    pub all_or_nothing: bool,
}

/// What became of the records.
#[derive(Clone, Debug, Default)]
pub struct Imported {
    pub created: u64,
    pub updated: u64,
    pub skipped: u64,
    /// Index and reason of each refused record.
    pub refused: Vec<(usize, Error)>,
}

impl Content {
    /// Writes `records` in one write: the good ones, or with `all_or_nothing` all or none.
    ///
    /// # Errors
    /// Those of no single record: no such schema, no rule, over the limits of a write.
    pub async fn import(
        &self,
        principal: &Principal,
        schema: &str,
        records: Vec<Map<String, Json>>,
        ask: ImportAsk,
    ) -> Result<Imported> {
        let catalog = self.store.catalog();
        if accounts::holds_password(&catalog, schema) && records.iter().any(has_password) {
            return Err(Error::bad("password: is set one user at a time"));
        }
        let asked = |action, body| Asked {
            principal: principal.clone(),
            limits: self.limits.clone(),
            schema: schema.to_owned(),
            action,
            body: Arc::new(body),
        };
        // An empty body stands for all of them: is there such a schema, and a rule?
        asked(Action::Create, Map::new()).prepare(&catalog)?;
        let records: Vec<Asked> =
            records.into_iter().map(|body| asked(Action::Create, body)).collect();
        let (principal, limits) = (principal.clone(), self.limits.clone());
        // Survives the undoing of an import that is all or nothing.
        let (tell, told) = std::sync::mpsc::channel();
        let job = move |tx: &mut Tx<'_>| {
            let mut imported = Imported::default();
            let mut job = Job::new(tx, &principal, &limits);
            for (index, record) in records.iter().enumerate() {
                let mark = job.tx.mark()?;
                match job.import(record, ask.on_conflict) {
                    Ok(Outcome::Created) => imported.created += 1,
                    Ok(Outcome::Updated) => imported.updated += 1,
                    Ok(Outcome::Skipped) => imported.skipped += 1,
                    Err(error) if of_one_record(&error) => {
                        job.tx.undo(mark)?;
                        imported.refused.push((index, error));
                    }
                    Err(error) => return Err(error),
                }
            }
            job.finish()?;
            let first = records.first().and_then(|first| job.catalog.named(&first.schema)).cloned();
            if let Some(schema) = first {
                accounts::written(&mut job, &schema, None, None)?;
            }
            if ask.all_or_nothing && !imported.refused.is_empty() {
                let refused = std::mem::take(&mut imported.refused);
                let _ = tell.send(Imported { refused, ..Imported::default() });
                return Err(Error::bad("refused as a whole"));
            }
            Ok(imported)
        };
        match self.store.write(job).await {
            Ok(written) => Ok(written.value),
            Err(error) => told.try_recv().map_err(|_| error),
        }
    }
}

/// Whether an error is one record's own fault, so that others may do better.
fn of_one_record(error: &Error) -> bool {
    matches!(
        error.kind,
        Kind::Bad | Kind::Forbidden | Kind::NotFound | Kind::Conflict | Kind::Unprocessable
    )
}

fn has_password(record: &Map<String, Json>) -> bool {
    ["password", "$set"].iter().any(|key| record.contains_key(*key))
}

enum Outcome {
    Created,
    Updated,
    Skipped,
}

impl Job<'_, '_> {
    fn import(&mut self, asked: &Asked, on_conflict: OnConflict) -> Result<Outcome> {
        let create = asked.prepare(&self.catalog)?;
        let existing = match on_conflict {
            OnConflict::Error => None,
            _ => self.existing(&create.schema, &create.input)?,
        };
        match (existing, on_conflict) {
            (Some(_), OnConflict::Skip) => Ok(Outcome::Skipped),
            (Some(old), _) => {
                let update = Asked { action: Action::Update, ..asked.clone() };
                let update = update.prepare(&self.catalog)?;
                self.may_start_from(&update.schema, &old, &update.input)?;
                self.put(update, Action::Update, Some(&old))?;
                Ok(Outcome::Updated)
            }
            (None, _) => {
                self.put(create, Action::Create, None)?;
                Ok(Outcome::Created)
            }
        }
    }

    fn put(&mut self, prepared: Prepared, action: Action, old: Option<&Arc<Row>>) -> Result<()> {
        let Prepared { schema, grant, input, .. } = prepared;
        let rules = Rules::new(&self.catalog, &schema, self.limits, grant, action)?;
        self.write(&schema, &Rc::new(rules), old, &input, Origin::Named).map(drop)
    }

    /// The record that holds the primary key or a unique value of this one already.
    fn existing(&self, schema: &Arc<Schema>, input: &Input) -> Result<Option<Arc<Row>>> {
        for (slot, write) in &input.columns {
            let unique = *slot == schema.primary || schema.columns[*slot].unique;
            let ColumnWrite::Set(value) = write else { continue };
            if !unique || *value == Value::Null {
                continue;
            }
            let filter = Predicate::Test(Test { slot: *slot, op: TestOp::Eq(value.clone()) });
            let found = self.tx.select(&Query {
                schema: schema.clone(),
                filter,
                sort: Vec::new(),
                limit: Some(1),
                offset: 0,
            })?;
            if let Some(row) = found.into_iter().next() {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }
}
