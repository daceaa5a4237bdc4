//! Connections that only wait: how fast they come up, what they hold, what is left of them.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::error::{Error, Result};

use super::client::Client;
use super::ledger::Side;
use super::options::Options;
use super::place::Bed;
use super::process::{Running, Usage};
use super::progress::Bar;
use super::report::{Told, figure, grouped};
use super::scenario::{self, asks};
use super::stats::median;

/// What is waited after the last handshake, before memory is looked at.
const REST: Duration = Duration::from_millis(500);

/// One coming and going of all.
#[derive(Clone, Debug, Serialize)]
struct Round {
    opened_per_second: f64,
    /// The server's processor time, in microseconds.
    cpu_us_per_handshake: Option<f64>,
    /// Bytes and open handles while all are there, and when they have gone.
    memory: Option<u64>,
    handles: Option<u64>,
    memory_after: Option<u64>,
    handles_after: Option<u64>,
}

/// Where connections lead.
struct Place<'a> {
    side: Side,
    address: std::net::SocketAddr,
    pid: Option<u32>,
    path: &'a str,
    headers: String,
}

/// As progress names it.
pub fn label(subscribers: usize) -> String {
    format!("idle, {} subscribers", grouped(subscribers as f64, 0))
}

/// Whether nothing is asked for that is of writes: by itself it has none.
///
/// # Errors
/// Something is.
pub fn check_alone(options: &Options) -> Result<()> {
    let of_writes = [
        ("--writers", !options.writers.is_empty()),
        ("--writes", options.writes.is_some()),
        ("--pace", options.pace.is_some()),
        ("--durable-floor", options.durable_floor),
    ];
    match of_writes.iter().find(|(_, asked)| *asked) {
        Some((name, _)) => Err(Error::bad(format!("idle: nobody writes; leave {name} out"))),
        None => Ok(()),
    }
}

/// Whether so many can be opened.
///
/// # Errors
/// They cannot.
pub fn check(subscribers: usize) -> Result<()> {
    match subscribers {
        0 => Err(Error::bad("idle: --subscribers 0 is nobody to wait")),
        _ => scenario::check_files("idle", subscribers),
    }
}

/// Opens so many subscriptions and closes them again, round by round.
pub fn run(subscribers: usize, options: &Options, bar: &Bar) -> Result<Told> {
    bar.say("idle: starting".into());
    let bed = Bed::make(options)?;
    let floor = match options.floor {
        true => Some(Running::floor(None)?),
        false => None,
    };
    let mut client = Client::new()?;
    let path = format!("/api/realtime/content?schema={}", bed.schema);
    let server = Place {
        side: Side::Server,
        address: bed.address,
        pid: bed.pid,
        path: &path,
        headers: bed.headers(),
    };
    let base = bed.pid.and_then(Usage::of);
    let (mut rounds, mut floors) = (Vec::new(), Vec::new());
    for number in 1..=options.pairs {
        let what = format!("idle: {number} of {}", options.pairs);
        if let Some(floor) = &floor {
            let place = Place {
                side: Side::Floor,
                address: floor.address,
                pid: Some(floor.pid()),
                path: "/",
                headers: bed.headers(),
            };
            floors.push(place.round(&mut client, subscribers, &format!("{what}, floor"), bar)?);
        }
        rounds.push(server.round(&mut client, subscribers, &what, bar)?);
    }
    let mut told = told(subscribers, base.as_ref(), &rounds, &floors);
    let ledger = client.ledger(Side::Server);
    told.whole = ledger.faults.is_none();
    told.json["faults"] = json!(ledger.faults);
    told.json["ended"] = json!(ledger.ended);
    told.table.push_str(&format!("\n  closed {}", ledger.faults.closed));
    if let Some(why) = &ledger.ended {
        told.table.push_str(&format!("\n  the first connection that ended: {why}"));
    }
    let ledger = client.ledger(Side::Floor);
    told.whole &= ledger.faults.is_none();
    told.json["floor_faults"] = json!(ledger.faults);
    told.json["floor_ended"] = json!(ledger.ended);
    if let Some(why) = &ledger.ended {
        told.table.push_str(&format!("\n  the floor's first connection that ended: {why}"));
    }
    Ok(told)
}

impl Place<'_> {
    fn round(
        &self,
        client: &mut Client,
        subscribers: usize,
        what: &str,
        bar: &Bar,
    ) -> Result<Round> {
        bar.say(what.to_owned());
        let before = self.pid.and_then(Usage::of);
        let all = (0..subscribers).map(|_| asks(0, self.path, &self.headers));
        let share = |done| done as f64 / subscribers as f64;
        let took = client.open(self.side, self.address, all, |done| bar.at(share(done)))?;
        let open = self.pid.and_then(Usage::of);
        client.rest(REST)?;
        let rested = self.pid.and_then(Usage::of);
        client.close_all()?;
        client.rest(REST)?;
        let after = self.pid.and_then(Usage::of);
        let cpu = before.zip(open).and_then(|(before, open)| open.cpu_since(&before));
        Ok(Round {
            opened_per_second: subscribers as f64 / took.as_secs_f64(),
            cpu_us_per_handshake: cpu.map(|cpu| cpu as f64 / 1e3 / subscribers as f64),
            memory: rested.as_ref().map(|usage| usage.memory),
            handles: rested.map(|usage| usage.handles),
            memory_after: after.as_ref().map(|usage| usage.memory),
            handles_after: after.map(|usage| usage.handles),
        })
    }
}

fn told(subscribers: usize, base: Option<&Usage>, rounds: &[Round], floors: &[Round]) -> Told {
    let rate = |rounds: &[Round]| median(rounds.iter().map(|round| round.opened_per_second));
    let cpu = median(rounds.iter().filter_map(|round| round.cpu_us_per_handshake));
    let pairs = rounds.iter().zip(floors);
    let ratio = median(pairs.map(|(ours, floor)| ours.opened_per_second / floor.opened_per_second));
    // Of the first round: later ones find memory that the allocator has kept.
    let each = base.zip(rounds.first().and_then(|round| round.memory));
    let each = each.map(|(base, open)| open.saturating_sub(base.memory) as f64);
    let each = each.map(|all| all / subscribers as f64);

    let mut lines = vec![format!(
        "idle: {} subscribers come and go {} times",
        grouped(subscribers as f64, 0),
        rounds.len()
    )];
    let mut line = |label: &str, value: Option<String>| {
        if let Some(value) = value {
            lines.push(format!("  {label:30}{value:>14}"));
        }
    };
    line("KiB per subscription", each.map(|bytes| figure(bytes / 1024.0)));
    line("subscriptions a second", rate(rounds).map(figure));
    line("the floor's", rate(floors).map(figure));
    line("ratio", ratio.map(figure));
    line("CPU us per handshake", cpu.map(figure));
    let series = |of: fn(&Round) -> Option<u64>, told: fn(u64) -> String| {
        let all: Option<Vec<String>> = rounds.iter().map(|round| Some(told(of(round)?))).collect();
        all.map(|all| all.join("  "))
    };
    let mib = |bytes| figure(bytes as f64 / f64::from(1 << 20));
    line("MiB before", base.map(|base| mib(base.memory)));
    line("MiB while all are there", series(|round| round.memory, mib));
    line("MiB when they have gone", series(|round| round.memory_after, mib));
    line("handles before", base.map(|base| base.handles.to_string()));
    line(
        "handles when they have gone",
        series(|round| round.handles_after, |handles| handles.to_string()),
    );
    Told {
        table: lines.join("\n"),
        json: json!({
            "scenario": "idle",
            "subscribers": subscribers,
            "memory_per_subscription": each,
            "opened_per_second": rate(rounds),
            "floor_opened_per_second": rate(floors),
            "ratio": ratio,
            "cpu_us_per_handshake": cpu,
            "memory_before": base.map(|base| base.memory),
            "handles_before": base.map(|base| base.handles),
            "rounds": {"server": rounds, "floor": floors},
        }),
        whole: true,
    }
}
