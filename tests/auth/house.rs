//! A store with users in it, and the service over them, as the server puts them together.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rowcast::auth::directory::Directory;
use rowcast::auth::issuer::{Issuer, IssuerConfig, Mapping, Pace};
use rowcast::auth::present::Presented;
use rowcast::auth::principal::Principal;
use rowcast::auth::service::{Auth, Lifetimes, Tokens};
use rowcast::auth::token::Keys;
use rowcast::auth::users::NewUser;
use rowcast::error::{Error, Result};
use rowcast::model::change::Commit;
use rowcast::model::value::Value;
use rowcast::store::migrate::{self, How};
use rowcast::store::{CommitSink, Options, Rows, Store, Tx, accounts};
use uuid::Uuid;

use crate::issuer::Network;

pub const KEY: &[u8] = b"a key of the tests, of 32 bytes..";
pub const PASSWORD: &str = "correct horse";
pub const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

pub struct House {
    pub store: Store,
    pub directory: Arc<Directory>,
    pub auth: Auth,
    pub commits: Arc<Mutex<Vec<Arc<Commit>>>>,
}

struct Sink(Arc<Directory>, Arc<Mutex<Vec<Arc<Commit>>>>);

impl CommitSink for Sink {
    fn committed(&mut self, commits: &[Arc<Commit>]) {
        for commit in commits {
            self.0.apply(commit);
            self.1.lock().unwrap().push(commit.clone());
        }
    }
}

/// What differs between tests.
pub struct Plan {
    pub lifetimes: Lifetimes,
    pub key: &'static [u8],
    pub previous: Option<&'static [u8]>,
    pub issuer: Option<IssuerConfig>,
}

impl Default for Plan {
    fn default() -> Self {
        Plan { lifetimes: Lifetimes::new(false), key: KEY, previous: None, issuer: None }
    }
}

impl Plan {
    pub fn refreshing() -> Plan {
        Plan { lifetimes: Lifetimes::new(true), ..Plan::default() }
    }

    pub fn lasting(access: i64, refresh: Option<i64>) -> Plan {
        Plan { lifetimes: Lifetimes { access, refresh }, ..Plan::default() }
    }
}

impl House {
    /// Opens the store in `dir` and makes the first admin `root`.
    pub async fn open(dir: &Path, plan: Plan) -> House {
        let network = Arc::new(Network::default());
        let (mapping, issuer) = match &plan.issuer {
            Some(config) => {
                let issuer = Issuer::open(config, network, Pace::default()).await.unwrap();
                (Some(Mapping::new(config).unwrap()), Some(issuer))
            }
            None => (None, None),
        };
        let directory = Arc::new(Directory::new(mapping));
        let commits = Arc::default();
        let sink = Sink(directory.clone(), Arc::clone(&commits));
        let store = Store::open(Options::new(dir), Box::new(sink)).unwrap();
        store
            .write(|tx| {
                let defs = rowcast::model::system::schemas();
                let migration = migrate::plan(&tx.stored()?, &defs, &How::default())
                    .map_err(|faults| Error::internal(format_args!("{faults:?}")))?;
                if migration.is_empty() { Ok(()) } else { tx.migrate(&migration) }
            })
            .await
            .unwrap();
        let keys = Keys::new(plan.key, plan.previous).unwrap();
        let auth =
            Auth::new(store.clone(), directory.clone(), keys, plan.lifetimes, issuer).unwrap();
        auth.load().await.unwrap();
        auth.bootstrap_admin("root", None, Some(PASSWORD)).await.unwrap();
        House { store, directory, auth, commits }
    }

    pub async fn add(&self, username: &str, roles: &[&str]) -> Uuid {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        let user = NewUser {
            username: username.into(),
            email: Some(format!("{username}@example.com")),
            password: Some(PASSWORD.into()),
            roles,
        };
        self.auth.user_add(user).await.unwrap()
    }

    pub async fn login(&self, username: &str) -> Tokens {
        self.auth.login(username, PASSWORD, Some(HOME)).await.unwrap()
    }

    pub async fn who(&self, token: &str) -> Result<Principal> {
        let principal = self.auth.authenticate(&Presented::Token(token.to_owned())).await?;
        Ok((*principal).clone())
    }

    /// Whether the token is refused with 401.
    pub async fn refuses(&self, token: &str) -> bool {
        match self.who(token).await {
            Ok(_) => false,
            Err(error) => {
                assert_eq!(error.status(), 401);
                assert!(error.message.starts_with("Unauthorized"));
                true
            }
        }
    }

    /// Changes columns of a user as the content API would.
    pub async fn change(&self, user: Uuid, fields: &[(&str, Value)]) -> Result<()> {
        let fields: Vec<(String, Value)> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let job = move |tx: &mut Tx<'_>| {
            let schema = tx.catalog().named("user").unwrap().clone();
            let mut values = tx.get(&schema, &Value::Uuid(user))?.unwrap().values.to_vec();
            for (name, value) in fields {
                values[schema.column(&name).unwrap()] = value;
            }
            tx.update(&schema, values)?;
            accounts::settle(tx)
        };
        self.store.write(job).await.map(drop)
    }

    pub async fn delete(&self, user: Uuid) -> Result<()> {
        let job = move |tx: &mut Tx<'_>| {
            let schema = tx.catalog().named("user").unwrap().clone();
            assert!(tx.delete(&schema, &Value::Uuid(user))?);
            accounts::settle(tx)
        };
        self.store.write(job).await.map(drop)
    }

    /// Gives or takes a role that exists.
    pub async fn role(&self, user: Uuid, role: Uuid, give: bool) -> Result<()> {
        let job = move |tx: &mut Tx<'_>| {
            let schema = tx.catalog().named("user").unwrap().clone();
            let roles = &schema.relations[schema.relation("roles").unwrap()];
            let (user, role) = (Value::Uuid(user), Value::Uuid(role));
            if give {
                tx.link(&schema, roles, &user, &role)?;
            } else {
                tx.unlink(&schema, roles, &user, &role)?;
            }
            accounts::settle(tx)
        };
        self.store.write(job).await.map(drop)
    }

    /// Makes a role.
    pub async fn new_role(&self, name: &str) -> Result<Uuid> {
        let name = name.to_owned();
        let job = move |tx: &mut Tx<'_>| {
            let schema = tx.catalog().named("role").unwrap().clone();
            let mut values = vec![Value::Null; schema.columns.len()];
            values[schema.column("name").unwrap()] = Value::Text(name.as_str().into());
            for slot in [schema.created_at, schema.updated_at].into_iter().flatten() {
                values[slot] = Value::Time(tx.now());
            }
            let row = tx.insert(&schema, values)?;
            accounts::settle(tx)?;
            let Value::Uuid(id) = *row.get(schema.primary) else { panic!("{row:?}") };
            Ok(id)
        };
        self.store.write(job).await.map(|written| written.value)
    }

    /// Renames or deletes a role.
    pub async fn change_role(&self, role: Uuid, name: Option<&str>) -> Result<()> {
        let name = name.map(str::to_owned);
        let job = move |tx: &mut Tx<'_>| {
            let schema = tx.catalog().named("role").unwrap().clone();
            let role = Value::Uuid(role);
            match name {
                Some(name) => {
                    let mut values = tx.get(&schema, &role)?.unwrap().values.to_vec();
                    values[schema.column("name").unwrap()] = Value::Text(name.as_str().into());
                    tx.update(&schema, values)?;
                }
                None => assert!(tx.delete(&schema, &role)?),
            }
            accounts::settle(tx)
        };
        self.store.write(job).await.map(drop)
    }
}

/// What a query on the database file gives, as text.
pub fn peek(dir: &Path, sql: &str) -> Vec<String> {
    let connection = rusqlite::Connection::open(dir.join("rowcast.db")).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement
        .query_map((), |row| {
            Ok(match row.get_ref(0)? {
                rusqlite::types::ValueRef::Blob(bytes) | rusqlite::types::ValueRef::Text(bytes) => {
                    String::from_utf8_lossy(bytes).into_owned()
                }
                other => format!("{other:?}"),
            })
        })
        .unwrap();
    rows.map(|row| row.unwrap()).collect()
}
