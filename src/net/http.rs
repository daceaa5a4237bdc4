//! HTTP/1.1 over TCP and over the owner's socket: bound, hand on, drain.
//!
//! **Does not know:** routes, records, what a body means. It keeps one client's trouble (too much,
//! too slow, a panic in its request) with that client.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::error::{Error, Kind, Result};
use crate::limits::Limits;
use crate::net::clients::Connection;
use crate::net::stream::Stream;

/// The head of a request; beyond it 431. A URL alone ends at hyper's 64 KiB, with 414.
const HEAD_BYTES: usize = 128 << 10;
/// How much of a path is logged.
const LOGGED_CHARS: usize = 256;
/// What is read at once of a body.
const BUFFER_BYTES: usize = 256 << 10;
/// What is read of a body before others have their turn.
const BURST_BYTES: usize = 512 << 10;

/// A request as hyper gives it.
pub type Request = hyper::Request<Incoming>;
/// What is answered.
pub type Response = hyper::Response<super::body::Body>;

/// Answers requests. Errors are answers too, so that every dialect keeps its own shape.
pub trait Handler: Send + Sync + 'static {
    /// `connection` tells who asks; a request that upgrades keeps it as long as the socket lives.
    fn call(
        self: Arc<Self>,
        request: Request,
        connection: Arc<Connection>,
    ) -> impl Future<Output = Response> + Send;

    /// The answer to what never reached `call`, or ended in a panic.
    fn refuse(&self, error: &Error) -> Response;
}

/// Resolves once `draining` is true, or its sender gone.
pub async fn drained(draining: &mut watch::Receiver<bool>) {
    let _ = draining.wait_for(|draining| *draining).await;
}

/// Serves a connection until it ends; once `draining` turns true, it finishes what it is answering.
pub(super) async fn run<H: Handler>(
    stream: Stream,
    handler: Arc<H>,
    mut draining: watch::Receiver<bool>,
) {
    let phase = stream.phase().clone();
    let connection = stream.connection().clone();
    let service = service_fn(move |request: Request| {
        let (handler, phase, connection) = (handler.clone(), phase.clone(), connection.clone());
        async move {
            phase.busy();
            let response = answer(handler, request, connection).await;
            match response.body().is_stream() {
                true => phase.streams(),
                false => phase.idle(),
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        // The stream keeps the bounds on time: a second timer each would only cost.
        .header_read_timeout(None)
        .half_close(false)
        .max_header_size(HEAD_BYTES)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = drained(&mut draining) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("connection ended: {error}");
    }
}

/// One request: CORS, HEAD, panics and the log around what the handler says.
async fn answer<H: Handler>(
    handler: Arc<H>,
    mut request: Request,
    connection: Arc<Connection>,
) -> Response {
    let began = Instant::now();
    let asked = asked(&request);
    let head = request.method() == Method::HEAD;
    if head {
        *request.method_mut() = Method::GET;
    }
    let mut response = if is_preflight(&request) {
        preflight()
    } else {
        let answering = AssertUnwindSafe(handler.clone().call(request, connection)).catch_unwind();
        match answering.await {
            Ok(response) => response,
            Err(_) => handler.refuse(&Error::internal(format!("panic at {asked}"))),
        }
    };
    if head {
        response = without_body(response);
    }
    open_to_all_origins(response.headers_mut());
    let tenths = (began.elapsed().as_micros() as u64 + 50) / 100;
    let (status, whole, tenth) = (response.status(), tenths / 10, tenths % 10);
    tracing::info!(target: "rowcast::http", "{asked} {} {whole}.{tenth}ms", status.as_str());
    response
}

/// Method and path of a request, as they are logged.
fn asked(request: &Request) -> String {
    let (method, path) = (request.method().as_str(), request.uri().path());
    let most = path.char_indices().nth(LOGGED_CHARS).map_or(path.len(), |(at, _)| at);
    [method, " ", &path[..most]].concat()
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("Authorization, X-Auth-Token, Content-Type, Last-Event-ID"),
    );
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}

/// Any page may call with a token of its own; never with the browser's cookies.
fn open_to_all_origins(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
}

/// What a HEAD gets: the same head, the length included.
fn without_body(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Response::from_parts(parts, Default::default())
}

/// Room for the bodies that are being read and worked on.
#[derive(Debug)]
pub struct Bodies {
    /// In steps of [`STEP`].
    room: Arc<Semaphore>,
    time: Duration,
}

/// What body memory is counted in.
const STEP: usize = 4 << 10;

/// A body, whose room is free again when it is dropped.
#[derive(Debug, Default)]
pub struct Whole {
    /// All of it.
    pub bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl Bodies {
    /// Room for as much as the limits say.
    pub fn new(limits: &Limits) -> Self {
        let steps = (limits.bodies_bytes / STEP).min(Semaphore::MAX_PERMITS);
        Bodies { room: Arc::new(Semaphore::new(steps)), time: limits.body_time }
    }

    /// The whole body, within the bounds: 413 over `most` bytes, 408 over the time, 503 when all
    /// bodies together leave no room.
    pub async fn read<B>(&self, body: B, most: usize) -> Result<Whole>
    where
        B: Body<Data = Bytes>,
        B::Error: fmt::Display,
    {
        if body.size_hint().lower() > most as u64 {
            return Err(too_large(most));
        }
        tokio::time::timeout(self.time, self.collect(body, most)).await.unwrap_or_else(|_| {
            let text = format!("the body did not come within {:?}", self.time);
            Err(Error::new(Kind::Timeout, text))
        })
    }

    async fn collect<B>(&self, body: B, most: usize) -> Result<Whole>
    where
        B: Body<Data = Bytes>,
        B::Error: fmt::Display,
    {
        let mut body = std::pin::pin!(body);
        // Not by what the client says will come: that costs it nothing.
        let mut bytes = Vec::new();
        let mut room: Option<OwnedSemaphorePermit> = None;
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|error| Error::bad(format!("the body ended early: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > most {
                return Err(too_large(most));
            }
            let held = room.as_ref().map_or(0, |room| room.num_permits());
            let needed = (bytes.len() + data.len()).div_ceil(STEP).saturating_sub(held);
            let more = self.room.clone().try_acquire_many_owned(needed as u32).map_err(|_| {
                Error::new(Kind::Unavailable, "too many bodies are being read; try again")
            })?;
            match &mut room {
                Some(room) => room.merge(more),
                None => room = Some(more),
            }
            let before = bytes.len();
            bytes.extend_from_slice(&data);
            // One who sends faster than it is read would hold the event loop.
            if bytes.len() / BURST_BYTES > before / BURST_BYTES {
                tokio::task::yield_now().await;
            }
        }
        Ok(Whole { bytes: bytes.into(), _room: room })
    }
}

fn too_large(most: usize) -> Error {
    let text = format!("the body is over the limit of {most} bytes");
    Error::new(Kind::TooLarge, text).detail("send less at a time, or raise body_bytes")
}
