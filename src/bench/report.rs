//! Results for people and for programs.

use serde_json::{Map, Value as Json, json};

use super::drive::{Milliseconds, Sample};
use super::scenario::Outcome;
use super::stats::median;

/// A figure that is told of every round.
struct Metric {
    key: &'static str,
    label: &'static str,
    of: fn(&Sample) -> Option<f64>,
}

const METRICS: &[Metric] = &[
    Metric {
        key: "cpu_us_per_delivery",
        label: "CPU us per delivery",
        of: |s| each(s.cpu_us?, s.deliveries),
    },
    Metric {
        key: "cpu_us_per_write",
        label: "CPU us per write",
        of: |s| each(s.cpu_us?, s.writes),
    },
    Metric {
        key: "deliveries_per_second",
        label: "deliveries a second",
        of: |s| (s.deliveries > 0).then(|| s.deliveries as f64 / s.seconds),
    },
    Metric {
        key: "writes_per_second",
        label: "writes a second",
        of: |s| Some(s.writes as f64 / s.seconds),
    },
    Metric { key: "delivery_ms_p50", label: "delivery ms p50", of: |s| p50(s.delivery_ms) },
    Metric { key: "delivery_ms_p99", label: "delivery ms p99", of: |s| p99(s.delivery_ms) },
    Metric { key: "delivery_ms_max", label: "delivery ms max", of: |s| max(s.delivery_ms) },
    Metric { key: "write_ms_p50", label: "write ms p50", of: |s| p50(s.write_ms) },
    Metric { key: "write_ms_p99", label: "write ms p99", of: |s| p99(s.write_ms) },
    Metric { key: "write_ms_max", label: "write ms max", of: |s| max(s.write_ms) },
    Metric { key: "memory_mib", label: "memory MiB", of: |s| mib(s.memory) },
    Metric { key: "peak_memory_mib", label: "memory MiB at most", of: |s| mib(s.peak_memory) },
    Metric { key: "frame_bytes", label: "bytes of a frame", of: |s| s.frame_bytes },
    Metric {
        key: "client_cpu_us_per_write",
        label: "generator's CPU us per write",
        of: |s| each(s.client_cpu_us?, s.writes),
    },
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
    fn median(&self, samples: &[Sample]) -> Option<f64> {
        median(samples.iter().filter_map(self.of))
    }

    fn ratio(&self, outcome: &Outcome) -> Option<Ratio> {
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
    Told { table: table(outcome), json: result(outcome), whole: outcome.faults.is_none() }
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
        lines.push(format!("{:32}{:>14}{:>14}{:>10}", "", "server", "floor", "ratio"));
    }
    for metric in METRICS {
        let Some(server) = metric.median(&outcome.server) else { continue };
        let mut line = format!("  {:30}{:>14}", metric.label, figure(server));
        if with_floor {
            let floor = metric.median(&outcome.floor).map(figure).unwrap_or_default();
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
    let faults = outcome.faults;
    lines.push(format!(
        "  missing {}, doubled {}, reordered {}, unexpected {}, closed {}",
        faults.missing, faults.doubled, faults.reordered, faults.unexpected, faults.closed
    ));
    if let Some(why) = &outcome.ended {
        lines.push(format!("  the first connection that ended: {why}"));
    }
    lines.join("\n")
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

/// One document of all that was run.
pub fn document(all: Vec<Told>) -> Json {
    let results: Vec<Json> = all.into_iter().map(|told| told.json).collect();
    json!({
        "rowcast": env!("CARGO_PKG_VERSION"),
        "command": std::env::args().skip(1).collect::<Vec<_>>(),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "results": results,
    })
}

fn result(outcome: &Outcome) -> Json {
    let medians = |samples: &[Sample]| {
        let told = METRICS.iter();
        let told = told.filter_map(|metric| Some((metric.key, metric.median(samples)?)));
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
}
