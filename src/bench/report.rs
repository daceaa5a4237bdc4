//! Results for people and for programs.

use serde_json::{Map, Value as Json, json};

use crate::error::Error;

use super::check::Faults;
use super::drive::{Milliseconds, Sample};
use super::machine::Machine;
use super::options::Options;
use super::scenario::Outcome;
use super::stats::median;

/// A figure that is told of every round.
struct Metric {
    key: &'static str,
    label: &'static str,
    of: fn(&Sample) -> Option<f64>,
    /// The largest of all rounds is told, not their median.
    most: bool,
    /// Whether it says something to divide it by the floor's.
    ratio: bool,
}

const fn metric(key: &'static str, label: &'static str, of: fn(&Sample) -> Option<f64>) -> Metric {
    Metric { key, label, of, most: false, ratio: true }
}

const fn most(key: &'static str, label: &'static str, of: fn(&Sample) -> Option<f64>) -> Metric {
    Metric { key, label, of, most: true, ratio: false }
}

const fn plain(key: &'static str, label: &'static str, of: fn(&Sample) -> Option<f64>) -> Metric {
    Metric { key, label, of, most: false, ratio: false }
}

const METRICS: &[Metric] = &[
    metric("cpu_us_per_delivery", "CPU us per delivery", |s| each(s.cpu_us?, s.deliveries)),
    metric("cpu_us_per_write", "CPU us per write", |s| each(s.cpu_us?, s.writes)),
    metric("deliveries_per_second", "deliveries a second", |s| {
        (s.deliveries > 0).then(|| s.deliveries as f64 / s.seconds)
    }),
    metric("writes_per_second", "writes a second", |s| Some(s.writes as f64 / s.seconds)),
    metric("delivery_ms_p50", "delivery ms p50", |s| p50(s.delivery_ms)),
    metric("delivery_ms_p99", "delivery ms p99", |s| p99(s.delivery_ms)),
    most("delivery_ms_max", "delivery ms at most", |s| max(s.delivery_ms)),
    metric("write_ms_p50", "write ms p50", |s| p50(s.write_ms)),
    metric("write_ms_p99", "write ms p99", |s| p99(s.write_ms)),
    most("write_ms_max", "write ms at most", |s| max(s.write_ms)),
    plain("memory_mib", "memory MiB", |s| mib(s.memory)),
    most("peak_memory_mib", "memory MiB at most", |s| mib(s.peak_memory)),
    plain("frame_bytes", "bytes of a frame", |s| s.frame_bytes),
    plain("cores", "cores it kept busy", |s| Some(s.cpu_us? / 1e6 / s.seconds)),
    plain("client_cores", "cores the generator did", |s| Some(s.client_cpu_us? / 1e6 / s.seconds)),
];

fn each(whole: f64, number: u64) -> Option<f64> {
    (number > 0).then(|| whole / number as f64)
}

fn p50(times: Option<Milliseconds>) -> Option<f64> {
    times.map(|times| times.p50)
}

fn p99(times: Option<Milliseconds>) -> Option<f64> {
    times.map(|times| times.p99)
}

fn max(times: Option<Milliseconds>) -> Option<f64> {
    times.map(|times| times.max)
}

fn mib(bytes: Option<u64>) -> Option<f64> {
    bytes.map(|bytes| bytes as f64 / f64::from(1 << 20))
}

/// Server over floor, pair by pair: what the machine does meanwhile, both had.
struct Ratio {
    median: f64,
    min: f64,
    max: f64,
}

impl Metric {
    fn told(&self, samples: &[Sample]) -> Option<f64> {
        let values = samples.iter().filter_map(self.of);
        if self.most { values.max_by(f64::total_cmp) } else { median(values) }
    }

    fn ratio(&self, outcome: &Outcome) -> Option<Ratio> {
        if !self.ratio {
            return None;
        }
        let pairs = outcome.server.iter().zip(&outcome.floor);
        let ratios: Vec<f64> = pairs
            .filter_map(|(server, floor)| Some((self.of)(server)? / (self.of)(floor)?))
            .filter(|ratio| ratio.is_finite())
            .collect();
        Some(Ratio {
            median: median(ratios.iter().copied())?,
            min: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            max: ratios.iter().copied().fold(0.0, f64::max),
        })
    }
}

/// A result for people and for programs, and whether all came as it should.
pub struct Told {
    pub table: String,
    pub json: Json,
    pub whole: bool,
}

/// What a scenario came to.
pub fn told(outcome: &Outcome) -> Told {
    Told {
        table: table(outcome),
        json: result(outcome),
        whole: outcome.faults.is_none() && outcome.floor_faults.is_none(),
    }
}

/// What the figures mean, above all tables.
pub fn legend(options: &Options) -> String {
    let mut lines = vec![
        "CPU and memory are the server's; ms run from the sending of a write to the reading of its \
         answer,\nor of its frame"
            .to_owned(),
    ];
    if options.floor {
        let stores = match options.durable_floor {
            true => "writes each record into a file, syncs it, and matches nothing",
            false => "stores and matches nothing",
        };
        lines.push(format!(
            "floor: the same frames by bare write() calls, from a process that {stores}\n\
             ratio: server by floor, the median over the rounds (least to most)"
        ));
    }
    lines.join("\n")
}

fn table(outcome: &Outcome) -> String {
    let Outcome { scenario, subscribers, writers, pace, .. } = outcome;
    let mut lines = vec![format!(
        "{scenario}: {} subscribers, {writers} {}, pace {pace}; medians of {} rounds",
        grouped(*subscribers as f64, 0),
        if *writers == 1 { "writer" } else { "writers" },
        outcome.server.len(),
    )];
    let with_floor = !outcome.floor.is_empty();
    if with_floor {
        let floor = if outcome.durable_floor { "durable floor" } else { "floor" };
        lines.push(format!("{:32}{:>14}{floor:>14}{:>10}", "", "server", "ratio"));
    }
    for metric in METRICS {
        let Some(server) = metric.told(&outcome.server) else { continue };
        let mut line = format!("  {:30}{:>14}", metric.label, figure(server));
        if with_floor {
            let floor = metric.told(&outcome.floor).map(figure).unwrap_or_default();
            line.push_str(&format!("{floor:>14}"));
            if let Some(Ratio { median, min, max }) = metric.ratio(outcome) {
                line.push_str(&format!("{median:>10.2}  ({min:.2} to {max:.2})"));
            }
        }
        lines.push(line);
    }
    let mut more = |label: &str, value: Option<f64>| {
        if let Some(value) = value {
            lines.push(format!("  {label:30}{:>14}", figure(value)));
        }
    };
    more("subscriptions a second", outcome.opened_per_second);
    more("KiB per idle subscription", outcome.memory_per_subscription.map(|bytes| bytes / 1024.0));
    lines.push(format!("  {}", told_faults(outcome.faults)));
    if let Some(why) = &outcome.ended {
        lines.push(format!("  the first connection that ended: {why}"));
    }
    if !outcome.floor_faults.is_none() {
        lines.push(format!("  the floor: {}", told_faults(outcome.floor_faults)));
    }
    if let Some(why) = &outcome.floor_ended {
        lines.push(format!("  the floor's first connection that ended: {why}"));
    }
    lines.join("\n")
}

/// How often what went wrong.
pub fn told_faults(faults: Faults) -> String {
    let Faults { missing, doubled, reordered, unexpected, closed } = faults;
    format!(
        "missing {missing}, doubled {doubled}, reordered {reordered}, unexpected {unexpected}, \
         closed {closed}"
    )
}

/// Three digits that count, and thousands apart.
pub fn figure(value: f64) -> String {
    let decimals = match value.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        value if value >= 1.0 => 2,
        _ => 3,
    };
    grouped(value, decimals)
}

pub fn grouped(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let whole = text.split('.').next().unwrap_or_default().len();
    let mut out = String::with_capacity(text.len() + 4);
    for (place, c) in text.chars().enumerate() {
        if place > 0 && place < whole && (whole - place) % 3 == 0 {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// One document of all that was run, and why there is no more.
pub fn document(all: Vec<Told>, machine: &Machine, error: Option<&Error>) -> Json {
    let results: Vec<Json> = all.into_iter().map(|told| told.json).collect();
    let mut document = json!({
        "rowcast": env!("CARGO_PKG_VERSION"),
        "command": std::env::args().skip(1).collect::<Vec<_>>(),
        "machine": machine.json(),
        "results": results,
    });
    if let Some(error) = error {
        document["error"] = json!(error.to_string());
    }
    document
}

fn result(outcome: &Outcome) -> Json {
    let medians = |samples: &[Sample]| {
        let told = METRICS.iter();
        let told = told.filter_map(|metric| Some((metric.key, metric.told(samples)?)));
        told.map(|(key, value)| (key.to_owned(), json!(value))).collect::<Map<_, _>>()
    };
    let ratios = METRICS.iter().filter_map(|metric| {
        let Ratio { median, min, max } = metric.ratio(outcome)?;
        Some((metric.key.to_owned(), json!({"median": median, "min": min, "max": max})))
    });
    json!({
        "scenario": outcome.scenario,
        "subscribers": outcome.subscribers,
        "writers": outcome.writers,
        "pace": outcome.pace,
        "server": medians(&outcome.server),
        "floor": medians(&outcome.floor),
        "ratio": ratios.collect::<Map<_, _>>(),
        "opened_per_second": outcome.opened_per_second,
        "memory_per_subscription": outcome.memory_per_subscription,
        "faults": outcome.faults,
        "ended": outcome.ended,
        "durable_floor": outcome.durable_floor,
        "floor_faults": outcome.floor_faults,
        "floor_ended": outcome.floor_ended,
        "rounds": {"server": outcome.server, "floor": outcome.floor},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        for (value, told) in [
            (0.0123, "0.012"),
            (4.567, "4.57"),
            (45.67, "45.7"),
            (456.7, "457"),
            (1_234_567.0, "1,234,567"),
            (123.0, "123"),
        ] {
            assert_eq!(figure(value), told);
        }
    }

    #[test]
    fn what_the_floor_did_wrong_is_the_floors() {
        let closed = Faults { closed: 2, ..Faults::default() };
        let mut outcome = Outcome {
            scenario: "broadcast",
            subscribers: 1,
            writers: 1,
            pace: "ack".into(),
            server: Vec::new(),
            floor: Vec::new(),
            faults: Faults::default(),
            ended: None,
            durable_floor: false,
            floor_faults: closed,
            floor_ended: Some("it left".into()),
            opened_per_second: None,
            memory_per_subscription: None,
        };
        let floors = told(&outcome);
        assert!(!floors.whole, "nothing to compare with");
        assert_eq!(
            (&floors.json["faults"]["closed"], &floors.json["ended"]),
            (&json!(0), &json!(null))
        );
        assert_eq!(floors.json["floor_faults"]["closed"], 2);
        assert!(floors.table.contains("the floor: missing 0") && floors.table.contains("it left"));
        outcome.floor_faults = Faults::default();
        outcome.floor_ended = None;
        let none = told(&outcome);
        assert!(none.whole && !none.table.contains("floor"), "{}", none.table);
    }
}
