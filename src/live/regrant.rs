//! Access holds while connected: subscriptions are granted anew where the log says that schemas,
//! rules, users, roles or sessions changed, before that entry or any later one is told.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use crate::auth::directory::Layout;
use crate::auth::principal::Principal;
use crate::error::{Error, Kind, Result};
use crate::model::catalog::Catalog;
use crate::model::change::{Change, Commit};
use crate::model::related::{Key, Paths};
use crate::model::schema::{Schema, SchemaId};
use crate::query::Plan;

use super::matcher::Matcher;
use super::registry::{Listener, Subscriber};
use super::subscription::{Principals, Request, SubId};
use super::wanted::Hold;

/// How a principal that is no more is told.
pub(super) fn ended() -> Error {
    Error::unauthorized("the session has ended")
}

/// The principal as it is now; `None` when it has ended.
pub(super) fn present(principals: &dyn Principals, was: &Arc<Principal>) -> Option<Arc<Principal>> {
    // Guests, and the owner of the data directory.
    if was.expires.is_none() {
        return Some(was.clone());
    }
    let now = principals.current(was)?;
    Some(if *now == **was { was.clone() } else { now })
}

/// Compiles under the matcher's catalog, once for all who ask the same and may see the same.
/// Related rows that nobody read before are wanted from now on; an entry that the writer made
/// without them ends the plans it would concern (see
/// [`Fault::Ungathered`](super::fanout::Fault)).
pub(super) fn compile(
    matcher: &Matcher,
    request: &Request,
    principal: &Arc<Principal>,
) -> Result<(Arc<Plan>, Option<Arc<Hold>>)> {
    let (catalog, limits) = (&matcher.catalog, &matcher.limits);
    let plan = matcher.plans.compile(catalog, principal, limits, &mut request.ask.clone())?;
    let back = request.told.transitions;
    let hold = matcher.wanted.hold(plan.schema.id, &plan.paths, back).map(|(hold, _)| hold);
    Ok((plan, hold))
}

/// Sessions of this user ended.
pub(super) fn user(matcher: &mut Matcher, user: Uuid) {
    let ids = matcher.registry.of_user(user).collect();
    again(matcher, ids);
}

/// Something may have changed for anybody.
pub(super) fn everybody(matcher: &mut Matcher) {
    let ids = matcher.registry.subscribers().map(|(id, _)| id).collect();
    again(matcher, ids);
}

/// Something may have changed for anybody but guests.
fn logged_in(matcher: &mut Matcher) {
    let all = matcher.registry.subscribers();
    let some = all.filter(|(_, subscriber)| subscriber.request.principal.logged_in);
    let ids = some.map(|(id, _)| id).collect();
    again(matcher, ids);
}

/// Whether the commit may grant anything anew.
pub(super) fn concerned(matcher: &Matcher, commit: &Commit) -> bool {
    let of_rights = |change: &Change| matcher.catalog.is_of_rights(change.schema);
    !commit.notices.is_empty() || commit.changes.iter().any(of_rights)
}

/// Looks for changes of users and roles. Users may change their own records as often as they like:
/// only those are looked at whom it concerns.
pub(super) fn changes(matcher: &mut Matcher, commit: &Commit) {
    if matcher.registry.is_empty() {
        return;
    }
    let (catalog, registry) = (&matcher.catalog, &matcher.registry);
    let Some(layout) = Layout::of(catalog) else { return };
    let mut some = BTreeSet::new();
    for change in commit.changes.iter().filter(|change| layout.concerns(change.schema)) {
        let known = catalog.get(change.schema).map(|schema| schema.version);
        // What a row of another layout says is not known here.
        if change.schema == layout.role || known != Some(change.schema_version) {
            return logged_in(matcher);
        } else if change.schema == layout.junction {
            some.extend(layout.members(change).flat_map(|user| registry.of_user(user)));
        } else {
            if let Some(Key::Uuid(user)) = Key::of(&change.key) {
                some.extend(registry.of_user(user));
            }
            // An outside issuer's user may have been linked to this one.
            let subjects = layout.subjects(change);
            subjects.for_each(|subject| some.extend(registry.of_subject(&subject)));
        }
    }
    again(matcher, some);
}

/// Asks anew who the principals of these are, and grants anew where they changed.
fn again(matcher: &mut Matcher, ids: BTreeSet<SubId>) {
    for id in ids {
        let Some(subscriber) = matcher.registry.subscriber(id) else { continue };
        let was = &subscriber.request.principal;
        match present(&*matcher.principals, was) {
            None => matcher.end(id, &ended()),
            Some(now) if Arc::ptr_eq(&now, was) => {}
            Some(now) => {
                let compiled = compile(matcher, &subscriber.request, &now);
                let Some(mut subscriber) = matcher.registry.detach(id) else { continue };
                subscriber.request.principal = now;
                seat(matcher, id, subscriber, compiled);
            }
        }
    }
}

/// A new catalog holds. Subscriptions of broken schemas end, the others that read what changed
/// are compiled anew.
pub(super) fn catalog(matcher: &mut Matcher, old: &Catalog, broken: &[SchemaId]) {
    let new = matcher.catalog.clone();
    let changed: HashSet<SchemaId> = old
        .all()
        .filter(|schema| new.get(schema.id).is_none_or(|now| !Arc::ptr_eq(now, schema)))
        .map(|schema| schema.id)
        .collect();
    let broken: HashSet<SchemaId> = broken.iter().copied().collect();
    let mut touched = Vec::new();
    for (id, subscriber) in matcher.registry.subscribers() {
        let Some(entry) = matcher.registry.plan(subscriber.plan()) else { continue };
        if depends(old, &entry.plan.schema, &entry.plan.paths, &changed) {
            touched.push(id);
        }
    }
    // All of them leave before any comes back: an equal key must not find a plan of old layout.
    let mut leaving = Vec::new();
    for id in touched {
        let Some(entry) = matcher
            .registry
            .subscriber(id)
            .and_then(|subscriber| matcher.registry.plan(subscriber.plan()))
        else {
            continue;
        };
        let schema = entry.plan.schema.clone();
        if new.get(schema.id).is_none() {
            matcher.end(id, &Error::no_schema(&schema.name));
        } else if crosses(old, &schema, &entry.plan.paths, &broken) {
            matcher.end(id, &migrated(&schema.name));
        } else if let Some(subscriber) = matcher.registry.detach(id) {
            leaving.push((id, subscriber));
        }
    }
    for (id, subscriber) in leaving {
        let compiled = compile(matcher, &subscriber.request, &subscriber.request.principal);
        seat(matcher, id, subscriber, compiled);
    }
}

/// Puts a subscription that has left its plan under the new one, or ends it.
fn seat(
    matcher: &mut Matcher,
    id: SubId,
    subscriber: Subscriber,
    compiled: Result<(Arc<Plan>, Option<Arc<Hold>>)>,
) {
    let Subscriber { request, key, mode, outbox, told, owed, .. } = subscriber;
    match compiled {
        Ok((plan, _)) if mode.cursors.is_some_and(|grant| grant != plan.grant) => {
            outbox.close(request.encoder.close(&regranted()));
        }
        Ok((plan, hold)) => {
            matcher.registry.attach(id, Listener { request, plan, key, mode, hold, outbox, told });
            if owed {
                matcher.registry.owe(id);
            }
        }
        Err(error) => outbox.close(request.encoder.close(&lost(error))),
    }
}

/// The cursors that a client holds name another grant than the one that holds now.
pub(super) fn regranted() -> Error {
    Error::new(Kind::Gone, "access has changed: what may be seen must be read anew")
}

/// How a subscription ends whose schema was changed by more than additions.
pub(super) fn migrated(schema: &str) -> Error {
    Error::new(Kind::Gone, format!("what {schema} shows has changed: read it anew"))
}

/// What was asked was good once: if it is refused now, it is access that was lost.
pub(super) fn lost(error: Error) -> Error {
    match error.kind {
        Kind::Bad => Error::forbidden(error.message),
        Kind::Unauthorized => {
            let message = error.message.strip_prefix("Unauthorized: ");
            Error::forbidden(message.unwrap_or(&error.message))
        }
        _ => error,
    }
}

/// Whether a plan on `schema` with these paths depends on one of `some`: by its rows, or by who
/// may see what its keys name.
fn depends(catalog: &Catalog, schema: &Schema, paths: &Paths, some: &HashSet<SchemaId>) -> bool {
    schema.relations.iter().any(|relation| some.contains(&relation.target))
        || some.contains(&schema.id)
        || targets(catalog, schema, paths).any(|target| match target {
            Some((target, deeper)) => depends(catalog, target, deeper, some),
            // A path that cannot be followed is looked at anew, to be safe.
            None => true,
        })
}

/// Whether such a plan reads rows of one of `some`.
fn crosses(catalog: &Catalog, schema: &Schema, paths: &Paths, some: &HashSet<SchemaId>) -> bool {
    some.contains(&schema.id)
        || targets(catalog, schema, paths)
            .flatten()
            .any(|(target, deeper)| crosses(catalog, target, deeper, some))
}

/// Where `paths` lead from `schema`, and what is read from there.
fn targets<'a>(
    catalog: &'a Catalog,
    schema: &'a Schema,
    paths: &'a Paths,
) -> impl Iterator<Item = Option<(&'a Schema, &'a Paths)>> {
    paths.0.iter().map(|(name, deeper)| {
        let relation = &schema.relations[schema.relation(name)?];
        Some((&**catalog.get(relation.target)?, deeper))
    })
}
