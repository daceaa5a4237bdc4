//! One subscriber: connects, listens, falls asleep, drops off, comes back.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::ask::Question;
use crate::client::{Client, Told};
use crate::common::tungstenite::protocol::{CloseFrame, Message, Role, WebSocket};
use crate::common::tungstenite::{Bytes, Error, Utf8Bytes};
use crate::common::{HttpAnswer, PATIENCE};
use crate::rng::Rng;
use crate::world::Person;

/// What goes on around the subscribers.
#[derive(Default)]
pub struct Weather {
    /// Writers are done: everybody comes back and catches up with this position. 0: not yet.
    pub target: AtomicU64,
    /// How often the server was killed.
    pub kills: AtomicU64,
    /// How often rules or roles changed.
    pub changes: AtomicU64,
    /// The server is being started: nobody can connect.
    pub down: AtomicBool,
}

impl Weather {
    fn target(&self) -> Option<u64> {
        Some(self.target.load(Ordering::SeqCst)).filter(|target| *target > 0)
    }

    fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::SeqCst)
    }
}

type Socket = WebSocket<TcpStream>;

enum State {
    /// Waits for the next quiet point: a cursor was refused, rightly.
    Off,
    Away(Instant),
    On(Box<Socket>),
}

/// How a connection ended, or was not to be.
#[derive(Debug)]
enum End {
    Lost(#[expect(dead_code, reason = "shown in reports")] String),
    Closed(u16, String),
}

/// How a subscriber behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Drops off and comes back.
    pub flaky: bool,
    /// Stops reading for a while.
    pub slow: bool,
}

pub struct Subscriber {
    pub name: String,
    pub question: Question,
    pub told: Told,
    pub manner: Manner,
    pub client: Client,
    pub faults: Vec<String>,
    /// It has heard everything since the last quiet point.
    pub whole: bool,
    pub resumes: usize,
    pub ends: Vec<String>,
    /// The last messages as they came, for whoever reads a report.
    pub raw: Vec<String>,
    state: State,
    rng: Rng,
    asleep: Option<Instant>,
    /// Kills and changes that were known when it connected, or at the last quiet point.
    kills: u64,
    changes: u64,
    pinged: bool,
    ponged: bool,
    attempts: u32,
}

impl Subscriber {
    pub fn new(name: String, question: Question, told: Told, manner: Manner, rng: Rng) -> Self {
        Subscriber {
            name,
            question,
            told,
            manner,
            client: Client::default(),
            faults: Vec::new(),
            whole: false,
            resumes: 0,
            ends: Vec::new(),
            raw: Vec::new(),
            state: State::Off,
            rng,
            asleep: None,
            kills: 0,
            changes: 0,
            pinged: false,
            ponged: false,
            attempts: 0,
        }
    }

    pub fn is_off(&self) -> bool {
        matches!(self.state, State::Off)
    }

    /// Whether rules or roles changed since the last quiet point.
    pub fn unsettled(&self, weather: &Weather) -> bool {
        Weather::get(&weather.changes) != self.changes
    }

    /// At a quiet point: everything heard was compared.
    pub fn turn_over(&mut self, weather: &Weather) {
        self.client.heard.clear();
        self.whole = !self.is_off();
        (self.pinged, self.ponged, self.asleep) = (false, false, None);
        self.changes = Weather::get(&weather.changes);
        self.ends.clear();
    }

    /// Starts at a quiet point, with `view` as it is listed.
    pub fn start(&mut self, address: SocketAddr, people: &[Person], weather: &Weather) {
        self.client.start_over();
        self.client.complete = !self.told.snapshot;
        self.state = State::Away(Instant::now());
        self.attempts = 0;
        self.whole = true;
        self.step(address, people, weather);
    }

    /// Does what can be done without waiting; whether anything was.
    pub fn step(&mut self, address: SocketAddr, people: &[Person], weather: &Weather) -> bool {
        if !self.faults.is_empty() {
            return false;
        }
        match std::mem::replace(&mut self.state, State::Off) {
            State::Off => false,
            State::Away(until) => {
                let now = Instant::now();
                let wait = until > now && weather.target().is_none();
                if wait || weather.down.load(Ordering::SeqCst) {
                    self.state = State::Away(until);
                    return false;
                }
                self.kills = Weather::get(&weather.kills);
                match self.connect(address, &people[self.question.who]) {
                    Ok(socket) => self.state = State::On(Box::new(socket)),
                    Err(end) => self.ended(end, weather),
                }
                true
            }
            State::On(mut socket) => match self.listen(&mut socket, weather) {
                Ok(busy) => {
                    self.state = State::On(socket);
                    self.stray(weather);
                    busy
                }
                Err(end) => {
                    self.ended(end, weather);
                    true
                }
            },
        }
    }

    /// Whether it has heard everything up to the target, or never will.
    pub fn is_done(&self, weather: &Weather) -> bool {
        let Some(target) = weather.target() else { return false };
        match self.state {
            _ if !self.faults.is_empty() => true,
            State::Off => true,
            State::Away(_) => false,
            State::On(_) if self.told.cursors => {
                self.client.between() && self.client.position() >= Some(target)
            }
            State::On(_) => self.ponged,
        }
    }

    pub fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    fn connect(&mut self, address: SocketAddr, who: &Person) -> Result<Socket, End> {
        let lost = |error: std::io::Error| End::Lost(error.to_string());
        let path = format!("/api/realtime/content?{}", self.query());
        self.client.resume();
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(lost)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(lost)?;
        stream.set_nodelay(true).map_err(lost)?;
        let bearer = who.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n"));
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{}\r\n",
            bearer.unwrap_or_default()
        );
        stream.write_all(head.as_bytes()).map_err(lost)?;
        let answer = HttpAnswer::read(&mut stream).map_err(lost)?;
        if answer.status != 101 {
            // The few that are told before the handshake have the same meaning.
            return Err(End::Closed(4000 + answer.status, answer.text()));
        }
        stream.set_nonblocking(true).map_err(lost)?;
        self.raw(format!("-- connected: {path}"));
        self.resumes += usize::from(self.attempts > 0);
        self.attempts += 1;
        Ok(WebSocket::from_partially_read(stream, answer.body, Role::Client, None))
    }

    /// The question, how it is to be told, and from where.
    fn query(&mut self) -> String {
        let mut query = self.question.query();
        let Told { cursors, transitions, snapshot, changes, watch, event } = self.told;
        if let Some(event) = event {
            query += &format!("&event={event}");
        }
        if transitions && !snapshot {
            query += "&transitions=true";
        }
        if changes {
            query += "&changes=true";
        }
        if let Some(watch) = watch {
            query += &format!("&watch={watch}");
        }
        match &self.client.cursor {
            Some((cursor, _)) if self.client.complete => query += &format!("&since={cursor}"),
            _ if snapshot => self.client.start_over(),
            _ if cursors => query += "&since=now",
            _ => {}
        }
        if snapshot {
            query += "&snapshot=true";
        }
        query
    }

    fn listen(&mut self, socket: &mut Socket, weather: &Weather) -> Result<bool, End> {
        if let Some(until) = self.asleep {
            if Instant::now() < until && weather.target().is_none() {
                return Ok(false);
            }
            self.asleep = None;
        }
        if weather.target().is_some() && !self.told.cursors && !self.pinged {
            // What was told before it is answered, as everything takes one way out.
            let ping = Message::Ping(Bytes::from_static(b"done?"));
            let _ = socket.send(ping);
            self.pinged = true;
        }
        let mut busy = false;
        for _ in 0..50 {
            match socket.read() {
                Ok(Message::Text(text)) => {
                    busy = true;
                    self.message(&text, weather)?;
                }
                Ok(Message::Pong(payload)) if payload == b"done?"[..] => self.ponged = true,
                Ok(Message::Close(frame)) => return Err(closed(frame)),
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(End::Lost(error.to_string())),
            }
        }
        Ok(busy)
    }

    fn message(&mut self, text: &Utf8Bytes, weather: &Weather) -> Result<(), End> {
        self.raw(text.to_string());
        let restarts = self.client.restarts;
        let taken = serde_json::from_str::<Json>(text)
            .map_err(|error| error.to_string())
            .and_then(|message| self.client.take(&self.told, &message));
        let anew = self.client.restarts > restarts && !self.unsettled(weather);
        if taken.is_err() && !self.told.cursors && self.unsettled(weather) {
            // Without cursors one is not told what other rules take away or give.
            self.whole = false;
            return Err(End::Closed(4410, "its view is of other rules".into()));
        }
        if let Err(fault) = taken.and_then(|()| match anew {
            true => Err("a snapshot for a cursor that was good".to_owned()),
            false => Ok(()),
        }) {
            self.fault(fault);
            return Err(End::Lost("a fault".into()));
        }
        Ok(())
    }

    /// Falls asleep or drops off, now and then, while others write.
    fn stray(&mut self, weather: &Weather) {
        if weather.target().is_some() {
            return;
        }
        let soon =
            |rng: &mut Rng, most| Instant::now() + Duration::from_millis(rng.below(most) as u64);
        if self.manner.slow && self.asleep.is_none() && self.rng.below(300) == 0 {
            self.asleep = Some(soon(&mut self.rng, 900));
        }
        let ready = self.told.snapshot || self.client.cursor.is_some();
        if self.manner.flaky && ready && self.rng.below(200) == 0 {
            self.raw("-- dropped off".into());
            self.state = State::Away(soon(&mut self.rng, 700));
        }
    }

    fn ended(&mut self, end: End, weather: &Weather) {
        self.raw(format!("-- {end:?}"));
        self.ends.push(format!("{end:?}"));
        let killed =
            Weather::get(&weather.kills) != self.kills || weather.down.load(Ordering::SeqCst);
        let changed = self.unsettled(weather);
        let soon = Instant::now() + Duration::from_millis(20 + self.rng.below(150) as u64);
        let resumes = self.told.cursors && (self.told.snapshot || self.client.cursor.is_some());
        if !resumes {
            self.whole = false;
        }
        match end {
            _ if !self.faults.is_empty() => {}
            // Who does not read does not answer pings either.
            End::Lost(_) | End::Closed(1001 | 1006, _) if killed || self.manner.slow => {
                if resumes {
                    self.state = State::Away(soon);
                }
            }
            // It did not read for a while, or its line is full.
            End::Closed(4408, reason) => {
                if let Some((_, at)) = reason.split_once("resume from ")
                    && let Some((cursor, _)) = &self.client.cursor
                    && self.client.complete
                    && at != cursor
                {
                    self.fault(format!("4408 says {at}, the last cursor told was {cursor}"));
                } else if resumes {
                    self.state = State::Away(soon);
                }
            }
            End::Closed(4429, _) if resumes => self.state = State::Away(soon),
            End::Closed(code @ (4400 | 4401 | 4403 | 4410), _) if changed => {
                self.whole = false;
                // A snapshot is what is left to do; where even that is refused, nothing is.
                if self.told.snapshot && code == 4410 {
                    self.client.start_over();
                    self.state = State::Away(soon);
                }
            }
            end => self.fault(format!("ended: {end:?}")),
        }
    }

    fn raw(&mut self, line: String) {
        if self.raw.len() > 400 {
            self.raw.drain(..200);
        }
        self.raw.push(line);
    }
}

fn closed(frame: Option<CloseFrame>) -> End {
    match frame {
        Some(CloseFrame { code, reason }) => End::Closed(code.into(), reason.to_string()),
        None => End::Closed(1005, String::new()),
    }
}
