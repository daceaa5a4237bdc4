//! Which room a request is for, and what it gets to say.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Body;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use serde_json::json;

use crate::auth::present::{Presented, Purpose};
use crate::auth::principal::Principal;
use crate::content::{BulkAsk, ListAsk};
use crate::dialects::fastschema::rest::{self, Call, Route};
use crate::dialects::fastschema::{poll, realtime};
use crate::error::{Error, Kind, Result};
use crate::net::clients::Connection;
use crate::net::http::{Handler, Request, Response};
use crate::net::loops::beside;
use crate::net::{self, socket, sse};

use super::{App, control, hello, status};

/// A whole import that is all or nothing may come from the owner at once.
const OWNER_BODY_BYTES: usize = 256 << 20;

/// A request of more bytes is worked on beside the event loops: to read, to check and to forget so
/// much JSON takes up to a millisecond.
const LONG_REQUEST: usize = 32 << 10;
/// And an answer of more is put together there: it is copied.
const LONG_ANSWER: usize = 1 << 20;

/// Who asks, as far as the connection tells.
#[derive(Clone, Copy, Debug)]
pub enum Peer {
    Remote(IpAddr),
    /// Whoever owns the data directory: may do everything.
    Owner,
}

impl Peer {
    fn address(self) -> Option<IpAddr> {
        match self {
            Peer::Remote(address) => Some(address),
            Peer::Owner => None,
        }
    }
}

impl Handler for App {
    async fn call(self: Arc<Self>, request: Request, connection: Arc<Connection>) -> Response {
        let peer = connection.address.map_or(Peer::Owner, Peer::Remote);
        let answered = match request.uri().path() {
            path if realtime::PATHS.contains(&path) => {
                self.stream(request, peer, &connection).await
            }
            poll::PATH => self.changes(request, peer, &connection).await,
            _ => self.answer(request, peer).await,
        };
        answered.unwrap_or_else(|error| self.refuse(&error))
    }

    fn refuse(&self, error: &Error) -> Response {
        let status = StatusCode::from_u16(error.status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = reply(status, rest::refusal(error));
        let headers = response.headers_mut();
        match error.kind {
            Kind::Limited { retry_after } => put_retry(headers, retry_after),
            Kind::Unavailable => put_retry(headers, 1),
            Kind::Method { allow } => {
                headers.insert(header::ALLOW, HeaderValue::from_static(allow));
            }
            Kind::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Kind::Upgrade => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            }
            _ => {}
        }
        response
    }
}

/// Seconds to wait, up to twice as many: clients refused together should not come back together.
fn put_retry(headers: &mut hyper::HeaderMap, seconds: u32) {
    let spread = uuid::Uuid::new_v4().as_u128() as u32 % (seconds + 1);
    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.saturating_add(spread)));
}

pub(super) fn reply(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Bytes::from(body).into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        HeaderName::from_static("x-content-type-options"),
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// `{"data":…}`
pub(super) fn data(json: &serde_json::Value) -> Vec<u8> {
    rest::answer(json.to_string().as_bytes())
}

impl App {
    /// Answers a request that is no WebSocket's; commands without a server call this directly.
    ///
    /// # Errors
    /// Every refusal; [`Handler::refuse`] makes an answer of it.
    pub async fn answer<B>(
        self: &Arc<Self>,
        request: hyper::Request<B>,
        peer: Peer,
    ) -> Result<Response>
    where
        B: Body<Data = Bytes>,
        B::Error: std::fmt::Display,
    {
        let (head, body) = request.into_parts();
        let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
        match path {
            "/" => return only_get(&head.method).map(|()| hello::page(&head.headers)),
            "/api/health" => {
                only_get(&head.method)?;
                return Ok(reply(StatusCode::OK, data(&json!({"status": "ok"}))));
            }
            _ => {}
        }
        if let (Peer::Owner, Some(command)) = (peer, path.strip_prefix(control::PREFIX)) {
            let body = self.bodies.read(body, OWNER_BODY_BYTES).await?;
            let (app, method, command) = (self.clone(), head.method.clone(), command.to_owned());
            let answering = async move {
                let answer = control::answer(&app, &method, &command, &body.bytes).await?;
                Ok(reply(StatusCode::OK, data(&answer)))
            };
            return beside(&self.pool, answering).await;
        }
        let route = rest::route(head.method.as_str(), path)?;
        // Whoever is not let in should not make us read a body.
        let principal = match route {
            // A client logging in may still send the token that it is about to replace.
            Route::Login | Route::Refresh => Arc::new(Principal::guest()),
            _ => {
                let read = head.method == Method::GET;
                let purpose = if read { Purpose::Read } else { Purpose::Write };
                self.principal(&head.headers, &head.uri, purpose, peer).await?
            }
        };
        let body = match route.takes_body() {
            true => self.bodies.read(body, self.limits.body_bytes).await?,
            false => Default::default(),
        };
        let long = takes_long(&route) || body.bytes.len() + query.len() > LONG_REQUEST;
        let (app, uri) = (self.clone(), head.uri);
        let answering = async move {
            let call = route.call(uri.query().unwrap_or_default(), &body.bytes, &app.limits)?;
            app.run(call, &principal, peer).await
        };
        let answer = match long {
            true => beside(&self.pool, answering).await?,
            false => answering.await?,
        };
        self.enclose(answer).await
    }

    /// The answer whose `data` this is.
    async fn enclose(&self, answer: Vec<u8>) -> Result<Response> {
        if answer.len() <= LONG_ANSWER {
            return Ok(reply(StatusCode::OK, rest::answer(&answer)));
        }
        beside(&self.pool, async move { Ok(reply(StatusCode::OK, rest::answer(&answer))) }).await
    }

    async fn principal(
        &self,
        headers: &hyper::HeaderMap,
        uri: &hyper::Uri,
        purpose: Purpose,
        peer: Peer,
    ) -> Result<Arc<Principal>> {
        match peer {
            Peer::Owner => Ok(Arc::new(Principal::owner())),
            Peer::Remote(_) => {
                let presented =
                    Presented::from_headers(headers, uri.query(), purpose, &self.origins);
                self.auth.authenticate(&presented).await
            }
        }
    }

    /// A stream of changes, as a WebSocket or as events.
    async fn stream(
        &self,
        request: Request,
        peer: Peer,
        connection: &Arc<Connection>,
    ) -> Result<Response> {
        let as_events = sse::asked(&request);
        let purpose = if as_events { Purpose::Stream } else { Purpose::WebSocket };
        let (headers, uri) = (request.headers(), request.uri());
        // The handshake lasts until the subscription is active.
        let shaking = connection.shake_hands();
        let principal = match &shaking {
            Ok(_) => {
                let principal = self.principal(headers, uri, purpose, peer).await;
                principal.and_then(|principal| {
                    if let (Some(user), false) = (principal.user, principal.admin) {
                        connection.sit(user)?;
                    }
                    Ok(principal)
                })
            }
            Err(error) => Err(error.clone()),
        };
        match as_events {
            true => sse::accept(&request, principal?, connection, &self.live, &self.limits).await,
            false => socket::accept(request, principal, connection, &self.live, &self.limits).await,
        }
    }

    /// A page of changes.
    async fn changes(
        &self,
        request: Request,
        peer: Peer,
        connection: &Connection,
    ) -> Result<Response> {
        only_get(request.method())?;
        // It costs what a stream's handshake does.
        let shaking = connection.shake_hands()?;
        let (headers, uri) = (request.headers(), request.uri());
        let principal = self.principal(headers, uri, Purpose::Read, peer).await?;
        let query = uri.query().unwrap_or_default();
        let asked = net::poll::ask(query, principal, connection, &self.live, &self.limits).await?;
        drop(shaking);
        self.enclose(asked.answer().await?).await
    }

    /// Runs a call against the rooms; gives what stands under `data`.
    async fn run(&self, call: Call, principal: &Principal, peer: Peer) -> Result<Vec<u8>> {
        let json = |json: serde_json::Value| Ok(json.to_string().into_bytes());
        let number = |number: u64| Ok(number.to_string().into_bytes());
        match call {
            Call::Login { login, password } => {
                json(self.auth.login(&login, &password, peer.address()).await?.to_json())
            }
            Call::Refresh { token } => json(self.auth.refresh(&token).await?.to_json()),
            Call::Logout => {
                self.auth.logout(principal).await?;
                json(json!(true))
            }
            Call::Me => json(self.auth.me(principal).await?.to_json()),
            Call::Password { current, password } => {
                self.auth.change_password(principal, &current, &password, peer.address()).await?;
                json(json!(true))
            }
            Call::List { ask, page, limit } => {
                self.content.list(principal, ListAsk { ask, page, limit }).await
            }
            Call::Read { schema, id, select } => {
                self.content.read(principal, &schema, &id, select.as_deref()).await
            }
            Call::Create { schema, body } => {
                self.content.create(principal, &schema, body, peer.address()).await
            }
            Call::Update { schema, id, body } => {
                self.content.update(principal, &schema, &id, body, peer.address()).await
            }
            Call::Delete { schema, id } => {
                self.content.delete(principal, &schema, &id, peer.address()).await
            }
            Call::BulkUpdate { schema, filter, body } => {
                let ask = BulkAsk {
                    schema,
                    filter: filter.json,
                    untyped: filter.untyped,
                    address: peer.address(),
                };
                number(self.content.update_all(principal, ask, body).await?)
            }
            Call::BulkDelete { schema, filter } => {
                let ask = BulkAsk {
                    schema,
                    filter: filter.json,
                    untyped: filter.untyped,
                    address: peer.address(),
                };
                number(self.content.delete_all(principal, ask).await?)
            }
            Call::Status => json(status::status(self, principal).await?),
            Call::SchemaList => json(self.schemas.list(principal)?),
            Call::SchemaGet { name } => json(self.schemas.get(principal, &name)?),
            Call::SchemaCreate { schema } => json(self.schemas.create(principal, schema).await?),
            Call::SchemaUpdate { name, schema, rename_fields, rename_tables } => {
                let schemas = &self.schemas;
                let renamed =
                    schemas.update(principal, &name, schema, rename_fields, rename_tables);
                json(renamed.await?)
            }
            Call::SchemaDelete { name } => json(self.schemas.delete(principal, &name).await?),
        }
    }
}

/// Calls that may take long however short they are: what concerns all schemas, and what hashes a
/// password, whose memory should stay with the few threads that have used it before.
fn takes_long(route: &Route) -> bool {
    match route {
        Route::SchemaList
        | Route::SchemaCreate
        | Route::SchemaGet(_)
        | Route::SchemaUpdate(_)
        | Route::SchemaDelete(_)
        | Route::Login
        | Route::Password
        | Route::Status => true,
        // Short reads and brief writes are the loop's own, within bounds; the rest is done by the
        // store's threads.
        Route::List(_)
        | Route::Read(..)
        | Route::Create(_)
        | Route::Update(..)
        | Route::Delete(..)
        | Route::BulkUpdate(_)
        | Route::BulkDelete(_)
        | Route::Refresh
        | Route::Logout
        | Route::Me => false,
    }
}

fn only_get(method: &Method) -> Result<()> {
    if method == Method::GET {
        return Ok(());
    }
    let allow = "GET, HEAD";
    Err(Error::new(
        Kind::Method { allow },
        format!("method {method} is not allowed here; use {allow}"),
    ))
}
