//! Credentials and sessions: tables of their own, outside every schema.
//!
//! A password's hash never enters a record, the log, a frame, a filter or an error, because no
//! schema knows these tables. Everything here runs within somebody's write.
//!
//! **Does not know:** tokens, how passwords are hashed, what is held in memory.

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use crate::error::{Error, Kind, Result};
use crate::model::catalog::Catalog;
use crate::model::change::{Change, Commit, Notice};
use crate::model::schema::{Schema, Shape};
use crate::model::value::Value;

use super::fault::fault;
use super::{Reader, Rows, Tx};

/// A session row. Times are seconds since 1970; hashes are SHA-256 of a random token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: Uuid,
    pub user: Uuid,
    /// Of the refresh token that is good now; `None` without refresh tokens.
    pub refresh: Option<[u8; 32]>,
    pub created: i64,
    pub expires: i64,
}

/// Who a login names, and what its password is checked against.
#[derive(Clone)]
pub struct Account {
    pub user: Uuid,
    pub active: bool,
    /// In PHC form; `None` where no password is set.
    pub hash: Option<String>,
}

/// What a refresh token turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refresh {
    Good(Session),
    /// It was used before: somebody has stolen it, or whoever holds its successor has.
    Used {
        session: Uuid,
        user: Uuid,
    },
    Unknown,
}

/// Whether a commit may change who somebody is, or what somebody may do.
pub(super) fn of_rights(catalog: &Catalog, commit: &Commit) -> bool {
    let of_rights = |change: &Change| catalog.is_of_rights(change.schema);
    !commit.notices.is_empty() || commit.changes.iter().any(of_rights)
}

/// Makes the tables.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "CREATE TABLE _rc_credential (
             user BLOB PRIMARY KEY,
             hash TEXT NOT NULL
         ) STRICT, WITHOUT ROWID;
         CREATE TABLE _rc_session (
             id BLOB PRIMARY KEY,
             user BLOB NOT NULL,
             refresh BLOB UNIQUE,
             created INTEGER NOT NULL,
             expires INTEGER NOT NULL
         ) STRICT, WITHOUT ROWID;
         CREATE INDEX _rc_session_user ON _rc_session (user);
         CREATE INDEX _rc_session_expires ON _rc_session (expires);
         CREATE TABLE _rc_refresh_used (
             hash BLOB PRIMARY KEY,
             session BLOB NOT NULL,
             expires INTEGER NOT NULL
         ) STRICT, WITHOUT ROWID;
         CREATE INDEX _rc_refresh_used_session ON _rc_refresh_used (session);
         CREATE INDEX _rc_refresh_used_expires ON _rc_refresh_used (expires);",
    )
}

/// The account that a user name, or else an e-mail address, names.
pub fn find(reader: &Reader<'_>, login: &str) -> Result<Option<Account>> {
    by_login(reader.connection, login)
}

/// The same within a write.
pub fn find_in(tx: &Tx<'_>, login: &str) -> Result<Option<Account>> {
    by_login(tx.connection, login)
}

fn by_login(connection: &Connection, login: &str) -> Result<Option<Account>> {
    one(
        connection,
        "SELECT u.id, u.active, c.hash FROM users u LEFT JOIN _rc_credential c ON c.user = u.id
         WHERE u.username = ?1 OR u.email = ?1 ORDER BY u.username = ?1 DESC LIMIT 1",
        params![login],
    )
}

/// A user's account by id.
pub fn account(tx: &Tx<'_>, user: Uuid) -> Result<Option<Account>> {
    by_id(tx.connection, user)
}

/// The same outside a write.
pub fn account_of(reader: &Reader<'_>, user: Uuid) -> Result<Option<Account>> {
    by_id(reader.connection, user)
}

fn by_id(connection: &Connection, user: Uuid) -> Result<Option<Account>> {
    one(
        connection,
        "SELECT u.id, u.active, c.hash FROM users u LEFT JOIN _rc_credential c ON c.user = u.id
         WHERE u.id = ?1",
        params![user.as_bytes()],
    )
}

fn one(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
) -> Result<Option<Account>> {
    let mut statement = connection.prepare_cached(sql).map_err(fault)?;
    statement
        .query_row(params, |row| {
            Ok(Account { user: uuid(row, 0)?, active: row.get(1)?, hash: row.get(2)? })
        })
        .optional()
        .map_err(fault)
}

/// Sets a password's hash and ends the user's sessions, all but `keep`.
pub fn set_password(tx: &mut Tx<'_>, user: Uuid, hash: &str, keep: Option<Uuid>) -> Result<()> {
    run(
        tx.connection,
        "INSERT INTO _rc_credential (user, hash) VALUES (?1, ?2)
         ON CONFLICT (user) DO UPDATE SET hash = excluded.hash",
        params![user.as_bytes(), hash],
    )?;
    end_sessions(tx, user, keep)
}

/// Stores a new session.
pub fn open_session(tx: &Tx<'_>, session: &Session) -> Result<()> {
    run(
        tx.connection,
        "INSERT INTO _rc_session (id, user, refresh, created, expires) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            session.id.as_bytes(),
            session.user.as_bytes(),
            session.refresh,
            session.created,
            session.expires
        ],
    )
    .map(drop)
}

/// Ends a user's oldest sessions but for `most`.
pub fn end_oldest(tx: &mut Tx<'_>, user: Uuid, most: usize) -> Result<()> {
    // Ids are UUIDs of version 7: ordered by time.
    let sql = "SELECT id FROM _rc_session WHERE user = ?1 ORDER BY id DESC LIMIT -1 OFFSET ?2";
    let old: Vec<Uuid> = {
        let mut statement = tx.connection.prepare_cached(sql).map_err(fault)?;
        let rows = statement
            .query_map(params![user.as_bytes(), most as i64], |row| uuid(row, 0))
            .map_err(fault)?;
        rows.collect::<rusqlite::Result<_>>().map_err(fault)?
    };
    for session in old {
        end_session(tx, user, session)?;
    }
    Ok(())
}

/// Ends one session, for the log too; `false` where it had ended already.
pub fn end_session(tx: &mut Tx<'_>, user: Uuid, session: Uuid) -> Result<bool> {
    let ended = run(
        tx.connection,
        "DELETE FROM _rc_session WHERE id = ?1 AND user = ?2",
        params![session.as_bytes(), user.as_bytes()],
    )? > 0;
    forget_used(tx, session)?;
    if ended {
        tx.notice(Notice::Session { user, session: Some(session) });
    }
    Ok(ended)
}

/// Ends a user's sessions, all but `keep`.
pub fn end_sessions(tx: &mut Tx<'_>, user: Uuid, keep: Option<Uuid>) -> Result<()> {
    let open: Vec<Uuid> = {
        let mut statement = tx
            .connection
            .prepare_cached("SELECT id FROM _rc_session WHERE user = ?1")
            .map_err(fault)?;
        let rows = statement.query_map([user.as_bytes()], |row| uuid(row, 0)).map_err(fault)?;
        rows.collect::<rusqlite::Result<_>>().map_err(fault)?
    };
    if !keep.is_some_and(|keep| open.contains(&keep)) {
        for session in &open {
            forget_used(tx, *session)?;
        }
        run(tx.connection, "DELETE FROM _rc_session WHERE user = ?1", [user.as_bytes()])?;
        // Told even where no session is stored: whoever still has a socket must lose it.
        tx.notice(Notice::Session { user, session: None });
        return Ok(());
    }
    for session in open.into_iter().filter(|session| Some(*session) != keep) {
        end_session(tx, user, session)?;
    }
    Ok(())
}

fn forget_used(tx: &Tx<'_>, session: Uuid) -> Result<()> {
    let sql = "DELETE FROM _rc_refresh_used WHERE session = ?1";
    run(tx.connection, sql, [session.as_bytes()]).map(drop)
}

/// What the refresh token with this hash is.
pub fn find_refresh(tx: &Tx<'_>, hash: &[u8; 32]) -> Result<Refresh> {
    let good = tx
        .connection
        .prepare_cached(
            "SELECT id, user, refresh, created, expires FROM _rc_session WHERE refresh = ?1",
        )
        .and_then(|mut statement| statement.query_row([hash], session).optional())
        .map_err(fault)?;
    if let Some(session) = good {
        return Ok(Refresh::Good(session));
    }
    let used = tx
        .connection
        .prepare_cached(
            "SELECT s.id, s.user FROM _rc_refresh_used r JOIN _rc_session s ON s.id = r.session
             WHERE r.hash = ?1",
        )
        .and_then(|mut statement| {
            statement.query_row([hash], |row| Ok((uuid(row, 0)?, uuid(row, 1)?))).optional()
        })
        .map_err(fault)?;
    Ok(used.map_or(Refresh::Unknown, |(session, user)| Refresh::Used { session, user }))
}

/// Puts a new refresh token in the place of the used one and prolongs the session.
pub fn renew(tx: &Tx<'_>, old: &Session, refresh: &[u8; 32], expires: i64) -> Result<()> {
    run(
        tx.connection,
        "INSERT INTO _rc_refresh_used (hash, session, expires)
         SELECT refresh, id, expires FROM _rc_session WHERE id = ?1",
        [old.id.as_bytes()],
    )?;
    run(
        tx.connection,
        "UPDATE _rc_session SET refresh = ?2, expires = ?3 WHERE id = ?1",
        params![old.id.as_bytes(), refresh, expires],
    )
    .map(drop)
}

/// Takes away what ended by itself before `now`. Nobody needs to be told: tokens end by the clock.
pub fn clean(tx: &Tx<'_>, now: i64) -> Result<()> {
    run(tx.connection, "DELETE FROM _rc_session WHERE expires <= ?1", [now])?;
    run(tx.connection, "DELETE FROM _rc_refresh_used WHERE expires <= ?1", [now]).map(drop)
}

/// All sessions.
pub fn sessions(tx: &Tx<'_>) -> Result<Vec<Session>> {
    let mut statement = tx
        .connection
        .prepare("SELECT id, user, refresh, created, expires FROM _rc_session")
        .map_err(fault)?;
    let rows = statement.query_map((), session).map_err(fault)?;
    rows.collect::<rusqlite::Result<_>>().map_err(fault)
}

/// Call this in every write that touched `user`, `role` or the links between them, after the last
/// change: refuses the write where no active admin would be left or a built-in role was touched
/// (403), and takes credentials and sessions away from users who are gone or disabled.
pub fn settle(tx: &mut Tx<'_>) -> Result<()> {
    guard_roles(tx)?;
    guard_last_admin(tx)?;
    let missing = || Error::internal("the catalog lacks the user schema");
    let users = tx.catalog().named("user").cloned().ok_or_else(missing)?;
    guard_logins(tx, &users)?;
    let active = users.column("active").ok_or_else(missing)?;
    let gone: Vec<(Uuid, bool)> = tx
        .touched
        .now(users.id)
        .filter_map(|(key, row)| match key {
            Value::Uuid(id) => Some((*id, row)),
            _ => None,
        })
        .filter(|(_, row)| row.is_none_or(|row| *row.get(active) != Value::Bool(true)))
        .map(|(id, row)| (id, row.is_none()))
        .collect();
    for (user, deleted) in gone {
        end_sessions(tx, user, None)?;
        if deleted {
            let sql = "DELETE FROM _rc_credential WHERE user = ?1";
            run(tx.connection, sql, [user.as_bytes()])?;
        }
    }
    Ok(())
}

/// 400 where a login would name nobody, or two: an empty user name, or one user's name that is
/// another's address.
fn guard_logins(tx: &Tx<'_>, users: &Schema) -> Result<()> {
    let (Some(username), Some(email)) = (users.column("username"), users.column("email")) else {
        return Err(Error::internal("the user schema lacks its columns"));
    };
    for (key, row) in tx.touched.now(users.id) {
        let (Value::Uuid(id), Some(row)) = (key, row) else { continue };
        for (slot, other) in [(username, "email"), (email, "username")] {
            let Value::Text(login) = row.get(slot) else { continue };
            let name = &users.columns[slot].name;
            if login.trim().is_empty() {
                return Err(Error::bad(format!("{name}: must not be empty")));
            }
            let taken = tx
                .connection
                .prepare_cached(&format!("SELECT 1 FROM users WHERE {other} = ?1 AND id <> ?2"))
                .and_then(|mut statement| statement.exists((&**login, id.as_bytes())))
                .map_err(fault)?;
            if taken {
                return Err(Error::bad(format!("{name}: another user logs in as '{login}'")));
            }
        }
    }
    Ok(())
}

/// 403 where no active user with the role `admin` is left.
pub fn guard_last_admin(tx: &Tx<'_>) -> Result<()> {
    if active_admins(tx)? > 0 {
        return Ok(());
    }
    Err(Error::new(
        Kind::Forbidden,
        "Forbidden: the last active admin cannot be disabled, demoted or deleted; make another \
         user an admin first",
    ))
}

/// The role `admin` stays, and nothing is called like the rules that hold by themselves.
fn guard_roles(tx: &Tx<'_>) -> Result<()> {
    let mut statement = tx
        .connection
        .prepare_cached("SELECT name FROM roles WHERE lower(name) IN ('admin', 'user', 'guest')")
        .map_err(fault)?;
    let names = statement.query_map((), |row| row.get::<_, String>(0)).map_err(fault)?;
    let names = names.collect::<rusqlite::Result<Vec<_>>>().map_err(fault)?;
    match names.iter().find(|name| *name != "admin") {
        Some(name) => Err(Error::forbidden(format_args!(
            "a role cannot be called '{name}': 'user' and 'guest' hold by themselves, 'admin' \
             exists once"
        ))),
        None if names.is_empty() => {
            Err(Error::forbidden("the role 'admin' cannot be renamed or deleted"))
        }
        None => Ok(()),
    }
}

/// How many active users have the role `admin`.
pub fn active_admins(tx: &Tx<'_>) -> Result<u64> {
    let catalog = tx.catalog();
    let missing = || Error::internal("the catalog lacks the links between users and roles");
    let (links, user, role) = links(catalog).ok_or_else(missing)?;
    // Names of tables and columns match [A-Za-z][A-Za-z0-9_]* or are our own. CROSS JOIN keeps the
    // order: from the one role to its few members, however many users there are.
    let sql = format!(
        "SELECT count(DISTINCT u.id) FROM roles r
         CROSS JOIN \"{}\" l ON l.\"{role}\" = r.id
         CROSS JOIN users u ON u.id = l.\"{user}\"
         WHERE r.name = 'admin' AND u.active",
        links.table
    );
    let mut statement = tx.connection.prepare_cached(&sql).map_err(fault)?;
    let count: i64 = statement.query_row((), |row| row.get(0)).map_err(fault)?;
    Ok(count.unsigned_abs())
}

/// The junction between users and roles, and its columns for either.
fn links(catalog: &Catalog) -> Option<(&Schema, &str, &str)> {
    let user = catalog.named("user")?;
    let Shape::Link { junction, own, other } = user.relations[user.relation("roles")?].shape else {
        return None;
    };
    let junction = catalog.get(junction)?;
    Some((junction, &junction.columns[own].name, &junction.columns[other].name))
}

fn run(connection: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<usize> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute(params))
        .map_err(fault)
}

fn session(row: &rusqlite::Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session {
        id: uuid(row, 0)?,
        user: uuid(row, 1)?,
        refresh: row.get(2)?,
        created: row.get(3)?,
        expires: row.get(4)?,
    })
}

fn uuid(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    row.get::<_, [u8; 16]>(column).map(Uuid::from_bytes)
}
