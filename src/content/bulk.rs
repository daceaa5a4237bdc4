//! Update and delete of all records that a filter names: one commit, or none.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::auth::grant::Action;
use crate::auth::principal::Principal;
use crate::error::{Error, Kind, Result};
use crate::filter::Predicate;
use crate::model::change::Row;
use crate::model::related::Key;
use crate::model::schema::{Schema, Shape, Slot};
use crate::query::{Ask, Plan};
use crate::store::fair::Payer;
use crate::store::{Lane, Query, Rows, Tx};

use super::job::{Job, Origin, Rules};
use super::write::{Asked, Prepared};
use super::{Content, accounts};

/// Which records a bulk call is for.
#[derive(Clone, Debug)]
pub struct BulkAsk {
    pub schema: String,
    /// `{}` names all.
    pub filter: Json,
    /// Scalars came as text, to be read by the field's type.
    pub untyped: bool,
    /// Where it comes from: of those who are no users here, each address waits in a line of its
    /// own. `None`: whoever owns the data directory.
    pub address: Option<IpAddr>,
}

impl BulkAsk {
    fn lane(&self, principal: &Principal) -> Lane {
        Lane::Of(Payer::of(principal.user, self.address))
    }
}

impl Content {
    /// Updates every record that is in the filter, in what the principal may read, and in what it
    /// may update; gives their number. One new state that is forbidden refuses the whole call.
    ///
    /// # Errors
    /// As [`Content::update`], but for records that are not there; 413 over the limits.
    pub async fn update_all(
        &self,
        principal: &Principal,
        ask: BulkAsk,
        mut body: Map<String, Json>,
    ) -> Result<u64> {
        let catalog = self.store.catalog();
        if accounts::holds_password(&catalog, &ask.schema) {
            accounts::refuse_password(&mut body)?;
        }
        let lane = ask.lane(principal);
        let mut asked = self.bulk(principal, ask, Action::Update, body);
        let mut prepared = asked.prepare(&catalog)?;
        let job = move |tx: &mut Tx<'_>| {
            asked.renew(&mut prepared, tx)?;
            let Prepared { schema, rules, input, plan, .. } = prepared;
            let mut job = Job::new(tx, &asked.principal, &asked.limits);
            if input.same.is_some() {
                let name = &schema.primary_column().name;
                return Err(Error::bad(format!("{name}: is the primary key, which never changes")));
            }
            let counting = rules.counting(&schema, &input)?;
            let action = Predicate::or(counting.iter().map(|at| rules.filter(*at).clone()));
            let mut rows = Vec::new();
            for row in job.covered(&schema, plan, action)? {
                if job.may_start_from(&schema, &row, &input).is_ok() {
                    rows.push(row);
                }
            }
            job.write_all(&schema, &rules, &rows, &input)?;
            job.finish()?;
            accounts::written(&mut job, &schema, None, None)?;
            Ok(rows.len() as u64)
        };
        Ok(self.store.write_long(lane, job).await?.value)
    }

    /// Deletes every record that is in the filter, in what the principal may read, and in what it
    /// may delete; gives their number.
    ///
    /// # Errors
    /// As [`Content::delete`], but for records that are not there; 413 over the limits.
    pub async fn delete_all(&self, principal: &Principal, ask: BulkAsk) -> Result<u64> {
        let lane = ask.lane(principal);
        let mut asked = self.bulk(principal, ask, Action::Delete, Map::new());
        let mut prepared = asked.prepare(&self.store.catalog())?;
        let job = move |tx: &mut Tx<'_>| {
            asked.renew(&mut prepared, tx)?;
            let Prepared { schema, rules, plan, .. } = prepared;
            let mut job = Job::new(tx, &asked.principal, &asked.limits);
            let rows = job.covered(&schema, plan, rules.grant.filter())?;
            job.delete_all(&schema, &rows)?;
            accounts::written(&mut job, &schema, None, None)?;
            Ok(rows.len() as u64)
        };
        Ok(self.store.write_long(lane, job).await?.value)
    }

    fn bulk(
        &self,
        principal: &Principal,
        ask: BulkAsk,
        action: Action,
        body: Map<String, Json>,
    ) -> Asked {
        Asked {
            principal: principal.clone(),
            limits: self.limits.clone(),
            known: self.known.clone(),
            directory: self.directory(),
            ask: Ask {
                schema: ask.schema,
                filter: Some(ask.filter),
                untyped: ask.untyped,
                ..Ask::default()
            },
            action,
            body,
        }
    }
}

impl Job<'_, '_> {
    /// The records in the client's filter, the read grant and `action`, by primary key.
    fn covered(
        &self,
        schema: &Arc<Schema>,
        plan: Result<Arc<Plan>>,
        action: Predicate,
    ) -> Result<Vec<Arc<Row>>> {
        let plan = plan?;
        let most = self.limits.write_records;
        let query = Query {
            schema: schema.clone(),
            filter: Predicate::and([plan.filter.clone(), action]),
            sort: Vec::new(),
            limit: Some(most as u64 + 1),
            offset: 0,
        };
        let rows = self.tx.select_within(&query, self.limits.write_bytes)?;
        if rows.len() > most {
            return Err(Error::new(
                Kind::TooLarge,
                format!(
                    "the filter names more than {most} records, the most one write may touch; \
                     narrow it and write in several calls"
                ),
            ));
        }
        Ok(rows)
    }

    fn write_all(
        &mut self,
        schema: &Arc<Schema>,
        rules: &Arc<Rules>,
        rows: &[Arc<Row>],
        input: &super::input::Input,
    ) -> Result<()> {
        // Which alternatives hold is told by the states before the whole write.
        let allowed = rows
            .iter()
            .map(|row| self.allowed(schema, rules, Some(row), input))
            .collect::<Result<Vec<_>>>()?;
        for (row, allowed) in rows.iter().zip(allowed) {
            // An earlier record of this call may have changed this one through a relation.
            let Some(now) = self.tx.still(schema, row) else { continue };
            self.write_allowed(schema, rules, Some(&now), input, allowed, Origin::Named)?;
        }
        Ok(())
    }

    /// Deletes `rows`. Where they require each other, those that nobody requires go first.
    fn delete_all(&mut self, schema: &Arc<Schema>, rows: &[Arc<Row>]) -> Result<()> {
        for row in last_required(schema, rows) {
            self.tx.delete(schema, row.get(schema.primary))?;
        }
        Ok(())
    }
}

/// The rows in an order in which each comes after those that require it. Where they require each
/// other in a ring there is no such order: its rows come last, and the first to be deleted is
/// refused.
fn last_required<'r>(schema: &Schema, rows: &'r [Arc<Row>]) -> Vec<&'r Arc<Row>> {
    let required: Vec<Slot> = schema
        .relations
        .iter()
        .filter_map(|relation| match relation.shape {
            Shape::Key { slot }
                if relation.target == schema.id && !schema.columns[slot].optional =>
            {
                Some(slot)
            }
            _ => None,
        })
        .collect();
    if required.is_empty() {
        return rows.iter().collect();
    }
    let places = rows.iter().enumerate();
    let places: HashMap<Key, usize> =
        places.filter_map(|(at, row)| Some((Key::of(row.get(schema.primary))?, at))).collect();
    let requires = |at: usize| {
        let keys = required.iter().filter_map(move |slot| Key::of(rows[at].get(*slot)));
        keys.filter_map(|key| places.get(&key).copied()).filter(move |other| *other != at)
    };
    let mut requiring = vec![0_usize; rows.len()];
    for at in 0..rows.len() {
        requires(at).for_each(|other| requiring[other] += 1);
    }
    let mut order: Vec<usize> = (0..rows.len()).filter(|at| requiring[*at] == 0).collect();
    let mut done = 0;
    while let Some(at) = order.get(done).copied() {
        done += 1;
        for other in requires(at) {
            requiring[other] -= 1;
            if requiring[other] == 0 {
                order.push(other);
            }
        }
    }
    order.extend((0..rows.len()).filter(|at| requiring[*at] > 0));
    order.into_iter().map(|at| &rows[at]).collect()
}
