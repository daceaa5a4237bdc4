//! What writes to a schema start from, whatever they write: the rules, the fields that may be
//! named, the plan of the answer. Kept for principals who write again: made anew they took a sixth
//! of all instructions of a small create (34,000 of 219,000).

use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use crate::auth::grant::{self, Action, FieldSet, Grant};
use crate::auth::principal::Principal;
use crate::error::Result;
use crate::limits::Limits;
use crate::model::catalog::Catalog;
use crate::model::map::IdMap;
use crate::model::schema::{FieldRef, Schema, SchemaId, SchemaKind, Shape};
use crate::query::{Ask, Plan};

use super::job::{self, Rules};

/// How many are kept: each some kilobytes.
const MOST: usize = 256;

/// What one principal may do to the records of one schema, as of one catalog.
pub(super) struct Terms {
    pub(super) catalog: Arc<Catalog>,
    pub(super) schema: Arc<Schema>,
    pub(super) read: Grant,
    /// What the principal may name when it writes.
    pub(super) known: FieldSet,
    pub(super) rules: Arc<Rules>,
    /// What the principal may see: of the answer, or the records of a bulk call.
    pub(super) plan: Result<Arc<Plan>>,
    /// Whether all this is decided from the records named alone: no others are read for it, and none
    /// are changed by the rules' own wish.
    pub(super) near: bool,
}

impl Terms {
    /// # Errors
    /// No such schema, no rule (401, 403).
    pub(super) fn new(
        catalog: &Arc<Catalog>,
        principal: &Principal,
        limits: &Limits,
        ask: &Ask,
        action: Action,
    ) -> Result<Terms> {
        let schema = grant::schema(catalog, principal, &ask.schema, action)?;
        let grant = grant::require(catalog, &schema, principal, action)?;
        let read = grant::resolve(catalog, &schema, principal, Action::Read);
        let plan = Plan::compile(catalog, principal, limits, ask).map(Arc::new);
        let near = schema.kind == SchemaKind::User
            && plan.as_ref().is_ok_and(|plan| plan.paths.is_empty())
            && is_near(catalog, &schema, &[&grant, &read])
            && sets_own(&schema, &grant)
            && schema.relations.iter().filter_map(|to| catalog.get(to.target)).all(|target| {
                let may = |action| grant::resolve(catalog, target, principal, action);
                let (read, update) = (may(Action::Read), may(Action::Update));
                is_near(catalog, target, &[&read, &update]) && sets_own(target, &update)
            });
        Ok(Terms {
            near,
            known: job::known(&[&read, &grant], &schema),
            rules: Arc::new(Rules::new(catalog, &schema, principal, limits, grant, action)?),
            plan,
            catalog: catalog.clone(),
            schema,
            read,
        })
    }
}

/// Whether no filter reads through relations.
fn is_near(catalog: &Catalog, schema: &Schema, grants: &[&Grant]) -> bool {
    let filters = grants.iter().flat_map(|grant| &grant.alternatives).map(|held| &held.filter);
    filters.into_iter().all(|filter| filter.paths(catalog, schema).is_empty())
}

/// Whether the rules set nothing but columns of the record itself, keys among them.
fn sets_own(schema: &Schema, grant: &Grant) -> bool {
    let own = |field: &FieldRef| match *field {
        FieldRef::Column(_) => true,
        FieldRef::Relation(index) => matches!(schema.relations[index].shape, Shape::Key { .. }),
    };
    grant.alternatives.iter().flat_map(|held| &held.set).all(|(field, _)| own(field))
}

/// Terms of whole records, as of the newest catalog that was asked for.
#[derive(Default)]
pub(super) struct Known(Mutex<State>);

type Name = (SchemaId, Action, Option<Uuid>);

#[derive(Default)]
struct State {
    catalog: Arc<Catalog>,
    kept: IdMap<Name, (Principal, Arc<Terms>)>,
}

impl Known {
    /// [`Terms::new`], or what it gave before. `limits` are always the same.
    ///
    /// # Errors
    /// As there.
    pub(super) fn of(
        &self,
        catalog: &Arc<Catalog>,
        principal: &Principal,
        limits: &Limits,
        ask: &Ask,
        action: Action,
    ) -> Result<Arc<Terms>> {
        let whole = ask.filter.is_none() && ask.select.is_none();
        let schema = catalog.named(&ask.schema).filter(|_| whole);
        let name = schema.map(|schema| (schema.id, action, principal.user));
        if let Some(name) = &name
            && let Some(terms) = self.find(catalog, name, principal)
        {
            return Ok(terms);
        }
        let terms = Arc::new(Terms::new(catalog, principal, limits, ask, action)?);
        if let Some(name) = name {
            self.keep(catalog, name, principal, &terms);
        }
        Ok(terms)
    }

    fn find(
        &self,
        catalog: &Arc<Catalog>,
        name: &Name,
        principal: &Principal,
    ) -> Option<Arc<Terms>> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (whose, terms) = state.kept.get(name)?;
        let holds = Arc::ptr_eq(&state.catalog, catalog) && may_the_same(whose, principal);
        holds.then(|| terms.clone())
    }

    fn keep(&self, catalog: &Arc<Catalog>, name: Name, principal: &Principal, terms: &Arc<Terms>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&state.catalog, catalog) {
            // A request that began before the catalog of now leaves what is kept alone.
            if state.catalog.version > catalog.version {
                return;
            }
            state.catalog = catalog.clone();
            state.kept.clear();
        } else if state.kept.len() >= MOST {
            state.kept.clear();
        }
        state.kept.insert(name, (principal.clone(), terms.clone()));
    }
}

/// Whether rules mean the same for both: everything but the session and when it ends.
fn may_the_same(one: &Principal, other: &Principal) -> bool {
    let Principal { user, username, roles, claims, session: _, expires: _, logged_in, admin } = one;
    *user == other.user
        && *admin == other.admin
        && *logged_in == other.logged_in
        && *username == other.username
        && *roles == other.roles
        && (Arc::ptr_eq(claims, &other.claims) || *claims == other.claims)
}
