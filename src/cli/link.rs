//! How a command reaches the data: through the running server, or by opening it itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Method;
use serde_json::Value as Json;
use tokio::net::UnixStream;

use crate::config::Config;
use crate::error::{Error, Kind, Problem, Result};
use crate::net::client::{Bounds, Place};
use crate::server::{self, App, Peer};

/// A single write may wait its turn; the bound is against a server that hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a command talks to: one and the same HTTP API, as the owner.
pub enum Link {
    Running(Place),
    Own(Arc<App>),
}

impl Link {
    /// The running server's if there is one, else the data directory's own.
    pub async fn open(config: Config) -> Result<Link> {
        match running(&config).await {
            Some(path) => Ok(Link::Running(Place::Unix(path))),
            None => App::open(config).await.map(Link::Own),
        }
    }

    /// Gives what stands under `data`; a refusal comes as the error it was. Where no answer came,
    /// the error is [`unanswered`].
    pub async fn call(&self, method: Method, path: &str, body: Option<&Json>) -> Result<Json> {
        self.call_within(PATIENCE, method, path, body).await
    }

    /// [`Link::call`] with another bound on a running server's time.
    pub async fn call_within(
        &self,
        time: Duration,
        method: Method,
        path: &str,
        body: Option<&Json>,
    ) -> Result<Json> {
        let body = Bytes::from(body.map(Json::to_string).unwrap_or_default());
        self.exchange(time, method, path, body).await
    }

    /// [`Link::call`] of a POST, whose body is JSON already.
    pub async fn post(&self, path: &str, body: Vec<u8>) -> Result<Json> {
        self.exchange(PATIENCE, Method::POST, path, body.into()).await
    }

    async fn exchange(
        &self,
        time: Duration,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Json> {
        let (status, body) = match self {
            Link::Running(place) => {
                let bounds = Bounds { time, ..Bounds::default() };
                let answer = place.request(method, path, &[], body, bounds).await;
                let answer =
                    answer.map_err(|error| Error::new(Kind::Unavailable, error.to_string()))?;
                (answer.status, answer.body)
            }
            Link::Own(app) => {
                let request = hyper::Request::builder()
                    .method(method)
                    .uri(path)
                    .body(Full::new(body))
                    .map_err(Error::internal)?;
                let response = app.answer(request, Peer::Owner).await?;
                let status = response.status().as_u16();
                let body = response.into_body().collect().await.map_err(Error::internal)?;
                (status, body.to_bytes())
            }
        };
        let mut answer: Json = serde_json::from_slice(&body).map_err(|_| {
            Error::new(Kind::Unavailable, format!("the server answered {status} and no JSON"))
        })?;
        if status == 200 {
            return Ok(answer["data"].take());
        }
        let text = |json: &Json| json.as_str().unwrap_or_default().to_owned();
        let message = answer["error"]["message"].as_str().unwrap_or("refused");
        let problem = |problem: &Json| Problem {
            code: text(&problem["code"]),
            file: None,
            line: None,
            path: text(&problem["path"]),
            field: text(&problem["field"]),
            message: text(&problem["message"]),
        };
        let problems = answer["data"]["field_errors"].as_array().into_iter().flatten();
        Err(Error { problems: problems.map(problem).collect(), ..Error::bad(message) })
    }
}

/// Whether this error of a [`Link`]'s is no answer of the server's: it may have done what it was
/// asked, or have it still under way.
pub fn unanswered(error: &Error) -> bool {
    error.kind != Kind::Bad
}

/// The owner's socket, if a server listens on it.
pub async fn running(config: &Config) -> Option<PathBuf> {
    let path = server::owner_path(&config.data);
    UnixStream::connect(&path).await.is_ok().then_some(path)
}
