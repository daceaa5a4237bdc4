//! Users, roles and sessions as of the newest commit, in memory.
//!
//! Every request and every socket asks here who somebody is now, so nothing here touches the
//! store. Commits are applied in log order by whoever writes them, before the writer is answered:
//! whoever was told that a user is disabled finds that user refused.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde_json::{Map, Value as Json};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::filter::{Predicate, Truth};
use crate::model::catalog::Catalog;
use crate::model::change::{Change, Commit, Notice, Row};
use crate::model::map::IdMap;
use crate::model::schema::{Schema, SchemaId, Shape, Slot};
use crate::model::value::Value;
use crate::store::{Query, Rows};

use super::issuer::Mapping;
use super::principal::Principal;
use super::{ADMIN, BUILT_IN};

/// See the module. Shared by the service, the writer's sink and the matcher.
#[derive(Debug, Default)]
pub struct Directory {
    mapping: Option<Mapping>,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// `None` until loaded: commits before that are in what is loaded.
    layout: Option<Layout>,
    users: IdMap<Uuid, User>,
    roles: IdMap<Uuid, Arc<str>>,
    members: IdMap<Uuid, BTreeSet<Uuid>>,
    /// (issuer, subject) → users linked to it; more than one is a mistake, and lets in neither.
    linked: IdMap<(Arc<str>, Arc<str>), BTreeSet<Uuid>>,
    sessions: IdMap<Uuid, Session>,
}

#[derive(Clone, Debug, PartialEq)]
struct User {
    username: Arc<str>,
    active: bool,
    link: Option<(Arc<str>, Arc<str>)>,
}

/// An open session: whose, and until when (seconds since 1970).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    pub user: Uuid,
    pub expires: i64,
}

/// Where the system schemas keep what is needed here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layout {
    pub user: SchemaId,
    pub role: SchemaId,
    pub junction: SchemaId,
    username: Slot,
    active: Slot,
    provider: Slot,
    provider_id: Slot,
    role_name: Slot,
    /// The junction's columns that hold the user's and the role's key.
    link_user: Slot,
    link_role: Slot,
}

impl Layout {
    /// `None` where the catalog lacks the system schemas.
    pub fn of(catalog: &Catalog) -> Option<Layout> {
        let user = catalog.named("user")?;
        let role = catalog.named("role")?;
        let roles = &user.relations[user.relation("roles")?];
        let Shape::Link { junction, own, other } = roles.shape else {
            return None;
        };
        Some(Layout {
            user: user.id,
            role: role.id,
            junction,
            username: user.column("username")?,
            active: user.column("active")?,
            provider: user.column("provider")?,
            provider_id: user.column("provider_id")?,
            role_name: role.column("name")?,
            link_user: own,
            link_role: other,
        })
    }

    /// Whether the schema is one of them.
    pub fn concerns(&self, schema: SchemaId) -> bool {
        schema == self.user || schema == self.role || schema == self.junction
    }

    /// The users to whom a change of the junction gives a role, or from whom it takes one.
    pub fn members(&self, change: &Change) -> impl Iterator<Item = Uuid> {
        let rows = change.before.iter().chain(&change.after);
        rows.filter_map(|row| match row.get(self.link_user) {
            Value::Uuid(user) => Some(*user),
            _ => None,
        })
    }

    /// The outside issuer's subjects to whom a change of a user links it, or no longer does.
    pub fn subjects(&self, change: &Change) -> impl Iterator<Item = Arc<str>> {
        let link = |row: &Option<Arc<Row>>| row.as_ref().and_then(|row| self.link(row));
        let (before, after) = (link(&change.before), link(&change.after));
        let moved = before != after;
        before.into_iter().chain(after).filter(move |_| moved).map(|(_, subject)| subject)
    }

    /// The issuer and the subject that a user's record is linked to.
    fn link(&self, user: &Row) -> Option<(Arc<str>, Arc<str>)> {
        text(user, self.provider).zip(text(user, self.provider_id))
    }
}

impl Directory {
    /// Empty, and refusing everybody, until [`Directory::load`]. `mapping` tells what the outside
    /// issuer's claims mean here.
    pub fn new(mapping: Option<Mapping>) -> Directory {
        Directory { mapping, state: RwLock::default() }
    }

    /// Takes everything from the store. Call it within a write, so that no commit falls between
    /// what is read and what is applied.
    pub fn load(
        &self,
        rows: &impl Rows,
        sessions: impl IntoIterator<Item = (Uuid, Session)>,
    ) -> Result<()> {
        let catalog = rows.catalog().clone();
        let layout = Layout::of(&catalog)
            .ok_or_else(|| Error::internal("the catalog lacks the user and role schemas"))?;
        let mut state = State { layout: Some(layout), ..State::default() };
        for schema in [layout.role, layout.user, layout.junction] {
            let schema = catalog
                .get(schema)
                .ok_or_else(|| Error::internal("the catalog lacks a system schema"))?;
            for row in rows.select(&everything(schema))? {
                state.put(&layout, schema.id, row.get(schema.primary), None, Some(&row));
            }
        }
        state.sessions = sessions.into_iter().collect();
        *self.write() = state;
        Ok(())
    }

    /// Brings the directory up to a commit. Called in log order.
    pub fn apply(&self, commit: &Commit) {
        let Some(layout) = self.read().layout else {
            return;
        };
        if commit.notices.is_empty() && !commit.changes.iter().any(|c| layout.concerns(c.schema)) {
            return;
        }
        let mut state = self.write();
        let mut layout = layout;
        for notice in &commit.notices {
            match notice {
                // The system schemas may have got a column, so slots may have moved.
                Notice::Catalog { catalog, .. } => {
                    if let Some(moved) = Layout::of(catalog) {
                        layout = moved;
                        state.layout = Some(moved);
                    }
                }
                Notice::Session { user, session: Some(session) } => {
                    if state.sessions.get(session).is_some_and(|open| open.user == *user) {
                        state.sessions.remove(session);
                    }
                }
                Notice::Session { user, session: None } => state.end_sessions(user),
            }
        }
        for change in &commit.changes {
            let (before, after) = (change.before.as_deref(), change.after.as_deref());
            state.put(&layout, change.schema, &change.key, before, after);
        }
    }

    /// A session that is being opened or prolonged. Called within the write that stores it, so
    /// that whatever ends it comes later; if that write fails, nobody holds a token for it.
    pub fn open_session(&self, id: Uuid, session: Session) {
        self.write().sessions.insert(id, session);
    }

    /// Forgets sessions that ended before `now`.
    pub fn forget_expired(&self, now: i64) {
        self.write().sessions.retain(|_, session| session.expires > now);
    }

    /// The principal behind an own token: `None` when the session has ended, belongs to somebody
    /// else, or the user is not active.
    pub fn own(&self, user: Uuid, session: Uuid, expires: i64, now: i64) -> Option<Principal> {
        let state = self.read();
        let open = state.sessions.get(&session)?;
        if open.user != user || open.expires <= now {
            return None;
        }
        let known = state.active(&user)?;
        let roles = state.roles_of(&user);
        Some(Principal {
            user: Some(user),
            username: Some(known.username.clone()),
            admin: roles.iter().any(|role| &**role == ADMIN),
            roles,
            claims: no_claims(),
            session: Some(session),
            expires: Some(expires),
            logged_in: true,
        })
    }

    /// Whether [`Directory::own`] would give the very same principal, of a session of its own: told
    /// at less cost.
    pub fn still(&self, principal: &Principal, now: i64) -> bool {
        let (Some(user), Some(session)) = (principal.user, principal.session) else {
            return false;
        };
        let (state, roles) = (self.read(), &principal.roles);
        let open = |open: &Session| open.user == user && open.expires > now;
        let named = |known: &User| principal.username.as_ref() == Some(&known.username);
        let mut names = 0;
        let mut held = state.names_of(&user).inspect(|_| names += 1);
        state.sessions.get(&session).is_some_and(open)
            && state.active(&user).is_some_and(named)
            && held.all(|name| roles.contains(name))
            && names == roles.len()
            && principal.admin == roles.iter().any(|role| &**role == ADMIN)
    }

    /// The principal behind an outside issuer's token whose claims are proven: `None` when no
    /// issuer is configured, the user linked to its subject is not active, or two are linked.
    ///
    /// Its roles are the mapped ones and, for a linked user, that user's own, but never `admin`
    /// unless that is mapped by name.
    pub fn outside(&self, claims: Arc<Map<String, Json>>, expires: i64) -> Option<Principal> {
        let mapping = self.mapping.as_ref()?;
        let mut roles = mapping.roles(&claims);
        let admin = roles.iter().any(|role| &**role == ADMIN);
        let state = self.read();
        let mut principal = Principal {
            claims: claims.clone(),
            expires: Some(expires),
            logged_in: true,
            admin,
            ..Principal::default()
        };
        let subject = claims.get("sub").and_then(Json::as_str);
        let linked = subject.and_then(|subject| state.linked_to(&mapping.issuer, subject));
        if let Some(ids) = linked {
            let id = ids.first().filter(|_| ids.len() == 1)?;
            principal.username = Some(state.active(id)?.username.clone());
            principal.user = Some(*id);
            roles.extend(state.names_of(id).filter(|role| &***role != ADMIN).cloned());
        }
        roles.sort();
        roles.dedup();
        principal.roles = roles;
        Some(principal)
    }

    /// The same principal as of the newest commit; `None` when its session has ended or its user
    /// may no longer be here. Expiry is not looked at: the clock is the socket's to watch.
    pub fn current(&self, principal: &Principal) -> Option<Arc<Principal>> {
        match (principal.user, principal.session, principal.expires) {
            // Guests, and the owner's own commands.
            (_, _, None) => Some(Arc::new(principal.clone())),
            (Some(user), Some(session), Some(expires)) => {
                self.own(user, session, expires, i64::MIN).map(Arc::new)
            }
            (_, None, Some(expires)) => {
                self.outside(principal.claims.clone(), expires).map(Arc::new)
            }
            (None, Some(_), Some(_)) => None,
        }
    }

    /// A user's roles: id and name, by name.
    pub fn roles(&self, user: &Uuid) -> Vec<(Uuid, Arc<str>)> {
        let state = self.read();
        let mut roles: Vec<_> = state
            .members
            .get(user)
            .into_iter()
            .flatten()
            .filter_map(|role| state.roles.get(role).map(|name| (*role, name.clone())))
            .collect();
        roles.sort_by(|a, b| a.1.cmp(&b.1));
        roles
    }

    /// The user's name as of now, whether active or not.
    pub fn username(&self, user: &Uuid) -> Option<Arc<str>> {
        self.read().users.get(user).map(|user| user.username.clone())
    }

    // A poisoned lock holds a state that was written whole or left alone; better than refusing.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// One record of a system schema, before and after; others are left alone.
    fn put(
        &mut self,
        layout: &Layout,
        schema: SchemaId,
        key: &Value,
        before: Option<&Row>,
        after: Option<&Row>,
    ) {
        if schema == layout.junction {
            for (row, there) in [(before, false), (after, true)] {
                let Some((Value::Uuid(user), Value::Uuid(role))) =
                    row.map(|row| (row.get(layout.link_user), row.get(layout.link_role)))
                else {
                    continue;
                };
                let members = self.members.entry(*user).or_default();
                if there {
                    members.insert(*role);
                } else {
                    members.remove(role);
                }
                if members.is_empty() {
                    self.members.remove(user);
                }
            }
            return;
        }
        let Value::Uuid(id) = key else {
            return;
        };
        if schema == layout.role {
            match after.map(|row| row.get(layout.role_name)) {
                Some(Value::Text(name)) => self.roles.insert(*id, name.clone()),
                _ => self.roles.remove(id),
            };
        } else if schema == layout.user {
            let user = after.map(|row| User::of(layout, row));
            if let Some(link) = self.users.remove(id).and_then(|user| user.link)
                && let Some(ids) = self.linked.get_mut(&link)
            {
                ids.remove(id);
                if ids.is_empty() {
                    self.linked.remove(&link);
                }
            }
            // Sessions of a disabled user are gone from the store too, should it come back.
            if !user.as_ref().is_some_and(|user| user.active) {
                self.end_sessions(id);
            }
            if let Some(user) = user {
                if let Some(link) = &user.link {
                    self.linked.entry(link.clone()).or_default().insert(*id);
                }
                self.users.insert(*id, user);
            }
        }
    }

    fn end_sessions(&mut self, user: &Uuid) {
        self.sessions.retain(|_, session| session.user != *user);
    }

    fn active(&self, user: &Uuid) -> Option<&User> {
        self.users.get(user).filter(|user| user.active)
    }

    /// Sorted names, without those that hold by themselves.
    fn roles_of(&self, user: &Uuid) -> Vec<Arc<str>> {
        let mut names: Vec<_> = self.names_of(user).cloned().collect();
        names.sort();
        names
    }

    /// The same, in no order. Each stands there once, as no two roles have one name.
    fn names_of(&self, user: &Uuid) -> impl Iterator<Item = &Arc<str>> {
        let roles = self.members.get(user).into_iter().flatten();
        roles.filter_map(|role| self.roles.get(role)).filter(|name| !BUILT_IN.contains(&&***name))
    }

    fn linked_to(&self, issuer: &Arc<str>, subject: &str) -> Option<&BTreeSet<Uuid>> {
        self.linked.get(&(issuer.clone(), Arc::from(subject)))
    }
}

impl User {
    fn of(layout: &Layout, row: &Row) -> User {
        User {
            username: text(row, layout.username).unwrap_or_else(|| Arc::from("")),
            active: *row.get(layout.active) == Value::Bool(true),
            link: layout.link(row),
        }
    }
}

fn text(row: &Row, slot: Slot) -> Option<Arc<str>> {
    match row.get(slot) {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    }
}

fn everything(schema: &Arc<Schema>) -> Query {
    Query {
        schema: schema.clone(),
        filter: Predicate::Const(Truth::True),
        sort: Vec::new(),
        limit: None,
        offset: 0,
    }
}

/// One empty map for all own tokens.
fn no_claims() -> Arc<Map<String, Json>> {
    static NONE: std::sync::LazyLock<Arc<Map<String, Json>>> =
        std::sync::LazyLock::new(Arc::default);
    NONE.clone()
}
