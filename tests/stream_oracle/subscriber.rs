//! One subscriber: connects, listens, falls asleep, drops off, comes back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::ask::Question;
use crate::client::{Client, Told};
use crate::rng::Rng;
use crate::wire::{End, Incoming, Kind, Wire};
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
    /// Commits that concern more than a few records end those who are told transitions, live and
    /// from the log; who takes a snapshot instead may get one there.
    pub few_dependants: bool,
    /// The log is trimmed early: who is away too long finds its cursor gone.
    pub trims: bool,
}

impl Weather {
    fn target(&self) -> Option<u64> {
        Some(self.target.load(Ordering::SeqCst)).filter(|target| *target > 0)
    }

    /// Whether an end has to be expected in this world.
    fn excuses(&self, told: &Told, code: u16, reason: &str) -> bool {
        code == 4410
            && (self.few_dependants && told.transitions && reason.contains("take a snapshot")
                || self.trims && reason.contains("older than the log keeps"))
    }

    fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::SeqCst)
    }
}

enum State {
    /// Waits for the next quiet point: a cursor was refused, rightly.
    Off,
    Away(Instant),
    On(Wire),
}

/// How a subscriber behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Drops off and comes back.
    pub flaky: bool,
    /// Stops reading for a while.
    pub slow: bool,
    /// How it is connected.
    pub by: Kind,
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
    /// Since the last quiet point a commit concerned too much to be told to it.
    pub untold: bool,
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
    /// Its cursor was, since the last quiet point.
    refused: bool,
    /// When it was last read, and whether that ever was too long ago to answer pings.
    listened: Instant,
    neglected: bool,
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
            untold: false,
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
            refused: false,
            listened: Instant::now(),
            neglected: false,
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
        (self.refused, self.untold) = (false, false);
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
                    Ok(wire) => self.state = State::On(wire),
                    Err(end) => self.ended(end, weather),
                }
                true
            }
            State::On(mut wire) => match self.listen(&mut wire, weather) {
                Ok(busy) => {
                    self.state = State::On(wire);
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

    /// Reads what has come, without straying.
    pub fn pump(&mut self, weather: &Weather) {
        match std::mem::replace(&mut self.state, State::Off) {
            State::On(mut wire) => match self.listen(&mut wire, weather) {
                Ok(_) => self.state = State::On(wire),
                Err(end) => self.ended(end, weather),
            },
            other => self.state = other,
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

    fn connect(&mut self, address: SocketAddr, who: &Person) -> Result<Wire, End> {
        let query = self.query();
        let since = match &self.client.cursor {
            Some((cursor, _)) if self.client.complete => Some(cursor.clone()),
            _ => (self.told.cursors && !self.told.snapshot).then(|| "now".to_owned()),
        };
        if self.told.snapshot && since.is_none() {
            self.client.start_over();
        }
        self.client.resume();
        let by = self.manner.by;
        let line = format!("-- connects: {query}&since={}", since.as_deref().unwrap_or_default());
        self.raw(line);
        let wire = Wire::connect(by, address, query, since.as_deref(), who.token.as_deref())?;
        (self.listened, self.neglected) = (Instant::now(), false);
        self.resumes += usize::from(self.attempts > 0);
        self.attempts += 1;
        Ok(wire)
    }

    /// The question, and how it is to be told.
    fn query(&self) -> String {
        let mut query = self.question.query();
        let Told { transitions, snapshot, changes, watch, event, .. } = self.told;
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
        if snapshot {
            query += "&snapshot=true";
        }
        query
    }

    fn listen(&mut self, wire: &mut Wire, weather: &Weather) -> Result<bool, End> {
        let hurry = weather.target().is_some();
        self.neglected |= self.listened.elapsed() > Duration::from_millis(800);
        self.listened = Instant::now();
        if let Some(until) = self.asleep {
            if Instant::now() < until && !hurry {
                return Ok(false);
            }
            self.asleep = None;
        }
        if hurry && !self.told.cursors && !self.pinged {
            // What was told before it is answered, as everything takes one way out.
            wire.ping();
            self.pinged = true;
        }
        let mut busy = false;
        for _ in 0..50 {
            let since = self.client.cursor.as_ref().map_or("now", |(cursor, _)| cursor);
            match wire.read(since, hurry)? {
                None => break,
                Some(Incoming::Pong) => self.ponged = true,
                Some(Incoming::Message(text)) => {
                    busy = true;
                    let message = serde_json::from_str(&text);
                    self.raw(text);
                    let message: Json = message.map_err(|error| End::Lost(error.to_string()))?;
                    let taken = self.client.take(&self.told, &message);
                    self.judge(taken, weather)?;
                }
                Some(Incoming::Page(page)) => {
                    self.raw(page.to_string());
                    let taken = self.client.take_page(&self.told, &page);
                    self.judge(taken, weather)?;
                }
            }
        }
        Ok(busy)
    }

    fn judge(&mut self, taken: Result<(), String>, weather: &Weather) -> Result<(), End> {
        let breaks = std::mem::take(&mut self.client.breaks) > 0;
        let anew = std::mem::take(&mut self.client.restarts) > 0
            && !self.unsettled(weather)
            && !weather.trims;
        self.untold |= weather.few_dependants && (anew || breaks);
        if taken.is_err() && !self.told.cursors && self.unsettled(weather) {
            // Without cursors one is not told what other rules take away or give.
            self.whole = false;
            return Err(End::Closed(4410, "its view is of other rules".into()));
        }
        let taken = taken.and_then(|()| match (anew, breaks) {
            _ if weather.few_dependants => Ok(()),
            (true, _) => Err("a snapshot for a cursor that was good".to_owned()),
            (_, true) => Err("a page that should not be".to_owned()),
            _ => Ok(()),
        });
        taken.map_err(|fault| {
            self.fault(fault);
            End::Lost("a fault".into())
        })
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
        let often = if self.told.snapshot { 50 } else { 200 };
        if self.manner.flaky && ready && self.rng.below(often) == 0 {
            self.raw("-- dropped off".into());
            if self.told.snapshot && self.rng.chance(60) {
                // One that lost its memory: another snapshot while others write.
                self.client.start_over();
            }
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
            // Who does not read, or has no turn to, does not answer pings either.
            End::Lost(_) | End::Closed(1001 | 4503, _)
                if killed || self.manner.slow || self.neglected =>
            {
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
            End::Closed(4410, _) if resumes && changed && !self.refused => {
                // Perhaps what changed is none of its concern: a rename, for instance.
                self.refused = true;
                self.state = State::Away(soon);
            }
            End::Closed(code @ (4400 | 4401 | 4403 | 4410), reason)
                if changed || weather.excuses(&self.told, code, &reason) =>
            {
                self.whole = false;
                self.untold |= reason.contains("take a snapshot");
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
