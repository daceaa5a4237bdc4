//! Create, update and delete of one record.

use std::net::IpAddr;
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
use crate::store::room::Room;
use crate::store::{Lane, Rows, Tx};

use super::input::{self, Input, Mode, Scope};
use super::job::{Job, Origin, Rules};
use super::read::missing;
use super::terms::Known;
use super::{Content, accounts};

/// A write as it was asked for, checked against one catalog. Made before the writer is asked, so
/// that little is left to do while others wait to write, and anew there if a migration came between, or
/// the principal's rights are others by then.
pub(super) struct Prepared {
    catalog: Arc<Catalog>,
    pub schema: Arc<Schema>,
    pub rules: Arc<Rules>,
    pub input: Input,
    /// What the principal may see: of the answer, or the records of a bulk call.
    pub plan: Result<Arc<Plan>>,
    /// See [`Terms`](super::terms::Terms).
    near: bool,
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
            near: terms.near,
        })
    }

    /// Makes anew what was prepared if it no longer holds in this transaction.
    ///
    /// # Errors
    /// 401 where the principal may no longer be here; as [`Asked::prepare`] where it must be made
    /// anew.
    pub(super) fn renew(&mut self, prepared: &mut Prepared, tx: &Tx<'_>) -> Result<()> {
        let changed = accounts::changed(self.directory.as_deref(), &self.principal)?;
        if changed.is_none() && Arc::ptr_eq(&prepared.catalog, tx.catalog()) {
            return Ok(());
        }
        if let Some(now) = changed {
            self.principal = Arc::unwrap_or_clone(now);
        }
        // For this write alone: the catalog may yet be taken back.
        self.known = Arc::default();
        *prepared = self.prepare(tx.catalog())?;
        Ok(())
    }

    /// Deletes the record of that id and gives its key; `None` where more than `most` others would
    /// change, or it is more than an event loop may do.
    fn delete(
        &mut self,
        prepared: &mut Prepared,
        id: &str,
        tx: &mut Tx<'_>,
        most: Option<usize>,
    ) -> Result<Option<Vec<u8>>> {
        self.renew(prepared, tx)?;
        // Other rules may hold by now, which read more.
        if tx.is_brief() && !prepared.near {
            return Ok(None);
        }
        let Prepared { schema, rules, .. } = prepared;
        let mut job = Job::new(tx, &self.principal, &self.limits);
        let row = job.readable(schema, id)?;
        let key = row.get(schema.primary);
        // Before the count: how long it takes to be refused the record tells nothing.
        job.may_delete(schema, rules, &row)?;
        if let Some(most) = most
            && job.tx.drags(schema, key, most)?
        {
            return Ok(None);
        }
        job.tx.delete(schema, key)?;
        accounts::written(&mut job, schema, None, None)?;
        Ok(Some(key_json(schema, key)))
    }
}

/// A write of one record that names more others than so many, or takes more away from it, counts
/// as one that takes long.
const CONSEQUENCES: usize = 500;

/// Others that a write may change which an event loop does by itself: some microseconds each.
const BRIEF: usize = 16;

/// A record that weighs more is not written anew, or deleted, by an event loop, as no larger request is
/// worked on there: it is read, written and logged, three times so many bytes.
const HEAVY: usize = 32 << 10;

/// What came of a write; `None` where it is to be done in another way: then what it did so far is
/// taken back.
fn done_here<T>(tx: &mut Tx<'_>, done: Result<Option<T>>) -> Result<Option<T>> {
    match done {
        Err(error) if !tx.is_over() => Err(error),
        Ok(Some(done)) => Ok(Some(done)),
        Ok(None) | Err(_) => {
            tx.give_back();
            Ok(None)
        }
    }
}

/// Others that a write may change where it is done.
fn most(tx: &Tx<'_>) -> usize {
    if tx.is_brief() { BRIEF } else { CONSEQUENCES }
}

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

/// A create, or an update where there is an `id`, as it waits for the writer.
struct Single {
    asked: Asked,
    prepared: Prepared,
    password: Option<PasswordHash>,
    id: Option<String>,
}

/// The key of what was deleted, `None` where that would be too much; whether an event loop did it.
type Deleted = (Option<Vec<u8>>, bool);

enum Written {
    Done(Shown),
    /// Nothing is done: it would change many, or more than an event loop may.
    Many(Box<Single>),
}

impl Single {
    /// Whether an event loop may do it, if it does not change many.
    fn is_brief(&self) -> bool {
        let Prepared { near, input, .. } = &self.prepared;
        *near && self.password.is_none() && input.names() <= BRIEF && !input.joins()
    }

    fn run(mut self: Box<Self>, tx: &mut Tx<'_>, most: Option<usize>) -> Result<Written> {
        let done = self.write(tx, most);
        let done = done_here(tx, done)?;
        Ok(done.map_or_else(|| Written::Many(self), Written::Done))
    }

    /// Writes the record; `None` where more than `most` others would be taken from it, or it is more
    /// than an event loop may do.
    fn write(&mut self, tx: &mut Tx<'_>, most: Option<usize>) -> Result<Option<Shown>> {
        self.asked.renew(&mut self.prepared, tx)?;
        // Other rules may hold by now, which read more.
        if tx.is_brief() && !self.is_brief() {
            return Ok(None);
        }
        let Prepared { schema, rules, input, plan, .. } = &self.prepared;
        let mut job = Job::new(tx, &self.asked.principal, &self.asked.limits);
        let row = match &self.id {
            None => job.write(schema, rules, None, input, Origin::Named)?,
            Some(id) => {
                let old = job.readable(schema, id)?;
                job.may_start_from(schema, &old, input)?;
                let allowed = job.allowed(schema, rules, Some(&old), input)?;
                if let Some(most) = most
                    && job.takes_from(schema, rules, &old, input, most)?
                {
                    return Ok(None);
                }
                job.write_allowed(schema, rules, Some(&old), input, allowed, Origin::Named)?
            }
        };
        job.finish()?;
        accounts::written(&mut job, schema, Some(&row), self.password.as_ref())?;
        Shown::new(&job, schema, plan.clone(), row).map(Some)
    }
}

impl Content {
    /// Creates a record and gives it back, cut to what the principal may read. `address` is where
    /// the call comes from, as in [`BulkAsk`](super::BulkAsk).
    ///
    /// # Errors
    /// No such schema; 401 or 403 where no rule allows it; 400 naming the field.
    pub async fn create(
        &self,
        principal: &Principal,
        schema: &str,
        body: Map<String, Json>,
        address: Option<IpAddr>,
    ) -> Result<Vec<u8>> {
        let (asked, prepared, password) =
            self.asked(principal, schema, Action::Create, body).await?;
        self.single(Single { asked, prepared, password, id: None }, address).await
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
        address: Option<IpAddr>,
    ) -> Result<Vec<u8>> {
        let (asked, prepared, password) =
            self.asked(principal, schema, Action::Update, body).await?;
        self.single(Single { asked, prepared, password, id: Some(id.to_owned()) }, address).await
    }

    async fn single(&self, single: Single, address: Option<IpAddr>) -> Result<Vec<u8>> {
        let lane = Lane::Of(Payer::of(single.asked.principal.user, address));
        let mut single = Box::new(single);
        // Too much for an event loop may be little for the writer's thread.
        let mut brief = single.is_brief();
        while single.prepared.input.names() <= CONSEQUENCES {
            let short = move |tx: &mut Tx<'_>| {
                let most = most(tx);
                let done = single.run(tx, Some(most))?;
                Ok((done, tx.is_brief()))
            };
            let (done, was_brief) = match brief {
                true => self.store.write_brief(short).await?.value,
                false => self.store.write(short).await?.value,
            };
            match done {
                Written::Done(shown) => return Ok(shown.json()),
                Written::Many(given_back) => single = given_back,
            }
            if !was_brief {
                break;
            }
            brief = false;
        }
        // Others' writes should not stand behind it, and behind the next.
        let long = move |tx: &mut Tx<'_>| single.run(tx, None);
        match self.store.write_long(lane, long).await?.value {
            Written::Done(shown) => Ok(shown.json()),
            Written::Many(_) => Err(Error::internal("a write that was not done")),
        }
    }

    /// Deletes a record and gives its key back: `{"id":1}`.
    ///
    /// # Errors
    /// As [`Content::update`]; 409 while a required relation leads to the record.
    pub async fn delete(
        &self,
        principal: &Principal,
        schema: &str,
        id: &str,
        address: Option<IpAddr>,
    ) -> Result<Vec<u8>> {
        let mut may_be_brief = true;
        loop {
            let (near, short) =
                self.delete_among(principal, schema, id, |tx| Some(most(tx))).await?;
            let (key, was_brief) = match near && may_be_brief {
                true => self.store.write_brief(short).await?.value,
                false => self.store.write(short).await?.value,
            };
            match key {
                Some(key) => return Ok(key),
                None if was_brief => may_be_brief = false,
                None => break,
            }
        }
        // As a create or an update that changes many.
        let (_, long) = self.delete_among(principal, schema, id, |_| None).await?;
        let lane = Lane::Of(Payer::of(principal.user, address));
        let (deleted, _) = self.store.write_long(lane, long).await?.value;
        deleted.ok_or_else(|| Error::internal("a delete that was not done"))
    }

    /// A job that deletes the record, unless more than `most` others would change, or it is too much
    /// for the event loop that is to do it: then nothing is done, and it gives `None`, and whether an
    /// event loop tried. Comes with whether one may.
    async fn delete_among(
        &self,
        principal: &Principal,
        schema: &str,
        id: &str,
        most: impl FnOnce(&Tx<'_>) -> Option<usize> + Send + 'static,
    ) -> Result<(bool, impl FnOnce(&mut Tx<'_>) -> Result<Deleted> + Send + 'static)> {
        let (mut asked, mut prepared, _) =
            self.asked(principal, schema, Action::Delete, Map::new()).await?;
        let (id, near) = (id.to_owned(), prepared.near);
        let job = move |tx: &mut Tx<'_>| {
            let most = most(tx);
            let done = asked.delete(&mut prepared, &id, tx, most);
            Ok((done_here(tx, done)?, tx.is_brief()))
        };
        Ok((near, job))
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
    /// The record of that id, if the principal may read any of it, and whoever does this may write it.
    fn readable(&mut self, schema: &Arc<Schema>, id: &str) -> Result<Arc<Row>> {
        let key = parse_key(schema, id)?;
        let Some(row) = self.tx.get(schema, &key)? else { return Err(missing(schema, id)) };
        // Before the rules look at it: they may search its texts.
        if self.tx.is_brief() && Room::weigh(&row) > HEAVY {
            return Err(self.tx.too_much());
        }
        match self.visible(schema, &row)? {
            true => Ok(row),
            false => Err(missing(schema, id)),
        }
    }
}
