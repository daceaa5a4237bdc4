//! A server of the built binary on a directory of its own, and blocking clients for it.
//!
//! Everything waits with a bound, so that a test fails instead of hanging.

#![allow(dead_code)] // Each suite uses what it needs.

pub mod exchange;
pub mod faulty;
pub mod sse;
pub mod view;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
pub use tokio_tungstenite::tungstenite;
use tungstenite::protocol::{CloseFrame, Message};

/// The longest that anything a test waits for may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The admin of every test server.
pub const ADMIN_PASSWORD: &str = "test-admin-password";

/// How a test server is started.
#[derive(Clone, Default)]
pub struct Options {
    /// Schema files to begin with: name (`blog.json`) and text.
    pub schemas: Vec<(String, String)>,
    /// A folder whose `*.json` are copied in to begin with.
    pub schemas_from: Option<PathBuf>,
    /// Further environment, e.g. `("ROWCAST_IDLE_TIME", "1")`.
    pub env: Vec<(String, String)>,
    pub args: Vec<String>,
    /// What the server is run by, e.g. `["sh", "-c", "…; exec \"$0\" \"$@\""]`, in whose place it
    /// comes.
    pub through: Vec<String>,
}

impl Options {
    pub fn schema(mut self, name: &str, text: impl ToString) -> Self {
        self.schemas.push((format!("{name}.json"), text.to_string()));
        self
    }

    pub fn schemas_from(mut self, dir: impl Into<PathBuf>) -> Self {
        self.schemas_from = Some(dir.into());
        self
    }

    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.env.push((name.into(), value.to_string()));
        self
    }
}

/// A running server. Dropping it kills it (-9) and removes its directory.
pub struct Server {
    pub dir: tempfile::TempDir,
    pub address: SocketAddr,
    options: Options,
    child: Child,
    log: Arc<Mutex<String>>,
    admin: Mutex<Option<String>>,
}

/// The built binary in `dir`, without the tester's own environment but for whether sockets are
/// written together, so that any suite can be run both ways.
pub fn rowcast(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rowcast"));
    command.current_dir(dir);
    command.env_clear();
    for name in ["PATH", "HOME", "TMPDIR", "LLVM_PROFILE_FILE", "ROWCAST_IO_URING"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

impl Server {
    /// Starts a server and waits until it listens.
    pub fn start(options: Options) -> Server {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let schemas = dir.path().join("schemas");
        std::fs::create_dir(&schemas).expect("schemas folder");
        if let Some(from) = &options.schemas_from {
            for entry in std::fs::read_dir(from).expect("schemas to copy") {
                let path = entry.expect("a schema to copy").path();
                if path.extension().is_some_and(|extension| extension == "json") {
                    std::fs::copy(&path, schemas.join(path.file_name().expect("a file name")))
                        .expect("copied schema");
                }
            }
        }
        for (name, text) in &options.schemas {
            std::fs::write(schemas.join(name), text).expect("written schema");
        }
        let (child, address, log) = spawn(dir.path(), &options, 0);
        Server { dir, address, options, child, log, admin: Mutex::default() }
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn schemas(&self) -> PathBuf {
        self.dir.path().join("schemas")
    }

    /// What the server has written to stdout and stderr so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("log").clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM; gives the exit code (`None`: ended by a signal).
    pub fn terminate(&mut self) -> Option<i32> {
        self.stop("TERM")
    }

    /// Ctrl-C; gives the exit code.
    pub fn interrupt(&mut self) -> Option<i32> {
        self.stop("INT")
    }

    fn stop(&mut self, name: &str) -> Option<i32> {
        signal(&self.child, name);
        let code = wait(&mut self.child).code();
        // What was still in the pipes.
        std::thread::sleep(Duration::from_millis(50));
        code
    }

    /// Starts again on the same directory and port; whatever ran is killed first.
    pub fn restart(&mut self) {
        self.kill();
        let (child, address, log) = spawn(self.dir.path(), &self.options, self.address.port());
        self.child = child;
        self.address = address;
        self.log = log;
        *self.admin.lock().expect("admin") = None;
    }

    /// A request on a connection of its own; the answer's body as JSON (`Null` when empty).
    pub fn request(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Json>,
    ) -> (u16, Json) {
        let mut headers = Vec::new();
        let bearer = token.map(|token| format!("Bearer {token}"));
        if let Some(bearer) = &bearer {
            headers.push(("Authorization", bearer.as_str()));
        }
        let text = body.map(|body| body.to_string()).unwrap_or_default();
        if body.is_some() {
            headers.push(("Content-Type", "application/json"));
        }
        let answer = self.raw(method, path, &headers, text.as_bytes());
        (answer.status, answer.json())
    }

    /// A request with exactly these headers besides `Host`, `Content-Length` and `Connection`.
    pub fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> HttpAnswer {
        let mut stream = self.connect();
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("Host: {}\r\n", self.address));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len()));
        // A server that refuses early may close before all is written: its answer still counts.
        let _ = stream.write_all(&[head.as_bytes(), body].concat());
        HttpAnswer::read(&mut stream)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.log()))
    }

    /// A bare connection with bounded waits.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout set");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout set");
        stream
    }

    /// Logs in; panics with the answer if that fails.
    pub fn login(&self, login: &str, password: &str) -> String {
        let body = serde_json::json!({"login": login, "password": password});
        let (status, answer) = self.request("POST", "/api/auth/local/login", None, Some(&body));
        assert_eq!(status, 200, "login of {login}: {answer}\n{}", self.log());
        answer["data"]["token"].as_str().expect("a token").to_owned()
    }

    /// A token of the admin; logged in once.
    pub fn admin_token(&self) -> String {
        let mut admin = self.admin.lock().expect("admin");
        admin.get_or_insert_with(|| self.login("admin", ADMIN_PASSWORD)).clone()
    }

    /// Makes a user with these roles through the content API and logs it in: (id, token).
    pub fn user(&self, username: &str, roles: &[&str]) -> (String, String) {
        let admin = self.admin_token();
        let mut ids = Vec::new();
        for role in roles {
            let filter = serde_json::json!({"name": role}).to_string();
            let path = format!("/api/content/role?filter={}", encode(&filter));
            let (_, found) = self.request("GET", &path, Some(&admin), None);
            let id = match found["data"]["items"].get(0) {
                Some(role) => role["id"].clone(),
                None => {
                    let body = serde_json::json!({"name": role});
                    let (status, made) =
                        self.request("POST", "/api/content/role", Some(&admin), Some(&body));
                    assert_eq!(status, 200, "role {role}: {made}\n{}", self.log());
                    made["data"]["id"].clone()
                }
            };
            ids.push(serde_json::json!({"id": id}));
        }
        let password = format!("{username}-password");
        let mut body = serde_json::json!({"username": username, "password": password});
        if !ids.is_empty() {
            body["roles"] = ids.into();
        }
        let (status, made) = self.request("POST", "/api/content/user", Some(&admin), Some(&body));
        assert_eq!(status, 200, "user {username}: {made}\n{}", self.log());
        let id = made["data"]["id"].as_str().expect("an id").to_owned();
        (id, self.login(username, &password))
    }

    /// A WebSocket; `headers` besides those of the handshake, `protocols` joined as given.
    /// `Err` is the answer that was no 101.
    pub fn ws(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        protocols: Option<&str>,
    ) -> Result<Ws, HttpAnswer> {
        let mut stream = self.connect();
        let mut head = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            self.address
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(protocols) = protocols {
            head.push_str(&format!("Sec-WebSocket-Protocol: {protocols}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).expect("handshake sent");
        let answer = HttpAnswer::read(&mut stream)
            .unwrap_or_else(|error| panic!("ws {path}: {error}\n{}", self.log()));
        if answer.status != 101 {
            return Err(answer);
        }
        let socket = tungstenite::WebSocket::from_partially_read(
            stream,
            answer.body.clone(),
            tungstenite::protocol::Role::Client,
            None,
        );
        Ok(Ws { socket, handshake: answer })
    }

    /// A native-style subscription: token in `Authorization`.
    pub fn subscribe(&self, query: &str, token: Option<&str>) -> Ws {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer.iter().map(|b| ("Authorization", b.as_str())).collect();
        let path = format!("/api/realtime/content?{query}");
        match self.ws(&path, &headers, None) {
            Ok(ws) => ws,
            Err(answer) => panic!("ws {path}: {} {}", answer.status, answer.json()),
        }
    }

    /// Waits until `done` gives something.
    pub fn until<T>(&self, what: &str, mut done: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(value) = done() {
                return value;
            }
            assert!(began.elapsed() < PATIENCE, "waited for {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal, e.g. `TERM`.
pub fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
    assert!(sent.expect("kill").success());
}

/// Waits for a process to end, with a bound.
pub fn wait(child: &mut Child) -> std::process::ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child to wait for") {
            return status;
        }
        if began.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("process {} did not end", child.id());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn spawn(dir: &Path, options: &Options, port: u16) -> (Child, SocketAddr, Arc<Mutex<String>>) {
    let mut command = rowcast(dir);
    if let [program, args @ ..] = options.through.as_slice() {
        let (inner, env) = (command.get_program().to_owned(), command.get_envs());
        let env: Vec<_> = env.filter_map(|(n, v)| Some((n.to_owned(), v?.to_owned()))).collect();
        let mut outer = Command::new(program);
        outer.args(args).arg(inner).current_dir(dir).env_clear().envs(env);
        command = outer;
    }
    command
        .arg("serve")
        .args(&options.args)
        .env("APP_PORT", port.to_string())
        .env("ADMIN_PASSWORD", ADMIN_PASSWORD)
        .envs(options.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the server's binary");
    let log = Arc::new(Mutex::new(String::new()));
    let (sender, receiver) = std::sync::mpsc::channel();
    for pipe in [
        Box::new(child.stdout.take().expect("stdout")) as Box<dyn Read + Send>,
        Box::new(child.stderr.take().expect("stderr")),
    ] {
        let (log, sender) = (log.clone(), sender.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines() {
                let Ok(line) = line else { return };
                if let Some((_, address)) = line.split_once("listening on http://") {
                    let _ = sender.send(address.trim().parse().expect("an address"));
                }
                let mut log = log.lock().expect("log");
                log.push_str(&line);
                log.push('\n');
            }
        });
    }
    drop(sender);
    match receiver.recv_timeout(PATIENCE) {
        Ok(address) => (child, address, log),
        Err(_) => {
            let _ = child.kill();
            let status = child.wait();
            panic!("the server did not start ({status:?}):\n{}", log.lock().expect("log"));
        }
    }
}

/// An HTTP answer as it came.
#[derive(Debug)]
pub struct HttpAnswer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl HttpAnswer {
    /// Reads one answer: by `Content-Length`, else (and for 101) what came with the head.
    pub fn read(stream: &mut impl Read) -> std::io::Result<HttpAnswer> {
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        let head = loop {
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut chunk)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                n => bytes.extend_from_slice(&chunk[..n]),
            }
        };
        let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
        let mut lines = text.lines();
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok())
            .ok_or(std::io::ErrorKind::InvalidData)?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut body = bytes.split_off(head);
        let length = headers
            .iter()
            .find(|(name, _)| name == "content-length")
            .and_then(|(_, value)| value.parse::<usize>().ok());
        if let Some(length) = length {
            while body.len() < length {
                match stream.read(&mut chunk)? {
                    // A HEAD's answer tells the length and has no body.
                    0 => break,
                    n => body.extend_from_slice(&chunk[..n]),
                }
            }
        }
        Ok(HttpAnswer { status, headers, body })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Json {
        if self.body.is_empty() {
            return Json::Null;
        }
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }
}

/// A blocking WebSocket with bounded waits.
pub struct Ws {
    pub socket: tungstenite::WebSocket<TcpStream>,
    pub handshake: HttpAnswer,
}

impl Ws {
    /// The next text message within `time`; `None` if none came. Panics on anything else but pings.
    pub fn next_within(&mut self, time: Duration) -> Option<Json> {
        let deadline = Instant::now() + time;
        loop {
            match self.read_until(deadline) {
                Ok(Some(Message::Text(text))) => {
                    return Some(serde_json::from_str(&text).expect("a JSON message"));
                }
                Ok(Some(Message::Ping(_) | Message::Pong(_))) => {}
                Ok(None) => return None,
                other => panic!("expected a message, got {other:?}"),
            }
        }
    }

    /// The next text message.
    pub fn next(&mut self) -> Json {
        self.next_within(PATIENCE).expect("a message in time")
    }

    /// Asserts that nothing comes for `time`.
    pub fn quiet(&mut self, time: Duration) {
        if let Some(message) = self.next_within(time) {
            panic!("expected silence, got {message}");
        }
    }

    /// Reads up to the server's close: code and reason. Text messages before it are dropped.
    /// A connection that ends without a close frame is code 1006.
    pub fn closed(&mut self) -> (u16, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.read_until(deadline) {
                Ok(Some(Message::Close(Some(CloseFrame { code, reason })))) => {
                    return (code.into(), reason.to_string());
                }
                Ok(Some(Message::Close(None))) => return (1005, String::new()),
                Ok(Some(_)) => {}
                Ok(None) => panic!("no close in time"),
                Err(_) => return (1006, String::new()),
            }
        }
    }

    /// One message before `deadline`, whatever it is.
    pub fn read_until(&mut self, deadline: Instant) -> tungstenite::Result<Option<Message>> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        self.socket.get_ref().set_read_timeout(Some(left)).expect("timeout set");
        match self.socket.read() {
            Ok(message) => Ok(Some(message)),
            Err(tungstenite::Error::Io(error))
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub fn send(&mut self, message: Message) {
        self.socket.send(message).expect("sent");
    }
}

/// Percent-encodes for a query string.
pub fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(byte as char)
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
