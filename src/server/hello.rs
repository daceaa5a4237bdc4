//! The first things a new user sees: what the server prints, and what `/` answers.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use serde_json::{Map, Value as Json, json};

use crate::auth::users::Bootstrap;
use crate::config::{Config, Secret, Secrets, secret};
use crate::error::Result;
use crate::model::catalog::Catalog;
use crate::model::schema::{Schema, SchemaKind};
use crate::model::value::FieldType;
use crate::net::http::Response;
use crate::store::accounts;

use super::App;
use super::routes::{data, reply};

/// The admin that this start has made.
pub struct FirstAdmin {
    pub username: String,
    /// Where this start has made it up; `None`: it was given.
    pub password: Option<Secret>,
}

/// Makes the first admin where there is none. A made-up password is kept before it is used.
pub(super) async fn first_admin(app: &App) -> Result<Option<FirstAdmin>> {
    let there = app.store.write(|tx| accounts::active_admins(tx)).await?.value > 0;
    let admin = &app.config.admin;
    let (password, made) = match (&app.config.secrets.admin_password, there) {
        (Some(given), _) => (Some(given.clone()), None),
        (None, true) => (None, None),
        (None, false) => {
            let made = Secret::random(20)?;
            Secrets::keep(&app.config.data, "ADMIN_PASSWORD", &made)?;
            (Some(made.clone()), Some(made))
        }
    };
    let revealed = password.as_ref().map(Secret::reveal);
    let email = admin.email.as_deref();
    Ok(match app.auth.bootstrap_admin(&admin.username, email, revealed).await? {
        Bootstrap::Existing => None,
        Bootstrap::Made { username } | Bootstrap::Random { username, .. } => {
            Some(FirstAdmin { username, password: made })
        }
    })
}

/// What is printed when the server listens.
pub struct Welcome<'a> {
    pub address: SocketAddr,
    pub config: &'a Config,
    pub catalog: &'a Catalog,
    /// Set on the first run.
    pub first_admin: Option<FirstAdmin>,
}

impl Welcome<'_> {
    pub fn print(&self) {
        // A closed stdout is no reason not to serve.
        use std::io::Write;
        let _ = std::io::stdout().lock().write_all(self.text().as_bytes());
    }

    fn text(&self) -> String {
        let url = format!("http://{}", self.reachable());
        let mut text = String::new();
        if let Some(admin) = &self.first_admin {
            text.push_str(&self.first_run(&url, admin));
        }
        text.push_str(&format!("listening on http://{}\n", self.address));
        text
    }

    /// An address that a client on this machine can use.
    fn reachable(&self) -> SocketAddr {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        address
    }

    fn first_run(&self, url: &str, admin: &FirstAdmin) -> String {
        let kept = secret::kept_path(&self.config.data);
        let mut names: Vec<_> =
            self.catalog.all().filter(|s| s.kind == SchemaKind::User).map(|s| &*s.name).collect();
        names.sort_unstable();
        let schemas = match names.as_slice() {
            [] => "none yet: put a file there and it is served within a second".into(),
            names => names.join(", "),
        };
        let mut text = format!(
            "Rowcast is set up.\n\n  open      {url}/\n  schemas   {} ({schemas})\n  data      {}\n",
            self.config.schemas.display(),
            self.config.data.display(),
        );
        let username = &admin.username;
        text.push_str(&match &admin.password {
            Some(made) => format!(
                "  admin     {username}, password {} (shown this once, kept in {})\n",
                made.reveal(),
                kept.display()
            ),
            None => format!("  admin     {username}, with the password that was given\n"),
        });
        if let Some((schema, record)) = self.example() {
            text.push_str(&self.commands(url, admin, &schema, &record));
        }
        text.push('\n');
        text
    }

    /// Three commands that work when pasted one after the other.
    fn commands(&self, url: &str, admin: &FirstAdmin, schema: &str, record: &Json) -> String {
        let login = match &admin.password {
            Some(made) => {
                let body = json!({"login": admin.username, "password": made.reveal()});
                quote(&body.to_string())
            }
            // Given by environment or file; not to be shown again.
            None => {
                let login = json!({"login": admin.username, "password": "PASSWORD"}).to_string();
                quote(&login)
            }
        };
        let program = std::env::args().next().unwrap_or_else(|| "rowcast".into());
        let place = match self.config.data == Path::new("data") {
            true => String::new(),
            false => format!(" --data {}", quote(&self.config.data.display().to_string())),
        };
        format!(
            "\nTry it in another terminal, in this directory:\n\n\
             # 1. log in\n\
             TOKEN=$(curl -s {url}/api/auth/local/login -d {login} | sed 's/.*\"token\":\"\\([^\"]*\\)\".*/\\1/')\n\
             # 2. subscribe\n\
             {} tail {schema}{place} & sleep 1\n\
             # 3. write\n\
             curl -s -w '\\n' {url}/api/content/{schema} -H \"Authorization: Bearer $TOKEN\" -d {}\n",
            quote(&program),
            quote(&record.to_string()),
        )
    }

    /// A schema to try, and a record for it.
    fn example(&self) -> Option<(String, Json)> {
        let mut schemas: Vec<_> =
            self.catalog.all().filter(|schema| schema.kind == SchemaKind::User).collect();
        schemas.sort_by_key(|schema| (&*schema.name != "blog", schema.name.clone()));
        schemas.iter().find_map(|schema| Some((schema.name.to_string(), sample(schema)?)))
    }
}

/// A record with all that is required; `None` where that takes another record.
fn sample(schema: &Schema) -> Option<Json> {
    let mut record = Map::new();
    let label = schema.column(&schema.label_field);
    for (slot, column) in schema.columns.iter().enumerate() {
        let stamped = [schema.created_at, schema.updated_at].contains(&Some(slot));
        let filled = column.automatic || column.optional || column.default.is_some() || stamped;
        if filled && (label != Some(slot) || column.automatic) {
            continue;
        }
        if column.key_of.is_some() {
            return None;
        }
        let value = match column.ty {
            FieldType::Bool => json!(true),
            FieldType::Float32 | FieldType::Float64 => json!(1.5),
            FieldType::String | FieldType::Text => json!("Hello"),
            FieldType::Enum => json!(column.enums.first()?),
            FieldType::Uuid => json!(uuid::Uuid::now_v7().to_string()),
            FieldType::Time => json!("2026-01-01T00:00:00Z"),
            FieldType::Json => json!({}),
            FieldType::Bytes => json!(""),
            _ => json!(1),
        };
        record.insert(column.name.to_string(), value);
    }
    Some(Json::Object(record))
}

/// For a shell: as it is where that is safe, else in single quotes.
fn quote(text: &str) -> String {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
    match !text.is_empty() && text.bytes().all(safe) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

const PAGE: &str = "<!doctype html><meta charset=utf-8><title>Rowcast</title>\
<h1>Rowcast</h1><p>A realtime server for records: schema files in, filtered realtime streams out.\
<ul><li><a href=/api/health>/api/health</a>: is it well?\
<li><a href=/api/schema>/api/schema</a>: the schemas you may read\
<li>/api/content/SCHEMA: its records, with filter, select, sort, page, limit\
<li>/api/realtime/content?schema=SCHEMA: their changes as they happen, by WebSocket or EventSource\
<li>/api/realtime/changes?schema=SCHEMA&amp;since=now: the same by asking\
<li>POST /api/auth/local/login: a token\
</ul><p>README.md has examples for each.\n";

/// What `/` answers: a page for browsers, the same as JSON for others.
pub(super) fn page(headers: &HeaderMap) -> Response {
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if !accepts.is_some_and(|accept| accept.contains("text/html")) {
        return reply(
            hyper::StatusCode::OK,
            data(&json!({
                "name": "rowcast",
                "health": "/api/health",
                "schemas": "/api/schema",
                "records": "/api/content/SCHEMA",
                "changes": "/api/realtime/content?schema=SCHEMA",
                "poll": "/api/realtime/changes?schema=SCHEMA&since=now",
                "login": "/api/auth/local/login",
            })),
        );
    }
    let mut response = Response::new(Bytes::from_static(PAGE.as_bytes()).into());
    let headers = response.headers_mut();
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, html);
    let nothing_else = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.insert(header::CONTENT_SECURITY_POLICY, nothing_else);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting() {
        assert_eq!(quote("target/release/rowcast"), "target/release/rowcast");
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
    }
}
