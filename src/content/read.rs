//! Lists and single records.

use std::sync::Arc;

use crate::auth::grant::{self, Action, FieldSet, Grant};
use crate::auth::principal::Principal;
use crate::error::{Error, Kind, Result, clip};
use crate::filter::{Predicate, Truth, eval};
use crate::limits::Limits;
use crate::model::change::Row;
use crate::model::json::write_int;
use crate::model::related::RelatedSet;
use crate::model::schema::Schema;
use crate::model::value::Value;
use crate::query::{Ask, Plan, parse_key};
use crate::store::{Query, Reader, Rows};

use super::{Content, kind};

/// A list as it was asked for.
#[derive(Clone, Debug, Default)]
pub struct ListAsk {
    pub ask: Ask,
    /// From 1.
    pub page: Option<u64>,
    /// Records a page, from 1 to [`Limits::page_records`].
    pub limit: Option<u64>,
}

impl Content {
    /// One page of the records that match: `{"total","per_page","current_page","last_page",
    /// "items"}`. `total` counts what is within the filter and the read grant.
    ///
    /// # Errors
    /// Those of [`Plan::compile`]; 400 for a page or limit out of bounds; 413 for an answer over
    /// [`Limits::answer_bytes`].
    pub async fn list(&self, principal: &Principal, ask: ListAsk) -> Result<Vec<u8>> {
        let kind = kind::of_list(&ask, &self.limits);
        let (principal, limits) = (principal.clone(), self.limits.clone());
        let job = move |rows: &Reader<'_>| list(rows, &principal, &limits, &ask);
        self.read_by(kind, job).await
    }

    /// The record of that id, cut to what may be read.
    ///
    /// # Errors
    /// Those of [`Plan::compile`]; 400 for an id that is none; 404 for a record that is not there
    /// or may not be read.
    pub async fn read(
        &self,
        principal: &Principal,
        schema: &str,
        id: &str,
        select: Option<&str>,
    ) -> Result<Vec<u8>> {
        let (principal, limits, id) = (principal.clone(), self.limits.clone(), id.to_owned());
        let ask =
            Ask { schema: schema.to_owned(), select: select.map(str::to_owned), ..Ask::default() };
        let kind = kind::of_record(&ask);
        let job = move |rows: &Reader<'_>| {
            let plan = Plan::compile(rows.catalog(), &principal, &limits, &ask)?;
            not_here(rows, &plan)?;
            let key = parse_key(&plan.schema, &id)?;
            record(rows, &plan, &key, rows.most(limits.answer_bytes))?
                .ok_or_else(|| missing(&plan.schema, &id))
        };
        self.read_by(kind, job).await
    }

    async fn read_by<T, F>(&self, kind: Option<u64>, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Reader<'_>) -> Result<T> + Send + 'static,
    {
        match kind {
            Some(kind) => self.store.read_short(kind, job).await,
            None => self.store.read(job).await,
        }
    }
}

/// The answer where a record is not there or may not be read.
pub fn missing(schema: &Schema, id: &str) -> Error {
    Error::not_found(format!("no '{}' with id {}", schema.name, clip(id)))
}

/// Ends a read that others wait for where rules search texts: a few steps may read megabytes. What the
/// client itself searches is told by the question alone ([`kind`]).
fn not_here(rows: &Reader<'_>, plan: &Plan) -> Result<()> {
    match rows.is_hasty() && plan.searches() {
        true => Err(Error::new(Kind::Timeout, "a search in texts is not short")),
        false => Ok(()),
    }
}

/// [`Content::list`] on a snapshot; 413 for an answer over [`Limits::answer_bytes`].
fn list(
    rows: &Reader<'_>,
    principal: &Principal,
    limits: &Limits,
    asked: &ListAsk,
) -> Result<Vec<u8>> {
    let most = rows.most(limits.answer_bytes);
    let plan = Plan::compile(rows.catalog(), principal, limits, &asked.ask)?;
    not_here(rows, &plan)?;
    let (page, limit) = page(asked, limits)?;
    let offset = (page - 1) * limit;
    let total = rows.count(&plan.schema, &plan.filter)?;
    let found = if offset < total {
        let mut sort = plan.sort.clone();
        if sort.is_empty() {
            sort.push((plan.schema.primary, true));
        }
        let query = Query {
            schema: plan.schema.clone(),
            filter: plan.filter.clone(),
            sort,
            limit: Some(limit),
            offset,
        };
        rows.select_within(&query, most)?
    } else {
        Vec::new()
    };
    let related = gather(rows, &plan, &found)?;

    let mut out = Vec::with_capacity(256 + found.len() * 256);
    let numbers: [(&[u8], u64); 4] = [
        (b"{\"total\":", total),
        (b",\"per_page\":", limit),
        (b",\"current_page\":", page),
        (b",\"last_page\":", total.div_ceil(limit)),
    ];
    for (name, number) in numbers {
        out.extend_from_slice(name);
        write_int(number.try_into().unwrap_or(i64::MAX), &mut out);
    }
    out.extend_from_slice(b",\"items\":[");
    for (index, row) in found.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        plan.body.encode_within(row, &related, &mut out, most)?;
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

/// Page and limit, checked: the product cannot overflow.
fn page(asked: &ListAsk, limits: &Limits) -> Result<(u64, u64)> {
    let limit = asked.limit.unwrap_or(limits.page_default.min(limits.page_records));
    if !(1..=limits.page_records).contains(&limit) {
        return Err(Error::bad(format!(
            "invalid limit {limit}: from 1 to {} may be asked for",
            limits.page_records
        )));
    }
    let page = asked.page.unwrap_or(1);
    if page == 0 {
        return Err(Error::bad("invalid page 0: pages count from 1"));
    }
    match (page - 1).checked_mul(limit) {
        Some(offset) if offset <= limits.page_offset => Ok((page, limit)),
        _ => Err(Error::bad(format!(
            "invalid page {page}: at most {} records may be skipped; narrow the filter instead, \
             for instance by the primary key",
            limits.page_offset
        ))),
    }
}

fn gather(rows: &dyn Rows, plan: &Plan, found: &[Arc<Row>]) -> Result<RelatedSet> {
    if plan.paths.is_empty() || found.is_empty() {
        return Ok(RelatedSet::default());
    }
    rows.gather(&plan.schema, found, &plan.paths)
}

/// The record of that key as `plan` shows it; `None` where it is not there or not to be seen.
pub fn record(rows: &dyn Rows, plan: &Plan, key: &Value, most: usize) -> Result<Option<Vec<u8>>> {
    let Some(row) = rows.get(&plan.schema, key)? else {
        return Ok(None);
    };
    let related = gather(rows, plan, std::slice::from_ref(&row))?;
    if !plan.matches(&row, &related) {
        return Ok(None);
    }
    let mut out = Vec::with_capacity(256);
    plan.body.encode_within(&row, &related, &mut out, most)?;
    Ok(Some(out))
}

/// The record of that key, if `principal` may read any of it.
pub fn readable(
    rows: &dyn Rows,
    principal: &Principal,
    schema: &Schema,
    key: &Value,
) -> Result<Option<Arc<Row>>> {
    let grant = grant::resolve(rows.catalog(), schema, principal, Action::Read);
    if grant.is_nothing() {
        return Ok(None);
    }
    let Some(row) = rows.get(schema, key)? else {
        return Ok(None);
    };
    Ok(holds(rows, schema, &grant.filter(), &row)?.then_some(row))
}

/// Whether `filter` is TRUE for `row`, with what it reads through relations in the present state.
pub fn holds(rows: &dyn Rows, schema: &Schema, filter: &Predicate, row: &Arc<Row>) -> Result<bool> {
    if let Predicate::Const(truth) = filter {
        return Ok(*truth == Truth::True);
    }
    let catalog = rows.catalog();
    let paths = filter.paths(catalog, schema);
    let related = if paths.is_empty() {
        RelatedSet::default()
    } else {
        rows.gather(schema, std::slice::from_ref(row), &paths)?
    };
    Ok(eval::matches(filter, catalog, schema, row, &related))
}

/// What `grant` shows of `row`: the fields of all alternatives that are TRUE for it.
pub fn shown(rows: &dyn Rows, schema: &Schema, grant: &Grant, row: &Arc<Row>) -> Result<FieldSet> {
    let mut fields = FieldSet::none(schema);
    for alternative in &grant.alternatives {
        if holds(rows, schema, &alternative.filter, row)? {
            fields.union(&alternative.fields);
        }
    }
    Ok(fields)
}
