//! `rowcast tail`: a subscription in the terminal, a message a line.

use std::io::Write;
use std::process::ExitCode;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::Method;
use hyper::header::{self, HeaderName, HeaderValue};
use serde_json::{Value as Json, json};
use tokio_tungstenite::tungstenite::Message;

use crate::config::Config;
use crate::config::settings::PlaceFlags;
use crate::error::{Error, Kind, Result};
use crate::net::client::{Bounds, NoSocket, Place};

use super::link;
use super::secret::PasswordFrom;

#[derive(clap::Args)]
pub struct Tail {
    /// The schema whose changes to print
    schema: String,
    /// create, update, delete or * [default: *]
    #[arg(long)]
    event: Option<String>,
    /// One record only
    #[arg(long)]
    id: Option<String>,
    /// Fields to print, with commas
    #[arg(long)]
    select: Option<String>,
    /// Only records that match, e.g. '{"views":{"$gt":10}}'
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,
    /// Ends after so many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Another server, e.g. http://127.0.0.1:8000; without it the one that runs on the data directory, as its owner
    #[arg(long)]
    url: Option<String>,
    /// The variable of the environment that holds the token
    #[arg(long, value_name = "NAME", requires = "url", conflicts_with = "login")]
    token_env: Option<String>,
    /// Log in as this user first
    #[arg(long, value_name = "USER", requires = "url")]
    login: Option<String>,
    #[command(flatten)]
    password: PasswordFrom,
    #[command(flatten)]
    pub place: PlaceFlags,
}

impl Tail {
    pub async fn run(&self, config: &Config) -> Result<ExitCode> {
        let place = match &self.url {
            Some(url) => Place::parse(url).map_err(failed)?.0,
            None => Place::Unix(link::running(config).await.ok_or_else(|| {
                Error::bad(format!(
                    "no server runs on {}; start one, or name one with --url",
                    config.data.display()
                ))
            })?),
        };
        let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
        if let Some(token) = self.token(&place).await? {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| Error::bad("the token holds characters that no token has"))?;
            bearer.set_sensitive(true);
            headers.push((header::AUTHORIZATION, bearer));
        }
        let path = format!("/api/realtime/content?{}", self.query());
        // Our own server's messages are whole commits cut at 1 MiB and a record.
        let bounds = Bounds { bytes: 128 << 20, ..Bounds::default() };
        let socket =
            place.websocket(&path, &headers, bounds).await.map_err(|error| match error {
                NoSocket::Failure(failure) => failed(failure),
                NoSocket::Refused(status, body) => {
                    let told = serde_json::from_str::<Json>(&body).unwrap_or_default();
                    match told["error"]["message"].as_str() {
                        Some(message) => Error::bad(message),
                        None => Error::bad(format!("the server answered {status}")),
                    }
                }
            })?;
        let (mut sink, mut messages) = socket.split();
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut stdout = std::io::stdout().lock();
        while left > 0 {
            let message = tokio::select! {
                message = messages.next() => message,
                _ = tokio::signal::ctrl_c() => break,
            };
            match message {
                Some(Ok(Message::Text(text))) => {
                    // Nobody reads any more (`| head`): that is an end, not a fault.
                    if writeln!(stdout, "{text}").and_then(|()| stdout.flush()).is_err() {
                        break;
                    }
                    left -= 1;
                }
                Some(Ok(Message::Close(close))) => return Ok(closed(close)),
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    return Err(Error::new(Kind::Unavailable, format!("connection lost: {error}")));
                }
                None => return Err(Error::new(Kind::Unavailable, "connection lost")),
            }
        }
        let _ = sink.send(Message::Close(None)).await;
        Ok(ExitCode::SUCCESS)
    }

    fn query(&self) -> String {
        let given = [
            ("schema", Some(&self.schema)),
            ("event", self.event.as_ref()),
            ("id", self.id.as_ref()),
            ("select", self.select.as_ref()),
            ("filter", self.filter.as_ref()),
        ];
        let pair = |(name, value): (&str, Option<&String>)| {
            value.map(|value| format!("{name}={}", encode(value)))
        };
        given.into_iter().filter_map(pair).collect::<Vec<_>>().join("&")
    }

    async fn token(&self, place: &Place) -> Result<Option<String>> {
        if let Some(name) = &self.token_env {
            return match std::env::var(name) {
                Ok(token) => Ok(Some(token.trim().to_owned())),
                Err(_) => Err(Error::bad(format!("--token-env {name}: no such variable"))),
            };
        }
        let Some(login) = &self.login else { return Ok(None) };
        let body = json!({"login": login, "password": self.password.get(false)?}).to_string();
        let path = "/api/auth/local/login";
        let answer = place
            .request(Method::POST, path, &[], Bytes::from(body), Bounds::default())
            .await
            .map_err(failed)?;
        let told = serde_json::from_slice::<Json>(&answer.body).unwrap_or_default();
        match told["data"]["token"].as_str() {
            Some(token) => Ok(Some(token.to_owned())),
            None => {
                let why = told["error"]["message"].as_str().unwrap_or("no token came back");
                Err(Error::bad(format!("login of {login}: {why}")))
            }
        }
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::new(Kind::Unavailable, error.to_string())
}

/// Tells why the server closed; only a plain end is a success.
fn closed(close: Option<tokio_tungstenite::tungstenite::protocol::CloseFrame>) -> ExitCode {
    let (code, reason) = match &close {
        Some(close) => (u16::from(close.code), close.reason.as_str()),
        None => (1005, ""),
    };
    if [1000, 1005].contains(&code) {
        return ExitCode::SUCCESS;
    }
    eprintln!("rowcast: closed with {code}: {reason}");
    ExitCode::FAILURE
}

/// For a query string.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~*,".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
