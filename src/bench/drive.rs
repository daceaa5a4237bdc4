//! One stretch of writing at a pace, and what it cost.

use std::io::Write as _;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::Result;

use super::check::Faults;
use super::client::Client;
use super::feed::Feed;
use super::ledger::Side;
use super::process::{self, Usage};
use super::record::Template;
use super::stats::Times;

/// When the next write is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// When all have the one before.
    Delivery,
    /// When the one before is answered.
    Ack,
    /// So many a second.
    Rate(f64),
}

/// How long a stretch is.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    Writes(u64),
    Time(Duration),
}

/// A stretch of writing.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    pub pace: Pace,
    pub length: Length,
    pub writers: usize,
    /// How many writes the deliveries may be behind, on the average.
    pub ahead: u64,
    /// After so much silence, what has not come is missing.
    pub patience: Duration,
}

/// Where writes go.
pub struct Target {
    pub side: Side,
    pub address: std::net::SocketAddr,
    /// Whose processor time and memory are told.
    pub pid: Option<u32>,
    /// Up to the path of a write.
    pub path: String,
    /// Headers of every request, each with its line end.
    pub headers: String,
    /// What the floor sends.
    pub template: Option<Template>,
    /// Subscribers by class.
    pub sizes: Vec<u64>,
    pub feed: Feed,
}

/// What a stretch came to.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    pub seconds: f64,
    pub writes: u64,
    pub deliveries: u64,
    /// The server's processor time, in microseconds.
    pub cpu_us: Option<f64>,
    /// This generator's.
    pub client_cpu_us: Option<f64>,
    /// Bytes, at the end of the stretch and at most so far.
    pub memory: Option<u64>,
    pub peak_memory: Option<u64>,
    /// Of a frame with its header, on the average.
    pub frame_bytes: Option<f64>,
    /// Milliseconds from the sending of a write to its answer.
    pub write_ms: Option<Milliseconds>,
    /// Milliseconds from the sending of a write to the reading of its frame.
    pub delivery_ms: Option<Milliseconds>,
    pub faults: Faults,
}

/// Times as they are told.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Milliseconds {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl From<Times> for Milliseconds {
    fn from(times: Times) -> Milliseconds {
        let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6;
        Milliseconds { p50: ms(times.p50), p99: ms(times.p99), max: ms(times.max) }
    }
}

impl Stretch {
    /// Writes, and waits until everything that should come has come.
    pub fn run(
        &self,
        client: &mut Client,
        target: &mut Target,
        mut progress: impl FnMut(f64),
    ) -> Result<Sample> {
        let side = target.side;
        client.set_writers(side, target.address, self.writers)?;
        client.ledger(side).begin();
        let usage = target.pid.and_then(Usage::of);
        let own = process::own_cpu();
        let (began, start) = (Instant::now(), client.now());
        let mut writes = 0;
        let (mut shown, mut heard) = (began, (began, (0, 0)));
        while !self.is_over(writes, began.elapsed()) {
            while let Some(sent) = self.may_send(client, side, start, writes) {
                target.send(client, sent)?;
                writes += 1;
                if self.is_over(writes, began.elapsed()) {
                    break;
                }
            }
            let free = client.idle_since().is_some();
            client.turn(self.wait(free, client.now(), start, writes))?;
            let now = (client.ledger(side).had, writes);
            if now != heard.1 {
                heard = (Instant::now(), now);
            } else if heard.0.elapsed() > self.patience {
                break;
            }
            if shown.elapsed() > Duration::from_millis(100) {
                shown = Instant::now();
                progress(self.share(writes, began.elapsed()));
            }
        }
        while client.writing() > 0 || !client.ledger(side).is_even() {
            client.turn(Duration::from_millis(100))?;
            let now = (client.ledger(side).had, client.writing() as u64);
            if now != heard.1 {
                heard = (Instant::now(), now);
            } else if heard.0.elapsed() > self.patience {
                break;
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        let after = target.pid.and_then(Usage::of);
        let own = process::own_cpu().zip(own).map(|(after, before)| (after - before) as f64 / 1e3);
        let cpu = usage.zip(after.as_ref()).and_then(|(before, after)| after.cpu_since(&before));
        let ledger = client.ledger(side);
        Ok(Sample {
            seconds,
            writes,
            deliveries: ledger.had,
            cpu_us: cpu.map(|nanoseconds| nanoseconds as f64 / 1e3),
            client_cpu_us: own,
            memory: after.as_ref().map(|usage| usage.memory),
            peak_memory: after.map(|usage| usage.peak),
            frame_bytes: (ledger.frames > 0).then(|| ledger.bytes as f64 / ledger.frames as f64),
            write_ms: ledger.written.times().map(Milliseconds::from),
            delivery_ms: ledger.delivery.times().map(Milliseconds::from),
            faults: Faults {
                missing: ledger.due.saturating_sub(ledger.had),
                ..std::mem::take(&mut ledger.faults)
            },
        })
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

    /// When write number `writes` counts as sent, if it may be sent now.
    fn may_send(&self, client: &mut Client, side: Side, start: u64, writes: u64) -> Option<u64> {
        let (now, idle) = (client.now(), client.idle_since()?);
        match self.pace {
            Pace::Delivery => {
                (client.writing() == 0 && client.ledger(side).is_even()).then_some(now)
            }
            Pace::Ack => {
                let ledger = client.ledger(side);
                let behind = ledger.due.saturating_sub(ledger.had + ledger.lost);
                (writes == 0 || behind <= self.ahead * (ledger.due / writes)).then_some(now)
            }
            Pace::Rate(rate) => {
                let planned = start + (writes as f64 * 1e9 / rate) as u64;
                // Who found no writer free counts from when it should have been sent; who was only
                // woken late by this program's own clock does not.
                let sent = if idle > planned { planned } else { now };
                (planned <= now).then_some(sent)
            }
        }
    }

    /// How long it may be slept: where no writer is `free`, until an answer comes.
    fn wait(&self, free: bool, now: u64, start: u64, writes: u64) -> Duration {
        let most = Duration::from_millis(50);
        match self.pace {
            Pace::Rate(rate) if free => {
                let planned = start + (writes as f64 * 1e9 / rate) as u64;
                Duration::from_nanos(planned.saturating_sub(now)).min(most)
            }
            _ => most,
        }
    }
}

impl Target {
    /// Writes the next record.
    pub fn send(&mut self, client: &mut Client, sent: u64) -> Result<()> {
        let record = self.feed.next();
        let ledger = client.ledger(self.side);
        let mut receivers = 0;
        for class in self.feed.audience.concerned(&record) {
            receivers += match ledger.classes.get_mut(class as usize) {
                Some(class) => {
                    class.expected.push(record.sequence);
                    class.members
                }
                None => self.sizes.get(class as usize).copied().unwrap_or_default(),
            };
        }
        ledger.due += receivers;
        let mut body = Vec::with_capacity(512);
        match &self.template {
            Some(template) => template.message(record.sequence, sent, &mut body),
            None => record.create(sent, &mut body),
        }
        client.send(sent, |out| {
            // Into memory: it cannot fail.
            let _ = write!(out, "POST {}", self.path);
            if self.template.is_some() {
                let _ = write!(out, "?to={receivers}");
            }
            let _ = write!(
                out,
                " HTTP/1.1\r\n{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                self.headers,
                body.len()
            );
            out.extend_from_slice(&body);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_late_and_has_no_writer_waits_for_an_answer() {
        let stretch = Stretch {
            pace: Pace::Rate(100.0),
            length: Length::Writes(10),
            writers: 1,
            ahead: 1,
            patience: Duration::from_secs(1),
        };
        let (ms, long) = (1_000_000, Duration::from_millis(50));
        // The third write is due 20 ms after the start.
        let wait = |free, now| stretch.wait(free, now, 0, 2);
        assert_eq!(wait(true, 15 * ms), Duration::from_millis(5));
        assert_eq!(wait(true, 30 * ms), Duration::ZERO);
        assert_eq!(wait(false, 30 * ms), long);
        assert_eq!(Stretch { pace: Pace::Ack, ..stretch }.wait(true, 30 * ms, 0, 2), long);
    }
}
