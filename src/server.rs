//! Everything wired together: the only room that knows all others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Method, StatusCode};
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::limits::Limits;
use crate::net::clients::{Clients, Connection};
use crate::net::http::{self, Door, Handler, Request, Response};

/// How long a stopping server waits for what is under way.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// The rooms of a running server.
pub struct App {
    pub config: Config,
    pub limits: Arc<Limits>,
    pub clients: Arc<Clients>,
    /// Turns true when the server stops.
    pub draining: watch::Sender<bool>,
}

impl App {
    /// Opens everything but the listeners.
    pub fn open(config: Config) -> Result<Arc<App>> {
        let limits = Arc::new(config.limits.clone());
        let clients = Clients::new(&limits);
        Ok(Arc::new(App { config, limits, clients, draining: watch::channel(false).0 }))
    }
}

impl Handler for App {
    async fn call(self: Arc<Self>, request: Request, connection: Arc<Connection>) -> Response {
        match self.route(request, connection).await {
            Ok(response) => response,
            Err(error) => self.refuse(&error),
        }
    }

    fn refuse(&self, error: &Error) -> Response {
        let mut response = reply(
            StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            &json!({"error": {"code": error.status().to_string(), "message": error.message}}),
        );
        let wait = match error.kind {
            Kind::Limited { retry_after } => Some(retry_after),
            Kind::Unavailable => Some(1),
            _ => None,
        };
        if let Some(seconds) = wait {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl App {
    async fn route(&self, request: Request, _: Arc<Connection>) -> Result<Response> {
        let (head, body) = request.into_parts();
        match (&head.method, head.uri.path()) {
            (&Method::GET, "/api/health") => {
                Ok(reply(StatusCode::OK, &json!({"data": {"status": "ok"}})))
            }
            (_, path) => {
                let _ = http::body(body, &self.limits).await?;
                Err(Error::not_found(format!("no such path: {path}")))
            }
        }
    }
}

fn reply(status: StatusCode, body: &Json) -> Response {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Runs a server until it is told to stop (SIGTERM, Ctrl-C).
pub async fn serve(config: Config) -> Result<()> {
    let stop = stop_signal()?;
    let app = App::open(config)?;
    let address = SocketAddr::new(app.config.host, app.config.port);
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Error::new(Kind::Unavailable, format!("cannot listen on {address}: {error}"))
    })?;
    let address = listener.local_addr().map_err(Error::internal)?;
    println!("listening on http://{address}");
    let accepting = tokio::spawn(http::accept(
        Door::Tcp(listener),
        app.clone(),
        app.clients.clone(),
        app.limits.clone(),
        app.draining.subscribe(),
    ));
    stop.await;
    tracing::info!("stopping: finishing what is under way");
    app.draining.send_replace(true);
    let _ = accepting.await;
    if tokio::time::timeout(DRAIN_TIME, app.clients.all_gone()).await.is_err() {
        tracing::warn!("{} connections did not end in time", app.clients.count());
    }
    Ok(())
}

/// Resolves on SIGTERM or Ctrl-C; both are caught from this call on.
fn stop_signal() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).map_err(Error::internal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::internal)?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
