//! One round: pages are read, single records written and told, whatever else goes on meanwhile.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::{Error, Result};

use super::super::check::Faults;
use super::super::client::Client;
use super::super::drive::{Length, Milliseconds, Target};
use super::super::ledger::Side;
use super::super::stats::{Histogram, Times};
use super::compute::Threads;

/// Connections that read.
const READERS: usize = 2;
/// What a reader waits after an answer, and what the writer does: from half to one and a half of
/// it, so that nobody keeps step with anybody.
const READ_PAUSE: Duration = Duration::from_millis(4);
const WRITE_PAUSE: Duration = Duration::from_millis(10);

/// Latencies as they are told.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    pub count: u64,
    #[serde(flatten)]
    pub ms: Milliseconds,
}

impl Latency {
    fn of(seen: &Histogram) -> Option<Latency> {
        let ms = seen.times().map(|times: Times| Milliseconds::from(times))?;
        Some(Latency { count: seen.count(), ms })
    }
}

/// What a round came to.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    pub seconds: f64,
    /// From the sending of a request for a page to its answer.
    pub read: Option<Latency>,
    /// From the answer to a write to its frame, and from its sending.
    pub told: Option<Latency>,
    pub delivery: Option<Latency>,
    /// From the sending of a write to its answer.
    pub write: Option<Latency>,
    /// Cores that the server kept busy, and those that the burden's client or the computing process
    /// did.
    pub cores: Option<f64>,
    pub burden_cores: f64,
    /// How many calls, replays or subscriptions the burden was; of the former, how many in a second
    /// and the median of how long each took. Of what computes, its threads.
    pub burden_count: u64,
    pub burden_per_second: Option<f64>,
    pub burden_ms: Option<f64>,
    pub faults: Faults,
    /// What the server's threads used.
    #[serde(skip)]
    pub server: Threads,
}

/// What is measured by.
pub struct Meter {
    pub client: Client,
    pub target: Target,
    /// The request for a page.
    pub page: Vec<u8>,
    pub length: Length,
    pub patience: Duration,
    pub random: u64,
}

impl Meter {
    /// Measures. `lives` tells whether what else goes on still does.
    pub fn round(
        &mut self,
        lives: impl Fn() -> bool,
        mut progress: impl FnMut(f64),
    ) -> Result<Round> {
        let side = Side::Server;
        self.client.set_writers(side, self.target.address, 1)?;
        self.client.set_readers(side, self.target.address, READERS)?;
        let ledger = self.client.ledger(side);
        ledger.begin();
        ledger.answers = Some(Vec::new());
        let server = self.target.pid.map(|pid| Threads::of(pid, None));
        let began = Instant::now();
        let mut shown = began;
        let mut next_read = [self.client.now(); READERS];
        let (mut next_write, mut writes) = (self.client.now(), 0);
        let mut is_writing = false;
        while !self.is_over(writes, began.elapsed()) {
            let now = self.client.now();
            if let Some(idle) = self.client.idle_since() {
                if is_writing {
                    (is_writing, writes) = (false, writes + 1);
                    next_write = idle + self.pause(WRITE_PAUSE);
                }
                if next_write <= now && !self.is_over(writes, began.elapsed()) {
                    self.target.send(&mut self.client, now)?;
                    is_writing = true;
                }
            }
            let mut due = if is_writing { u64::MAX } else { next_write };
            for (place, next) in next_read.iter_mut().enumerate() {
                let Some(idle) = self.client.reader_idle_since(place) else { continue };
                if idle > *next {
                    *next = idle + pause(READ_PAUSE, &mut self.random);
                }
                if *next <= now {
                    self.client.read(place, &self.page)?;
                    // Until it is answered, which is later.
                    *next = now;
                } else {
                    due = due.min(*next);
                }
            }
            let wait = Duration::from_nanos(due.saturating_sub(self.client.now()));
            self.client.turn(wait.min(Duration::from_millis(50)))?;
            if !lives() {
                return Err(Error::bad("what was to be borne has ended by itself"));
            }
            if shown.elapsed() > Duration::from_millis(100) {
                shown = Instant::now();
                progress(self.share(writes, began.elapsed()));
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        let after = self.target.pid.map(|pid| Threads::of(pid, None));
        let server = after.zip(server).map(|(after, before)| after.since(&before));
        self.wait_for_the_rest(lives)?;
        let ledger = self.client.ledger(side);
        ledger.answers = None;
        let known = |threads: &Threads| threads.cpu() as f64 / 1e9 / seconds;
        Ok(Round {
            seconds,
            read: Latency::of(&ledger.read),
            told: Latency::of(&ledger.told),
            delivery: Latency::of(&ledger.delivery),
            write: Latency::of(&ledger.written),
            cores: server.as_ref().map(known),
            burden_cores: 0.0,
            burden_count: 0,
            burden_per_second: None,
            burden_ms: None,
            faults: Faults {
                missing: ledger.due.saturating_sub(ledger.had),
                ..std::mem::take(&mut ledger.faults)
            },
            server: server.unwrap_or_default(),
        })
    }

    /// Until all that is under way is answered and all that is due has come.
    fn wait_for_the_rest(&mut self, lives: impl Fn() -> bool) -> Result<()> {
        let mut heard = (Instant::now(), (0, 0));
        loop {
            let reading = (0..READERS).filter(|r| self.client.reader_idle_since(*r).is_none());
            let waiting = reading.count() + self.client.writing();
            let ledger = self.client.ledger(Side::Server);
            if waiting == 0 && ledger.is_even() {
                return Ok(());
            }
            let now = (ledger.had, waiting);
            if now != heard.1 {
                heard = (Instant::now(), now);
            } else if heard.0.elapsed() > self.patience || !lives() {
                return Ok(());
            }
            self.client.turn(Duration::from_millis(50))?;
        }
    }

    fn pause(&mut self, about: Duration) -> u64 {
        pause(about, &mut self.random)
    }

    fn is_over(&self, writes: u64, passed: Duration) -> bool {
        match self.length {
            Length::Writes(number) => writes >= number,
            Length::Time(time) => passed >= time,
        }
    }

    fn share(&self, writes: u64, passed: Duration) -> f64 {
        match self.length {
            Length::Writes(number) => writes as f64 / number as f64,
            Length::Time(time) => passed.as_secs_f64() / time.as_secs_f64(),
        }
    }
}

/// About so long, in nanoseconds.
fn pause(about: Duration, random: &mut u64) -> u64 {
    *random =
        random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let about = about.as_nanos() as u64;
    about / 2 + (*random >> 33) % about.max(1)
}

/// Processor time of the calling process's threads but its first: the burden's.
pub fn burden_threads() -> Threads {
    let own = std::process::id();
    Threads::of(own, Some(own))
}
