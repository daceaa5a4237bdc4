//! Ten thousand clients come back at once after a restart, while others are live and one writes.
//!
//! ```text
//! cargo bench --bench resume
//! ```
//!
//! A server is given a history and killed. Started again, it first serves [`LIVE`] subscribers
//! alone, then everybody comes with cursors from all over the history: once with 20 plans between
//! them, once with a plan each. Printed are how long it takes until all are live, the server's
//! memory, and how long the live ones wait for a commit before, meanwhile and afterwards: from the
//! moment the write was sent, so its fsync is part of it. Clients run in this process, on the same
//! cores as the server.
//!
//! `RESUME_CLIENTS`, `RESUME_ENTRIES` and `RESUME_PLANS` (a list) change the size.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "resume/socket.rs"]
mod socket;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{HttpAnswer, Options, Server};
use rowcast::model::cursor::Cursor;
use serde_json::json;
use socket::{Frame, Socket, cursor};
use tokio::sync::Semaphore;

/// Subscribers who are live all the time.
const LIVE: usize = 50;

/// Writes a second meanwhile.
const WRITES: u64 = 50;

/// Connections that a client's operating system would open at the same time.
const OPENING: usize = 512;

/// How long the live ones are watched before and afterwards.
const WATCHED: Duration = Duration::from_secs(5);

const NOTE: &str = r#"{
  "name": "note", "namespace": "notes", "label_field": "text", "disable_timestamp": true,
  "fields": [
    { "name": "text", "type": "string" },
    { "name": "kind", "type": "int" },
    { "name": "n", "type": "int" }
  ]
}"#;

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect(name))
}

fn main() {
    // `cargo test --all-targets` runs this too.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let clients = number("RESUME_CLIENTS", 10_000);
    let entries = number("RESUME_ENTRIES", 20_000);
    let plans = std::env::var("RESUME_PLANS").unwrap_or_else(|_| format!("20,{clients}"));
    raise_files();
    println!("{clients} clients, {entries} entries, load {}", load());
    for plans in plans.split(',') {
        let plans: usize = plans.trim().parse().expect("RESUME_PLANS");
        run(clients, entries, plans);
    }
}

/// One server's life.
fn run(clients: usize, entries: usize, plans: usize) {
    let options = Options::default().schema("note", NOTE).env("ROWCAST_LOG_LEVEL", "warn");
    let mut server = Server::start(options);
    let token: Arc<str> = server.admin_token().into();
    let cursors = history(&server, &token, entries);
    println!("\n{plans} plans; history written, load {}", load());
    server.restart();
    let address = server.address;
    let newest = cursors.last().expect("a history").position;

    let watch = Arc::new(Watch::default());
    let over = Arc::new(AtomicBool::new(false));
    let live = std::thread::spawn({
        let (token, watch, over) = (token.clone(), watch.clone(), over.clone());
        move || live(address, &token, &watch, &over)
    });
    while watch.ready.load(Ordering::Relaxed) < LIVE {
        std::thread::sleep(Duration::from_millis(5));
    }
    let writer = std::thread::spawn({
        let (token, watch, over) = (token.clone(), watch.clone(), over.clone());
        move || write(address, &token, &watch, &over)
    });
    std::thread::sleep(WATCHED);
    watch.report("alone", &server);

    let began = Instant::now();
    let crowd = Arc::new(Crowd {
        address,
        token: token.clone(),
        newest,
        began,
        opened: Mutex::default(),
        caught_up: Mutex::default(),
        messages: AtomicUsize::new(0),
        over: over.clone(),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let opening = Arc::new(Semaphore::new(OPENING));
    for client in 0..clients {
        // From anywhere, in no order.
        let since = cursors[client * 7_919 % cursors.len()];
        let kind = client % 20;
        let query = match plans {
            20 => format!("schema=note&filter[kind]={kind}&since={since}"),
            _ => {
                let least = -((client % plans) as i64);
                format!("schema=note&filter[kind]={kind}&filter[n][$gte]={least}&since={since}")
            }
        };
        runtime.spawn(crowd.clone().come(query, opening.clone()));
    }
    let all = |times: &Mutex<Vec<Duration>>| times.lock().expect("times").len() == clients;
    while !all(&crowd.caught_up) {
        std::thread::sleep(Duration::from_millis(10));
        assert!(began.elapsed() < Duration::from_secs(600), "not all came: {}", crowd.state());
    }
    let subscriptions = || {
        let (_, status) = server.request("GET", "/api/realtime/status", Some(&token), None);
        status["data"]["subscriptions"].as_u64().unwrap_or_default() as usize
    };
    while subscriptions() < clients + LIVE {
        std::thread::sleep(Duration::from_millis(10));
    }
    let took = began.elapsed();
    println!("  all {clients} live after {:.2} s; {}", took.as_secs_f64(), crowd.state());
    watch.report("meanwhile", &server);
    std::thread::sleep(WATCHED);
    watch.report("afterwards", &server);
    over.store(true, Ordering::Relaxed);
    writer.join().expect("the writer");
    live.join().expect("the live ones");
    runtime.shutdown_background();
}

/// Writes the history; gives the cursor of each entry.
fn history(server: &Server, token: &Arc<str>, entries: usize) -> Vec<Cursor> {
    let mut ear = server.subscribe("schema=note&since=now", Some(token));
    let next = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..32)
        .map(|_| {
            let (address, token, next) = (server.address, token.clone(), next.clone());
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(address).expect("connected");
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= entries {
                        return;
                    }
                    post(&mut stream, &token, n, n % 20);
                }
            })
        })
        .collect();
    let mut cursors = Vec::new();
    let mut heard = 0;
    while heard < entries {
        let message = ear.next();
        if let Some(text) = message["cursor"].as_str() {
            cursors.push(text.parse().expect("a cursor"));
        }
        heard += usize::from(message["event"] == "create");
    }
    writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
    cursors
}

fn post(stream: &mut TcpStream, token: &str, n: usize, kind: usize) {
    let body = json!({"text": "something to be told", "kind": kind, "n": n}).to_string();
    let request = format!(
        "POST /api/content/note HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let answer = HttpAnswer::read(stream).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// When each write was sent, and how long it took.
#[derive(Default)]
struct Watch {
    ready: AtomicUsize,
    /// By the write's `n`, counted from [`FIRST`].
    sent: Mutex<Vec<Instant>>,
    written: Mutex<Vec<Duration>>,
    delivered: Mutex<Vec<Duration>>,
}

/// `n` of the writes that are watched.
const FIRST: usize = 1_000_000_000;

impl Watch {
    /// Prints what was seen since the last report.
    fn report(&self, when: &str, server: &Server) {
        let written = std::mem::take(&mut *self.written.lock().expect("times"));
        let delivered = std::mem::take(&mut *self.delivered.lock().expect("times"));
        println!(
            "  {when:<10}  delivery {}  write {}  {} deliveries; server {}, {:.1} s of CPU, load {}",
            percentiles(delivered.clone()),
            percentiles(written),
            delivered.len(),
            memory(server.pid()),
            cpu(server.pid()),
            load(),
        );
    }
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: f64| {
        let index = (times.len() as f64 * share) as usize;
        times
            .get(index.min(times.len().saturating_sub(1)))
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1_000.0)
    };
    format!("p50 {:.2} ms p99 {:.2} ms max {:.2} ms", at(0.5), at(0.99), at(1.0))
}

/// One who writes, at an even pace.
fn write(address: SocketAddr, token: &str, watch: &Watch, over: &AtomicBool) {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_nodelay(true).expect("set");
    let began = Instant::now();
    let pace = Duration::from_millis(1_000 / WRITES);
    for n in 0.. {
        std::thread::sleep((pace * n).saturating_sub(began.elapsed()));
        if over.load(Ordering::Relaxed) {
            return;
        }
        let sent = Instant::now();
        watch.sent.lock().expect("times").push(sent);
        post(&mut stream, token, FIRST + n as usize, n as usize % 20);
        watch.written.lock().expect("times").push(sent.elapsed());
    }
}

/// Those who are live all the time.
fn live(address: SocketAddr, token: &str, watch: &Arc<Watch>, over: &Arc<AtomicBool>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut tasks = Vec::new();
        for _ in 0..LIVE {
            let opened = Socket::open(address, "schema=note&since=now", token).await;
            let mut socket = opened.expect("a subscription");
            let (watch, over) = (watch.clone(), over.clone());
            watch.ready.fetch_add(1, Ordering::Relaxed);
            tasks.push(tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let read = socket.read(|frame| match frame {
                        Frame::Text(message) => {
                            let Some(n) = n_of(message) else { return };
                            let now = Instant::now();
                            let sent = watch.sent.lock().expect("times")[n - FIRST];
                            watch.delivered.lock().expect("times").push(now - sent);
                        }
                        Frame::Ping => {}
                        Frame::Close(code, reason) => panic!("closed: {code} {reason}"),
                    });
                    let _ = tokio::time::timeout(Duration::from_millis(200), read).await;
                }
            }));
        }
        for task in tasks {
            task.await.expect("a live one");
        }
    });
}

/// The `n` of a message about a watched write.
fn n_of(message: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(message).ok()?;
    let digits = text.split_once("\"n\":")?.1;
    let digits = &digits[..digits.find(|c: char| !c.is_ascii_digit())?];
    digits.parse().ok().filter(|n| *n >= FIRST)
}

/// Those who come back.
struct Crowd {
    address: SocketAddr,
    token: Arc<str>,
    /// The newest entry before any of them came.
    newest: u64,
    began: Instant,
    opened: Mutex<Vec<Duration>>,
    caught_up: Mutex<Vec<Duration>>,
    messages: AtomicUsize,
    over: Arc<AtomicBool>,
}

impl Crowd {
    async fn come(self: Arc<Self>, query: String, opening: Arc<Semaphore>) {
        let mut socket = {
            let _turn = opening.acquire().await;
            let opened = Socket::open(self.address, &query, &self.token).await;
            opened.unwrap_or_else(|error| panic!("{query}: {error}"))
        };
        self.opened.lock().expect("times").push(self.began.elapsed());
        let mut there = false;
        let mut at = None;
        while !self.over.load(Ordering::Relaxed) {
            let read = socket.read(|frame| match frame {
                Frame::Text(message) => {
                    self.messages.fetch_add(1, Ordering::Relaxed);
                    if !there {
                        at = cursor(message);
                    }
                }
                Frame::Ping => {}
                Frame::Close(code, reason) => {
                    assert!(self.over.load(Ordering::Relaxed), "closed: {code} {reason}");
                }
            });
            if !read.await.unwrap_or(false) {
                assert!(self.over.load(Ordering::Relaxed), "{query}: the connection ended");
                return;
            }
            // A message of its own after the last old entry, or a position.
            if !there && at.is_some_and(|at| at.position >= self.newest) {
                there = true;
                self.caught_up.lock().expect("times").push(self.began.elapsed());
            }
        }
    }

    fn state(&self) -> String {
        let last = |times: &Mutex<Vec<Duration>>| {
            let times = times.lock().expect("times");
            let last = times.iter().max().map_or(f64::NAN, Duration::as_secs_f64);
            format!("{} (last after {last:.2} s)", times.len())
        };
        format!(
            "answered {}, caught up {}, {} messages",
            last(&self.opened),
            last(&self.caught_up),
            self.messages.load(Ordering::Relaxed)
        )
    }
}

/// As many open files as this process may have.
fn raise_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// What a process holds, and held at most (Linux).
fn memory(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    match (kib("VmRSS:"), kib("VmHWM:")) {
        (Some(now), Some(most)) => format!("{} MiB (at most {} MiB)", now >> 10, most >> 10),
        _ => "of unknown size".to_owned(),
    }
}

/// Seconds of processor time that a process has used (Linux, whose clock ticks 100 times a second).
fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields = after_name.split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// The machine's load in the last minute (Linux).
fn load() -> String {
    let mut text = String::new();
    let file = std::fs::File::open("/proc/loadavg");
    let _ = file.and_then(|mut file| file.read_to_string(&mut text));
    text.split(' ').next().unwrap_or_default().to_owned()
}
