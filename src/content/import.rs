//! Many records at once, each good or bad by itself.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::auth::directory::Directory;
use crate::auth::grant::Action;
use crate::auth::principal::Principal;
use crate::error::{Error, Kind, Problem, Result};
use crate::filter::{Predicate, Test, TestOp};
use crate::limits::Limits;
use crate::model::catalog::Catalog;
use crate::model::change::Row;
use crate::model::schema::Schema;
use crate::model::value::Value;
use crate::nice;
use crate::query::Ask;
use crate::store::fair::Payer;
use crate::store::{Lane, Query, Rows, Tx};

use super::input::{ColumnWrite, Input};
use super::job::{Job, Origin};
use super::terms::Known;
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

/// Records that one commit of an import takes, unless all or none are wanted: others' writes come
/// between, and nobody is told more at once.
pub const IMPORT_RECORDS: usize = 500;

/// How records are imported.
#[derive(Clone, Copy, Debug, Default)]
pub struct ImportAsk {
    /// What becomes of a record that is there already.
    pub on_conflict: OnConflict,
    /// The first refused record refuses all.
    pub all_or_nothing: bool,
}

/// What became of the records.
#[derive(Clone, Debug, Default)]
pub struct Imported {
    /// How many are new.
    pub created: u64,
    /// How many were there and are changed.
    pub updated: u64,
    /// How many were there and stayed.
    pub skipped: u64,
    /// Index and reason of each refused record.
    pub refused: Vec<(usize, Error)>,
}

impl Content {
    /// Writes `records`, the good ones, with a commit for each [`IMPORT_RECORDS`] of them; or with
    /// `all_or_nothing` all in one, or none: then what was refused is all that could be told
    /// before writing, or the first while writing.
    ///
    /// # Errors
    /// Those of no single record: no such schema, no rule, over the limits of a write. What was
    /// committed before such an error stays: its message says how many records that are, and its
    /// `problems` which were refused among them.
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
        if ask.all_or_nothing {
            return self.import_at_once(principal, schema, records, ask).await;
        }
        let mut imported = Imported::default();
        let mut records = records.into_iter();
        let mut before = 0;
        loop {
            let next: Vec<_> = records.by_ref().take(IMPORT_RECORDS).collect();
            let count = next.len();
            match self.import_at_once(principal, schema, next, ask).await {
                Ok(done) => imported.add(before, done),
                Err(error) if before == 0 => return Err(error),
                Err(error) => {
                    let Imported { created, updated, refused, .. } = imported;
                    let message = format!(
                        "{} (of the {before} before, {created} created, {updated} updated)",
                        error.message
                    );
                    let problems = refused.into_iter().map(problem).collect();
                    return Err(Error { message, problems, ..error });
                }
            }
            before += count;
            if records.len() == 0 {
                return Ok(imported);
            }
        }
    }

    async fn import_at_once(
        &self,
        principal: &Principal,
        schema: &str,
        records: Vec<Map<String, Json>>,
        ask: ImportAsk,
    ) -> Result<Imported> {
        let catalog = self.store.catalog();
        let mut writing = Writing {
            principal: principal.clone(),
            limits: self.limits.clone(),
            known: self.known.clone(),
            directory: self.directory(),
            schema: schema.to_owned(),
        };
        // An empty body stands for all of them: is there such a schema, and a rule?
        writing.asked(Action::Create, Map::new()).prepare(&catalog)?;
        let mut imported = Imported::default();
        let mut good = Vec::with_capacity(records.len());
        for (index, record) in records.into_iter().enumerate() {
            nice::pause();
            let asked = writing.asked(Action::Create, record);
            match asked.prepare(&catalog) {
                Ok(prepared) => good.push((index, asked.body, prepared)),
                Err(error) if of_one_record(&error) => imported.refused.push((index, error)),
                Err(error) => return Err(error),
            }
        }
        if ask.all_or_nothing && !imported.refused.is_empty() {
            return Ok(imported);
        }
        // Survives the undoing of an import that is all or nothing.
        let (tell, told) = std::sync::mpsc::channel();
        let job = move |tx: &mut Tx<'_>| {
            let still = writing.still(&catalog, tx)?;
            let mut job = Job::new(tx, &writing.principal, &writing.limits);
            for (index, record, prepared) in good {
                let prepared = still.then_some(prepared);
                let late = prepared.as_ref().is_none_or(refused_late);
                let mark = (late && !ask.all_or_nothing).then(|| job.tx.mark()).transpose()?;
                match (job.import(&writing, record, prepared, ask.on_conflict), mark) {
                    (Ok(outcome), mark) => {
                        imported.count(outcome);
                        if let Some(mark) = mark {
                            job.tx.keep(mark)?;
                        }
                    }
                    (Err(error), mark) if !ask.all_or_nothing && of_one_record(&error) => {
                        if let Some(mark) = mark {
                            job.tx.undo(mark)?;
                        }
                        imported.refused.push((index, error));
                    }
                    (Err(error), _) => {
                        if of_one_record(&error) {
                            let refused = vec![(index, error.clone())];
                            let _ = tell.send(Imported { refused, ..Imported::default() });
                        }
                        return Err(error);
                    }
                }
            }
            job.finish()?;
            if let Some(schema) = job.catalog.named(&writing.schema).cloned() {
                accounts::written(&mut job, &schema, None, None)?;
            }
            imported.refused.sort_by_key(|(index, _)| *index);
            Ok(imported)
        };
        // Nobody but the owner has a way here.
        let lane = Lane::Of(Payer::of(principal.user, None));
        match self.store.write_long(lane, job).await {
            Ok(written) => Ok(written.value),
            Err(error) => told.try_recv().map_err(|_| error),
        }
    }
}

impl Imported {
    /// What became of more records, those that came after the first `before`.
    fn add(&mut self, before: usize, more: Imported) {
        self.created += more.created;
        self.updated += more.updated;
        self.skipped += more.skipped;
        self.refused.extend(more.refused.into_iter().map(|(at, error)| (before + at, error)));
    }

    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Created => self.created += 1,
            Outcome::Updated => self.updated += 1,
            Outcome::Skipped => self.skipped += 1,
        }
    }
}

/// A refused record, as the error of the whole call tells it.
fn problem((index, error): (usize, Error)) -> Problem {
    Problem {
        code: "record.refused".to_owned(),
        file: None,
        line: None,
        path: format!("records[{index}]"),
        field: String::new(),
        message: error.message,
    }
}

/// Whether an error is one record's own fault, so that others may do better.
fn of_one_record(error: &Error) -> bool {
    matches!(
        error.kind,
        Kind::Bad | Kind::Forbidden | Kind::NotFound | Kind::Conflict | Kind::Unprocessable
    )
}

/// Whether a record may be refused when some of it is written already, which must be taken back
/// then. Where it is one row, SQLite takes it or does not; a place to go back to costs a copy of
/// each page that is written after it.
fn refused_late(create: &Prepared) -> bool {
    let alternatives = &create.rules.grant.alternatives;
    !create.schema.relations.is_empty()
        || alternatives.iter().any(|held| held.filter != Predicate::ALL)
}

fn has_password(record: &Map<String, Json>) -> bool {
    ["password", "$set"].iter().any(|key| record.contains_key(*key))
}

enum Outcome {
    Created,
    Updated,
    Skipped,
}

/// What all records of an import have in common.
struct Writing {
    principal: Principal,
    limits: Arc<Limits>,
    known: Arc<Known>,
    directory: Option<Arc<Directory>>,
    schema: String,
}

impl Writing {
    /// Whether what was checked holds; if not, the records are to be checked for whom the
    /// principal is by now.
    ///
    /// # Errors
    /// As [`Asked::prepared`].
    fn still(&mut self, checked: &Arc<Catalog>, tx: &Tx<'_>) -> Result<bool> {
        let changed = accounts::changed(self.directory.as_deref(), &self.principal)?;
        if changed.is_none() && Arc::ptr_eq(checked, tx.catalog()) {
            return Ok(true);
        }
        if let Some(now) = changed {
            self.principal = Arc::unwrap_or_clone(now);
        }
        // For this write alone: the catalog may yet be taken back.
        self.known = Arc::default();
        self.asked(Action::Create, Map::new()).prepare(tx.catalog()).map(|_| false)
    }

    fn asked(&self, action: Action, body: Map<String, Json>) -> Asked {
        Asked {
            principal: self.principal.clone(),
            limits: self.limits.clone(),
            known: self.known.clone(),
            directory: self.directory.clone(),
            ask: Ask { schema: self.schema.clone(), ..Ask::default() },
            action,
            body,
        }
    }
}

impl Job<'_, '_> {
    fn import(
        &mut self,
        writing: &Writing,
        record: Map<String, Json>,
        prepared: Option<Prepared>,
        on_conflict: OnConflict,
    ) -> Result<Outcome> {
        let asked = writing.asked(Action::Create, record);
        let create = prepared.map_or_else(|| asked.prepare(&self.catalog), Ok)?;
        let existing = match on_conflict {
            OnConflict::Error => None,
            _ => self.existing(&create.schema, &create.input)?,
        };
        match (existing, on_conflict) {
            (Some(_), OnConflict::Skip) => Ok(Outcome::Skipped),
            (Some(old), _) => {
                let asked = writing.asked(Action::Update, asked.body);
                let update = asked.prepare(&self.catalog)?;
                self.may_start_from(&update.schema, &old, &update.input)?;
                self.put(&update, Some(&old))?;
                Ok(Outcome::Updated)
            }
            (None, _) => {
                self.put(&create, None)?;
                Ok(Outcome::Created)
            }
        }
    }

    fn put(&mut self, prepared: &Prepared, old: Option<&Arc<Row>>) -> Result<()> {
        let Prepared { schema, rules, input, .. } = prepared;
        self.write(schema, rules, old, input, Origin::Named).map(drop)
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
