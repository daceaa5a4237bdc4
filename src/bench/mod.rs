//! `rowcast bench`: a load generator that measures a server from outside, over real sockets, and
//! the floor beside it.

mod floor;
mod matching;

use std::process::ExitCode;

use crate::error::{Error, Result};

/// `rowcast bench SCENARIO`.
#[derive(clap::Args, Debug)]
pub struct Bench {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(clap::Subcommand, Debug)]
enum Scenario {
    /// Every change to every subscriber
    Broadcast(Options),
    /// What a change costs among many plans, in process and without a store
    Match(matching::Match),
    /// A server of bare write() calls, for --floor
    #[command(hide = true)]
    FloorServer(floor::FloorServer),
}

/// What the scenarios over sockets have in common.
#[derive(clap::Args, Clone, Debug)]
struct Options {
    /// Subscribers
    #[arg(long, value_name = "N")]
    subscribers: Option<usize>,
}

impl Bench {
    /// Runs the scenario; fails where a delivery was missing, doubled, reordered or wrong.
    pub fn run(&self) -> Result<ExitCode> {
        match &self.scenario {
            Scenario::Broadcast(options) => {
                Err(Error::bad(format!("{:?}: not measured yet", options.subscribers)))
            }
            Scenario::Match(matching) => matching.run(),
            Scenario::FloorServer(floor) => floor.run(),
        }
    }
}
