//! The realtime endpoint's connections: handshake, refusal, life.

use std::sync::Arc;

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_tungstenite::tungstenite::handshake::derive_accept_key;
use hyper_util::rt::TokioIo;

use crate::auth::principal::Principal;
use crate::dialects::fastschema::realtime::{self, Native, Wish};
use crate::error::{Error, Kind, Result};
use crate::limits::Limits;
use crate::live::{self, Close, Encode, Live, Outbox, Payer, Subscription};

use super::body::Body;
use super::clients::Connection;
use super::stream::{Io, Stream};
use super::wire::Wire;

/// Answers a request for the realtime endpoint, whose connection must be served
/// `with_upgrades()` over a [`Stream`]. `principal` is what became of the request's credentials.
///
/// A 101 comes after the subscription is active: what commits from then on is delivered. Every
/// refusal completes the handshake and closes with code and reason, because a browser cannot read
/// an HTTP status; the socket lives on in a task of its own.
///
/// # Errors
/// As HTTP: 405, 426 without an upgrade, 400 for a broken one; 401, 403 and 429 for a client that
/// neither sent `Origin` nor offered the subprotocol, and so is no browser.
pub async fn accept<B>(
    mut request: Request<B>,
    principal: Result<Arc<Principal>>,
    connection: &Connection,
    live: &Live,
    limits: &Arc<Limits>,
) -> Result<Response<Body>> {
    if request.method() != Method::GET {
        return Err(Error::new(Kind::Method { allow: "GET" }, "the realtime endpoint takes GET"));
    }
    let headers = request.headers();
    if !hyper_tungstenite::is_upgrade_request(&request) {
        return Err(Error::new(
            Kind::Upgrade,
            "connect with a WebSocket, or name text/event-stream in Accept",
        ));
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
        return Err(Error::bad("Sec-WebSocket-Key is missing"));
    };
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Error::new(Kind::Upgrade, "use version 13 of the WebSocket protocol"));
    }
    let browser = from_browser(headers);
    let switching = switching(headers, key);
    let upgrade = hyper::upgrade::on(&mut request);

    let outbox = Outbox::new(limits, overflow());
    let query = request.uri().query().unwrap_or_default();
    let wished = principal.and_then(|who| Ok((realtime::wish(query, limits)?, who)));
    let subscribed = match wished {
        Ok((wish, who)) => {
            let payer = connection.payer(&who);
            subscribe(wish, Arc::new(Native), (who, payer), live, limits, &outbox).await
        }
        Err(error) => Err(error),
    };
    let subscription = match subscribed {
        Ok(subscription) => Some(subscription),
        Err(error) => {
            let as_http =
                matches!(error.kind, Kind::Unauthorized | Kind::Forbidden | Kind::Limited { .. });
            if as_http && !browser {
                return Err(error);
            }
            outbox.close(realtime::refusal(&error));
            None
        }
    };
    tokio::spawn(live_on(upgrade, outbox, subscription, limits.clone()));
    Ok(switching)
}

/// Subscribes as wished, whatever carries it; who asks comes with whom it is counted for.
pub(super) async fn subscribe(
    wish: Wish,
    encoder: Arc<dyn Encode>,
    (principal, (payer, exempt)): (Arc<Principal>, (Payer, bool)),
    live: &Live,
    limits: &Limits,
    outbox: &Arc<Outbox>,
) -> Result<Subscription> {
    let Wish { ask, events, told, start, id } = wish;
    let ask = ask.into();
    let request = live::Request { ask, events, told, start, id, encoder, principal, payer, exempt };
    // It waits for its place in the log; a client that waits longer than for a head is told so.
    match tokio::time::timeout(limits.head_time, live.subscribe(request, outbox.clone())).await {
        Ok(subscribed) => subscribed,
        Err(_) => Err(Error::new(Kind::Timeout, "subscribing took too long: try again")),
    }
}

/// The socket's life after the 101; the subscription ends with its stream.
async fn live_on(
    upgrade: hyper::upgrade::OnUpgrade,
    outbox: Arc<Outbox>,
    subscription: Option<Subscription>,
    limits: Arc<Limits>,
) {
    // A client that does not take the 101 is ended by its stream.
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => return tracing::debug!("upgrade failed: {error}"),
    };
    let Some((io, read, connection)) = apart(upgraded) else {
        return tracing::error!("a WebSocket over something else than a client's stream");
    };
    Wire::new(io, read, connection, (outbox, subscription), limits).run().await;
}

/// What the WebSocket goes on with: the transport, what was read of it already, and what counts it
/// as open. hyper's buffer of 8 KiB ends here; held to the socket's end, it would be more than all
/// else that an idle subscription takes.
fn apart(upgraded: hyper::upgrade::Upgraded) -> Option<(Io, Vec<u8>, Arc<Connection>)> {
    let parts = upgraded.downcast::<TokioIo<Stream>>().ok()?;
    let (io, unread, connection) = parts.io.into_inner().into_parts();
    // In the order in which it came: hyper's part first.
    let read = match parts.read_buf.is_empty() {
        true => unread,
        false => [&parts.read_buf[..], &unread].concat(),
    };
    Some((io, read, connection))
}

/// A browser sends `Origin`, and can show a token only as a subprotocol.
fn from_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL)
}

fn switching(headers: &HeaderMap, key: &HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    // The derived key is base64: always a valid value.
    if let Ok(key) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        answer.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    }
    if headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL) {
        answer.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(realtime::SUBPROTOCOL),
        );
    }
    response
}

/// How a reader too slow for its outbox is told.
pub(super) fn overflow() -> Close {
    Close::new(4408, "realtime.content: too slow: messages would have been lost")
}
