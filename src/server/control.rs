//! What the owner's commands need and no client may: import, backup, users, tokens.
//!
//! Served on the owner's socket alone, and called directly by commands that found no server.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::Method;
use serde_json::{Map, Value as Json, json};

use crate::auth::principal::Principal;
use crate::auth::users::NewUser;
use crate::content::{ImportAsk, OnConflict};
use crate::error::{Error, Kind, Result};
use crate::model::json;
use crate::store::backup::{self, Progress};

use super::App;

/// Paths that begin so are these.
pub const PREFIX: &str = "/owner/";

/// Runs a command; gives what stands under `data`.
///
/// # Errors
/// 404 for an unknown command, 400 for a body that is not the command's, and the rooms' own.
pub(super) async fn answer(app: &App, method: &Method, command: &str, body: &[u8]) -> Result<Json> {
    if *method != Method::POST {
        return Err(Error::bad("the owner's commands are POST"));
    }
    let mut given = match json::parse(body)? {
        Json::Object(given) => Given(given),
        _ => return Err(Error::bad("body: expected a JSON object")),
    };
    match command {
        "import" => import(app, &mut given).await,
        "user/list" => {
            let users = app.auth.user_list().await?.into_iter();
            let user = |user: crate::auth::users::Listed| {
                json!({
                    "id": user.id.to_string(),
                    "username": user.username,
                    "email": user.email,
                    "active": user.active,
                    "roles": user.roles,
                })
            };
            Ok(users.map(user).collect())
        }
        "user/add" => {
            let user = NewUser {
                username: given.text("username")?,
                email: given.optional("email"),
                password: given.optional("password"),
                roles: given.texts("roles")?,
            };
            Ok(json!(app.auth.user_add(user).await?.to_string()))
        }
        "user/disable" => {
            app.auth.user_disable(&given.text("username")?).await?;
            Ok(json!(true))
        }
        "user/passwd" => {
            app.auth.user_passwd(&given.text("username")?, &given.text("password")?).await?;
            Ok(json!(true))
        }
        "backup" => backup(app, &mut given).await,
        "backup/progress" => Ok(app.backups.progress()),
        "token" => {
            let seconds = given.0.get("seconds").and_then(Json::as_i64).unwrap_or(7 * 86_400);
            Ok(app.auth.issue(&given.text("username")?, seconds).await?.to_json())
        }
        _ => Err(Error::not_found(format!("no such command: {command}"))),
    }
}

async fn import(app: &App, given: &mut Given) -> Result<Json> {
    let ask = ImportAsk {
        on_conflict: match given.optional("on_conflict").as_deref() {
            None | Some("error") => OnConflict::Error,
            Some("skip") => OnConflict::Skip,
            Some("update") => OnConflict::Update,
            Some(other) => return Err(Error::bad(format!("on_conflict: '{other}'"))),
        },
        all_or_nothing: given.0.get("all_or_nothing") == Some(&Json::Bool(true)),
    };
    let schema = given.text("schema")?;
    let Some(Json::Array(records)) = given.0.remove("records") else {
        return Err(Error::bad("records: expected an array"));
    };
    let record = |record| match record {
        Json::Object(record) => Ok(record),
        _ => Err(Error::bad("records: expected objects")),
    };
    let records = records.into_iter().map(record).collect::<Result<Vec<Map<_, _>>>>()?;
    let imported = app.content.import(&Principal::owner(), &schema, records, ask).await?;
    let refused = imported.refused.iter();
    let refused = refused.map(|(index, error)| json!({"index": index, "message": error.message}));
    Ok(json!({
        "created": imported.created,
        "updated": imported.updated,
        "skipped": imported.skipped,
        "refused": refused.collect::<Vec<_>>(),
    }))
}

/// The backup under way, if there is one.
#[derive(Default)]
pub(super) struct Backups(Mutex<Option<Arc<Progress>>>);

impl Backups {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Progress>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> Json {
        match &*self.lock() {
            Some(progress) => {
                let (stage, done, of) = progress.now();
                json!({"stage": stage.name(), "done": done, "of": of})
            }
            None => Json::Null,
        }
    }
}

/// Copies the store to a file, as long as whoever asked waits.
async fn backup(app: &App, given: &mut Given) -> Result<Json> {
    /// Ends the copy when the client leaves or the server stops.
    struct Waiting(Arc<Progress>);
    impl Drop for Waiting {
        fn drop(&mut self) {
            self.0.stop();
        }
    }
    let to = PathBuf::from(given.text("path")?);
    if !to.is_absolute() {
        return Err(Error::bad("path: an absolute one is needed"));
    }
    let force = given.0.get("force") == Some(&Json::Bool(true));
    let progress = Arc::new(Progress::default());
    {
        let mut current = app.backups.lock();
        if current.is_some() {
            return Err(Error::new(Kind::Conflict, "another backup is under way"));
        }
        *current = Some(progress.clone());
    }
    let (data, backups) = (app.config.data.clone(), app.backups.clone());
    let waiting = Waiting(progress.clone());
    let copying = tokio::task::spawn_blocking(move || {
        let written = backup::write(&data, &to, force, &progress);
        *backups.lock() = None;
        written
    });
    let contents = copying.await.map_err(Error::internal)??;
    drop(waiting);
    Ok(contents.to_json())
}

/// A command's body.
struct Given(Map<String, Json>);

impl Given {
    fn text(&mut self, key: &str) -> Result<String> {
        self.optional(key).ok_or_else(|| Error::bad(format!("body: '{key}' is missing")))
    }

    fn optional(&mut self, key: &str) -> Option<String> {
        match self.0.remove(key) {
            Some(Json::String(text)) => Some(text),
            _ => None,
        }
    }

    fn texts(&mut self, key: &str) -> Result<Vec<String>> {
        match self.0.remove(key) {
            None => Ok(Vec::new()),
            Some(list) => serde_json::from_value(list)
                .map_err(|_| Error::bad(format!("body: '{key}' must be a list of texts"))),
        }
    }
}
