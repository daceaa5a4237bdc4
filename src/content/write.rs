//! Create, update and delete of one record.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::auth::directory::Directory;
use crate::auth::grant::Action;
use crate::auth::password::PasswordHash;
use crate::auth::principal::Principal;
use crate::error::{Error, Kind, Result};
use crate::limits::Limits;
use crate::model::catalog::Catalog;
use crate::model::change::Row;
use crate::model::json;
use crate::model::related::RelatedSet;
use crate::model::schema::Schema;
use crate::model::value::Value;
use crate::query::{Ask, Plan, parse_key};
use crate::store::fair::Payer;
use crate::store::{Lane, Rows, Tx};

use super::input::{self, Input, Mode, Scope};
use super::job::{Job, Origin, Rules};
use super::read::missing;
use super::terms::Known;
use super::{Content, accounts};

/// A write as it was asked for, checked against one catalog. Made before the writer is asked, so
/// that the writer's thread has little left to do, and anew there if a migration came between, or
/// the principal's rights are others by then.
pub(super) struct Prepared {
    catalog: Arc<Catalog>,
    pub schema: Arc<Schema>,
    pub rules: Arc<Rules>,
    pub input: Input,
    /// What the principal may see: of the answer, or the records of a bulk call.
    pub plan: Result<Arc<Plan>>,
}

/// Everything that checking a write starts from.
pub(super) struct Asked {
    pub principal: Principal,
    pub limits: Arc<Limits>,
    pub known: Arc<Known>,
    pub directory: Option<Arc<Directory>>,
    pub ask: Ask,
    pub action: Action,
    pub body: Map<String, Json>,
}

impl Asked {
    /// # Errors
    /// No such schema, no rule (401, 403), 400 for the body.
    pub(super) fn prepare(&self, catalog: &Arc<Catalog>) -> Result<Prepared> {
        let (principal, limits, action) = (&self.principal, &*self.limits, self.action);
        let terms = self.known.of(catalog, principal, limits, &self.ask, action)?;
        let scope = Scope {
            catalog,
            schema: &terms.schema,
            limits,
            mode: if action == Action::Create { Mode::Create } else { Mode::Update },
            known: &|field| terms.known.has(field),
            readable: &|field| terms.read.offers(field),
        };
        let input = input::parse(&scope, &self.body)?;
        Ok(Prepared {
            catalog: terms.catalog.clone(),
            schema: terms.schema.clone(),
            rules: terms.rules.clone(),
            input,
            plan: terms.plan.clone(),
        })
    }

    /// What was prepared, if it still holds in this transaction.
    ///
    /// # Errors
    /// 401 where the principal may no longer be here; as [`Asked::prepare`] where it must be made
    /// anew.
    pub(super) fn prepared(&mut self, prepared: Prepared, tx: &Tx<'_>) -> Result<Prepared> {
        let changed = accounts::changed(self.directory.as_deref(), &self.principal)?;
        if changed.is_none() && Arc::ptr_eq(&prepared.catalog, tx.catalog()) {
            return Ok(prepared);
        }
        if let Some(now) = changed {
            self.principal = Arc::unwrap_or_clone(now);
        }
        // For this write alone: the catalog may yet be taken back.
        self.known = Arc::default();
        self.prepare(tx.catalog())
    }
}

/// Records that a delete may change besides its own before it counts as one that takes long.
const CONSEQUENCES: usize = 500;

/// A record as its writer may see it.
struct Shown {
    schema: Arc<Schema>,
    /// `None` where the principal may read nothing of it: only its key is told.
    plan: Option<Arc<Plan>>,
    row: Arc<Row>,
    related: RelatedSet,
}

impl Shown {
    fn new(
        job: &Job<'_, '_>,
        schema: &Arc<Schema>,
        plan: Result<Arc<Plan>>,
        row: Arc<Row>,
    ) -> Result<Shown> {
        let plan = match plan {
            Ok(plan) => Some(plan),
            Err(error) if matches!(error.kind, Kind::Unauthorized | Kind::Forbidden) => None,
            Err(error) => return Err(error),
        };
        let related = match &plan {
            Some(plan) if !plan.paths.is_empty() => {
                job.tx.gather(schema, std::slice::from_ref(&row), &plan.paths)?
            }
            _ => RelatedSet::default(),
        };
        let plan = plan.filter(|plan| plan.matches(&row, &related));
        Ok(Shown { schema: schema.clone(), plan, row, related })
    }

    fn json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        match &self.plan {
            Some(plan) => plan.body.encode(&self.row, &self.related, &mut out),
            None => return key_json(&self.schema, self.row.get(self.schema.primary)),
        }
        out
    }
}

/// `{"id":1}`.
fn key_json(schema: &Schema, key: &Value) -> Vec<u8> {
    let mut out = vec![b'{'];
    json::write_string(&schema.primary_column().name, &mut out);
    out.push(b':');
    key.write_json(&mut out);
    out.push(b'}');
    out
}

impl Content {
    /// Creates a record and gives it back, cut to what the principal may read.
    ///
    /// # Errors
    /// No such schema; 401 or 403 where no rule allows it; 400 naming the field.
    pub async fn create(
        &self,
        principal: &Principal,
        schema: &str,
        body: Map<String, Json>,
    ) -> Result<Vec<u8>> {
        let (mut asked, prepared, password) =
            self.asked(principal, schema, Action::Create, body).await?;
        let job = move |tx: &mut Tx<'_>| {
            let Prepared { schema, rules, input, plan, .. } = asked.prepared(prepared, tx)?;
            let mut job = Job::new(tx, &asked.principal, &asked.limits);
            let row = job.write(&schema, &rules, None, &input, Origin::Named)?;
            job.finish()?;
            accounts::written(&mut job, &schema, Some(&row), password.as_ref())?;
            Shown::new(&job, &schema, plan, row)
        };
        Ok(self.store.write(job).await?.value.json())
    }

    /// Updates a record and gives it back, cut to what the principal may read. Every update sets
    /// `updated_at` and is told, even when nothing else changed.
    ///
    /// # Errors
    /// Those of [`Content::create`]; 404 for a record that is not there or may not be read.
    pub async fn update(
        &self,
        principal: &Principal,
        schema: &str,
        id: &str,
        body: Map<String, Json>,
    ) -> Result<Vec<u8>> {
        let (mut asked, prepared, password) =
            self.asked(principal, schema, Action::Update, body).await?;
        let id = id.to_owned();
        let job = move |tx: &mut Tx<'_>| {
            let Prepared { schema, rules, input, plan, .. } = asked.prepared(prepared, tx)?;
            let mut job = Job::new(tx, &asked.principal, &asked.limits);
            let old = job.readable(&schema, &id)?;
            job.may_start_from(&schema, &old, &input)?;
            let row = job.write(&schema, &rules, Some(&old), &input, Origin::Named)?;
            job.finish()?;
            accounts::written(&mut job, &schema, Some(&row), password.as_ref())?;
            Shown::new(&job, &schema, plan, row)
        };
        Ok(self.store.write(job).await?.value.json())
    }

    /// Deletes a record and gives its key back: `{"id":1}`.
    ///
    /// # Errors
    /// As [`Content::update`]; 409 while a required relation leads to the record.
    pub async fn delete(&self, principal: &Principal, schema: &str, id: &str) -> Result<Vec<u8>> {
        let short = self.delete_among(principal, schema, id, Some(CONSEQUENCES)).await?;
        if let Some(key) = self.store.write(short).await?.value {
            return Ok(key);
        }
        // It would change many: others' writes should not stand behind it, and behind the next.
        let long = self.delete_among(principal, schema, id, None).await?;
        let lane = Lane::Of(Payer::of(principal.user, None));
        let deleted = self.store.write_long(lane, long).await?.value;
        deleted.ok_or_else(|| Error::internal("a delete that was not done"))
    }

    /// A job that deletes the record, unless more than `most` others would change: then it does
    /// nothing, and gives `None`.
    async fn delete_among(
        &self,
        principal: &Principal,
        schema: &str,
        id: &str,
        most: Option<usize>,
    ) -> Result<impl FnOnce(&mut Tx<'_>) -> Result<Option<Vec<u8>>> + Send + 'static> {
        let (mut asked, prepared, _) =
            self.asked(principal, schema, Action::Delete, Map::new()).await?;
        let id = id.to_owned();
        Ok(move |tx: &mut Tx<'_>| {
            let Prepared { schema, rules, .. } = asked.prepared(prepared, tx)?;
            let mut job = Job::new(tx, &asked.principal, &asked.limits);
            let row = job.readable(&schema, &id)?;
            let key = row.get(schema.primary);
            if let Some(most) = most
                && job.tx.drags(&schema, key, most)?
            {
                return Ok(None);
            }
            job.delete(&schema, &rules, &row)?;
            accounts::written(&mut job, &schema, None, None)?;
            Ok(Some(key_json(&schema, key)))
        })
    }

    /// Checks what can be checked before the writer's turn, and hashes a user's password.
    async fn asked(
        &self,
        principal: &Principal,
        schema: &str,
        action: Action,
        mut body: Map<String, Json>,
    ) -> Result<(Asked, Prepared, Option<PasswordHash>)> {
        let catalog = self.store.catalog();
        let password = match accounts::holds_password(&catalog, schema) {
            true => accounts::take_password(&mut body)?,
            false => None,
        };
        let asked = Asked {
            principal: principal.clone(),
            limits: self.limits.clone(),
            known: self.known.clone(),
            directory: self.directory(),
            ask: Ask { schema: schema.to_owned(), ..Ask::default() },
            action,
            body,
        };
        let prepared = asked.prepare(&catalog)?;
        // Only for those who may write users at all: hashing is dear.
        let hash = match password {
            Some(password) => Some(self.hash(&password).await?),
            None => None,
        };
        Ok((asked, prepared, hash))
    }
}

impl Job<'_, '_> {
    /// The record of that id, if the principal may read any of it.
    fn readable(&mut self, schema: &Arc<Schema>, id: &str) -> Result<Arc<Row>> {
        let key = parse_key(schema, id)?;
        if let Some(row) = self.tx.get(schema, &key)?
            && self.visible(schema, &row)?
        {
            return Ok(row);
        }
        Err(missing(schema, id))
    }
}
