//! A scenario over sockets, from the first connection to the last sample.

use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, Result};

use super::check::Faults;
use super::client::{Asks, Client};
use super::drive::{Length, Pace, Sample, Stretch, Target};
use super::feed::{Audience, Feed};
use super::ledger::{Class, Side};
use super::options::Options;
use super::place::Bed;
use super::process::{self, Running, Usage};
use super::progress::Bar;
use super::record::{Record, Template};
use super::report::grouped;

/// What is to be run.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub audience: Audience,
    pub subscribers: usize,
    pub writers: usize,
    pub pace: Pace,
}

/// What it came to.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub scenario: &'static str,
    pub subscribers: usize,
    pub writers: usize,
    pub pace: String,
    /// A round each, in order.
    pub server: Vec<Sample>,
    pub floor: Vec<Sample>,
    /// Whether that writes and syncs too.
    pub durable_floor: bool,
    /// Of the whole run, beginning and end included.
    pub faults: Faults,
    /// Why the first connection that the server ended did.
    pub ended: Option<String>,
    /// The same of the floor: its figures are none to compare with then.
    pub floor_faults: Faults,
    pub floor_ended: Option<String>,
    /// Subscriptions a second while they came up.
    pub opened_per_second: Option<f64>,
    /// What one costs the server, in bytes, before anything was sent to it.
    pub memory_per_subscription: Option<f64>,
}

/// Writes of the rounds that are not counted.
const WARM: Duration = Duration::from_millis(500);

impl Scenario {
    /// Whether it can be run at all.
    ///
    /// # Errors
    /// It cannot.
    pub fn check(&self, options: &Options) -> Result<()> {
        let floors = if options.floor { self.floor_subscribers() } else { 0 };
        check_files(self.name, self.subscribers + floors + self.writers)?;
        match self.pace {
            Pace::Delivery if self.writers > 1 => {
                Err(Error::bad("--pace delivery is for one writer; use ack or a rate"))
            }
            Pace::Rate(rate) if 1.0 / rate >= options.patience => Err(Error::bad(format!(
                "--pace {rate}: {} seconds lie between two writes, and --patience gives up after {}",
                1.0 / rate,
                options.patience
            ))),
            _ => Ok(()),
        }
    }

    /// As progress names it.
    pub fn label(&self) -> String {
        let many = |number, what| format!(", {} {what}", grouped(number as f64, 0));
        let mut label = self.name.to_owned();
        if self.subscribers > 0 {
            label.push_str(&many(self.subscribers, "subscribers"));
        }
        if self.writers > 1 {
            label.push_str(&many(self.writers, "writers"));
        }
        label + ", pace " + &told(self.pace)
    }

    pub fn run(&self, options: &Options, bar: &Bar) -> Result<Outcome> {
        let label = self.label();
        bar.say(format!("{label}: starting"));
        let bed = Bed::make(options)?;
        let mut client = Client::new()?;
        let sizes = self.sizes(self.subscribers);
        client.ledger(Side::Server).classes = sizes.iter().map(|_| Class::default()).collect();

        let before = bed.pid.and_then(Usage::of);
        let query = |class| {
            let narrower = self.audience.query(class);
            format!("/api/realtime/content?schema={}&event=create{narrower}", bed.schema)
        };
        let took = self.open(&mut client, Side::Server, &bed, self.subscribers, query, bar)?;
        let grown = before.zip(bed.pid.and_then(Usage::of));
        let grown = grown.map(|(before, after)| after.memory.saturating_sub(before.memory) as f64);
        let some = self.subscribers > 0;

        let mut server = Target {
            side: Side::Server,
            address: bed.address,
            pid: bed.pid,
            path: format!("/api/content/{}", bed.schema),
            headers: bed.headers(),
            template: None,
            sizes,
            feed: Feed::new(self.audience, options.seed),
        };
        let stretch = Stretch {
            pace: self.pace,
            length: options.length(),
            writers: self.writers,
            ahead: options.ahead,
            patience: options.patience(),
        };
        let warm = Stretch { length: warm(options), ..stretch };
        bar.say(format!("{label}: warming up"));
        let mut faults = warm.run(&mut client, &mut server, |_| {})?.faults;
        let mut floor_faults = Faults::default();
        let mut floor = match options.floor {
            true => Some(self.floor(&mut client, &bed, options, bar)?),
            false => None,
        };
        if let Some((_, floor)) = &mut floor {
            floor_faults.add(warm.run(&mut client, floor, |_| {})?.faults);
        }

        let mut rounds = (Vec::new(), Vec::new());
        for round in 1..=options.pairs {
            if let Some((_, floor)) = &mut floor {
                bar.say(format!("{label}: floor, {round} of {}", options.pairs));
                rounds.1.push(stretch.run(&mut client, floor, |share| bar.at(share))?);
            }
            bar.say(format!("{label}: server, {round} of {}", options.pairs));
            rounds.0.push(stretch.run(&mut client, &mut server, |share| bar.at(share))?);
        }
        settle(&mut client)?;
        rounds.0.iter().for_each(|sample| faults.add(sample.faults));
        rounds.1.iter().for_each(|sample| floor_faults.add(sample.faults));
        faults.add(client.ledger(Side::Server).faults);
        floor_faults.add(client.ledger(Side::Floor).faults);
        Ok(Outcome {
            scenario: self.name,
            subscribers: self.subscribers,
            writers: self.writers,
            pace: told(self.pace),
            server: rounds.0,
            floor: rounds.1,
            durable_floor: options.durable_floor,
            faults,
            ended: client.ledger(Side::Server).ended.take(),
            floor_faults,
            floor_ended: client.ledger(Side::Floor).ended.take(),
            opened_per_second: some.then(|| self.subscribers as f64 / took.as_secs_f64()),
            memory_per_subscription: grown
                .filter(|_| some)
                .map(|all| all / self.subscribers as f64),
        })
    }

    /// Subscribers in each class.
    fn sizes(&self, subscribers: usize) -> Vec<u64> {
        let classes = self.audience.classes() as usize;
        (0..classes)
            .map(|class| (subscribers + classes - 1 - class) as u64 / classes as u64)
            .collect()
    }

    fn open(
        &self,
        client: &mut Client,
        side: Side,
        bed: &Bed,
        number: usize,
        path: impl Fn(u32) -> String,
        bar: &Bar,
    ) -> Result<Duration> {
        let headers = bed.headers();
        let classes = self.audience.classes().max(1) as usize;
        let address = bed.address;
        let all = (0..number).map(|place| {
            let class = (place % classes) as u32;
            asks(class, &path(class), &headers)
        });
        bar.say(format!("{}: subscribing", self.label()));
        client.open(side, address, all, |opened| bar.at(opened as f64 / number as f64))
    }

    /// Starts the floor, with subscribers of its own.
    fn floor(
        &self,
        client: &mut Client,
        bed: &Bed,
        options: &Options,
        bar: &Bar,
    ) -> Result<(Running, Target)> {
        let folder = options.durable_floor.then(|| options.folder());
        let running = Running::floor(folder.as_deref())?;
        let subscribers = self.floor_subscribers();
        let headers = bed.headers();
        let all = (0..subscribers).map(|_| asks(0, "/", &headers));
        bar.say(format!("{}: subscribing at the floor", self.label()));
        client.open(Side::Floor, running.address, all, |opened| {
            bar.at(opened as f64 / subscribers as f64);
        })?;
        let mut sample = std::mem::take(&mut client.ledger(Side::Server).sample);
        if self.subscribers == 0 {
            sample = Record { sequence: 0, kind: 0, number: 0 }.message();
        }
        let template = Template::of(&sample);
        let target = Target {
            side: Side::Floor,
            address: running.address,
            pid: Some(running.pid()),
            path: "/".into(),
            headers,
            template: Some(template.ok_or_else(|| Error::bad("the server has told no record"))?),
            sizes: self.sizes(self.subscribers),
            feed: Feed::new(self.audience, options.seed),
        };
        Ok((running, target))
    }

    /// As many as there are, but where one in thousands hears of a write, fewer do as well.
    fn floor_subscribers(&self) -> usize {
        match self.audience {
            Audience::Distinct(_) => self.subscribers.min(1_000),
            _ => self.subscribers,
        }
    }
}

/// Whether this process may have that many connections, and as many files beside.
pub fn check_files(name: &str, connections: usize) -> Result<()> {
    // As many as the server keeps for itself, and some.
    let (allowed, needed) = (process::raise_files(), connections as u64 + 140);
    if needed > allowed {
        return Err(Error::bad(format!(
            "{name}: {needed} open files are needed and {allowed} allowed; raise the hard limit \
             (ulimit -Hn) or ask for fewer --subscribers"
        )));
    }
    Ok(())
}

/// A handshake for this path.
pub fn asks(class: u32, path: &str, headers: &str) -> Asks {
    let request = format!(
        "GET {path} HTTP/1.1\r\n{headers}Connection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    Asks { class, request: request.into_bytes() }
}

fn warm(options: &Options) -> Length {
    match options.length() {
        Length::Writes(number) => Length::Writes(number.div_ceil(4).min(1_000)),
        Length::Time(time) => Length::Time(time.min(WARM)),
    }
}

/// Waits a moment for what should not come.
fn settle(client: &mut Client) -> Result<()> {
    for _ in 0..4 {
        client.turn(Duration::from_millis(50))?;
    }
    Ok(())
}

fn told(pace: Pace) -> String {
    match pace {
        Pace::Delivery => "delivery".into(),
        Pace::Ack => "ack".into(),
        Pace::Rate(rate) => format!("{rate} a second"),
    }
}
