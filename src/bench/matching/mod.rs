//! `rowcast bench match`: what one change costs among many plans, in process.
//!
//! The registry and the fan-out that the server runs, without sockets and without a store: a commit of
//! one record is told among so many distinct plans, each with one subscription. All that the matcher
//! does is counted: which plans, the exact check of each, body and frame encoded, the frame offered.
//! Every size is measured in a process of its own, so that its memory is what the plans took.

mod cell;
mod stage;

use std::fmt::Write;
use std::io::Read as _;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use clap::ValueEnum as _;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

use super::client::look_for_interrupt;
use super::listen_for_interrupts;
use super::machine::warn_of_this;
use super::report::Told;
use super::started::end_with_parent;

use cell::{Cell, measure};
use stage::Family;

/// Which sizes are measured, and how they are told.
#[derive(clap::Args, Debug)]
pub struct Match {
    /// How many plans, with commas
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000,1000000")]
    plans: Vec<usize>,
    /// Which plans, with commas
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "equality,ranges,mixed,substrings"
    )]
    family: Vec<Family>,
    /// How long changes are told, for each size
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// One JSON document instead of a table
    #[arg(long)]
    json: bool,
    /// All sizes in this process
    #[arg(long, hide = true)]
    here: bool,
}

/// The document for machines.
#[derive(Serialize, Deserialize)]
struct Report {
    scenario: String,
    cells: Vec<Cell>,
}

impl Match {
    /// Measures and prints; fails where a change was not told to the plans that match.
    ///
    /// # Errors
    /// A size that makes no sense, or a process that could not be run.
    pub fn run(&self) -> Result<ExitCode> {
        if !self.here {
            listen_for_interrupts();
            warn_of_this();
        }
        let told = self.told()?;
        match self.json {
            true => print(&told.json.to_string()),
            false => print(&told.table),
        }
        Ok(if told.whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// All families among so many plans.
    pub fn among(plans: Vec<usize>, seconds: f64) -> Match {
        let family = Family::value_variants().to_vec();
        Match { plans, family, seconds, json: true, here: false }
    }

    /// Whether it can be run at all.
    ///
    /// # Errors
    /// It cannot.
    pub fn check(&self) -> Result<()> {
        match self.plans.contains(&0) {
            true => Err(Error::bad("--plans: 0 is nothing to match among")),
            false => Ok(()),
        }
    }

    /// Measures.
    ///
    /// # Errors
    /// As [`Match::run`].
    pub fn told(&self) -> Result<Told> {
        let time = Duration::try_from_secs_f64(self.seconds);
        let time = time.map_err(|error| Error::bad(format!("--seconds: {error}")))?;
        self.check()?;
        if self.here {
            end_with_parent()?;
        }
        let mut cells = Vec::new();
        for &family in &self.family {
            for &plans in &self.plans {
                match self.here {
                    true => cells.push(here(family, plans, time)?),
                    false => cells.extend(self.apart(family, plans)?.cells),
                }
            }
        }
        let (table, whole) = (table(&cells), cells.iter().all(|cell| cell.wrong == 0));
        let report = Report { scenario: "match".to_owned(), cells };
        let json = serde_json::to_value(&report).map_err(Error::internal)?;
        Ok(Told { table, json, whole })
    }

    /// One size in a process of its own. It shows its progress itself.
    fn apart(&self, family: Family, plans: usize) -> Result<Report> {
        let failed = |why: &dyn std::fmt::Display| {
            let (family, plans) = (family.name(), HumanCount(plans as u64));
            Error::bad(format!("{family}, {plans} plans: {why}"))
        };
        let program = std::env::current_exe().map_err(|error| failed(&error))?;
        let mut command = Command::new(program);
        command.args(["bench", "match", "--here", "--json", "--family", family.name()]);
        command.args(["--plans", &plans.to_string(), "--seconds", &self.seconds.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| failed(&error))?;
        let (sender, told) = mpsc::channel();
        if let Some(mut stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                let mut text = Vec::new();
                // What cannot be read is no report.
                let _ = stdout.read_to_end(&mut text);
                let _ = sender.send(text);
            });
        }
        let text = loop {
            match told.recv_timeout(Duration::from_millis(100)) {
                Ok(text) => break text,
                Err(RecvTimeoutError::Disconnected) => break Vec::new(),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Err(error) = look_for_interrupt() {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        let status = child.wait().map_err(|error| failed(&error))?;
        look_for_interrupt()?;
        // One that measured something wrong says so in what it tells.
        serde_json::from_slice(&text).map_err(|_| failed(&status))
    }
}

fn here(family: Family, plans: usize, time: Duration) -> Result<Cell> {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    let what = format!("match: {}, {} plans", family.name(), HumanCount(plans as u64));
    let cell = measure(family, plans, time, &|part| bar.set_message(format!("{what}: {part}")));
    bar.finish_and_clear();
    cell
}

/// A line to stdout. Whoever listens may have gone: that is no fault.
fn print(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

fn table(cells: &[Cell]) -> String {
    let mut out = String::from(
        "match: one change told among distinct plans, in process; microseconds (insert, remove: median)\n\
         plans                   p50      p99     mean   growth  matches   insert   p99.99      max   remove   p99.99      max  compile  bytes/plan\n",
    );
    let mut first: Option<&Cell> = None;
    for cell in cells {
        let begins = first.is_none_or(|first| first.family != cell.family);
        let smallest = if begins { cell } else { first.unwrap_or(cell) };
        first = Some(smallest);
        let growth = cell.change.p50_us / smallest.change.p50_us;
        let plans = HumanCount(cell.plans as u64).to_string();
        let bytes = cell.bytes_per_plan.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
        let _ = writeln!(
            out,
            "{:<10}{plans:>10} {:>8.2} {:>8.2} {:>8.2} {growth:>8.1} {:>8.1} {:>8.2} {:>8.0} {:>8.0} {:>8.2} {:>8.0} {:>8.0} {:>8.2} {bytes:>11}",
            cell.family,
            cell.change.p50_us,
            cell.change.p99_us,
            cell.change.mean_us,
            cell.matches,
            cell.insert.p50_us,
            cell.insert.p9999_us,
            cell.insert.max_us,
            cell.remove.p50_us,
            cell.remove.p9999_us,
            cell.remove.max_us,
            cell.compile_us,
        );
        if cell.wrong > 0 {
            let _ = writeln!(out, "  {} changes were not told to those who match", cell.wrong);
        }
    }
    out.trim_end().to_owned()
}
