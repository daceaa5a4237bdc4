//! What it came to, for people and for programs.

use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use super::super::check::Faults;
use super::super::report::{Told, figure, grouped, told_faults};
use super::super::stats::median;
use super::round::{Latency, Round};
use super::{Ground, Outcome};

/// What the figures mean, above the tables.
pub const LEGEND: &str = "\
fair: ms of a page's reading, of a lone write's answer, and of its frame, from the answer to the write
and from its sending; the p99 of fewer than a hundred is the longest
x quiet: by the mean of the quiet rounds before and behind, the median over the rounds (least to most)
computing (--floor): beside a process that only computes and never gives way, in as many threads, as
long and in as many pieces as the server and the burden's client did more than when it was quiet; in
the last column, what the burden does by what that does";

/// A latency that is told.
struct Metric {
    key: &'static str,
    label: &'static str,
    of: fn(&Round) -> Option<Latency>,
}

const METRICS: &[Metric] = &[
    Metric { key: "read_ms", label: "read", of: |round| round.read },
    Metric { key: "told_ms", label: "told after the answer", of: |round| round.told },
    Metric { key: "delivery_ms", label: "delivery", of: |round| round.delivery },
    Metric { key: "write_ms", label: "write", of: |round| round.write },
];

/// One figure of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Figure {
    P50,
    P99,
    Max,
}

const FIGURES: &[(Figure, &str)] =
    &[(Figure::P50, "p50"), (Figure::P99, "p99"), (Figure::Max, "max")];

impl Figure {
    fn of(self, latency: Latency) -> f64 {
        match self {
            Figure::P50 => latency.ms.p50,
            Figure::P99 => latency.ms.p99,
            Figure::Max => latency.ms.max,
        }
    }
}

/// A median with the least and the most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Ratio {
    median: f64,
    min: f64,
    max: f64,
}

impl Ratio {
    fn of(all: impl Iterator<Item = f64>) -> Option<Ratio> {
        let all: Vec<f64> = all.filter(|ratio| ratio.is_finite()).collect();
        Some(Ratio {
            median: median(all.iter().copied())?,
            min: all.iter().copied().fold(f64::INFINITY, f64::min),
            max: all.iter().copied().fold(0.0, f64::max),
        })
    }
}

/// One line of a table.
struct Row {
    key: String,
    label: String,
    quiet: Option<f64>,
    beside: Option<f64>,
    computing: Option<f64>,
    /// Of the rounds beside the burden, and beside the computing process, by the quiet ones.
    ratio: Option<Ratio>,
    computing_ratio: Option<Ratio>,
    /// Beside the burden by beside the computing process.
    by_computing: Option<Ratio>,
}

impl Outcome {
    fn rows(&self) -> Vec<Row> {
        let figures = METRICS
            .iter()
            .flat_map(|metric| FIGURES.iter().map(move |(figure, name)| (metric, *figure, *name)));
        figures.map(|(metric, figure, name)| self.row(metric, figure, name)).collect()
    }

    fn row(&self, metric: &Metric, figure: Figure, name: &str) -> Row {
        let of = |round: &Round| (metric.of)(round).map(|latency| figure.of(latency));
        let told = |rounds: &[Round]| {
            let values = rounds.iter().filter_map(of);
            match figure {
                Figure::Max => values.max_by(f64::total_cmp),
                _ => median(values),
            }
        };
        // The quiet rounds before and behind each.
        let calm: Vec<Option<f64>> = self
            .quiet
            .windows(2)
            .map(|pair| Some((of(pair.first()?)? + of(pair.last()?)?) / 2.0))
            .collect();
        let by_quiet = |rounds: &[Round]| {
            let pairs = rounds.iter().zip(&calm);
            let ratios = pairs.filter_map(|(round, calm)| Some(of(round)? / (*calm)?));
            Ratio::of(ratios).filter(|_| figure != Figure::Max)
        };
        let pairs = self.beside.iter().zip(&self.computing);
        let by_computing = pairs.filter_map(|(ours, other)| Some(of(ours)? / of(other)?));
        Row {
            key: format!("{}_{name}", metric.key),
            label: match figure {
                Figure::Max => format!("{} ms at most", metric.label),
                _ => format!("{} ms {name}", metric.label),
            },
            quiet: told(&self.quiet),
            beside: told(&self.beside),
            computing: told(&self.computing),
            ratio: by_quiet(&self.beside),
            computing_ratio: by_quiet(&self.computing),
            by_computing: Ratio::of(by_computing).filter(|_| figure != Figure::Max),
        }
    }

    fn table(&self) -> String {
        let controlled = !self.computing.is_empty();
        let middle = |rounds: &[Round], of: fn(&Round) -> Option<f64>| {
            median(rounds.iter().filter_map(of)).map(figure).unwrap_or_default()
        };
        let mut head = format!("{:36}{:>9}{:>9}  {:24}", "", "quiet", "beside", "x quiet");
        if controlled {
            head.push_str(&format!("{:>9}  {:24}{}", "computing", "x quiet", "beside : computing"));
        }
        let mut lines = vec![
            format!("fair, beside {}; {} rounds", self.title, self.beside.len()),
            head.trim_end().to_owned(),
        ];
        let cell = |value: Option<f64>| value.map(figure).unwrap_or_default();
        let ratio = |ratio: Option<Ratio>| {
            let told =
                |Ratio { median, min, max }: Ratio| format!("{median:.2} ({min:.2} to {max:.2})");
            ratio.map(told).unwrap_or_default()
        };
        for row in self.rows() {
            let mut line = format!(
                "  {:34}{:>9}{:>9}  {:24}",
                row.label,
                cell(row.quiet),
                cell(row.beside),
                ratio(row.ratio)
            );
            if controlled {
                line.push_str(&format!(
                    "{:>9}  {:24}{}",
                    cell(row.computing),
                    ratio(row.computing_ratio),
                    ratio(row.by_computing)
                ));
            }
            lines.push(line.trim_end().to_owned());
        }
        let mut plain = |label: &str, of: fn(&Round) -> Option<f64>| {
            let mut line = format!(
                "  {label:34}{:>9}{:>9}",
                middle(&self.quiet, of),
                middle(&self.beside, of)
            );
            if controlled {
                line.push_str(&format!("  {:24}{:>9}", "", middle(&self.computing, of)));
            }
            lines.push(line);
        };
        plain("reads a round", |round| round.read.map(|of| of.count as f64));
        plain("writes a round", |round| round.write.map(|of| of.count as f64));
        plain("deliveries a round", |round| round.delivery.map(|of| of.count as f64));
        plain("cores the server kept busy", |round| round.cores);
        plain("cores the burden's client did", |round| Some(round.burden_cores));
        let borne = |of: fn(&Round) -> Option<f64>| median(self.beside.iter().filter_map(of));
        let times = borne(|round| round.burden_per_second).zip(borne(|round| round.burden_ms));
        if let Some((rate, each)) = times {
            let (rate, each) = (figure(rate), figure(each));
            lines.push(format!("  the burden: {rate} times a second, {each} ms each"));
        } else if let Some(count) = borne(|round| Some(round.burden_count as f64)) {
            lines.push(format!("  the burden: {} of them", grouped(count, 0)));
        }
        lines.join("\n")
    }

    fn json(&self) -> Json {
        let rows = self.rows();
        let medians = |of: fn(&Row) -> Option<f64>| {
            let told = rows.iter().filter_map(|row| Some((row.key.clone(), json!(of(row)?))));
            told.collect::<Map<_, _>>()
        };
        let ratios = |of: fn(&Row) -> Option<Ratio>| {
            let told = rows.iter().filter_map(|row| Some((row.key.clone(), json!(of(row)?))));
            told.collect::<Map<_, _>>()
        };
        json!({
            "beside": self.burden.name(),
            "title": self.title,
            "quiet": medians(|row| row.quiet),
            "burden": medians(|row| row.beside),
            "computing": medians(|row| row.computing),
            "ratio": ratios(|row| row.ratio),
            "computing_ratio": ratios(|row| row.computing_ratio),
            "ratio_to_computing": ratios(|row| row.by_computing),
            "rounds": {
                "quiet": self.quiet, "burden": self.beside, "computing": self.computing,
            },
        })
    }
}

/// All of it.
pub fn told(
    subscribers: usize,
    ground: &Ground,
    outcomes: &[Outcome],
    rest: Faults,
    ended: Option<String>,
) -> Told {
    let (mut faults, mut computing) = (rest, Faults::default());
    for outcome in outcomes {
        outcome.quiet.iter().chain(&outcome.beside).for_each(|round| faults.add(round.faults));
        outcome.computing.iter().for_each(|round| computing.add(round.faults));
    }
    let mut parts: Vec<String> = outcomes.iter().map(Outcome::table).collect();
    let mut last = vec![format!(
        "fair: {} subscribers; {}",
        grouped(subscribers as f64, 0),
        told_faults(faults)
    )];
    if !computing.is_none() {
        last.push(format!("  beside the computing process: {}", told_faults(computing)));
    }
    if let Some(why) = &ended {
        last.push(format!("  the first connection that ended: {why}"));
    }
    parts.push(last.join("\n"));
    Told {
        table: parts.join("\n\n"),
        json: json!({
            "scenario": "fair",
            "subscribers": subscribers,
            "records": ground.records,
            "beside": outcomes.iter().map(Outcome::json).collect::<Vec<_>>(),
            "faults": faults,
            "ended": ended,
            "floor_faults": computing,
        }),
        whole: faults.is_none() && computing.is_none(),
    }
}
