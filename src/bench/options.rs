//! What may be asked for.

use std::path::PathBuf;
use std::time::Duration;

use super::drive::{Length, Pace};

/// What the scenarios over sockets have in common.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Subscribers; several sizes with commas [default: the scenario's]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub subscribers: Vec<usize>,
    /// Connections that write at once; several numbers with commas [default: 1; of `writes` 1,64]
    #[arg(long, value_name = "N", value_delimiter = ',',
        value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub writers: Vec<u16>,
    /// When the next write is sent: `delivery` (all have the one before; one writer), `ack` (the
    /// one before is answered) or a number (so many a second) [default: delivery with one writer
    /// and somebody who listens, else ack]
    #[arg(long, value_name = "PACE", value_parser = pace)]
    pub pace: Option<Pace>,
    /// With `--pace ack`: how many writes deliveries may be behind, so that no queue overflows
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub ahead: u64,
    /// How long each round writes
    #[arg(long, value_name = "N", default_value_t = 2.0, value_parser = seconds)]
    pub seconds: f64,
    /// How many writes a round has, instead of a time
    #[arg(long, value_name = "N", conflicts_with = "seconds",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub writes: Option<u64>,
    /// Measures the floor too: the same frames from a process of bare write() calls, round by round
    /// in turn with the server
    #[arg(long)]
    pub floor: bool,
    /// Has the floor write each record into a file too, and sync that before it tells and answers
    /// (those that came together with one sync): what no durable server is spared
    #[arg(long, requires = "floor")]
    pub durable_floor: bool,
    /// Rounds; with --floor of both
    #[arg(long, value_name = "N", default_value_t = 6,
        value_parser = clap::value_parser!(u16).range(1..))]
    pub pairs: u16,
    /// Another build of the server to measure, instead of this one
    #[arg(long, value_name = "PROGRAM", conflicts_with = "url")]
    pub server: Option<PathBuf>,
    /// Where the server that is started, or the durable floor, keeps its data, in a folder of its own
    /// that is removed
    /// [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    pub dir: Option<PathBuf>,
    /// A server that runs already, e.g. http://127.0.0.1:8000; a schema is made there and removed
    /// with its records. The writes pass through the server's change log like all others
    #[arg(long, requires = "token_env")]
    pub url: Option<String>,
    /// The variable of the environment that holds an admin's token
    #[arg(long, value_name = "NAME", requires = "url")]
    pub token_env: Option<String>,
    /// The process of --url, if it is on this machine: for its processor time and memory
    #[arg(long, requires = "url")]
    pub pid: Option<u32>,
    /// Seconds of silence after which what has not come counts as missing
    #[arg(long, value_name = "N", default_value_t = 20.0, value_parser = seconds)]
    pub patience: f64,
    /// What the numbers in the records begin with
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// One JSON document instead of a table
    #[arg(long)]
    pub json: bool,
}

impl Options {
    /// How long a round is.
    pub fn length(&self) -> Length {
        match self.writes {
            Some(number) => Length::Writes(number),
            None => Length::Time(Duration::from_secs_f64(self.seconds)),
        }
    }

    /// How long silence is waited for.
    pub fn patience(&self) -> Duration {
        Duration::from_secs_f64(self.patience)
    }

    /// Where folders of servers are made.
    pub fn folder(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// How many subscribers, one run each.
    pub fn sizes(&self, otherwise: &[usize]) -> Vec<usize> {
        if self.subscribers.is_empty() { otherwise.to_vec() } else { self.subscribers.clone() }
    }

    /// How many writers, one run each.
    pub fn writers(&self, otherwise: &[u16]) -> Vec<usize> {
        let writers = if self.writers.is_empty() { otherwise } else { &self.writers };
        writers.iter().copied().map(usize::from).collect()
    }
}

fn pace(text: &str) -> Result<Pace, String> {
    match text {
        "delivery" => Ok(Pace::Delivery),
        "ack" => Ok(Pace::Ack),
        _ => match text.parse::<f64>() {
            Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(Pace::Rate(rate)),
            _ => Err("use 'delivery', 'ack' or a number of writes a second".into()),
        },
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("use a number of seconds between 0.01 and 86400".into()),
    }
}
