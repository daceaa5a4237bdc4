//! `rowcast tail`: a subscription in the terminal, a message a line.

mod again;
mod lines;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::Method;
use hyper::header::{self, HeaderName, HeaderValue};
use serde_json::{Value as Json, json};
use tokio_tungstenite::tungstenite::Message;

use crate::config::Config;
use crate::config::settings::PlaceFlags;
use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::net::client::{Bounds, NoSocket, Place, Socket};

use self::again::{Again, may_come_back};
use self::lines::Lines;
use super::link;
use super::secret::PasswordFrom;

const HELP: &str = "\
Prints every change once, in order, a message a line as the server sends it. When the connection is
lost, or the server restarts, it goes on where it was: nothing is missed and no line comes twice. It
ends with 1 where that cannot be: when the log does not reach back so far, when what may be read has
changed (4410: begin with --snapshot), in the middle of a snapshot, or when --retry is over.

To go on in another run, print cursors and keep the last one:

  rowcast tail blog --cursor | tee -a changes.ndjson
  rowcast tail blog --cursor --since \"$(tail -1 changes.ndjson | jq -r .cursor)\"

With --snapshot the records come first, as {\"event\":\"init\",…} up to the one with \"complete\":true,
and then what becomes of them: create, update, delete, enter (it matches now) and leave.";

#[derive(clap::Args)]
#[command(after_long_help = HELP)]
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
    /// Begins with what was committed after this cursor
    #[arg(long, value_name = "CURSOR|now", default_value = "now", allow_hyphen_values = true)]
    since: String,
    /// Begins with all records that match; after a cursor that is still good, without them
    #[arg(long)]
    snapshot: bool,
    /// Tells updates by what they do to the filter: enter, update, leave
    #[arg(long)]
    transitions: bool,
    /// Names the fields that an update has changed
    #[arg(long)]
    changes: bool,
    /// Only updates that change one of these fields, with commas
    #[arg(long, value_name = "FIELDS")]
    watch: Option<String>,
    /// Prints the cursors too, and a line with the position now and then where nothing matches
    #[arg(long)]
    cursor: bool,
    /// Ends after so many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// How long to try again after the connection was lost; 0 ends at once
    #[arg(long, value_name = "TIME", default_value = "5m")]
    retry: String,
    /// Another server, e.g. http://127.0.0.1:8000; without it the one that runs on the data directory, as its owner
    #[arg(long)]
    url: Option<String>,
    /// The variable of the environment that holds the token
    #[arg(long, value_name = "NAME", requires = "url", conflicts_with = "login")]
    token_env: Option<String>,
    /// Log in as this user first, and again when the token has ended
    #[arg(long, value_name = "USER", requires = "url")]
    login: Option<String>,
    #[command(flatten)]
    password: PasswordFrom,
    #[command(flatten)]
    pub place: PlaceFlags,
}

/// Why a connection is no more, or came to nothing.
enum End {
    /// All was printed that was asked for.
    Done,
    /// It may be tried again.
    Lost(Error),
    /// The token has ended, or is none.
    Unauthorized(Error),
    /// It may not.
    Refused(Error),
}

impl Tail {
    pub async fn run(&self, config: &Config) -> Result<ExitCode> {
        let (least, most) = (Duration::ZERO, Duration::from_secs(365 * 24 * 3600));
        let patience = limits::duration(&self.retry, least, most)
            .map_err(|why| Error::bad(format!("--retry: {why}")))?;
        let password = self.login.as_ref().map(|_| self.password.get(false)).transpose()?;
        tokio::select! {
            ended = self.follow(config, patience, password.as_deref()) => ended,
            _ = tokio::signal::ctrl_c() => Ok(ExitCode::SUCCESS),
        }
    }

    async fn follow(
        &self,
        config: &Config,
        patience: Duration,
        password: Option<&str>,
    ) -> Result<ExitCode> {
        let mut again = Again::new(patience);
        let since = Some(self.since.clone()).filter(|since| since != "now");
        let mut lines = Lines::new(self.cursor, since);
        let mut left = self.count.unwrap_or(u64::MAX);
        if left == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        // The first time, everything that is wrong is an end.
        let mut begun = false;
        let mut token: Option<String> = None;
        let mut query = self.query(&self.since, self.snapshot);
        loop {
            let end = match self.connect(config, &mut token, password, &query).await {
                Ok(socket) => {
                    begun = true;
                    self.listen(socket, &mut lines, &mut left, &mut again).await
                }
                Err(end) => end,
            };
            let (error, at_once) = match end {
                End::Done => return Ok(ExitCode::SUCCESS),
                End::Refused(error) => return Err(error),
                End::Lost(error) => (error, false),
                End::Unauthorized(error) if password.is_none() => return Err(error),
                End::Unauthorized(error) => {
                    token = None;
                    (error, again.is_new())
                }
            };
            let Some(since) = lines.resume().filter(|_| begun) else { return Err(error) };
            query = self.query(since, false);
            let told = again.is_new();
            let Some(wait) = again.wait() else {
                let since = format!("; go on with --since {since}");
                return Err(Error::new(error.kind, error.message + &since));
            };
            if told {
                eprintln!("rowcast: {error}; trying again for {}", self.retry);
            }
            tokio::time::sleep(if at_once { Duration::ZERO } else { wait }).await;
        }
    }

    async fn connect(
        &self,
        config: &Config,
        token: &mut Option<String>,
        password: Option<&str>,
        query: &str,
    ) -> Result<Socket, End> {
        let place = match &self.url {
            Some(url) => Place::parse(url).map_err(|error| End::Refused(failed(error)))?.0,
            None => Place::Unix(link::running(config).await.ok_or_else(|| {
                End::Lost(Error::bad(format!(
                    "no server runs on {}; start one, or name one with --url",
                    config.data.display()
                )))
            })?),
        };
        if token.is_none() {
            *token = self.token(&place, password).await?;
        }
        let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
        if let Some(token) = token {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
                End::Refused(Error::bad("the token holds characters that no token has"))
            })?;
            bearer.set_sensitive(true);
            headers.push((header::AUTHORIZATION, bearer));
        }
        let path = format!("/api/realtime/content?{query}");
        // Our own server's messages are whole commits cut at 1 MiB and a record.
        let bounds = Bounds { bytes: 128 << 20, ..Bounds::default() };
        place.websocket(&path, &headers, bounds).await.map_err(|error| match error {
            NoSocket::Failure(failure) => End::Lost(failed(failure)),
            NoSocket::Refused(status, body) => {
                let told = serde_json::from_str::<Json>(&body).unwrap_or_default();
                let error = match told["error"]["message"].as_str() {
                    Some(message) => Error::bad(message),
                    None => Error::bad(format!("the server answered {status}")),
                };
                answered(status, error)
            }
        })
    }

    /// Prints what comes.
    async fn listen(
        &self,
        socket: Socket,
        lines: &mut Lines,
        left: &mut u64,
        again: &mut Again,
    ) -> End {
        let (mut sink, mut messages) = socket.split();
        let lost = |why: &dyn std::fmt::Display| {
            End::Lost(Error::new(Kind::Unavailable, format!("connection lost: {why}")))
        };
        loop {
            match messages.next().await {
                Some(Ok(Message::Text(text))) => {
                    again.heard();
                    if !print(lines.take(&text), left) {
                        let _ = sink.send(Message::Close(None)).await;
                        return End::Done;
                    }
                }
                Some(Ok(Message::Close(close))) => {
                    let (code, reason) = match &close {
                        Some(close) => (u16::from(close.code), close.reason.as_str()),
                        None => (1005, ""),
                    };
                    let error = Error::bad(format!("closed with {code}: {reason}"));
                    return match code {
                        1000 | 1005 => End::Done,
                        4401 => End::Unauthorized(error),
                        code if may_come_back(code) => End::Lost(error),
                        _ => End::Refused(error),
                    };
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return lost(&error),
                None => return lost(&"it ended without a word"),
            }
        }
    }

    fn query(&self, since: &str, snapshot: bool) -> String {
        let yes = |given: bool| given.then(|| String::from("true"));
        let given = [
            ("schema", Some(self.schema.clone())),
            ("event", self.event.clone()),
            ("id", self.id.clone()),
            ("select", self.select.clone()),
            ("filter", self.filter.clone()),
            ("since", Some(since.to_owned())),
            ("snapshot", yes(snapshot)),
            // A snapshot brings them; what follows it must go on with them.
            ("transitions", yes(self.transitions || self.snapshot)),
            ("changes", yes(self.changes)),
            ("watch", self.watch.clone()),
        ];
        let pair = |(name, value): (&str, Option<String>)| {
            value.map(|value| format!("{name}={}", encode(&value)))
        };
        given.into_iter().filter_map(pair).collect::<Vec<_>>().join("&")
    }

    async fn token(&self, place: &Place, password: Option<&str>) -> Result<Option<String>, End> {
        if let Some(name) = &self.token_env {
            let none =
                |_| End::Refused(Error::bad(format!("--token-env {name}: no such variable")));
            return std::env::var(name).map(|token| Some(token.trim().to_owned())).map_err(none);
        }
        let Some(login) = &self.login else { return Ok(None) };
        let body = json!({"login": login, "password": password}).to_string();
        let path = "/api/auth/local/login";
        let answer = place
            .request(Method::POST, path, &[], Bytes::from(body), Bounds::default())
            .await
            .map_err(|error| End::Lost(failed(error)))?;
        let told = serde_json::from_slice::<Json>(&answer.body).unwrap_or_default();
        match told["data"]["token"].as_str() {
            Some(token) => Ok(Some(token.to_owned())),
            None => {
                let why = told["error"]["message"].as_str().unwrap_or("no token came back");
                let error = Error::bad(format!("login of {login}: {why}"));
                // The password was refused: a login anew would be too.
                Err(match answered(answer.status, error) {
                    End::Unauthorized(error) => End::Refused(error),
                    end => end,
                })
            }
        }
    }
}

/// `false` when it is over: enough was printed, or nobody reads any more (`| head`), which is an
/// end, not a fault.
fn print(lines: Vec<String>, left: &mut u64) -> bool {
    let mut stdout = std::io::stdout().lock();
    for line in lines {
        if writeln!(stdout, "{line}").and_then(|()| stdout.flush()).is_err() {
            return false;
        }
        if !lines::is_position(&line) {
            *left -= 1;
        }
        if *left == 0 {
            return false;
        }
    }
    true
}

/// What a refusal by HTTP means for trying again.
fn answered(status: u16, error: Error) -> End {
    match status {
        401 => End::Unauthorized(error),
        429 | 502 | 503 | 504 => End::Lost(error),
        _ => End::Refused(error),
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::new(Kind::Unavailable, error.to_string())
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
