//! REST: method, path and body → call; answer → JSON.
//!
//! Two steps, so that a wrong path or method is refused before a body is read: [`route`] looks at
//! method and path, [`Route::call`] at the query string and the body.

use serde_json::{Map, Value as Json, json};

use crate::error::{Error, Kind, Result, clip};
use crate::limits::Limits;
use crate::model::json;
use crate::query::Ask;
use crate::schemas::Rename;

use super::params::{self, FilterParam, Params};

/// Where a request goes. Names and ids are percent-decoded, nothing is checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Login,
    Refresh,
    Logout,
    Me,
    Password,
    Status,
    SchemaList,
    SchemaCreate,
    SchemaGet(String),
    SchemaUpdate(String),
    SchemaDelete(String),
    List(String),
    Create(String),
    Read(String, String),
    Update(String, String),
    Delete(String, String),
    BulkUpdate(String),
    BulkDelete(String),
}

/// What a request asks for.
#[derive(Debug)]
pub enum Call {
    /// `POST /api/auth/local/login`
    Login { login: String, password: String },
    /// `POST /api/auth/token/refresh`
    Refresh { token: String },
    /// `POST /api/auth/logout`
    Logout,
    /// `GET /api/auth/me`
    Me,
    /// `POST /api/auth/password`
    Password { current: String, password: String },
    /// `GET /api/realtime/status`
    Status,
    /// `GET /api/schema`
    SchemaList,
    /// `GET /api/schema/NAME`
    SchemaGet { name: String },
    /// `POST /api/schema`: the schema as in a file.
    SchemaCreate { schema: Json },
    /// `PUT /api/schema/NAME`
    SchemaUpdate {
        name: String,
        schema: Json,
        rename_fields: Vec<Rename>,
        rename_tables: Vec<Rename>,
    },
    /// `DELETE /api/schema/NAME`
    SchemaDelete { name: String },
    /// `GET /api/content/S`; `page` counts from 1.
    List { ask: Ask, page: Option<u64>, limit: Option<u64> },
    /// `GET /api/content/S/ID`
    Read { schema: String, id: String, select: Option<String> },
    /// `POST /api/content/S`
    Create { schema: String, body: Map<String, Json> },
    /// `PUT /api/content/S/ID`
    Update { schema: String, id: String, body: Map<String, Json> },
    /// `DELETE /api/content/S/ID`
    Delete { schema: String, id: String },
    /// `PUT /api/content/S/update`
    BulkUpdate { schema: String, filter: FilterParam, body: Map<String, Json> },
    /// `DELETE /api/content/S/delete`
    BulkDelete { schema: String, filter: FilterParam },
}

/// Finds what a method and a path (without the query string) stand for. `HEAD` is `GET`.
///
/// # Errors
/// 404 for a path that is none of this dialect's, [`Kind::Method`] for a wrong method.
pub fn route(method: &str, path: &str) -> Result<Route> {
    let no_path = || Error::not_found(format!("no such path: {}", clip(path)));
    let mut parts = Vec::with_capacity(4);
    for part in path.strip_prefix("/api/").ok_or_else(no_path)?.split('/') {
        parts.push(params::path_segment(part)?);
    }
    if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
        return Err(no_path());
    }
    let parts: Vec<&str> = parts.iter().map(|part| &**part).collect();
    let own = |text: &str| text.to_owned();
    let method = if method == "HEAD" { "GET" } else { method };
    let (found, allow) = match (parts.as_slice(), method) {
        (["auth", "local", "login"], "POST") => (Some(Route::Login), ""),
        (["auth", "local", "login"], _) => (None, "POST"),
        (["auth", "token", "refresh"], "POST") => (Some(Route::Refresh), ""),
        (["auth", "token", "refresh"], _) => (None, "POST"),
        (["auth", "logout"], "POST") => (Some(Route::Logout), ""),
        (["auth", "logout"], _) => (None, "POST"),
        (["auth", "me"], "GET") => (Some(Route::Me), ""),
        (["auth", "me"], _) => (None, "GET, HEAD"),
        (["auth", "password"], "POST") => (Some(Route::Password), ""),
        (["auth", "password"], _) => (None, "POST"),
        (["realtime", "status"], "GET") => (Some(Route::Status), ""),
        (["realtime", "status"], _) => (None, "GET, HEAD"),
        (["schema"], "GET") => (Some(Route::SchemaList), ""),
        (["schema"], "POST") => (Some(Route::SchemaCreate), ""),
        (["schema"], _) => (None, "GET, HEAD, POST"),
        (["schema", name], "GET") => (Some(Route::SchemaGet(own(name))), ""),
        (["schema", name], "PUT") => (Some(Route::SchemaUpdate(own(name))), ""),
        (["schema", name], "DELETE") => (Some(Route::SchemaDelete(own(name))), ""),
        (["schema", _], _) => (None, "GET, HEAD, PUT, DELETE"),
        (["content", schema], "GET") => (Some(Route::List(own(schema))), ""),
        (["content", schema], "POST") => (Some(Route::Create(own(schema))), ""),
        (["content", _], _) => (None, "GET, HEAD, POST"),
        (["content", schema, "update"], "PUT") => (Some(Route::BulkUpdate(own(schema))), ""),
        (["content", schema, "delete"], "DELETE") => (Some(Route::BulkDelete(own(schema))), ""),
        (["content", schema, id], "GET") => (Some(Route::Read(own(schema), own(id))), ""),
        (["content", schema, id], "PUT") => (Some(Route::Update(own(schema), own(id))), ""),
        (["content", schema, id], "DELETE") => (Some(Route::Delete(own(schema), own(id))), ""),
        (["content", _, _], _) => (None, "GET, HEAD, PUT, DELETE"),
        _ => return Err(no_path()),
    };
    found.ok_or_else(|| {
        let message = format!("method {} is not allowed here; use {allow}", clip(method));
        Error::new(Kind::Method { allow }, message)
    })
}

/// [`route`] and [`Route::call`] in one.
///
/// # Errors
/// Those of both.
pub fn parse(method: &str, path: &str, query: &str, body: &[u8], limits: &Limits) -> Result<Call> {
    route(method, path)?.call(query, body, limits)
}

impl Route {
    /// Whether [`Route::call`] reads the body; of others it is ignored, as HTTP has it.
    pub fn takes_body(&self) -> bool {
        matches!(
            self,
            Route::Login
                | Route::Refresh
                | Route::Password
                | Route::SchemaCreate
                | Route::SchemaUpdate(_)
                | Route::Create(_)
                | Route::Update(..)
                | Route::BulkUpdate(_)
        )
    }

    /// Reads the query string (without `?`) and the body.
    ///
    /// # Errors
    /// 400 naming the parameter or the key of the body at fault.
    pub fn call(self, query: &str, body: &[u8], limits: &Limits) -> Result<Call> {
        let mut params = params::query(query, limits)?;
        let call = match self {
            Route::Login => {
                let mut body = Body::parse(body)?;
                let call =
                    Call::Login { login: body.text("login")?, password: body.text("password")? };
                body.finish()?;
                call
            }
            Route::Refresh => {
                let mut body = Body::parse(body)?;
                let call = Call::Refresh { token: body.text("refresh_token")? };
                body.finish()?;
                call
            }
            // FastSchema's SDK may send an empty object along; there is nothing to read.
            Route::Logout => Call::Logout,
            Route::Me => Call::Me,
            Route::Password => {
                let mut body = Body::parse(body)?;
                let call = Call::Password {
                    current: body.text("current")?,
                    password: body.text("password")?,
                };
                body.finish()?;
                call
            }
            Route::Status => Call::Status,
            Route::SchemaList => Call::SchemaList,
            Route::SchemaGet(name) => Call::SchemaGet { name },
            Route::SchemaCreate => {
                Call::SchemaCreate { schema: Json::Object(Body::parse(body)?.map) }
            }
            Route::SchemaUpdate(name) => schema_update(name, body)?,
            Route::SchemaDelete(name) => Call::SchemaDelete { name },
            Route::List(schema) => list(schema, &mut params)?,
            Route::Read(schema, id) => Call::Read { schema, id, select: params.text("select")? },
            Route::Create(schema) => Call::Create { schema, body: Body::parse(body)?.map },
            Route::Update(schema, id) => Call::Update { schema, id, body: Body::parse(body)?.map },
            Route::Delete(schema, id) => Call::Delete { schema, id },
            Route::BulkUpdate(schema) => {
                let filter = required_filter(&mut params)?;
                Call::BulkUpdate { schema, filter, body: Body::parse(body)?.map }
            }
            Route::BulkDelete(schema) => {
                Call::BulkDelete { schema, filter: required_filter(&mut params)? }
            }
        };
        params.finish()?;
        Ok(call)
    }
}

fn list(schema: String, params: &mut Params) -> Result<Call> {
    let filter = params.filter()?;
    let untyped = filter.as_ref().is_some_and(|filter| filter.untyped);
    let ask = Ask {
        schema,
        filter: filter.map(|filter| filter.json),
        untyped,
        select: params.text("select")?,
        sort: params.text("sort")?,
        watch: None,
    };
    let page = params.number("page")?;
    if page == Some(0) {
        return Err(Error::bad("parameter 'page' counts from 1"));
    }
    Ok(Call::List { ask, page, limit: params.number("limit")? })
}

fn required_filter(params: &mut Params) -> Result<FilterParam> {
    params.filter()?.ok_or_else(|| {
        Error::bad("parameter 'filter' is missing: a bulk call needs one, filter={} means all")
    })
}

fn schema_update(name: String, body: &[u8]) -> Result<Call> {
    let mut body = Body::parse(body)?;
    let schema = match body.map.shift_remove("schema") {
        Some(schema @ Json::Object(_)) => schema,
        Some(_) => return Err(Error::bad("body: 'schema' must be an object")),
        None => return Err(Error::bad("body: 'schema' is missing")),
    };
    let rename_fields = body.renames("rename_fields")?;
    let rename_tables = body.renames("rename_tables")?;
    body.finish()?;
    Ok(Call::SchemaUpdate { name, schema, rename_fields, rename_tables })
}

/// A body that is a JSON object.
struct Body {
    map: Map<String, Json>,
    asked: Vec<&'static str>,
}

impl Body {
    fn parse(bytes: &[u8]) -> Result<Body> {
        match json::parse(bytes) {
            Ok(Json::Object(map)) => Ok(Body { map, asked: Vec::new() }),
            Ok(_) => Err(Error::bad("body: expected a JSON object")),
            Err(error) => Err(Error { message: format!("body: {}", error.message), ..error }),
        }
    }

    fn text(&mut self, key: &'static str) -> Result<String> {
        self.asked.push(key);
        match self.map.shift_remove(key) {
            Some(Json::String(text)) => Ok(text),
            Some(_) => Err(Error::bad(format!("body: '{key}' must be a string"))),
            None => Err(Error::bad(format!("body: '{key}' is missing"))),
        }
    }

    fn renames(&mut self, key: &'static str) -> Result<Vec<Rename>> {
        self.asked.push(key);
        let wrong = || Error::bad(format!("body: '{key}' must be an array of {{\"from\",\"to\"}}"));
        let list = match self.map.shift_remove(key) {
            None | Some(Json::Null) => return Ok(Vec::new()),
            Some(Json::Array(list)) => list,
            Some(_) => return Err(wrong()),
        };
        let mut renames = Vec::with_capacity(list.len());
        for rename in &list {
            match (rename.as_object().map(Map::len), rename.get("from"), rename.get("to")) {
                (Some(2), Some(Json::String(from)), Some(Json::String(to))) => {
                    renames.push(Rename { from: from.clone(), to: to.clone() });
                }
                _ => return Err(wrong()),
            }
        }
        Ok(renames)
    }

    fn finish(self) -> Result<()> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(key) => Err(Error::bad(format!(
                "body: unknown key '{}'; use {}",
                clip(key),
                self.asked.join(", ")
            ))),
        }
    }
}

/// `{"data":…}` around JSON that is written already.
pub fn answer(data: &[u8]) -> Vec<u8> {
    [br#"{"data":"#, data, b"}"].concat()
}

/// The body of a refusal; its status is [`Error::status`].
pub fn refusal(error: &Error) -> Vec<u8> {
    let mut inner = Map::new();
    inner.insert("code".into(), error.status().to_string().into());
    inner.insert("message".into(), error.message.as_str().into());
    if let Some(detail) = &error.detail {
        inner.insert("detail".into(), detail.as_str().into());
    }
    let mut answer = json!({ "error": inner });
    if !error.problems.is_empty() {
        let errors = error.problems.iter().map(|problem| {
            let mut told =
                json!({"code": problem.code, "field": problem.field, "message": problem.message});
            // Ours: where it stands, which within `access` nothing else tells.
            if !problem.path.is_empty() {
                told["path"] = problem.path.as_str().into();
            }
            if let Some(file) = &problem.file {
                told["file"] = file.as_str().into();
            }
            told
        });
        answer["data"] = json!({ "field_errors": errors.collect::<Vec<_>>() });
    }
    answer.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, target: &str, body: &str) -> Result<Call> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        parse(method, path, query, body.as_bytes(), &Limits::default())
    }

    #[test]
    fn every_call_is_found() {
        for (method, target, body) in [
            ("POST", "/api/auth/local/login", r#"{"login":"a","password":"b"}"#),
            ("POST", "/api/auth/token/refresh", r#"{"refresh_token":"r"}"#),
            ("POST", "/api/auth/logout", ""),
            ("GET", "/api/auth/me", ""),
            ("POST", "/api/auth/password", r#"{"current":"a","password":"b"}"#),
            ("GET", "/api/schema", ""),
            ("GET", "/api/schema/blog", ""),
            ("POST", "/api/schema", "{}"),
            ("PUT", "/api/schema/blog", r#"{"schema":{},"rename_fields":[{"from":"a","to":"b"}]}"#),
            ("DELETE", "/api/schema/blog", ""),
            ("GET", "/api/content/blog?filter={}&select=a&sort=-a&page=1&limit=2", ""),
            ("HEAD", "/api/content/blog", ""),
            ("GET", "/api/content/blog/1?select=a", ""),
            ("POST", "/api/content/blog", "{}"),
            ("PUT", "/api/content/blog/1", "{}"),
            ("DELETE", "/api/content/blog/1", ""),
            ("PUT", "/api/content/blog/update?filter={}", "{}"),
            ("DELETE", "/api/content/blog/delete?filter={}", ""),
        ] {
            call(method, target, body).unwrap_or_else(|error| panic!("{method} {target}: {error}"));
        }
        let Ok(Call::Read { schema, id, .. }) = call("GET", "/api/content/blog/a%2Fb+c%20", "")
        else {
            panic!("not read");
        };
        assert_eq!((schema.as_str(), id.as_str()), ("blog", "a/b+c "));
    }

    #[test]
    fn what_is_refused() {
        for (method, target, body, status, culprit) in [
            ("GET", "/", "", 404, "/"),
            ("GET", "/api/content/", "", 404, "/api/content/"),
            ("GET", "/api/content/a/1/2", "", 404, "no such path"),
            ("GET", "/api/content//1", "", 404, "no such path"),
            ("PATCH", "/api/content/a/1", "", 405, "PATCH"),
            ("POST", "/api/content/a/update", "", 405, "PUT"),
            ("GET", "/api/auth/logout", "", 405, "POST"),
            ("POST", "/api/content/a", "", 400, "body"),
            ("POST", "/api/content/a", "[]", 400, "object"),
            ("POST", "/api/content/a", "{\"a\":1,\n\"a\":2}", 400, "line 2"),
            ("POST", "/api/content/a", "{\"a\":1,}", 400, "column"),
            ("POST", "/api/content/a?x=1", "{}", 400, "'x'"),
            ("PUT", "/api/content/a/update", "{}", 400, "filter"),
            ("DELETE", "/api/content/a/delete?filter=", "", 400, "filter"),
            ("GET", "/api/content/a?page=0", "", 400, "page"),
            ("GET", "/api/content/a?limit=x", "", 400, "limit"),
            ("GET", "/api/content/a?filter={", "", 400, "filter"),
            ("GET", "/api/content/a/%FF", "", 400, "UTF-8"),
            ("POST", "/api/auth/local/login", r#"{"login":"a"}"#, 400, "password"),
            ("POST", "/api/auth/local/login", r#"{"login":1,"password":""}"#, 400, "login"),
            (
                "POST",
                "/api/auth/local/login",
                r#"{"login":"a","password":"b","x":1}"#,
                400,
                "'x'; use login, password",
            ),
            ("PUT", "/api/schema/a", "{}", 400, "schema"),
            ("PUT", "/api/schema/a", r#"{"schema":{},"rename_tables":[{}]}"#, 400, "rename_tables"),
        ] {
            let error = call(method, target, body).expect_err(target);
            assert_eq!(error.status(), status, "{method} {target}");
            assert!(error.message.contains(culprit), "{target}: {}", error.message);
        }
    }

    #[test]
    fn refusals_are_json() {
        let text = |error: &Error| String::from_utf8(refusal(error)).unwrap();
        assert_eq!(
            text(&Error::bad("a \"b\"").detail("c")),
            r#"{"error":{"code":"400","message":"a \"b\"","detail":"c"}}"#
        );
        let mut invalid = Error::new(Kind::Unprocessable, "invalid schema");
        invalid.problems.push(crate::error::Problem {
            code: "field.type.invalid".into(),
            file: None,
            line: Some(3),
            path: "fields[0].type".into(),
            field: "name".into(),
            message: "unknown type".into(),
        });
        assert_eq!(
            text(&invalid),
            r#"{"error":{"code":"422","message":"invalid schema"},"data":{"field_errors":[{"code":"field.type.invalid","field":"name","message":"unknown type","path":"fields[0].type"}]}}"#
        );
        assert_eq!(answer(b"[1]"), br#"{"data":[1]}"#);
    }
}
