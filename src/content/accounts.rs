//! What is special about writing `user` and `role`.
//!
//! `password` is no column: it goes in through the content API, is hashed before the
//! writer's turn, and stored beside the records, in the same transaction. It never comes out.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::auth::directory::Directory;
use crate::auth::password::PasswordHash;
use crate::auth::principal::Principal;
use crate::auth::service::set_password;
use crate::error::{Error, Result};
use crate::model::catalog::Catalog;
use crate::model::change::Row;
use crate::model::schema::{Schema, SchemaKind};
use crate::model::value::Value;
use crate::store::accounts::settle;

use super::Content;
use super::job::Job;

const PASSWORD: &str = "password";

/// Whether records of that schema take a `password`.
pub(super) fn holds_password(catalog: &Catalog, schema: &str) -> bool {
    schema == "user" && catalog.named(schema).is_some_and(|s| s.kind == SchemaKind::System)
}

/// Takes the password out of a body, from its top or from `$set`.
///
/// # Errors
/// 400 where it is no string, or given twice.
pub(super) fn take_password(body: &mut Map<String, Json>) -> Result<Option<String>> {
    let plain = body.shift_remove(PASSWORD);
    let set = match body.get_mut("$set") {
        Some(Json::Object(set)) => set.shift_remove(PASSWORD),
        _ => None,
    };
    match (plain, set) {
        (None, None) => Ok(None),
        (Some(Json::String(password)), None) | (None, Some(Json::String(password))) => {
            Ok(Some(password))
        }
        (Some(_), Some(_)) => {
            Err(Error::bad("password: is written twice; use one operator a field"))
        }
        _ => Err(Error::bad("password: expected a string of 8 to 256 characters")),
    }
}

/// Who a principal is by now, where that is another than when it asked. To be called at the head
/// of every write: while it stood in line, others may have taken its rights away.
///
/// # Errors
/// 401 where it may no longer be here.
pub(super) fn changed(
    directory: Option<&Directory>,
    principal: &Principal,
) -> Result<Option<Arc<Principal>>> {
    let (Some(directory), Some(_)) = (directory, principal.expires) else { return Ok(None) };
    // Mostly, and at little cost.
    if directory.still(principal, i64::MIN) {
        return Ok(None);
    }
    let now = directory.current(principal);
    let now = now.ok_or_else(|| Error::unauthorized("the session has ended; log in again"))?;
    Ok((*now != *principal).then_some(now))
}

/// A bulk call sets no passwords: it would be one for all.
///
/// # Errors
/// 400 where it tries to.
pub(super) fn refuse_password(body: &mut Map<String, Json>) -> Result<()> {
    match take_password(body)? {
        None => Ok(()),
        Some(_) => Err(Error::bad("password: is set one user at a time")),
    }
}

/// To be called at the end of every write that names records of `schema`: stores the password and
/// sees that an admin is left, that reserved roles stay, and that sessions end which must.
///
/// # Errors
/// 403 for what must not be.
pub(super) fn written(
    job: &mut Job<'_, '_>,
    schema: &Schema,
    row: Option<&Row>,
    password: Option<&PasswordHash>,
) -> Result<()> {
    if schema.kind != SchemaKind::System {
        return Ok(());
    }
    if let (Some(hash), Some(row)) = (password, row)
        && let Value::Uuid(user) = row.get(schema.primary)
    {
        set_password(job.tx, *user, hash)?;
    }
    settle(job.tx)
}

impl Content {
    /// What a write that waits looks its principal up in. It must hold no store: the writer's
    /// thread may be the last that holds the write.
    pub(super) fn directory(&self) -> Option<Arc<Directory>> {
        self.auth.as_ref().map(|auth| auth.directory().clone())
    }

    /// Hashes a password that is to be set; 400 if it may not be.
    pub(super) async fn hash(&self, password: &str) -> Result<PasswordHash> {
        match &self.auth {
            Some(auth) => auth.hash_password(password).await,
            None => Err(Error::internal("content was opened without auth")),
        }
    }
}
