//! The server that is measured: its own in a temporary folder, or one that runs elsewhere.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use hyper::header::{self, HeaderName, HeaderValue};
use serde_json::Value as Json;

use crate::error::{Error, Kind, Result};
use crate::net::client::{Bounds, Place};
use crate::server;

use super::options::Options;
use super::process::{self, Running};
use super::record;

/// How long an address may take to connect.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is being cleared up is to be left where it is.
pub static HURRIED: AtomicBool = AtomicBool::new(false);

/// Records deleted by one call: `limits.write_records` as it is by default.
const MOST_AT_ONCE: u64 = 10_000;

/// A server with a schema of the bench's own; what was started or made for it is gone with it.
pub struct Bed {
    pub address: SocketAddr,
    /// The same as it was named.
    place: Place,
    pub schema: String,
    pub pid: Option<u32>,
    token: String,
    /// Ended when dropped.
    running: Option<Running>,
    /// The schema was made there, and is removed.
    borrowed: bool,
}

impl Bed {
    pub fn make(options: &Options) -> Result<Bed> {
        Bed::make_of(options, record::schema)
    }

    /// One with another schema file than [`record::schema`]'s.
    pub fn make_of(options: &Options, schema_file: fn(&str) -> String) -> Result<Bed> {
        match &options.url {
            Some(url) => Bed::borrow(url, options, schema_file),
            None => {
                let program = match &options.server {
                    // A path, even one from here; else a name to be found on PATH.
                    Some(path) if path.exists() => std::path::absolute(path)
                        .map_err(|error| Error::bad(format!("--server: {error}")))?,
                    Some(name) => name.clone(),
                    None => process::own_program()?,
                };
                let schema = "reading".to_owned();
                let text = schema_file(&schema);
                let (running, token) =
                    Running::server(&program, &options.folder(), &schema, &text)?;
                let (address, pid) = (running.address, Some(running.pid()));
                let running = Some(running);
                let place = at(address);
                Ok(Bed { address, place, schema, pid, token, running, borrowed: false })
            }
        }
    }

    fn borrow(url: &str, options: &Options, schema_file: fn(&str) -> String) -> Result<Bed> {
        let (place, _) = Place::parse(url).map_err(|error| Error::bad(error.to_string()))?;
        let Place::Web { tls: false, host, port } = &place else {
            return Err(Error::bad("--url: only http:// is measured"));
        };
        let name = options.token_env.as_deref().unwrap_or_default();
        let token = std::env::var(name)
            .map_err(|_| Error::bad(format!("--token-env {name}: no such variable")))?;
        let token = token.trim().to_owned();
        let address = reached(host, *port)?;
        let schema = format!("bench_{:08x}", uuid::Uuid::new_v4().as_fields().0);
        let text = schema_file(&schema);
        let body = serde_json::from_str(&text).map_err(|error| Error::bad(error.to_string()))?;
        call(&place, Method::POST, "/api/schema", Some(&token), Some(&body))?;
        let pid = options.pid;
        Ok(Bed { address, place, schema, pid, token, running: None, borrowed: true })
    }

    /// The headers of every request, each with its line end.
    pub fn headers(&self) -> String {
        self.headers_of(&self.token)
    }

    /// The same of whoever has this token.
    pub fn headers_of(&self, token: &str) -> String {
        let host = self.place.host_header();
        format!("Host: {host}\r\nAuthorization: Bearer {token}\r\n")
    }

    /// One call as the admin; gives what stands under `data`.
    pub fn call(&self, method: Method, path: &str, body: Option<&Json>) -> Result<Json> {
        call(&self.place, method, path, Some(&self.token), body)
    }

    /// The socket that only the owner of the server's data can open, if they are the bench's.
    pub fn owner_socket(&self) -> Option<PathBuf> {
        let folder = self.running.as_ref()?.folder()?;
        Some(server::owner_path(&folder.join("data")))
    }

    /// Deletes all records, as many at a time as the server lets one write touch: they are
    /// numbered from 1.
    fn clear(&self) -> Result<()> {
        let token = Some(self.token.as_str());
        let list = format!("/api/content/{}?limit=1", self.schema);
        let (mut least, mut step) = (1, MOST_AT_ONCE);
        while call(&self.place, Method::GET, &list, token, None)?["total"].as_u64() > Some(0) {
            if HURRIED.load(Ordering::Relaxed) {
                return Err(Error::bad("interrupted again"));
            }
            let filter = format!("%7B%22sequence%22:%7B%22$lt%22:{}%7D%7D", least + step);
            let path = format!("/api/content/{}/delete?filter={filter}", self.schema);
            let deleted = match call(&self.place, Method::DELETE, &path, token, None) {
                // The server was told to let one write touch less.
                Err(error) if error.kind == Kind::TooLarge && step > 1 => {
                    step /= 2;
                    continue;
                }
                deleted => deleted?,
            };
            least += step;
            if deleted.as_u64() == Some(0) {
                return Err(Error::bad("there are some that the bench has not written"));
            }
        }
        Ok(())
    }
}

/// The first of a host's addresses that takes a connection.
fn reached(host: &str, port: u16) -> Result<SocketAddr> {
    let failed = |why: &dyn std::fmt::Display| Error::bad(format!("--url: {host}:{port}: {why}"));
    let found = (host, port).to_socket_addrs().map_err(|error| failed(&error))?;
    let mut last = failed(&"unknown");
    for address in found {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(_) => return Ok(address),
            Err(error) => last = failed(&error),
        }
    }
    Err(last)
}

/// A server on this machine.
pub fn at(address: SocketAddr) -> Place {
    Place::Web { tls: false, host: address.ip().to_string(), port: address.port() }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if self.borrowed {
            // A schema that goes leaves its records where they are.
            if let Err(error) = self.clear() {
                eprintln!("rowcast: records of {} could not be removed: {error}", self.schema);
            }
            let path = format!("/api/schema/{}", self.schema);
            let gone = call(&self.place, Method::DELETE, &path, Some(&self.token), None);
            if let Err(error) = gone {
                eprintln!("rowcast: schema {} could not be removed: {error}", self.schema);
            }
        }
    }
}

/// One call; gives what stands under `data`.
pub fn call(
    place: &Place,
    method: Method,
    path: &str,
    token: Option<&str>,
    body: Option<&Json>,
) -> Result<Json> {
    let failed = |why: String| {
        Error::new(Kind::Unavailable, format!("{}{path}: {why}", place.host_header()))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(error.to_string()))?;
    let mut headers: Vec<(HeaderName, HeaderValue)> =
        vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    if let Some(token) = token {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| Error::bad("the token holds characters that no token has"))?;
        bearer.set_sensitive(true);
        headers.push((header::AUTHORIZATION, bearer));
    }
    let body = Bytes::from(body.map(Json::to_string).unwrap_or_default());
    let answer = place.request(method, path, &headers, body, Bounds::default());
    let answer = runtime.block_on(answer).map_err(|error| failed(error.to_string()))?;
    let mut told: Json = serde_json::from_slice(&answer.body).unwrap_or_default();
    match answer.status {
        200 => Ok(told["data"].take()),
        status => {
            let why = told["error"]["message"].as_str().unwrap_or("no reason given");
            let mut error = failed(format!("answered {status}: {why}"));
            if status == 413 {
                error.kind = Kind::TooLarge;
            }
            Err(error)
        }
    }
}
