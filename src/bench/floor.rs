//! The floor: a server that stores nothing, matches nothing and calls write() once per subscriber.

use std::process::ExitCode;

use crate::error::{Error, Result};

/// `rowcast bench floor-server`: prints its address as a line of JSON and serves until its
/// standard input ends.
#[derive(clap::Args, Debug)]
pub struct FloorServer {
    /// The port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
}

impl FloorServer {
    /// Serves on loopback.
    pub fn run(&self) -> Result<ExitCode> {
        Err(Error::bad(format!("no floor server on port {} yet", self.port)))
    }
}
