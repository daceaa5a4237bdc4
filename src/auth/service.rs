//! Logging in and out, and who a request comes from.
//!
//! [`Auth::authenticate`] stands in every request's way: it verifies a signature and looks into
//! memory, never into the store.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::{Error, Kind, Result};
use crate::model::change::Row;
use crate::model::schema::Schema;
use crate::model::value::Value;
use crate::store::accounts::{self, Refresh};
use crate::store::{Rows, Store, Tx};

use super::directory::{self, Directory};
use super::issuer::Issuer;
use super::limiter::Limiter;
use super::now_seconds;
use super::password::{PasswordHash, Passwords};
use super::present::Presented;
use super::principal::Principal;
use super::proven::{self, Proven};
use super::token::{self, ClaimedUser, Claims, Keys};

/// Sessions a user may have at once; one more ends the oldest. All are held in memory, and whoever
/// has a password can log in as often as they like.
pub const SESSIONS: usize = 500;

/// Reads of one's own record, told from others (see [`Store::read_short`]).
const ME: u64 = 1;

/// How long tokens last, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    pub access: i64,
    /// `None`: no refresh tokens are given.
    pub refresh: Option<i64>,
}

impl Lifetimes {
    /// FastSchema's: 7 days, or 15 minutes and refresh tokens of 7 days.
    pub fn new(refresh: bool) -> Lifetimes {
        const WEEK: i64 = 7 * 24 * 3600;
        if refresh {
            Lifetimes { access: 15 * 60, refresh: Some(WEEK) }
        } else {
            Lifetimes { access: WEEK, refresh: None }
        }
    }
}

/// The service. One for the server, shared.
pub struct Auth {
    pub(super) store: Store,
    pub(super) directory: Arc<Directory>,
    pub(super) passwords: Passwords,
    keys: Keys,
    issuer: Option<Issuer>,
    proven: Proven<Own>,
    lifetimes: Lifetimes,
    limiter: Arc<Limiter>,
}

/// What an own token says, and who stood behind it when it was last shown.
#[derive(Clone)]
struct Own {
    claims: Arc<Claims>,
    principal: Arc<Principal>,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// What a login gives. Times are seconds since 1970.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens {
    pub token: String,
    pub expires: i64,
    /// The refresh token and when it ends.
    pub refresh: Option<(String, i64)>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens(until {})", self.expires)
    }
}

impl Tokens {
    /// `{"token","expires"[,"refresh_token","refresh_token_expires"]}`, times in RFC 3339.
    pub fn to_json(&self) -> Json {
        let time = |seconds: i64| Value::Time(seconds.saturating_mul(1_000_000)).to_json();
        let mut answer = json!({"token": self.token, "expires": time(self.expires)});
        if let Some((refresh, expires)) = &self.refresh {
            answer["refresh_token"] = json!(refresh);
            answer["refresh_token_expires"] = time(*expires);
        }
        answer
    }
}

/// Who is logged in, for `me`.
#[derive(Clone, Debug)]
pub struct Me {
    /// The user's record; `None` where a token of the outside issuer belongs to no user here.
    pub record: Option<(Arc<Schema>, Arc<Row>)>,
    /// Id (`None` for roles that only the token gives) and name.
    pub roles: Vec<(Option<Uuid>, Arc<str>)>,
}

impl Me {
    /// The record's own columns and `roles`, a list of `{"id","name"}`.
    pub fn to_json(&self) -> Json {
        let mut answer = Map::new();
        match &self.record {
            Some((schema, row)) => {
                for (column, value) in schema.columns.iter().zip(&row.values) {
                    answer.insert(column.name.to_string(), value.to_json());
                }
            }
            None => {
                answer.insert("id".into(), Json::Null);
                answer.insert("username".into(), Json::Null);
            }
        }
        let roles = self.roles.iter().map(|(id, name)| json!({"id": id, "name": &**name}));
        answer.insert("roles".into(), roles.collect());
        Json::Object(answer)
    }
}

/// Every wrong pair gets this, whatever was wrong.
fn wrong_login() -> Error {
    Error::new(Kind::Unprocessable, "Invalid login or password")
}

impl Auth {
    /// `directory` is the one that the store's sink brings up to every commit. Call
    /// [`Auth::load`] before serving.
    pub fn new(
        store: Store,
        directory: Arc<Directory>,
        keys: Keys,
        lifetimes: Lifetimes,
        issuer: Option<Issuer>,
    ) -> Result<Auth> {
        Ok(Auth {
            store,
            directory,
            passwords: Passwords::new()?,
            keys,
            issuer,
            proven: Proven::default(),
            lifetimes,
            limiter: Arc::default(),
        })
    }

    /// Fills the directory from the store, cleaning up what has expired.
    pub async fn load(&self) -> Result<()> {
        let directory = self.directory.clone();
        self.store
            .write(move |tx| {
                accounts::clean(tx, now_seconds())?;
                let open = accounts::sessions(tx)?.into_iter().map(|session| {
                    let (user, expires) = (session.user, session.expires);
                    (session.id, directory::Session { user, expires })
                });
                directory.load(tx, open)
            })
            .await
            .map(drop)
    }

    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Who presents these credentials: a guest for none at all, 401 for anything but a good token.
    pub async fn authenticate(&self, presented: &Presented) -> Result<Arc<Principal>> {
        let token = match presented {
            Presented::Nothing => return Ok(Arc::new(Principal::guest())),
            Presented::Bad => return Err(Error::unauthorized("bad token")),
            Presented::Token(token) => token,
        };
        token::bounded(token)?;
        let now = now_seconds();
        let digest = proven::digest(token);
        if let Some(known) = self.proven.get(&digest) {
            token::check_claims(&known.claims, now)?;
            // Who has many sockets is held in memory once.
            if self.directory.still(&known.principal, now) {
                return Ok(known.principal);
            }
            let principal = Arc::new(self.present(&known.claims, now)?);
            let own = Own { principal: principal.clone(), ..known };
            self.proven.put(digest, own, token.len());
            return Ok(principal);
        }
        let header = token::header(token)?;
        if header.alg == Algorithm::HS256 {
            let claims = Arc::new(self.keys.verify(token, now)?);
            let principal = Arc::new(self.present(&claims, now)?);
            let own = Own { claims, principal: principal.clone() };
            self.proven.put(digest, own, token.len());
            return Ok(principal);
        }
        let Some(issuer) = &self.issuer else {
            return Err(Error::unauthorized("bad token: wrong algorithm"));
        };
        let (claims, expires) = issuer.verify(token, &header, now).await?;
        self.directory
            .outside(claims, expires)
            .map(Arc::new)
            .ok_or_else(|| Error::unauthorized("the user is not active"))
    }

    /// The principal behind the claims of an own token, as of now.
    fn present(&self, claims: &Claims, now: i64) -> Result<Principal> {
        self.directory
            .own(claims.user.id, claims.sid, claims.exp, now)
            .ok_or_else(|| Error::unauthorized("the session has ended; log in again"))
    }

    /// Logs in by user name or e-mail address. Credentials that the request itself carries are
    /// of no matter: clients send the token they are about to replace.
    ///
    /// `address` is the peer's, `None` for the owner's local commands. 422 for every wrong pair,
    /// 429 after too many, 503 when too many log in at once.
    pub async fn login(
        &self,
        login: &str,
        password: &str,
        address: Option<IpAddr>,
    ) -> Result<Tokens> {
        let attempt = self.limiter.begin(login, address).await?;
        let name = login.to_owned();
        let account = self.store.read(move |reader| accounts::find(reader, &name)).await?;
        let hash =
            account.as_ref().and_then(|account| account.hash.clone()).map(PasswordHash::stored);
        // Hashed for an unknown or disabled user too, so that they take as long.
        let right = self.passwords.verify(password, hash.as_ref()).await?;
        let (Some(account), Some(hash), true) = (account.filter(|a| a.active), hash, right) else {
            attempt.failed();
            return Err(wrong_login());
        };
        let opened = self.open(account.user, Some(hash), self.lifetimes).await?;
        opened.ok_or_else(|| {
            attempt.failed();
            wrong_login()
        })
    }

    /// Opens a session: `None` when the user is gone, disabled, or its password is no longer the
    /// one behind `hash`.
    pub(super) async fn open(
        &self,
        user: Uuid,
        hash: Option<PasswordHash>,
        lifetimes: Lifetimes,
    ) -> Result<Option<Tokens>> {
        let directory = self.directory.clone();
        let secret = lifetimes.refresh.map(|_| Secret::new()).transpose()?;
        let refresh = secret.as_ref().map(Secret::hash);
        let session = Uuid::now_v7();
        let now = now_seconds();
        let expires = now + lifetimes.refresh.unwrap_or(lifetimes.access);
        let opened = self
            .store
            .write(move |tx| {
                let account = accounts::account(tx, user)?.filter(|account| account.active);
                let same = account.is_some_and(|account| {
                    hash.is_none_or(|hash| account.hash.as_deref() == Some(hash.expose()))
                });
                if same {
                    let row =
                        accounts::Session { id: session, user, refresh, created: now, expires };
                    accounts::clean(tx, now)?;
                    accounts::open_session(tx, &row)?;
                    accounts::end_oldest(tx, user, SESSIONS)?;
                    directory.forget_expired(now);
                    directory.open_session(session, directory::Session { user, expires });
                }
                Ok(same)
            })
            .await?
            .value;
        if !opened {
            return Ok(None);
        }
        let refresh = secret.map(|secret| (secret.text, expires));
        self.sign(user, session, now, lifetimes.access, refresh).map(Some)
    }

    fn sign(
        &self,
        user: Uuid,
        session: Uuid,
        now: i64,
        access: i64,
        refresh: Option<(String, i64)>,
    ) -> Result<Tokens> {
        let roles = self.directory.roles(&user).into_iter().map(|(_, name)| name.to_string());
        let username = self.directory.username(&user).unwrap_or_default();
        let user = ClaimedUser { id: user, username: username.to_string(), roles: roles.collect() };
        let expires = now + access;
        let claims = Claims { exp: expires, iat: now, nbf: None, sid: session, user };
        Ok(Tokens { token: self.keys.sign(&claims)?, expires, refresh })
    }

    /// New tokens for a refresh token, which is used up. 401 if it is unknown or has expired; one
    /// that was used before ends its session, for then two hold what only one should.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Tokens> {
        let refused = || Error::unauthorized("bad refresh token");
        let Some(lifetime) = self.lifetimes.refresh else {
            return Err(Error::bad("refresh tokens are not enabled; log in again"));
        };
        let hash = Secret::hash_of(refresh_token);
        let next = Secret::new()?;
        let next_hash = next.hash();
        let now = now_seconds();
        let expires = now + lifetime;
        let directory = self.directory.clone();
        let session = self
            .store
            .write(move |tx| match accounts::find_refresh(tx, &hash)? {
                Refresh::Good(old) if old.expires > now => {
                    accounts::renew(tx, &old, &next_hash, expires)?;
                    let prolonged = directory::Session { user: old.user, expires };
                    directory.open_session(old.id, prolonged);
                    Ok(Some(old))
                }
                // Not an error here: ending the session must be committed.
                Refresh::Used { session, user } => {
                    accounts::end_session(tx, user, session)?;
                    Ok(None)
                }
                _ => Ok(None),
            })
            .await?
            .value
            .ok_or_else(refused)?;
        let refresh = Some((next.text, expires));
        self.sign(session.user, session.id, now, self.lifetimes.access, refresh)
    }

    /// Ends the principal's session at once, here and on its sockets. Tokens of the outside issuer
    /// have no session here; theirs to end.
    pub async fn logout(&self, principal: &Principal) -> Result<()> {
        must_be_logged_in(principal)?;
        let (Some(user), Some(session)) = (principal.user, principal.session) else {
            return Ok(());
        };
        self.store.write(move |tx| accounts::end_session(tx, user, session)).await.map(drop)
    }

    /// The principal's own record.
    pub async fn me(&self, principal: &Principal) -> Result<Me> {
        must_be_logged_in(principal)?;
        let mut roles: Vec<(Option<Uuid>, Arc<str>)> = principal
            .user
            .map(|user| self.directory.roles(&user))
            .into_iter()
            .flatten()
            .filter(|(_, name)| principal.roles.contains(name))
            .map(|(id, name)| (Some(id), name))
            .collect();
        for name in &principal.roles {
            if !roles.iter().any(|(_, known)| known == name) {
                roles.push((None, name.clone()));
            }
        }
        let Some(user) = principal.user else {
            return Ok(Me { record: None, roles });
        };
        let record = self
            .store
            .read_short(ME, move |reader| {
                let schema = user_schema(reader)?;
                let row = reader.get(&schema, &Value::Uuid(user))?;
                Ok(row.map(|row| (schema, row)))
            })
            .await?
            .ok_or_else(|| Error::unauthorized("the user is gone"))?;
        Ok(Me { record: Some(record), roles })
    }

    /// Changes one's own password and ends one's other sessions at once. 422 if `current` is
    /// wrong, 400 if `password` may not be set.
    pub async fn change_password(
        &self,
        principal: &Principal,
        current: &str,
        password: &str,
        address: Option<IpAddr>,
    ) -> Result<()> {
        must_be_logged_in(principal)?;
        let Some(user) = principal.user else {
            return Err(Error::bad("this login has no password here"));
        };
        Passwords::check(password)?;
        let wrong = || Error::new(Kind::Unprocessable, "Invalid current password");
        let attempt = self.limiter.begin(&user.to_string(), address).await?;
        let account = self.store.read(move |reader| accounts::account_of(reader, user)).await?;
        let old = account.and_then(|account| account.hash).map(PasswordHash::stored);
        if !self.passwords.verify(current, old.as_ref()).await? {
            attempt.failed();
            return Err(wrong());
        }
        drop(attempt);
        let hash = self.passwords.hash(password).await?;
        let keep = principal.session;
        let same = self
            .store
            .write(move |tx| {
                let now = accounts::account(tx, user)?.and_then(|account| account.hash);
                let same = now.as_deref() == old.as_ref().map(PasswordHash::expose);
                if same {
                    accounts::set_password(tx, user, hash.expose(), keep)?;
                }
                Ok(same)
            })
            .await?
            .value;
        if same { Ok(()) } else { Err(wrong()) }
    }

    /// What comparing passwords took since the start: [`Passwords::work`].
    pub fn password_work(&self) -> u64 {
        self.passwords.work()
    }

    /// Hashes a password that is to be set; 400 if it may not be.
    pub async fn hash_password(&self, password: &str) -> Result<PasswordHash> {
        self.passwords.hash(password).await
    }
}

/// Sets a user's password within a write and ends all its sessions.
pub fn set_password(tx: &mut Tx<'_>, user: Uuid, hash: &PasswordHash) -> Result<()> {
    accounts::set_password(tx, user, hash.expose(), None)
}

fn must_be_logged_in(principal: &Principal) -> Result<()> {
    if principal.logged_in { Ok(()) } else { Err(Error::unauthorized("log in first")) }
}

pub(super) fn user_schema(rows: &impl Rows) -> Result<Arc<Schema>> {
    rows.catalog()
        .named("user")
        .cloned()
        .ok_or_else(|| Error::internal("the catalog lacks the user schema"))
}

/// A refresh token: 256 random bits, of which only the hash is stored.
struct Secret {
    text: String,
}

impl Secret {
    fn new() -> Result<Secret> {
        let mut random = [0u8; 32];
        getrandom::fill(&mut random).map_err(Error::internal)?;
        Ok(Secret { text: URL_SAFE_NO_PAD.encode(random) })
    }

    fn hash(&self) -> [u8; 32] {
        Secret::hash_of(&self.text)
    }

    /// Random enough that a plain hash cannot be searched.
    fn hash_of(text: &str) -> [u8; 32] {
        Sha256::digest(text.as_bytes()).into()
    }
}
