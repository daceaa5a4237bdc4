//! What others may be held up by: each on a thread of its own, so that who is measured is not held
//! up by the generator.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::content::IMPORT_RECORDS;
use crate::error::{Error, Kind, Result};

use super::super::check::{Faults, Order, Seen};
use super::super::client::{PATIENCE, look_for_interrupt};
use super::super::feed::encode;
use super::super::record;
use super::super::scenario;
use super::super::stats::Histogram;
use super::super::wire;
use super::line::{Line, Stop};
use super::{Ground, LONE};

/// Subscribers that stop reading.
const STOPPED: usize = 10;
/// What each of them has waiting from the beginning, beside what its socket takes: records of this
/// many bytes, so many.
const STUFFING: (usize, usize) = (64 << 10, 24);
/// When they leave and others come, before their queues overflow.
const STOPPED_TIME: Duration = Duration::from_secs(5);

/// Records that a bulk update touches: the limit as it is by default.
pub const BULK: u64 = 10_000;

/// Text searches in one hostile filter; a filter may have 256 tests and groups.
const SEARCHES: usize = 240;
/// What a text search costs in the server's count.
const SEARCH_COST: u64 = 16;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Burden {
    /// Ten subscribers that stop reading, with full sockets
    Stopped,
    /// A subscriber that comes back with the first cursor of a long log, again and again
    Replay,
    /// Subscriptions of a user that cost as much as a user's may
    Filters,
    /// An import, in commits of 500 records
    Import,
    /// Updates of 10,000 records in one call each
    Bulk,
}

/// What a burden did.
#[derive(Clone, Default)]
pub struct Done {
    /// Calls, replays or subscriptions, and how long it went on in all.
    pub count: u64,
    pub seconds: f64,
    /// How long each call or replay took.
    pub times: Histogram,
    /// What it was told and should not have been, or the other way round.
    pub faults: Faults,
}

impl Burden {
    pub const ALL: [Burden; 5] =
        [Burden::Stopped, Burden::Replay, Burden::Filters, Burden::Import, Burden::Bulk];

    /// In tables.
    pub fn title(self, ground: &Ground) -> String {
        let grouped = super::super::report::grouped;
        match self {
            Burden::Stopped => format!("{STOPPED} subscribers that do not read"),
            Burden::Replay => format!("replays of {} entries", grouped(ground.records as f64, 0)),
            Burden::Filters => "a user's dear filters".into(),
            Burden::Import => format!("imports, a commit for {IMPORT_RECORDS} records"),
            Burden::Bulk => format!("updates of {} records", grouped(ground.bulk() as f64, 0)),
        }
    }

    /// In JSON and options.
    pub fn name(self) -> &'static str {
        match self {
            Burden::Stopped => "stopped",
            Burden::Replay => "replay",
            Burden::Filters => "filters",
            Burden::Import => "import",
            Burden::Bulk => "bulk",
        }
    }

    /// Begins, and comes back when it lasts on the server: all are there, or it was done once.
    pub fn begin(self, ground: &Arc<Ground>) -> Result<Working> {
        let stop = Stop::default();
        let (ready, is_ready) = mpsc::channel();
        let (ground, until) = (ground.clone(), stop.clone());
        let work = move || {
            let began = Instant::now();
            let mut work =
                Work { ground: &ground, stop: until, ready: Some(ready), done: Done::default() };
            let worked = match self {
                Burden::Stopped => work.stopped(),
                Burden::Replay => work.replay(),
                Burden::Filters => work.filters(),
                Burden::Import => work.import(),
                Burden::Bulk => work.bulk(),
            };
            worked.map(|()| Done { seconds: began.elapsed().as_secs_f64(), ..work.done })
        };
        let thread = std::thread::Builder::new().name(format!("burden-{}", self.name()));
        let thread =
            thread.spawn(work).map_err(|error| Error::bad(format!("a thread: {error}")))?;
        let working = Working { thread: Some(thread), stop };
        // Gone without a word: it failed, and says why at its end.
        loop {
            look_for_interrupt()?;
            match is_ready.recv_timeout(Duration::from_millis(100)) {
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Ok(()) => return Ok(working),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    working.end()?;
                    return Err(Error::bad("a burden ended before it began"));
                }
            }
        }
    }
}

/// A burden under way; it ends with its value.
pub struct Working {
    thread: Option<JoinHandle<Result<Done>>>,
    stop: Arc<AtomicBool>,
}

impl Working {
    /// Whether it goes on; it may have failed.
    pub fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends it; gives what it did.
    pub fn end(mut self) -> Result<Done> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(done)) => done,
            _ => Err(Error::bad("a burden's thread broke down")),
        }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Somebody else has failed already.
            let _ = thread.join();
        }
    }
}

struct Work<'a> {
    ground: &'a Ground,
    stop: Stop,
    /// Told when it lasts on the server.
    ready: Option<Sender<()>>,
    done: Done,
}

impl Work<'_> {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn is_ready(&mut self) {
        if let Some(ready) = self.ready.take() {
            // Whoever waits no longer has its own reason.
            let _ = ready.send(());
        }
    }

    /// Sleeps until it is to end, or for so long.
    fn wait(&self, time: Duration) {
        let until = Instant::now() + time;
        while self.goes_on() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Counts what began then. Once is enough to last on the server.
    fn count(&mut self, began: Instant) {
        self.done.count += 1;
        self.done.times.add(began.elapsed().as_nanos() as u64);
        self.is_ready();
    }

    fn handshake(&self, query: &str, headers: &str) -> Vec<u8> {
        let path = format!("/api/realtime/content?schema={}&{query}", self.ground.schema);
        scenario::asks(0, &path, headers).request
    }

    fn stopped(&mut self) -> Result<()> {
        let Ground { address, headers, .. } = self.ground;
        let filter = encode(&format!(r#"{{"number":{{"$gte":{LONE}}}}}"#));
        let handshake = self.handshake(&format!("event=create&filter={filter}"), headers);
        let (bytes, number) = STUFFING;
        // Behind all that are replayed, and not for those who are measured.
        let stuffing = json!({
            "sequence": self.ground.records + 1, "sent": 0, "kind": 0, "number": LONE + 1,
            "status": "open", "title": "", "content": "x".repeat(bytes),
        });
        let path = format!("/api/content/{}", self.ground.schema);
        let stuffing = request("POST", &path, headers, &stuffing.to_string());
        while self.goes_on() {
            let mut subscribers = Vec::with_capacity(STOPPED);
            for _ in 0..STOPPED {
                let mut line = Line::narrow(*address, &self.stop)?;
                if !line.subscribe(&handshake)? {
                    return Ok(());
                }
                subscribers.push(line);
                self.done.count += 1;
            }
            let mut writer = Line::to(*address, &self.stop)?;
            for _ in 0..number {
                writer.send(&stuffing)?;
                if writer.body()?.is_none() {
                    return Ok(());
                }
            }
            drop(writer);
            self.is_ready();
            self.wait(STOPPED_TIME);
        }
        Ok(())
    }

    fn replay(&mut self) -> Result<()> {
        let Ground { address, headers, cursor, records, .. } = self.ground;
        let filter = encode(&format!(r#"{{"sequence":{{"$lte":{records}}}}}"#));
        let query = format!("event=create&since={}&filter={filter}", encode(cursor));
        let handshake = self.handshake(&query, headers);
        while self.goes_on() {
            let began = Instant::now();
            let mut line = Line::to(*address, &self.stop)?;
            let (mut order, mut had) = (Order::default(), 0);
            let mut faults = Faults::default();
            let whole = line.subscribe(&handshake)?
                && line.frames(|message| {
                    let Some(told) = record::told(message) else {
                        return message.starts_with(br#"{"event":"position""#);
                    };
                    let seen = order.in_order(told.id);
                    faults.note(seen);
                    had += u64::from(matches!(seen, Seen::Good | Seen::Late));
                    // The position that says so may come half a second later.
                    had == *records
                })?;
            if whole {
                faults.missing = records.saturating_sub(had);
                faults.unexpected += had.saturating_sub(*records);
                self.done.faults.add(faults);
                self.count(began);
                // It may be gone already.
                let _ = line.send(&wire::CLOSE);
            }
        }
        Ok(())
    }

    fn filters(&mut self) -> Result<()> {
        let Ground { address, stranger, cost, .. } = self.ground;
        let searches: Vec<String> = absent_pairs()
            .take(SEARCHES)
            .map(|pair| format!(r#"{{"content":{{"$containsfold":"{pair}"}}}}"#))
            .collect();
        let mut lines = Vec::new();
        let mut left = *cost;
        for number in 1.. {
            let number_of = (left / SEARCH_COST).min(searches.len() as u64) as usize;
            if number_of == 0 || !self.goes_on() {
                break;
            }
            left -= number_of as u64 * SEARCH_COST;
            let searches = searches[..number_of].join(",");
            // One plan each: none is like another.
            let filter = format!(r#"{{"sequence":{{"$neq":-{number}}},"$or":[{searches}]}}"#);
            let query = format!("event=create&filter={}", encode(&filter));
            let mut line = Line::to(*address, &self.stop)?;
            match line.subscribe(&self.handshake(&query, stranger)) {
                // All that this server lets one user have.
                Err(error) if matches!(error.kind, Kind::Limited { .. }) && number > 1 => break,
                subscribed => subscribed?,
            };
            lines.push(line);
            self.done.count += 1;
        }
        self.is_ready();
        while self.goes_on() {
            self.wait(PATIENCE);
        }
        Ok(())
    }

    fn import(&mut self) -> Result<()> {
        let Some(path) = &self.ground.owner else {
            return Err(Error::bad("an import goes through its owner's socket"));
        };
        let record = |number| {
            let kind = number as u64 % 10;
            let record = record::Record { sequence: self.ground.records + 1, kind, number: kind };
            let mut body = Vec::new();
            record.create(0, &mut body);
            serde_json::from_slice::<Json>(&body).unwrap_or_default()
        };
        let records: Vec<Json> = (0..IMPORT_RECORDS).map(record).collect();
        let body = json!({"schema": self.ground.schema, "records": records});
        let headers = "Host: localhost\r\nConnection: close\r\n";
        let request = request("POST", "/owner/import", headers, &body.to_string());
        while self.goes_on() {
            let began = Instant::now();
            let mut line = Line::to_owner(path, &self.stop)?;
            line.send(&request)?;
            let Some(answer) = line.body()? else { return Ok(()) };
            let answer: Json = serde_json::from_slice(&answer).unwrap_or_default();
            if answer["data"]["created"].as_u64() != Some(IMPORT_RECORDS as u64) {
                return Err(Error::bad(format!("an import was answered {answer}")));
            }
            self.count(began);
        }
        Ok(())
    }

    fn bulk(&mut self) -> Result<()> {
        let Ground { address, headers, schema, .. } = self.ground;
        let number = self.ground.bulk();
        let filter = encode(&format!(r#"{{"id":{{"$lte":{number}}}}}"#));
        let path = format!("/api/content/{schema}/update?filter={filter}");
        let requests =
            [3, 7].map(|kind| request("PUT", &path, headers, &json!({"kind": kind}).to_string()));
        let mut line = Line::to(*address, &self.stop)?;
        for request in requests.iter().cycle() {
            if !self.goes_on() {
                break;
            }
            let began = Instant::now();
            line.send(request)?;
            let Some(answer) = line.body()? else { return Ok(()) };
            let answer: Json = serde_json::from_slice(&answer).unwrap_or_default();
            if answer["data"].as_u64() != Some(number) {
                return Err(Error::bad(format!("an update of {number} was answered {answer}")));
            }
            self.count(began);
        }
        Ok(())
    }
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\n{headers}Content-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Two letters in a row that no record's text has: nothing files a search for two.
fn absent_pairs() -> impl Iterator<Item = String> {
    let text = record::TEXT.to_lowercase();
    let letters = || 'a'..='z';
    let pairs = letters().flat_map(move |first| letters().map(move |second| [first, second]));
    pairs.map(|pair| pair.iter().collect::<String>()).filter(move |pair| !text.contains(pair))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_searches_enough_that_find_nothing() {
        assert!(absent_pairs().count() >= SEARCHES);
    }
}
