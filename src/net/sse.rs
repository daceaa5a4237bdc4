//! The realtime endpoint as server-sent events: the same subscriptions over plain HTTP.
//!
//! A client that takes nothing is ended by the stream under it ([`super::stream`]); one that takes
//! too little by its outbox, as with sockets.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response};
use tokio::time::{Instant, Sleep};

use crate::auth::principal::Principal;
use crate::dialects::fastschema::sse::{self, Sse};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::live::outbox::TOO_SLOW;
use crate::live::{Close, Frame, Live, Outbox, Subscription};
use crate::model::cursor::Cursor;

use super::body::Body;
use super::clients::Connection;
use super::socket;

/// Where a browser says which event it has seen last.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Asks a proxy of nginx's kind not to wait for more.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// How long a browser waits before it comes back, in milliseconds, and how much is added by
/// chance: those cut off together should not come back together.
const RETRY: u32 = 2_000;
const RETRY_SPREAD: u32 = 4_000;
/// Frames and bytes taken from the outbox at once.
const BATCH_FRAMES: usize = 64;
const BATCH_BYTES: usize = 256 << 10;

/// Whether the request asks for a stream of events: no upgrade, and `text/event-stream` named in
/// `Accept`.
pub fn asked<B>(request: &hyper::Request<B>) -> bool {
    let mut accept = request.headers().get_all(header::ACCEPT).iter();
    request.method() == Method::GET
        && !hyper_tungstenite::is_upgrade_request(request)
        && accept.any(|value| value.to_str().is_ok_and(sse::named))
}

/// Answers such a request once the subscription is active: what commits from then on is sent.
///
/// # Errors
/// Every refusal, as HTTP: 400, 401, 403, 404 for no such schema, 410 with the oldest cursor in
/// `detail`, 429.
pub async fn accept<B>(
    request: &hyper::Request<B>,
    principal: Arc<Principal>,
    connection: &Connection,
    live: &Live,
    limits: &Limits,
) -> Result<Response<Body>> {
    let query = request.uri().query().unwrap_or_default();
    let last = last_event_id(request.headers())?;
    let outbox = Outbox::new(limits, socket::overflow());
    let subscribed = match sse::wish(query, last, limits) {
        Ok(wish) => {
            let payer = connection.payer(&principal);
            let who = (principal, payer);
            socket::subscribe(wish, Arc::new(Sse), who, live, limits, &outbox).await
        }
        Err(error) => Err(error),
    };
    let subscription = subscribed.map_err(sse::refusal)?;
    let mut response = Response::new(Body::Events(Box::new(Events {
        outbox,
        subscription: Some(subscription),
        retry: Some(sse::retry(RETRY + uuid::Uuid::new_v4().as_u128() as u32 % RETRY_SPREAD)),
        taken: VecDeque::new(),
        cursor: None,
        ended: false,
        every: limits.ping_every,
        heartbeat: Box::pin(tokio::time::sleep(limits.ping_every)),
    })));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(sse::TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(BUFFERING, HeaderValue::from_static("no"));
    // The connection has been the stream's, and its time was counted so.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(response)
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>> {
    let mut values = headers.get_all(LAST_EVENT_ID).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match (value.to_str(), values.next()) {
        (Ok(text), None) => Ok(Some(text.trim())),
        _ => Err(Error::bad("Last-Event-ID must be one cursor that this server has sent")),
    }
}

/// A subscription's events as bytes; it ends with this.
pub struct Events {
    outbox: Arc<Outbox>,
    subscription: Option<Subscription>,
    /// Goes first.
    retry: Option<Bytes>,
    taken: VecDeque<Frame>,
    /// The last one that went out.
    cursor: Option<Cursor>,
    ended: bool,
    every: Duration,
    heartbeat: Pin<Box<Sleep>>,
}

impl Events {
    /// The next bytes; `None` after the last event.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(retry) = self.retry.take() {
            return Poll::Ready(Some(retry));
        }
        let taken = self.outbox.poll_take(cx, &mut self.taken, BATCH_FRAMES, BATCH_BYTES);
        match taken {
            Poll::Ready(None) => return Poll::Ready(Some(self.together())),
            Poll::Ready(Some(close)) => {
                self.ended = true;
                self.subscription = None;
                return Poll::Ready(Some(sse::close(&self.told(close))));
            }
            Poll::Pending => {}
        }
        std::task::ready!(self.heartbeat.as_mut().poll(cx));
        self.heartbeat.as_mut().reset(Instant::now() + self.every);
        Poll::Ready(Some(sse::heartbeat()))
    }

    /// A close for being too slow tells where to go on: after what was handed over.
    fn told(&self, close: Close) -> Close {
        match self.cursor.or_else(|| self.outbox.since()) {
            Some(cursor) if close.code == TOO_SLOW => close.resume_from(cursor),
            _ => close,
        }
    }

    /// What was taken as one piece; a single frame is not copied.
    fn together(&mut self) -> Bytes {
        let last = self.taken.iter().rev().find_map(Frame::cursor);
        self.cursor = last.or(self.cursor);
        if self.taken.len() == 1
            && let Some(frame) = self.taken.pop_front()
        {
            return frame.bytes.clone();
        }
        let mut all = BytesMut::with_capacity(self.taken.iter().map(|f| f.bytes.len()).sum());
        for frame in self.taken.drain(..) {
            all.extend_from_slice(&frame.bytes);
        }
        all.freeze()
    }
}
