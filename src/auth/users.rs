//! Users from the command line, and the first admin.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value as Json;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::filter::{Predicate, Test, TestOp, Truth};
use crate::model::change::Row;
use crate::model::schema::Schema;
use crate::model::value::Value;
use crate::store::{Query, Rows, Tx, accounts};

use super::password::PasswordHash;
use super::service::{Auth, Lifetimes, Tokens, set_password, user_schema};
use super::{ADMIN, BUILT_IN};

/// A user to be made. `password` `None`: cannot log in here until one is set.
#[derive(Clone, Default)]
pub struct NewUser {
    pub username: String,
    pub email: Option<String>,
    pub password: Option<String>,
    /// Names of roles that exist.
    pub roles: Vec<String>,
}

/// What became of the first admin.
#[derive(Clone, PartialEq, Eq)]
pub enum Bootstrap {
    /// There is an admin; what was configured for a first one is ignored.
    Existing,
    /// Made with the password given.
    Made { username: String },
    /// Made with a random password, to be shown once.
    Random { username: String, password: String },
}

/// A line of `rowcast user list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub id: Uuid,
    pub username: Arc<str>,
    pub email: Option<Arc<str>>,
    pub active: bool,
    pub roles: Vec<Arc<str>>,
}

impl Auth {
    /// Makes the role `admin`, and a first admin where there is none that is active. A user of
    /// that name that exists is made admin, active, and gets the password: this is also the way
    /// back in for whoever owns the machine.
    pub async fn bootstrap_admin(
        &self,
        username: &str,
        email: Option<&str>,
        password: Option<&str>,
    ) -> Result<Bootstrap> {
        let there = self.store.write(|tx| {
            admin_role(tx)?;
            accounts::active_admins(tx)
        });
        if there.await?.value > 0 {
            return Ok(Bootstrap::Existing);
        }
        let random = password.is_none().then(random_password).transpose()?;
        let password = password.or(random.as_deref()).unwrap_or_default();
        let hash = self.hash_password(password).await?;
        let user = NewUser {
            username: username.to_owned(),
            email: email.map(str::to_owned),
            password: None,
            roles: vec![ADMIN.to_owned()],
        };
        self.store
            .write(move |tx| {
                let id = match accounts::find_in(tx, &user.username)? {
                    Some(account) => {
                        set_active(tx, account.user, true)?;
                        give_roles(tx, account.user, &user.roles)?;
                        account.user
                    }
                    None => insert(tx, &user)?,
                };
                set_password(tx, id, &hash)?;
                accounts::settle(tx)
            })
            .await?;
        let username = username.to_owned();
        Ok(match random {
            Some(password) => Bootstrap::Random { username, password },
            None => Bootstrap::Made { username },
        })
    }

    /// Adds a user; 400 where name or e-mail are taken or a role does not exist.
    pub async fn user_add(&self, user: NewUser) -> Result<Uuid> {
        let hash = match &user.password {
            Some(password) => Some(self.hash_password(password).await?),
            None => None,
        };
        let add = move |tx: &mut Tx<'_>| {
            admin_role(tx)?;
            let id = insert(tx, &user)?;
            if let Some(hash) = &hash {
                set_password(tx, id, hash)?;
            }
            Ok(id)
        };
        Ok(self.store.write(add).await?.value)
    }

    /// Disables a user and ends its sessions; 404 if there is none, 403 for the last admin.
    pub async fn user_disable(&self, username: &str) -> Result<()> {
        let username = username.to_owned();
        self.store
            .write(move |tx| {
                let user = named(tx, &username)?;
                set_active(tx, user, false)?;
                accounts::settle(tx)
            })
            .await
            .map(drop)
    }

    /// Sets a user's password and ends its sessions.
    pub async fn user_passwd(&self, username: &str, password: &str) -> Result<()> {
        let hash: PasswordHash = self.hash_password(password).await?;
        let username = username.to_owned();
        self.store
            .write(move |tx| {
                let user = named(tx, &username)?;
                set_password(tx, user, &hash)
            })
            .await
            .map(drop)
    }

    /// All users, by name.
    pub async fn user_list(&self) -> Result<Vec<Listed>> {
        let (schema, rows) = self
            .store
            .read(|reader| {
                let schema = user_schema(reader)?;
                let rows = reader.select(&Query {
                    schema: schema.clone(),
                    filter: Predicate::Const(Truth::True),
                    sort: schema.column("username").map(|slot| (slot, false)).into_iter().collect(),
                    limit: None,
                    offset: 0,
                })?;
                Ok((schema, rows))
            })
            .await?;
        let text = |row: &Row, name: &str| match schema.column(name).map(|slot| row.get(slot)) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let listed = rows.iter().filter_map(|row| {
            let Value::Uuid(id) = *row.get(schema.primary) else {
                return None;
            };
            let active = schema.column("active").map(|slot| row.get(slot));
            Some(Listed {
                id,
                username: text(row, "username").unwrap_or_default(),
                email: text(row, "email"),
                active: active == Some(&Value::Bool(true)),
                roles: self.directory.roles(&id).into_iter().map(|(_, name)| name).collect(),
            })
        });
        Ok(listed.collect())
    }

    /// A token for an active user, good for `seconds`, in a session of its own; 404 if there is
    /// no such user.
    pub async fn issue(&self, username: &str, seconds: i64) -> Result<Tokens> {
        let name = username.to_owned();
        let unknown = || Error::not_found(format!("there is no active user '{username}'"));
        let account = self.store.read(move |reader| accounts::find(reader, &name)).await?;
        let account = account.ok_or_else(unknown)?;
        let lifetimes = Lifetimes { access: seconds, refresh: None };
        self.open(account.user, None, lifetimes).await?.ok_or_else(unknown)
    }
}

fn random_password() -> Result<String> {
    let mut random = [0u8; 15];
    getrandom::fill(&mut random).map_err(Error::internal)?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}

fn named(tx: &Tx<'_>, username: &str) -> Result<Uuid> {
    accounts::find_in(tx, username)?
        .map(|account| account.user)
        .ok_or_else(|| Error::not_found(format!("there is no user '{username}'")))
}

fn insert(tx: &mut Tx<'_>, user: &NewUser) -> Result<Uuid> {
    let schema = user_schema(tx)?;
    let fields = [
        ("username", Json::from(user.username.as_str())),
        ("email", user.email.as_deref().map_or(Json::Null, Json::from)),
        ("active", Json::Bool(true)),
    ];
    let row = put_new(tx, &schema, fields)?;
    let Value::Uuid(id) = *row.get(schema.primary) else {
        return Err(Error::internal("a user's id is no UUID"));
    };
    give_roles(tx, id, &user.roles)?;
    Ok(id)
}

/// Inserts a record of a system schema; other columns are null, timestamps now.
fn put_new<const N: usize>(
    tx: &mut Tx<'_>,
    schema: &Schema,
    fields: [(&str, Json); N],
) -> Result<Arc<Row>> {
    let mut values = vec![Value::Null; schema.columns.len()];
    for (name, json) in fields {
        let slot = schema
            .column(name)
            .ok_or_else(|| Error::internal(format_args!("'{}' lacks '{name}'", schema.name)))?;
        let column = &schema.columns[slot];
        let empty = json.is_null() || json.as_str() == Some("");
        if empty && !column.optional {
            return Err(Error::bad(format!("{name}: is required")));
        }
        if !empty {
            values[slot] = Value::from_json(&json, column).map_err(Error::bad)?;
        }
    }
    for slot in [schema.created_at, schema.updated_at].into_iter().flatten() {
        values[slot] = Value::Time(tx.now());
    }
    // The message says it all.
    tx.insert(schema, values).map_err(|error| Error { problems: Vec::new(), ..error })
}

fn set_active(tx: &mut Tx<'_>, user: Uuid, active: bool) -> Result<()> {
    let schema = user_schema(tx)?;
    let row = tx
        .get(&schema, &Value::Uuid(user))?
        .ok_or_else(|| Error::not_found("there is no such user"))?;
    let mut values = row.values.to_vec();
    if let Some(slot) = schema.column("active") {
        values[slot] = Value::Bool(active);
    }
    if let Some(slot) = schema.updated_at {
        values[slot] = Value::Time(tx.now());
    }
    tx.update(&schema, values).map(drop)
}

fn give_roles(tx: &mut Tx<'_>, user: Uuid, names: &[String]) -> Result<()> {
    let schema = user_schema(tx)?;
    let relation = schema
        .relation("roles")
        .map(|index| &schema.relations[index])
        .ok_or_else(|| Error::internal("users have no roles"))?;
    for name in names {
        if BUILT_IN.contains(&name.as_str()) {
            return Err(Error::bad(format!("role '{name}' holds by itself; leave it out")));
        }
        let role = role_named(tx, name)?
            .ok_or_else(|| Error::bad(format!("there is no role '{name}'")))?;
        tx.link(&schema, relation, &Value::Uuid(user), &role)?;
    }
    Ok(())
}

/// The role's id.
fn role_named(tx: &Tx<'_>, name: &str) -> Result<Option<Value>> {
    let schema = role_schema(tx)?;
    let Some(slot) = schema.column("name") else {
        return Err(Error::internal("roles have no name"));
    };
    let found = tx.select(&Query {
        filter: Predicate::Test(Test { slot, op: TestOp::Eq(Value::Text(name.into())) }),
        schema: schema.clone(),
        sort: Vec::new(),
        limit: Some(1),
        offset: 0,
    })?;
    Ok(found.first().map(|row| row.get(schema.primary).clone()))
}

fn role_schema(rows: &impl Rows) -> Result<Arc<Schema>> {
    rows.catalog()
        .named("role")
        .cloned()
        .ok_or_else(|| Error::internal("the catalog lacks the role schema"))
}

/// Makes the role `admin` where it is missing.
fn admin_role(tx: &mut Tx<'_>) -> Result<()> {
    if role_named(tx, ADMIN)?.is_none() {
        let schema = role_schema(tx)?;
        put_new(tx, &schema, [("name", Json::from(ADMIN))])?;
    }
    Ok(())
}
